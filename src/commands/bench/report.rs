//! What a run found, as text for people and as JSON for programs.

use std::collections::BTreeMap;

use serde::Serialize;

use super::check::Faults;
use super::histogram::Quantiles;
use super::ledger::Ledger;
use super::plan::Plan;
use super::receivers::Received;
use super::senders::Sent;

/// The report; its fields are those of the JSON object.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    clients: usize,
    senders: usize,
    seconds: f64,
    /// None: closed loop.
    rate: Option<usize>,
    batch: usize,
    pipeline: usize,
    size: usize,
    acknowledged: bool,
    ended_early: bool,
    accepted: u64,
    accepted_per_second: f64,
    delivered: u64,
    delivered_per_second: f64,
    answer_us: Quantiles,
    end_to_end_us: Quantiles,
    errors: BTreeMap<String, u64>,
    /// Posted, but no answer came: they may be stored or not.
    unanswered: u64,
    /// Due, but the server was too slow for them to be posted.
    not_sent: u64,
    /// Delivered although no 2xx was seen.
    unannounced: u64,
    reconnected: u64,
    allowed_repeats: u64,
    foreign: u64,
    lost: u64,
    #[serde(flatten)]
    faults: Faults,
    ok: bool,
}

impl Report {
    pub(super) fn new(plan: &Plan, ledger: &Ledger, sent: Sent, received: &Received, ended_early: bool) -> Report {
        let first_us = sent.first_us.unwrap_or_default();
        let rate = |count: u64, last_us: u64| match last_us.saturating_sub(first_us) {
            0 => 0.0,
            time_us => (count as f64 * 1e6 / time_us as f64 * 10.0).round() / 10.0,
        };
        let (accepted, delivered) = (ledger.accepted(), ledger.delivered());
        let lost = ledger.missing();
        Report {
            clients: plan.clients,
            senders: plan.senders,
            seconds: plan.time.as_secs_f64(),
            rate: plan.rate,
            batch: plan.batch,
            pipeline: plan.pipeline,
            size: plan.size,
            acknowledged: plan.acknowledges,
            ended_early,
            accepted,
            accepted_per_second: rate(accepted, sent.last_us),
            delivered,
            delivered_per_second: rate(delivered, received.last_us),
            answer_us: sent.answers.quantiles(),
            end_to_end_us: received.end_to_end.quantiles(),
            errors: sent.errors,
            unanswered: sent.unanswered,
            not_sent: sent.not_sent,
            unannounced: ledger.unannounced(),
            reconnected: received.reconnected,
            allowed_repeats: received.allowed_repeats,
            foreign: received.foreign,
            lost,
            faults: received.faults,
            ok: lost == 0 && received.faults.sum() == 0 && accepted > 0,
        }
    }

    /// What is wrong, for the last line; none if nothing is.
    pub(super) fn failure(&self) -> Option<String> {
        if self.ok {
            return None;
        }
        if self.accepted == 0 {
            let (why, _) = self.errors.iter().max_by_key(|(_, count)| **count)?;
            return Some(format!("no payment was accepted: {why}"));
        }
        let stops = match self.acknowledged {
            true => "",
            false => "; with --no-ack a payrelay node stops at its window's edge",
        };
        Some(format!("the check failed: {}{stops}", self.check_line()))
    }

    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).expect("numbers and texts make JSON") + "\n"
    }

    pub(super) fn text(&self) -> String {
        let (accepted, delivered) = (grouped(self.accepted), grouped(self.delivered));
        let mut text = format!(
            "accepted     {accepted}, {}/s\ndelivered    {delivered}, {}/s\n",
            grouped(self.accepted_per_second as u64),
            grouped(self.delivered_per_second as u64)
        );
        text += &format!("answer       {}\nend to end   {}\n", times(self.answer_us), times(self.end_to_end_us));
        let errors: Vec<_> = self.errors.iter().map(|(what, count)| format!("{} × {what}", grouped(*count))).collect();
        text += &format!("errors       {}\n", if errors.is_empty() { "none".to_owned() } else { errors.join(", ") });
        for (count, what) in [
            (self.unanswered, "posted, but no answer came"),
            (
                self.not_sent,
                "were due, but the server was too slow for them to be sent; their times are not in the figures",
            ),
            (self.unannounced, "delivered without a 2xx"),
            (self.reconnected, "connections of clients broke and were opened again"),
            (self.allowed_repeats, "came again on a new connection, as is allowed"),
            (self.foreign, "of an earlier run, acknowledged and left out"),
        ] {
            if count > 0 {
                text += &format!("note         {} {what}\n", grouped(count));
            }
        }
        text += &format!("check        {}\n", self.check_line());
        text
    }

    fn check_line(&self) -> String {
        let Faults { repeated, out_of_order, seq_out_of_order, wrong_client, altered } = self.faults;
        format!(
            "{} lost, {repeated} repeated, {} out of order, {wrong_client} to the wrong client, {altered} altered",
            self.lost,
            out_of_order + seq_out_of_order
        )
    }
}

fn times(quantiles: Quantiles) -> String {
    let Quantiles { p50, p99, p999, max } = quantiles;
    let [p50, p99, p999, max] = [p50, p99, p999, max].map(|us| format!("{:.2} ms", us as f64 / 1000.0));
    format!("p50 {p50}   p99 {p99}   p99.9 {p999}   max {max}")
}

/// A number as people read it: 1,234,567.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
