//! Text from a traced program on its way to a terminal: names, docs and paths may hold escape
//! sequences, line breaks or characters that reorder what is around them.

use std::borrow::Cow;

/// Longest piece of foreign text that is shown, in characters.
const MOST: usize = 1000;

/// `text` with everything that a terminal would obey spelled out, and cut at a sane length.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    if text.len() <= MOST && !text.chars().any(is_active) {
        return Cow::Borrowed(text);
    }
    let mut out = String::new();
    for (i, c) in text.chars().enumerate() {
        if i == MOST {
            out.push('…');
            break;
        }
        if is_active(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// Control characters, and those that change direction or join invisibly.
fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{061c}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_spelled_out() {
        assert_eq!(shown("kv:größe"), "kv:größe");
        assert_eq!(shown("a\x1b[2Jb\nc\u{9b}"), "a\\u{1b}[2Jb\\nc\\u{9b}");
        assert_eq!(shown("x\u{202e}y"), "x\\u{202e}y");
        assert_eq!(shown(&"a".repeat(5000)).chars().count(), MOST + 1);
    }
}
