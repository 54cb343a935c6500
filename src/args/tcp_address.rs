//! Where clients connect: an address, and the framing that is spoken there.

use std::fmt;
use std::net::SocketAddr;

use super::UsageError;
use super::report::shown;
use super::value::address;
use crate::framing::Framing;

/// One listener for clients: `127.0.0.1:7070`, or `u16be@127.0.0.1:7071`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpAddress {
    /// What is spoken there.
    pub framing: Framing,
    /// Where.
    pub address: SocketAddr,
}

impl TcpAddress {
    pub(super) fn parse(text: &str) -> Result<TcpAddress, UsageError> {
        let Some((name, rest)) = text.trim().split_once('@') else {
            return Ok(TcpAddress { framing: Framing::Lines, address: address(text)? });
        };
        match Framing::named(name) {
            Some(framing) => Ok(TcpAddress { framing, address: address(rest)? }),
            None => Err(UsageError::new(format!(
                "there is no framing `{}`; give u16be@IP:PORT or u32be@IP:PORT, or IP:PORT alone for lines",
                shown(name)
            ))),
        }
    }
}

/// As it is given.
impl fmt::Display for TcpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.framing {
            Framing::Lines => self.address.fmt(f),
            framing => write!(f, "{framing}@{}", self.address),
        }
    }
}
