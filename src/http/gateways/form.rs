//! Forms (`application/x-www-form-urlencoded`) as bytes, whatever their charset. Values only.

use super::fields::Pairs;
use percent_encoding::percent_decode;

/// The pairs of a form. Every body is one.
// Not form_urlencoded: it makes U+FFFD of what is not UTF-8, and so one name or id of two.
pub(super) fn read(body: &[u8]) -> Pairs {
    let pairs = body.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let end = pair.iter().position(|&byte| byte == b'=').unwrap_or(pair.len());
            (decode(&pair[..end]), decode(pair.get(end + 1..).unwrap_or_default()))
        })
        .collect()
}

fn decode(text: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> = text.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect();
    percent_decode(&spaced).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_as_bytes() {
        let pairs = read(b"a=1&b=x+y%2B&&c&d=%d6%D0&\xd6\xd0=\xce\xc4&e=%zz=");
        let expected: [(&[u8], &[u8]); 6] = [
            (b"a", b"1"),
            (b"b", b"x y+"),
            (b"c", b""),
            (b"d", b"\xd6\xd0"),
            (b"\xd6\xd0", b"\xce\xc4"),
            (b"e", b"%zz="),
        ];
        let expected: Pairs = expected.map(|(name, value)| (name.to_vec(), value.to_vec())).into();
        assert_eq!(pairs, expected);
        assert!(read(b"").is_empty());
    }
}
