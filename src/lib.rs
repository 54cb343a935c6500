//! payrelay: a payment relay. A payment comes by HTTP, lies in its client's durable inbox, rings
//! the node that holds the client's TCP connection, and stays until the client acknowledges it.
//!
//! ```text
//!  sender ──POST──▶ http-N ──accept──▶ inbox (one script, or one transaction, for many at once)
//!         ◀─202───        ◀───────────   │
//!                                        │ doorbell, through the bus or straight into the queue
//!                                        ▼
//!                     bell queue ──▶ router ──send, never waiting──▶ client's socket ──▶ client
//!                                        │ gap, full socket, full window
//!                                        ▼
//!                                    catch-up (reads the inbox) ⇄ drainer (waits for the socket)
//!  client ──ack──▶ read-N ──▶ book queue ──▶ bookkeeper ──one round trip for many──▶ inbox
//! ```
//!
//! Reading order: the values ([`payment`], `frame`, `doorbell`, [`auth`]); the inbox and its two
//! homes; [`bus`]; a client's connection (`client::delivery` is the heart); the threads (`router`,
//! `bookkeeper`, `receipts`, `tender`, `drainer`); HTTP; and [`node`], which puts it all together.

pub mod args;
pub mod auth;
mod bookkeeper;
mod broadcast;
pub mod bus;
mod capacity;
mod client;
pub mod commands;
mod doorbell;
mod doorstep;
mod drainer;
mod frame;
mod framing;
mod gate;
mod gauges;
mod hearing;
#[cfg(test)]
#[path = "../tests/hostile/mod.rs"]
mod hostile;
mod http;
mod inbox;
#[cfg(test)]
mod limits;
pub mod logging;
mod metrics;
pub mod node;
pub mod payment;
mod printable;
mod receipts;
mod router;
mod seldom;
mod signals;
mod sizing;
mod socket;
mod spare;
mod strangers;
mod tender;
mod thread;
