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
    /// Seconds, by a date in front of the line. Where that has no year, of a year like any other.
    pub(super) date: Option<u64>,
    /// Whether something before the text tells when it was printed, be it a date.
    pub(super) stamped: bool,
    pub(super) tag: Tag,
    /// What the kernel printed. Spaces at its start mean something.
    pub(super) body: &'a [u8],
}

impl<'a> Line<'a> {
    /// Takes the line apart that has this number.
    pub(super) fn new(number: u32, raw: &'a [u8]) -> Line<'a> {
        let mut line = Line {
            number,
            time: None,
            date: None,
            stamped: false,
            tag: Tag::None,
            body: trim_end(raw),
        };
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
            // What `wall` shows to everybody.
            Some(b' ') if body.starts_with(b" kernel:[") => self.go(&body[8..]),
            Some(b' ' | b'\t') => false,
            Some(b'0'..=b'9') if self.time.is_none() => {
                self.strip_netconsole() || self.strip_date() || self.strip_host()
            }
            _ if self.time.is_none() => {
                self.strip_facility() || self.strip_host() || self.strip_date()
            }
            _ => false,
        }
    }

    fn go(&mut self, rest: &'a [u8]) -> bool {
        self.body = rest;
        true
    }

    /// `[  12.345678] `, `[   T12]`, `[    C1]`, `[T12@C0]`, `[    C0][ T12]`, and the dates and
    /// differences of `dmesg` and of programs that keep consoles: see [`is_moment`].
    fn strip_bracket(&mut self) -> bool {
        let Some(end) = self.body.iter().take(48).position(|&b| b == b']') else { return false };
        let inside = trim(&self.body[1..end]);
        let rest = &self.body[end + 1..];
        // `[   12.345678 <    0.000001>]`: with the time since the line before.
        let whole = inside.iter().position(|&b| b == b'<').map_or(inside, |at| trim(&inside[..at]));
        if let Some(time) = parse_time(whole) {
            if self.time.is_some() {
                return false;
            }
            self.time = Some(time);
            self.stamped = true;
        } else if let Some(tag) = parse_tag(inside) {
            self.tag = tag;
        } else if self.time.is_none() && is_moment(inside) {
            self.stamped = true;
            self.date = seconds_of(inside).or(self.date);
        } else {
            return false;
        }
        // The next bracket follows at once, or behind blanks; a body follows after one space.
        let next = trim_start(rest);
        let inside = next.strip_prefix(b"[").and_then(|next| {
            let end = next.iter().take(48).position(|&b| b == b']')?;
            Some(trim(&next[..end]))
        });
        let more = inside.is_some_and(|inside| {
            parse_tag(inside).is_some()
                || self.time.is_none() && (parse_time(inside).is_some() || is_moment(inside))
        });
        let at_once = rest.first() == Some(&b'[');
        self.go(if more || at_once { next } else { trim_one_space(rest) })
    }

    /// `2026-11-27T10:00:00,123456+00:00 text`, `Nov 27 10:00:00 text`.
    fn strip_date(&mut self) -> bool {
        match past_date(self.body) {
            Some(rest) if rest.is_empty() || rest.first() == Some(&b' ') => {
                self.stamped = true;
                self.date = seconds_of(self.body).or(self.date);
                self.go(trim_one_space(rest))
            }
            _ => false,
        }
    }

    /// `kern  :err   : text`, of `dmesg -x`.
    fn strip_facility(&mut self) -> bool {
        const LEVELS: [&[u8]; 8] =
            [b"emerg", b"alert", b"crit", b"err", b"warn", b"notice", b"info", b"debug"];
        let colon = |text: &[u8]| text.iter().take(10).position(|&b| b == b':');
        let Some(first) = colon(self.body) else { return false };
        let rest = &self.body[first + 1..];
        let Some(second) = colon(rest).filter(|_| first >= 6) else { return false };
        let facility = trim(&self.body[..first]);
        let named = (3..=8).contains(&facility.len())
            && facility.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !named || !LEVELS.contains(&trim(&rest[..second])) {
            return false;
        }
        self.go(trim_one_space(&rest[second + 1..]))
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
        self.stamped = true;
        for field in fields {
            if let Some(caller) = field.strip_prefix(b"caller=") {
                self.tag = parse_tag(caller).unwrap_or(self.tag);
            }
        }
        self.go(&body[end + 1..])
    }

