//! The parsers of single values: each takes one text, or says in a line what it should have been.
//!
//! A node's name is left to `node_name`, a Redis URL to `redis_url`, a client's address with its framing to
//! `tcp_address`; what only several flags together show, to the `check` of their command.

use std::net::SocketAddr;
use std::time::Duration;

use super::UsageError;
use super::report::shown;
use crate::payment::{ClientId, GATEWAY_PROFILES};

/// Longer ones leave no room in a client id for the number.
const MAX_PREFIX_BYTES: usize = 120;

pub(super) fn address(text: &str) -> Result<SocketAddr, UsageError> {
    text.trim().parse().map_err(|_| {
        UsageError(format!(
            "`{}` is not IP:PORT; give one such as 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080",
            shown(text)
        ))
    })
}

pub(super) fn host_and_port(text: &str) -> Result<String, UsageError> {
    let is_good = |(host, port): (&str, &str)| {
        !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok_and(|port| port != 0)
    };
    if text.rsplit_once(':').is_some_and(is_good) {
        return Ok(text.to_owned());
    }
    Err(UsageError(format!("`{}` is not HOST:PORT; give one such as 127.0.0.1:7070", shown(text))))
}

pub(super) fn client_id(text: &str) -> Result<ClientId, UsageError> {
    ClientId::parse(text).map_err(|error| UsageError(format!("`{}` is {error}", shown(text))))
}

/// One of the gateways' names, as it stands in our own list.
pub(super) fn gateway(text: &str) -> Result<&'static str, UsageError> {
    let known = GATEWAY_PROFILES.into_iter().find(|name| *name == text.trim());
    known.ok_or_else(|| {
        UsageError(format!("`{}` is no gateway; give some of {}", shown(text), GATEWAY_PROFILES.join(", ")))
    })
}

pub(super) fn client_id_prefix(text: &str) -> Result<String, UsageError> {
    if text.len() <= MAX_PREFIX_BYTES && ClientId::parse(&format!("{text}0")).is_ok() {
        return Ok(text.to_owned());
    }
    Err(UsageError(format!(
        "`{}` cannot begin a client id; give at most {MAX_PREFIX_BYTES} characters of A-Z a-z 0-9 . _ : @ -",
        shown(text)
    )))
}

/// A flag's variable: `PAYRELAY_INSECURE=1`.
pub(super) fn truth(text: &str) -> Result<bool, UsageError> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        // Never guessed: what it opens is open to everybody.
        _ => Err(UsageError(format!("`{}` is neither true nor false; give one of them", shown(text)))),
    }
}

pub(super) fn count_in(min: usize, max: usize) -> impl Fn(&str) -> Result<usize, UsageError> + Clone {
    move |text| match text.parse() {
        Ok(count) if (min..=max).contains(&count) => Ok(count),
        _ => Err(out_of_range(text, min as u64, max as u64)),
    }
}

pub(super) fn seconds_in(min: u64, max: u64) -> impl Fn(&str) -> Result<Duration, UsageError> + Clone {
    move |text| match text.parse() {
        Ok(secs) if (min..=max).contains(&secs) => Ok(Duration::from_secs(secs)),
        _ => Err(out_of_range(text, min, max)),
    }
}

fn out_of_range(text: &str, min: u64, max: u64) -> UsageError {
    let range = match max {
        u64::MAX => format!("of {min} or more"),
        _ => format!("from {min} to {max}"),
    };
    UsageError(format!("`{}` does not fit; give a whole number {range}", shown(text)))
}
