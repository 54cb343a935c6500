//! How a log line looks, whoever writes it: one line, short, with nothing in it that could pass for another.
//!
//! Much of what is logged was named outside: client ids, an error of Redis, a node's name. So that no place can forget
//! it, the whole line is made fit here. Runs on every thread that logs.

use std::io::{self, Write};

use env_logger::fmt::Formatter;
use log::Record;

use crate::printable::escaped;

/// Logs to standard error from now on: what `RUST_LOG` asks for, level `info` without it.
pub fn start() {
    let wanted = std::env::var("RUST_LOG").unwrap_or_default();
    let filter = if wanted.is_empty() { "info" } else { &wanted };
    env_logger::Builder::new().parse_filters(filter).format(write_line).init();
}

fn write_line(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let (at, text) = (out.timestamp_millis(), record.args().to_string());
    writeln!(out, "[{at} {:<5} {}] {}", record.level(), record.target(), escaped(&text))
}
