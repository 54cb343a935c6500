//! `payrelay status`: who is online, who has payments waiting and for how long, dead letters.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::http_client::{Answer, HttpClient, escaped};
use super::{Failure, print, printable};
use crate::args::StatusArgs;
use crate::payment::ClientId;

/// More pages than any deployment has: a server that never says `null` shall not keep us.
const MAX_PAGES: usize = 10_000;

/// Prints what the server knows of one client, or of all.
///
/// # Errors
///
/// [`Failure::Runtime`]: the client is unknown, the server refuses or cannot be reached.
pub fn run(args: &StatusArgs) -> Result<(), Failure> {
    let server = HttpClient::new(&args.server, args.api_key.as_ref())?;
    let text = match &args.client {
        Some(client) => one_client(&server, client, args.json)?,
        None => all_clients(&server, args.json)?,
    };
    print(text.as_bytes()).map(|_| ())
}

/// A client as the server tells of it; what it leaves out we leave out.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ClientStatus {
    client: String,
    online: bool,
    node: Option<String>,
    #[serde(rename = "since")]
    since_ms: Option<u64>,
    address: Option<String>,
    last_seq: Option<u64>,
    acked: Option<u64>,
    pending: Option<u64>,
    #[serde(rename = "oldest_pending_at")]
    oldest_pending_at_ms: Option<u64>,
    dead_letters: Option<u64>,
}

#[derive(Deserialize)]
struct Page {
    clients: Vec<Box<RawValue>>,
    #[serde(default)]
    next: Option<String>,
}

fn one_client(server: &HttpClient<'_>, client: &ClientId, json: bool) -> Result<String, Failure> {
    let answer = server.get(&format!("/v1/clients/{}", escaped(client.as_str())))?;
    if answer.status == 404 {
        return Err(Failure::Runtime(format!(
            "unknown client {}: it never had a payment or a connection",
            client.as_str()
        )));
    }
    if !answer.is_good() {
        return Err(answer.problem());
    }
    let status: ClientStatus = read(&answer)?;
    if json {
        let raw: Box<RawValue> = read(&answer)?;
        return Ok(format!("{raw}\n"));
    }
    Ok(described(&status, now_ms()))
}

fn all_clients(server: &HttpClient<'_>, json: bool) -> Result<String, Failure> {
    let online = every_page(server, "/v1/clients", None)?;
    let waiting = every_page(server, "/v1/clients", Some("pending=true"))?;
    if json {
        #[derive(Serialize)]
        struct Both {
            online: Vec<Box<RawValue>>,
            pending: Vec<Box<RawValue>>,
        }
        let both = Both { online, pending: waiting };
        let text = serde_json::to_string(&both).expect("JSON in a list is JSON");
        return Ok(format!("{text}\n"));
    }
    let now = now_ms();
    let (online, waiting) = (parsed(&online)?, parsed(&waiting)?);
    Ok(format!("{}\n{}", online_table(&online, now), waiting_table(&waiting, now)))
}

fn every_page(server: &HttpClient<'_>, path: &str, query: Option<&str>) -> Result<Vec<Box<RawValue>>, Failure> {
    let mut clients = Vec::new();
    let mut after: Option<String> = None;
    for _ in 0..MAX_PAGES {
        let place = after.as_deref().map(|id| format!("after={}", escaped(id)));
        let words: Vec<&str> = query.into_iter().chain(place.as_deref()).collect();
        let mark = if words.is_empty() { "" } else { "?" };
        let answer = server.get(&format!("{path}{mark}{}", words.join("&")))?;
        if !answer.is_good() {
            return Err(answer.problem());
        }
        let page: Page = read(&answer)?;
        clients.extend(page.clients);
        match page.next {
            Some(next) if after.as_ref() != Some(&next) => after = Some(next),
            _ => return Ok(clients),
        }
    }
    Err(unreadable())
}

fn read<'a, T: Deserialize<'a>>(answer: &'a Answer) -> Result<T, Failure> {
    serde_json::from_slice(&answer.body).map_err(|_| unreadable())
}

fn parsed(clients: &[Box<RawValue>]) -> Result<Vec<ClientStatus>, Failure> {
    let read = |text| serde_json::from_str(text).map_err(|_| unreadable());
    clients.iter().map(|raw| read(raw.get())).collect()
}

fn unreadable() -> Failure {
    Failure::Runtime("the answer is not payrelay's; check --server, and that both are of one version".to_owned())
}

fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    since_epoch.unwrap_or_default().as_millis() as u64
}

/// One client in a few lines.
fn described(status: &ClientStatus, now_ms: u64) -> String {
    let mut text = format!("client   {}\n", printable(&status.client));
    text += "online   ";
    text += if status.online { "yes" } else { "no" };
    if status.online {
        if let Some(node) = &status.node {
            text += &format!(", at node {}", printable(node));
        }
        if let Some(address) = &status.address {
            text += &format!(", from {}", printable(address));
        }
        if status.since_ms.is_some() {
            text += &format!(", for {}", age(status.since_ms, now_ms));
        }
    }
    text += "\n";
    if let (Some(last), Some(acked)) = (status.last_seq, status.acked) {
        text += &format!("seqs     last {last}, acknowledged up to {acked}\n");
    }
    let pending = status.pending.unwrap_or(0);
    text += &format!("pending  {pending}");
    if pending > 0 && status.oldest_pending_at_ms.is_some() {
        let waited = age(status.oldest_pending_at_ms, now_ms);
        text += &format!(", the oldest for {waited}");
    }
    text += "\n";
    if let Some(dead) = status.dead_letters {
        text += &format!("dead     {dead}\n");
    }
    text
}

