//! The embedded inbox's directory: whether it can be used, lasts, and has room.

use std::path::Path;

use super::finding::Finding;
use crate::inbox::disk::KEEP_FREE_BYTES;
use crate::inbox::disk::look::{FileSystem, Look, look};
use crate::sizing::{Load, shown};

/// Looks at it, without opening the file as a node does.
pub(super) fn examine(dir: &Path, load: Load) -> Vec<Finding> {
    match look(dir) {
        Ok(found) => vec![directory(dir, &found), durability(dir, &found), room(&found, load)],
        Err(error) => vec![Finding::fail("directory", error.to_string())],
    }
}

fn directory(dir: &Path, found: &Look) -> Finding {
    let dir = dir.display();
    match found.file_bytes {
        Some(bytes) => Finding::ok("directory", format!("{dir} can be used; inbox.redb has {}", shown(bytes))),
        None => Finding::ok("directory", format!("{dir} can be used; it is still without inboxes")),
    }
}

fn durability(dir: &Path, found: &Look) -> Finding {
    let what = "durability";
    let (dir, elsewhere) = (dir.display(), "name a directory on a disk with --data-dir");
    match found.file_system {
        FileSystem::Memory => Finding::fail(
            what,
            format!("{dir} is in memory: a restart of the machine loses every pending payment; {elsewhere}"),
        ),
        FileSystem::Overlay => Finding::warn(
            what,
            format!("{dir} is a container's own layer: it goes with the container; mount a volume there"),
        ),
        FileSystem::Network => Finding::warn(
            what,
            format!("{dir} is on another machine: a 2xx is worth what that one's fsync is; {elsewhere}"),
        ),
        FileSystem::Other => {
            Finding::ok(what, "every 2xx is fsynced first; survives a crash of payrelay and of the machine")
        }
    }
}

fn room(found: &Look, load: Load) -> Finding {
    let what = "room";
    let free = shown(found.free_bytes);
    if found.free_bytes < KEEP_FREE_BYTES {
        let keep = shown(KEEP_FREE_BYTES);
        return Finding::fail(what, format!("{free} are free, and below {keep} no payment is taken; free some"));
    }
    if load.is_none() {
        return Finding::ok(
            what,
            format!(
                "{free} are free; compared with a load that --expect-clients, --expect-pending and --expect-ids tell"
            ),
        );
    }
    let needed = load.file_bytes();
    let most = (found.free_bytes - KEEP_FREE_BYTES).saturating_add(found.file_bytes.unwrap_or(0));
    let found = format!("{free} are free, the expected load takes about {}", shown(needed));
    match needed <= most {
        true => Finding::ok(what, found),
        false => Finding::warn(what, format!("{found}: payments will be refused (503); free some")),
    }
}
