//! Who may do what: API keys for HTTP, tokens for clients, and the files they come from.
//!
//! Whoever compares a secret does so here, in constant time. Values only: no thread, no socket;
//! which of them are in force is left to `gate`.
//!
//! Source: README.md, *Configuration*: files, tokens, what needs keys.

mod api_keys;
mod client_secrets;
mod file;

use hmac::{Hmac, KeyInit};
use rustix::rand::{GetRandomFlags, getrandom};
use sha2::Sha256;

pub use api_keys::{ApiKeys, Asker, Right};
pub use client_secrets::ClientSecrets;
pub use file::LoadError;

type HmacSha256 = Hmac<Sha256>;

/// Fewer could be guessed.
pub(crate) const MIN_SECRET_CHARS: usize = 16;
/// A key must fit into the header that carries it.
pub(crate) const MAX_SECRET_BYTES: usize = 512;
/// Room for the longest key, and blanks before it; nothing longer is hashed.
pub(crate) const MAX_AUTHORIZATION_BYTES: usize = 1024;
/// Room for two thousand of the longest keys; a larger file is some other one.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 20;

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

fn keyed(key: &[u8]) -> HmacSha256 {
    HmacSha256::new_from_slice(key).expect("HMAC takes a key of any length")
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use hmac::Mac;

    use super::*;

    pub(super) const KEY: &str = "0123456789abcdef-sender";
    pub(super) const OTHER: &str = "fedcba9876543210-admin";

    pub(super) fn keys(text: &str) -> ApiKeys {
        ApiKeys::read(text).expect("good keys")
    }

    pub(super) fn secrets(text: &str) -> ClientSecrets {
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
    fn debug_shows_no_secret() {
        assert_eq!(format!("{:?}", keys(KEY)), "ApiKeys(1 keys)");
        assert_eq!(format!("{:?}", secrets(KEY)), "ClientSecrets(1 secrets)");
    }
}
