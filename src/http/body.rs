//! The body of a request as its bytes come in: so many of them, or chunks.
//!
//! It keeps what has come and nothing more, so a length that is announced costs nothing. Finds its end without I/O;
//! the reading is the door's. Used on the thread of the connection.

use super::Problem;
use super::request::{Framing, line_length};

/// The most bytes behind a chunk's size: extensions, which mean nothing to us.
pub(crate) const MAX_EXTENSION: usize = 256;
/// The most hex digits of a chunk's size: 4 GiB, far above any body limit, and nothing can overflow.
pub(crate) const MAX_SIZE_DIGITS: usize = 8;
/// The most bytes of trailers, which are checked and ignored.
pub(crate) const MAX_TRAILERS: usize = 4096;

/// A body, as far as it has come.
pub(super) struct Body {
    bytes: Vec<u8>,
    limit: usize,
    state: State,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes, and that is all.
    Counted(usize),
    /// The line with a chunk's size.
    Size,
    /// So many bytes of a chunk.
    Chunk(usize),
    /// The CR LF behind a chunk.
    ChunkEnd,
    /// Trailers, for which so many bytes are left, and the empty line.
    Trailers(usize),
    Whole,
}

impl Body {
    /// A body of which nothing has come.
    ///
    /// # Errors
    ///
    /// 413 if it is announced to be longer than `limit`.
    pub(super) fn new(framing: Framing, limit: usize) -> Result<Body, Problem> {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Whole,
            Framing::Length(length) => match usize::try_from(length) {
                Ok(length) if length <= limit => State::Counted(length),
                _ => return Err(Problem::body_too_large(limit)),
            },
            Framing::Chunked => State::Size,
        };
        Ok(Body { bytes: Vec::new(), limit, state })
    }

    /// Takes what belongs to the body from the beginning of `input`; returns how many bytes that was.
    ///
    /// What it leaves is the next request's if the body [is whole](Body::is_whole), and else the beginning of
    /// something that it wants to see again with more behind it; never more than a line.
    ///
    /// # Errors
    ///
    /// 400 where the chunks are malformed, 413 where they become too many.
    pub(super) fn take(&mut self, input: &[u8]) -> Result<usize, Problem> {
        let mut taken = 0;
        while self.state != State::Whole {
            let step = self.step(&input[taken..])?;
            if step == 0 {
                break;
            }
            taken += step;
        }
        Ok(taken)
    }

    /// Whether all of it has come.
    pub(super) fn is_whole(&self) -> bool {
        self.state == State::Whole
    }

    /// How much memory it takes now.
    pub(super) fn held(&self) -> usize {
        self.bytes.capacity()
    }

    /// What has come.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Takes one part; 0 if it is not there yet.
    fn step(&mut self, input: &[u8]) -> Result<usize, Problem> {
        match self.state {
            State::Counted(left) => Ok(self.keep(input, left, State::Counted, State::Whole)),
            State::Chunk(left) => Ok(self.keep(input, left, State::Chunk, State::ChunkEnd)),
            State::Size => self.read_size(input),
            State::ChunkEnd => self.read_chunk_end(input),
            State::Trailers(room) => self.read_trailer(input, room),
            State::Whole => Ok(0),
        }
    }

    fn keep(&mut self, input: &[u8], left: usize, more: fn(usize) -> State, end: State) -> usize {
        let part = &input[..input.len().min(left)];
        self.make_room_for(part.len(), left);
        self.bytes.extend_from_slice(part);
        self.state = if part.len() == left { end } else { more(left - part.len()) };
        part.len()
    }

    /// Memory doubles as bytes come in, but never beyond what was announced, or may come at all.
    fn make_room_for(&mut self, more: usize, left: usize) {
        let (length, capacity) = (self.bytes.len(), self.bytes.capacity());
        if length + more > capacity {
            let most = if matches!(self.state, State::Counted(_)) { length + left } else { self.limit };
            self.bytes.reserve_exact((2 * capacity).clamp(length + more, most) - length);
        }
    }

    fn read_size(&mut self, input: &[u8]) -> Result<usize, Problem> {
        let Some(line) = whole_line(input, MAX_SIZE_DIGITS + MAX_EXTENSION)? else {
            return Ok(0);
        };
        let size = chunk_size(line)?;
        if size > self.limit - self.bytes.len() {
            return Err(Problem::body_too_large(self.limit));
        }
        self.state = match size {
            0 => State::Trailers(MAX_TRAILERS),
            _ => State::Chunk(size),
        };
        Ok(line.len() + 2)
    }

    fn read_chunk_end(&mut self, input: &[u8]) -> Result<usize, Problem> {
        match input {
            [b'\r', b'\n', ..] => {
                self.state = State::Size;
                Ok(2)
            }
            [] | [b'\r'] => Ok(0),
            _ => Err(Problem::bad_request("a chunk is longer than its size")),
        }
    }

    fn read_trailer(&mut self, input: &[u8], room: usize) -> Result<usize, Problem> {
        let Some(line) = whole_line(input, room)? else {
            return Ok(0);
        };
        if line.is_empty() {
            self.state = State::Whole;
        } else if is_field(line) {
            self.state = State::Trailers(room.saturating_sub(line.len() + 2));
        } else {
            return Err(Problem::bad_request("a trailer is not a field"));
        }
        Ok(line.len() + 2)
    }
}

