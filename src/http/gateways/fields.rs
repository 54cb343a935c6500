//! A notification's body as fields, as far as an id needs them: forms, flat XML and JSON.
//!
//! Bytes and not text, for some gateways write GBK. Nothing here guesses: a body, or a field, that two readers could
//! understand differently is [`Unclear`], and whoever asks takes the whole body's hash instead. Values only.

use super::profile::Format;
use super::{form, json, xml};

/// What was asked for cannot be told: the body is not written as it should be, or the field is there twice or is no
/// plain value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unclear;

/// Names and values, in the order they came.
pub(super) type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// A body that was read.
pub(super) enum Fields<'a> {
    Flat(Pairs),
    Nested(json::Object<'a>),
}

impl<'a> Fields<'a> {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// It is not written in this format.
    pub(super) fn read(format: Format, body: &'a [u8]) -> Result<Fields<'a>, Unclear> {
        match format {
            Format::Form => Ok(Fields::Flat(form::read(body))),
            Format::Xml => xml::read(body).map(Fields::Flat),
            Format::Json => json::Object::read(body).map(Fields::Nested),
            Format::Any => Ok(Fields::Flat(Pairs::new())),
        }
    }

    /// The value of a field; none if it is missing, or empty.
    ///
    /// # Errors
    ///
    /// It is there twice, or no plain value.
    pub(super) fn get(&self, name: &str) -> Result<Option<Vec<u8>>, Unclear> {
        let value = match self {
            Fields::Flat(pairs) => {
                only(pairs.iter().filter(|(is, _)| is == name.as_bytes()))?.map(|(_, value)| value.clone())
            }
            Fields::Nested(object) => object.get(name)?,
        };
        Ok(value.filter(|value| !value.is_empty()))
    }
}

/// The one there is, or none; two are unclear.
pub(super) fn only<T>(mut found: impl Iterator<Item = T>) -> Result<Option<T>, Unclear> {
    match (found.next(), found.next()) {
        (_, Some(_)) => Err(Unclear),
        (one, None) => Ok(one),
    }
}
