//! `payrelay doctor` finds what would break a promise, says how to mend it, exits 1 then, and changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use crate::harness::redis::caught_up;
use crate::harness::{self, Exit, Framing, Home, Node, Program, Redis, Reply, TempDir};

/// What it printed, by what was looked at.
struct Diagnosis {
    code: Option<i32>,
    findings: BTreeMap<String, String>,
    exit: Exit,
}

/// Runs it with ports that are free, unless others are given.
#[track_caller]
fn doctor(flags: &[&str]) -> Diagnosis {
    let mut args = vec!["doctor"];
    for flag in ["--http", "--tcp"] {
        if !flags.contains(&flag) {
            args.extend([flag, "127.0.0.1:0"]);
        }
    }
    args.extend_from_slice(flags);
    let exit = Program::run(&args);
    let mut findings = BTreeMap::new();
    for line in exit.stdout.lines() {
        let (grade, what, found) = (&line[..4], line[6..18].trim(), &line[20..]);
        assert!(["ok  ", "warn", "FAIL"].contains(&grade), "{line}");
        assert!(!found.is_empty(), "{line}");
        findings.insert(what.to_owned(), format!("{} {found}", grade.trim()));
    }
    assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
    Diagnosis { code: exit.code, findings, exit }
}

impl Diagnosis {
    #[track_caller]
    fn expect(&self, what: &str, grade: &str, says: &str) -> &Diagnosis {
        let found = self.findings.get(what).unwrap_or_else(|| panic!("nothing on {what}:\n{}", self.exit.stdout));
        assert!(found.starts_with(grade) && found.contains(says), "{what} is not {grade} …{says}…:\n{found}");
        self
    }

    /// Exit status 1, and one line that names what failed.
    #[track_caller]
    fn expect_unfit(&self, failed: &str) {
        assert_eq!(self.code, Some(1), "{}", self.exit.stdout);
        assert_eq!(self.exit.stderr, format!("payrelay: not fit for payments: {failed}\n"));
    }

    #[track_caller]
    fn expect_fit(&self) {
        assert_eq!(self.code, Some(0), "{}", self.exit.stdout);
        assert_eq!(self.exit.stderr, "");
    }
}

fn on_redis(redis: &Redis, flags: &[&str]) -> Diagnosis {
    let url = redis.url();
    doctor(&[&["--redis", &url], flags].concat())
}

#[test]
fn a_redis_for_payments_is_fit() {
    let redis = Redis::with(&["--maxmemory", "100mb"]);
    let found = on_redis(&redis, &["--require-durability", "always"]);
    found.expect("redis", "ok", &redis.url());
    found.expect("version", "ok", "Redis 7.").expect("rights", "ok", "scripts").expect("channels", "ok", "publish");
    found.expect("durability", "ok", "durable: a 2xx is on Redis' disk before it is sent.");
    found.expect("rewriting", "ok", "").expect("writing", "ok", "").expect("eviction", "ok", "noeviction");
    found.expect("memory", "ok", "maxmemory 100.0 MiB").expect("pub/sub", "ok", "32.0 MiB");
    found.expect("replicas", "ok", "none").expect("clock", "ok", "ms apart").expect("connections", "ok", "bounded by");
    found.expect("API keys", "ok", "only this machine").expect("secrets", "ok", "only this machine");
    found.expect("HTTP port", "ok", "free").expect("TCP port", "ok", "free");
    found.expect_fit();
}

