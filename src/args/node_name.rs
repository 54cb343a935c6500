//! A node's name: what it may be, and which one a node has that was given none.
//!
//! Whether another node has it already is left to the lease in `inbox`.

use super::UsageError;
use super::report::shown;

/// As a client id, for it stands where one may.
pub(crate) const MAX_NODE_NAME_BYTES: usize = 128;

/// The node's name where `--node` does not give one: `till-host:8080`.
///
/// `port` is the HTTP port that was really bound. What a name may not hold becomes `-`.
pub fn default_node_name(port: u16) -> String {
    let system = rustix::system::uname();
    node_name_of(&system.nodename().to_string_lossy(), port)
}

fn node_name_of(host: &str, port: u16) -> String {
    let port = format!(":{port}");
    let keep = |c: char| if is_name_character(c) { c } else { '-' };
    let host: String = host.chars().map(keep).collect();
    let host = if host.is_empty() { "node" } else { &host };
    let fits = host.len().min(MAX_NODE_NAME_BYTES - port.len());
    format!("{}{port}", &host[..fits])
}

fn is_name_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._:@-".contains(c)
}

pub(super) fn node_name(text: &str) -> Result<String, UsageError> {
    let has_length = (1..=MAX_NODE_NAME_BYTES).contains(&text.len());
    if has_length && text != "." && text != ".." && text.chars().all(is_name_character) {
        return Ok(text.to_owned());
    }
    Err(UsageError(format!(
        "`{}` is no node name; give 1 to {MAX_NODE_NAME_BYTES} characters of A-Z a-z 0-9 . _ : @ - (but not `.` or `..`)",
        shown(text)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_named_after_its_host_and_port() {
        assert_eq!(node_name_of("till-host", 8080), "till-host:8080");
        assert_eq!(node_name_of("a b/ü", 1), "a-b--:1");
        assert_eq!(node_name_of("", 1), "node:1");
        let long = node_name_of(&"x".repeat(300), 65535);
        assert_eq!(long.len(), 128);
        for name in [long, default_node_name(8080), "n1".into()] {
            assert_eq!(node_name(&name), Ok(name));
        }
        for name in ["", ".", "..", "a b", "ü", &"x".repeat(129)] {
            assert!(node_name(name).is_err(), "{name}");
        }
    }
}
