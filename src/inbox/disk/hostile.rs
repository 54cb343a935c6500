//! Mutated rows of `inbox.redb` against their decoders.

use super::tables::{Place, Seen, State, parse_place};
use crate::doorbell::{hostile::expect_one_line, parse_entry};
use crate::hostile::mutation::{Plan, Random, mutated, run};
use crate::inbox::letter;
use crate::payment::{ClientId, Seq};

const SHORT: u64 = 2_000;

fn rows() -> Vec<Vec<u8>> {
    [
        r#"7 1732330000123 0 25 20 "channel":"payments""msg":1"#,
        r#"7 1732330000123 1732330060123/7 25 20 "channel":"payments""msg":{"a":"b c"}"#,
        r#"7 1732330000123 0 25 43 "channel":"payments","payment_id":"wx-4200x""gateway":"stripe","body":"x""#,
        "7 1732330000123 0 25 -",
        r#"refused 5 0 13 unknown order 7 1732330000123 0 25 20 "channel":"payments""msg":1"#,
        r#"expired 5 1 0  7 1732330000123 9/1 25 20 "channel":"payments""msg":1"#,
        "purged 1732330000123",
        "retried 1732330000123 57",
        "2 1732330000000 9 1732330000123 4 1732330000100 900 3 300 1",
        "2 0 0 0 0 0 0 0 0 0",
        "0123456789abcdef0123456789abcdef 1 7 1732330000123 1732934800123 1732330000000",
    ]
    .iter()
    .map(|row| row.as_bytes().to_vec())
    .collect()
}

fn take_place(client: &ClientId, row: &[u8]) -> bool {
    let Ok(place) = parse_place(client, Seq(7), row) else { return false };
    assert_eq!(place.mark().seq, Seq(7));
    if let Place::Payment(stored) = place {
        expect_one_line(&stored.entry);
        assert_eq!(parse_entry(&stored.to_bytes()), Some(stored));
    }
    true
}

fn take_letter(row: &[u8]) -> bool {
    let status = letter::status(row);
    let Some((letter, stored)) = letter::parse(row) else { return status.is_some() };
    assert_eq!(status, Some(letter.status));
    expect_one_line(&letter.entry);
    assert!(letter.reason.len() <= row.len());
    let again = letter::held(letter.status, letter.dead_at, letter.maybe_delivered, &letter.reason, &stored);
    assert_eq!(letter::parse(&again), Some((letter, stored)));
    true
}

fn take_state(row: &[u8]) -> bool {
    let Some(state) = State::parse(row) else { return false };
    assert_eq!(State::parse(&state.to_bytes()), Some(state));
    let (payments, bytes) = state.held();
    assert!(state.pending() + state.tombs <= state.last.seq.0 && state.dead_letters() <= payments);
    assert!(bytes <= state.bytes_in && state.is_plain() <= (state.tombs == 0));
    // There is room for what may still come.
    assert!(state.last.seq.next() > state.last.seq && state.bytes_in.checked_add(1 << 40).is_some());
    true
}

fn take_seen(row: &[u8]) -> bool {
    let Some(seen) = Seen::parse(row) else { return false };
    assert_eq!(Seen::parse(&seen.to_bytes()), Some(seen));
    true
}

#[test]
fn rows_are_what_was_stored_or_cannot_be_read() {
    let seeds = rows();
    let words: [&[u8]; 12] = [
        b" ",
        b"0",
        b"-",
        b" -",
        b"+1",
        b"18446744073709551615",
        b"9223372036854775807",
        b"/",
        b"\n",
        b"refused ",
        b"\xff",
        b"2 ",
    ];
    let client = ClientId::parse("01").expect("valid");
    let make = |random: &mut Random| mutated(random, &seeds, &words);
    run("stored frames, on disk", Plan::of(SHORT), make, |input, _| {
        [take_place(&client, input), take_letter(input), take_state(input), take_seen(input)].contains(&true)
    });
}
