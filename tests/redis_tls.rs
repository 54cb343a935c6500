//! `rediss://`: payments go to Redis over TLS, and only to one whose certificate the system's authorities vouch for.
#![cfg(feature = "tls")]

use std::process::Command;
use std::sync::Arc;

use crate::harness::node::{envelope, ready_line};
use crate::harness::{Client, Program, Redis, TempDir, eventually, eventually_some, free_port, http};

/// An authority, and a certificate for 127.0.0.1 that it has signed.
struct Certificates {
    authority: String,
    /// Certificate and key of the server.
    server: (String, String),
}

impl Certificates {
    /// Nothing, where there is no openssl.
    fn make(dir: &TempDir, name: &str) -> Option<Certificates> {
        let path = |file: &str| dir.join(&format!("{name}-{file}")).display().to_string();
        let (authority, authority_key) = (path("ca.pem"), path("ca.key"));
        let (certificate, key, request) = (path("server.pem"), path("server.key"), path("server.csr"));
        let extensions = dir.file(&format!("{name}-san"), "subjectAltName=IP:127.0.0.1\n");
        let subject = format!("/CN=an authority called {name}");
        let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let own = ["req", "-x509", "-days", "1", "-subj", &subject, "-keyout", &authority_key, "-out", &authority];
        openssl(&[&own[..], &new_key].concat())?;
        openssl(&[&["req", "-subj", "/CN=redis", "-keyout", &key, "-out", &request][..], &new_key].concat())?;
        openssl(
            &[
                &["x509", "-req", "-days", "1", "-in", &request, "-out", &certificate][..],
                &["-CA", &authority, "-CAkey", &authority_key, "-CAcreateserial", "-extfile", &extensions],
            ]
            .concat(),
        )?;
        Some(Certificates { authority, server: (certificate, key) })
    }
}

fn openssl(args: &[&str]) -> Option<()> {
    let output = Command::new("openssl").args(args).output().ok()?;
    assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(())
}

/// A Redis that speaks TLS on this port; nothing, where redis-server was built without it.
fn redis_with_tls(port: u16, certificates: &Certificates) -> Option<Arc<Redis>> {
    let (certificate, key) = &certificates.server;
    let tried = Command::new("redis-server").args(["--tls-port", "0", "--port", "x"]).output().ok()?;
    // It reads the one setting before it stumbles over the other.
    if !String::from_utf8_lossy(&tried.stderr).contains("port \"x\"") {
        return None;
    }
    let port = port.to_string();
    let settings = ["--tls-port", &port, "--tls-auth-clients", "no", "--tls-cert-file", certificate];
    Some(Redis::with(
        &[&settings[..], &["--tls-key-file", key, "--tls-ca-cert-file", &certificates.authority]].concat(),
    ))
}

/// A node that trusts this authority and no other.
fn node(port: u16, authority: &str) -> Program {
    let url = format!("rediss://127.0.0.1:{port}/");
    let args = ["serve", "--http", "127.0.0.1:0", "--tcp", "127.0.0.1:0", "--node", "n1", "--redis", &url];
    Program::start(&args, &[("SSL_CERT_FILE", authority)])
}

#[test]
fn payments_go_over_tls_to_a_redis_that_proves_who_it_is() {
    let dir = TempDir::new();
    let Some(ours) = Certificates::make(&dir, "ours") else {
        eprintln!("skipped: there is no openssl to make certificates with");
        return;
    };
    let others = Certificates::make(&dir, "others").expect("openssl is there");
    let port = free_port();
    let Some(redis) = redis_with_tls(port, &ours) else {
        eprintln!("skipped: this redis-server was built without TLS");
        return;
    };

    let trusting = node(port, &ours.authority);
    let (http, tcp) = eventually_some("it is up", || ready_line(&trusting.stderr()));
    let is_ready = |http| http::request(http, "GET", "/readyz", &[], b"").status == 200;
    eventually("it is ready", || is_ready(http));
    let mut client = Client::hello(tcp, "01", "");
    let headers = [("Content-Type", "application/json")];
    http::request(http, "POST", "/v1/payments", &headers, envelope("01", "1", None).as_bytes()).expect(202);
    client.expect_payment(1, "1");
    client.ack(1);
    let status = || http::request(http, "GET", "/v1/clients/01/payments/1", &[], b"").field("status");
    eventually("it is acknowledged", || status() == "acknowledged");
    assert!(redis.info("total_connections_received") > 0);
    drop(trusting);

    let doubting = node(port, &others.authority);
    let (http, _) = eventually_some("it is up", || ready_line(&doubting.stderr()));
    let answer = http::request(http, "POST", "/v1/payments", &headers, envelope("01", "2", None).as_bytes());
    let problem = answer.expect_problem(503, "unavailable");
    assert_eq!(problem.field("stored"), "no", "{}", problem.show());
    eventually("it says what is wrong", || {
        let ready = http::request(http, "GET", "/readyz", &[], b"").expect(503);
        ready.field("reason").contains("certificate")
    });
    assert!(doubting.stderr().contains("certificate"), "{}", doubting.stderr());
}
