//! Clients over HTTP: who is online, who has payments waiting, one; closing and retiring one.
//!
//! Who is online only the nodes know, so the one that is asked asks all that live, through the bus.

use super::payments::problem_of;
use super::routes::{Routes, flag, parameter};
use super::{Head, Problem, Response, json};
use crate::bus::{Event, To};
use crate::client::Clients;
use crate::doorbell::{Online, Question, topic};
use crate::inbox::{Error, Record, Retired, Token};
use crate::payment::ClientId;
use std::collections::BTreeSet;
use std::io::Cursor;
use std::time::{Duration, Instant};
use tiny_http::StatusCode;

/// A page of a list.
struct Page {
    shown: Vec<String>,
    /// Behind whom the next page begins, if there is one.
    next: Option<ClientId>,
}

/// The most clients of a page.
pub(crate) const PAGE_CLIENTS: usize = 1000;
/// How long other nodes have to answer.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// Nodes whose answers wait at once; those past it count as missing.
const MAX_ANSWERS: usize = 256;

impl Routes {
    /// `GET /v1/clients`, with `?pending=true` and `?after=…`.
    pub(super) fn list_clients(&self, head: &Head) -> Result<Response, Problem> {
        let after = parameter(head, "after")?;
        let after = after.as_deref().map(ClientId::parse).transpose();
        let after = after.map_err(|e| Problem::invalid_client_id(e.to_string()))?;
        let (clients, missing) = if flag(head, "pending")? {
            let clients = self.inbox.waiting(after.as_ref(), PAGE_CLIENTS + 1).map_err(|e| problem_of(&e))?;
            (self.shown(&clients, |record| record.pending > 0)?, Vec::new())
        } else {
            let (found, missing) = self.ask_nodes(after.as_ref());
            let clients: Vec<ClientId> = found.into_iter().take(PAGE_CLIENTS + 1).collect();
            (self.shown(&clients, |record| record.owner.is_some())?, missing)
        };
        let next = clients.next.map_or("null".into(), |client| format!("\"{client}\""));
        // Said only where it is so: a list that lacks a node's clients must not pass for whole.
        let missing = if missing.is_empty() {
            String::new()
        } else {
            format!(",\"missing_nodes\":{}", serde_json::Value::from(missing))
        };
        let body = format!("{{\"clients\":[{}],\"next\":{next}{missing}}}", clients.shown.join(","));
        Ok(json(200, body.into_bytes()))
    }

    /// A page of clients, as the store has them now; `belongs` may say that one is here no more.
    fn shown(&self, clients: &[ClientId], belongs: impl Fn(&Record) -> bool) -> Result<Page, Problem> {
        let more = clients.len() > PAGE_CLIENTS;
        let clients = &clients[..clients.len().min(PAGE_CLIENTS)];
        let mut shown = Vec::with_capacity(clients.len());
        for (client, record) in clients.iter().zip(self.inbox.records(clients)) {
            match record {
                Ok(Some(record)) if belongs(&record) => shown.push(show(client, &record)),
                Ok(_) => {}
                // One that cannot be read must not hide the others.
                Err(Error::Corrupt(why)) => log::error!("{client} is left out of a list: {why}"),
                Err(error) => return Err(problem_of(&error)),
            }
        }
        Ok(Page { shown, next: clients.last().filter(|_| more).cloned() })
    }

