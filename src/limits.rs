//! Every limit that a user can meet, by its name in the README, for the one test that holds its table *Limits* against the constants.
//!
//! The constants live where they are used. Compiled into tests only.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Parser;

use crate::args::{self, Command};
use crate::bookkeeper::CLAIM_LIMIT;
use crate::client::{LEAST_HOLD, delivery, door as tcp, reader, words};
use crate::frame::{FRAME_ROOM, MAX_FRAME_BYTES, MAX_REASON_BYTES};
use crate::http::{batch, body, clients, dead_letters, door as http, payments, request, room, routes, tiny};
use crate::inbox::{self, group};
use crate::{auth, broadcast, capacity, doorstep, drainer, node, payment, printable, router, socket, strangers};

/// Bytes, in the largest unit that leaves a whole number.
fn bytes(number: impl TryInto<u64>) -> String {
    let number = number.try_into().ok().expect("it fits");
    match number {
        _ if number.is_multiple_of(1 << 20) => format!("{} MiB", number >> 20),
        _ if number.is_multiple_of(1 << 10) => format!("{} KiB", number >> 10),
        _ => format!("{} bytes", count(number)),
    }
}

/// A number with commas between its thousands.
fn count(number: impl TryInto<u64>) -> String {
    let digits = number.try_into().ok().expect("it fits").to_string();
    let places = digits.chars().enumerate().map(|(at, digit)| {
        let comma = if at > 0 && (digits.len() - at).is_multiple_of(3) { "," } else { "" };
        format!("{comma}{digit}")
    });
    places.collect()
}

fn time(limit: Duration) -> String {
    format!("{} s", limit.as_secs_f64())
}

fn range(ends: &std::ops::RangeInclusive<u64>) -> String {
    format!("{} to {} s", count(*ends.start()), count(*ends.end()))
}

/// `payrelay serve` without flags.
fn defaults() -> args::ServeArgs {
    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }
    match Line::parse_from(["payrelay", "serve"]).command {
        Command::Serve(args) => args,
        other => panic!("not serve: {other:?}"),
    }
}

fn of_requests() -> Vec<(&'static str, String)> {
    vec![
        ("head of a request", bytes(http::MAX_HEAD_BYTES)),
        ("header fields", count(request::MAX_FIELDS)),
        ("body, or line of a batch", bytes(defaults().body_limit)),
        ("body limit that can be set", bytes(args::MAX_BODY_BYTES)),
        ("batch", bytes(routes::MAX_BATCH_BYTES)),
        ("lines of a batch", count(batch::MAX_LINES)),
        ("body that goes on whatever others send", bytes(room::FREE_BODY_BYTES)),
        ("bodies together, past that", bytes(http::MAX_BODIES_BYTES)),
        ("digits of a chunk's size", count(body::MAX_SIZE_DIGITS)),
        ("extensions of a chunk", bytes(body::MAX_EXTENSION)),
        ("trailers", bytes(body::MAX_TRAILERS)),
        ("time for a whole request", time(http::REQUEST_TIME)),
        ("idle connection", time(http::IDLE_TIME)),
        ("answer of which the socket takes nothing", time(drainer::PATIENCE)),
        ("time for the store to take a payment", time(payments::STORE_LIMIT)),
        ("`Content-Type` of a raw body", bytes(payments::MAX_CONTENT_TYPE_BYTES)),
        ("`Authorization`", bytes(auth::MAX_AUTHORIZATION_BYTES)),
        ("`?wait`", range(&payments::WAITS)),
        ("`expires_in`", range(&payments::LIVES)),
        ("waits on the side door", count(tiny::MAX_WAITING)),
        ("page of clients", count(clients::PAGE_CLIENTS)),
        ("page of dead letters", count(dead_letters::PAGE_LETTERS)),
        ("bytes of that page, about", bytes(dead_letters::PAGE_BYTES)),
        ("time for other nodes to say who is online", time(clients::ANSWER_LIMIT)),
        ("HTTP connections where the machine holds more", count(capacity::MOST_HTTP)),
    ]
}

fn of_payments() -> Vec<(&'static str, String)> {
    vec![
        ("client id, payment id", format!("{} characters", payment::name::MAX_ID_CHARS)),
        ("node's name", format!("{} characters", args::node_name::MAX_NODE_NAME_BYTES)),
        ("channel", format!("{} characters", payment::name::MAX_CHANNEL_CHARS)),
        ("nested levels of `msg`", count(payment::MAX_DEPTH)),
        ("number in `msg`", format!("{} characters", payment::MAX_NUMBER_CHARS)),
        ("payments of an inbox", count(defaults().inbox_limit)),
        ("bytes of an inbox", bytes(inbox::MAX_INBOX_BYTES)),
        ("dedup window", format!("{} s", count(defaults().dedup_window.as_secs()))),
        ("dedup window that can be set", format!("{} s", count(args::serve::MAX_DEDUP_WINDOW_SECS))),
        ("payments of one commit", count(inbox::MAX_PER_CALL)),
        ("bytes of one commit", bytes(group::MAX_BYTES)),
        ("bytes that wait to be committed", bytes(group::MAX_WAITING_BYTES)),
        ("free space that the embedded inbox keeps", bytes(inbox::disk::KEEP_FREE_BYTES)),
    ]
}

