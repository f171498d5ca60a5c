//! Text from a traced program on its way to a terminal or into JSON. Names and values may hold
//! escape sequences, line breaks, characters that reorder what is around them, or no UTF-8 at all.

/// Bytes that may stand as they are in text and in JSON.
fn is_plain(b: u8) -> bool {
    // Without branches, so that many bytes are looked at together.
    (0x20..=0x7e).contains(&b) & (b != b'"') & (b != b'\\')
}

/// Whether all of `bytes` may stand as they are. Looks at each, which is faster than to stop early.
#[inline]
pub(crate) fn is_plain_text(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |plain, &b| plain & is_plain(b))
}

/// Control characters, and those that change direction or are not seen.
fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{061c}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Appends `bytes` as they may stand between double quotes: what is not UTF-8 as `\xHH`.
#[inline]
pub(crate) fn push_text(out: &mut Vec<u8>, bytes: &[u8]) {
    if is_plain_text(bytes) {
        return out.extend_from_slice(bytes);
    }
    push_escaped(out, bytes, true);
}

/// Appends a name, which stands without quotes.
#[inline]
pub(crate) fn push_name(out: &mut Vec<u8>, name: &str) {
    if is_plain_text(name.as_bytes()) {
        return out.extend_from_slice(name.as_bytes());
    }
    push_escaped(out, name.as_bytes(), false);
}

#[cold]
fn push_escaped(out: &mut Vec<u8>, bytes: &[u8], quoted: bool) {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' if !quoted => out.push(b'"'),
                '"' | '\\' => out.extend([b'\\', c as u8]),
                c if is_active(c) => {
                    // `escape_debug` leaves some that reorder text.
                    for e in c.escape_default() {
                        out.push(e as u8);
                    }
                }
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        for b in chunk.invalid() {
            out.extend_from_slice(b"\\x");
            push_hex(out, &[*b]);
        }
    }
}

/// Appends lower-case hexadecimal digits.
pub(crate) fn push_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for b in bytes {
        out.extend([DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]]);
    }
}

/// Appends a JSON string, quotes included.
#[inline]
pub(crate) fn push_json(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    if is_plain_text(text.as_bytes()) {
        out.extend_from_slice(text.as_bytes());
    } else {
        push_json_escaped(out, text);
    }
    out.push(b'"');
}

#[cold]
fn push_json_escaped(out: &mut Vec<u8>, text: &str) {
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend([b'\\', c as u8]),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            c if is_active(c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.extend_from_slice(b"\\u");
                    push_hex(out, &unit.to_be_bytes());
                }
            }
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// JSON that was written by others, with what a terminal obeys spelled out. Outside of strings there
/// is no such character.
pub(crate) fn calm_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if is_active(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out += &format!("\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// A name as it may be shown, for messages and tables.
pub(crate) fn name(name: &str) -> String {
    let mut out = Vec::new();
    push_name(&mut out, name);
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(push: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        push(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn nothing_reaches_the_terminal_alive() {
        let text = b"a\"b\\c\n\x1b[2J\xffz\0\xc3\xa4\xc2\x9b\xe2\x80\xae";
        let want = "a\\\"b\\\\c\\n\\u{1b}[2J\\xffz\\u{0}ä\\u{9b}\\u{202e}";
        assert_eq!(with(|out| push_text(out, text)), want);
        assert_eq!(with(|out| push_name(out, "a\"b\x07")), "a\"b\\u{7}");
    }

    #[test]
    fn json_is_json() {
        let text = "a\"b\\c\n\x1bä\u{9b}\u{e0001}😀";
        let json = with(|out| push_json(out, text));
        assert!(json.chars().all(|c| !is_active(c)), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}
