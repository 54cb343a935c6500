//! How frames lie in a connection's bytes: one a line, or each behind its length.
//!
//! Values only. What a frame says is `frame`'s, reading and sending are `client`'s. A listener has one framing, and so
//! has every connection that came in through it.
//!
//! Source: README.md, *TCP reference*.

use crate::frame::MAX_FRAME_BYTES;
use std::fmt;
use std::ops::Range;

/// How the frames of a connection are told from each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// Each is a line.
    #[default]
    Lines,
    /// Before each stands its length in two bytes, big-endian, as in skynet's packets.
    U16be,
    /// The same in four bytes.
    U32be,
}

/// A frame is longer than its framing can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// A frame found in what came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Where its JSON lies.
    pub(crate) json: Range<usize>,
    /// Where the next frame begins.
    pub(crate) end: usize,
}

/// Why what came never becomes a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoFrame {
    /// It is longer than [`MAX_FRAME_BYTES`].
    TooLong,
    /// It is in another framing, or no protocol of ours.
    Foreign,
}

impl Framing {
    /// All there are.
    pub(crate) const ALL: [Framing; 3] = [Framing::Lines, Framing::U16be, Framing::U32be];

    /// The framing that stands before an address under this name. Lines have none there.
    pub(crate) fn named(name: &str) -> Option<Framing> {
        Framing::ALL.into_iter().find(|framing| *framing != Framing::Lines && framing.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Framing::Lines => "lines",
            Framing::U16be => "u16be",
            Framing::U32be => "u32be",
        }
    }

    /// What a client is told that speaks another one.
    pub(crate) fn rule(self) -> &'static str {
        match self {
            Framing::Lines => "this address speaks lines: a line break behind each JSON object",
            Framing::U16be => "this address speaks u16be: before each JSON object its length in 2 bytes, big-endian",
            Framing::U32be => "this address speaks u32be: before each JSON object its length in 4 bytes, big-endian",
        }
    }

    fn prefix_bytes(self) -> usize {
        match self {
            Framing::Lines => 0,
            Framing::U16be => 2,
            Framing::U32be => 4,
        }
    }

    /// An empty frame with room for so many bytes: its JSON is to be appended, then [`Framing::end`] called.
    // A frame is one buffer and one send, so the place of the length is kept free before it is known.
    pub(crate) fn begin(self, bytes: usize) -> Vec<u8> {
        let mut frame = Vec::with_capacity(bytes);
        frame.extend_from_slice(&[0; 4][..self.prefix_bytes()]);
        frame
    }

    /// Makes what was appended since [`Framing::begin`] a whole frame.
    pub(crate) fn end(self, frame: &mut Vec<u8>) -> Result<(), TooLong> {
        let length = frame.len() - self.prefix_bytes();
        match self {
            Framing::Lines => frame.push(b'\n'),
            Framing::U16be => frame[..2].copy_from_slice(&u16::try_from(length).map_err(|_| TooLong)?.to_be_bytes()),
            Framing::U32be => frame[..4].copy_from_slice(&u32::try_from(length).map_err(|_| TooLong)?.to_be_bytes()),
        }
        Ok(())
    }

    /// A JSON object as a frame.
    pub(crate) fn wrap(self, json: &[u8]) -> Result<Vec<u8>, TooLong> {
        let mut frame = self.begin(json.len() + 4);
        frame.extend_from_slice(json);
        self.end(&mut frame)?;
        Ok(frame)
    }

    /// The frame at the beginning of what came; none if it is not there whole. `searched`: so many bytes were looked at
    /// before, when it was not.
    pub(crate) fn cut(self, came: &[u8], searched: usize) -> Result<Option<Found>, NoFrame> {
        match self {
            Framing::Lines => cut_line(came, searched),
            Framing::U16be => match came.first_chunk::<2>() {
                Some(length) => cut_behind_length(came, 2, u16::from_be_bytes(*length).into()),
                None => Ok(None),
            },
            Framing::U32be => match came.first_chunk::<4>() {
                // As a length it would be too long anyhow; the client is told what is really wrong.
                Some([b'{', ..]) => Err(NoFrame::Foreign),
                Some(length) => {
                    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| NoFrame::TooLong)?;
                    cut_behind_length(came, 4, length)
                }
                None => Ok(None),
            },
        }
    }
}

impl fmt::Display for Framing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn cut_line(came: &[u8], searched: usize) -> Result<Option<Found>, NoFrame> {
    let Some(at) = came[searched..].iter().position(|&b| b == b'\n') else {
        // No JSON begins with a control character that is no blank, but a length does: nobody need wait for more.
        let is_foreign = came.first().is_some_and(|&b| b < b' ' && b != b'\t' && b != b'\r');
        return match came.len() {
            _ if is_foreign => Err(NoFrame::Foreign),
            length if length > MAX_FRAME_BYTES + 1 => Err(NoFrame::TooLong),
            _ => Ok(None),
        };
    };
    let end = searched + at;
    let line = &came[..end];
    let length = line.strip_suffix(b"\r").unwrap_or(line).len();
    if length > MAX_FRAME_BYTES { Err(NoFrame::TooLong) } else { Ok(Some(Found { json: 0..length, end: end + 1 })) }
}