#[test]
fn too_little_durability_is_found() {
    let (any, always) = (["--require-durability", "any"], ["--require-durability", "always"]);
    let cases: [(&[&str], &[&str], &str); 6] = [
        (&["--appendfsync", "everysec"], &always, "set appendonly yes and appendfsync always"),
        (&["--appendfsync", "no"], &[], "up to about 30 s."),
        (&["--appendonly", "no"], &[], "memory only"),
        (&["--appendonly", "no", "--save", "60 1"], &[], "all since the last snapshot."),
        // Below a second it is told whatever was asked for.
        (&["--appendonly", "no"], &any, "set appendonly yes and appendfsync everysec"),
        (&["--appendfsync", "no"], &any, "set appendonly yes and appendfsync everysec"),
    ];
    for (settings, flags, says) in cases {
        let found = on_redis(&Redis::with(settings), flags);
        found.expect("durability", "FAIL", says).expect_unfit("durability");
    }
    for flags in [&any[..], &[]] {
        let found = on_redis(&Redis::with(&["--appendfsync", "everysec"]), flags);
        found.expect("durability", "ok", "A power cut loses about the last second").expect_fit();
    }
}

#[test]
fn what_weakens_a_redis_is_a_warning() {
    let redis = Redis::with(&["--appendfsync", "everysec", "--no-appendfsync-on-rewrite", "yes"]);
    redis.cli(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 1mb 60"]).expect_ok();
    let found = on_redis(&redis, &[]);
    found.expect("rewriting", "warn", "no-appendfsync-on-rewrite no").expect("memory", "warn", "set maxmemory");
    found.expect("pub/sub", "warn", "CONFIG SET client-output-buffer-limit").expect_fit();
    redis.cli(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 0 0 0"]).expect_ok();
    on_redis(&redis, &[]).expect("pub/sub", "warn", "no limit").expect_fit();
}

#[test]
fn any_eviction_is_found() {
    for policy in ["allkeys-lru", "volatile-ttl"] {
        let redis = Redis::with(&["--maxmemory-policy", policy]);
        let found = on_redis(&redis, &["--require-durability", "any"]);
        found.expect("eviction", "FAIL", "Redis may evict inboxes. Set maxmemory-policy noeviction");
        found.expect("eviction", "FAIL", policy).expect_unfit("eviction");
    }
}

#[test]
fn a_redis_that_takes_no_writes_is_found() {
    let nobody = harness::free_port().to_string();
    let replica = Redis::with(&["--replicaof", "127.0.0.1", &nobody]);
    let found = on_redis(&replica, &[]);
    found.expect("writing", "FAIL", "point --redis at the primary").expect_unfit("writing");
    found.expect("durability", "ok", "A failover can lose payments the new primary had not received.");
}

#[test]
fn a_redis_that_is_away_is_found() {
    let found = on_redis(&Redis::away(), &[]);
    found.expect("redis", "FAIL", "start it, or mend --redis").expect_unfit("redis");
    found.expect("connections", "ok", "");
    let redis = Redis::start();
    redis.pause();
    on_redis(&redis, &[]).expect("redis", "FAIL", "").expect_unfit("redis");
}

#[test]
fn no_password_is_shown() {
    let redis = Redis::start();
    redis.cli(&["CONFIG", "SET", "requirepass", "right-one"]).expect_ok();
    for (user, says) in [("", "NOAUTH"), (":hunter2@", "")] {
        let url = format!("redis://{user}127.0.0.1:{}/", redis.port());
        let found = doctor(&["--redis", &url]);
        found.expect("redis", "FAIL", says).expect_unfit("redis");
        assert!(!found.exit.stdout.contains("hunter2"), "{}", found.exit.stdout);
    }
}

/// A Redis, and the URL of a user who may do all but these.
fn without(rights: &[&str]) -> (Arc<Redis>, String) {
    let redis = Redis::start();
    let all = ["ACL", "SETUSER", "relay", "on", ">secret", "~*", "&*", "+@all"];
    redis.cli(&[&all, rights].concat()).expect_ok();
    let url = format!("redis://relay:secret@127.0.0.1:{}/", redis.port());
    (redis, url)
}

#[test]
fn missing_rights_are_found() {
    for (rights, says) in [
        (&["-evalsha"][..], "EVALSHA"),
        (&["-script|load"], "SCRIPT LOAD"),
        (&["-rpush", "-hset"], "RPUSH, HSET"),
        (&["resetkeys", "~other:*"], "GET"),
    ] {
        let (_redis, url) = without(rights);
        doctor(&["--redis", &url]).expect("rights", "FAIL", says).expect_unfit("rights");
    }
    let (_redis, url) = without(&["-wait"]);
    doctor(&["--redis", &url]).expect("rights", "ok", "").expect_fit();
    let found = doctor(&["--redis", &url, "--wait-replicas", "1"]);
    found.expect("rights", "FAIL", "WAIT").expect_unfit("rights, replicas");
}

#[test]
fn what_a_redis_does_not_tell_is_no_promise() {
    let (_redis, url) = without(&["-config"]);
    let unknown = "durability unknown: CONFIG GET is not allowed here.";
    let found = doctor(&["--redis", &url]);
    found.expect("durability", "FAIL", unknown).expect("rewriting", "warn", "").expect("pub/sub", "warn", "");
    found.expect("eviction", "ok", "noeviction").expect_unfit("durability");
    // Who says `any` knows it from elsewhere.
    let found = doctor(&["--redis", &url, "--require-durability", "any"]);
    found.expect("durability", "warn", unknown).expect_fit();

    let (_redis, url) = without(&["resetchannels"]);
    let found = doctor(&["--redis", &url]);
    found.expect("channels", "warn", "SUBSCRIBE, PUBLISH").expect("rights", "ok", "").expect_fit();
    let (_redis, url) = without(&["-multi"]);
    doctor(&["--redis", &url]).expect("rights", "warn", "not tried").expect_fit();
    let (_redis, url) = without(&["-info"]);
    doctor(&["--redis", &url]).expect("redis", "FAIL", "NOPERM").expect_unfit("redis");
}

#[test]
fn replicas_are_counted() {
    let primary = Redis::start();
    let replica = Redis::replica_of(primary.port());
    caught_up(&primary, &replica);
    let found = on_redis(&primary, &["--wait-replicas", "1"]);
    found.expect("replicas", "warn", "min-replicas-to-write 1");
    found.expect("durability", "ok", "payrelay waits for 1 replica (narrows it, does not close it).").expect_fit();
    let found = on_redis(&primary, &["--wait-replicas", "2"]);
    found.expect("replicas", "FAIL", "1 of the 2 replicas").expect_unfit("replicas");
    primary.cli(&["CONFIG", "SET", "min-replicas-to-write", "1"]).expect_ok();
    on_redis(&primary, &[]).expect("replicas", "ok", "1 in step").expect_fit();
}

#[test]
fn the_expected_load_is_compared_with_the_memory() {
    let redis = Redis::with(&["--maxmemory", "100mb"]);
    let load = |pending| ["--expect-clients", "1000", "--expect-pending", pending, "--expect-size", "1000"];
    on_redis(&redis, &load("10000")).expect("memory", "ok", "the expected load takes about 11").expect_fit();
    let found = on_redis(&redis, &load("100000"));
    found.expect("memory", "warn", "raise maxmemory").expect_fit();
    let dir = TempDir::on_disk();
    let data_dir = dir.path().to_str().expect("UTF-8");
    // More than any disk: a thousand million payments of a megabyte.
    let load = ["--expect-clients", "1000000000", "--expect-pending", "1000000000", "--expect-size", "1000000"];
    let found = doctor(&[&["--data-dir", data_dir][..], &load].concat());
    found.expect("room", "warn", "free some").expect("connections", "warn", "vm.max_map_count=4").expect_fit();
}

#[test]
fn a_running_node_is_no_hindrance_and_hears_nothing_of_it() {
    let redis = Redis::start();
    let node = Node::on(&redis, "n1", &[]);
    node.accept("01", "1");
    let (http, tcp) = (node.http().to_string(), node.tcp().to_string());
    let found = on_redis(&redis, &["--http", &http, "--tcp", &tcp, "--node", "n1"]);
    found.expect("HTTP port", "ok", "taken by a payrelay that runs").expect("TCP port", "ok", "taken by a payrelay");
    found.expect_fit();
    assert_eq!(node.accept("01", "2"), 2);
    assert!(!node.has_ended(), "its name was not taken over");
}

#[test]
fn redis_is_left_as_it_was() {
    let redis = Redis::start();
    on_redis(&redis, &["--wait-replicas", "1"]);
    assert_eq!(redis.cli(&["DBSIZE"]), Reply::Int(0));
    assert_eq!(redis.info("rdb_changes_since_last_save"), 0);
    assert_eq!(redis.info("number_of_cached_scripts"), 0);
    let (redis, url) = without(&["-multi"]);
    doctor(&["--redis", &url]);
    assert_eq!(redis.info("rdb_changes_since_last_save"), 0);
}

/// Names, sizes and times of everything in a directory.
fn listing(dir: &Path) -> Vec<(String, u64, std::time::SystemTime)> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry"));
    let about = |entry: fs::DirEntry| {
        let about = entry.metadata().expect("a file");
        (entry.file_name().to_string_lossy().into_owned(), about.len(), about.modified().expect("a time"))
    };
    entries.map(about).collect()
}

#[test]
fn an_embedded_inbox_is_looked_at_beside_its_node() {
    let dir = TempDir::on_disk();
    let data = dir.join("data").to_str().expect("UTF-8").to_owned();
    let found = doctor(&["--data-dir", &data]);
    found.expect("directory", "ok", "without inboxes").expect_fit();
    assert!(!dir.join("data").exists(), "it makes nothing");

    let ports = ["--http", "127.0.0.1:0", "--tcp", "127.0.0.1:0"];
    let mut program = Program::start(&[&["serve", "--data-dir", &data], &ports[..]].concat(), &[]);
    harness::eventually("the node is ready", || harness::node::ready_line(&program.stderr()).is_some());
    let (http, tcp) = harness::node::ready_line(&program.stderr()).expect("a ready line");
    let before = listing(&dir.join("data"));
    let found = doctor(&["--data-dir", &data, "--http", &http.to_string(), "--tcp", &tcp.to_string()]);
    found.expect("directory", "ok", "inbox.redb has").expect("room", "ok", "free");
    found.expect("HTTP port", "ok", "payrelay").expect("TCP port", "ok", "payrelay").expect_fit();
    assert_eq!(listing(&dir.join("data")), before);
    assert!(!program.has_ended());
}

#[test]
fn a_port_is_asked_in_its_framing() {
    let node = Node::with(Home::Embedded, &["--tcp", "u16be@127.0.0.1:0", "--tcp", "u32be@127.0.0.1:0"]);
    let dir = TempDir::on_disk();
    let data = dir.join("data").to_str().expect("UTF-8").to_owned();
    for (framing, name) in [(Framing::U16be, "u16be"), (Framing::U32be, "u32be")] {
        let address = format!("{name}@{}", node.tcp_in(framing));
        doctor(&["--data-dir", &data, "--tcp", &address]).expect("TCP port", "ok", "payrelay").expect_fit();
    }
}

#[test]
fn a_directory_that_cannot_be_used_is_found() {
    let dir = TempDir::on_disk();
    let file = dir.file("a-file", "not a directory");
    let below = format!("{file}/data");
    for path in [&file, &below] {
        doctor(&["--data-dir", path]).expect("directory", "FAIL", "a-file").expect_unfit("directory");
    }
    let foreign = TempDir::on_disk();
    foreign.file("inbox.redb", "something else");
    let path = foreign.path().to_str().expect("UTF-8");
    doctor(&["--data-dir", path]).expect("directory", "FAIL", "another program's").expect_unfit("directory");
    // What never became a file of redb's is made anew by a node.
    foreign.file("inbox.redb", "");
    doctor(&["--data-dir", path]).expect("directory", "ok", "").expect_fit();
}

#[test]
fn a_directory_in_memory_is_found() {
    let found = doctor(&["--data-dir", "/dev/shm/payrelay-doctor"]);
    found.expect("durability", "FAIL", "--data-dir").expect_unfit("durability");
}

#[test]
fn files_of_keys_are_found_wanting() {
    let dir = TempDir::on_disk();
    let good = dir.file("good", "0123456789abcdef\n");
    let short = dir.file("short", "hunter2\n");
    let open = dir.file("open", "0123456789abcdef\n");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).expect("our own file");
    let data = dir.join("data").to_str().expect("UTF-8").to_owned();
    for (flag, what) in [("--api-keys-file", "API keys"), ("--client-secret-file", "secrets")] {
        let found = |file: &str| doctor(&["--data-dir", &data, flag, file]);
        found(&good).expect(what, "ok", "good").expect_fit();
        found(&open).expect(what, "warn", "chmod 600").expect_fit();
        let found_short = found(&short);
        found_short.expect(what, "FAIL", "16 characters").expect_unfit(what);
        assert!(!found_short.exit.stdout.contains("hunter2"));
        found("/no/such/file").expect(what, "FAIL", "/no/such/file").expect_unfit(what);
    }
    let found = doctor(&["--data-dir", &data, "--http", "0.0.0.0:0", "--tcp", "0.0.0.0:0", "--insecure"]);
    found.expect("API keys", "warn", "--api-keys-file").expect("secrets", "warn", "--client-secret-file").expect_fit();
}

