//! Who may do what: API keys for HTTP, tokens for clients, and the files they come from.
//!
//! Whoever compares a secret does so here, in constant time. Values only: no thread, no socket;
//! which of them are in force is left to `gate`.
//!
//! Source: README.md, *Configuration*: files, tokens, what needs keys.

use std::collections::HashSet;
use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use data_encoding::HEXLOWER;
use hmac::digest::CtOutput;
use hmac::{Hmac, KeyInit, Mac};
use rustix::rand::{GetRandomFlags, getrandom};
use sha2::Sha256;

type HmacSha256 = Hmac<Sha256>;

/// Fewer could be guessed.
pub(crate) const MIN_SECRET_CHARS: usize = 16;
/// A key must fit into the header that carries it.
pub(crate) const MAX_SECRET_BYTES: usize = 512;
/// Room for the longest key, and blanks before it; nothing longer is hashed.
pub(crate) const MAX_AUTHORIZATION_BYTES: usize = 1024;
/// Room for two thousand of the longest keys; a larger file is some other one.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 20;
/// Of SHA-256.
const TOKEN_HEX_DIGITS: usize = 64;
/// What is hashed before the client id for the token in a notify URL, so that it is not the client's own.
const NOTIFY: &str = "notify:";
/// A URL is typed into a gateway's form: half of the hash is enough there.
const NOTIFY_HEX_DIGITS: usize = 32;

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

    fn read(text: &str) -> Result<ApiKeys, WrongLine> {
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
            let what = "behind the API key stands something else than send, read and admin, separated by blanks; leave only these";
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

/// The secrets that clients' tokens are made of: the first makes them, all are accepted.
pub struct ClientSecrets {
    secrets: Vec<HmacSha256>,
}

impl ClientSecrets {
    /// Reads a secret a line; blank lines and lines that begin with `#` are skipped.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or a line is too short; the message never shows it.
    pub fn load(file: &Path) -> Result<ClientSecrets, LoadError> {
        ClientSecrets::read(&read_file(file, "client secrets")?).map_err(|wrong| wrong.within(file))
    }

    /// The token of a client: the lower-case hex HMAC-SHA256 of its id under the first secret.
    pub fn token(&self, client: &str) -> String {
        let mac = self.secrets[0].clone().chain_update(client);
        HEXLOWER.encode(&mac.finalize().into_bytes())
    }

    /// Whether `token` is this client's, under any of the secrets.
    pub fn verify(&self, client: &str, token: &str) -> bool {
        token.len() == TOKEN_HEX_DIGITS && self.made(client, token)
    }

    /// The token in a client's notify URLs: the first half of the lower-case hex HMAC-SHA256 of `notify:` and its id,
    /// under the first secret.
    pub fn notify_token(&self, client: &str) -> String {
        let mut token = self.token(&format!("{NOTIFY}{client}"));
        token.truncate(NOTIFY_HEX_DIGITS);
        token
    }

    /// Whether `token` is that of this client's notify URLs, under any of the secrets.
    pub fn verify_notify(&self, client: &str, token: &str) -> bool {
        token.len() == NOTIFY_HEX_DIGITS && self.made(&format!("{NOTIFY}{client}"), token)
    }

    /// Whether the MAC of `text` under any of the secrets begins with these hex digits.
    fn made(&self, text: &str, digits: &str) -> bool {
        let Ok(shown) = HEXLOWER.decode(digits.as_bytes()) else {
            return false;
        };
        let mut found = false;
        for secret in &self.secrets {
            let mac = secret.clone().chain_update(text);
            found |= mac.verify_truncated_left(&shown).is_ok();
        }
        found
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.secrets.len()
    }

    fn read(text: &str) -> Result<ClientSecrets, WrongLine> {
        let mut secrets = Vec::new();
        for (number, line) in secret_lines(text) {
            if line.chars().any(char::is_control) {
                let what = "a client secret holds no control characters; make one with `openssl rand -hex 32`";
                return Err(WrongLine { number, what });
            }
            check_length(line, number)?;
            secrets.push(keyed(line.as_bytes()));
        }
        if secrets.is_empty() {
            return Err(WrongLine::none_at_all());
        }
        Ok(ClientSecrets { secrets })
    }
}

impl fmt::Debug for ClientSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientSecrets({} secrets)", self.secrets.len())
    }
}

