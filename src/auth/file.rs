//! The files that keys and secrets come from: what is read, and why one is refused.

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{MAX_FILE_BYTES, MAX_SECRET_BYTES, MIN_SECRET_CHARS};

/// Why a file of keys or secrets cannot be used: one line, which shows none of them.
#[derive(Debug)]
pub struct LoadError {
    message: String,
    source: Option<io::Error>,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for LoadError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|error| error as _)
    }
}

/// A line that is not what the file should hold.
#[derive(Debug)]
pub(super) struct WrongLine {
    pub(super) number: usize,
    pub(super) what: &'static str,
}

impl WrongLine {
    pub(super) fn none_at_all() -> Self {
        WrongLine { number: 1, what: "the file holds no line to use; put one in with `openssl rand -hex 32`" }
    }

    pub(super) fn within(self, file: &Path) -> LoadError {
        LoadError { message: format!("{}, line {}: {}", file.display(), self.number, self.what), source: None }
    }
}

/// The lines that count, each with its number.
pub(super) fn secret_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = text.lines().enumerate();
    numbered
        .map(|(index, line)| (index + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

pub(super) fn check_length(secret: &str, number: usize) -> Result<(), WrongLine> {
    let what = if secret.chars().count() < MIN_SECRET_CHARS {
        "shorter than 16 characters; make a longer one with `openssl rand -hex 32`"
    } else if secret.len() > MAX_SECRET_BYTES {
        "longer than 512 bytes; make a shorter one with `openssl rand -hex 32`"
    } else {
        return Ok(());
    };
    Err(WrongLine { number, what })
}

/// The whole of a file with secrets; warns where others may read it.
pub(super) fn read_file(path: &Path, what: &str) -> Result<String, LoadError> {
    let failed = |mend: &str, source: io::Error| LoadError {
        message: format!("cannot read the {what} in {}: {mend}", path.display()),
        source: Some(source),
    };
    let unreadable = |error: io::Error| {
        let mend = format!("{}; check the path and the file's owner", plainly(&error));
        failed(&mend, error)
    };
    let file = File::open(path).map_err(unreadable)?;
    let about = file.metadata().map_err(unreadable)?;
    let mode = about.permissions().mode() & 0o7777;
    // A pipe (`<(pass payrelay)`) has a mode too, but nobody else can open it.
    if about.is_file() && mode & 0o077 != 0 {
        let file = path.display();
        log::warn!("{file}: others may read the {what} (mode {mode:04o}); run `chmod 600 {file}`");
    }
    let mut text = String::new();
    let read = file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text);
    match read {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(failed("not a text file (UTF-8); give one with a line each", error))
        }
        Err(error) => Err(unreadable(error)),
        Ok(count) if count as u64 > MAX_FILE_BYTES => {
            let error = io::Error::from(io::ErrorKind::FileTooLarge);
            Err(failed("larger than 1 MiB; give a file with a line each", error))
        }
        Ok(_) => Ok(text),
    }
}

/// What went wrong, without Rust's "(os error 2)".
fn plainly(error: &io::Error) -> String {
    let text = error.to_string();
    let end = text.find(" (os error").unwrap_or(text.len());
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::path::Path;

    use crate::auth::{ApiKeys, ClientSecrets};

    #[test]
    fn a_bad_line_is_named_and_never_shown() {
        for (text, says) in [
            ("", "line 1"),
            ("# only a comment\n", "no line to use"),
            ("0123456789abcdef\nhunter2\n", "line 2: shorter than 16"),
            ("hunter2-0123456789 send,read", "send, read and admin"),
            ("hunter2-0123456789 # me", "line 1: behind the API key"),
            ("hunter2-0123456789 Send", "leave only these"),
            ("0123456789abcdef hunter2-0123456789", "leave only these"),
            ("hunter2-0123456789 read\n\nhunter2-0123456789", "line 3: this key stands on an earlier line"),
            ("hunter2-0123456789-ü", "visible ASCII"),
            ("\u{feff}hunter2-0123456789", "visible ASCII"),
            (&"hunter2".repeat(100), "longer than 512"),
        ] {
            let wrong = ApiKeys::read(text).expect_err("a bad line");
            let error = wrong.within(Path::new("/etc/keys")).to_string();
            assert!(error.contains(says), "{error}");
            assert!(error.contains("/etc/keys"), "{error}");
            assert!(!error.contains("hunter2") && !error.contains('\n'));
        }
        assert!(ClientSecrets::read("hunter2").is_err());
        assert!(ClientSecrets::read("0123456789\u{7}abcdef").is_err());
        assert!(ClientSecrets::read("#\n").is_err());
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let error = ApiKeys::load(Path::new("/no/such/file")).expect_err("no such file");
        let line = error.to_string();
        assert!(line.contains("/no/such/file") && line.contains("check the path"));
        assert!(error.source().is_some());
        assert!(ClientSecrets::load(Path::new("/")).is_err());
    }
}
