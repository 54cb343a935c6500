//! Hostile input: cases with their verdicts, mutations of them from a seed, and judges that are no part of the program.
//!
//! Compiled twice, into the crate's unit tests, which drive the decoders without a socket, and into the tests,
//! which drive the real program.
#![allow(dead_code, reason = "whoever compiles it uses a part of it")]

// Tables: a line of them holds what belongs together.
#[rustfmt::skip]
pub(crate) mod framing;
#[rustfmt::skip]
pub(crate) mod json;
pub(crate) mod judge;
pub(crate) mod mutation;
