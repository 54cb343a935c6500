//! Where a head ends, found line by line while its bytes come.

use crate::http::Problem;

/// Finds the end of a head in what has come so far, each line looked at once it is there.
#[derive(Default)]
pub(in crate::http) struct HeadEnd {
    line_start: usize,
}

impl HeadEnd {
    /// The length of the head with its last empty line, or `None` if more has to come.
    ///
    /// `input` begins with the head, and each time with the same bytes.
    ///
    /// # Errors
    ///
    /// 400 for a line end or a control character that HTTP does not know, 431 for a head longer than `limit`.
    pub(in crate::http) fn find(&mut self, input: &[u8], limit: usize) -> Result<Option<usize>, Problem> {
        while let Some(length) = line_length(&input[self.line_start..])? {
            let end = self.line_start + length + 2;
            if end > limit {
                return Err(too_long(limit));
            }
            if length == 0 {
                return Ok(Some(end));
            }
            self.line_start = end;
        }
        if input.len() >= limit {
            return Err(too_long(limit));
        }
        Ok(None)
    }
}

fn too_long(limit: usize) -> Problem {
    Problem::head_too_large(format!("the request line and the fields have more than {limit} bytes"))
}

/// The length of the line that `input` begins with, without its CR LF, or `None` if that has not come yet.
///
/// # Errors
///
/// 400 if a control character comes first. A bare CR or LF is one: readers differ on whether it ends a line.
pub(in crate::http) fn line_length(input: &[u8]) -> Result<Option<usize>, Problem> {
    let Some(end) = input.iter().position(|&byte| (byte < b' ' && byte != b'\t') || byte == 0x7f) else {
        return Ok(None);
    };
    match &input[end..] {
        [b'\r', b'\n', ..] => Ok(Some(end)),
        [b'\r'] => Ok(None),
        _ => Err(Problem::bad_request("a control character in the head, or a line end that is not CR LF")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{LIMIT, get, refusal};
    use super::HeadEnd;

    #[test]
    fn line_ends_are_cr_lf_and_nothing_else() {
        for bad in [
            &b"GET / HTTP/1.1\nHost: x\n\n"[..],
            b"GET / HTTP/1.1\r\nHost: x\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\n\n",
            b"GET / HTTP/1.1\r\nHost: x\r\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\rX: y\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\0y\r\n\r\n",
            b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nA\0: y\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nA: \x0by\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nA: \x7f\r\n\r\n",
            b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        ] {
            assert_eq!(refusal(bad), 400, "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn the_length_of_a_head_is_bounded() {
        let head = |length: usize| {
            let rest = "GET / HTTP/1.1\r\nHost: x\r\nA: \r\n\r\n".len();
            get(&format!("A: {}\r\n", "a".repeat(length - rest)))
        };
        assert!(head(LIMIT - 1).is_ok());
        assert!(head(LIMIT).is_ok());
        assert_eq!(head(LIMIT + 1).err(), Some((431, "head_too_large")));
        let long_target = format!("GET /{}", "a".repeat(LIMIT));
        assert_eq!(refusal(long_target), 431, "before its end has come");
    }

    #[test]
    fn a_head_may_come_byte_by_byte() {
        let text = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let mut end = HeadEnd::default();
        for length in 0..text.len() {
            assert_eq!(end.find(&text[..length], LIMIT), Ok(None), "{length}");
        }
        assert_eq!(end.find(text, LIMIT), Ok(Some(text.len())));
    }
}
