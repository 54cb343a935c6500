//! The API keys: whose key a request shows, and what it may do.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use hmac::Mac;
use hmac::digest::CtOutput;

use super::file::{LoadError, WrongLine, check_length, read_file, secret_lines};
use super::{HmacSha256, MAX_AUTHORIZATION_BYTES, keyed, random};

/// What a key may be allowed. Each route asks for exactly one of these, and none includes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Posts payments and asks what became of them.
    Send,
    /// Looks at clients and metrics.
    Read,
    /// Changes what others rely on.
    Admin,
}

impl Right {
    const ALL: [Right; 3] = [Right::Send, Right::Read, Right::Admin];

    /// As the keys file says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Right::Send => "send",
            Right::Read => "read",
            Right::Admin => "admin",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Who shows a key: its name, which is not the key, and what it may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// Its line in the file.
    line: Option<usize>,
    rights: u8,
}

impl Asker {
    /// Whoever asks where no key is wanted.
    pub const ANYBODY: Asker = Asker { line: None, rights: u8::MAX };

    /// Whether its key allows this.
    pub fn may(&self, right: Right) -> bool {
        self.rights & right.bit() != 0
    }
}

impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "key {line}"),
            None => f.write_str("no key"),
        }
    }
}

/// The API keys that HTTP requests may show.
// Kept as hashes under a key of this process: equal in length, so that a comparison tells nothing
// about a key's length, and of no use to who reads them in a core dump elsewhere.
pub struct ApiKeys {
    hash: HmacSha256,
    keys: Vec<HashedKey>,
}

struct HashedKey {
    /// Compared in constant time by its `==`.
    hash: CtOutput<HmacSha256>,
    asker: Asker,
}

impl ApiKeys {
    /// Reads a key a line, what it may do behind it; blank lines and lines that begin with `#` are skipped.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or a line is not a key; the message never shows it.
    pub fn load(file: &Path) -> Result<ApiKeys, LoadError> {
        ApiKeys::read(&read_file(file, "API keys")?).map_err(|wrong| wrong.within(file))
    }

    /// Whose key an `Authorization` header shows: `Bearer`, one blank, the key. `None`: nobody's.
    pub fn asker(&self, authorization: Option<&str>) -> Option<Asker> {
        let header = authorization.filter(|text| text.len() <= MAX_AUTHORIZATION_BYTES)?;
        let (scheme, key) = header.split_once(' ')?;
        let shown = self.hash.clone().chain_update(key).finalize();
        let mut found = None;
        for known in &self.keys {
            // All are compared: how long it takes must not tell which key it was.
            if shown == known.hash {
                found = Some(known.asker);
            }
        }
        found.filter(|_| scheme.eq_ignore_ascii_case("Bearer"))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn read(text: &str) -> Result<ApiKeys, WrongLine> {
        let hash = keyed(&random::<32>());
        let (mut keys, mut seen) = (Vec::new(), HashSet::new());
        for (number, line) in secret_lines(text) {
            let wrong = |what| Err(WrongLine { number, what });
            let mut words = line.split_ascii_whitespace();
            let key = words.next().unwrap_or_default();
            if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
                return wrong("an API key holds visible ASCII characters only; make one with `openssl rand -hex 32`");
            }
            check_length(key, number)?;
            let asker = Asker { line: Some(number), rights: rights(words, number)? };
            let hash = hash.clone().chain_update(key).finalize();
            // Whichever line counted, somebody would have meant the other.
            if !seen.insert(*hash.as_bytes()) {
                return wrong("this key stands on an earlier line too; leave one of them");
            }
            keys.push(HashedKey { hash, asker });
        }
        if keys.is_empty() {
            return Err(WrongLine::none_at_all());
        }
        Ok(ApiKeys { hash, keys })
    }
}

/// What the words behind a key allow; none: everything.
fn rights<'a>(words: impl Iterator<Item = &'a str>, number: usize) -> Result<u8, WrongLine> {
    let mut rights = 0;
    for word in words {
        let Some(right) = Right::ALL.into_iter().find(|right| right.as_str() == word) else {
            // Not skipped: a key meant for sending only must not open everything. Not shown: it may be a key.
            let what = "behind the API key stands something else than send, read and admin, \
                        separated by blanks; leave only these";
            return Err(WrongLine { number, what });
        };
        rights |= right.bit();
    }
    Ok(if rights == 0 { u8::MAX } else { rights })
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKeys({} keys)", self.keys.len())
    }
}

#[cfg(test)]
mod tests {
    use super::super::MAX_SECRET_BYTES;
    use super::super::tests::{KEY, OTHER, keys};
    use super::Right;

    #[test]
    fn only_a_configured_key_is_known() {
        let keys = keys(&format!("# senders\n\n{KEY}\r\n  {OTHER}\n"));
        for good in [format!("Bearer {KEY}"), format!("bearer {OTHER}"), format!("BEARER {KEY}")] {
            assert!(keys.asker(Some(&good)).is_some(), "{good}");
        }
        for bad in [
            String::new(),
            "Bearer".into(),
            "Bearer ".into(),
            KEY.into(),
            format!("Basic {KEY}"),
            format!("Bearer  {KEY}"),
            format!("Bearer\t{KEY}"),
            format!(" Bearer {KEY}"),
            format!("Bearer {KEY} "),
            format!("Bearer {KEY},Bearer {KEY}"),
            format!("Bearer {}", &KEY[1..]),
            format!("Bearer {}", KEY.to_uppercase()),
            "Bearer # senders".into(),
            format!("Bearer {}", "x".repeat(65_536)),
        ] {
            assert_eq!(keys.asker(Some(&bad)), None, "{bad}");
        }
        assert_eq!(keys.asker(None), None);
    }

    #[test]
    fn a_key_may_what_stands_behind_it() {
        for (words, may) in [
            ("", "send read admin"),
            ("send", "send"),
            ("read", "read"),
            ("admin", "admin"),
            (" \tread  send ", "send read"),
            ("admin read send send", "send read admin"),
        ] {
            let keys = keys(&format!("# one\n\n{KEY} {words}\n"));
            let asker = keys.asker(Some(&format!("Bearer {KEY}"))).expect("a known key");
            let allowed: Vec<_> = Right::ALL.into_iter().filter(|&r| asker.may(r)).map(Right::as_str).collect();
            assert_eq!(allowed.join(" "), may, "{words:?}");
            assert_eq!(asker.to_string(), "key 3", "its name is its line");
            assert!(keys.asker(Some(&format!("Bearer {KEY} {words}"))).is_none() || words.is_empty());
        }
    }

    #[test]
    fn the_longest_key_fits_its_header() {
        let key = "k".repeat(MAX_SECRET_BYTES);
        assert!(keys(&key).asker(Some(&format!("Bearer {key}"))).is_some());
    }
}
