//! One line of what `payrelay doctor` says.

use std::fmt;

/// How good it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grade {
    Ok,
    /// Promises hold, but not as well or not for as much as one may think.
    Warn,
    /// A promise would not hold, or no node would start.
    Fail,
}

/// What was looked at, what was found, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) grade: Grade,
    pub(super) what: &'static str,
    found: String,
}

impl Finding {
    pub(super) fn ok(what: &'static str, found: impl Into<String>) -> Finding {
        Finding { grade: Grade::Ok, what, found: found.into() }
    }

    pub(super) fn warn(what: &'static str, found: impl Into<String>) -> Finding {
        Finding { grade: Grade::Warn, what, found: found.into() }
    }

    pub(super) fn fail(what: &'static str, found: impl Into<String>) -> Finding {
        Finding { grade: Grade::Fail, what, found: found.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let grade = match self.grade {
            Grade::Ok => "ok",
            Grade::Warn => "warn",
            Grade::Fail => "FAIL",
        };
        write!(f, "{grade:<4}  {:<12}  {}", self.what, self.found)
    }
}
