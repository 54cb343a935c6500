//! XML of one level, `<xml><name>text</name>…</xml>`, which is all that WeChat's older interface sends.
//!
//! Not an XML parser: names, text and CDATA. Attributes, comments, entities, a DOCTYPE or a deeper level make a body
//! unclear, and with that they can do no harm. Values only.

use super::fields::{Pairs, Unclear};

const CDATA: &[u8] = b"<![CDATA[";

/// The elements below the root, and the text of each without white space at its ends.
pub(super) fn read(body: &[u8]) -> Result<Pairs, Unclear> {
    let mut text = Text(body);
    text.skip(b"\xef\xbb\xbf");
    text.skip_space();
    if text.skip(b"<?xml") {
        text.until(b"?>")?;
    }
    text.skip_space();
    let Tag::Opens(root) = text.tag()? else { return Err(Unclear) };
    let mut pairs = Pairs::new();
    loop {
        text.skip_space();
        match text.tag()? {
            Tag::Opens(name) => pairs.push((name.to_vec(), text.element(name)?)),
            Tag::IsEmpty(name) => pairs.push((name.to_vec(), Vec::new())),
            Tag::Closes(name) if name == root => break,
            Tag::Closes(_) => return Err(Unclear),
        }
    }
    text.skip_space();
    if text.0.is_empty() { Ok(pairs) } else { Err(Unclear) }
}

enum Tag<'a> {
    Opens(&'a [u8]),
    IsEmpty(&'a [u8]),
    Closes(&'a [u8]),
}

/// What is left to be read.
struct Text<'a>(&'a [u8]);

impl<'a> Text<'a> {
    fn skip(&mut self, what: &[u8]) -> bool {
        let rest = self.0.strip_prefix(what);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn skip_space(&mut self) {
        self.0 = self.0.trim_ascii_start();
    }

    /// What stands before `end`; both are taken.
    fn until(&mut self, end: &[u8]) -> Result<&'a [u8], Unclear> {
        let at = self.0.windows(end.len()).position(|window| window == end).ok_or(Unclear)?;
        let before = &self.0[..at];
        self.0 = &self.0[at + end.len()..];
        Ok(before)
    }

    /// A tag without attributes.
    fn tag(&mut self) -> Result<Tag<'a>, Unclear> {
        if !self.skip(b"<") {
            return Err(Unclear);
        }
        let closes = self.skip(b"/");
        let within = self.until(b">")?.trim_ascii_end();
        let (name, is_empty) = match within.strip_suffix(b"/") {
            Some(name) => (name.trim_ascii_end(), true),
            None => (within, false),
        };
        let is_name_byte = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.".contains(byte);
        if name.is_empty() || !name.iter().all(is_name_byte) {
            return Err(Unclear);
        }
        match (closes, is_empty) {
            (false, false) => Ok(Tag::Opens(name)),
            (false, true) => Ok(Tag::IsEmpty(name)),
            (true, false) => Ok(Tag::Closes(name)),
            (true, true) => Err(Unclear),
        }
    }

    /// The text up to the end of the element that was opened.
    fn element(&mut self, name: &[u8]) -> Result<Vec<u8>, Unclear> {
        let mut value = Vec::new();
        loop {
            let plain = self.0.iter().position(|&byte| byte == b'<').ok_or(Unclear)?;
            let (text, rest) = self.0.split_at(plain);
            if text.contains(&b'&') {
                return Err(Unclear);
            }
            value.extend_from_slice(text);
            self.0 = rest;
            if self.skip(CDATA) {
                value.extend_from_slice(self.until(b"]]>")?);
                continue;
            }
            return match self.tag()? {
                Tag::Closes(closed) if closed == name => Ok(value.trim_ascii().to_vec()),
                _ => Err(Unclear),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Option<Vec<(String, String)>> {
        let text_of = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it is text");
        let pairs = read(text.as_bytes()).ok()?;
        Some(pairs.into_iter().map(|(name, value)| (text_of(name), text_of(value))).collect())
    }

    #[test]
    fn one_level_is_read() {
        for (text, expected) in [
            ("<xml></xml>", vec![]),
            ("<xml><a>1</a></xml>", vec![("a", "1")]),
            (
                "\u{feff}<?xml version=\"1.0\"?>\n<xml>\n <a><![CDATA[<b>&]]></a >\r\n<c/>\n</xml>\n",
                vec![("a", "<b>&"), ("c", "")],
            ),
            ("<x><a> 1<![CDATA[2]]>3 <![CDATA[]]></a><a></a></x>", vec![("a", "123"), ("a", "")]),
        ] {
            let expected = expected.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            assert_eq!(pairs(text), Some(expected), "{text}");
        }
        assert_eq!(read(b"<x><a>\xd6\xd0</a></x>"), Ok(vec![(b"a".to_vec(), b"\xd6\xd0".to_vec())]));
    }

    #[test]
    fn what_it_does_not_know_is_unclear() {
        for text in [
            "",
            "a",
            "<xml>",
            "<xml/>",
            "</xml>",
            "<xml><a>1</a>",
            "<xml><a>1</b></xml>",
            "<xml><a>1</xml>",
            "<xml><a>1</a></x>",
            "<xml><a>1</a></xml><xml></xml>",
            "<xml>text<a>1</a></xml>",
            "<xml><a><b>1</b></a></xml>",
            "<xml><a x=\"1\">1</a></xml>",
            "<xml><!-- <a>2</a> --><a>1</a></xml>",
            "<xml><a>1<!-- 2 --></a></xml>",
            "<xml><a>1&amp;2</a></xml>",
            "<xml><a><![CDATA[1]]</a></xml>",
            "<!DOCTYPE x [<!ENTITY e \"1\">]><xml><a>1</a></xml>",
            "<xml><>1</></xml>",
            "<xml></a/></xml>",
        ] {
            assert_eq!(pairs(text), None, "{text}");
        }
    }
}