    /// `Nov 21 05:06:14 host kernel: text`, `host kernel[0]: text`, the journal's ISO dates,
    /// `login: [ 1.2] text`.
    fn strip_host(&mut self) -> bool {
        let head = &self.body[..self.body.len().min(120)];
        for at in memchr::memmem::find_iter(head, b"kernel") {
            let rest = &self.body[at + 6..];
            let rest = match rest.strip_prefix(b"[").and_then(leading_number) {
                Some((_, rest)) => rest.strip_prefix(b"]").unwrap_or_default(),
                None => rest,
            };
            let text = match rest.strip_prefix(b":") {
                Some(text) if text.first() == Some(&b' ') => &text[1..],
                Some(text) if text.first() == Some(&b'[') => text,
                _ => continue,
            };
            if at == 0 || self.body[at - 1] == b' ' {
                self.stamped = true;
                self.date = seconds_of(self.body).or(self.date);
                return self.go(text);
            }
        }
        if let Some(at) = find(head, b"login: [") {
            return self.go(&self.body[at + 7..]);
        }
        false
    }
}

/// The text behind what has this shape: `0` is a digit, `a` a letter, `_` a digit or a blank.
fn past<'a>(text: &'a [u8], shape: &[u8]) -> Option<&'a [u8]> {
    let head = text.get(..shape.len())?;
    let fits = |(byte, want): (&u8, &u8)| match want {
        b'0' => byte.is_ascii_digit(),
        b'a' => byte.is_ascii_alphabetic(),
        b'_' => byte.is_ascii_digit() || *byte == b' ',
        want => byte == want,
    };
    head.iter().zip(shape).all(fits).then(|| &text[shape.len()..])
}

/// The text behind a date, its fraction of a second, and its zone.
fn past_date(text: &[u8]) -> Option<&[u8]> {
    const DATES: [&[u8]; 5] = [
        b"0000-00-00T00:00:00",
        b"0000-00-00 00:00:00",
        b"00:00:00",
        b"aaa _0 00:00:00",
        b"aaa aaa _0 00:00:00 0000",
    ];
    const ZONES: [&[u8]; 5] = [b"Z", b"+00:00", b"-00:00", b"+0000", b"-0000"];
    let rest = DATES.iter().find_map(|shape| past(text, shape))?;
    let fraction = past(rest, b".0").or_else(|| past(rest, b",0"));
    let rest = fraction
        .map_or(rest, |rest| &rest[rest.iter().take_while(|b| b.is_ascii_digit()).count()..]);
    Some(ZONES.iter().find_map(|shape| past(rest, shape)).unwrap_or(rest))
}

/// The seconds of the date that a text begins with: `2026-11-27T10:00:00`, `Nov 27 10:00:00`,
/// `Fri Nov 27 10:00:00 2026`.
fn seconds_of(text: &[u8]) -> Option<u64> {
    const MONTHS: &[u8] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let at = |from: usize, length: usize| number(trim(text.get(from..from + length)?));
    let month_at = |from: usize| {
        let name = text.get(from..from + 3)?;
        let place = MONTHS.chunks_exact(3).position(|month| month == name)?;
        Some(place as u64 + 1)
    };
    let iso = past(text, b"0000-00-00T00:00:00").or_else(|| past(text, b"0000-00-00 00:00:00"));
    let (year, month, day, clock) = if iso.is_some() {
        (at(0, 4)?, at(5, 2)?, at(8, 2)?, 11)
    } else if past(text, b"aaa _0 00:00:00").is_some() {
        // No leap year, so that the end of February is no pause of a day.
        (2001, month_at(0)?, at(4, 2)?, 7)
    } else if past(text, b"aaa aaa _0 00:00:00 0000").is_some() {
        (at(20, 4)?, month_at(4)?, at(8, 2)?, 11)
    } else {
        return None;
    };
    // Days since the first of March of year 0: months from there on begin at these days.
    let (year, month) =
        if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day;
    Some(((days * 24 + at(clock, 2)?) * 60 + at(clock + 3, 2)?) * 60 + at(clock + 6, 2)?)
}

/// What stands in brackets and tells when, other than the time since boot: `Thu Nov 27 10:00:00 2026`,
/// `2026-11-27 10:00:00`, `Nov27 10:00`, and differences: `+0.000001`, `<    0.000001>`.
fn is_moment(inside: &[u8]) -> bool {
    let difference = |text: &[u8]| {
        let text = text.strip_prefix(b"<").and_then(|t| t.strip_suffix(b">")).unwrap_or(text);
        let text = trim(text);
        parse_time(text.strip_prefix(b"+").unwrap_or(text)).is_some()
    };
    let rest = past(inside, b"aaa00 00:00").or_else(|| past_date(inside)).map(trim_start);
    rest.map_or_else(|| difference(inside), |rest| rest.is_empty() || difference(rest))
}

