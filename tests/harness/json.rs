//! JSON as it stands on the wire: fields in their order, values as raw text, nothing decoded that need not be.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

/// The fields of one object, in the order in which they came, their values as raw text.
pub fn fields(text: &str) -> Result<Vec<(String, String)>, serde_json::Error> {
    struct InOrder;
    impl<'de> Visitor<'de> for InOrder {
        type Value = Vec<(String, String)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut fields = Vec::new();
            while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                fields.push((name, value.get().to_owned()));
            }
            Ok(fields)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let found = (&mut reader).deserialize_map(InOrder)?;
    reader.end()?;
    Ok(found)
}

/// The names of an object's fields, in order.
pub fn names(text: &str) -> Vec<String> {
    let found = fields(text).unwrap_or_else(|e| panic!("not a JSON object ({e}): {text}"));
    found.into_iter().map(|(name, _)| name).collect()
}

/// The text without the white space between its tokens: two texts are the same, token for token, if these are equal.
pub fn tokens(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut in_string, mut escaped) = (false, false);
    for c in text.chars() {
        if in_string {
            out.push(c);
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => in_string = false,
                _ => {}
            }
        } else if !matches!(c, ' ' | '\t' | '\r' | '\n') {
            in_string = c == '"';
            out.push(c);
        }
    }
    out
}
