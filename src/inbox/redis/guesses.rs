//! What this node thinks of clients' states, so that it can do the sums of accepting for Redis.
//!
//! Redis' one thread is what all nodes share. Its script compares the guess with what is there: a wrong one, for another
//! node or an operator had to do with the client, costs a comparison and nothing else. The truth stays in Redis.

use crate::inbox::MAX_INBOX_BYTES;
use crate::payment::{ClientId, Mark, Payment, Seq, push_number};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Of how many clients a guess is kept; then all are forgotten, and made anew.
pub(crate) const MAX_GUESSES: usize = 1 << 14;

/// A client's state as accepting sees it: what that changes, what it judges by, and all else as it is written.
/// `state.lua` has the order of the fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Guess {
    pub(super) last: Mark,
    bytes_in: u64,
    gone: u64,
    bytes_gone: u64,
    /// From `acked` on.
    rest: Arc<str>,
}

impl Guess {
    /// Reads a state; `None` if it is none.
    pub(super) fn parse(state: &str) -> Option<Guess> {
        // At every acknowledgement, so at bytes: looking for characters takes several times as long.
        fn cut(text: &str) -> Option<(u64, &str)> {
            let (number, rest) = text.split_at(text.bytes().position(|byte| byte == b' ')?);
            Some((number.parse().ok()?, &rest[1..]))
        }
        let (seq, line) = cut(state.strip_prefix("2 ")?)?;
        let (accepted_at, line) = cut(line)?;
        let (bytes_in, rest) = cut(line)?;
        let (_acked, line) = cut(rest)?;
        let (gone, line) = cut(line)?;
        let (bytes_gone, line) = cut(line)?;
        let last = Mark { seq: Seq(seq), accepted_at };
        let whole = line.bytes().filter(|&byte| byte == b' ').count() == 7;
        whole.then(|| Guess { last, bytes_in, gone, bytes_gone, rest: rest.into() })
    }

    /// Appends it as it lies in Redis.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.push(b'2');
        for number in [self.last.seq.0, self.last.accepted_at, self.bytes_in] {
            out.push(b' ');
            push_number(out, number);
        }
        out.push(b' ');
        out.extend_from_slice(self.rest.as_bytes());
    }

    /// Appends what stands before the parcel in the entry of the payment that made it so.
    pub(super) fn write_entry_head(&self, expires_at: u64, out: &mut Vec<u8>) {
        for number in [self.last.seq.0, self.last.accepted_at, expires_at, self.bytes_in] {
            push_number(out, number);
            out.push(b' ');
        }
    }

    /// `node/boot`, or `-`.
    pub(super) fn owner(&self) -> &str {
        self.rest.rsplit(' ').next().unwrap_or("-")
    }

    /// What it is after one more payment, as `accept.lua` has it; `None` where that finds the inbox full.
    fn after(&self, payment: &Payment, now_ms: u64, most_payments: u64) -> Option<Guess> {
        let bytes = u64::try_from(payment.parcel.as_bytes().len()).ok()?;
        let bytes_in = self.bytes_in.checked_add(bytes)?;
        let fits = self.last.seq.0.checked_sub(self.gone)? < most_payments
            && bytes_in.checked_sub(self.bytes_gone)? <= MAX_INBOX_BYTES;
        let last = Mark { seq: self.last.seq.next(), accepted_at: self.last.accepted_at.max(now_ms) };
        fits.then(|| Guess { last, bytes_in, ..self.clone() })
    }
}

/// A payment's client before and after it.
pub(super) struct Step {
    pub(super) before: Guess,
    pub(super) after: Guess,
}

/// When a payment that was accepted then is not delivered any more; 0: never.
pub(super) fn expires_at(accepted_at: u64, life: Option<Duration>) -> u64 {
    let life = life.map(|life| u64::try_from(life.as_millis()).unwrap_or(u64::MAX));
    life.map_or(0, |life| accepted_at.saturating_add(life))
}

/// By client, as Redis said last or as this node has had it stored.
#[derive(Default)]
pub(super) struct Guesses(Mutex<HashMap<ClientId, Guess>>);

