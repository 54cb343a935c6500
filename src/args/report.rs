//! Wrong usage told in one line: clap's reports shortened, a user's words made fit to be shown.

use std::error::Error;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::UsageError;

/// clap's report of several lines as one, and without values that may hold a password.
pub(super) fn one_line(error: &clap::Error, help: &str) -> UsageError {
    let context = |kind| error.get(kind).map(listed).unwrap_or_default();
    let (arg, value) = (context(ContextKind::InvalidArg), context(ContextKind::InvalidValue));
    let meant = |kind| match context(kind) {
        suggestion if suggestion.is_empty() => String::new(),
        suggestion => format!("did you mean `{suggestion}`? "),
    };
    let line = match error.kind() {
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            format!("no command given; `payrelay serve` runs a node, {help} shows the rest")
        }
        ErrorKind::InvalidSubcommand => format!(
            "there is no command `{}`; {}see {help}",
            shown(&context(ContextKind::InvalidSubcommand)),
            meant(ContextKind::SuggestedSubcommand)
        ),
        ErrorKind::UnknownArgument => {
            format!("unexpected argument `{}`; {}see {help}", shown(&arg), meant(ContextKind::SuggestedArg))
        }
        ErrorKind::MissingRequiredArgument => format!("{arg} is missing; see {help}"),
        ErrorKind::ArgumentConflict => match context(ContextKind::PriorArg) {
            prior if prior == arg => format!("{arg} is given more than once; give it once"),
            prior => format!("{arg} and {prior} exclude each other; give one of them"),
        },
        ErrorKind::InvalidValue if value.is_empty() => {
            format!("{arg} needs a value; see {help}")
        }
        ErrorKind::InvalidValue => {
            format!("{arg}: `{}` is none of {}; give one of these", shown(&value), context(ContextKind::ValidValue))
        }
        ErrorKind::ValueValidation => match error.source() {
            Some(source) => format!("{arg}: {source}"),
            None => format!("{arg}: a value that cannot be read; see {help}"),
        },
        _ => format!("{}; see {help}", first_line(&error.render().to_string())),
    };
    UsageError::new(line)
}

fn listed(value: &ContextValue) -> String {
    match value {
        ContextValue::Strings(all) => all.join(", "),
        other => other.to_string(),
    }
}

fn first_line(report: &str) -> String {
    let line = report.lines().next().unwrap_or_default();
    shown(line.strip_prefix("error: ").unwrap_or(line))
}

/// A user's text within a message: of one line, short, and without a URL's password.
pub(super) fn shown(text: &str) -> String {
    let end = match text.find("://") {
        Some(at) if text.contains('@') => at + "://".len(),
        _ => text.len(),
    };
    let short: String = text[..end].chars().take(80).collect();
    let cut = if short.len() < text.len() { "…" } else { "" };
    // Not `escape_debug`, which would escape quotes too.
    let one_line: String = short.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("{one_line}{cut}")
}
