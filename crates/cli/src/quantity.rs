//! Durations and sizes as people type and read them.

use std::time::Duration;

/// `2s`, `500ms`, `1.5m`, `1h`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is not a length of time; write 2s, 500ms, 1m or 1h");
    let (number, unit) = split(text);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(bad()),
    };
    let number: f64 = number.parse().map_err(|_| bad())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| bad())
}

/// A length of time after which something is shown anew: no terminal takes it faster.
pub(crate) fn parse_interval(text: &str) -> Result<Duration, String> {
    let length = parse_duration(text)?;
    match length >= Duration::from_millis(10) {
        true => Ok(length),
        false => Err(format!("`{text}` is shorter than 10ms, the shortest interval")),
    }
}

/// `16M`, `64MiB`, `512k`, `1G`, `1048576`. K, M, G and T are powers of 1024.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let bad = || format!("`{text}` is not a size; write 512K, 16M, 64MiB or 1G");
    let (number, unit) = split(text);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err(bad()),
    };
    let number: f64 = number.parse().map_err(|_| bad())?;
    let bytes = number * (1u64 << shift) as f64;
    if !(1.0..=1e15).contains(&bytes) {
        return Err(bad());
    }
    Ok(bytes as u64)
}

fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    text.split_at(end)
}

/// `1,234,567`
pub(crate) use gracepoint_analysis::info::grouped as count;

/// `1 event`, `2 events`.
pub(crate) fn plural(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

/// `45.1 MiB`
pub(crate) fn bytes(n: u64) -> String {
    let mut value = n as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 || unit == "GiB" {
            return if unit == "B" { format!("{n} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    unreachable!("the last unit takes every value")
}

/// How long ago, in one unit: `12s`, `3m`, `5h`, `2d`.
pub(crate) fn age(length: Duration) -> String {
    match length.as_secs() {
        s @ ..120 => format!("{s}s"),
        s @ ..7200 => format!("{}m", s / 60),
        s @ ..172_800 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

/// `2.0 s`, `350 ms`.
pub(crate) fn length(length: Duration) -> String {
    if length < Duration::from_secs(1) {
        format!("{} ms", length.as_millis())
    } else {
        format!("{:.1} s", length.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_interval("10ms"), Ok(Duration::from_millis(10)));
        assert!(parse_interval("0s").unwrap_err().contains("shorter than 10ms"));
        assert!(parse_interval("9.9ms").is_err() && parse_interval("1").is_err());
        assert_eq!(parse_size("64MiB"), Ok(64 << 20));
        assert_eq!(parse_size("512k"), Ok(512 << 10));
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("1T"), Ok(1 << 40));
        for text in ["", "2", "s", "-2s", "1e9s", "1.2.3s", "2x", "99999999999999999999h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        for text in ["", "0", "M", "-1M", "99999999G", "1P"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shown() {
        assert_eq!([count(0), count(999), count(1_234_567)], ["0", "999", "1,234,567"]);
        assert_eq!([bytes(12), bytes(47_290_000)], ["12 B", "45.1 MiB"]);
        assert_eq!(age(Duration::from_secs(7199)), "119m");
        assert_eq!(length(Duration::from_millis(2040)), "2.0 s");
    }
}