fn online_table(clients: &[ClientStatus], now_ms: u64) -> String {
    let row = |status: &ClientStatus| {
        vec![
            status.client.clone(),
            status.node.clone().unwrap_or_default(),
            status.address.clone().unwrap_or_default(),
            age(status.since_ms, now_ms),
            number(status.pending),
            age(status.oldest_pending_at_ms, now_ms),
            number(status.dead_letters),
        ]
    };
    let head = ["ONLINE", "NODE", "ADDRESS", "FOR", "PENDING", "OLDEST FOR", "DEAD"];
    table(&head, clients.iter().map(row), "nobody is online\n")
}

fn waiting_table(clients: &[ClientStatus], now_ms: u64) -> String {
    let row = |status: &ClientStatus| {
        vec![
            status.client.clone(),
            number(status.pending),
            age(status.oldest_pending_at_ms, now_ms),
            if status.online { "yes" } else { "no" }.to_owned(),
            number(status.dead_letters),
        ]
    };
    let head = ["WAITING", "PAYMENTS", "OLDEST FOR", "ONLINE", "DEAD"];
    table(&head, clients.iter().map(row), "no payments are waiting\n")
}

fn number(value: Option<u64>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>, empty: &str) -> String {
    let mut lines: Vec<Vec<String>> = vec![head.iter().map(|&name| name.to_owned()).collect()];
    lines.extend(rows.map(|row| row.iter().map(|cell| printable(cell)).collect()));
    if lines.len() == 1 {
        return empty.to_owned();
    }
    let widest = |column: usize| lines.iter().map(|line| line[column].len()).max();
    let widths: Vec<usize> = (0..head.len()).filter_map(widest).collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths);
        let padded: Vec<String> = cells.map(|(cell, width)| format!("{cell:width$}")).collect();
        text += padded.join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// How long ago that was, in the two largest units: `3 h 5 min`.
// A clock that is behind the store's gives 0 s rather than an error.
fn age(at_ms: Option<u64>, now_ms: u64) -> String {
    let Some(at_ms) = at_ms else {
        return String::new();
    };
    let secs = Duration::from_millis(now_ms.saturating_sub(at_ms)).as_secs();
    match secs {
        0..60 => format!("{secs} s"),
        60..3600 => format!("{} min {} s", secs / 60, secs % 60),
        3600..86_400 => format!("{} h {} min", secs / 3600, secs % 3600 / 60),
        _ => format!("{} d {} h", secs / 86_400, secs % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_732_330_100_000;

    fn status(json: &str) -> ClientStatus {
        serde_json::from_str(json).expect("a client's status")
    }

    #[test]
    fn a_client_is_described_in_a_few_lines() {
        let online = status(
            r#"{"client":"01","online":true,"node":"n1","since":1732330000123,"address":"10.0.0.7:51312","last_seq":42,"acked":41,"pending":1,"oldest_pending_at":1732330090000,"new":{}}"#,
        );
        assert_eq!(
            described(&online, NOW_MS),
            "client   01\nonline   yes, at node n1, from 10.0.0.7:51312, for 1 min 39 s\nseqs     last 42, acknowledged up to 41\npending  1, the oldest for 10 s\n"
        );
        let offline = status(
            r#"{"client":"01","online":false,"node":null,"since":null,"address":null,"last_seq":2,"acked":2,"pending":0,"oldest_pending_at":null}"#,
        );
        assert_eq!(
            described(&offline, NOW_MS),
            "client   01\nonline   no\nseqs     last 2, acknowledged up to 2\npending  0\n"
        );
    }

    #[test]
    fn tables_are_aligned_and_say_when_they_are_empty() {
        let clients = [
            status(r#"{"client":"till-7","pending":12,"oldest_pending_at":1732330097000,"dead_letters":2}"#),
            status(r#"{"client":"1","online":true,"pending":1,"oldest_pending_at":1732230097000}"#),
        ];
        assert_eq!(
            waiting_table(&clients, NOW_MS),
            "WAITING  PAYMENTS  OLDEST FOR  ONLINE  DEAD\ntill-7   12        3 s         no      2\n1        1         1 d 3 h     yes\n"
        );
        assert_eq!(online_table(&[], NOW_MS), "nobody is online\n");
        assert_eq!(waiting_table(&[], NOW_MS), "no payments are waiting\n");
    }

    #[test]
    fn a_server_cannot_steer_the_terminal() {
        let clients = [status(r#"{"client":"01","node":"\u001b[2J\n"}"#)];
        let text = online_table(&clients, NOW_MS);
        assert!(!text.contains('\u{1b}') && text.lines().count() == 2, "{text}");
    }

    #[test]
    fn a_clock_that_is_behind_gives_no_nonsense() {
        assert_eq!(age(Some(NOW_MS + 5000), NOW_MS), "0 s");
        assert_eq!(age(Some(0), NOW_MS).split(' ').count(), 4);
        assert_eq!(age(None, NOW_MS), "");
    }
}