#[test]
fn a_port_of_another_program_is_found() {
    let dir = TempDir::on_disk();
    let data = dir.path().to_str().expect("UTF-8");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = listener.local_addr().expect("its address").to_string();
    // Whoever has it does not answer as a node does: it closes at once.
    std::thread::spawn(move || listener.incoming().for_each(drop));
    for (flag, what) in [("--http", "HTTP port"), ("--tcp", "TCP port")] {
        let found = doctor(&["--data-dir", data, flag, &taken]);
        found.expect(what, "FAIL", "another program").expect_unfit(what);
    }
    let found = doctor(&["--data-dir", data, "--tcp", "192.0.2.1:7070", "--insecure"]);
    found.expect("TCP port", "FAIL", "--tcp").expect_unfit("TCP port");
}

#[test]
fn a_node_that_speaks_another_framing_on_a_port_is_found() {
    let dir = TempDir::on_disk();
    let data = dir.path().to_str().expect("UTF-8");
    let node = Node::with(Home::Embedded, &["--tcp", "127.0.0.1:0", "--tcp", "u16be@127.0.0.1:0"]);
    let lines = node.tcp_in(Framing::Lines).to_string();
    let u16be = format!("u16be@{}", node.tcp_in(Framing::U16be));
    for (given, speaks, instead) in [
        (format!("u16be@{lines}"), "speaks lines", &lines),
        (format!("u32be@{lines}"), "speaks lines", &lines),
        (u16be.replace("u16be@", ""), "speaks u16be", &u16be),
        (u16be.replace("u16", "u32"), "speaks u16be", &u16be),
    ] {
        let found = doctor(&["--data-dir", data, "--http", "127.0.0.1:0", "--tcp", &given]);
        found.expect("TCP port", "FAIL", speaks).expect("TCP port", "FAIL", &format!("--tcp {instead},"));
        found.expect_unfit("TCP port");
    }
}

#[test]
fn wrong_usage_is_exit_status_2() {
    for flags in [
        &["--nonsense"][..],
        &["--expect-clients", "-1"],
        &["--expect-size", "0"],
        &["--http", "0.0.0.0:8080"],
        &["--redis", "redis://x", "--data-dir", "d"],
        &["--wait-replicas", "1"],
    ] {
        let exit = Program::run(&[&["doctor"], flags].concat());
        assert_eq!(exit.code, Some(2), "{flags:?}: {}", exit.stderr);
        assert_eq!((exit.error_lines().len(), exit.stdout.as_str()), (1, ""), "{flags:?}: {}", exit.stderr);
    }
}
