//! What this node thinks of clients' states, so that it can do the sums of accepting for Redis.
//!
//! Redis' one thread is what all nodes share. Its script compares the guess with what is there: a wrong one, for another
//! node or an operator had to do with the client, costs a comparison, or a push that is taken back. The truth stays in Redis.

use crate::inbox::MAX_INBOX_BYTES;
use crate::payment::{ClientId, Mark, Payment, Seq, push_number};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Of how many clients a guess is kept; then all are forgotten, and made anew.
pub(crate) const MAX_GUESSES: usize = 1 << 14;

/// What accepting judges by: a client's state, and its newest payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Guess {
    /// As it is written; `state.lua` has the order of its fields.
    pub(super) state: Arc<str>,
    acked: Seq,
    gone: u64,
    bytes_gone: u64,
    pub(super) newest: Newest,
}

/// A payment as the inbox' last entry tells of it, up to the parcel; or the last one that left an empty inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Newest {
    pub(super) mark: Mark,
    pub(super) expires_at: u64,
    /// Of all parcels up to this one.
    bytes: u64,
}

impl Guess {
    /// Reads the state of a client whose inbox is empty; `None` if it is none.
    pub(super) fn parse(state: &str) -> Option<Guess> {
        // At every acknowledgement, so at bytes: looking for characters takes several times as long.
        fn cut(text: &str) -> Option<(u64, &str)> {
            let (number, rest) = text.split_at(text.bytes().position(|byte| byte == b' ')?);
            Some((number.parse().ok()?, &rest[1..]))
        }
        let (acked, line) = cut(state.strip_prefix("3 ")?)?;
        let (accepted_at, line) = cut(line)?;
        let (bytes, line) = cut(line)?;
        let (gone, line) = cut(line)?;
        let (bytes_gone, line) = cut(line)?;
        let acked = Seq(acked);
        let newest = Newest { mark: Mark { seq: acked, accepted_at }, expires_at: 0, bytes };
        let whole = line.bytes().filter(|&byte| byte == b' ').count() == 6;
        whole.then(|| Guess { state: state.into(), acked, gone, bytes_gone, newest })
    }

    /// Reads what Redis says that accepting a payment has come to: `seq accepted_at expires_at bytes state`.
    pub(super) fn parse_accepted(line: &str) -> Option<Guess> {
        let mut words = line.splitn(5, ' ');
        let mut number = || words.next()?.parse().ok();
        let mark = Mark { seq: Seq(number()?), accepted_at: number()? };
        let newest = Newest { mark, expires_at: number()?, bytes: number()? };
        Some(Guess { newest, ..Guess::parse(words.next()?)? })
    }

    /// Appends what the inbox' last entry begins with; nothing where the inbox is empty.
    pub(super) fn write_newest(&self, out: &mut Vec<u8>) {
        let Newest { mark, expires_at, bytes } = self.newest;
        if mark.seq > self.acked {
            for number in [mark.seq.0, mark.accepted_at, expires_at, bytes] {
                push_number(out, number);
                out.push(b' ');
            }
        }
    }

    /// `node/boot`, or `-`.
    pub(super) fn owner(&self) -> &str {
        self.state.rsplit(' ').next().unwrap_or("-")
    }

    /// What it is after one more payment, as `accept.lua` has it; `None` where that finds the inbox full.
    fn after(&self, payment: &Payment, now_ms: u64, most_payments: u64) -> Option<Guess> {
        let before = self.newest;
        let bytes = before.bytes.checked_add(u64::try_from(payment.parcel.as_bytes().len()).ok()?)?;
        let fits = before.mark.seq.0.checked_sub(self.gone)? < most_payments
            && bytes.checked_sub(self.bytes_gone)? <= MAX_INBOX_BYTES;
        let mark = Mark { seq: before.mark.seq.next(), accepted_at: before.mark.accepted_at.max(now_ms) };
        let newest = Newest { mark, expires_at: expires_at(mark.accepted_at, payment.expires_in), bytes };
        fits.then(|| Guess { newest, ..self.clone() })
    }
}

/// A payment's client before and after it.
pub(super) struct Step {
    pub(super) before: Guess,
    pub(super) after: Guess,
}

