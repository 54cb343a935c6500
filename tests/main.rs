//! The promises, one file each, in one program: many tests wait for a limit of the contract, and while one waits, others
//! run. On 2 cores, six at a time, they take 183 s, and 7 s to link; a program for each file: 345 s, and 37 s to link.
//!
//! `cargo test --test promises busy_clients::` runs those of one file.

mod harness;
mod hostile;

mod audit;
mod batches;
mod bench;
mod both_doors;
mod broadcasts;
mod bus;
mod busy_clients;
mod command_line;
mod commands;
mod corrupt_client;
mod dead_letters;
mod doctor;
mod doorbells;
mod epoch;
mod exhaustion;
mod expiry;
mod framings;
mod frozen_nodes;
mod gateway_urls;
mod gateways;
mod guessing;
mod hostile_json;
mod hostile_mutations;
mod hostile_requests;
mod http_errors;
mod inbox_bytes;
mod inbox_limit;
mod key_rotation;
mod keys;
mod limits;
mod limits_http;
mod limits_tcp;
mod listing;
mod log_lines;
mod main_job;
mod messages;
mod metrics;
mod nothing_lost;
mod one_connection;
mod order;
mod outage_crowd;
mod payment_ids;
mod raw_bodies;
mod readiness;
mod receivers;
mod redis_away;
mod redis_full;
mod redis_rights;
mod redis_tls;
mod restart;
mod retired;
mod rollback;
mod scopes;
mod sizing;
mod slow_peers;
mod smuggling;
mod start_stop;
mod stored_or_not;
mod strangers;
mod tcp_errors;
mod together;
mod wait_replicas;
mod waiting;
mod window;

#[test]
fn every_file_is_of_a_program() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).expect("reads");
    let files = std::fs::read_dir(root.join("tests")).expect("reads").map(|entry| entry.expect("reads").file_name());
    for file in files.map(|name| name.into_string().expect("UTF-8")) {
        let Some(name) = file.strip_suffix(".rs") else { continue };
        let is_named = include_str!("main.rs").contains(&format!("\nmod {name};\n"))
            || manifest.contains(&format!("path = \"tests/{file}\""));
        assert!(is_named, "tests/{file} is not run: name it in tests/main.rs");
    }
}
