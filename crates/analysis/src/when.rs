//! Moments as people type them: absolute, as a report prints them, or relative to a trace.

use std::str::FromStr;

const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400 * SECOND;

/// A moment of a trace.
///
/// | spelled | means |
/// |---|---|
/// | `2026-01-02T03:04:05.678`, `2026-01-02 03:04` | date and time, UTC; a `Z` may follow |
/// | `2026-01-02` | the beginning of that day, UTC |
/// | `03:04:05.678`, `03:04` | time of day, UTC, on the day of the trace's first event, or on the next where the trace goes on past midnight |
/// | `@1767323045.678` | seconds since 1970 |
/// | `+1.5s`, `+200ms` | after the first event |
/// | `-10s` | before the trace's end |
///
/// Units are `ns`, `us`, `ms`, `s`, `m` and `h`. Up to nine digits after a point count.
///
/// ```
/// use gracepoint_analysis::when::When;
/// assert_eq!("2026-01-02T03:04:05.5".parse(), Ok(When::Real(1_767_323_045_500_000_000)));
/// assert_eq!("+1.5s".parse(), Ok(When::AfterBegin(1_500_000_000)));
/// assert!("tomorrow".parse::<When>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Nanoseconds since 1970.
    Real(u64),
    /// Nanoseconds since midnight, UTC.
    OfDay(u64),
    /// Nanoseconds after the first event.
    AfterBegin(u64),
    /// Nanoseconds before the trace's end.
    BeforeEnd(u64),
}

impl When {
    /// The moment in nanoseconds since 1970, of a trace from `begin` to `end`.
    pub(crate) fn real(self, begin: u64, end: u64) -> u64 {
        match self {
            When::Real(ns) => ns,
            When::OfDay(ns) => {
                let first = begin - begin % DAY + ns;
                let next = first.saturating_add(DAY);
                if first < begin && next <= end { next } else { first }
            }
            When::AfterBegin(ns) => begin.saturating_add(ns),
            When::BeforeEnd(ns) => end.saturating_sub(ns),
        }
    }
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<When, String> {
        parse(text).ok_or_else(|| {
            format!(
                "`{text}` is no moment; write 2026-01-02T03:04:05.5, 03:04:05.5 or @1767323045.5 \
                 (UTC), or +1.5s after the first event, or -200ms before the end"
            )
        })
    }
}

fn parse(text: &str) -> Option<When> {
    if let Some(length) = text.strip_prefix('+') {
        return length_ns(length).map(When::AfterBegin);
    }
    if let Some(length) = text.strip_prefix('-') {
        return length_ns(length).map(When::BeforeEnd);
    }
    if let Some(seconds) = text.strip_prefix('@') {
        return decimal(seconds, SECOND).map(When::Real);
    }
    let text = text.strip_suffix('Z').unwrap_or(text);
    match text.split_once(['T', ' ']) {
        Some((date, time)) => {
            days(date)?.checked_mul(DAY)?.checked_add(of_day(time)?).map(When::Real)
        }
        None if text.contains(':') => of_day(text).map(When::OfDay),
        None => days(text)?.checked_mul(DAY).map(When::Real),
    }
}

/// `1.5s` in nanoseconds.
fn length_ns(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let unit = match &text[end..] {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => SECOND,
        "m" | "min" => 60 * SECOND,
        "h" => 3600 * SECOND,
        _ => return None,
    };
    decimal(&text[..end], unit)
}

/// `12.345` times `unit`, exact to the ninth digit after the point.
fn decimal(text: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.is_empty() || fraction.len() > 9 || whole.is_empty() {
        return None;
    }
    let billionths: u64 = digits(fraction)? * 10_u64.pow(9 - fraction.len() as u32);
    let part = u128::from(billionths) * u128::from(unit) / 1_000_000_000;
    digits(whole)?.checked_mul(unit)?.checked_add(u64::try_from(part).ok()?)
}

/// A number without a sign, which `u64` would take.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// `03:04`, `03:04:05.678` in nanoseconds since midnight.
fn of_day(text: &str) -> Option<u64> {
    let mut parts = text.splitn(3, ':');
    let hours = digits(parts.next()?).filter(|&h| h < 24)?;
    let minutes = digits(parts.next()?).filter(|&m| m < 60)?;
    // 60 s is a leap second, which Unix time does not have.
    let rest = decimal(parts.next().unwrap_or("0"), SECOND).filter(|&ns| ns < 60 * SECOND)?;
    Some((hours * 60 + minutes) * 60 * SECOND + rest)
}

/// `2026-01-02` in days since 1970; the Gregorian calendar in eras of 400 years that begin in March.
fn days(text: &str) -> Option<u64> {
    let mut parts = text.splitn(3, '-');
    let mut part = |length| digits(parts.next().filter(|p| p.len() == length)?);
    let (year, month, day) = (part(4)?, part(2)?, part(2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let longest = match month {
        2 => 28 + u64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=longest).contains(&day) {
        return None;
    }
    let (year, month) =
        if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let (era, year) = (year / 400, year % 400);
    (era * 146_097 + year * 365 + year / 4 - year / 100 + day_of_year).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::spell::push_date;

    #[test]
    fn moments_are_read() {
        let start = 1_767_323_045 * SECOND;
        for (text, want) in [
            ("2026-01-02T03:04:05", When::Real(start)),
            ("2026-01-02 03:04:05.000000001Z", When::Real(start + 1)),
            ("2026-01-02T03:04", When::Real(start - 5 * SECOND)),
            ("2026-01-02", When::Real(1_767_312_000 * SECOND)),
            ("1970-01-01", When::Real(0)),
            ("2024-02-29", When::Real(1_709_164_800 * SECOND)),
            ("@1767323045.25", When::Real(start + SECOND / 4)),
            ("03:04:05.5", When::OfDay(11_045_500_000_000)),
            ("+90m", When::AfterBegin(5400 * SECOND)),
            ("-1.5us", When::BeforeEnd(1500)),
            ("-0.5ns", When::BeforeEnd(0)),
        ] {
            assert_eq!(text.parse(), Ok(want), "{text}");
        }
        for text in [
            "",
            "5s",
            "+5",
            "+s",
            "+-5s",
            "@",
            "@1.",
            "@+1",
            "24:00",
            "12:60",
            "12:00:60",
            "2026-13-01",
            "2026-02-29",
            "2026-1-2",
            "1969-12-31",
            "2026-01-02T",
            "9999-12-31",
            "+1.0000000001s",
            "12",
            "+99999999999999999999s",
            "ü",
            "-",
        ] {
            assert!(text.parse::<When>().is_err(), "{text}");
        }
    }

    #[test]
    fn dates_come_back() {
        for day in (0..213_000).step_by(13) {
            let mut text = Vec::new();
            push_date(day, &mut text);
            assert_eq!(days(std::str::from_utf8(&text).unwrap()), Some(day));
        }
    }

    #[test]
    fn a_time_of_day_is_of_the_trace() {
        let begin = 20_000 * DAY + 23 * 3600 * SECOND;
        let at = |hour: u64, end| When::OfDay(hour * 3600 * SECOND).real(begin, begin + end);
        assert_eq!(at(23, SECOND), begin);
        assert_eq!(at(22, SECOND), begin - 3600 * SECOND, "before the trace");
        assert_eq!(at(1, 3 * 3600 * SECOND), begin + 2 * 3600 * SECOND, "past midnight");
        assert_eq!(When::BeforeEnd(u64::MAX).real(5, 9), 0);
    }
}
