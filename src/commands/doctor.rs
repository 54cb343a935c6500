//! `payrelay doctor`: checks what the promises hang on, a line each, before a node starts or beside
//! a running one. It changes nothing in Redis and nothing on disk.
//!
//! Each check is a small function that returns a finding; they are apart by what they look at.

use log::LevelFilter;

use self::finding::{Finding, Grade};
use super::{Failure, print, printable};
use crate::args::DoctorArgs;
use crate::sizing::Load;

mod disk;
mod finding;
mod keys;
mod machine;
mod ports;
mod redis;

/// Prints what it finds.
///
/// # Errors
///
/// [`Failure::Runtime`]: with these settings a promise would not hold, or no node would start.
pub fn run(args: &DoctorArgs) -> Result<(), Failure> {
    // What a node would log about the same is a finding here.
    log::set_max_level(LevelFilter::Off);
    let findings = examine(args);
    let text: String = findings.iter().map(|finding| format!("{}\n", printable(&finding.to_string()))).collect();
    print(text.as_bytes())?;
    let failed: Vec<&str> = findings.iter().filter(|f| f.grade == Grade::Fail).map(|f| f.what).collect();
    match failed.as_slice() {
        [] => Ok(()),
        failed => Err(Failure::Runtime(format!("not fit for payments: {}", failed.join(", ")))),
    }
}

fn examine(args: &DoctorArgs) -> Vec<Finding> {
    let expected = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let load = Load {
        clients: expected(args.expect_clients),
        pending: expected(args.expect_pending),
        ids: expected(args.expect_ids),
        message_bytes: expected(args.expect_size),
    };
    let serve = &args.serve;
    let mut findings = match &serve.redis {
        Some(url) => redis::examine(url, serve, load),
        None => disk::examine(&serve.data_dir, load),
    };
    findings.extend(keys::examine(serve));
    findings.extend(machine::examine(serve, args.expect_clients));
    findings.extend(ports::examine(serve));
    findings
}
