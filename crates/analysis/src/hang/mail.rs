//! What a mail program does to a log, undone: quoted-printable text, and lines that were broken
//! because a word did not fit any more.

use super::line::Line;

/// Mail programs break lines so that they fit into this many columns …
const COLUMNS: usize = 80;
/// … or into as few as this.
const NARROW: usize = 70;
/// The longest line of quoted-printable text.
const QUOTED: usize = 76;
/// Longest line that is put together.
const LONGEST: usize = 4096;

/// Takes lines as they stand in the file, gives lines as the kernel printed them.
#[derive(Debug, Default)]
pub(super) struct Unwrapped {
    held: Vec<u8>,
    /// Line of the file at which `held` begins; 0 if there is none.
    first: u32,
    /// Length of the last line of the file that went into `held`.
    last: usize,
    quoted: bool,
    /// The line before ended in a `=` that is no part of it.
    soft: bool,
}

impl Unwrapped {
    /// Takes the next line of the file. Gives the one before, if it has come to its end.
    pub(super) fn line(&mut self, number: u32, raw: &[u8], mut done: impl FnMut(u32, &[u8])) {
        let raw = raw.strip_suffix(b"\r").unwrap_or(raw);
        self.quoted |= is_header(raw) || raw.len() == QUOTED && raw.ends_with(b"=");
        let soft = self.quoted && raw.ends_with(b"=");
        let text = if soft { &raw[..raw.len() - 1] } else { raw };
        let decoded;
        let text = if self.quoted && text.contains(&b'=') {
            decoded = decode(text);
            &decoded[..]
        } else {
            text
        };
        let fits = self.held.len() + text.len() < LONGEST;
        if self.first != 0 && fits && self.soft {
            self.held.extend_from_slice(text);
        } else if self.first != 0 && fits && was_broken(&self.held, self.last, text) {
            self.held.push(b' ');
            self.held.extend_from_slice(unquoted(text));
        } else {
            self.finish(&mut done);
            self.held.extend_from_slice(text);
            self.first = number;
        }
        self.last = text.len();
        self.soft = soft;
    }

    /// Gives the last line.
    pub(super) fn finish(&mut self, mut done: impl FnMut(u32, &[u8])) {
        if self.first != 0 {
            done(self.first, &self.held);
        }
        self.held.clear();
        self.first = 0;
    }
}

fn is_header(line: &[u8]) -> bool {
    line.len() < 80 && line.eq_ignore_ascii_case(b"content-transfer-encoding: quoted-printable")
}

/// `=3D` is `=`.
fn decode(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let pair = after.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        let code = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok());
        match (byte, code) {
            (b'=', Some(code)) => {
                out.push(code);
                rest = &after[2..];
            }
            _ => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}

/// Whether `next` is the rest of `line`: that one has a time or begins as the kernel's long lines do,
/// this one does not, and its first word would not have fitted.
fn was_broken(line: &[u8], last: usize, next: &[u8]) -> bool {
    let next = unquoted(next);
    let begins = next.first().is_some_and(u8::is_ascii_alphanumeric);
    if !begins || !(NARROW / 2..=COLUMNS).contains(&last) {
        return false;
    }
    let word = next.iter().position(|&b| b == b' ').unwrap_or(next.len());
    last + 1 + word > NARROW && is_kernels(line) && !is_kernels(next)
}

fn is_kernels(line: &[u8]) -> bool {
    let line = Line::new(0, line);
    let starts: [&[u8]; 9] = [
        b"INFO: ",
        b"BUG: ",
        b"WARNING: ",
        b"task:",
        b"Workqueue: ",
        b"Call Trace:",
        b"Call trace:",
        b"CPU: ",
        b"Hardware name: ",
    ];
    line.stamped || starts.iter().any(|start| line.body.starts_with(start))
}

/// Without the mark of a quotation.
fn unquoted(line: &[u8]) -> &[u8] {
    let marks = line.iter().take_while(|&&b| b == b'>' || b == b' ').count();
    if line.first() == Some(&b'>') { &line[marks..] } else { line }
}
