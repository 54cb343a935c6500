//! Who the clients of a run are: a number, an id, and a duty for each. Senders, receivers and checker agree by this.

use crate::options::{Options, Profile};

/// What a client does with its payments.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Duty {
    /// Remembers what it processed, acknowledges, misbehaves in every way that the protocol allows for.
    Acks,
    /// Said `"ack":"auto"`: promise 1 ends for it at the socket, so only its order is checked.
    Auto,
    /// Sends acknowledgements that make no sense (F55); nothing may be lost for it that it did not itself
    /// acknowledge, and its payments are checked like everybody's else.
    Lies,
    /// Reads and acknowledges at once, always; no fault is aimed at it. Latency and liveness are measured with it.
    Canary,
}

/// How many clients of each further duty there are.
const AUTO: u32 = 2;
const LIARS: u32 = 3;

/// The number of clients: 0 to this, without it.
pub fn count(options: &Options) -> u32 {
    acking(options) + AUTO + liars(options) + 1
}

/// What this client does.
pub fn duty(options: &Options, client: u32) -> Duty {
    let (acking, liars) = (acking(options), liars(options));
    match client {
        _ if client < acking => Duty::Acks,
        _ if client < acking + AUTO => Duty::Auto,
        _ if client < acking + AUTO + liars => Duty::Lies,
        _ => Duty::Canary,
    }
}

/// The one canary.
pub fn canary(options: &Options) -> u32 {
    count(options) - 1
}

/// Its client id.
pub fn id(client: u32) -> String {
    format!("till-{client:03}")
}

fn acking(options: &Options) -> u32 {
    u32::try_from(options.clients).expect("a number of clients that a machine can hold")
}

fn liars(options: &Options) -> u32 {
    if options.profile == Profile::Hostile { LIARS } else { 0 }
}