fn cut_behind_length(came: &[u8], prefix: usize, length: usize) -> Result<Option<Found>, NoFrame> {
    if length > MAX_FRAME_BYTES {
        return Err(NoFrame::TooLong);
    }
    let end = prefix + length;
    if came.len() >= end {
        return Ok(Some(Found { json: prefix..end, end }));
    }
    // What begins like this is no object, however it goes on: most likely the length was text.
    let is_foreign = came.get(prefix).is_some_and(|&b| b != b'{' && !b.is_ascii_whitespace());
    if is_foreign { Err(NoFrame::Foreign) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: &[u8] = b"{\"type\":\"ping\"}";

    #[test]
    fn a_length_stands_big_endian_before_its_object() {
        assert_eq!(Framing::Lines.wrap(PING), Ok(b"{\"type\":\"ping\"}\n".to_vec()));
        assert_eq!(Framing::U16be.wrap(PING), Ok(b"\x00\x0f{\"type\":\"ping\"}".to_vec()));
        assert_eq!(Framing::U32be.wrap(PING), Ok(b"\x00\x00\x00\x0f{\"type\":\"ping\"}".to_vec()));
        assert_eq!(Framing::U32be.wrap(&[b'x'; 70_000]).map(|frame| frame[..4].to_vec()), Ok(vec![0, 1, 0x11, 0x70]));
    }

    #[test]
    fn two_bytes_tell_65535_and_no_more() {
        assert_eq!(Framing::U16be.wrap(&[b'x'; 65_535]).map(|frame| frame[..2].to_vec()), Ok(vec![0xff, 0xff]));
        assert_eq!(Framing::U16be.wrap(&[b'x'; 65_536]), Err(TooLong));
        assert_eq!(Framing::Lines.wrap(&[b'x'; 65_536]).map(|frame| frame.len()), Ok(65_537));
    }

    #[test]
    fn what_was_framed_is_cut_the_same_wherever_it_breaks() {
        let longest = [b' '; MAX_FRAME_BYTES];
        for framing in Framing::ALL {
            let most = if framing == Framing::U16be { MAX_FRAME_BYTES - 1 } else { MAX_FRAME_BYTES };
            for json in [PING, b"", b"{", &longest[..most]] {
                let frame = framing.wrap(json).expect("it is short enough");
                let two = [frame.as_slice(), b"{and more"].concat();
                let whole = framing.cut(&two, 0).expect("a frame").expect("a whole one");
                assert_eq!((&two[whole.json], whole.end), (json, frame.len()), "{framing}");
                let ends = if json.len() < 100 { 0..frame.len() } else { frame.len() - 1..frame.len() };
                for end in ends {
                    assert_eq!(framing.cut(&frame[..end], 0), Ok(None), "{framing}: {end} bytes of {}", json.len());
                    let searched = framing.cut(&frame, end).expect("a frame").expect("a whole one");
                    assert_eq!(searched.end, frame.len());
                }
            }
        }
    }

    #[test]
    fn a_byte_too_many_is_told_as_soon_as_it_is_known() {
        let line = [b' '; MAX_FRAME_BYTES + 2];
        assert_eq!(Framing::Lines.cut(&line, 0), Err(NoFrame::TooLong));
        assert_eq!(Framing::Lines.cut(&[&line[1..], b"\n"].concat(), 0), Err(NoFrame::TooLong));
        assert_eq!(Framing::U32be.cut(b"\x00\x01\x00\x01", 0), Err(NoFrame::TooLong));
        assert_eq!(Framing::U32be.cut(b"\xff\xff\xff\xff", 0), Err(NoFrame::TooLong));
        assert_eq!(Framing::U32be.cut(b"\x00\x01\x00\x00", 0), Ok(None));
    }

    #[test]
    fn another_framing_is_noticed_before_the_frame_is_whole() {
        for wrong in [&b"\x00\x25{\"type\":"[..], b"\x00\x00\x00\x25{", b"\x16\x03\x01\x02"] {
            assert_eq!(Framing::Lines.cut(wrong, 0), Err(NoFrame::Foreign), "{wrong:?}");
        }
        assert_eq!(Framing::U16be.cut(b"{\"type\"", 0), Err(NoFrame::Foreign));
        assert_eq!(
            Framing::U16be.cut(b"\x00\x00\x00\x25{\"", 0).map(|found| found.map(|found| found.end)),
            Ok(Some(2))
        );
        assert_eq!(Framing::U32be.cut(b"{\"ty", 0), Err(NoFrame::Foreign));
        assert_eq!(Framing::U32be.cut(b"\x00\x00\x25\x00\x7b\x22", 0), Ok(None), "long, but it may be");
    }

    #[test]
    fn a_framing_is_read_as_it_is_written_and_lines_are_not_named() {
        assert_eq!(Framing::named("u16be"), Some(Framing::U16be));
        assert_eq!(Framing::named("u32be"), Some(Framing::U32be));
        for name in ["", "lines", "U16BE", "u16", "u16le", "u16be ", "u64be"] {
            assert_eq!(Framing::named(name), None, "{name}");
        }
    }
}
