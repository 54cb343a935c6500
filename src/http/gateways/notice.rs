//! One notification: what its payment id is, and what of it goes to the client.
//!
//! Too fine an id only has a repeat delivered twice, too coarse a one loses a payment; so what is in doubt is told
//! apart, down to the hash of the whole body. Values only.
//!
//! Source: README.md, *Gateways*.

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::fields::{Fields, Unclear, only};
use super::profile::{Part, Profile, Rule};
use crate::http::payments::unquoted;
use crate::http::{Head, Request};
use crate::payment::{Content, Notification, PaymentId};

/// What stands before a hash in a payment id, in place of the gateway's own id.
const HASHED: &str = "sha256:";

/// How a notification is named by its gateway.
enum Id {
    /// By one text.
    Own(Vec<u8>),
    /// By what was hashed.
    Hash(Sha256),
}

/// The payment id of a notification: the same for each of its repeats, and no other's.
pub(super) fn payment_id(profile: &Profile, head: &Head, body: &[u8]) -> PaymentId {
    let id = match find(profile, head, body) {
        Ok(Some(Id::Own(id))) => match own(profile, &id) {
            Some(id) => return id,
            None => composed(&[("id", id)]),
        },
        Ok(Some(Id::Hash(hash))) => hash,
        // Without a body, all that there is stands in the URL.
        Ok(None) | Err(Unclear) if body.is_empty() && head.query().is_some_and(|query| !query.is_empty()) => {
            composed(&[("query", head.query().unwrap_or_default().into())])
        }
        Ok(None) | Err(Unclear) => Sha256::new().chain_update(body),
    };
    let text = format!("{HASHED}{}", HEXLOWER.encode(&id.finalize()));
    PaymentId::of_gateway(profile.name, &text).expect("a name and 64 hex digits fit")
}

/// The gateway's own id, where it fits and cannot be taken for a hash.
fn own(profile: &Profile, id: &[u8]) -> Option<PaymentId> {
    let id = std::str::from_utf8(id).ok().filter(|id| !id.starts_with(HASHED))?;
    PaymentId::of_gateway(profile.name, id)
}

