//! Broadcasts over HTTP: checked here, and given to the bus, which brings them to every node.

use super::payments::{channel, invalid_message, object, present};
use super::routes::{Routes, parameter};
use super::{Problem, Request, Response, json};
use crate::broadcast::Broadcast;
use crate::bus::To;
use crate::doorbell::topic;
use crate::payment::Content;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

#[derive(Deserialize)]
struct Envelope<'a> {
    channel: Option<String>,
    #[serde(borrow, default, deserialize_with = "present")]
    msg: Option<&'a RawValue>,
    // What only a payment has. Who gives it means a payment, which must not go to everybody and be lost.
    client: Option<IgnoredAny>,
    id: Option<IgnoredAny>,
    payment_id: Option<IgnoredAny>,
    expires_in: Option<IgnoredAny>,
}

impl Envelope<'_> {
    fn broadcast(&self) -> Result<Broadcast, Problem> {
        let payments_own = [
            ("client", &self.client),
            ("id", &self.id),
            ("payment_id", &self.payment_id),
            ("expires_in", &self.expires_in),
        ];
        if let Some((name, _)) = payments_own.into_iter().find(|(_, given)| given.is_some()) {
            return Err(Problem::bad_request(format!(
                "a broadcast goes to everybody and is not stored, so it takes no {name}; post payments to /v1/payments"
            )));
        }
        let channel = channel(self.channel.as_deref())?;
        let msg = self.msg.ok_or_else(|| Problem::bad_request("msg is missing"))?;
        Ok(Broadcast::new(&channel, &Content::json(msg).map_err(invalid_message)?))
    }
}

impl Routes {
    /// `POST /v1/broadcasts`
    pub(super) fn broadcast(&self, request: &Request) -> Result<Response, Problem> {
        if request.head.header("Idempotency-Key").is_some() {
            return Err(Problem::bad_request("a broadcast is not stored, so no repeat of it is known"));
        }
        if parameter(&request.head, "wait")?.is_some() {
            return Err(Problem::bad_request("a broadcast is not acknowledged, so nothing can be waited for"));
        }
        let broadcast = object::<Envelope<'_>>(&request.body, "a broadcast")?.broadcast()?;
        if !self.broadcasts.has_room() {
            return Err(Problem::unavailable("broadcasts come faster than clients can be told"));
        }
        let nodes = self.bus.emit(To::All, topic::BROADCAST, broadcast.as_bytes()).map_err(|error| {
            let problem = Problem::unavailable(error.to_string());
            if error.may_have_been_heard() { problem.stored_unknown() } else { problem }
        })?;
        Ok(json(202, format!(r#"{{"status":"broadcast","nodes":{nodes}}}"#).into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Broadcast, Problem> {
        object::<Envelope<'_>>(text.as_bytes(), "a broadcast")?.broadcast()
    }

    #[test]
    fn an_envelope_says_what_is_wrong_with_it() {
        let deep = format!(r#"{{"msg":{}{}}}"#, "[".repeat(65), "]".repeat(65));
        for (envelope, code) in [
            (r#"{"channel":"X","msg":1}"#, "invalid_channel"),
            (r#"{"channel":1,"msg":1}"#, "bad_request"),
            (r#"{"channel":"notices"}"#, "bad_request"),
            (r#"{"msg":1,"msg":2}"#, "bad_request"),
            (r#"{"msg":1,"client":"01"}"#, "bad_request"),
            (r#"{"msg":1,"id":7}"#, "bad_request"),
            (r#"{"msg":1,"payment_id":"a"}"#, "bad_request"),
            (r#"{"msg":1,"expires_in":60}"#, "bad_request"),
            (&deep, "bad_request"),
            (r#"["notices",1]"#, "bad_request"),
            (r#"{"msg":}"#, "bad_json"),
            ("", "bad_json"),
        ] {
            assert_eq!(read(envelope).map(|_| ()).map_err(|problem| problem.code()), Err(code), "{envelope}");
        }
    }

    #[test]
    fn a_message_is_kept_token_for_token_and_the_channel_may_be_left_out() {
        let read = |text: &str| read(text).map(|broadcast| String::from_utf8_lossy(broadcast.as_bytes()).into_owned());
        let expected = r#"{"type":"broadcast","channel":"payments","msg":{ "a":10.00, "a":1E400}}"#;
        let text = "{\"shop\":[1],\"client\":null,\"msg\":{\n\"a\":10.00,\r\"a\":1E400}}";
        assert_eq!(read(text).as_deref(), Ok(expected));
        assert!(read(r#"{"channel":"notices","msg":null}"#).is_ok_and(|b| b.ends_with(r#""notices","msg":null}"#)));
    }
}
