//! One line of a log without what transports put before it: time, caller, level, host, quoting.

/// Who printed the line, where the kernel says so (`CONFIG_PRINTK_CALLER`): lines of different
/// callers interleave, lines of one caller are in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Tag {
    /// The log does not say.
    None,
    /// `[ T12]`: a task.
    Task(u32),
    /// `[ C1]`: an interrupt on a CPU.
    Cpu(u32),
}

/// A line, taken apart.
#[derive(Debug)]
pub(super) struct Line<'a> {
    /// From 1.
    pub(super) number: u32,
    /// Microseconds since boot.
    pub(super) time: Option<u64>,
    pub(super) tag: Tag,
    /// What the kernel printed. Spaces at its start mean something.
    pub(super) body: &'a [u8],
}

impl<'a> Line<'a> {
    /// Takes the line apart that has this number.
    pub(super) fn new(number: u32, raw: &'a [u8]) -> Line<'a> {
        let mut line = Line { number, time: None, tag: Tag::None, body: trim_end(raw) };
        // Each round removes one layer; a log that went through many hands has few more.
        for _ in 0..8 {
            if !line.strip_one() {
                break;
            }
        }
        line
    }

    fn strip_one(&mut self) -> bool {
        let body = self.body;
        match body.first() {
            Some(b'[') => self.strip_bracket(),
            Some(b'<') => match number_before(&body[1..], b'>') {
                Some((_, rest)) => self.go(rest),
                None => false,
            },
            Some(b'>') => self.go(trim_one_space(&body[1..])),
            Some(b'*') if body.starts_with(b"** ") => match find(body, b"dropped ** ") {
                Some(at) => self.go(&body[at + 11..]),
                None => false,
            },
            Some(b' ' | b'\t') => false,
            Some(b'0'..=b'9') if self.time.is_none() => {
                self.strip_netconsole() || self.strip_host()
            }
            _ if self.time.is_none() => self.strip_host(),
            _ => false,
        }
    }

    fn go(&mut self, rest: &'a [u8]) -> bool {
        self.body = rest;
        true
    }

    /// `[  12.345678] `, `[   T12]`, `[    C1]`, `[T12@C0]`, `[    C0][ T12]`.
    fn strip_bracket(&mut self) -> bool {
        let Some(end) = self.body.iter().take(40).position(|&b| b == b']') else { return false };
        let inside = trim(&self.body[1..end]);
        let rest = &self.body[end + 1..];
        if let Some(time) = parse_time(inside) {
            if self.time.is_some() {
                return false;
            }
            self.time = Some(time);
        } else if let Some(tag) = parse_tag(inside) {
            self.tag = tag;
        } else {
            return false;
        }
        // The next bracket follows at once; a body follows after one space.
        let spaced = trim_one_space(rest);
        let more = spaced.first() == Some(&b'[')
            && spaced[1..].iter().take(12).find(|b| **b != b' ').is_some_and(|b| b"TC".contains(b));
        self.go(if more || rest.first() == Some(&b'[') { trim_start(rest) } else { spaced })
    }

    /// `6,3806,123456,-;text`: `/dev/kmsg` and extended netconsole.
    fn strip_netconsole(&mut self) -> bool {
        let body = self.body;
        let Some(end) = body.iter().take(80).position(|&b| b == b';') else { return false };
        let mut fields = body[..end].split(|&b| b == b',');
        let (level, sequence) = (fields.next().and_then(number), fields.next().and_then(number));
        let time = fields.next().and_then(number);
        if level.is_none() || sequence.is_none() || time.is_none() {
            return false;
        }
        self.time = time;
        for field in fields {
            if let Some(caller) = field.strip_prefix(b"caller=") {
                self.tag = parse_tag(caller).unwrap_or(self.tag);
            }
        }
        self.go(&body[end + 1..])
    }

    /// `Nov 21 05:06:14 host kernel: text`, the journal's ISO dates, `login: [ 1.2] text`.
    fn strip_host(&mut self) -> bool {
        let head = &self.body[..self.body.len().min(120)];
        if let Some(at) = find(head, b" kernel: ") {
            return self.go(&self.body[at + 9..]);
        }
        if let Some(at) = find(head, b"login: [") {
            return self.go(&self.body[at + 7..]);
        }
        false
    }
}

fn parse_time(text: &[u8]) -> Option<u64> {
    let dot = text.iter().position(|&b| b == b'.')?;
    let (seconds, fraction) = (number(&text[..dot])?, &text[dot + 1..]);
    if fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let scale = 10u64.checked_pow(9 - u32::try_from(fraction.len()).ok()?)?;
    let nanos = number(fraction)?.checked_mul(scale)?;
    seconds.checked_mul(1_000_000)?.checked_add(nanos / 1000)
}

fn parse_tag(text: &[u8]) -> Option<Tag> {
    let (kind, rest) = text.split_first()?;
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    let id = u32::try_from(number(&rest[..digits])?).ok()?;
    match (kind, rest.get(digits)) {
        (b'T', None | Some(b'@' | b'/')) => Some(Tag::Task(id)),
        (b'C', None) => Some(Tag::Cpu(id)),
        _ => None,
    }
}

/// `12>rest`, with at most 3 digits.
fn number_before(text: &[u8], end: u8) -> Option<(u64, &[u8])> {
    let at = text.iter().take(4).position(|&b| b == end)?;
    Some((number(&text[..at])?, &text[at + 1..]))
}

/// A decimal number and nothing else.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0, |n, b| n * 10 + u64::from(b - b'0')))
}

