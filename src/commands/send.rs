//! `payrelay send`: posts one payment and prints what the server says.

use std::io::Read;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use super::http_client::HttpClient;
use super::{Failure, plainly, print};
use crate::args::SendArgs;

/// What `-` takes from standard input; no server takes more.
const MAX_MESSAGE_BYTES: u64 = 16 * 1024 * 1024;

/// Posts the payment; prints the answer's body, whatever it says.
///
/// # Errors
///
/// [`Failure::Usage`]: nothing was sent. [`Failure::Runtime`]: the server refused it, or gave no
/// answer; then it may be stored, and sending it again with the same payment id is safe.
pub fn run(args: &SendArgs) -> Result<(), Failure> {
    let client = HttpClient::new(&args.server, args.api_key.as_ref())?;
    let text = match args.message.as_str() {
        "-" => read_stdin()?,
        given => given.to_owned(),
    };
    let envelope = envelope(args, &text)?;
    let path = match args.wait {
        Some(wait) => format!("/v1/payments?wait={}", wait.as_secs()),
        None => "/v1/payments".to_owned(),
    };
    let wait = args.wait.unwrap_or(Duration::ZERO);
    let mut answer = client.post(&path, envelope.as_bytes(), wait)?;
    let is_good = answer.is_good();
    let problem = answer.problem();
    if !answer.body.ends_with(b"\n") {
        answer.body.push(b'\n');
    }
    print(&answer.body)?;
    if is_good { Ok(()) } else { Err(problem) }
}

/// The request's body, in which the message stands token for token.
fn envelope(args: &SendArgs, text: &str) -> Result<String, Failure> {
    #[derive(Serialize)]
    struct Envelope<'a> {
        client: &'a str,
        msg: &'a RawValue,
        #[serde(skip_serializing_if = "Option::is_none")]
        payment_id: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        channel: Option<&'a str>,
    }
    // The error tells the place only; the message itself is nobody's to print.
    let msg = serde_json::from_str(text).map_err(|error| {
        Failure::Usage(format!(
            "the message is not JSON ({error}); quote it for the shell, as in '{{\"amount\":\"10.00\"}}', and a plain text as '\"text\"'"
        ))
    })?;
    let envelope = Envelope {
        client: args.client.as_str(),
        msg,
        payment_id: args.payment_id.as_deref(),
        channel: args.channel.as_deref(),
    };
    Ok(serde_json::to_string(&envelope).expect("strings and JSON make JSON"))
}

fn read_stdin() -> Result<String, Failure> {
    let usage = |line: String| Err(Failure::Usage(line));
    let mut bytes = Vec::new();
    let stdin = std::io::stdin().lock();
    match stdin.take(MAX_MESSAGE_BYTES + 1).read_to_end(&mut bytes) {
        Err(error) => {
            let why = plainly(&error);
            return usage(format!("cannot read the message from standard input: {why}"));
        }
        Ok(count) if count as u64 > MAX_MESSAGE_BYTES => {
            return usage("the message is longer than 16 MiB; send less at once".to_owned());
        }
        Ok(_) => {}
    }
    String::from_utf8(bytes)
        .or_else(|_| usage("the message is not UTF-8; encode it, bytes as base64 in a JSON string".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payment::ClientId;

    fn args() -> SendArgs {
        SendArgs {
            client: ClientId::parse("01").expect("a client id"),
            message: String::new(),
            server: String::new(),
            payment_id: None,
            channel: None,
            wait: None,
            api_key: None,
        }
    }

    #[test]
    fn the_message_goes_token_for_token() {
        let text = "\n {\"n\": 10.00, \"big\":123456789012345678901234567890,\"n\":\"\\u0041\"} ";
        assert_eq!(envelope(&args(), text).expect("JSON"), format!("{{\"client\":\"01\",\"msg\":{}}}", text.trim()));
    }

    #[test]
    fn payment_id_and_channel_go_along() {
        let mut args = args();
        args.payment_id = Some("wx-\"1".into());
        args.channel = Some("refunds".into());
        assert_eq!(
            envelope(&args, "-5").expect("JSON"),
            r#"{"client":"01","msg":-5,"payment_id":"wx-\"1","channel":"refunds"}"#
        );
    }

    #[test]
    fn what_is_not_json_shows_how_to_quote_and_not_itself() {
        for text in ["", "hunter2", "{amount:hunter2}", "1 2", "\"a\u{1}\"", "}"] {
            let error = envelope(&args(), text).expect_err("not JSON");
            assert!(matches!(error, Failure::Usage(_)));
            let line = error.to_string();
            assert!(line.contains(r#"'{"amount":"10.00"}'"#), "{line}");
            assert!(!line.contains("hunter2") && !line.contains('\n'), "{line}");
        }
    }
}
