//! *Gateways*: a notification arrives as it was sent, once, and its gateway reads exactly the answer that it knows.

use std::time::{Duration, Instant};

use crate::harness::{
    self, Answer, Client, Deployment, Home, Http, Node, PATIENCE, Payment, TempDir, eventually, http,
};
use data_encoding::BASE64;
use serde_json::{Value, json};

const SECRET: &str = "a-secret-of-this-test";
/// HMAC-SHA256 of `01` under [`SECRET`].
const TOKEN_01: &str = "a230d401f880b41bc2438681ef02333411b5055d34262d32b797323c8e20b3d3";
/// The first half of HMAC-SHA256 of `notify:01` under it.
const NOTIFY_01: &str = "c8dcdf6b163ac5f4a41ca16e4ba9b2db";
const ALL: &str = "wechat-v2,wechat-v3,alipay,antom,unionpay,adyen,stripe,generic";

/// What a gateway reads: status, content type, body.
type Words = (u16, Option<&'static str>, &'static str);

/// One gateway, its words, and a notification as it sends them.
struct Gateway {
    profile: &'static str,
    success: Words,
    failure: Words,
    /// It gives up after so many seconds.
    time: u64,
    content_type: &'static str,
    /// As they are sent; those that are not the profile's do not go to the client.
    headers: &'static [(&'static str, &'static str)],
    /// As the client gets them.
    arrive: &'static [(&'static str, &'static str)],
    /// `{N}` stands for the notification's own number.
    body: &'static [u8],
    /// The same notification again, its bytes changed as this gateway changes them.
    again: &'static [u8],
    /// What the payment id begins with.
    payment_id: &'static str,
}

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded; charset=UTF-8";

const WECHAT_V2: Gateway = Gateway {
    profile: "wechat-v2",
    success: (
        200,
        Some("text/xml"),
        "<xml><return_code><![CDATA[SUCCESS]]></return_code><return_msg><![CDATA[OK]]></return_msg></xml>",
    ),
    failure: (
        200,
        Some("text/xml"),
        "<xml><return_code><![CDATA[FAIL]]></return_code><return_msg><![CDATA[try again]]></return_msg></xml>",
    ),
    time: 5,
    content_type: "text/xml",
    headers: &[("User-Agent", "Mozilla/4.0"), ("Pragma", "no-cache")],
    arrive: &[],
    body: "<xml>\n  <appid><![CDATA[wx2421b1c4370ec43b]]></appid>\n  <attach><![CDATA[桌号 7 & 8]]></attach>\n  \
           <nonce_str><![CDATA[5d2b6c2a8db53831f7eda20af46e531c]]></nonce_str>\n  \
           <result_code><![CDATA[SUCCESS]]></result_code>\n  <return_code><![CDATA[SUCCESS]]></return_code>\n  \
           <total_fee>200</total_fee>\n  <transaction_id><![CDATA[4200{N}]]></transaction_id>\n</xml>\n"
        .as_bytes(),
    again: "<xml><appid><![CDATA[wx2421b1c4370ec43b]]></appid><nonce_str><![CDATA[another]]></nonce_str>\
            <result_code><![CDATA[SUCCESS]]></result_code><transaction_id>4200{N}</transaction_id></xml>"
        .as_bytes(),
    payment_id: "wechat-v2:sha256:",
};

