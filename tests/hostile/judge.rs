//! What JSON and HTTP say of a text, judged by rules written down here once more: no code of the program, and no crate
//! that it uses, has a part in it.

/// What a JSON text is, as far as a `msg` is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Json {
    Valid,
    /// More than 64 levels.
    TooDeep,
    /// A number of more than 256 characters.
    LongNumber,
    No,
}

const MOST_LEVELS: usize = 64;
const MOST_DIGITS: usize = 256;

/// Judges a whole text. Source: RFC 8259.
pub(crate) fn json(text: &[u8]) -> Json {
    if std::str::from_utf8(text).is_err() {
        return Json::No;
    }
    let mut reader = Reader { text, at: 0, deepest: 0, longest: 0 };
    match reader.whole() {
        None => Json::No,
        Some(()) if reader.deepest > MOST_LEVELS => Json::TooDeep,
        Some(()) if reader.longest > MOST_DIGITS => Json::LongNumber,
        Some(()) => Json::Valid,
    }
}

/// The text as a client gets it, if it is a `msg`: what stands around it is gone, a line break between tokens is a blank.
pub(crate) fn delivered(msg: &str) -> String {
    let (mut out, mut in_string, mut escaped) = (String::new(), false, false);
    for c in msg.trim_matches([' ', '\t', '\r', '\n']).chars() {
        out.push(if !in_string && matches!(c, '\r' | '\n') { ' ' } else { c });
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = in_string,
            '"' => in_string = !in_string,
            _ => {}
        }
    }
    out
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    deepest: usize,
    longest: usize,
}

/// Where in the grammar it is, between two tokens.
enum Place {
    Value,
    /// A value, or the end of an empty list.
    ValueOrEnd,
    Name,
    /// A name, or the end of an empty object.
    NameOrEnd,
    /// Behind a value.
    Behind,
}

impl Reader<'_> {
    fn whole(&mut self) -> Option<()> {
        let (mut open, mut place) = (Vec::new(), Place::Value);
        loop {
            self.skip_blanks();
            place = match place {
                Place::Behind => match (open.last(), self.take()) {
                    (None, None) => return Some(()),
                    (Some(b'['), Some(b',')) => Place::Value,
                    (Some(b'{'), Some(b',')) => Place::Name,
                    (Some(b'['), Some(b']')) | (Some(b'{'), Some(b'}')) => {
                        open.pop();
                        Place::Behind
                    }
                    _ => return None,
                },
                Place::ValueOrEnd if self.next_is(b']') => {
                    open.pop();
                    Place::Behind
                }
                Place::NameOrEnd if self.next_is(b'}') => {
                    open.pop();
                    Place::Behind
                }
                Place::Name | Place::NameOrEnd => {
                    self.next_is(b'"').then_some(())?;
                    self.string()?;
                    self.skip_blanks();
                    self.next_is(b':').then_some(())?;
                    Place::Value
                }
                Place::Value | Place::ValueOrEnd => match self.take()? {
                    bracket @ (b'[' | b'{') => {
                        open.push(bracket);
                        self.deepest = self.deepest.max(open.len());
                        if bracket == b'[' { Place::ValueOrEnd } else { Place::NameOrEnd }
                    }
                    b'"' => {
                        self.string()?;
                        Place::Behind
                    }
                    first => {
                        self.at -= 1;
                        match first {
                            b't' => self.word(b"true")?,
                            b'f' => self.word(b"false")?,
                            b'n' => self.word(b"null")?,
                            _ => self.number()?,
                        }
                        Place::Behind
                    }
                },
            };
        }
    }

    fn take(&mut self) -> Option<u8> {
        let byte = self.text.get(self.at).copied()?;
        self.at += 1;
        Some(byte)
    }

    fn next_is(&mut self, byte: u8) -> bool {
        let is = self.text.get(self.at) == Some(&byte);
        self.at += usize::from(is);
        is
    }

    fn skip_blanks(&mut self) {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.text[self.at..].starts_with(word).then(|| self.at += word.len())
    }

    /// The rest of a string.
    fn string(&mut self) -> Option<()> {
        loop {
            match self.take()? {
                b'"' => return Some(()),
                b'\\' => match self.take()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => {
                        for _ in 0..4 {
                            self.take()?.is_ascii_hexdigit().then_some(())?;
                        }
                    }
                    _ => return None,
                },
                0..=0x1f => return None,
                _ => {}
            }
        }
    }

    fn number(&mut self) -> Option<()> {
        let start = self.at;
        self.next_is(b'-');
        if !self.next_is(b'0') {
            self.digits()?;
        }
        if self.next_is(b'.') {
            self.digits()?;
        }
        if self.next_is(b'e') || self.next_is(b'E') {
            let _ = self.next_is(b'+') || self.next_is(b'-');
            self.digits()?;
        }
        self.longest = self.longest.max(self.at - start);
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }
}

