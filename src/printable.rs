//! Text from outside, made fit for a line of a terminal or of a log: nothing in it ends the line or steers who shows it.
//!
//! Values only.

use std::borrow::Cow;

/// The most characters of one text.
pub(crate) const MOST: usize = 2_000;

/// Whether a character ends a line, steers a terminal or turns the order of what follows.
fn is_unfit(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text from elsewhere, for the user: what is unfit is left out.
pub(crate) fn printable(text: &str) -> String {
    let keep = |c: char| match c {
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '?',
        c if is_unfit(c) => ' ',
        c => c,
    };
    text.chars().take(MOST).map(keep).collect()
}

/// The same for a log: what is unfit is escaped, so that it can be seen there.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    if text.len() <= MOST && !text.chars().any(is_unfit) {
        return text.into();
    }
    let mut fit = String::with_capacity(text.len().min(MOST));
    for c in text.chars().take(MOST) {
        if is_unfit(c) {
            fit.extend(c.escape_default());
        } else {
            fit.push(c);
        }
    }
    if text.chars().nth(MOST).is_some() {
        fit.push('…');
    }
    fit.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_stays_on_one_line() {
        assert_eq!(printable("a\r\nb\u{1b}[2Jc\u{2028}d"), "a  b [2Jc d");
        assert_eq!(printable(&"x".repeat(65_536)).len(), 2_000);
    }

    #[test]
    fn what_is_escaped_can_be_seen() {
        assert_eq!(
            escaped("a\r\nb\u{1b}[2Jc\u{2028}d\0\u{85}\u{202e}"),
            "a\\r\\nb\\u{1b}[2Jc\\u{2028}d\\u{0}\\u{85}\\u{202e}"
        );
        assert_eq!(escaped("ü \"quoted\" \\ 钱"), "ü \"quoted\" \\ 钱");
        assert_eq!(escaped(&"ü".repeat(2_000)), "ü".repeat(2_000));
        assert_eq!(escaped(&"ü".repeat(65_536)), format!("{}…", "ü".repeat(2_000)));
        assert!(escaped(&"\u{2028}".repeat(65_536)).len() < 20_000, "bounded, whatever it is");
    }
}
