//! `payrelay notify-url`: prints the path that a payment gateway is given for a client.

use super::{Failure, print};
use crate::args::NotifyUrlArgs;
use crate::auth::ClientSecrets;

/// Prints the path for `args.client`, made with the first secret of the file. What stands before it is whatever address
/// the gateway reaches the node under.
///
/// # Errors
///
/// The secret file cannot be used ([`Failure::Usage`]), or standard output.
pub fn run(args: &NotifyUrlArgs) -> Result<(), Failure> {
    let secrets = ClientSecrets::load(&args.client_secret_file).map_err(|error| Failure::Usage(error.to_string()))?;
    let token = secrets.notify_token(args.client.as_str());
    print(format!("/v1/gateways/{}/{}/{token}\n", args.profile, args.client).as_bytes()).map(|_| ())
}
