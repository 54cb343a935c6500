//! The reading of the command line and the environment: a command to run, or one line that says what is wrong.
//!
//! Which flags there are is told by their commands' args, what clap's reports become by `report`. Runs on the main
//! thread, before there is any other.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::process;

use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser};

use super::report::one_line;
use super::{Command, UsageError};

/// Reads the command line and the environment; does not return where they are wrong.
///
/// Wrong usage is one line on standard error and exit status 2. `--help` and `--version` go to
/// standard output, exit status 0.
pub fn parse() -> Command {
    match parse_from(std::env::args_os().collect()) {
        Ok(command) => command,
        Err(Unusable::Shown(text)) => {
            // A reader that went away (`payrelay --help | head -1`) is no error.
            let _ = std::io::stdout().write_all(text.as_bytes());
            process::exit(0)
        }
        Err(Unusable::Wrong(error)) => {
            let _ = writeln!(std::io::stderr(), "payrelay: {error}");
            process::exit(2)
        }
    }
}

#[derive(Parser)]
#[command(
    name = "payrelay",
    version,
    about,
    after_help = "Every flag of `serve` also has an environment variable; the flag wins."
)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

/// Why there is no command to run.
#[derive(Debug)]
pub(super) enum Unusable {
    /// Help or the version was asked for.
    Shown(String),
    Wrong(UsageError),
}

fn parse_from(argv: Vec<OsString>) -> Result<Command, Unusable> {
    let shape = without_empty_variables(CommandLine::command());
    let help = help_for(&shape, &argv);
    let refuse = |error: clap::Error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Unusable::Shown(error.render().to_string()),
        _ => Unusable::Wrong(one_line(&error, &help)),
    };
    let matches = shape.try_get_matches_from(argv).map_err(&refuse)?;
    let command = CommandLine::from_arg_matches(&matches).map_err(&refuse)?.command;
    match &command {
        Command::Serve(args) => args.check().map_err(Unusable::Wrong)?,
        Command::Doctor(args) => args.serve.check().map_err(Unusable::Wrong)?,
        Command::Bench(args) => args.check().map_err(Unusable::Wrong)?,
        _ => {}
    }
    Ok(command)
}

/// An empty environment variable counts as not set: unit files and compose files make such.
fn without_empty_variables(shape: clap::Command) -> clap::Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    shape.mut_subcommands(|command| {
        command.mut_args(|arg| match arg.get_env() {
            Some(name) if is_empty(name) => arg.env(Resettable::Reset),
            _ => arg,
        })
    })
}