/// The decimal number that `text` begins with, and what follows it.
pub(super) fn leading_number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
    Some((number(&text[..digits])?, &text[digits..]))
}

/// Where `needle` begins in `text`.
pub(super) fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(text, needle)
}

/// What follows `needle` in `text`.
pub(super) fn after<'a>(text: &'a [u8], needle: &[u8]) -> Option<&'a [u8]> {
    find(text, needle).map(|at| &text[at + needle.len()..])
}

/// What stands between two needles.
pub(super) fn between<'a>(text: &'a [u8], from: &[u8], to: &[u8]) -> Option<&'a [u8]> {
    let rest = after(text, from)?;
    find(rest, to).map(|at| &rest[..at])
}

fn trim_one_space(text: &[u8]) -> &[u8] {
    text.strip_prefix(b" ").unwrap_or(text)
}

fn is_blank(b: u8) -> bool {
    b.is_ascii_whitespace() || b == 0
}

/// Without blanks and NUL bytes at its start.
pub(super) fn trim_start(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|&&b| is_blank(b)).count();
    &text[blanks..]
}

/// Without blanks and NUL bytes at its end.
pub(super) fn trim_end(text: &[u8]) -> &[u8] {
    let blanks = text.iter().rev().take_while(|&&b| is_blank(b)).count();
    &text[..text.len() - blanks]
}

/// Without blanks and NUL bytes at both ends.
pub(super) fn trim(text: &[u8]) -> &[u8] {
    trim_end(trim_start(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transports_are_taken_off() {
        type Case<'a> = (&'a [u8], Option<u64>, Tag, &'a [u8]);
        let cases: [Case<'_>; 10] = [
            (b"[   12.345678] hello", Some(12_345_678), Tag::None, b"hello"),
            (b"[   12.345678][  T30]  f+0x1/0x2", Some(12_345_678), Tag::Task(30), b" f+0x1/0x2"),
            (b"[   12.345678][    C1] x\r", Some(12_345_678), Tag::Cpu(1), b"x"),
            (b"<6>[    1.000000] x", Some(1_000_000), Tag::None, b"x"),
            (b"> [    1.000000] x", Some(1_000_000), Tag::None, b"x"),
            (b"6,3806,99,-;x", Some(99), Tag::None, b"x"),
            (b"6,3806,99,-,caller=T12;x", Some(99), Tag::Task(12), b"x"),
            (b"Nov 21 05:06:14 box kernel: [    2.000000] x", Some(2_000_000), Tag::None, b"x"),
            (b"2026-11-21T05:06:14+0000 box kernel: x", None, Tag::None, b"x"),
            (b" [<ffffffff8100>] f+0x1/0x2", None, Tag::None, b" [<ffffffff8100>] f+0x1/0x2"),
        ];
        for (raw, time, tag, body) in cases {
            let line = Line::new(1, raw);
            assert_eq!((line.time, line.tag, line.body), (time, tag, body));
        }
    }
}