impl Guesses {
    /// What accepting these in their order would make of their clients; `None` where that is not known. From now on it
    /// is taken to have come so, until [`Guesses::learn`] or [`Guesses::forget`] says otherwise.
    pub(super) fn steps<'a>(
        &self,
        payments: impl Iterator<Item = Option<&'a Payment>>,
        now_ms: u64,
        most_payments: u64,
    ) -> Vec<Option<Step>> {
        let mut guesses = self.0.lock();
        let mut step = |payment: &Payment| {
            let guess = guesses.get_mut(&payment.client)?;
            let after = guess.after(payment, now_ms, most_payments)?;
            let before = std::mem::replace(guess, after.clone());
            Some(Step { before, after })
        };
        payments.map(|payment| step(payment?)).collect()
    }

    /// So it was when Redis last said it.
    pub(super) fn learn(&self, client: &ClientId, guess: Guess) {
        let mut guesses = self.0.lock();
        if guesses.len() >= MAX_GUESSES && !guesses.contains_key(client) {
            guesses.clear();
        }
        guesses.insert(client.clone(), guess);
    }

    /// The same for a client to whom this node gives payments; what it knows of others would be of no use.
    pub(super) fn refresh(&self, client: &ClientId, guess: impl FnOnce() -> Option<Guess>) {
        if let Some(known) = self.0.lock().get_mut(client)
            && let Some(guess) = guess()
        {
            *known = guess;
        }
    }

    pub(super) fn forget(&self, client: &ClientId) {
        self.0.lock().remove(client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostile::mutation::Random;
    use crate::inbox::Deposit;
    use crate::inbox::contract::world::{Server, client, deposit, payment};
    use crate::inbox::redis::connection::Pipeline;
    use crate::inbox::redis::reply::texts;

    const STATE: &str = "2 97 1795566751018 28215 90 91 28000 1 1795566751000 0 17 18 1 a0 n1/b0";
    const LIMIT: u64 = 40;

    #[test]
    fn a_state_is_written_as_it_was_read() {
        let mut out = Vec::new();
        let guess = Guess::parse(STATE).expect("a state");
        guess.write(&mut out);
        assert_eq!((String::from_utf8_lossy(&out).as_ref(), guess.owner()), (STATE, "n1/b0"));
        for none in ["", "2", "junk", &STATE.replacen('2', "3", 1), &STATE[..STATE.len() - 6], &format!("{STATE} 1")] {
            assert_eq!(Guess::parse(none), None, "{none}");
        }
    }

    #[test]
    fn guesses_are_bounded() {
        let (guesses, guess) = (Guesses::default(), Guess::parse(STATE).expect("a state"));
        for n in 0..=MAX_GUESSES {
            guesses.learn(&client(&n.to_string()), guess.clone());
        }
        assert_eq!(guesses.0.lock().len(), 1);
        guesses.refresh(&client("0"), || Some(guess));
        assert_eq!(guesses.0.lock().len(), 1, "what is not known is not refreshed");
    }

    fn below(random: &mut Random, end: u64) -> u64 {
        random.next() % end
    }

    /// A state that might be, near every limit.
    fn state(random: &mut Random, me: &str, now_ms: u64) -> String {
        let last = below(random, 1000);
        let gone = last.saturating_sub(below(random, LIMIT + 3));
        let bytes_gone = below(random, 1 << 40);
        // With room for one payment to the byte, and one byte less.
        let room = payment("a", None, "1").parcel.as_bytes().len() as u64;
        let bytes_in = bytes_gone + random.pick(&[0, 1000, MAX_INBOX_BYTES - room, MAX_INBOX_BYTES - room + 1]);
        let last_at = now_ms - 2 + below(random, 4);
        let owner = *random.pick(&[me, "-", "n2/0123456789abcdef"]);
        format!("2 {last} {last_at} {bytes_in} {gone} {gone} {bytes_gone} 0 17 0 7 8 1 token {owner}")
    }

    /// The whole of it rests on this: a node that does the sum comes to what the script comes to.
    #[test]
    fn a_right_guess_leaves_what_the_script_would_have_left() {
        let server = Server::start();
        let inbox = server.inbox("n1", LIMIT, Duration::from_secs(3600), &Arc::default());
        let (now_ms, mut random, mut guessed) = (1_795_566_751_018, Random::new(7), 0);
        for round in 0..400 {
            let names = [format!("a{round}"), format!("b{round}")];
            let (line, prints) = (state(&mut random, &inbox.me, now_ms), below(&mut random, 4));
            let print_of = |name: &str| payment(name, Some("old"), "1").parcel.fingerprint();
            for name in &names {
                server.ask::<()>(&["SET", &Server::key(name, "state"), &line]);
                // Of this payment, of another one, or of an earlier life.
                let (born, print) = match prints {
                    0 => continue,
                    1 => (7, print_of(name)),
                    2 => (7, "00".repeat(16)),
                    _ => (6, print_of(name)),
                };
                server.ask::<()>(&["SET", &Server::key(name, "id:old"), &format!("1 5 {born} {print}")]);
            }
            let kinds: Vec<(Option<&str>, Option<Duration>)> = (0..1 + below(&mut random, 3))
                .map(|_| {
                    let life = *random.pick(&[None, None, Some(Duration::from_millis(1500))]);
                    (*random.pick(&[None, None, Some("old"), Some("new")]), life)
                })
                .collect();
            let deposits = |name: &str| -> Vec<Deposit> {
                let one = |&(id, expires_in): &(Option<&str>, _)| {
                    deposit(Payment { expires_in, ..payment(name, id, "1") }, |_| ())
                };
                kinds.iter().map(one).collect()
            };
            let mut said = |name: &str| {
                let deposits = deposits(name);
                let steps = inbox.guesses.steps(deposits.iter().map(|d| Some(&d.payment)), now_ms, LIMIT);
                let push = |pipeline: &mut Pipeline, (): &()| inbox.push_accept(pipeline, &deposits, &steps, now_ms);
                let reply = inbox.call(&inbox.commits, &[()], push).remove(0).expect("a reply");
                let words = texts(&reply);
                assert_eq!(words.len(), deposits.len(), "{line}: {reply:?}");
                let in_full = |(word, step): (String, Option<Step>)| match step {
                    Some(Step { before, after }) if word.is_empty() => {
                        let mut state = Vec::new();
                        after.write(&mut state);
                        guessed += 1;
                        format!("accepted {} {}", before.last.accepted_at, String::from_utf8_lossy(&state))
                    }
                    _ => word,
                };
                words.into_iter().zip(steps).map(in_full).collect::<Vec<_>>()
            };
            inbox.guesses.learn(&client(&names[0]), Guess::parse(&line).expect("a state"));
            let [by_guess, by_script] = names.each_ref().map(|name| said(name));
            assert_eq!(by_guess, by_script, "{line} {kinds:?}");
            let [left, right] = names.each_ref().map(|name| {
                let get = |key| server.ask::<Option<String>>(&["GET", &Server::key(name, key)]);
                let list: Vec<String> = server.ask(&["LRANGE", &Server::key(name, "inbox"), "0", "-1"]);
                (["state", "id:old", "id:new"].map(get), list)
            });
            assert_eq!(left, right, "{line} {kinds:?}");
        }
        assert!(guessed > 200, "few were guessed: {guessed}");
    }
}
