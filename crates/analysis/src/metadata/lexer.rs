//! Words of TSDL: identifiers, numbers, strings, punctuation; comments are skipped. Literals borrow
//! nothing, so that the parser may keep them.

use crate::{Error, Result};

/// One word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Ident(String),
    /// Magnitude; a minus before it is punctuation.
    Int(u64),
    Str(String),
    /// One of `{ } [ ] ( ) < > ; , . : = - := ...`.
    Punct(&'static str),
}

const PUNCTUATION: [&str; 16] =
    ["...", ":=", "{", "}", "[", "]", "(", ")", "<", ">", ";", ",", ".", ":", "=", "-"];

/// Splits text into words, one at a time.
pub(super) struct Lexer<'a> {
    rest: &'a [u8],
    line: u32,
    word_line: u32,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a [u8]) -> Lexer<'a> {
        Lexer { rest: text, line: 1, word_line: 1 }
    }

    /// The next word; `None` at the end.
    pub(super) fn next_word(&mut self) -> Result<Option<Token>> {
        let more = self.skip_blank()?;
        self.word_line = self.line;
        if more { self.word().map(Some) } else { Ok(None) }
    }

    /// The line on which the last word began.
    pub(super) fn word_line(&self) -> u32 {
        self.word_line
    }

    fn error(&self, what: &str) -> Error {
        Error::new(format!("metadata line {}: {what}", self.line))
    }

    fn take(&mut self, n: usize) -> &'a [u8] {
        let (head, tail) = self.rest.split_at(n.min(self.rest.len()));
        self.line += head.iter().filter(|&&b| b == b'\n').count() as u32;
        self.rest = tail;
        head
    }

    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let n = self.rest.iter().position(|&b| !wanted(b)).unwrap_or(self.rest.len());
        self.take(n)
    }

    /// Skips blanks and comments; false at the end.
    fn skip_blank(&mut self) -> Result<bool> {
        loop {
            self.take_while(|b| b.is_ascii_whitespace());
            if self.rest.starts_with(b"/*") {
                let end = self.rest.windows(2).skip(2).position(|w| w == b"*/");
                let end = end.ok_or_else(|| self.error("a comment has no end"))?;
                self.take(end + 4);
            } else if self.rest.starts_with(b"//") {
                self.take_while(|b| b != b'\n');
            } else {
                return Ok(!self.rest.is_empty());
            }
        }
    }

    fn word(&mut self) -> Result<Token> {
        match self.rest.first().copied().unwrap_or_default() {
            b'"' => self.string(),
            b'0'..=b'9' => self.number(),
            b if is_ident(b) => {
                let ident = self.take_while(is_ident);
                Ok(Token::Ident(String::from_utf8_lossy(ident).into_owned()))
            }
            b => {
                let found = PUNCTUATION.iter().find(|p| self.rest.starts_with(p.as_bytes()));
                let Some(p) = found else {
                    return Err(self.error(&format!("byte {b:#04x} is not TSDL")));
                };
                self.take(p.len());
                Ok(Token::Punct(p))
            }
        }
    }

    fn number(&mut self) -> Result<Token> {
        let text = String::from_utf8_lossy(self.take_while(|b| b.is_ascii_alphanumeric()));
        let digits = text.trim_end_matches(['u', 'U', 'l', 'L']);
        let value = match digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
            Some(hex) => u64::from_str_radix(hex, 16),
            None if digits.len() > 1 && digits.starts_with('0') => {
                u64::from_str_radix(&digits[1..], 8)
            }
            None => digits.parse(),
        };
        value.map(Token::Int).map_err(|_| self.error(&format!("{text:?} is not a number")))
    }

    fn string(&mut self) -> Result<Token> {
        self.take(1);
        let mut out = Vec::new();
        loop {
            match self.take(1) {
                b"\"" => break,
                b"\\" => match self.take(1) {
                    b"n" => out.push(b'\n'),
                    b"t" => out.push(b'\t'),
                    [other] => out.push(*other),
                    _ => return Err(self.error("a string has no end")),
                },
                [other] => out.push(*other),
                _ => return Err(self.error("a string has no end")),
            }
        }
        Ok(Token::Str(String::from_utf8_lossy(&out).into_owned()))
    }
}

/// Rust identifiers may hold letters of any script.
fn is_ident(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &[u8]) -> Result<Vec<(Token, u32)>> {
        let mut lexer = Lexer::new(text);
        let mut out = Vec::new();
        while let Some(word) = lexer.next_word()? {
            out.push((word, lexer.word_line()));
        }
        Ok(out)
    }

    #[test]
    fn words_and_lines() {
        let text = b"a := \"x\\\"y\" /* c\n */ 0x1F ... 7 // end\n;";
        let got = words(text).unwrap();
        let want = [
            (Token::Ident("a".into()), 1),
            (Token::Punct(":="), 1),
            (Token::Str("x\"y".into()), 1),
            (Token::Int(31), 2),
            (Token::Punct("..."), 2),
            (Token::Int(7), 2),
            (Token::Punct(";"), 3),
        ];
        assert_eq!(got, want);
        for bad in ["/* x", "\"x", "\"x\\", "99999999999999999999", "9z", "@"] {
            assert!(words(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
