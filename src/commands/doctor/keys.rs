//! The files of keys and secrets: whether they can be used, and who else may read them.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::finding::Finding;
use crate::args::{ServeArgs, is_loopback};
use crate::auth::{ApiKeys, ClientSecrets, LoadError};

/// Looks at both.
pub(super) fn examine(args: &ServeArgs) -> Vec<Finding> {
    let keys = args.api_keys_file.as_deref();
    let secrets = args.client_secret_file.as_deref();
    let open_tcp = args.tcp.iter().map(|tcp| tcp.address).find(|tcp| !is_loopback(*tcp));
    vec![
        match keys {
            Some(file) => usable("API keys", file, ApiKeys::load(file)),
            None => without("API keys", "--api-keys-file", Some(args.http).filter(|http| !is_loopback(*http))),
        },
        match secrets {
            Some(file) => usable("secrets", file, ClientSecrets::load(file)),
            None => without("secrets", "--client-secret-file", open_tcp),
        },
    ]
}

/// `loaded` holds what is wrong with the file, and shows none of its content.
fn usable<T>(what: &'static str, path: &Path, loaded: Result<T, LoadError>) -> Finding {
    if let Err(error) = loaded {
        return Finding::fail(what, error.to_string());
    }
    let file = path.display();
    let about = path.metadata().ok().filter(|about| about.is_file());
    match about.map(|about| about.permissions().mode() & 0o7777) {
        Some(mode) if mode & 0o077 != 0 => {
            Finding::warn(what, format!("{file}: others may read it (mode {mode:04o}); run `chmod 600 {file}`"))
        }
        _ => Finding::ok(what, format!("{file} can be used, and only by its owner")),
    }
}

fn without(what: &'static str, flag: &str, open: Option<SocketAddr>) -> Finding {
    match open {
        Some(address) => {
            Finding::warn(what, format!("none: whoever reaches {address} is let in (--insecure); give {flag}"))
        }
        None => Finding::ok(what, "none; only this machine is served"),
    }
}
