//! Who is let in: the API keys and client secrets that are in force now, and the wait of those who only guess.
//!
//! Comparing is `auth`'s, counting wrong guesses `strangers`'. Judging runs on the connection's own thread, which is
//! the one that waits; reading the files again runs on the thread `keys`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use parking_lot::RwLock;

use crate::auth::{ApiKeys, Asker, ClientSecrets, LoadError};
use crate::payment::ClientId;
use crate::seldom::Seldom;
use crate::strangers::Strangers;

/// The keys and secrets of a node.
pub(crate) struct Gate {
    /// None: anybody may ask, which only loopback is for.
    keys: Option<InForce<ApiKeys>>,
    /// None: every client is let in.
    secrets: Option<InForce<ClientSecrets>>,
    strangers: Strangers,
    guessing: Seldom,
}

impl Gate {
    /// Reads the files that are configured.
    ///
    /// # Errors
    ///
    /// One of them cannot be used.
    pub(crate) fn open(keys: Option<&Path>, secrets: Option<&Path>) -> Result<Gate, LoadError> {
        Ok(Gate {
            keys: keys.map(|file| InForce::load(file, ApiKeys::load)).transpose()?,
            secrets: secrets.map(|file| InForce::load(file, ClientSecrets::load)).transpose()?,
            strangers: Strangers::new(),
            guessing: Seldom::default(),
        })
    }

    /// Whether a request has to show a key.
    pub(crate) fn asks_for_keys(&self) -> bool {
        self.keys.is_some()
    }

    /// Whose key a request shows, by the values of all its `Authorization` fields. `None`: nobody's.
    ///
    /// Waits, for who has only ever guessed: before it judges, so that even a right guess is not told sooner.
    pub(crate) fn asker<'a>(&self, mut shown: impl Iterator<Item = &'a str>, peer: SocketAddr) -> Option<Asker> {
        let Some(keys) = &self.keys else { return Some(Asker::ANYBODY) };
        thread::sleep(self.strangers.wait(peer.ip()));
        let asker = match (shown.next(), shown.next()) {
            // A proxy before us may have looked at the other one.
            (_, Some(_)) => None,
            (only, None) => keys.now().asker(only),
        };
        self.note(peer, asker.is_some());
        asker
    }

    /// Whether a hello proves that it is this client's. Waits as [`Gate::asker`] does.
    pub(crate) fn admits(&self, client: &ClientId, token: Option<&str>, peer: SocketAddr) -> bool {
        let Some(secrets) = &self.secrets else { return true };
        thread::sleep(self.strangers.wait(peer.ip()));
        let admitted = token.is_some_and(|token| secrets.now().verify(client.as_str(), token));
        self.note(peer, admitted);
        admitted
    }

    /// Whether the token of a notify URL is this client's, whose id nobody has checked. Waits as [`Gate::asker`] does.
    pub(crate) fn admits_notification(&self, client: &str, token: &str, peer: SocketAddr) -> bool {
        // Without a secret no URL is right, and there is nothing to guess.
        let Some(secrets) = &self.secrets else { return false };
        thread::sleep(self.strangers.wait(peer.ip()));
        let admitted = secrets.now().verify_notify(client, token);
        self.note(peer, admitted);
        admitted
    }

    fn note(&self, peer: SocketAddr, right: bool) {
        let address = peer.ip();
        if right {
            self.strangers.succeeded(address);
        } else if self.strangers.failed(address) {
            self.guessing.warn(|| {
                format!("{address}: ten wrong keys or tokens and never a right one; each further answer waits a second")
            });
        }
    }

    /// Reads the files again. What cannot be used changes nothing.
    pub(crate) fn read_again(&self) {
        if self.keys.is_none() && self.secrets.is_none() {
            log::info!("SIGHUP: there is no file of keys or secrets to read again");
        }
        if let Some(keys) = &self.keys {
            keys.read_again("API keys", ApiKeys::count);
        }
        if let Some(secrets) = &self.secrets {
            secrets.read_again("client secrets", ClientSecrets::count);
        }
    }
}

/// What was read from a file last, as far as it could be used.
struct InForce<T> {
    file: PathBuf,
    load: fn(&Path) -> Result<T, LoadError>,
    /// Locked to copy or to swap the pointer, never while a file is read or a key compared.
    now: RwLock<Arc<T>>,
}