/// The command that explains the one which was tried.
fn help_for(shape: &clap::Command, argv: &[OsString]) -> String {
    let tried = argv.get(1).and_then(|word| word.to_str());
    match tried.and_then(|word| shape.find_subcommand(word)) {
        Some(command) => format!("`payrelay {} --help`", command.get_name()),
        None => "`payrelay --help`".to_owned(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::args) fn parsed(line: &str) -> Result<Command, Unusable> {
        let words = std::iter::once("payrelay").chain(line.split_whitespace());
        parse_from(words.map(OsString::from).collect())
    }

    pub(in crate::args) fn refused(line: &str) -> String {
        match parsed(line) {
            Err(Unusable::Wrong(error)) => {
                let line = error.to_string();
                assert!(!line.contains('\n'), "more than one line: {line}");
                line
            }
            other => panic!("`{line}` gave {other:?}"),
        }
    }

    #[test]
    fn wrong_usage_is_one_line_that_says_how_to_mend_it() {
        for (line, says) in [
            ("", "payrelay serve"),
            ("", "--help"),
            ("serf", "did you mean `serve`"),
            ("serve --heartbeta 3", "did you mean `--heartbeat`"),
            ("serve --nonsense", "payrelay serve --help"),
            ("serve --heartbeat 0", "from 1 to 3600"),
            ("serve --window 65537", "from 1 to 65536"),
            ("serve --max-clients 0", "of 1 or more"),
            ("serve --body-limit 16777217", "from 1 to 16777216"),
            ("serve --dedup-window x", "from 1 to 31536000"),
            ("serve --http localhost:8080", "127.0.0.1:8080"),
            ("serve --http 127.0.0.1:1 --http 127.0.0.1:2", "once"),
            ("serve --http-server nginx", "strict, tiny_http"),
            ("serve --http-server", "needs a value"),
            ("serve --require-durability never", "always, everysec, any"),
            ("serve --node a/b", "A-Z a-z 0-9"),
            ("serve --wait-replicas 65 --redis redis://h", "from 0 to 64"),
            ("serve --wait-replicas 1", "--redis"),
            ("doctor --wait-replicas 1", "--redis"),
            ("doctor --heartbeat 0", "from 1 to 3600"),
            ("doctor --expect-size 0", "from 1 to 16777216"),
            ("serve --expect-clients 1", "unexpected argument"),
            ("serve --redis http://x", "redis://"),
            ("serve --redis redis://h --data-dir d", "give one of them"),
            ("serve --insecure=maybe", "--insecure"),
            ("send 5", "--client <ID> is missing"),
            ("send --client 01 5 --wait 31", "from 1 to 30"),
            ("listen --client a/b", "`a/b` is not a client id: 1 to 128"),
            ("listen --client 01 --server 7070", "HOST:PORT"),
            ("token 01", "--client-secret-file <FILE> is missing"),
            ("serve --gateways paypal --client-secret-file s", "`paypal` is no gateway; give some of wechat-v2, "),
            ("serve --gateways alipay,, --client-secret-file s", "`` is no gateway"),
            ("serve --gateways stripe", "--client-secret-file"),
            ("serve --gateways stripe --insecure", "--client-secret-file"),
            ("serve --gateway-answer later", "stored, acknowledged"),
            ("notify-url paypal 01 --client-secret-file s", "`paypal` is no gateway"),
            ("notify-url stripe a/b --client-secret-file s", "`a/b` is not a client id"),
            ("notify-url stripe 01", "--client-secret-file <FILE> is missing"),
            ("bench --tcp 127.0.0.1", "HOST:PORT"),
            ("bench --clients 0", "from 1 to 100000"),
            ("bench --senders 1025", "from 1 to 1024"),
            ("bench --seconds 3601", "from 1 to 3600"),
            ("bench --rate 1000001", "from 0 to 1000000"),
            ("bench --batch 10001", "from 1 to 10000"),
            ("bench --batch 128 --size 100000", "at most --batch 83"),
            ("bench --pipeline 0", "from 1 to 1024"),
            ("bench --size 63", "from 64 to 1048576"),
            ("bench --prefix a/b", "`a/b` cannot begin a client id"),
        ] {
            let error = refused(line);
            assert!(error.contains(says), "`{line}`: {error}");
        }
    }

    #[test]
    fn help_and_version_are_no_errors() {
        for line in ["--help", "help", "serve --help", "--version"] {
            assert!(matches!(parsed(line), Err(Unusable::Shown(_))), "{line}");
        }
    }

    #[test]
    fn a_negative_number_and_a_dash_are_messages() {
        for message in ["-5", "-"] {
            match parsed(&format!("send --client 01 {message}")) {
                Ok(Command::Send(args)) => assert_eq!(args.message, message),
                other => panic!("{message} gave {other:?}"),
            }
        }
    }

    #[test]
    fn an_error_never_shows_a_password() {
        for line in [
            "serve --redis http://joe:hunter2@r",
            "serve --redis redis://joe:hunter2@r/x",
            "serve --redis redis://joe:hun/hunter2@r",
            "serve --redis rediss://joe:hunter2@r#insecure",
            "serve --redis hunter2",
            "serve redis://joe:hunter2@r",
            "redis://joe:hunter2@r",
            "serve --redis redis://joe:hunter2@r --data-dir d",
        ] {
            let error = refused(line);
            assert!(!error.contains("hunter2"), "`{line}`: {error}");
        }
        let args = parsed("send --client 01 5 --api-key hunter2");
        assert!(!format!("{args:?}").contains("hunter2"));
    }
}
