//! `--wait-replicas`: a payment's 2xx waits until so many replicas have it.
//!
//! Said behind each pipeline of a commit, on its connection. `WAIT` answers for what its own
//! connection wrote last: one that wrote nothing, as where a pipeline found only repeats, is told
//! at once that all replicas have it. So a small write goes before it, and a repeat of a payment
//! that no replica had when it was first answered waits again.

use super::connection::Pipeline;
use crate::inbox::{Error, Stored};
use redis::Value;

/// How long Redis may wait. Well within the limit of the whole call.
const MOST_MS: &[u8] = b"500";
/// The end of the reason where it waited in vain.
const TOO_FEW: &str = "replicas have it yet";

/// How many must have it. With 0 nothing is said and nothing waited for.
pub(super) struct Replicas {
    wanted: usize,
    /// What the small write goes to.
    key: String,
}

impl Replicas {
    pub(super) fn new(wanted: usize, key: String) -> Replicas {
        Replicas { wanted, key }
    }

    /// Appends what has Redis wait.
    pub(super) fn push(&self, pipeline: &mut Pipeline) {
        if self.wanted == 0 {
            return;
        }
        // As a script, for a full Redis refuses a plain SET, and a repeat is answered there too.
        let mark = b"#!lua flags=allow-oom\nredis.call('SET', KEYS[1], '1')";
        pipeline.command(&[b"EVAL", mark, b"1", self.key.as_bytes()]);
        pipeline.command(&[b"WAIT", self.wanted.to_string().as_bytes(), MOST_MS]);
    }

    /// Whether enough replicas have everything of these pipelines.
    pub(super) fn judge(&self, replies: &[Result<Value, Error>]) -> Result<(), Error> {
        let unknown = |why| Err(Error::Unavailable { stored: Stored::Unknown, why });
        for said in replies.chunks(2) {
            match said {
                [Ok(_), Ok(Value::Int(have))] if usize::try_from(*have).is_ok_and(|have| have >= self.wanted) => {}
                [Ok(_), Ok(Value::Int(have))] => return unknown(format!("{have} of {} {TOO_FEW}", self.wanted)),
                // The small write was refused, or the connection broke: nobody knows who has it.
                [Err(Error::Unavailable { why, .. }), _] | [_, Err(Error::Unavailable { why, .. })] => {
                    return unknown(why.clone());
                }
                _ => return unknown("Redis did not say who has it".into()),
            }
        }
        Ok(())
    }
}

/// Whether this is the trouble of a primary that answers, but has too few replicas.
pub(super) fn is_too_few(trouble: &str) -> bool {
    trouble.ends_with(TOO_FEW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pipeline_must_have_enough() {
        let replicas = Replicas::new(2, "k".into());
        let said = |have| [Ok(Value::Nil), Ok(Value::Int(have))];
        let refused = [Err(Error::away("NOREPLICAS")), Ok(Value::Int(2))];
        let cut = [Ok(Value::Nil), Err(Error::away("no answer in time"))];
        assert_eq!(replicas.judge(&said(2)), Ok(()));
        assert_eq!(replicas.judge(&[said(2), said(3)].concat()), Ok(()));
        for replies in [said(1).to_vec(), [said(1), said(2)].concat(), refused.to_vec(), cut.to_vec()] {
            let why = replicas.judge(&replies);
            assert!(matches!(why, Err(Error::Unavailable { stored: Stored::Unknown, .. })), "{replies:?}: {why:?}");
        }
        assert!(replicas.judge(&said(0)).is_err_and(|error| is_too_few(&error.to_string())));
    }

    #[test]
    fn nobody_waits_for_none() {
        let mut pipeline = Pipeline::default();
        let replicas = Replicas::new(0, "k".into());
        replicas.push(&mut pipeline);
        assert_eq!((pipeline.len(), replicas.judge(&[])), (0, Ok(())));
    }
}
