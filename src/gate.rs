//! Who is let in: the API keys and client secrets that are in force now.
//!
//! Comparing is `auth`'s. Judging runs on the connection's own thread, reading the files again on the thread `keys`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;

use crate::auth::{ApiKeys, Asker, ClientSecrets, LoadError};
use crate::payment::ClientId;

/// The keys and secrets of a node.
pub(crate) struct Gate {
    /// None: anybody may ask, which only loopback is for.
    keys: Option<InForce<ApiKeys>>,
    /// None: every client is let in.
    secrets: Option<InForce<ClientSecrets>>,
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
        })
    }

    /// Whose key a request shows, by the values of all its `Authorization` fields. `None`: nobody's.
    pub(crate) fn asker<'a>(&self, mut shown: impl Iterator<Item = &'a str>) -> Option<Asker> {
        let Some(keys) = &self.keys else { return Some(Asker::ANYBODY) };
        match (shown.next(), shown.next()) {
            // A proxy before us may have looked at the other one.
            (_, Some(_)) => None,
            (only, None) => keys.now().asker(only),
        }
    }

    /// Whether a hello proves that it is this client's.
    pub(crate) fn admits(&self, client: &ClientId, token: Option<&str>) -> bool {
        let Some(secrets) = &self.secrets else { return true };
        token.is_some_and(|token| secrets.now().verify(client.as_str(), token))
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
