//! The scripts: one for each operation. Each touches one client's keys only, but for accepting and acknowledging, which
//! take many clients at once.

use super::connection::Pipeline;
use crate::inbox::{EXPIRY_GRACE, MAX_INBOX_BYTES};

const STATE: &str = include_str!("state.lua");
const DEAD: &str = include_str!("dead.lua");
const ALONE: &str = include_str!("alone.lua");

/// A script as Redis keeps it.
pub(super) struct Script {
    text: String,
    sha: String,
}

impl Script {
    fn new(shebang: &str, parts: &[&str]) -> Script {
        let text = format!("{shebang}\n{}", parts.concat());
        let sha = redis::Script::new(&text).get_hash().to_owned();
        Script { text, sha }
    }

    /// Appends a call.
    pub(super) fn call(&self, pipeline: &mut Pipeline, keys: &[&[u8]], args: &[&[u8]]) {
        self.begin(pipeline, keys.len(), args.len());
        keys.iter().chain(args).for_each(|word| pipeline.word(&[word]));
    }

    /// Begins a call; so many keys and arguments follow word by word.
    pub(super) fn begin(&self, pipeline: &mut Pipeline, keys: usize, args: usize) {
        pipeline.begin(3 + keys + args);
        let count = keys.to_string();
        [b"EVALSHA", self.sha.as_bytes(), count.as_bytes()].iter().for_each(|word| pipeline.word(&[word]));
    }
}

/// All of them.
pub(super) struct Scripts {
    pub(super) accept: Script,
    pub(super) claim: Script,
    pub(super) acknowledge: Script,
    pub(super) release: Script,
    pub(super) read: Script,
    /// The same, but a rollback that it finds raises the epoch.
    pub(super) read_and_mend: Script,
    pub(super) forget_id: Script,
    pub(super) look_up: Script,
    pub(super) record: Script,
    pub(super) retire: Script,
    pub(super) bury: Script,
    pub(super) sent: Script,
    pub(super) letters: Script,
    pub(super) retry: Script,
    pub(super) purge: Script,
}

impl Scripts {
    /// The scripts of a node that keeps these limits and calls channels so.
    pub(super) fn new(most_payments: u64, channel_prefix: &str) -> Scripts {
        let limits = format!("local most_payments, most_bytes = {most_payments}, {MAX_INBOX_BYTES}\n");
        let channels = format!("local channel_prefix = '{channel_prefix}'\n");
        // Only what takes more memory may be refused for lack of it: else a full Redis would let
        // nobody in, take no acknowledgement, and never drain.
        let draining =
            |body: &str| Script::new("#!lua flags=allow-oom", &["local may_write = true\n", &channels, STATE, body]);
        let grace = format!("local expiry_grace = {}\n", EXPIRY_GRACE.as_millis());
        // These go on where Redis takes no writes at all, for its disk is full.
        let looking = |body: &str| Script::new("#!lua flags=no-writes", &["local may_write = false\n", STATE, body]);
        Scripts {
            accept: Script::new("#!lua", &[&limits, &channels, ALONE, include_str!("accept.lua")]),
            claim: draining(include_str!("claim.lua")),
            acknowledge: draining(&[ALONE, include_str!("acknowledge.lua")].concat()),
            release: draining(include_str!("release.lua")),
            read: looking(include_str!("read.lua")),
            read_and_mend: draining(include_str!("read.lua")),
            look_up: looking(&[DEAD, include_str!("look_up.lua")].concat()),
            record: looking(include_str!("record.lua")),
            forget_id: draining(include_str!("forget_id.lua")),
            retire: draining(include_str!("retire.lua")),
            bury: draining(&[&grace, DEAD, include_str!("bury.lua")].concat()),
            sent: draining(include_str!("sent.lua")),
            letters: looking(include_str!("letters.lua")),
            // It stores a payment, and may be refused for lack of memory like accepting one.
            retry: Script::new(
                "#!lua",
                &[&channels, "local may_write = true\n", STATE, DEAD, include_str!("retry.lua")],
            ),
            purge: draining(&[DEAD, include_str!("purge.lua")].concat()),
        }
    }

    fn all(&self) -> [&Script; 15] {
        [
            &self.accept,
            &self.claim,
            &self.acknowledge,
            &self.release,
            &self.read,
            &self.read_and_mend,
            &self.look_up,
            &self.record,
            &self.forget_id,
            &self.retire,
            &self.bury,
            &self.sent,
            &self.letters,
            &self.retry,
            &self.purge,
        ]
    }

    /// Appends what has Redis keep them all. Returns how many commands that is.
    pub(super) fn load(&self, pipeline: &mut Pipeline) -> usize {
        for script in self.all() {
            pipeline.command(&[b"SCRIPT", b"LOAD", script.text.as_bytes()]);
        }
        self.all().len()
    }
}
