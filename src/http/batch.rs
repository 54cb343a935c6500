//! Batches: `POST /v1/payments` with a payment a line.
//!
//! A batch is read whole before anything is stored, and has a few of its lines on their way at a
//! time. Its own thread waits for them, and nobody else's.

use super::payments::{Envelope, STORE_LIMIT, Told, problem_of};
use super::routes::{Routes, parameter};
use super::{Answer, Problem, Request, Response, whole};
use crate::inbox::{Accepted, Deposit, Done, Error};
use crate::payment::Payment;
use crossbeam_channel::{Sender, bounded};
use std::sync::Arc;
use std::time::Instant;

/// The most lines of a batch: each takes an answer of its own, and all of them wait for the last.
pub(crate) const MAX_LINES: usize = 10_000;
/// How many lines of one batch are on their way at once: they leave room for others in a round.
const MAX_LINES_OUT: usize = 32;
/// What became of a line, and which it is.
type Outcome = (usize, Result<Told, Problem>);

impl Routes {
    /// `POST /v1/payments`, a batch: read whole, then stored line by line, a few at a time.
    pub(super) fn post_batch(&self, request: &Request, answer: Answer) {
        answer.send(self.batch(request).unwrap_or_else(|problem| self.refuse(&problem)));
    }

    fn batch(&self, request: &Request) -> Result<Response, Problem> {
        if request.head.header("Idempotency-Key").is_some() {
            return Err(Problem::bad_request("a batch has a payment_id in each line, not an Idempotency-Key"));
        }
        if parameter(&request.head, "wait")?.is_some() {
            return Err(Problem::bad_request("a batch cannot wait; ask for each payment's status"));
        }
        let lines = lines_of(&request.body)?;
        let outcomes = self.store_lines(&lines);
        if let Some(problem) = whole_failure(&outcomes) {
            return Err(problem.clone());
        }
        let mut body = Vec::with_capacity(outcomes.len() * 96);
        for outcome in outcomes {
            match outcome {
                Ok(told) => body.extend_from_slice(told.text().as_bytes()),
                Err(problem) => {
                    self.metrics.refused(problem.code());
                    body.extend_from_slice(problem.line().as_bytes());
                }
            }
            body.push(b'\n');
        }
        Ok(whole(200, Some("application/x-ndjson"), body))
    }

    fn store_lines(&self, lines: &[&[u8]]) -> Vec<Result<Told, Problem>> {
        let mut outcomes: Vec<Option<Result<Told, Problem>>> = Vec::new();
        outcomes.resize_with(lines.len(), || None);
        let mut payments = Vec::new();
        for (i, line) in lines.iter().enumerate() {
            match self.line_payment(line) {
                Ok(payment) => payments.push((i, payment)),
                Err(problem) => outcomes[i] = Some(Err(problem)),
            }
        }
        let mut payments = payments.into_iter().peekable();
        while payments.peek().is_some() {
            let (outcome_tx, outcome_rx) = bounded(MAX_LINES_OUT);
            let deposits = payments.by_ref().take(MAX_LINES_OUT);
            // Together, so that they share one round of the group commit.
            self.inbox
                .accept_all(deposits.map(|(i, payment)| self.deposit_line(i, payment, outcome_tx.clone())).collect());
            drop(outcome_tx);
            // Every deposit says exactly once what became of it, and lets go of its end then.
            outcome_rx.into_iter().for_each(|(i, outcome)| outcomes[i] = Some(outcome));
        }
        outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or_else(|| Err(Problem::internal().stored_unknown())))
            .collect()
    }

    fn line_payment(&self, line: &[u8]) -> Result<Payment, Problem> {
        if line.len() > self.body_limit {
            return Err(Problem::body_too_large(self.body_limit));
        }
        Envelope::parse(line)?.payment(None)
    }

    fn deposit_line(&self, i: usize, payment: Payment, outcomes: Sender<Outcome>) -> Deposit {
        let (client, payment_id) = (payment.client.clone(), payment.payment_id.clone());
        let metrics = Arc::clone(&self.metrics);
        let done = move |outcome: Result<Accepted, Error>| {
            let told = match outcome {
                Ok(accepted) => {
                    metrics.accepted(accepted.duplicate);
                    Ok(Told { client, payment_id, accepted })
                }
                Err(error) => Err(problem_of(&error)),
            };
            // There is a place for each that is out.
            let _ = outcomes.try_send((i, told));
        };
        let deadline = Instant::now() + STORE_LIMIT;
        Deposit { payment, receipt: false, deadline, done: Done::new(done) }
    }
}

/// A batch of which the store took nothing fails as a whole. Whether something may be stored all
/// the same counts for all of its lines.
fn whole_failure(outcomes: &[Result<Told, Problem>]) -> Option<&Problem> {
    if outcomes.iter().any(Result::is_ok) {
        return None;
    }
    let of_store = || outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).filter(|p| p.status() == 503);
    of_store().find(|problem| problem.may_be_stored()).or_else(|| of_store().next())
}

/// The lines of a batch: blank ones are none, a carriage return before the end is not the line's.
pub(super) fn lines_of(body: &[u8]) -> Result<Vec<&[u8]>, Problem> {
    let lines: Vec<&[u8]> = body
        .split(|&b| b == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.iter().all(u8::is_ascii_whitespace))
        .take(MAX_LINES + 1)
        .collect();
    match lines.len() {
        0 => Err(Problem::bad_request("a batch has at least one line")),
        n if n > MAX_LINES => Err(Problem::bad_request(format!("a batch has at most {MAX_LINES} lines"))),
        _ => Ok(lines),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_cut_into_its_lines() {
        let lines = lines_of(b"1\r\n\n  \n2\n3").expect("three lines");
        assert_eq!(lines, [b"1", b"2", b"3"]);
        assert!(lines_of(b"\n\r\n").is_err());
        assert!(lines_of(&b"1\n".repeat(MAX_LINES)).is_ok());
        assert!(lines_of(&b"1\n".repeat(MAX_LINES + 1)).is_err());
    }
}
