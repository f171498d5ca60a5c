//! Just enough of Rust's grammar: comments and strings told from code, and functions found.

/// The same text with comments, strings and character literals blanked (line breaks stay).
pub(crate) fn code_only(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let end = match token_to_blank(bytes, at) {
            Some(end) => end,
            None => {
                out.push(bytes[at]);
                at += 1;
                continue;
            }
        };
        out.extend(bytes[at..end].iter().map(|&b| if b == b'\n' { b'\n' } else { b' ' }));
        at = end;
    }
    // Blanks replace whole characters, and the rest is copied byte by byte.
    String::from_utf8(out).expect("still UTF-8")
}

/// Where the comment or literal that begins at `at` ends, if one begins there.
fn token_to_blank(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    if rest.starts_with(b"//") {
        return Some(at + rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len()));
    }
    if rest.starts_with(b"/*") {
        return Some(at + block_comment(rest));
    }
    let after_word = at > 0 && is_word(bytes[at - 1]);
    match rest[0] {
        b'"' => Some(at + quoted(rest, b'"')),
        b'\'' => char_literal(rest).map(|n| at + n),
        b'r' | b'b' | b'c' if !after_word => raw_string(rest).map(|n| at + n),
        _ => None,
    }
}

/// Length of a block comment; they nest.
fn block_comment(text: &[u8]) -> usize {
    let (mut depth, mut i) = (0, 0);
    while i < text.len() {
        if text[i..].starts_with(b"/*") {
            depth += 1;
            i += 2;
        } else if text[i..].starts_with(b"*/") {
            depth -= 1;
            i += 2;
            if depth == 0 {
                return i;
            }
        } else {
            i += 1;
        }
    }
    text.len()
}

/// Length of a literal with escapes, from its opening quote to its closing one.
fn quoted(text: &[u8], quote: u8) -> usize {
    let mut i = 1;
    while i < text.len() {
        match text[i] {
            b'\\' => i += 2,
            b if b == quote => return i + 1,
            _ => i += 1,
        }
    }
    text.len()
}

/// Length of a character literal, or nothing when the quote begins a lifetime.
fn char_literal(text: &[u8]) -> Option<usize> {
    if text.get(1) == Some(&b'\\') {
        return Some(quoted(text, b'\''));
    }
    // One character, of up to four bytes, and a closing quote.
    let width = (2..=5).find(|&i| text.get(i) == Some(&b'\''))?;
    std::str::from_utf8(&text[1..width]).ok().filter(|s| s.chars().count() == 1)?;
    Some(width + 1)
}

/// Length of `r"…"`, `br#"…"#` and the like; nothing for plain prefixes such as `b"…"`, whose
/// quote is found by itself.
fn raw_string(text: &[u8]) -> Option<usize> {
    let r = text.iter().take(2).position(|&b| b == b'r')?;
    let hashes = text[r + 1..].iter().take_while(|&&b| b == b'#').count();
    let open = r + 1 + hashes;
    if text.get(open) != Some(&b'"') {
        return None;
    }
    let close = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
    let body = open + 1;
    let found = text[body..].windows(close.len()).position(|w| w == close);
    Some(found.map_or(text.len(), |n| body + n + close.len()))
}

/// Whether the byte can be part of a word (any byte of a non-ASCII letter can).
pub(crate) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Lines, from 1, at which `needle` stands in `code` with no word character around it.
pub(crate) fn lines_of(code: &str, needle: &str) -> Vec<usize> {
    let bytes = code.as_bytes();
    let edge = |needle_byte: u8, other: Option<&u8>| {
        !(is_word(needle_byte) && other.is_some_and(|&b| is_word(b)))
    };
    let (first, last) = (needle.as_bytes()[0], needle.as_bytes()[needle.len() - 1]);
    code.match_indices(needle)
        .filter(|(i, _)| edge(first, i.checked_sub(1).and_then(|i| bytes.get(i))))
        .filter(|(i, _)| edge(last, bytes.get(i + needle.len())))
        .map(|(i, _)| line_at(code, i))
        .collect()
}

fn line_at(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|&&b| b == b'\n').count() + 1
}

/// A function with a body.
#[derive(Debug, PartialEq)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// Line of `fn`, from 1.
    pub(crate) line: usize,
    /// From the line of `fn` to that of its closing brace, both counted.
    pub(crate) lines: usize,
}

/// The functions in `code`, which must have gone through [`code_only`].
pub(crate) fn functions(code: &str) -> Vec<Function> {
    let bytes = code.as_bytes();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if at > 0 && is_word(bytes[at - 1]) {
            continue;
        }
        let rest = code[at + 3..].trim_start();
        let name: String = rest.chars().take_while(|c| !"(<{; \n".contains(*c)).collect();
        if let Some(end) = body_end(bytes, at).filter(|_| !name.is_empty()) {
            let line = line_at(code, at);
            found.push(Function { name, line, lines: line_at(code, end) - line + 1 });
        }
    }
    found
}

/// Where the body of the function at `at` closes; nothing when it has none.
fn body_end(code: &[u8], at: usize) -> Option<usize> {
    let mut inside = 0;
    let mut braces = 0;
    for (i, &b) in code.iter().enumerate().skip(at) {
        match b {
            b'(' | b'[' if braces == 0 => inside += 1,
            b')' | b']' if braces == 0 => inside -= 1,
            b';' if inside == 0 && braces == 0 => return None,
            b'{' if inside == 0 => braces += 1,
            b'}' if inside == 0 => {
                braces -= 1;
                if braces <= 0 {
                    return Some(i);
                }
            }
            _ => {}
        }
    }
    None
}

#[test]
fn comments_and_literals_are_blanked() {
    let kept = |text: &str| code_only(text).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(kept("a // unsafe\nb"), "a b");
    assert_eq!(kept("a /* x /* y */ z */ b"), "a b");
    assert_eq!(kept(r#"f("un\"safe", b'{', '"', 'x') "#), "f( , b , , )");
    assert_eq!(kept("r#\"a \" b\"# + br\"\\\" + x"), "+ + x");
    assert_eq!(kept("fn f<'a>(x: &'a str) {}"), "fn f<'a>(x: &'a str) {}");
    assert_eq!(kept("r#type + 'é' + '\\u{7d}'"), "r#type + +");
    assert_eq!(code_only("\"a\nb\"\n").matches('\n').count(), 2);
}

#[test]
fn functions_are_measured() {
    let code =
        "trait T { fn none(&self) -> [u8; 2]; }\nfn a(x: fn (u8)) {\n if x { }\n}\nfn b() {}\n";
    let found = functions(code);
    let brief: Vec<_> = found.iter().map(|f| (f.name.as_str(), f.line, f.lines)).collect();
    assert_eq!(brief, [("a", 2, 3), ("b", 5, 1)]);
}

#[test]
fn words_are_whole() {
    assert_eq!(lines_of("unsafe_code\n unsafe {}", "unsafe"), [2]);
    assert_eq!(lines_of("global_asm!()\nasm!()", "asm!"), [2]);
}
