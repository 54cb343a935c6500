//! Dead letters on Redis: how a payment becomes one, and what an operator does with it.

use super::RedisInbox;
use super::connection::Pipeline;
use super::reply::{bytes, mark, read_burial, read_letters, senseless, text};
use super::scripts::Script;
use super::sights::Standing;
use crate::doorbell::{Hint, parse_entry};
use crate::inbox::{Accepted, Ask, Error, Letters, Note, Retry, Session, Status};
use crate::payment::{ClientId, Mark, Seq};
use redis::Value;
use std::collections::HashSet;

/// Why a payment is to become a dead letter.
pub(super) enum Burial<'a> {
    /// The session that sent it says so.
    Nack { session: &'a Session, mark: Mark, reason: &'a str },
    /// An operator says so.
    Refuse { reason: &'a str },
    /// It is past its time. The session that owns the inbox has not sent it.
    Unsent { session: &'a Session },
    /// The same, as somebody else finds; a client whose node is known to be dead has no connection.
    Due { dead_owner: &'a str },
}

impl RedisInbox {
    pub(super) fn push_burial(&self, pipeline: &mut Pipeline, client: &ClientId, seq: Seq, why: &Burial) {
        let keys = self.names.client(client);
        let names = ["state", "inbox", "beside", "dead", "letters", "words"].map(|name| keys.key(name));
        let names: Vec<&[u8]> = names.iter().map(String::as_bytes).collect();
        let (how, reason, dead_owner, session) = match why {
            Burial::Nack { session, reason, .. } => ("nack", *reason, "", Some(*session)),
            Burial::Refuse { reason } => ("refuse", *reason, "", None),
            Burial::Unsent { session } => ("expire", "", "", Some(*session)),
            Burial::Due { dead_owner } => ("expire", "", *dead_owner, None),
        };
        let (seq, window) = (seq.to_string(), self.options.dedup_window.as_millis().to_string());
        let mut args = vec![how, &seq, reason, &window, dead_owner];
        let at = if let Burial::Nack { mark, .. } = why { mark.accepted_at } else { 0 };
        let numbers = session.map(|session| [session.number, session.epoch, at].map(|n| n.to_string()));
        args.push(session.map_or("", |session| session.token.as_str()));
        args.extend(numbers.iter().flatten().map(String::as_str));
        let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
        self.scripts.bury.call(pipeline, &names, &args);
    }

    /// Has one payment buried; says what it is then, and whether it was this that made it so.
    pub(super) fn bury(&self, client: &ClientId, seq: Seq, why: &Burial) -> Result<Option<(Status, bool)>, Error> {
        let push = |pipeline: &mut Pipeline, (): &()| self.push_burial(pipeline, client, seq, why);
        let reply = self.call(&self.questions, &[()], push).pop().unwrap_or_else(|| Err(senseless("no reply")))?;
        let buried = read_burial(&reply)?;
        self.tell(client, seq, buried);
        Ok(buried)
    }

    /// Somebody looks at a payment past its time: what it is then. Where Redis takes no writes, it stays what it was.
    pub(super) fn expire(&self, client: &ClientId, seq: Seq, owner: &str) -> Status {
        let dead_owner = match self.lease.standing(owner) {
            _ if owner == "-" => "",
            Standing::Steady => "",
            Standing::Dead => owner,
            // Its node may hold the connection, and have sent it in time without our knowing.
            Standing::Unsure => return Status::Accepted,
        };
        match self.bury(client, seq, &Burial::Due { dead_owner }) {
            Ok(Some((status, _))) => status,
            Ok(None) => Status::Accepted,
            Err(error) => {
                log::debug!("{client}: payment {seq} is past its time, but stays for now: {error}");
                Status::Accepted
            }
        }
    }

    /// Buries what sessions found past its time behind what they had sent. Says whose could not be buried: what lies
    /// behind such a one must not be sent, for its acknowledgement would pass over it.
    pub(super) fn expire_unsent(&self, due: &[(&Ask, Seq)]) -> HashSet<ClientId> {
        let mut unburied = HashSet::new();
        let push = |pipeline: &mut Pipeline, (ask, seq): &(&Ask, Seq)| {
            self.push_burial(pipeline, &ask.client, *seq, &Burial::Unsent { session: &ask.session });
        };
        for due in due.chunks(crate::inbox::MAX_PER_CALL) {
            for ((ask, seq), reply) in due.iter().zip(self.call(&self.readings, due, push)) {
                match reply.and_then(|reply| read_burial(&reply)) {
                    Ok(buried) => {
                        self.tell(&ask.client, *seq, buried);
                        if buried.is_some_and(|(status, _)| status == Status::Accepted) {
                            unburied.insert(ask.client.clone());
                        }
                    }
                    Err(error) => {
                        log::debug!("{}: payment {seq} stays past its time: {error}", ask.client);
                        unburied.insert(ask.client.clone());
                    }
                }
            }
        }
        unburied
    }

    /// What a note may have buried.
    pub(super) fn tell_burial(&self, note: &Note, reply: &Value) {
        if let Note::Refuse { client, mark, .. } = note
            && let Ok(buried) = read_burial(reply)
        {
            self.tell(client, mark.seq, buried);
        }
    }

    fn tell(&self, client: &ClientId, seq: Seq, buried: Option<(Status, bool)>) {
        if let Some((status, true)) = buried {
            (self.hint)(Hint::Died(client.clone(), seq, status));
        }
    }

    fn ask_letters(&self, script: &Script, client: &ClientId, names: &[&str], args: &[&str]) -> Result<Value, Error> {
        let keys = self.names.client(client);
        let names: Vec<String> = names.iter().map(|name| keys.key(name)).collect();
        let names: Vec<&[u8]> = names.iter().map(String::as_bytes).collect();
        let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
        let push = |pipeline: &mut Pipeline, (): &()| script.call(pipeline, &names, &args);
        self.call(&self.questions, &[()], push).pop().unwrap_or_else(|| Err(senseless("no reply")))
    }

    pub(super) fn letters_of(
        &self,
        client: &ClientId,
        after: Seq,
        most: usize,
        bytes: usize,
    ) -> Result<Option<Letters>, Error> {
        let args = [after.to_string(), most.to_string(), bytes.to_string()];
        let args = args.each_ref().map(String::as_str);
        read_letters(&self.ask_letters(&self.scripts.letters, client, &["state", "dead", "letters"], &args)?)
    }

    pub(super) fn put_back(&self, client: &ClientId, seq: Seq) -> Result<Retry, Error> {
        let (seq, window) = (seq.to_string(), self.options.dedup_window.as_millis().to_string());
        let names = ["state", "inbox", "dead", "letters", "words"];
        let reply = self.ask_letters(&self.scripts.retry, client, &names, &[&seq, &window])?;
        self.promise()?;
        let Value::Array(parts) = &reply else { return Err(senseless("no answer to a retry")) };
        let word = |i: usize| parts.get(i).and_then(text).unwrap_or_default();
        match &*word(0) {
            "none" => Ok(Retry::Unknown),
            "kept" => Ok(Retry::Gone(Status::parse(&word(1)).ok_or_else(|| senseless(&word(1)))?)),
            "retried" => {
                self.touched.note(std::iter::once(client));
                let owner = word(3);
                let online = owner != "-" && self.lease.is_alive(&owner);
                let (mark, status) = (mark(&word(1), &word(2))?, Status::Accepted);
                let entry = parts.get(4).and_then(bytes).and_then(parse_entry).ok_or_else(|| senseless("no entry"))?;
                let id = entry.entry.parcel.payment_id().map(str::to_owned);
                Ok(Retry::Accepted(Accepted { mark, duplicate: false, status, online }, id))
            }
            other => Err(senseless(other)),
        }
    }

    /// What was put back is promised once replicas have it, where that is asked for.
    fn promise(&self) -> Result<(), Error> {
        let mut pipeline = Pipeline::default();
        self.replicas.push(&mut pipeline);
        let replies = if pipeline.len() > 0 { self.questions.call(&pipeline) } else { Vec::new() };
        self.replicas.judge(&replies)
    }

    pub(super) fn throw_away(&self, client: &ClientId, seq: Seq) -> Result<Option<Status>, Error> {
        let (seq, window) = (seq.to_string(), self.options.dedup_window.as_millis().to_string());
        let names = ["state", "dead", "letters", "words"];
        let reply = self.ask_letters(&self.scripts.purge, client, &names, &[&seq, &window])?;
        let line = text(&reply).unwrap_or_default();
        match line.split_once(' ') {
            Some(("kept", word)) => Ok(Some(Status::parse(word).ok_or_else(|| senseless(word))?)),
            None if line == "purged" => Ok(Some(Status::Purged)),
            None if line == "none" => Ok(None),
            _ => Err(senseless(&line)),
        }
    }
}