impl<T> InForce<T> {
    fn load(file: &Path, load: fn(&Path) -> Result<T, LoadError>) -> Result<InForce<T>, LoadError> {
        Ok(InForce { file: file.to_owned(), load, now: RwLock::new(Arc::new(load(file)?)) })
    }

    fn now(&self) -> Arc<T> {
        Arc::clone(&self.now.read())
    }

    fn read_again(&self, what: &str, count: fn(&T) -> usize) {
        match (self.load)(&self.file) {
            Ok(read) => {
                let count = count(&read);
                *self.now.write() = Arc::new(read);
                log::info!("SIGHUP: {what} read again from {}: {count} in force", self.file.display());
            }
            Err(error) => log::error!("SIGHUP: {error}; the {what} that were read before stay in force"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    const KEY: &str = "Bearer a-key-of-this-test";

    /// A gate over files of its own, which are gone again once it is open.
    fn gate(name: &str) -> Gate {
        let file = std::env::temp_dir().join(format!("payrelay-gate-{}-{name}", std::process::id()));
        std::fs::write(&file, "a-key-of-this-test\n").expect("a temporary file");
        let gate = Gate::open(Some(&file), Some(&file));
        std::fs::remove_file(&file).expect("our own file");
        gate.expect("good files")
    }

    fn took<T>(work: impl FnOnce() -> T) -> (T, Duration) {
        let begun = Instant::now();
        (work(), begun.elapsed())
    }

    #[test]
    fn who_only_guesses_waits_for_each_further_answer_until_it_shows_a_right_key() {
        let gate = gate("guesser");
        let (client, peer) = (ClientId::parse("01").expect("an id"), SocketAddr::from(([10, 0, 0, 7], 5000)));
        let other_port = SocketAddr::from(([10, 0, 0, 7], 5001));
        let ((), swift) = took(|| {
            for _ in 0..5 {
                assert!(gate.asker(["Bearer wrong"].into_iter(), peer).is_none());
                assert!(!gate.admits(&client, Some("wrong"), other_port));
            }
        });
        assert!(swift < Duration::from_secs(1), "ten answers in {swift:?}");
        let (refused, slow) = took(|| gate.asker([].into_iter(), peer));
        assert!(refused.is_none() && slow >= Duration::from_secs(1), "{slow:?}");
        let (known, slow) = took(|| gate.asker([KEY].into_iter(), other_port));
        assert!(known.is_some() && slow >= Duration::from_secs(1), "a right guess is not told sooner: {slow:?}");
        let (refused, swift) = took(|| gate.asker(["Bearer wrong"].into_iter(), peer));
        assert!(refused.is_none() && swift < Duration::from_secs(1), "{swift:?}");
    }

    #[test]
    fn a_notify_url_is_judged_and_waits_like_a_hello() {
        let (gate, peer) = (gate("notify"), SocketAddr::from(([10, 0, 0, 8], 5000)));
        let secrets = gate.secrets.as_ref().expect("a file of them").now();
        let right = secrets.notify_token("01");
        let ((), swift) = took(|| {
            for wrong in [&secrets.token("01"), &secrets.notify_token("02"), "", "0123456789abcdef", &right[1..]] {
                assert!(!gate.admits_notification("01", wrong, peer));
                assert!(!gate.admits_notification("02", &right, peer));
            }
        });
        assert!(swift < Duration::from_secs(1), "ten answers in {swift:?}");
        let (admitted, slow) = took(|| gate.admits_notification("01", &right, peer));
        assert!(admitted && slow >= Duration::from_secs(1), "a right guess is not told sooner: {slow:?}");
        let (admitted, swift) = took(|| gate.admits_notification("02", &right, peer));
        assert!(!admitted && swift < Duration::from_secs(1), "{swift:?}");
        let open = Gate::open(None, None).expect("no file");
        assert!(!open.admits_notification("01", &right, peer), "without a secret no URL is right");
    }

    #[test]
    fn two_keys_are_none() {
        let (gate, peer) = (gate("two"), SocketAddr::from(([127, 0, 0, 1], 5000)));
        assert!(gate.asker([KEY].into_iter(), peer).is_some());
        assert!(gate.asker([KEY, KEY].into_iter(), peer).is_none());
        assert!(gate.asker([KEY, ""].into_iter(), peer).is_none());
    }

    #[test]
    fn a_file_that_is_gone_changes_nothing() {
        let (gate, peer) = (gate("gone"), SocketAddr::from(([127, 0, 0, 1], 5000)));
        gate.read_again();
        assert!(gate.asker([KEY].into_iter(), peer).is_some());
    }
}
