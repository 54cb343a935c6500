//! What this node does with what other nodes say: doorbells, takeovers, orders, broadcasts, questions.
//!
//! The handlers run on the subscriber's thread, pass on, and never wait; questions, whose answers need
//! Redis, are answered on the thread `answers`.

use crate::broadcast::Broadcasts;
use crate::bus::{Bus, Event, To};
use crate::client::Clients;
use crate::client::close_reason::CloseReason;
use crate::doorbell::{Bell, Gone, Question, Takeover, topic};
use crate::http::clients::answer_question;
use crate::inbox::Inbox;
use crate::payment::ClientId;
use crate::receipts::Receipts;
use crate::router::Bells;
use crossbeam_channel::{Receiver, bounded};
use prometheus_client::metrics::counter::Counter;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Questions of other nodes that wait to be answered.
const MAX_QUESTIONS: usize = 64;

/// What this node listens to. Returns the questions, which are answered on a thread of their own.
pub(crate) fn subscribe(
    bus: &Bus,
    bells: &Arc<Bells>,
    clients: &Arc<Clients>,
    receipts: &Arc<Receipts>,
    inbox: &Arc<dyn Inbox>,
    broadcasts: &Arc<Broadcasts>,
) -> Receiver<Question> {
    let inbox = Arc::clone(inbox);
    let (bells, clients2, receipts) = (Arc::clone(bells), Arc::clone(clients), Arc::clone(receipts));
    bus.on(topic::DOORBELL, move |event| match event {
        Event::Message(message) => match Bell::parse(message.bytes) {
            Some(bell) => bells.ring(vec![bell]),
            None => log::debug!("a doorbell that is none"),
        },
        Event::Lost(_) => inbox.distrust(),
        // Bells rung while nobody listened are gone.
        Event::Restored => {
            clients2.check_all();
            receipts.ask_again();
        }
    });
    let clients2 = Arc::clone(clients);
    bus.on(topic::TAKEOVER, move |event| {
        if let Event::Message(message) = event
            && let Some(Takeover { client, session }) = Takeover::parse(message.bytes)
            && let Some(connection) = clients2.get(&client)
        {
            connection.taken_over(session);
        }
    });
    let clients2 = Arc::clone(clients);
    bus.on(topic::DEAD, move |event| {
        if let Event::Message(message) = event
            && let Some(Gone { client, seq }) = Gone::parse(message.bytes)
            && let Some(connection) = clients2.get(&client)
        {
            connection.died(seq);
        }
    });
    let clients2 = Arc::clone(clients);
    bus.on(topic::DISCONNECT, move |event| {
        if let Event::Message(message) = event {
            let client = std::str::from_utf8(message.bytes).ok().and_then(|id| ClientId::parse(id).ok());
            if let Some(connection) = client.and_then(|client| clients2.get(&client)) {
                connection.close(CloseReason::Disconnected);
            }
        }
    });
    let broadcasts = Arc::clone(broadcasts);
    bus.on(topic::BROADCAST, move |event| {
        if let Event::Message(message) = event {
            broadcasts.hear(message.bytes);
        }
    });
    let (question_tx, question_rx) = bounded(MAX_QUESTIONS);
    bus.on(topic::QUESTION, move |event| {
        if let Event::Message(message) = event
            && let Ok(question) = message.json()
        {
            // One too many is not answered; who asks says that this node is missing.
            let _ = question_tx.try_send(question);
        }
    });
    question_rx
}

/// Counts how often the line to other nodes was there again; the first time it is only there.
pub(crate) fn count_reconnects(bus: &Bus, reconnects: Counter) {
    let was_there = AtomicBool::new(false);
    bus.on(topic::DOORBELL, move |event| {
        if matches!(event, Event::Restored) && was_there.swap(true, Ordering::Relaxed) {
            reconnects.inc();
        }
    });
}

/// Thread body of `answers`: tells other nodes who is online here.
pub(crate) fn answer(questions: &Receiver<Question>, bus: &Bus, clients: &Clients, name: &str) {
    while let Ok(question) = questions.recv() {
        let online = answer_question(name, clients, &question);
        let text = serde_json::to_vec(&online).unwrap_or_default();
        if let Err(error) = bus.emit(To::Node(&question.answer_to), &question.topic, &text) {
            log::debug!("a question stays without answer: {error}");
        }
    }
}
