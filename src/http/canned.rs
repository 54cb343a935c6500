//! Answers that are always the same, byte for byte: what payment gateways expect.
//!
//! Values only; used on every thread that answers.

use super::{Response, whole};

/// An answer that is known beforehand.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Canned {
    pub(crate) status: u16,
    /// None where there is no body either.
    pub(crate) content_type: Option<&'static str>,
    pub(crate) body: &'static str,
}

impl Canned {
    /// The answer itself, with nothing around it.
    pub(crate) fn response(&self) -> Response {
        whole(self.status, self.content_type, self.body.into())
    }
}