/// Tries the profile's rules in their order.
fn find(profile: &Profile, head: &Head, body: &[u8]) -> Result<Option<Id>, Unclear> {
    let fields = Fields::read(profile.format, body)?;
    for rule in profile.ids {
        let found = match rule {
            Rule::Field(name) => fields.get(name)?.map(Id::Own),
            Rule::Header(name) => header(head, name)?.map(Id::Own),
            Rule::DigestOf(name) => fields.get(name)?.map(|value| Id::Hash(Sha256::new().chain_update(value))),
            Rule::Together(parts) => together(parts, &fields)?.map(|parts| Id::Hash(composed(&parts))),
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn header(head: &Head, name: &str) -> Result<Option<Vec<u8>>, Unclear> {
    let Some(value) = only(head.headers_named(name))? else { return Ok(None) };
    // Bytes that are no text have become this one, and may have been any.
    if value.contains(char::REPLACEMENT_CHARACTER) {
        return Err(Unclear);
    }
    let value = unquoted(value);
    Ok((!value.is_empty()).then(|| value.into()))
}

type Named = (&'static str, Vec<u8>);

/// The parts of an id with their names; none if one that is needed is missing.
fn together(parts: &[Part], fields: &Fields<'_>) -> Result<Option<Vec<Named>>, Unclear> {
    let mut found = Vec::with_capacity(parts.len());
    for part in parts {
        match part {
            Part::FirstOf(names) => match first_of(names, fields)? {
                Some(named) => found.push(named),
                None => return Ok(None),
            },
            Part::IfThere(name) => found.extend(fields.get(name)?.map(|value| (*name, value))),
        }
    }
    Ok(Some(found))
}

fn first_of(names: &[&'static str], fields: &Fields<'_>) -> Result<Option<Named>, Unclear> {
    for name in names {
        if let Some(value) = fields.get(name)? {
            return Ok(Some((name, value)));
        }
    }
    Ok(None)
}

/// A hash over named parts. Each goes in behind its length, so that no two lists of parts are the same bytes.
fn composed(parts: &[Named]) -> Sha256 {
    parts.iter().fold(Sha256::new(), |hash, (name, value)| {
        hash.chain_update(format!("{}:{name}{}:", name.len(), value.len())).chain_update(value)
    })
}

/// What the client gets of a notification.
pub(super) fn content(profile: &Profile, request: &Request) -> Content {
    let head = &request.head;
    let headers: Vec<(&str, String)> =
        profile.headers.iter().filter_map(|name| Some((*name, all_of(head, name)?))).collect();
    Content::notification(&Notification {
        gateway: profile.name,
        body: &request.body,
        content_type: head.header("Content-Type").unwrap_or_default(),
        headers: &headers,
        method: head.method().as_str(),
        path: head.path(),
        query: head.query().unwrap_or_default(),
    })
}

/// A header's value; several are one list, RFC 9110, section 5.3.
fn all_of(head: &Head, name: &str) -> Option<String> {
    let values: Vec<&str> = head.headers_named(name).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

/// Whether a notification only tries out whether its signature is checked.
pub(super) fn is_probe(profile: &Profile, head: &Head) -> bool {
    let begins = |(name, start): (&str, &str)| head.headers_named(name).any(|value| value.starts_with(start));
    profile.probe.is_some_and(begins)
}

#[cfg(test)]
mod tests {
    use super::super::profile::PROFILES;
    use super::*;

    fn profile(name: &str) -> &'static Profile {
        PROFILES.iter().find(|profile| profile.name == name).expect("a profile")
    }

    fn head(fields: &str) -> Head {
        let text = format!("POST /v1/gateways/p/01/t HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
        Head::parse(text.as_bytes()).expect("a head")
    }

    fn id(name: &str, body: impl AsRef<[u8]>) -> String {
        payment_id(profile(name), &head(""), body.as_ref()).as_str().to_owned()
    }

    fn hashed(name: &str, what: impl AsRef<[u8]>) -> String {
        format!("{name}:sha256:{}", HEXLOWER.encode(&Sha256::digest(what)))
    }

    /// A repeat differs in its bytes and has the same id; the others are other notices, and each has its own.
    #[track_caller]
    fn expect_ids<B: AsRef<[u8]>>(name: &str, repeats: &[B], others: &[B]) {
        let first = id(name, &repeats[0]);
        for (i, repeat) in repeats.iter().enumerate() {
            assert_eq!(id(name, repeat), first, "repeat {i}");
        }
        assert_ne!(first, hashed(name, &repeats[0]), "its id was found");
        let mut ids: Vec<_> = others.iter().map(|other| id(name, other)).collect();
        ids.push(first);
        let all = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), all, "each notice has an id of its own");
    }

    #[track_caller]
    fn expect_hashes_of_the_body<B: AsRef<[u8]>>(name: &str, bodies: &[B]) {
        for (i, body) in bodies.iter().enumerate() {
            assert_eq!(id(name, body), hashed(name, body), "body {i}");
        }
    }

    #[test]
    fn wechat_v2() {
        let paid = |nonce: &str, transaction: &str, result: &str| {
            format!(
                "<xml><appid><![CDATA[wx2421b1c4370ec43b]]></appid>\n<nonce_str><![CDATA[{nonce}]]></nonce_str>\
                 <result_code><![CDATA[{result}]]></result_code><total_fee>200</total_fee>\
                 <transaction_id>{transaction}</transaction_id></xml>"
            )
        };
        expect_ids(
            "wechat-v2",
            &[paid("a", "42001", "SUCCESS"), paid("b", "42001", "SUCCESS")],
            &[paid("a", "42002", "SUCCESS"), paid("a", "42001", "FAIL"), paid("a", "4200", "1SUCCESS")],
        );
        let refund = |nonce: &str, info: &str| {
            format!(
                "<xml><return_code>SUCCESS</return_code><nonce_str>{nonce}</nonce_str>\
                 <req_info><![CDATA[{info}]]></req_info></xml>"
            )
        };
        expect_ids("wechat-v2", &[refund("a", "T87G=="), refund("b", "T87G==")], &[refund("a", "T87H==")]);
        assert_eq!(id("wechat-v2", refund("a", "T87G==")), hashed("wechat-v2", "T87G=="));
        expect_hashes_of_the_body(
            "wechat-v2",
            &[
                "<xml><return_code>FAIL</return_code></xml>",
                "<xml><transaction_id>1</transaction_id></xml>",
                "<xml><transaction_id>1</transaction_id><transaction_id>2</transaction_id><result_code>S</result_code></xml>",
                "<xml><a><transaction_id>1</transaction_id><result_code>S</result_code></a></xml>",
                "no XML",
                "",
            ],
        );
    }

    #[test]
    fn wechat_v3() {
        let notice = |id: &str| format!(r#"{{"id":"{id}","event_type":"TRANSACTION.SUCCESS"}}"#);
        let uuid = "8f7b2b04-3a0e-5b37-a5a4-2f6d3f4a8c11";
        assert_eq!(id("wechat-v3", notice(uuid)), format!("wechat-v3:{uuid}"));
        expect_ids(
            "wechat-v3",
            &[notice(uuid), format!(r#"{{"create_time":"x","id":"{uuid}"}}"#)],
            &[notice("8F7B2B04-3A0E-5B37-A5A4-2F6D3F4A8C11"), notice("1"), notice(""), notice(" 1")],
        );
        assert_eq!(id("wechat-v3", r#"{"id":7}"#), "wechat-v3:7");
        expect_hashes_of_the_body("wechat-v3", &[r#"{"id":["1"]}"#, r#"{"id":"1","id":"2"}"#, r#"{"id":""}"#, "{"]);
    }

    #[test]
    fn alipay() {
        let notice = |time: &str, id: &str| format!("notify_time={time}&notify_id={id}&total_amount=2.00");
        assert_eq!(
            id("alipay", notice("1", "ac05099524730693a8b330c5ecf72da978")),
            "alipay:ac05099524730693a8b330c5ecf72da978"
        );
        expect_ids(
            "alipay",
            &[notice("1", "ac05"), notice("2", "ac05"), notice("%D6", "ac0%35")],
            // The last three are no UTF-8, and not the same for it.
            &[notice("1", "ac06"), notice("1", "%D6"), notice("1", "%D0"), notice("1", "%EF%BF%BD")],
        );
        expect_hashes_of_the_body("alipay", &["notify_time=1", "notify_id=", "notify_id=1&notify_id=1", "\u{0}", "{}"]);
    }

    #[test]
    fn antom() {
        let notice = |kind: &str, ids: &str, status: &str| {
            format!(r#"{{"notifyType":"{kind}",{ids},"result":{{"resultCode":"X","resultStatus":"{status}"}}}}"#)
        };
        let paid = r#""paymentRequestId":"p1","paymentId":"2021""#;
        expect_ids(
            "antom",
            &[
                notice("PAYMENT_RESULT", paid, "S"),
                notice("PAYMENT_RESULT", r#""paymentRequestId":"p1","paymentId":"2022""#, "S"),
            ],
            &[
                notice("PAYMENT_RESULT", paid, "F"),
                notice("PAYMENT_PENDING", paid, "S"),
                notice("PAYMENT_RESULT", r#""paymentRequestId":"p2""#, "S"),
                notice("PAYMENT_RESULT", r#""paymentId":"p1""#, "S"),
                notice("CAPTURE_RESULT", &format!(r#""captureRequestId":"c1",{paid}"#), "S"),
                notice("CAPTURE_RESULT", &format!(r#""captureRequestId":"c2",{paid}"#), "S"),
                notice("REFUND_RESULT", &format!(r#""refundRequestId":"c1",{paid}"#), "S"),
                notice("REFUND_RESULT", &format!(r#""refundRequestId":"c2",{paid}"#), "S"),
                notice("DISPUTE_CREATED", &format!(r#""disputeId":"d1",{paid}"#), "S"),
                notice("DISPUTE_CREATED", &format!(r#""disputeId":"d2",{paid}"#), "S"),
            ],
        );
        let kind = |name: &str| format!(r#"{{"{name}":"K","paymentId":"1","result":{{"resultStatus":"S"}}}}"#);
        expect_ids("antom", &[kind("notifyType")], &[kind("disputeNotificationType"), kind("authorizationNotifyType")]);
        expect_hashes_of_the_body(
            "antom",
            &[
                // As disputes come: without a result.
                r#"{"disputeNotificationType":"DISPUTE_CREATED","disputeId":"d1","paymentRequestId":"p1"}"#,
                r#"{"notifyType":"PAYMENT_RESULT","result":{"resultStatus":"S"}}"#,
                r#"{"paymentId":"1","result":{"resultStatus":"S"}}"#,
                r#"{"notifyType":"PAYMENT_RESULT","paymentId":"1","result":"S"}"#,
            ],
        );
    }

    #[test]
    fn unionpay() {
        let notice = |query: &str, order: &str, code: &str| {
            format!("orderId={order}&queryId={query}&respCode={code}&txnTime=20260101120000&txnType=01&respMsg=%B3%C9")
        };
        expect_ids(
            "unionpay",
            &[notice("4291", "o1", "00"), notice("4291", "o2", "00")],
            &[notice("4291", "o1", "05"), notice("429", "o1", "100"), notice("", "o1", "00"), notice("", "o2", "00")],
        );
        let late = notice("", "o1", "00").replace("txnType=01", "txnType=04");
        expect_ids("unionpay", &[notice("", "o1", "00"), notice("", "o1", "00") + "&accNo=1"], &[late]);
        expect_hashes_of_the_body("unionpay", &["queryId=1&orderId=1", "orderId=1&respCode=00&txnTime=1", "x"]);
    }

    #[test]
    fn adyen() {
        let item = |psp: &str, code: &str, success: &str, date: &str| {
            let fields =
                format!(r#""pspReference":"{psp}","eventCode":"{code}","success":{success},"eventDate":"{date}""#);
            format!(r#"{{"NotificationRequestItem":{{"amount":{{"value":200}},{fields}}}}}"#)
        };
        let of = |items: &[&str]| format!(r#"{{"live":"false","notificationItems":[{}]}}"#, items.join(","));
        let paid = item("8836", "AUTHORISATION", "\"true\"", "d1");
        expect_ids(
            "adyen",
            &[of(&[&paid]), of(&[&paid]).replace("false", "true")],
            &[
                of(&[&item("8836", "AUTHORISATION", "\"false\"", "d1")]),
                of(&[&item("8836", "REFUND", "\"true\"", "d1")]),
                of(&[&item("8836", "AUTHORISATION", "\"true\"", "d2")]),
                of(&[&item("8837", "AUTHORISATION", "\"true\"", "d1")]),
                of(&[&item("8836A", "UTHORISATION", "\"true\"", "d1")]),
            ],
        );
        let quoted = id("adyen", of(&[&paid]));
        assert_eq!(id("adyen", of(&[&item("8836", "AUTHORISATION", "true", "d1")])), quoted, "a boolean or its text");
        expect_hashes_of_the_body("adyen", &[of(&[&paid, &paid]), of(&[]), "{}".into(), of(&["{}"])]);
    }

    #[test]
    fn stripe() {
        let notice = |id: &str, data: &str| format!(r#"{{"id":"{id}","object":"event","data":{data}}}"#);
        assert_eq!(id("stripe", notice("evt_1Nq", "{}")), "stripe:evt_1Nq");
        expect_ids("stripe", &[notice("evt_1", "1"), notice("evt_1", "2")], &[notice("evt_2", "1")]);
        expect_hashes_of_the_body("stripe", &[r#"{"data":{"id":"evt_1"}}"#, "evt_1"]);
    }

    #[test]
    fn generic() {
        let of = |fields: &str| payment_id(profile("generic"), &head(fields), b"body").as_str().to_owned();
        assert_eq!(of("Webhook-Id: msg_2\r\n"), "generic:msg_2");
        assert_eq!(of("IDEMPOTENCY-KEY: k-1\r\nwebhook-id: msg_2\r\n"), "generic:k-1");
        assert_eq!(of("Idempotency-Key: \"k-1\"\r\n"), "generic:k-1");
        let of_body = hashed("generic", "body");
        assert_eq!(of(""), of_body);
        assert_eq!(of("webhook-id:\r\n"), of_body);
        assert_eq!(of("webhook-id: 1\r\nwebhook-id: 2\r\n"), of_body);
        assert_ne!(of("webhook-id: a b\r\n"), of("webhook-id: a  b\r\n"));
        let bytes = Head::parse(b"POST / HTTP/1.1\r\nHost: x\r\nwebhook-id: \xff\r\n\r\n").expect("a head");
        assert_eq!(payment_id(profile("generic"), &bytes, b"body").as_str(), of_body, "bytes are no id");
    }

    #[test]
    fn an_id_that_does_not_fit_is_hashed_and_no_other_is_taken_for_it() {
        let long = "x".repeat(200);
        let of = |id_text: &str| id("wechat-v3", format!(r#"{{"id":"{id_text}"}}"#));
        assert!(of(&long).starts_with("wechat-v3:sha256:"));
        assert_ne!(of(&long), of(&long[1..]));
        let hash = of(&long)["wechat-v3:".len()..].to_owned();
        assert_ne!(of(&hash), of(&long), "an id that looks like a hash");
        assert_ne!(of(&long), hashed("wechat-v3", &long), "not a body of the same bytes");
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let hash = |parts: &[Named]| HEXLOWER.encode(&composed(parts).finalize());
        // Whether the parts are joined as they are, or each behind its length.
        for joined in ["1b2", "11:b1:2"] {
            assert_ne!(hash(&[("a", b"1".into()), ("b", b"2".into())]), hash(&[("a", joined.into())]), "{joined}");
        }
        assert_ne!(hash(&[("a", b"12".into()), ("b", b"".into())]), hash(&[("a", b"1".into()), ("b", b"2".into())]));
        assert_ne!(hash(&[("a", b"1".into())]), hash(&[("b", b"1".into())]));
    }

    #[test]
    fn without_a_body_the_query_tells_notices_apart() {
        let of = |query: &str| {
            let text = format!("POST /{query} HTTP/1.1\r\nHost: x\r\n\r\n");
            let head = Head::parse(text.as_bytes()).expect("a head");
            payment_id(profile("generic"), &head, b"").as_str().to_owned()
        };
        assert_ne!(of("?a=1"), of("?a=2"));
        assert_eq!(of(""), hashed("generic", ""));
        assert_eq!(of("?"), hashed("generic", ""));
    }
}
