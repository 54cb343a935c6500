//! The kinds of faults: their numbers, and what each is in words.

use serde::{Deserialize, Serialize};

/// One kind of fault. The numbers are those of the failure catalogue.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Kind {
    /// kill -9 of a node.
    F1,
    /// A node frozen, and back.
    F2,
    /// A node stopped in order.
    F3,
    /// Every node and Redis killed at once.
    F5,
    /// A node without a free descriptor.
    F6,
    /// A node that gets no new thread.
    F7,
    /// accept(2) fails in other ways.
    F12,
    /// kill -9 of Redis.
    F20,
    /// Redis frozen.
    F22,
    /// Redis slow.
    F23,
    /// A Redis connection cut in the middle of a reply.
    F24,
    /// A Redis connection half open.
    F25,
    /// Pub/sub silently dead, or its connections killed.
    F26,
    /// Redis drops a subscriber whose buffer is full.
    F27,
    /// Doorbells forged, doubled, late, out of order.
    F28,
    /// Redis loading.
    F29,
    /// Redis busy with a script.
    F30,
    /// Redis out of memory.
    F31,
    /// Redis a replica that takes no writes.
    F33,
    /// Redis forgets the scripts.
    F36,
    /// Redis out of connections.
    F37,
    /// A failover that loses writes.
    F38,
    /// A client that vanishes without a word.
    F50,
    /// A client that stops reading.
    F51,
    /// A client that never acknowledges.
    F52,
    /// A client's connection cut at any byte.
    F53,
    /// Two programs of one client id.
    F54,
    /// Acknowledgements that make no sense.
    F55,
    /// All clients of a node reconnect at once.
    F56,
    /// Connections that say hello slowly, or never.
    F57,
    /// Garbage where a hello should be.
    F58,
    /// A sender's connection cut before, during, after the request.
    F70,
    /// One payment id posted to two nodes at once.
    F71,
    /// A payment repeated while its first post is still under way.
    F72,
    /// Many senders that wait for acknowledgements.
    F75,
    /// Requests that are huge, tiny, slow, endless.
    F76,
}

impl Kind {
    /// Every kind there is, with what it is in a few words.
    pub const ALL: [(Kind, &str); 36] = [
        (Kind::F1, "node killed"),
        (Kind::F2, "node frozen"),
        (Kind::F3, "node stopped in order"),
        (Kind::F5, "everything killed"),
        (Kind::F6, "descriptors run out"),
        (Kind::F7, "no new thread"),
        (Kind::F12, "accept fails"),
        (Kind::F20, "Redis killed"),
        (Kind::F22, "Redis frozen"),
        (Kind::F23, "Redis slow"),
        (Kind::F24, "reply of Redis cut"),
        (Kind::F25, "Redis half open"),
        (Kind::F26, "pub/sub dead"),
        (Kind::F27, "pub/sub buffer full"),
        (Kind::F28, "doorbells forged"),
        (Kind::F29, "Redis loading"),
        (Kind::F30, "Redis busy"),
        (Kind::F31, "Redis out of memory"),
        (Kind::F33, "Redis read-only"),
        (Kind::F36, "scripts forgotten"),
        (Kind::F37, "Redis out of connections"),
        (Kind::F38, "failover with loss"),
        (Kind::F50, "client vanishes"),
        (Kind::F51, "client stops reading"),
        (Kind::F52, "client never acknowledges"),
        (Kind::F53, "client cut at any byte"),
        (Kind::F54, "two programs of one id"),
        (Kind::F55, "senseless acks"),
        (Kind::F56, "reconnect storm"),
        (Kind::F57, "slow or no hello"),
        (Kind::F58, "garbage lines"),
        (Kind::F70, "sender cut"),
        (Kind::F71, "same id at two nodes"),
        (Kind::F72, "repeat while under way"),
        (Kind::F75, "many waiting senders"),
        (Kind::F76, "huge, slow, endless bodies"),
    ];

    /// In a few words.
    pub fn words(self) -> &'static str {
        let found = Kind::ALL.iter().find(|(kind, _)| *kind == self);
        found.expect("every kind is in the list").1
    }

    /// Its number in the catalogue, `F20`.
    pub fn code(self) -> String {
        format!("{self:?}")
    }

    /// The kind of a number such as `F20`.
    pub fn parse(code: &str) -> Option<Kind> {
        Kind::ALL.iter().map(|(kind, _)| *kind).find(|kind| kind.code() == code)
    }

    /// Done by a sender or a receiver of its own accord, all the time, and not by the nemesis at a planned time.
    pub fn is_behaviour(self) -> bool {
        use Kind::{F50, F51, F52, F53, F54, F55, F70, F71, F72};
        matches!(self, F50 | F51 | F52 | F53 | F54 | F55 | F70 | F71 | F72)
    }
}
