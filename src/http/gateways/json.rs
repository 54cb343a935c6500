//! JSON objects whose values stay as they were written, so that no number is rounded. Values only.

use super::fields::{Unclear, only};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::fmt;

/// An object: its fields in the order they came, those that are there twice as well.
pub(super) struct Object<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Object<'a> {
    /// Reads a text that is one object and nothing else.
    pub(super) fn read(body: &'a [u8]) -> Result<Object<'a>, Unclear> {
        serde_json::from_slice(body).map_err(|_| Unclear)
    }

    /// The value of a plain field: of a string the text, of anything else what was written; null is none. A field
    /// within another is named `outer.inner`.
    pub(super) fn get(&self, name: &str) -> Result<Option<Vec<u8>>, Unclear> {
        let (own, inner) = name.split_once('.').map_or((name, None), |(own, inner)| (own, Some(inner)));
        match (only(self.0.iter().filter(|(is, _)| is == own))?, inner) {
            (None, _) => Ok(None),
            (Some((_, value)), _) if value.get() == "null" => Ok(None),
            (Some((_, value)), None) => plain(value).map(Some),
            (Some((_, value)), Some(inner)) => within(value)?.get(inner),
        }
    }
}

fn plain(value: &RawValue) -> Result<Vec<u8>, Unclear> {
    match value.get().as_bytes() {
        [b'{' | b'[', ..] => Err(Unclear),
        [b'"', ..] => serde_json::from_str(value.get()).map(String::into_bytes).map_err(|_| Unclear),
        written => Ok(written.to_vec()),
    }
}

/// An object, or the only one of a list.
fn within(value: &RawValue) -> Result<Object<'_>, Unclear> {
    if !value.get().starts_with('[') {
        return Object::read(value.get().as_bytes());
    }
    let list: Vec<&RawValue> = serde_json::from_str(value.get()).map_err(|_| Unclear)?;
    match list[..] {
        [one] => Object::read(one.get().as_bytes()),
        _ => Err(Unclear),
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Object(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(text: &str, name: &str) -> Result<Option<String>, Unclear> {
        let value = Object::read(text.as_bytes())?.get(name)?;
        Ok(value.map(|bytes| String::from_utf8(bytes).expect("it is text")))
    }

    fn some(text: &str) -> Result<Option<String>, Unclear> {
        Ok(Some(text.to_owned()))
    }

    #[test]
    fn plain_values_are_found() {
        for (text, expected) in [
            (r#"{"a":"x\u0041\"","b":1}"#, some("xA\"")),
            (r#" { "a" : 123456789012345678901234567890 } "#, some("123456789012345678901234567890")),
            (r#"{"a":1.0}"#, some("1.0")),
            (r#"{"a":true}"#, some("true")),
            (r#"{"a":""}"#, some("")),
            (r#"{"a":null}"#, Ok(None)),
            (r#"{"b":{"a":1}}"#, Ok(None)),
            (r#"{"a":1,"a":1}"#, Err(Unclear)),
            (r#"{"a":1,"\u0061":1}"#, Err(Unclear)),
            (r#"{"a":[1]}"#, Err(Unclear)),
            (r#"{"a":{}}"#, Err(Unclear)),
            (r#"{"a":"\ud800"}"#, Err(Unclear)),
            (r#"{"a":1}{"#, Err(Unclear)),
            (r#"["a"]"#, Err(Unclear)),
            ("", Err(Unclear)),
            ("\u{feff}{\"a\":1}", Err(Unclear)),
        ] {
            assert_eq!(get(text, "a"), expected, "{text}");
        }
        assert!(Object::read(b"{\"a\":\"\xff\"}").is_err());
        assert!(Object::read("{\"a\":".repeat(100_000).as_bytes()).is_err());
    }

    #[test]
    fn values_within_others_are_found() {
        for (text, expected) in [
            (r#"{"a":{"b":"x"}}"#, some("x")),
            (r#"{"a":[{"b":"x"}]}"#, some("x")),
            (r#"{"a":{"b":null}}"#, Ok(None)),
            (r#"{"a":{}}"#, Ok(None)),
            (r#"{"a":null}"#, Ok(None)),
            (r#"{"b":"x"}"#, Ok(None)),
            (r#"{"a":[]}"#, Err(Unclear)),
            (r#"{"a":[{"b":"x"},{"b":"y"}]}"#, Err(Unclear)),
            (r#"{"a":[[{"b":"x"}]]}"#, Err(Unclear)),
            (r#"{"a":"x"}"#, Err(Unclear)),
            (r#"{"a":{"b":"x","b":"x"}}"#, Err(Unclear)),
        ] {
            assert_eq!(get(text, "a.b"), expected, "{text}");
        }
    }
}