fn of_clients() -> Vec<(&'static str, String)> {
    vec![
        ("line or frame from a client", bytes(MAX_FRAME_BYTES)),
        ("line to a client, past six times the body limit", bytes(FRAME_ROOM)),
        ("frame to a client over `u16be`", bytes(u16::MAX)),
        ("time for a hello", time(reader::HELLO_LIMIT)),
        ("time for the store to take a hello", time(CLAIM_LIMIT)),
        ("time for which a stranger keeps its place", time(doorstep::STRANGER_GRACE)),
        ("strangers of one door that give way at once", count(doorstep::MOST_LEAVING)),
        ("heartbeats of silence", count(reader::SILENT_HEARTBEATS)),
        ("socket that takes nothing of what is owed", time(drainer::PATIENCE)),
        ("unanswered TCP segments (`TCP_USER_TIMEOUT`)", time(tcp::USER_TIMEOUT)),
        ("send buffer of a connection", bytes(socket::SEND_BUFFER)),
        ("window", count(defaults().window)),
        ("window that can be set", count(args::serve::MAX_WINDOW)),
        ("bytes of a window", bytes(delivery::MAX_WINDOW_BYTES)),
        ("reason of a `nack`", bytes(MAX_REASON_BYTES)),
        ("a client's words that wait for the store", count(words::MAX_WORDS)),
        ("time between two connections of a client", time(LEAST_HOLD)),
        ("doorbells ahead of their turn", count(delivery::MAX_EARLY)),
        ("bytes of them", bytes(delivery::MAX_EARLY_BYTES)),
    ]
}

fn of_a_node() -> Vec<(&'static str, String)> {
    vec![
        ("doorbells that wait", count(router::MAX_BELLS)),
        ("bytes of those", bytes(router::MAX_BELL_BYTES)),
        ("doorbells that are answered together", count(router::MAX_TAKEN)),
        ("broadcasts that wait", count(broadcast::MAX_WAITING)),
        ("bytes of these", bytes(broadcast::MAX_WAITING_BYTES)),
        ("key or secret, at least", format!("{} characters", auth::MIN_SECRET_CHARS)),
        ("key or secret", bytes(auth::MAX_SECRET_BYTES)),
        ("file of keys or secrets", bytes(auth::MAX_FILE_BYTES)),
        ("wrong keys or tokens of an address", count(strangers::TRIES)),
        ("wait of such an address", time(strangers::WAIT)),
        ("addresses that are remembered", count(strangers::MOST)),
        ("clients whose state a node remembers", count(inbox::redis::guesses::MAX_GUESSES)),
        ("inboxes that a scrape looks into", count(inbox::MAX_COUNTED)),
        ("line of the log", format!("{} characters", count(printable::MOST))),
        ("time to stop", time(node::STOP_LIMIT)),
    ]
}

/// The rows of the README's table: what is limited, and to what.
fn told() -> BTreeMap<String, String> {
    let readme = include_str!("../README.md");
    let section = readme.split_once("\n## Limits\n").expect("the section").1;
    let section = section.split_once("\n## ").expect("the next section").0;
    let rows = section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| limit |"));
    let cells = rows.map(|row| row.trim_matches('|').splitn(3, " | ").map(str::trim).collect::<Vec<_>>());
    cells.map(|cells| (cells[0].to_owned(), cells[1].to_owned())).collect()
}

#[test]
fn the_readmes_table_tells_every_limit_as_it_is() {
    let all = [of_requests(), of_payments(), of_clients(), of_a_node()].concat();
    let known: BTreeMap<String, String> = all.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    assert_eq!(known.len(), all.len(), "two limits of one name");
    let told = told();
    for (name, value) in &known {
        assert_eq!(told.get(name), Some(value), "README.md, Limits: {name}");
    }
    for name in told.keys() {
        assert!(known.contains_key(name), "README.md tells of a limit that nobody knows: {name}");
    }
}

#[test]
fn the_scripts_hold_a_client_id_as_long_as_the_node_does() {
    let of_scripts = std::str::from_utf8(inbox::redis::LEAST_HOLD_MS).expect("digits").parse();
    assert_eq!(of_scripts.map(Duration::from_millis), Ok(LEAST_HOLD));
}