/// The first line, without its end, if it has come.
fn whole_line(input: &[u8], most: usize) -> Result<Option<&[u8]>, Problem> {
    let length = line_length(input)?;
    // One byte more may be the CR of an end that is still coming.
    if length.unwrap_or(input.len().saturating_sub(1)) > most {
        return Err(Problem::bad_request("a line between chunks is too long"));
    }
    Ok(length.map(|length| &input[..length]))
}

/// One to eight hex digits, and extensions behind a `;`. No blanks: RFC 9112 allows them nowhere else.
fn chunk_size(line: &[u8]) -> Result<usize, Problem> {
    let end = line.iter().position(|&byte| byte == b';').unwrap_or(line.len());
    let (digits, extensions) = line.split_at(end);
    let proper = (1..=MAX_SIZE_DIGITS).contains(&digits.len())
        && digits.iter().all(u8::is_ascii_hexdigit)
        && extensions.len() <= MAX_EXTENSION;
    std::str::from_utf8(digits)
        .ok()
        .filter(|_| proper)
        .and_then(|digits| usize::from_str_radix(digits, 16).ok())
        .ok_or_else(|| Problem::bad_request("the size of a chunk is malformed"))
}

fn is_field(line: &[u8]) -> bool {
    let name = line.split(|&byte| byte == b':').next().unwrap_or(line);
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !name.is_empty() && name.len() < line.len() && name.iter().all(is_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 100;

    /// The body and what was left over, or the status; all at once and byte by byte must agree.
    fn read(framing: Framing, input: &[u8]) -> Result<Option<(Vec<u8>, usize)>, u16> {
        let at_once = feed(framing, input, input.len());
        assert_eq!(feed(framing, input, 1), at_once, "{}", input.escape_ascii());
        at_once
    }

    fn feed(framing: Framing, input: &[u8], step: usize) -> Result<Option<(Vec<u8>, usize)>, u16> {
        let mut body = Body::new(framing, LIMIT).map_err(|problem| problem.status())?;
        let (mut start, mut end) = (0, 0);
        while !body.is_whole() && end < input.len() {
            end = (end + step).min(input.len());
            start += body.take(&input[start..end]).map_err(|problem| problem.status())?;
        }
        Ok(body.is_whole().then(|| (body.into_bytes(), input.len() - start)))
    }

    fn chunked(input: impl AsRef<[u8]>) -> Result<Option<(Vec<u8>, usize)>, u16> {
        read(Framing::Chunked, input.as_ref())
    }

    fn whole(bytes: &[u8], left: usize) -> Result<Option<(Vec<u8>, usize)>, u16> {
        Ok(Some((bytes.to_vec(), left)))
    }

    #[test]
    fn counted_bytes() {
        assert_eq!(read(Framing::None, b"GET"), whole(b"", 3));
        assert_eq!(read(Framing::Length(0), b"GET"), whole(b"", 3));
        assert_eq!(read(Framing::Length(3), b"abcGET"), whole(b"abc", 3));
        assert_eq!(read(Framing::Length(3), b"ab"), Ok(None));
    }

    #[test]
    fn the_limit_of_a_counted_body() {
        let body = vec![b'x'; LIMIT];
        assert!(read(Framing::Length(99), &body).is_ok());
        assert_eq!(read(Framing::Length(100), &body), whole(&body, 0));
        assert_eq!(read(Framing::Length(101), &body), Err(413));
        assert_eq!(read(Framing::Length(u64::MAX), &body), Err(413));
    }

    #[test]
    fn chunks() {
        assert_eq!(chunked("0\r\n\r\n"), whole(b"", 0));
        assert_eq!(chunked("3\r\nabc\r\n0A\r\n0123456789\r\n0\r\n\r\nGET"), whole(b"abc0123456789", 3));
        assert_eq!(chunked("00000003\r\nabc\r\n00\r\n\r\n"), whole(b"abc", 0));
        assert_eq!(chunked("3;a=b;c=\"d\"\r\nabc\r\n0;e\r\n\r\n"), whole(b"abc", 0));
        assert_eq!(chunked("2\r\n\r\n\r\n0\r\nDigest: x\r\nB:\r\n\r\n"), whole(b"\r\n", 0));
        for unfinished in ["", "3", "3\r", "3\r\n", "3\r\nabc", "3\r\nabc\r", "0\r\n", "0\r\nA: b\r\n"] {
            assert_eq!(chunked(unfinished), Ok(None), "{unfinished:?}");
        }
    }

    #[test]
    fn malformed_chunks() {
        for bad in [
            "\r\n\r\n",
            "x\r\n",
            "0x3\r\nabc\r\n",
            "+3\r\nabc\r\n",
            "-3\r\nabc\r\n",
            " 3\r\nabc\r\n",
            "3 \r\nabc\r\n",
            "3 ;a\r\nabc\r\n",
            "3,3\r\nabc\r\n",
            ";a\r\n",
            "000000003\r\nabc\r\n",
            "3\nabc\r\n",
            "3\r\nabc\n",
            "3\r\nabcd\r\n",
            "3\r\nabc0\r\n\r\n",
            "3\r\nabc\r0\r\n",
            "3;a\nb\r\nabc\r\n",
            "3;a\0\r\nabc\r\n",
            "0\r\nA b\r\n\r\n",
            "0\r\n: b\r\n\r\n",
            "0\r\n b\r\n\r\n",
            "0\r\nA : b\r\n\r\n",
            "0\r\nA\n\r\n",
        ] {
            assert_eq!(chunked(bad), Err(400), "{bad:?}");
        }
    }

    #[test]
    fn the_limit_of_a_chunked_body() {
        let chunks = |total: usize| {
            let rest = "x".repeat(total - 50);
            chunked(format!("32\r\n{}\r\n{:x}\r\n{rest}\r\n0\r\n\r\n", "x".repeat(50), total - 50))
                .map(|body| body.map(|(bytes, _)| bytes.len()))
        };
        assert_eq!(chunks(99), Ok(Some(99)));
        assert_eq!(chunks(100), Ok(Some(100)));
        assert_eq!(chunks(101), Err(413));
        assert_eq!(chunked("ffffffff\r\n"), Err(413));
        assert_eq!(chunked("100000000\r\n"), Err(400), "nine digits");
    }

    #[test]
    fn the_limits_of_extensions_and_trailers() {
        let extension = |length: usize| chunked(format!("1;{}\r\na\r\n0\r\n\r\n", "e".repeat(length - 1)));
        assert_eq!(extension(255), whole(b"a", 0));
        assert_eq!(extension(256), whole(b"a", 0));
        assert_eq!(extension(257), Err(400));
        let endless = format!("1;{}", "e".repeat(1000));
        assert_eq!(chunked(endless), Err(400), "before its end has come");

        let trailers = |lines: usize| chunked(format!("0\r\n{}\r\n", "A: 3456\r\n".repeat(lines)));
        assert_eq!(trailers(4096 / 9), whole(b"", 0));
        assert_eq!(trailers(4096 / 9 + 2), Err(400));
    }
}
