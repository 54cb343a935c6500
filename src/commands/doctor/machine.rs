//! How many connections this machine can hold, what bounds it, and how to raise that.

use super::finding::Finding;
use crate::args::ServeArgs;
use crate::capacity::{self, Bound};

/// What is told how to get to where no number is expected.
const MANY_CLIENTS: usize = 30_000;

/// Looks at descriptors, threads and mappings.
pub(super) fn examine(args: &ServeArgs, expected_clients: usize) -> Vec<Finding> {
    let held = capacity::find(args.max_clients, args.max_http);
    let found = format!(
        "a node here holds {} clients and {} HTTP connections, bounded by {}",
        held.clients, held.http, held.bound
    );
    let wanted = expected_clients.max(args.max_clients.unwrap_or(0));
    let mend = |clients| raise(&capacity::bounds(), capacity::needed_for(clients, args.max_http));
    vec![if wanted > held.clients && args.max_clients == Some(held.clients) {
        Finding::warn("connections", format!("{found}; raise it, or start more nodes on one Redis"))
    } else if wanted > held.clients {
        let nodes = wanted.div_ceil(held.clients);
        Finding::warn(
            "connections",
            format!("{found}; for {wanted} clients: {}; or {nodes} nodes on one Redis", mend(wanted)),
        )
    } else if held.clients < MANY_CLIENTS && args.max_clients.is_none() {
        Finding::ok("connections", format!("{found}; for {MANY_CLIENTS}: {}", mend(MANY_CLIENTS)))
    } else {
        Finding::ok("connections", found)
    }]
}

/// How to get every bound up to so many connections.
fn raise(bounds: &[Bound], connections: usize) -> String {
    let low = bounds.iter().filter(|bound| bound.most < connections);
    let steps: Vec<String> = low.map(|bound| (bound.mend)(connections)).collect();
    steps.join(", ")
}