/// When a payment that was accepted then is not delivered any more; 0: never.
fn expires_at(accepted_at: u64, life: Option<Duration>) -> u64 {
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

    /// This is the state of a client now; what this node has put into its inbox stays true. For a client to whom it
    /// gives payments only: what it knows of others would be of no use.
    pub(super) fn refresh(&self, client: &ClientId, state: impl FnOnce() -> Option<Guess>) {
        if let Some(known) = self.0.lock().get_mut(client)
            && let Some(state) = state()
        {
            let newest = if known.newest.mark.seq > state.acked { known.newest } else { state.newest };
            *known = Guess { newest, ..state };
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

    const STATE: &str = "3 90 1795566751000 27900 91 28000 1 0 17 18 1 a0 n1/b0";
    const LIMIT: u64 = 40;

    fn newest(guess: &Guess) -> String {
        let mut out = Vec::new();
        guess.write_newest(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn what_is_newest_is_written_as_it_was_read() {
        let empty = Guess::parse(STATE).expect("a state");
        assert_eq!((newest(&empty).as_str(), empty.owner(), empty.newest.mark.seq), ("", "n1/b0", Seq(90)));
        let entry = "97 1795566751018 0 28215 ";
        let guess = Guess::parse_accepted(&format!("{entry}{STATE}")).expect("what accepting says");
        assert_eq!((newest(&guess).as_str(), guess.owner(), &*guess.state), (entry, "n1/b0", STATE));
        for none in ["", "3", "junk", &STATE.replacen('3', "2", 1), &STATE[..STATE.len() - 6], &format!("{STATE} 1")] {
            assert_eq!(Guess::parse(none), None, "{none}");
            assert_eq!(Guess::parse_accepted(&format!("{entry}{none}")), None, "{none}");
            assert_eq!(Guess::parse_accepted(none), None, "{none}");
        }
    }

    #[test]
    fn an_acknowledgement_leaves_what_came_after_it() {
        let guesses = Guesses::default();
        let known = || guesses.0.lock().get(&client("01")).cloned().expect("known");
        guesses.learn(&client("01"), Guess::parse_accepted(&format!("97 5 0 28215 {STATE}")).expect("a guess"));
        for (state, newest_then) in [
            ("3 96 5 28100 96 28100 0 0 17 18 1 a0 n1/b0", "97 5 0 28215 "),
            ("3 97 5 28215 97 28215 0 0 17 18 1 a0 n1/b0", ""),
            // Of one that this node knows nothing of.
            ("3 99 7 30000 99 30000 0 0 17 18 1 a0 n1/b0", ""),
        ] {
            guesses.refresh(&client("01"), || Guess::parse(state));
            assert_eq!((newest(&known()).as_str(), &*known().state), (newest_then, state));
        }
        assert_eq!(known().newest.mark, Mark { seq: Seq(99), accepted_at: 7 });
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

    /// A state that might be, near every limit, and the inbox beside it.
    fn state(random: &mut Random, me: &str, now_ms: u64) -> (String, Vec<String>) {
        let (acked, held) = (below(random, 1000), below(random, 4));
        let last = acked + held;
        let gone = last.saturating_sub(below(random, LIMIT + 3));
        let bytes_gone = below(random, 1 << 40);
        // With room for one payment to the byte, and one byte less.
        let room = payment("a", None, "1").parcel.as_bytes().len() as u64;
        let bytes = bytes_gone + random.pick(&[0, 1000, MAX_INBOX_BYTES - room, MAX_INBOX_BYTES - room + 1]);
        let last_at = now_ms - 2 + below(random, 4);
        let owner = *random.pick(&[me, "-", "n2/0123456789abcdef"]);
        let state = format!("3 {acked} {last_at} {bytes} {gone} {bytes_gone} 0 0 7 8 1 token {owner}");
        (state, (acked + 1..=last).map(|seq| format!("{seq} {last_at} 0 {bytes} x")).collect())
    }

    /// What a node may think of that: often the truth.
    fn thought(random: &mut Random, state: &str, inbox: &[String]) -> Guess {
        let empty = Guess::parse(state).expect("a state");
        let Newest { mark, bytes, .. } = empty.newest;
        let says = |entry: &String| Guess::parse_accepted(&format!("{} {state}", entry.trim_end_matches(" x")));
        let truth = inbox.last().and_then(says).unwrap_or_else(|| empty.clone());
        // One was acknowledged, or accepted, of which it has not heard; or the same seq was given to another payment.
        let other = Newest {
            mark: Mark { seq: truth.newest.mark.seq.max(mark.seq.next()), ..mark },
            expires_at: 0,
            bytes: bytes + 1,
        };
        random.pick(&[truth.clone(), truth.clone(), truth.clone(), empty, Guess { newest: other, ..truth }]).clone()
    }

    /// The whole of it rests on this: a node that does the sum comes to what the script comes to.
    #[test]
    fn a_right_guess_leaves_what_the_script_would_have_left() {
        let server = Server::start();
        let inbox = server.inbox("n1", LIMIT, Duration::from_secs(3600), &Arc::default());
        let (now_ms, mut random, mut guessed) = (1_795_566_751_018, Random::new(7), 0);
        for round in 0..400 {
            let names = [format!("a{round}"), format!("b{round}")];
            let ((line, entries), prints) = (state(&mut random, &inbox.me, now_ms), below(&mut random, 4));
            let print_of = |name: &str| payment(name, Some("old"), "1").parcel.fingerprint();
            for name in &names {
                server.ask::<()>(&["SET", &Server::key(name, "state"), &line]);
                for entry in &entries {
                    server.ask::<()>(&["RPUSH", &Server::key(name, "inbox"), entry]);
                }
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
                        guessed += 1;
                        format!("accepted {} {}{}", before.newest.mark.accepted_at, newest(&after), after.state)
                    }
                    _ => word,
                };
                words.into_iter().zip(steps).map(in_full).collect::<Vec<_>>()
            };
            inbox.guesses.learn(&client(&names[0]), thought(&mut random, &line, &entries));
            let [by_guess, by_script] = names.each_ref().map(|name| said(name));
            assert_eq!(by_guess, by_script, "{line} {entries:?} {kinds:?}");
            let [left, right] = names.each_ref().map(|name| {
                let get = |key| server.ask::<Option<String>>(&["GET", &Server::key(name, key)]);
                let list: Vec<String> = server.ask(&["LRANGE", &Server::key(name, "inbox"), "0", "-1"]);
                (["state", "id:old", "id:new"].map(get), list)
            });
            assert_eq!(left, right, "{line} {entries:?} {kinds:?}");
        }
        assert!(guessed > 200, "few were guessed: {guessed}");
    }
}