/// Why a file of keys or secrets cannot be used: one line, which shows none of them.
#[derive(Debug)]
pub struct LoadError {
    message: String,
    source: Option<io::Error>,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for LoadError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|error| error as _)
    }
}

/// Bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("the kernel gives no random bytes: {error}"),
        }
    }
    bytes
}

/// A line that is not what the file should hold.
#[derive(Debug)]
struct WrongLine {
    number: usize,
    what: &'static str,
}

impl WrongLine {
    fn none_at_all() -> Self {
        WrongLine { number: 1, what: "the file holds no line to use; put one in with `openssl rand -hex 32`" }
    }

    fn within(self, file: &Path) -> LoadError {
        LoadError { message: format!("{}, line {}: {}", file.display(), self.number, self.what), source: None }
    }
}

/// The lines that count, each with its number.
fn secret_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = text.lines().enumerate();
    numbered
        .map(|(index, line)| (index + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

fn check_length(secret: &str, number: usize) -> Result<(), WrongLine> {
    let what = if secret.chars().count() < MIN_SECRET_CHARS {
        "shorter than 16 characters; make a longer one with `openssl rand -hex 32`"
    } else if secret.len() > MAX_SECRET_BYTES {
        "longer than 512 bytes; make a shorter one with `openssl rand -hex 32`"
    } else {
        return Ok(());
    };
    Err(WrongLine { number, what })
}

fn keyed(key: &[u8]) -> HmacSha256 {
    HmacSha256::new_from_slice(key).expect("HMAC takes a key of any length")
}

/// The whole of a file with secrets; warns where others may read it.
fn read_file(path: &Path, what: &str) -> Result<String, LoadError> {
    let failed = |mend: &str, source: io::Error| LoadError {
        message: format!("cannot read the {what} in {}: {mend}", path.display()),
        source: Some(source),
    };
    let unreadable = |error: io::Error| {
        let mend = format!("{}; check the path and the file's owner", plainly(&error));
        failed(&mend, error)
    };
    let file = File::open(path).map_err(unreadable)?;
    let about = file.metadata().map_err(unreadable)?;
    let mode = about.permissions().mode() & 0o7777;
    // A pipe (`<(pass payrelay)`) has a mode too, but nobody else can open it.
    if about.is_file() && mode & 0o077 != 0 {
        let file = path.display();
        log::warn!("{file}: others may read the {what} (mode {mode:04o}); run `chmod 600 {file}`");
    }
    let mut text = String::new();
    let read = file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text);
    match read {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(failed("not a text file (UTF-8); give one with a line each", error))
        }
        Err(error) => Err(unreadable(error)),
        Ok(count) if count as u64 > MAX_FILE_BYTES => {
            let error = io::Error::from(io::ErrorKind::FileTooLarge);
            Err(failed("larger than 1 MiB; give a file with a line each", error))
        }
        Ok(_) => Ok(text),
    }
}

