//! What a request is for: the path and the query of its target, and the characters of a host.

use super::malformed;
use crate::http::Problem;

/// Path and query of the request target.
///
/// Source: RFC 9112, section 3.2. `#` has no place in a target, and readers differ on what it means there.
pub(super) fn split_target<'a>(method: &str, target: &'a str) -> Result<(&'a str, Option<&'a str>), Problem> {
    if !target.is_ascii() || target.contains('#') {
        return Err(malformed("a character that no target may have"));
    }
    // A host and a port, and no path. What is said to it is the service's, which may want a key first.
    if method == "CONNECT" {
        return Ok((target, None));
    }
    if target == "*" && method == "OPTIONS" {
        return Ok((target, None));
    }
    let local = match target.get(..7) {
        Some(scheme) if scheme.eq_ignore_ascii_case("http://") => behind_host(&target[7..])?,
        _ => target,
    };
    let (path, query) = match local.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (local, None),
    };
    match path {
        // Only behind a host: `GET ? HTTP/1.1` has no path at all.
        "" if local.len() < target.len() => Ok(("/", query)),
        _ if path.starts_with('/') => Ok((path, query)),
        _ => Err(malformed("the target is neither a path nor an http:// URL")),
    }
}

fn behind_host(rest: &str) -> Result<&str, Problem> {
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, local) = rest.split_at(end);
    if host.is_empty() || !host.bytes().all(is_host_byte) {
        return Err(malformed("the target's host is not a host"));
    }
    Ok(local)
}

/// What a host and its port are written with. Neither `@` nor `,`, which make readers differ on which host is meant.
pub(super) fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::super::tests::read;

    #[test]
    fn targets() {
        let target = |target: &str| {
            read(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"))
                .map(|head| (head.path().to_string(), head.query().map(ToString::to_string)))
        };
        let path = |path: &str| Ok((path.to_string(), None));
        let both = |path: &str, query: &str| Ok((path.to_string(), Some(query.to_string())));
        assert_eq!(target("/"), path("/"));
        assert_eq!(target("/a?"), both("/a", ""));
        assert_eq!(target("/a?b?c"), both("/a", "b?c"));
        assert_eq!(target("//a//"), path("//a//"));
        assert_eq!(target("http://host:80/a/b?c"), both("/a/b", "c"));
        assert_eq!(target("HTTP://host"), path("/"));
        assert_eq!(target("http://host?q"), both("/", "q"));
        assert_eq!(target("http://[::1]:80/"), path("/"));
        let bad = Err((400, "bad_request"));
        for refused in [
            "a",
            "?a",
            "*",
            "host:80",
            "https://host/",
            "http:///a",
            "http://",
            "http://u@host/",
            "http:/a",
            "/a#b",
            "/\u{e9}",
            "/\x7f",
        ] {
            assert_eq!(target(refused), bad, "{refused}");
        }
        let options = read("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n").expect("it is valid");
        assert_eq!(options.path(), "*");
    }

    #[test]
    fn after_a_connect_the_connection_ends() {
        let connect = read("CONNECT host:443 HTTP/1.1\r\nHost: host:443\r\n\r\n").expect("it is valid");
        assert_eq!((connect.path(), connect.query(), connect.keep_alive()), ("host:443", None, false));
    }
}
