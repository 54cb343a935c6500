//! The client secrets, and the tokens that are made of them: a client's own, and the one in its notify URLs.

use std::fmt;
use std::path::Path;

use data_encoding::HEXLOWER;
use hmac::Mac;

use super::file::{LoadError, WrongLine, check_length, read_file, secret_lines};
use super::{HmacSha256, keyed};

/// Of SHA-256.
const TOKEN_HEX_DIGITS: usize = 64;
/// What is hashed before the client id for the token in a notify URL, so that it is not the client's own.
const NOTIFY: &str = "notify:";
/// A URL is typed into a gateway's form: half of the hash is enough there.
const NOTIFY_HEX_DIGITS: usize = 32;

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

    pub(super) fn read(text: &str) -> Result<ClientSecrets, WrongLine> {
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

#[cfg(test)]
mod tests {
    use super::super::tests::{KEY, OTHER, secrets};

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
}