/// What went wrong, without Rust's "(os error 2)".
fn plainly(error: &io::Error) -> String {
    let text = error.to_string();
    let end = text.find(" (os error").unwrap_or(text.len());
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0123456789abcdef-sender";
    const OTHER: &str = "fedcba9876543210-admin";

    fn keys(text: &str) -> ApiKeys {
        ApiKeys::read(text).expect("good keys")
    }

    fn secrets(text: &str) -> ClientSecrets {
        ClientSecrets::read(text).expect("good secrets")
    }

    /// Source: RFC 4231, sections 4.2, 4.3, 4.4 and 4.7.
    #[test]
    fn hmac_gives_the_published_values() {
        let cases: [(&[u8], &[u8], &str); 4] = [
            (&[0x0b; 20], b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (&[0xaa; 20], &[0xdd; 50], "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
            (
                &[0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ];
        for (key, data, expected) in cases {
            let mac = keyed(key).chain_update(data).finalize().into_bytes();
            assert_eq!(HEXLOWER.encode(&mac), expected);
        }
    }

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

    #[test]
    fn a_token_is_the_mac_of_the_client_id() {
        // printf 01 | openssl dgst -sha256 -hmac payrelay-test-secret
        let expected = "b8c5202da3cd921efb3e965251ea332cd22c41edaffdda8a5b255bc965a1c9d8";
        let secrets = secrets("payrelay-test-secret\n");
        assert_eq!(secrets.token("01"), expected);
        assert!(secrets.verify("01", expected));
    }

    #[test]
    fn a_token_opens_one_client_only() {
        let secrets = secrets(KEY);
        let token = secrets.token("01");
        assert!(!secrets.verify("02", &token));
        for bad in [
            String::new(),
            token.to_uppercase(),
            token[1..].into(),
            format!("{token}0"),
            format!("{}g", &token[1..]),
            "ä".repeat(32),
            "0".repeat(64),
        ] {
            assert!(!secrets.verify("01", &bad), "{bad}");
        }
        let every = "ABCXYZabcxyz0189._:@-";
        assert!(secrets.verify(every, &secrets.token(every)));
    }

    #[test]
    fn a_notify_token_is_half_the_mac_of_its_own_text() {
        // printf notify:01 | openssl dgst -sha256 -hmac payrelay-test-secret
        let expected = "dc3f7ece5db29e299043b6ffc4cbd0e6";
        let secrets = secrets("payrelay-test-secret\n");
        assert_eq!(secrets.notify_token("01"), expected);
        assert!(secrets.verify_notify("01", expected));
        let token = secrets.token("notify:01");
        for bad in ["", &expected[1..], &expected.to_uppercase(), &token, &secrets.token("01")[..32], &"g".repeat(32)] {
            assert!(!secrets.verify_notify("01", bad), "{bad}");
        }
        assert!(!secrets.verify_notify("02", expected));
    }

    #[test]
    fn a_secret_is_changed_without_a_gap() {
        let (old, both) = (secrets(KEY), secrets(&format!("{OTHER}\n{KEY}")));
        assert!(both.verify("01", &old.token("01")));
        assert_eq!(both.token("01"), secrets(OTHER).token("01"));
        assert!(!old.verify("01", &both.token("01")));
        assert!(both.verify_notify("01", &old.notify_token("01")));
        assert!(!old.verify_notify("01", &both.notify_token("01")));
    }

    #[test]
    fn a_bad_line_is_named_and_never_shown() {
        for (text, says) in [
            ("", "line 1"),
            ("# only a comment\n", "no line to use"),
            ("0123456789abcdef\nhunter2\n", "line 2: shorter than 16"),
            ("hunter2-0123456789 send,read", "send, read and admin"),
            ("hunter2-0123456789 # me", "line 1: behind the API key"),
            ("hunter2-0123456789 Send", "leave only these"),
            ("0123456789abcdef hunter2-0123456789", "leave only these"),
            ("hunter2-0123456789 read\n\nhunter2-0123456789", "line 3: this key stands on an earlier line"),
            ("hunter2-0123456789-ü", "visible ASCII"),
            ("\u{feff}hunter2-0123456789", "visible ASCII"),
            (&"hunter2".repeat(100), "longer than 512"),
        ] {
            let wrong = ApiKeys::read(text).expect_err("a bad line");
            let error = wrong.within(Path::new("/etc/keys")).to_string();
            assert!(error.contains(says), "{error}");
            assert!(error.contains("/etc/keys"), "{error}");
            assert!(!error.contains("hunter2") && !error.contains('\n'));
        }
        assert!(ClientSecrets::read("hunter2").is_err());
        assert!(ClientSecrets::read("0123456789\u{7}abcdef").is_err());
        assert!(ClientSecrets::read("#\n").is_err());
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let error = ApiKeys::load(Path::new("/no/such/file")).expect_err("no such file");
        let line = error.to_string();
        assert!(line.contains("/no/such/file") && line.contains("check the path"));
        assert!(error.source().is_some());
        assert!(ClientSecrets::load(Path::new("/")).is_err());
    }

    #[test]
    fn debug_shows_no_secret() {
        assert_eq!(format!("{:?}", keys(KEY)), "ApiKeys(1 keys)");
        assert_eq!(format!("{:?}", secrets(KEY)), "ClientSecrets(1 secrets)");
    }
}
