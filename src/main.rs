//! Command line in, exit status out.

use std::process::ExitCode;

use payrelay::args::{self, Command};
use payrelay::commands::{self, Failure, bench, doctor, listen, notify_url, send, status, token};
use payrelay::logging;
use payrelay::node::{self, StartError};

fn main() -> ExitCode {
    let command = args::parse();
    logging::start();
    let outcome = match command {
        Command::Serve(args) => node::serve(args).map_err(|error| match error {
            StartError::Configuration(line) => Failure::Usage(line),
            StartError::Failed(line) => Failure::Runtime(line),
        }),
        Command::Listen(args) => listen::run(&args),
        Command::Send(args) => send::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Token(args) => token::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::NotifyUrl(args) => notify_url::run(&args),
        Command::Bench(args) => bench::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            commands::say(&format!("payrelay: {failure}"));
            failure.exit_code()
        }
    }
}