/// How a request's end is found, and how much of the bytes is its head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Strict {
    pub(crate) head_bytes: usize,
    pub(crate) chunked: bool,
    /// The digits of `Content-Length`, where it is there.
    pub(crate) length: Option<String>,
}

/// Whether a head leaves no room for doubt, by rules at least as strict as those of RFC 9112; `Err` says where there is
/// some.
pub(crate) fn head(bytes: &[u8]) -> Result<Strict, &'static str> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").ok_or("it has no end")?;
    let head_bytes = end + 4;
    let lines = split_lines(&bytes[..end])?;
    let words: Vec<&[u8]> = lines[0].split(|&byte| byte == b' ').collect();
    let [method, target, version] = words[..] else { return Err("the request line has other than three words") };
    (!method.is_empty() && method.iter().all(is_token)).then_some(()).ok_or("the method is no token")?;
    let graphic = |byte: &u8| byte.is_ascii_graphic() && *byte != b'#';
    (!target.is_empty() && target.iter().all(graphic)).then_some(()).ok_or("the target is none")?;
    let old = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        _ => return Err("another version"),
    };
    let (mut hosts, mut lengths, mut codings) = (0, Vec::new(), Vec::new());
    for line in &lines[1..] {
        let colon = line.iter().position(|&byte| byte == b':').ok_or("a line without a colon")?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        (!name.is_empty() && name.iter().all(is_token)).then_some(()).ok_or("a name that is no token")?;
        match name.to_ascii_lowercase().as_slice() {
            b"host" => hosts += 1,
            b"content-length" => lengths.push(value),
            b"transfer-encoding" => codings.push(value),
            _ => {}
        }
    }
    if hosts > 1 || (hosts == 0 && !old) {
        return Err("other than one Host");
    }
    match (&lengths[..], &codings[..]) {
        ([], []) => Ok(Strict { head_bytes, chunked: false, length: None }),
        ([digits], []) if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
            let digits = String::from_utf8_lossy(digits).into_owned();
            Ok(Strict { head_bytes, chunked: false, length: Some(digits) })
        }
        ([], [coding]) if !old && coding.eq_ignore_ascii_case(b"chunked") => {
            Ok(Strict { head_bytes, chunked: true, length: None })
        }
        _ => Err("its length is in doubt"),
    }
}

fn split_lines(head: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    let (mut lines, mut rest) = (Vec::new(), head);
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        lines.push(&rest[..end]);
        rest = &rest[end + 2..];
    }
    lines.push(rest);
    let control = |byte: &u8| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f;
    if lines.iter().any(|line| line.iter().any(control)) { Err("a control character") } else { Ok(lines) }
}

/// The content of a chunked body that begins here, and how many bytes it takes; `None` where it is not whole, or none.
pub(crate) fn dechunked(mut bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut content, all) = (Vec::new(), bytes.len());
    loop {
        let size = line(&mut bytes)?;
        let digits = size.split(|&byte| byte == b';').next()?;
        if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let size = usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        if size == 0 {
            loop {
                let trailer = line(&mut bytes)?;
                if trailer.is_empty() {
                    return Some((content, all - bytes.len()));
                }
                let colon = trailer.iter().position(|&byte| byte == b':')?;
                (colon > 0 && trailer[..colon].iter().all(is_token)).then_some(())?;
            }
        }
        content.extend_from_slice(bytes.get(..size)?);
        bytes = bytes[size..].strip_prefix(b"\r\n")?;
    }
}

/// Takes a line, without its end.
fn line<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    let (line, rest) = bytes.split_at(end);
    *bytes = &rest[2..];
    let control = |byte: &u8| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f;
    (!line.iter().any(control)).then_some(line)
}

fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}
