//! Mutated notifications: each is stored under an id of its gateway's own, the same one for the same bytes.

use super::notice::payment_id;
use super::profile::PROFILES;
use crate::hostile::json::posts;
use crate::hostile::mutation::{Plan, Random, mutated, run};
use crate::http::Head;

const SHORT: u64 = 2_000;

fn notifications() -> Vec<Vec<u8>> {
    let own: [&[u8]; 10] = [
        b"<xml><transaction_id><![CDATA[42]]></transaction_id><result_code>SUCCESS</result_code></xml>",
        b"<xml><req_info>aGVsbG8=</req_info><a b=\"c\"/>&amp;<!-- - --></xml>",
        b"{\"id\":\"EV-1\",\"resource\":{\"id\":\"x\"}}",
        b"gmt_create=1&notify_id=a1b2&sign=a%2Bb%20c+d",
        b"{\"notifyType\":\"PAYMENT_RESULT\",\"paymentRequestId\":\"p\",\"result\":{\"resultStatus\":\"S\"}}",
        b"queryId=1&respCode=00&orderId=2&txnTime=3&txnType=4",
        b"{\"notificationItems\":[{\"NotificationRequestItem\":{\"pspReference\":\"a\",\"eventCode\":\"b\",\"success\":\"true\",\"eventDate\":\"c\"}}]}",
        b"{\"id\":\"evt_1\",\"id\":\"evt_2\"}",
        b"",
        b"\xd6\xd0\xce\xc4",
    ];
    own.iter().map(|body| body.to_vec()).chain(posts().into_iter().map(|(body, _)| body).take(10)).collect()
}

#[test]
fn notifications_have_an_id_whatever_they_say() {
    let seeds = notifications();
    let words: [&[u8]; 14] = [
        b"<![CDATA[",
        b"]]>",
        b"</xml>",
        b"<xml>",
        b"&",
        b"=",
        b"%",
        b"&notify_id=c",
        b"\"id\":\"",
        b"{",
        b"}",
        b"\"",
        b"\\u0000",
        b"<!DOCTYPE a [<!ENTITY b \"c\">]>",
    ];
    let head = Head::parse(b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nIdempotency-Key: \"k\"\r\nContent-Length: 1\r\n\r\n")
        .expect("it is valid");
    let make = |random: &mut Random| mutated(random, &seeds, &words);
    run("posts, notifications", Plan::of(SHORT), make, |input, _| {
        let mut named = 0;
        for profile in &PROFILES {
            let id = payment_id(profile, &head, input);
            assert_eq!(id, payment_id(profile, &head, input));
            assert!(id.as_str().starts_with(&format!("{}:", profile.name)) && id.as_str().len() <= 128);
            named += usize::from(profile.name != "generic" && !id.as_str().contains(":sha256:"));
        }
        // Accepted are all; this tells those that are known by their gateway's own id.
        named > 0
    });
}