const WECHAT_V3: Gateway = Gateway {
    profile: "wechat-v3",
    success: (204, None, ""),
    failure: (500, Some(JSON), r#"{"code":"FAIL","message":"try again"}"#),
    time: 5,
    content_type: JSON,
    headers: &[
        ("Wechatpay-Serial", "5157F09EFDC096DE15EBE81A47057A7232F1B8E1"),
        ("Wechatpay-Signature", "CtcbzwtQjN8rnOXItEBJ5aQFSnIXESeV28Pr2YEmf9wsDQ8Nx25ytW6FXBCAFdrr0mgqngX3AD9gNzjn=="),
        ("Wechatpay-Timestamp", "1554209980"),
        ("Wechatpay-Nonce", "c5ac7061fccab6bf3e254dcf98995b8c"),
        ("Wechatpay-Signature-Type", "WECHATPAY2-SHA256-RSA2048"),
        ("Request-ID", "08F78BB2AF0610"),
    ],
    arrive: &[
        ("wechatpay-serial", "5157F09EFDC096DE15EBE81A47057A7232F1B8E1"),
        ("wechatpay-signature", "CtcbzwtQjN8rnOXItEBJ5aQFSnIXESeV28Pr2YEmf9wsDQ8Nx25ytW6FXBCAFdrr0mgqngX3AD9gNzjn=="),
        ("wechatpay-timestamp", "1554209980"),
        ("wechatpay-nonce", "c5ac7061fccab6bf3e254dcf98995b8c"),
        ("wechatpay-signature-type", "WECHATPAY2-SHA256-RSA2048"),
    ],
    body: r#"{"id":"EV-20180225112233{N}","create_time":"2026-05-20T13:29:35+08:00","resource_type":"encrypt-resource","event_type":"TRANSACTION.SUCCESS","summary":"支付成功","resource":{"original_type":"transaction","algorithm":"AEAD_AES_256_GCM","ciphertext":"x1\/=","associated_data":"","nonce":"fdasflkja484w"}}"#
        .as_bytes(),
    again: br#"{ "event_type" : "TRANSACTION.SUCCESS", "id" : "EV-20180225112233{N}", "resource" : {"ciphertext":"y2"} }"#,
    payment_id: "wechat-v3:EV-20180225112233",
};

const ALIPAY: Gateway = Gateway {
    profile: "alipay",
    success: (200, Some("text/plain"), "success"),
    failure: (200, Some("text/plain"), "failure"),
    time: 5,
    content_type: FORM,
    headers: &[],
    arrive: &[],
    body: b"gmt_create=2026-05-20+13%3A29%3A35&charset=gbk&subject=%D6%D0%CE%C4&total_amount=2.00&sign=kPbQIjX%2BxQc8%2F\
            &sign_type=RSA2&trade_status=TRADE_SUCCESS&notify_id=ac05099524730693a{N}&notify_time=2026-05-20+13%3A29%3A36",
    again: b"notify_id=ac05099524730693a{N}&notify_time=2026-05-20+13%3A33%3A36&total_amount=2.00&sign=another",
    payment_id: "alipay:ac05099524730693a",
};

const ANTOM: Gateway = Gateway {
    profile: "antom",
    success: (
        200,
        Some(JSON),
        r#"{"result":{"resultCode":"SUCCESS","resultStatus":"S","resultMessage":"success"}}"#,
    ),
    failure: (500, Some(JSON), r#"{"result":{"resultCode":"FAIL","resultStatus":"F","resultMessage":"try again"}}"#),
    time: 5,
    content_type: "application/json; charset=UTF-8",
    headers: &[
        ("Client-Id", "SANDBOX_5Y3A2N2YEB3002022"),
        ("Request-Time", "1685599933871"),
        ("Signature", "algorithm=RSA256, keyVersion=1, signature=UVx%2F"),
        ("Tracer-Id", "0b4f"),
    ],
    arrive: &[
        ("client-id", "SANDBOX_5Y3A2N2YEB3002022"),
        ("request-time", "1685599933871"),
        ("signature", "algorithm=RSA256, keyVersion=1, signature=UVx%2F"),
    ],
    body: br#"{"notifyType":"PAYMENT_RESULT","result":{"resultCode":"SUCCESS","resultStatus":"S","resultMessage":"success."},"paymentRequestId":"REQUEST_{N}","paymentId":"2026052019","paymentAmount":{"value":"200","currency":"EUR"},"paymentTime":"2026-05-20T06:12:13Z"}"#,
    again: br#"{"result":{"resultStatus":"S"},"notifyType":"PAYMENT_RESULT","paymentRequestId":"REQUEST_{N}"}"#,
    payment_id: "antom:sha256:",
};

const UNIONPAY: Gateway = Gateway {
    profile: "unionpay",
    success: (200, Some("text/plain"), "ok"),
    failure: (500, Some("text/plain"), "fail"),
    time: 5,
    content_type: FORM,
    headers: &[],
    arrive: &[],
    body: b"accNo=6216%2A%2A0018&bizType=000201&encoding=GBK&merId=777290058110048&orderId=20260520132935\
            &queryId=7820260520{N}&respCode=00&respMsg=\xb3\xc9\xb9\xa6&signature=fP0%2F%2Bx&txnAmt=200&txnTime=20260520132935&txnType=01",
    again: b"queryId=7820260520{N}&respCode=00&signature=another",
    payment_id: "unionpay:sha256:",
};

const ADYEN: Gateway = Gateway {
    profile: "adyen",
    success: (200, Some("text/plain"), "[accepted]"),
    failure: (500, Some("text/plain"), "try again"),
    time: 10,
    content_type: JSON,
    headers: &[("HmacSignature", "coqCmt/IZ4E3CzPvMY8zTjQVL5hYJUiBRg8UU+iCWo0="), ("Protocol", "HmacSHA256")],
    arrive: &[("hmacsignature", "coqCmt/IZ4E3CzPvMY8zTjQVL5hYJUiBRg8UU+iCWo0="), ("protocol", "HmacSHA256")],
    body: br#"{"live":"false","notificationItems":[{"NotificationRequestItem":{"additionalData":{"hmacSignature":"x="},"amount":{"currency":"EUR","value":200},"eventCode":"AUTHORISATION","eventDate":"2026-05-20T13:29:35+02:00","merchantAccountCode":"Shop","pspReference":"NC6HT9CRT65ZG{N}","success":"true"}}]}"#,
    again: br#"{"notificationItems":[{"NotificationRequestItem":{"pspReference":"NC6HT9CRT65ZG{N}","success":true,"eventDate":"2026-05-20T13:29:35+02:00","eventCode":"AUTHORISATION"}}]}"#,
    payment_id: "adyen:sha256:",
};

const STRIPE: Gateway = Gateway {
    profile: "stripe",
    success: (200, None, ""),
    failure: (500, None, ""),
    time: 10,
    content_type: "application/json; charset=utf-8",
    headers: &[("Stripe-Signature", "t=1492774577,v1=5257a869e7ecebeda32affa62cdca3fa,v0=6ffbb59b2300")],
    arrive: &[("stripe-signature", "t=1492774577,v1=5257a869e7ecebeda32affa62cdca3fa,v0=6ffbb59b2300")],
    body: b"{\n  \"id\": \"evt_1NG8Du2eZvKYlo2C{N}\",\n  \"object\": \"event\",\n  \"data\": {\"object\": {\"amount\": 2.00}}\n}",
    again: br#"{"id":"evt_1NG8Du2eZvKYlo2C{N}","pending_webhooks":0}"#,
    payment_id: "stripe:evt_1NG8Du2eZvKYlo2C",
};

const GENERIC: Gateway = Gateway {
    profile: "generic",
    success: (200, Some(JSON), r#"{"status":"accepted"}"#),
    failure: (503, Some(JSON), r#"{"status":"try again"}"#),
    time: 10,
    content_type: "text/csv",
    headers: &[
        ("Webhook-Id", "msg_p5jX{N}"),
        ("Webhook-Timestamp", "1674087231"),
        (
            "Webhook-Signature",
            "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4= v1,bm9ldHUjKzFob2VudXRob2VodWUzMjRvdWVvdW9ldQo=",
        ),
    ],
    arrive: &[
        ("webhook-id", "msg_p5jX{N}"),
        ("webhook-timestamp", "1674087231"),
        (
            "webhook-signature",
            "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4= v1,bm9ldHUjKzFob2VudXRob2VodWUzMjRvdWVvdW9ldQo=",
        ),
    ],
    body: b"amount,2.00\r\n",
    again: b"amount,2.00\r\nattempt,2\r\n",
    payment_id: "generic:msg_p5jX",
};

/// Tests of one gateway: on both inboxes, and through the side door.
macro_rules! for_each_gateway {
    ($($name:ident: $gateway:ident),+ $(,)?) => {
        $( mod $name {
            use super::{Home, acknowledged_everywhere, stored};
            #[test] fn stored_on_the_embedded_inbox() { stored(&super::$gateway, Home::Embedded, "strict"); }
            #[test] fn stored_on_redis() { stored(&super::$gateway, Home::Redis, "strict"); }
            #[test] fn stored_through_the_side_door() { stored(&super::$gateway, Home::Embedded, "tiny_http"); }
            #[test] fn acknowledged() { acknowledged_everywhere(&super::$gateway); }
        } )+
    };
}

for_each_gateway!(
    wechat_v2: WECHAT_V2,
    wechat_v3: WECHAT_V3,
    alipay: ALIPAY,
    antom: ANTOM,
    unionpay: UNIONPAY,
    adyen: ADYEN,
    stripe: STRIPE,
    generic: GENERIC,
);

/// A text with a notification's own number in it.
fn numbered(text: &[u8], number: u32) -> Vec<u8> {
    let mut text = text.to_vec();
    if let Some(at) = text.windows(3).position(|window| window == b"{N}") {
        text.splice(at..at + 3, format!("{number:04}").bytes());
    }
    text
}

impl Gateway {
    fn path(&self) -> String {
        path(self.profile)
    }

    /// Sends a notification, of which the answer is read later.
    fn ask(&self, node: &Node, body: &[u8], number: u32) -> Http {
        let mut http = node.http_client().patient(PATIENCE + Duration::from_secs(self.time));
        let headers = self.sent_headers(number);
        // tiny_http's server may leave a connection waiting for another's end, where several are opened at once.
        let headers = headers.iter().map(|(name, value)| (*name, value.as_str())).chain([("Connection", "close")]);
        let headers: Vec<_> = headers.collect();
        http.ask("POST", &format!("{}?shop=7&x=%41", self.path()), &headers, &numbered(body, number));
        http
    }

    fn post(&self, node: &Node, body: &[u8], number: u32) -> Answer {
        self.ask(node, body, number).answer()
    }

    fn sent_headers(&self, number: u32) -> Vec<(&'static str, String)> {
        let own = self.headers.iter().map(|(name, value)| (*name, text(&numbered(value.as_bytes(), number))));
        std::iter::once(("Content-Type", self.content_type.to_owned())).chain(own).collect()
    }

    #[track_caller]
    fn expect(&self, answer: &Answer, words: Words) {
        let (status, content_type, body) = words;
        assert_eq!(answer.status, status, "{}", answer.show());
        assert_eq!(answer.header("Content-Type"), content_type, "{}", answer.show());
        assert_eq!(answer.body, body.as_bytes(), "{}", answer.show());
        let plain = ["server", "date", "content-type", "content-length", "connection"];
        for (name, _) in &answer.headers {
            assert!(plain.contains(&name.to_ascii_lowercase().as_str()), "{name} decorates: {}", answer.show());
        }
    }

    #[track_caller]
    fn expect_success(&self, answer: &Answer) {
        self.expect(answer, self.success);
    }

    #[track_caller]
    fn expect_failure(&self, answer: &Answer) {
        self.expect(answer, self.failure);
    }

    /// The notification arrives whole, with all that its signature is made of and nothing else.
    #[track_caller]
    fn expect_arrival(&self, client: &mut Client, seq: u64, body: &[u8], number: u32) -> Payment {
        let payment = client.expect_any_payment();
        let frame = &payment.frame;
        assert_eq!(payment.seq, seq, "{}", frame.line);
        assert_eq!(payment.channel, "payments");
        let body = numbered(body, number);
        let (name, value) = match std::str::from_utf8(&body) {
            Ok(text) => ("body", text.to_owned()),
            Err(_) => ("body_base64", BASE64.encode(&body)),
        };
        let names = ["type", "seq", "channel", "payment_id", "accepted_at", "gateway", name];
        let names: Vec<_> = names.into_iter().chain(["content_type", "headers", "method", "path", "query"]).collect();
        assert_eq!(frame.names(), names, "{}", frame.line);
        let headers: serde_json::Map<String, Value> = self
            .arrive
            .iter()
            .map(|(name, value)| ((*name).to_owned(), text(&numbered(value.as_bytes(), number)).into()))
            .collect();
        let whole: Value = serde_json::from_str(&frame.line).expect("JSON");
        assert_eq!(whole["gateway"], self.profile);
        assert_eq!(whole[name], value);
        assert_eq!(whole["content_type"], self.content_type);
        assert_eq!(whole["headers"], Value::Object(headers));
        assert_eq!(whole["method"], "POST");
        assert_eq!(whole["path"], self.path());
        assert_eq!(whole["query"], "shop=7&x=%41");
        let id = payment.payment_id.clone().unwrap_or_default();
        let rest = id.strip_prefix(self.payment_id).unwrap_or_else(|| panic!("no id of this gateway: {id}"));
        match self.payment_id.ends_with("sha256:") {
            true => assert!(rest.len() == 64 && rest.bytes().all(|b| b.is_ascii_hexdigit()), "{id}"),
            false => assert_eq!(rest, format!("{number:04}"), "{id}"),
        }
        payment
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

fn path(profile: &str) -> String {
    format!("/v1/gateways/{profile}/01/{NOTIFY_01}")
}

/// A node that serves gateways, with API keys, which no gateway has.
struct Scene {
    _dir: TempDir,
    nodes: Vec<Node>,
}

impl Scene {
    #[track_caller]
    fn new(home: Home, further: &[&str]) -> Scene {
        let dir = TempDir::new();
        let (keys, secrets) = (dir.file("keys", "a-key-of-this-test\n"), dir.file("secrets", &format!("{SECRET}\n")));
        let mut flags = vec!["--gateways", ALL, "--client-secret-file", &secrets, "--api-keys-file", &keys];
        flags.extend_from_slice(further);
        Scene { nodes: Deployment::at(home, &flags), _dir: dir }
    }

    fn node(&self) -> &Node {
        &self.nodes[0]
    }

    fn client(&self) -> Client {
        self.node().client_with("01", &format!(r#""token":"{TOKEN_01}""#))
    }

    #[track_caller]
    fn get(&self, path: &str) -> Answer {
        self.node().request("GET", path, &[("Authorization", "Bearer a-key-of-this-test")], b"")
    }

    #[track_caller]
    fn expect_stored(&self, payments: u64) {
        assert_eq!(self.get("/v1/clients/01").expect(200).json()["last_seq"], payments);
    }

    #[track_caller]
    fn expect_status(&self, seq: u64, status: &str) {
        let path = format!("/v1/clients/01/payments/{seq}");
        eventually(&format!("it is {status}"), || self.get(&path).field("status") == status);
    }

    #[track_caller]
    fn expect_acknowledged(&self, seq: u64) {
        self.expect_status(seq, "acknowledged");
    }

    /// An operator puts a dead letter back.
    #[track_caller]
    fn retry(&self, seq: u64) {
        let path = format!("/v1/clients/01/dead-letters/{seq}/retry");
        self.node().request("POST", &path, &[("Authorization", "Bearer a-key-of-this-test")], b"").expect(202);
    }

    #[track_caller]
    fn expect_count(&self, sample: &str, count: u64) {
        eventually(&format!("{sample} is {count}"), || {
            let line = format!("{sample} {count}");
            self.get("/metrics").expect(200).text().lines().any(|sample| sample == line)
        });
    }
}

/// `--gateway-answer stored`, which is the default.
fn stored(gateway: &Gateway, home: Home, door: &str) {
    let scene = Scene::new(home, &["--http-server", door, "--body-limit", "2000"]);
    let node = scene.nodes.last().expect("at least one node");

    // Nobody is there to acknowledge it.
    gateway.expect_success(&gateway.post(node, gateway.body, 1));
    gateway.expect_success(&gateway.post(scene.node(), gateway.again, 1));
    scene.expect_stored(1);

    let mut client = scene.client();
    let first = gateway.expect_arrival(&mut client, 1, gateway.body, 1);
    gateway.expect_success(&gateway.post(node, gateway.again, 1));
    client.ack(1);
    scene.expect_acknowledged(1);
    gateway.expect_success(&gateway.post(node, gateway.again, 1));

    // Another one is another payment.
    gateway.expect_success(&gateway.post(node, gateway.body, 2));
    let second = gateway.expect_arrival(&mut client, 2, gateway.body, 2);
    assert_ne!(first.payment_id, second.payment_id);
    // Whatever becomes of it, the gateway need not send it again.
    client.send_line(r#"{"type":"nack","seq":2,"reason":"unknown order"}"#);
    scene.expect_status(2, "refused");
    gateway.expect_success(&gateway.post(node, gateway.again, 2));
    client.expect_nothing_but_pings(harness::QUIET);

    // What became of it can be asked.
    let id = first.payment_id.expect("an id");
    let asked = scene.get(&format!("/v1/clients/01/payments?payment_id={id}")).expect(200).json();
    assert_eq!(asked, json!({"client": "01", "seq": 1, "status": "acknowledged", "payment_id": id}));

    gateway.expect_failure(&gateway.post(node, &[b'x'; 2001], 3));
    scene.expect_stored(2);
}

/// In all three places at once, for each waits until the gateway's time is over.
fn acknowledged_everywhere(gateway: &Gateway) {
    let places = [
        ("on the embedded inbox", Home::Embedded, "strict"),
        ("on Redis", Home::Redis, "strict"),
        ("through the side door", Home::Embedded, "tiny_http"),
    ];
    std::thread::scope(|scope| {
        for (place, home, door) in places {
            let named = std::thread::Builder::new().name(format!("{} {place}", gateway.profile));
            named.spawn_scoped(scope, move || acknowledged(gateway, home, door)).expect("a thread");
        }
    });
}

/// `--gateway-answer acknowledged`.
fn acknowledged(gateway: &Gateway, home: Home, door: &str) {
    let scene = Scene::new(home, &["--http-server", door, "--gateway-answer", "acknowledged"]);
    let node = scene.nodes.last().expect("at least one node");
    let mut client = scene.client();

    let mut waiter = gateway.ask(node, gateway.body, 1);
    gateway.expect_arrival(&mut client, 1, gateway.body, 1);
    client.ack(1);
    gateway.expect_success(&waiter.answer());
    let asked = Instant::now();
    gateway.expect_success(&gateway.post(node, gateway.again, 1));
    assert!(asked.elapsed() < Duration::from_secs(3), "a repeat of what is done does not wait");

    // Past its time the gateway is to try again; it stays stored, and a repeat waits like the first.
    let asked = Instant::now();
    gateway.expect_failure(&gateway.post(node, gateway.body, 2));
    let took = asked.elapsed();
    let time = Duration::from_secs(gateway.time);
    assert!(took > time - Duration::from_millis(1100), "a second before its time, not after {took:?}");
    assert!(took < time + PATIENCE, "after {took:?}");
    gateway.expect_arrival(&mut client, 2, gateway.body, 2);
    let mut repeats = [gateway.ask(node, gateway.again, 2), gateway.ask(scene.node(), gateway.again, 2)];
    client.expect_nothing_but_pings(harness::QUIET);
    client.ack(2);
    repeats.iter_mut().for_each(|repeat| gateway.expect_success(&repeat.answer()));
    scene.expect_stored(2);
    if scene.nodes.len() == 1 {
        scene.expect_count(r#"payrelay_requests_refused_total{code="not_acknowledged"}"#, 1);
    }

    // Refused, it fails at once, and so does a repeat; put back, a repeat waits for it under its new seq.
    let mut waiter = gateway.ask(node, gateway.body, 3);
    gateway.expect_arrival(&mut client, 3, gateway.body, 3);
    let asked = Instant::now();
    client.send_line(r#"{"type":"nack","seq":3,"reason":"unknown order"}"#);
    gateway.expect_failure(&waiter.answer());
    gateway.expect_failure(&gateway.post(scene.node(), gateway.again, 3));
    assert!(asked.elapsed() < Duration::from_secs(3), "a refusal is not waited for");
    scene.retry(3);
    gateway.expect_arrival(&mut client, 4, gateway.body, 3);
    let mut repeat = gateway.ask(node, gateway.again, 3);
    client.expect_nothing_but_pings(harness::QUIET);
    let acked = Instant::now();
    client.ack(4);
    gateway.expect_success(&repeat.answer());
    assert!(acked.elapsed() < Duration::from_secs(3), "success comes with the acknowledgement");
    gateway.expect_success(&gateway.post(node, gateway.again, 3));
    scene.expect_stored(4);
}

#[test]
fn the_answer_is_all_that_is_sent() {
    let scene = Scene::new(Home::Embedded, &[]);
    for gateway in [&WECHAT_V2, &WECHAT_V3, &ALIPAY, &ANTOM, &UNIONPAY, &ADYEN, &STRIPE, &GENERIC] {
        let head = |probe: &str| {
            format!(
                "POST {} HTTP/1.1\r\nHost: x\r\n{probe}Content-Length: 1\r\nConnection: close\r\n\r\nx",
                gateway.path()
            )
        };
        let raw = http::raw(scene.node().http(), head("").as_bytes());
        assert!(raw.closed);
        let (status, content_type, body) = gateway.success;
        let sent = text(&raw.bytes);
        let (fields, rest) = sent.split_once("\r\n\r\n").expect("a head");
        assert_eq!(rest, body, "not a byte around it");
        assert!(fields.starts_with(&format!("HTTP/1.1 {status} ")), "{fields}");
        assert_eq!(fields.contains("Content-Type"), content_type.is_some(), "{fields}");
        assert_eq!(fields.contains("Content-Length"), status != 204, "{fields}");
    }
}

#[test]
fn whatever_bytes_come_arrive_as_they_were_sent() {
    let scene = Scene::new(Home::Embedded, &[]);
    let mut client = scene.client();
    let mut state = 7_u32;
    let mut noise = |length: usize| -> Vec<u8> {
        let byte = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        };
        (0..length).map(byte).collect()
    };
    let mut bodies = vec![noise(1), noise(1000), noise(100_000), Vec::new(), (0..=255).collect()];
    bodies.push(b"\xd6\xd0\xce\xc4 2.00".to_vec());
    bodies.push("{\"amount\":2.00,\r\n\t\"name\":\"\\u4e2d\u{4e2d}\u{2028}\u{0}\"}\n".into());
    bodies.push(b"\xef\xbb\xbf<xml/>".to_vec());
    for (n, profile) in ALL.split(',').enumerate() {
        for (i, body) in bodies.iter().enumerate() {
            scene.node().request("POST", &path(profile), &[("Content-Type", "x/y")], body);
            let payment = client.expect_any_payment();
            assert_eq!(payment.seq, u64::try_from(n * bodies.len() + i + 1).expect("small"), "{profile}, body {i}");
            let came = match payment.frame.text("body") {
                Some(text) => text.into_bytes(),
                None => BASE64.decode(payment.frame.text("body_base64").expect("a body").as_bytes()).expect("base64"),
            };
            assert_eq!(came, *body, "{profile}, body {i}");
            client.ack(payment.seq);
        }
    }
}

#[test]
fn what_a_gateway_leaves_out_is_empty_and_what_it_compresses_stays_so() {
    let scene = Scene::new(Home::Embedded, &[]);
    let mut client = scene.client();
    let answer = scene.node().request("POST", &path("stripe"), &[("Content-Encoding", "gzip")], b"\x1f\x8b\x08\x00");
    STRIPE.expect_success(&answer);
    let payment = client.expect_any_payment();
    let whole: Value = serde_json::from_str(&payment.frame.line).expect("JSON");
    assert_eq!(whole["body_base64"], "H4sIAA==");
    assert_eq!((&whole["content_type"], &whole["query"], &whole["headers"]), (&"".into(), &"".into(), &json!({})));

    // A header that comes twice is one list.
    let twice = [("Webhook-Id", "1"), ("Webhook-Signature", "v1,a"), ("Webhook-Signature", "v1,b")];
    GENERIC.expect_success(&scene.node().request("POST", &path("generic"), &twice, b""));
    let payment = client.expect_any_payment();
    assert_eq!(payment.payment_id.as_deref(), Some("generic:1"));
    let whole: Value = serde_json::from_str(&payment.frame.line).expect("JSON");
    assert_eq!(whole["headers"], json!({"webhook-id": "1", "webhook-signature": "v1,a, v1,b"}));
}

#[test]
fn different_notices_are_different_payments() {
    let scene = Scene::new(Home::Embedded, &[]);
    let antom = |kind: &str, id: &str, status: &str| {
        format!(r#"{{"notifyType":"{kind}",{id}"paymentRequestId":"p","result":{{"resultStatus":"{status}"}}}}"#)
    };
    let adyen = |code: &str, psp: &str, success: &str| {
        format!(
            r#"{{"notificationItems":[{{"NotificationRequestItem":{{"pspReference":"{psp}","eventCode":"{code}","success":"{success}","eventDate":"d"}}}}]}}"#
        )
    };
    let notices = [
        // Failed, then paid, then refunded in two parts.
        ("antom", antom("PAYMENT_RESULT", "", "F")),
        ("antom", antom("PAYMENT_RESULT", "", "S")),
        ("antom", antom("REFUND_RESULT", r#""refundRequestId":"r1","#, "S")),
        ("antom", antom("REFUND_RESULT", r#""refundRequestId":"r2","#, "S")),
        ("antom", antom("CAPTURE_RESULT", r#""captureRequestId":"r1","#, "S")),
        ("antom", antom("CAPTURE_RESULT", r#""captureRequestId":"r2","#, "S")),
        ("adyen", adyen("AUTHORISATION", "1", "false")),
        ("adyen", adyen("AUTHORISATION", "1", "true")),
        ("adyen", adyen("CAPTURE", "2", "true")),
        ("adyen", adyen("CAPTURE", "3", "true")),
        ("adyen", adyen("REFUND", "2", "true")),
        ("wechat-v2", "<xml><transaction_id>1</transaction_id><result_code>FAIL</result_code></xml>".into()),
        ("wechat-v2", "<xml><transaction_id>1</transaction_id><result_code>SUCCESS</result_code></xml>".into()),
        ("wechat-v2", "<xml><transaction_id>1</transaction_id><req_info>a</req_info></xml>".into()),
        ("wechat-v2", "<xml><transaction_id>1</transaction_id><req_info>b</req_info></xml>".into()),
        ("unionpay", "queryId=1&respCode=00".into()),
        ("unionpay", "queryId=1&respCode=05".into()),
        ("unionpay", "orderId=1&txnTime=1&txnType=01&respCode=00".into()),
        ("unionpay", "orderId=1&txnTime=1&txnType=04&respCode=00".into()),
        // One id, two gateways.
        ("stripe", r#"{"id":"1"}"#.into()),
        ("wechat-v3", r#"{"id":"1"}"#.into()),
        ("alipay", "notify_id=1".into()),
    ];
    for (seq, (profile, body)) in (1..).zip(&notices) {
        for _ in 0..2 {
            scene.node().request("POST", &path(profile), &[], body.as_bytes());
            scene.expect_stored(seq);
        }
    }
    let all = u64::try_from(notices.len()).expect("a few");
    scene.expect_count("payrelay_payments_accepted_total", all);
    scene.expect_count("payrelay_payments_duplicate_total", all);
}

#[test]
fn a_signature_probe_fails_and_is_not_stored() {
    for mode in ["stored", "acknowledged"] {
        let scene = Scene::new(Home::Embedded, &["--gateway-answer", mode]);
        let probe = [
            ("Wechatpay-Signature", "WECHATPAY/SIGNTEST/3xvGjGyMmTXGnPTaMMjtOuVOkFdOhT"),
            ("Wechatpay-Serial", "5157"),
        ];
        let answer = scene.node().request("POST", &path("wechat-v3"), &probe, WECHAT_V3.body);
        WECHAT_V3.expect_failure(&answer);
        scene.get("/v1/clients/01").expect_problem(404, "not_found");
        scene.expect_count(r#"payrelay_requests_refused_total{code="signature_probe"}"#, 1);
    }
}

#[test]
fn a_full_inbox_is_the_gateways_failure() {
    for home in [Home::Embedded, Home::Redis] {
        let scene = Scene::new(home, &["--inbox-limit", "1"]);
        for gateway in [&ALIPAY, &WECHAT_V3] {
            let first = gateway.profile == ALIPAY.profile;
            let answer = gateway.post(scene.node(), gateway.body, 1);
            if first { gateway.expect_success(&answer) } else { gateway.expect_failure(&answer) }
        }
        // What is there already is still a success.
        ALIPAY.expect_success(&ALIPAY.post(scene.node(), ALIPAY.again, 1));
        scene.expect_stored(1);
        scene.expect_count(r#"payrelay_requests_refused_total{code="inbox_full"}"#, 1);
    }
}

#[test]
fn a_store_that_is_away_is_the_gateways_failure() {
    let scene = Scene::new(Home::Redis, &[]);
    scene.node().redis().kill();
    let gateways = [&WECHAT_V2, &WECHAT_V3, &ALIPAY, &ANTOM, &UNIONPAY, &ADYEN, &STRIPE, &GENERIC];
    for gateway in gateways {
        gateway.expect_failure(&gateway.post(scene.node(), gateway.body, 1));
    }
    scene.node().redis().restart();
    scene.node().expect_ready();
    for gateway in gateways {
        gateway.expect_success(&gateway.post(scene.node(), gateway.again, 1));
    }
    scene.expect_stored(8);
}

#[test]
fn what_is_wrong_with_a_request_is_the_gateways_failure() {
    for door in ["strict", "tiny_http"] {
        let scene = Scene::new(Home::Embedded, &["--http-server", door, "--body-limit", "100"]);
        let head = format!("POST {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", path("alipay"));
        let wrong = [
            // Too long, of no known length, chunked to too much.
            format!("{head}Content-Length: 101\r\n\r\n{}", "x".repeat(101)),
            format!("{head}\r\n"),
            format!("{head}Transfer-Encoding: chunked\r\n\r\n65\r\n{}\r\n0\r\n\r\n", "x".repeat(101)),
        ];
        for request in wrong {
            ALIPAY.expect_failure(&http::raw(scene.node().http(), request.as_bytes()).only_answer());
        }
        // A query that would make a longer line than receivers are promised.
        let long = format!("{}?{}", path("alipay"), "x".repeat(5000));
        ALIPAY.expect_failure(&scene.node().request("POST", &long, &[], b"notify_id=1"));
        scene.get("/v1/clients/01").expect_problem(404, "not_found");
        scene.expect_count(r#"payrelay_requests_refused_total{code="length_required"}"#, 1);
        scene.expect_count(r#"payrelay_requests_refused_total{code="head_too_large"}"#, 1);
    }
    let scene = Scene::new(Home::Embedded, &[]);
    let half = format!("POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nnoti", path("alipay"));
    ALIPAY.expect_failure(&http::raw_half_closed(scene.node().http(), half.as_bytes()).only_answer());
    let chunks = format!("POST {} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nno\r\n", path("alipay"));
    ALIPAY.expect_failure(&http::raw(scene.node().http(), chunks.as_bytes()).only_answer());
    scene.get("/v1/clients/01").expect_problem(404, "not_found");
}

#[test]
fn the_time_counts_from_the_first_byte() {
    let scene = Scene::new(Home::Embedded, &["--gateway-answer", "acknowledged"]);
    let mut http = scene.node().http_client().patient(PATIENCE);
    let body = b"notify_id=1";
    let head = format!("POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", path("alipay"), body.len());
    let begun = Instant::now();
    http.write(head.as_bytes());
    std::thread::sleep(Duration::from_millis(2500));
    let whole = Instant::now();
    http.write(body);
    ALIPAY.expect_failure(&http.answer());
    assert!(begun.elapsed() >= Duration::from_millis(3900), "after {:?}", begun.elapsed());
    // Counted from its last byte it would be four seconds from here.
    assert!(whole.elapsed() < Duration::from_millis(3500), "after {:?}", whole.elapsed());
    scene.expect_stored(1);
}

#[test]
fn a_stopping_node_has_the_gateway_try_again() {
    for door in ["strict", "tiny_http"] {
        let scene = Scene::new(Home::Embedded, &["--gateway-answer", "acknowledged", "--http-server", door]);
        let mut client = scene.client();
        let mut waiter = ADYEN.ask(scene.node(), ADYEN.body, 1);
        client.expect_any_payment();
        let asked = Instant::now();
        assert_eq!(scene.node().terminate().code, Some(0));
        ADYEN.expect_failure(&waiter.answer());
        assert!(asked.elapsed() < Duration::from_secs(8), "after {:?}", asked.elapsed());
    }
}

#[test]
fn all_who_wait_are_answered() {
    const WAITERS: usize = 100;
    let scene = Scene::new(Home::Embedded, &["--gateway-answer", "acknowledged"]);
    let mut waiters: Vec<_> = (1..).take(WAITERS).map(|n| STRIPE.ask(scene.node(), STRIPE.body, n)).collect();
    eventually("all are stored", || scene.get("/v1/clients/01").json()["pending"] == WAITERS);
    let mut client = scene.client();
    client.expect_seqs(1..=u64::try_from(WAITERS).expect("a few"));
    client.ack(u64::try_from(WAITERS).expect("a few"));
    waiters.iter_mut().for_each(|waiter| STRIPE.expect_success(&waiter.answer()));
}