    /// Who is online on any node, and the nodes that live and did not answer.
    fn ask_nodes(&self, after: Option<&ClientId>) -> (BTreeSet<ClientId>, Vec<String>) {
        let question = Question {
            answer_to: self.node.clone(),
            topic: format!("online/{}", Token::random().as_str()),
            after: after.map(|after| after.as_str().to_owned()),
        };
        let (answer_tx, answer_rx) = crossbeam_channel::bounded::<Online>(MAX_ANSWERS);
        let listening = self.bus.on(&question.topic, move |event| {
            if let Event::Message(message) = event
                && let Ok(online) = message.json()
            {
                let _ = answer_tx.try_send(online);
            }
        });
        let deadline = Instant::now() + ANSWER_LIMIT;
        let text = serde_json::to_vec(&question).unwrap_or_default();
        let mut missing = self.inbox.nodes();
        if let Err(error) = self.bus.emit(To::All, topic::QUESTION, &text) {
            log::debug!("other nodes could not be asked: {error}");
        }
        let mut found = BTreeSet::new();
        while !missing.is_empty() {
            let Ok(online) = answer_rx.recv_deadline(deadline) else { break };
            missing.retain(|node| *node != online.node);
            found.extend(online.clients.iter().filter_map(|id| ClientId::parse(id).ok()));
        }
        self.bus.off(listening);
        (found, missing)
    }

    /// `GET /v1/clients/{client}`
    pub(super) fn show_client(&self, client: &ClientId) -> Result<Response, Problem> {
        let record = self.record(client)?.ok_or_else(|| unknown(client))?;
        Ok(json(200, show(client, &record).into_bytes()))
    }

    fn record(&self, client: &ClientId) -> Result<Option<Record>, Problem> {
        let record = self.inbox.records(std::slice::from_ref(client)).pop();
        Ok(record.transpose().map_err(|e| problem_of(&e))?.flatten())
    }

    /// `DELETE /v1/clients/{client}/connection`
    pub(super) fn disconnect(&self, client: &ClientId) -> Result<Response, Problem> {
        let owner = self.record(client)?.and_then(|record| record.owner);
        let owner = owner.ok_or_else(|| Problem::not_found(format!("{client} has no connection")))?;
        self.bus
            .emit(To::Node(&owner.node), topic::DISCONNECT, client.as_str().as_bytes())
            .map_err(|e| Problem::unavailable(e.to_string()))?;
        Ok(empty(204))
    }

    /// `DELETE /v1/clients/{client}`
    pub(super) fn retire(&self, client: &ClientId, head: &Head) -> Result<Response, Problem> {
        let discard = flag(head, "discard")?;
        match self.inbox.retire(client, discard).map_err(|e| problem_of(&e))? {
            Retired::Unknown => Err(unknown(client)),
            Retired::Pending(n) => {
                Err(Problem::conflict(format!("{client} has {n} payments waiting; ?discard=true throws them away")))
            }
            Retired::Done => {
                self.receipts.abandon(client);
                let _ = self.bus.emit(To::All, topic::DISCONNECT, client.as_str().as_bytes());
                Ok(empty(204))
            }
        }
    }
}

/// The answer of a node to who is online with it.
pub(crate) fn answer_question(node: &str, clients: &Clients, question: &Question) -> Online {
    let after = question.after.as_deref().and_then(|after| ClientId::parse(after).ok());
    let online = clients.online(after.as_ref(), PAGE_CLIENTS + 1);
    let clients = online.iter().map(|connection| connection.client().to_string()).collect();
    Online { node: node.to_owned(), clients }
}

fn unknown(client: &ClientId) -> Problem {
    Problem::not_found(format!("{client} never had a payment or a connection"))
}

/// A client in the contract's shape. Nothing in it needs escaping.
fn show(client: &ClientId, record: &Record) -> String {
    let Record { last, acked, pending, oldest_pending_at, dead_letters, owner } = record;
    let owner = match owner {
        None => String::from(r#""online":false"#),
        Some(o) => {
            format!(r#""online":true,"node":"{}","since":{},"address":"{}""#, o.node, o.since, o.address)
        }
    };
    let oldest = oldest_pending_at.map(|at| format!(r#","oldest_pending_at":{at}"#)).unwrap_or_default();
    let dead = if *dead_letters > 0 { format!(r#","dead_letters":{dead_letters}"#) } else { String::new() };
    format!(r#"{{"client":"{client}",{owner},"last_seq":{last},"acked":{acked},"pending":{pending}{oldest}{dead}}}"#)
}

pub(super) fn empty(status: u16) -> Response {
    Response::new(StatusCode(status), Vec::new(), Cursor::new(Vec::new()), Some(0), None)
}