/// Takes out what colours text on a terminal: `dmesg --color` and consoles leave it in logs.
pub(super) fn take_out_colours(line: &mut Vec<u8>) {
    let Some(first) = memchr::memchr(0x1b, line) else { return };
    let (mut from, mut to) = (first, first);
    while from < line.len() {
        let sequence = line[from..].strip_prefix(b"\x1b[").map(|rest| {
            let inside = rest.iter().take(16).take_while(|b| b"0123456789;".contains(b)).count();
            (inside, rest.get(inside))
        });
        if let Some((inside, Some(b'm' | b'K'))) = sequence {
            from += inside + 3;
        } else {
            line[to] = line[from];
            (from, to) = (from + 1, to + 1);
        }
    }
    line.truncate(to);
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
        let cases: &[Case<'_>] = &[
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
            (b"[    1.5] [<ffffffff8100>] f", Some(1_500_000), Tag::None, b"[<ffffffff8100>] f"),
            // dmesg -T, -T -d, -x, -x -T, --time-format=iso, -H, --time-format=delta, -d.
            (b"[Thu Nov 27 10:00:00 2026] x", None, Tag::None, b"x"),
            (b"[Thu Nov  7 10:00:00 2026]  f+0x1/0x2", None, Tag::None, b" f+0x1/0x2"),
            (b"[Thu Nov 27 10:00:00 2026 <    0.000001>] x", None, Tag::None, b"x"),
            (b"kern  :err   : [  100.200000] x", Some(100_200_000), Tag::None, b"x"),
            (b"kern  :err   : [  100.2]  f+0x1/0x2", Some(100_200_000), Tag::None, b" f+0x1/0x2"),
            (b"daemon:warn  : [Thu Nov 27 10:00:00 2026] x", None, Tag::None, b"x"),
            (b"kern  :info  : 2026-11-27T10:00:00,123456+00:00 x", None, Tag::None, b"x"),
            (b"2026-11-27T10:00:00,123456+00:00 x", None, Tag::None, b"x"),
            (b"2026-11-27T10:00:00,123456+00:00  f+0x1/0x2", None, Tag::None, b" f+0x1/0x2"),
            (b"2026-11-27T10:00:00.5Z [    2.0][   T9] x", Some(2_000_000), Tag::Task(9), b"x"),
            (b"[  +0.000001] x", None, Tag::None, b"x"),
            (b"[Nov27 10:00] x", None, Tag::None, b"x"),
            (b"[<    0.000001>] x", None, Tag::None, b"x"),
            (b"[  100.200000 <    0.000001>] x", Some(100_200_000), Tag::None, b"x"),
            // With the number of the process, without a host, from `wall`, from `ts`.
            (b"Nov 21 05:06:14 box kernel[0]: [    2.0] x", Some(2_000_000), Tag::None, b"x"),
            (b"Nov 21 05:06:14 box kernel[0]: x", None, Tag::None, b"x"),
            (b"kernel: [    2.0] x", Some(2_000_000), Tag::None, b"x"),
            (b" kernel:[    2.0] x", Some(2_000_000), Tag::None, b"x"),
            (b"box kernel:[    2.0] x", Some(2_000_000), Tag::None, b"x"),
            (b"Nov 27 10:00:00 [    2.0] x", Some(2_000_000), Tag::None, b"x"),
            // Programs that keep consoles.
            (b"[2026-11-27 10:00:00]  [  100.2] x", Some(100_200_000), Tag::None, b"x"),
            (b"[2026-11-27 10:00:00]  f+0x1/0x2", None, Tag::None, b" f+0x1/0x2"),
            (
                b"[2026-11-27T10:00:00.123Z] <3>[    2.0][    C1] x",
                Some(2_000_000),
                Tag::Cpu(1),
                b"x",
            ),
            (b"[10:00:00.123] [    2.0] x", Some(2_000_000), Tag::None, b"x"),
            (b"2026-11-27 10:00:00 [    2.0] x", Some(2_000_000), Tag::None, b"x"),
            (b"[Thu Nov 27 10:00:00 2026] [    C0] x", None, Tag::Cpu(0), b"x"),
            // What only looks like it.
            (b"[ffff8800] f+0x1/0x2", None, Tag::None, b"[ffff8800] f+0x1/0x2"),
            (b"[drm] x", None, Tag::None, b"[drm] x"),
            (b"kernel BUG at mm/slub.c:5!", None, Tag::None, b"kernel BUG at mm/slub.c:5!"),
            (b"usb 1-1: err: x", None, Tag::None, b"usb 1-1: err: x"),
            (b"[    2.0] 10:00:00 x", Some(2_000_000), Tag::None, b"10:00:00 x"),
        ];
        for &(raw, time, tag, body) in cases {
            let line = Line::new(1, raw);
            let raw = String::from_utf8_lossy(raw);
            assert_eq!((line.time, line.tag, line.body), (time, tag, body), "{raw}");
        }
    }

    #[test]
    fn colours_are_taken_out() {
        let mut line = b"\x1b[32m[    2.0] \x1b[0m\x1b[33mINFO: \x1b[0mtask\x1b[2J\x1b[".to_vec();
        take_out_colours(&mut line);
        assert_eq!(line, b"[    2.0] INFO: task\x1b[2J\x1b[");
        let mut plain = b"plain".to_vec();
        take_out_colours(&mut plain);
        assert_eq!(plain, b"plain");
    }
}
