//! Who is let in: the API keys and client secrets of a node.
//!
//! Comparing is `auth`'s. Judging runs on the connection's own thread.

use std::path::Path;

use crate::auth::{ApiKeys, Asker, ClientSecrets, LoadError};
use crate::payment::ClientId;

/// The keys and secrets of a node.
pub(crate) struct Gate {
    /// None: anybody may ask, which only loopback is for.
    keys: Option<ApiKeys>,
    /// None: every client is let in.
    secrets: Option<ClientSecrets>,
}

impl Gate {
    /// Reads the files that are configured.
    ///
    /// # Errors
    ///
    /// One of them cannot be used.
    pub(crate) fn open(keys: Option<&Path>, secrets: Option<&Path>) -> Result<Gate, LoadError> {
        Ok(Gate { keys: keys.map(ApiKeys::load).transpose()?, secrets: secrets.map(ClientSecrets::load).transpose()? })
    }

    /// Whose key a request shows, by the values of all its `Authorization` fields. `None`: nobody's.
    pub(crate) fn asker<'a>(&self, mut shown: impl Iterator<Item = &'a str>) -> Option<Asker> {
        let Some(keys) = &self.keys else { return Some(Asker::ANYBODY) };
        match (shown.next(), shown.next()) {
            // A proxy before us may have looked at the other one.
            (_, Some(_)) => None,
            (only, None) => keys.asker(only),
        }
    }

    /// Whether a hello proves that it is this client's.
    pub(crate) fn admits(&self, client: &ClientId, token: Option<&str>) -> bool {
        let Some(secrets) = &self.secrets else { return true };
        token.is_some_and(|token| secrets.verify(client.as_str(), token))
    }
}
