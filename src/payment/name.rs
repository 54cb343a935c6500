//! Names: who receives, what a sender calls a payment, what kind of message it is, and the rule that each keeps.
//!
//! Values only. Which client or which payment id is known is left to `inbox`.

use std::fmt;
use std::sync::Arc;

/// The most characters of a client id and of a payment id: keys in the store are made of them.
pub(crate) const MAX_ID_CHARS: usize = 128;
/// The most characters of a channel.
pub(crate) const MAX_CHANNEL_CHARS: usize = 64;

/// The profiles of payment gateways. Each owns the payment ids that begin with its name and `:`, so a sender's must not.
pub const GATEWAY_PROFILES: [&str; 8] =
    ["wechat-v2", "wechat-v3", "alipay", "antom", "unionpay", "adyen", "stripe", "generic"];

/// A name that is not one: says of what kind, and what would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidName {
    kind: &'static str,
    rule: &'static str,
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a {}: {}", self.kind, self.rule)
    }
}

impl std::error::Error for InvalidName {}

fn is_id(text: &str) -> bool {
    (1..=MAX_ID_CHARS).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:@-".contains(&b))
}

/// Who receives: 1 to 128 characters of `A-Z a-z 0-9 . _ : @ -`, but not `.` or `..`.
// An Arc: every map, queue and log line holds one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(Arc<str>);

impl ClientId {
    /// Takes a text that keeps the rule.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] says the rule.
    pub fn parse(text: &str) -> Result<ClientId, InvalidName> {
        if is_id(text) && text != "." && text != ".." {
            return Ok(ClientId(Arc::from(text)));
        }
        let rule = "1 to 128 characters of A-Z a-z 0-9 . _ : @ -, but not . or ..";
        Err(InvalidName { kind: "client id", rule })
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The sender's own name of a payment: the same alphabet as a client id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentId(Box<str>);

impl PaymentId {
    /// Takes a text that keeps the rule.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] says the rule.
    pub fn parse(text: &str) -> Result<PaymentId, InvalidName> {
        let gateway = |profile: &str| text.strip_prefix(profile).is_some_and(|rest| rest.starts_with(':'));
        if is_id(text) && !GATEWAY_PROFILES.iter().any(|profile| gateway(profile)) {
            return Ok(PaymentId(text.into()));
        }
        let rule = "1 to 128 characters of A-Z a-z 0-9 . _ : @ -, not beginning with a gateway's name and a colon";
        Err(InvalidName { kind: "payment id", rule })
    }

    /// The same, and gateways' own as well: for asking what became of a payment, not for posting one.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] says the rule.
    pub fn parse_any(text: &str) -> Result<PaymentId, InvalidName> {
        if is_id(text) {
            return Ok(PaymentId(text.into()));
        }
        Err(InvalidName { kind: "payment id", rule: "1 to 128 characters of A-Z a-z 0-9 . _ : @ -" })
    }

    /// A gateway's own: the profile's name, `:`, and its id of the notification. `None` where the two do not fit into
    /// a payment id.
    #[must_use]
    pub fn of_gateway(profile: &str, id: &str) -> Option<PaymentId> {
        let text = format!("{profile}:{id}");
        (is_id(&text) && !id.is_empty()).then(|| PaymentId(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The kind of a message: 1 to 64 characters of `a-z 0-9 . _ -`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel(Box<str>);

impl Channel {
    /// Takes a text that keeps the rule.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] says the rule.
    pub fn parse(text: &str) -> Result<Channel, InvalidName> {
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        if (1..=MAX_CHANNEL_CHARS).contains(&text.len()) && text.bytes().all(letter) {
            return Ok(Channel(text.into()));
        }
        Err(InvalidName { kind: "channel", rule: "1 to 64 characters of a-z 0-9 . _ -" })
    }
}

impl Channel {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Channel {
    fn default() -> Self {
        Channel("payments".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateways_payment_id_is_its_own() {
        let id = PaymentId::of_gateway("alipay", "a1b2").expect("it fits");
        assert_eq!(id.as_str(), "alipay:a1b2");
        assert!(PaymentId::parse(id.as_str()).is_err(), "no sender may use it");
        assert_eq!(PaymentId::parse_any(id.as_str()), Ok(id), "everybody may ask for it");
        assert!(PaymentId::parse_any("a b").is_err());
        assert!(PaymentId::of_gateway("alipay", &"x".repeat(121)).is_some());
        for id in ["", "a b", "\u{4e2d}", &"x".repeat(122)] {
            assert_eq!(PaymentId::of_gateway("alipay", id), None, "{id}");
        }
    }

    #[test]
    fn names_keep_their_rules() {
        for good in ["0", "a.b_c:d@e-f", "...", &"x".repeat(128)] {
            assert!(ClientId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a b", "{a}", "a*", "%2e", "é", "a/b", &"x".repeat(129)] {
            assert!(ClientId::parse(bad).is_err(), "{bad}");
        }
        assert!(PaymentId::parse("alipay-1").is_ok());
        assert!(PaymentId::parse("alipay:1").is_err());
        assert!(Channel::parse("re_funds.2-x").is_ok());
        assert!(Channel::parse("Refunds").is_err());
    }
}
