//! Dead letters over HTTP: refusing a payment for its client; listing, putting back and throwing away what is dead.
//!
//! These are an operator's calls, by hand: each is one round trip to the store.

use super::payments::{problem_of, status_fields};
use super::routes::{Routes, parameter};
use super::{Head, Problem, Response, json};
use crate::inbox::{Letter, Retry, Status};
use crate::payment::{ClientId, Seq};

/// The most dead letters of a page.
pub(crate) const PAGE_LETTERS: usize = 1000;
/// After so many bytes a page ends.
pub(crate) const PAGE_BYTES: usize = 4 << 20;
/// What a dead letter says of an operator's refusal.
const BY_OPERATOR: &str = "refused by an operator";

impl Routes {
    /// `DELETE /v1/clients/{client}/payments/{seq}`
    pub(super) fn refuse_payment(&self, client: &ClientId, seq: Seq) -> Result<Response, Problem> {
        match self.inbox.refuse(client, seq, BY_OPERATOR).map_err(|e| problem_of(&e))? {
            None => Err(Problem::not_found("no such payment")),
            Some((Status::Acknowledged, _)) => Err(Problem::conflict(format!("{client} acknowledged payment {seq}"))),
            Some((status, _)) => {
                let body = format!(r#"{{"client":"{client}","seq":{seq},{}}}"#, status_fields(status));
                Ok(json(200, body.into_bytes()))
            }
        }
    }

    /// `GET /v1/clients/{client}/dead-letters`, with `?after=…`
    pub(super) fn list_dead_letters(&self, client: &ClientId, head: &Head) -> Result<Response, Problem> {
        let after = parameter(head, "after")?.map(|text| text.parse());
        let after = after.transpose().map_err(|_| Problem::bad_request("after is the seq of a dead letter"))?;
        let page = self.inbox.dead_letters(client, Seq(after.unwrap_or(0)), PAGE_LETTERS, PAGE_BYTES);
        let page = page.map_err(|e| problem_of(&e))?;
        let page = page.ok_or_else(|| Problem::not_found(format!("{client} never had a payment or a connection")))?;
        let mut body = b"{\"dead_letters\":[".to_vec();
        for (n, letter) in page.letters.iter().enumerate() {
            if n > 0 {
                body.push(b',');
            }
            write_letter(letter, &mut body);
        }
        let next = page.letters.last().filter(|_| page.more).map(|letter| letter.entry.mark.seq.to_string());
        body.extend_from_slice(format!("],\"next\":{}}}", next.as_deref().unwrap_or("null")).as_bytes());
        Ok(json(200, body))
    }

    /// `POST /v1/clients/{client}/dead-letters/{seq}/retry`
    pub(super) fn retry_dead_letter(&self, client: &ClientId, seq: Seq) -> Result<Response, Problem> {
        match self.inbox.retry(client, seq).map_err(|e| problem_of(&e))? {
            Retry::Accepted(accepted, payment_id) => {
                self.metrics.accepted(false);
                let id = payment_id.map(|id| format!(r#","payment_id":"{id}""#)).unwrap_or_default();
                let (seq, online) = (accepted.mark.seq, accepted.online);
                let body = format!(r#"{{"status":"accepted","client":"{client}","seq":{seq}{id},"online":{online}}}"#);
                Ok(json(202, body.into_bytes()))
            }
            Retry::Gone(Status::Retried(again)) => {
                Err(Problem::conflict(format!("it was put back already, as payment {again}")))
            }
            Retry::Gone(_) | Retry::Unknown => Err(no_letter()),
        }
    }

    /// `DELETE /v1/clients/{client}/dead-letters/{seq}`
    pub(super) fn purge_dead_letter(&self, client: &ClientId, seq: Seq) -> Result<Response, Problem> {
        match self.inbox.purge(client, seq).map_err(|e| problem_of(&e))? {
            Some(Status::Purged) => Ok(super::clients::empty(204)),
            _ => Err(no_letter()),
        }
    }
}

fn no_letter() -> Problem {
    Problem::not_found("no such dead letter")
}

fn write_letter(letter: &Letter, out: &mut Vec<u8>) {
    let Letter { status, dead_at, maybe_delivered, reason, entry } = letter;
    let reason = match reason.as_str() {
        "" => String::new(),
        reason => format!(",\"reason\":{}", serde_json::Value::from(reason)),
    };
    let maybe = if *maybe_delivered { ",\"maybe_delivered\":true" } else { "" };
    let (seq, status) = (entry.mark.seq, status.as_str());
    let head = format!("{{\"seq\":{seq},\"status\":\"{status}\"{reason}{maybe},\"dead_at\":{dead_at},\"payment\":");
    out.extend_from_slice(head.as_bytes());
    entry.write_frame(out);
    out.push(b'}');
}
