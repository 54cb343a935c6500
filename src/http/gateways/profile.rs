//! The profiles of payment gateways, as one table: what each sends, what it wants to read, and how it names a
//! notification.
//!
//! Data only. How an id is found by its rule is [`super::notice`]'s.
//!
//! Source: README.md, *Gateways*; the gateways' own public documentation of their notifications.

use std::time::Duration;

use crate::http::canned::Canned;

/// One payment gateway.
#[derive(Debug)]
pub(crate) struct Profile {
    /// As in the URL, in the frame, and before the `:` of a payment id.
    pub(crate) name: &'static str,
    /// What it reads as "never again".
    pub(crate) success: Canned,
    /// What it reads as "once more, later".
    pub(crate) failure: Canned,
    /// How long it waits for an answer.
    pub(crate) time: Duration,
    /// The headers that its signature needs, in lower case.
    pub(crate) headers: &'static [&'static str],
    /// How its bodies are written.
    pub(crate) format: Format,
    /// Where its id of a notification lies: the first of these that is there.
    pub(crate) ids: &'static [Rule],
    /// A header that, if its value begins so, marks a probe: a forged signature, to see whether we would say yes.
    pub(crate) probe: Option<(&'static str, &'static str)>,
}

/// How a body is written, for finding an id in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// `<xml><name>text</name>…</xml>`, one level.
    Xml,
    /// `name=text&…`, percent-encoded bytes of any charset.
    Form,
    /// An object; a field within another is written `outer.inner`, and a list of one counts as what is in it.
    Json,
    /// The body is not looked into.
    Any,
}

/// Where an id lies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rule {
    /// This field is the id.
    Field(&'static str),
    /// This header is the id.
    Header(&'static str),
    /// The SHA-256 of this field is the id: it is too long, but the same in each repeat.
    DigestOf(&'static str),
    /// All of these together are the id.
    Together(&'static [Part]),
}

/// A part of an id that is composed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    /// The first of these fields that is there; without any, the rule finds no id.
    FirstOf(&'static [&'static str]),
    /// This field, if it is there.
    IfThere(&'static str),
}

use Part::{FirstOf, IfThere};
use Rule::{DigestOf, Field, Header, Together};

const FIVE_SECONDS: Duration = Duration::from_secs(5);
const TEN_SECONDS: Duration = Duration::from_secs(10);

/// All of them.
pub(crate) static PROFILES: [Profile; 8] = [
    Profile {
        name: "wechat-v2",
        success: xml(
            "<xml><return_code><![CDATA[SUCCESS]]></return_code><return_msg><![CDATA[OK]]></return_msg></xml>",
        ),
        failure: xml(
            "<xml><return_code><![CDATA[FAIL]]></return_code><return_msg><![CDATA[try again]]></return_msg></xml>",
        ),
        time: FIVE_SECONDS,
        headers: &[],
        format: Format::Xml,
        ids: &[DigestOf("req_info"), Together(&[FirstOf(&["transaction_id"]), FirstOf(&["result_code"])])],
        probe: None,
    },
    Profile {
        name: "wechat-v3",
        success: empty(204),
        failure: json(500, r#"{"code":"FAIL","message":"try again"}"#),
        time: FIVE_SECONDS,
        headers: &[
            "wechatpay-serial",
            "wechatpay-signature",
            "wechatpay-timestamp",
            "wechatpay-nonce",
            "wechatpay-signature-type",
        ],
        format: Format::Json,
        ids: &[Field("id")],
        probe: Some(("wechatpay-signature", "WECHATPAY/SIGNTEST/")),
    },
    Profile {
        name: "alipay",
        success: text(200, "success"),
        failure: text(200, "failure"),
        time: FIVE_SECONDS,
        headers: &[],
        format: Format::Form,
        ids: &[Field("notify_id")],
        probe: None,
    },
    Profile {
        name: "antom",
        success: json(200, r#"{"result":{"resultCode":"SUCCESS","resultStatus":"S","resultMessage":"success"}}"#),
        failure: json(500, r#"{"result":{"resultCode":"FAIL","resultStatus":"F","resultMessage":"try again"}}"#),
        time: FIVE_SECONDS,
        headers: &["client-id", "request-time", "signature"],
        format: Format::Json,
        ids: &[Together(&[
            FirstOf(&["notifyType", "disputeNotificationType", "authorizationNotifyType"]),
            FirstOf(&["refundRequestId", "captureRequestId", "paymentRequestId", "paymentId", "disputeId"]),
            // A payment may be disputed more than once.
            IfThere("disputeId"),
            FirstOf(&["result.resultStatus"]),
        ])],
        probe: None,
    },
    Profile {
        name: "unionpay",
        success: text(200, "ok"),
        failure: text(500, "fail"),
        time: FIVE_SECONDS,
        headers: &[],
        format: Format::Form,
        ids: &[
            Together(&[FirstOf(&["queryId"]), FirstOf(&["respCode"])]),
            Together(&[FirstOf(&["orderId"]), FirstOf(&["txnTime"]), FirstOf(&["txnType"]), FirstOf(&["respCode"])]),
        ],
        probe: None,
    },
    Profile {
        name: "adyen",
        success: text(200, "[accepted]"),
        failure: text(500, "try again"),
        time: TEN_SECONDS,
        headers: &["hmacsignature", "protocol"],
        format: Format::Json,
        // A list of several items has no id: then it is the body's hash.
        ids: &[Together(&[
            FirstOf(&["notificationItems.NotificationRequestItem.pspReference"]),
            FirstOf(&["notificationItems.NotificationRequestItem.eventCode"]),
            FirstOf(&["notificationItems.NotificationRequestItem.success"]),
            FirstOf(&["notificationItems.NotificationRequestItem.eventDate"]),
        ])],
        probe: None,
    },
    Profile {
        name: "stripe",
        success: empty(200),
        failure: empty(500),
        time: TEN_SECONDS,
        headers: &["stripe-signature"],
        format: Format::Json,
        ids: &[Field("id")],
        probe: None,
    },
    Profile {
        name: "generic",
        success: json(200, r#"{"status":"accepted"}"#),
        failure: json(503, r#"{"status":"try again"}"#),
        time: TEN_SECONDS,
        headers: &["webhook-id", "webhook-timestamp", "webhook-signature"],
        format: Format::Any,
        ids: &[Header("idempotency-key"), Header("webhook-id")],
        probe: None,
    },
];

const fn empty(status: u16) -> Canned {
    Canned { status, content_type: None, body: "" }
}

const fn json(status: u16, body: &'static str) -> Canned {
    Canned { status, content_type: Some("application/json"), body }
}

const fn text(status: u16, body: &'static str) -> Canned {
    Canned { status, content_type: Some("text/plain"), body }
}

const fn xml(body: &'static str) -> Canned {
    Canned { status: 200, content_type: Some("text/xml"), body }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payment::GATEWAY_PROFILES;

    #[test]
    fn the_table_has_the_names_that_payment_ids_are_reserved_for() {
        let names: Vec<_> = PROFILES.iter().map(|profile| profile.name).collect();
        assert_eq!(names, GATEWAY_PROFILES);
    }

    #[test]
    fn what_is_compared_in_lower_case_is_written_so() {
        for profile in &PROFILES {
            let probe = profile.probe.map(|(name, _)| name);
            for header in profile.headers.iter().copied().chain(probe) {
                assert_eq!(header, header.to_ascii_lowercase(), "{}", profile.name);
            }
        }
    }
}
