//! How keys and channels are called.

use crate::payment::ClientId;

/// The names that have no client in them; those of a client come from [`Names::client`].
pub(super) struct Names {
    /// What a node's channel begins with, before its name. Channels know no database number.
    pub(super) node_prefix: String,
    pub(super) waiting: String,
    database: i64,
}

impl Names {
    pub(super) fn new(database: i64) -> Names {
        Names { node_prefix: node_channel(database, ""), waiting: format!("payrelay:{database}:waiting"), database }
    }

    pub(super) fn client<'a>(&self, client: &'a ClientId) -> ClientKeys<'a> {
        ClientKeys(client.as_str())
    }

    pub(super) fn lease(&self, node: &str) -> String {
        format!("payrelay:{}:lease:{node}", self.database)
    }

    pub(super) fn nodes(&self) -> String {
        format!("payrelay:{}:nodes", self.database)
    }

    /// What is written only so that replicas have something to confirm.
    pub(super) fn replicated(&self) -> String {
        format!("payrelay:{}:replicated", self.database)
    }
}

/// The pub/sub channel of one node.
pub(crate) fn node_channel(database: i64, node: &str) -> String {
    format!("payrelay:{database}:node:{node}")
}

/// The pub/sub channel of all nodes.
pub(crate) fn all_channel(database: i64) -> String {
    format!("payrelay:{database}:all")
}

/// The keys of one client: its id is their hash tag, so that they share a cluster slot.
pub(super) struct ClientKeys<'a>(&'a str);

impl ClientKeys<'_> {
    pub(super) fn key(&self, name: &str) -> String {
        self.parts(name).concat()
    }

    pub(super) fn id(&self, payment_id: &str) -> String {
        self.id_parts(payment_id).concat()
    }

    /// What the name of a key is made of, for who has nowhere to put it together.
    pub(super) fn parts<'a>(&'a self, name: &'a str) -> [&'a str; 4] {
        ["payrelay:{", self.0, "}:", name]
    }

    pub(super) fn id_parts<'a>(&'a self, payment_id: &'a str) -> [&'a str; 4] {
        ["payrelay:{", self.0, "}:id:", payment_id]
    }
}
