//! A histogram as bars.

use super::buckets::{FINE, ONE, edges};
use super::{Counts, Group, Hist, Scalar};
use crate::escape::name;
use crate::info::grouped;
use std::fmt::Write;

/// Groups that are drawn; JSON has all.
const MOST_GROUPS: usize = 16;
/// Rows without a value that are drawn between two that have some.
const MOST_EMPTY: i64 = 8;

pub(super) fn spell(hist: &Hist, width: usize) -> String {
    let mut out = String::new();
    write(&mut out, hist, width).expect("writing to a string does not fail");
    out
}

fn write(out: &mut String, hist: &Hist, width: usize) -> std::fmt::Result {
    if hist.groups.is_empty() {
        writeln!(out, "{} {}: no values", name(&hist.event), name(&hist.field))?;
    }
    for (i, group) in hist.groups.iter().take(MOST_GROUPS).enumerate() {
        out.push_str(if i > 0 { "\n" } else { "" });
        write_group(out, hist, group, width)?;
    }
    if let Some(more) = hist.groups.len().checked_sub(MOST_GROUPS).filter(|&n| n > 0) {
        writeln!(out, "\nand {more} groups more (--json lists them)")?;
    }
    if hist.skipped > 0 {
        writeln!(out, "\n{} values were none and are not counted", grouped(hist.skipped))?;
    }
    if hist.unpaired > 0 {
        let n = grouped(hist.unpaired);
        writeln!(out, "\n{n} spans have no end, or no begin, in the trace and are not counted")?;
    }
    Ok(())
}

fn write_group(out: &mut String, hist: &Hist, group: &Group, width: usize) -> std::fmt::Result {
    write!(out, "{} {}", name(&hist.event), name(&hist.field))?;
    if let (Some(by), Some(key)) = (&hist.by, &group.key) {
        write!(out, ", {} = {key}", name(by))?;
    }
    let counts = &group.counts;
    write!(out, "\n  count {}", grouped(counts.count()))?;
    let show = |value: Option<Scalar>| value.map_or_else(String::new, |v| short(v, hist.unit));
    for (label, value) in [
        ("min", counts.min()),
        ("p50", counts.percentile(0.5)),
        ("p90", counts.percentile(0.9)),
        ("p99", counts.percentile(0.99)),
        ("max", counts.max()),
    ] {
        write!(out, "  {label} {}", show(value))?;
    }
    out.push('\n');
    write_bars(out, counts, hist.unit, width)
}

fn write_bars(out: &mut String, counts: &Counts, unit: &str, width: usize) -> std::fmt::Result {
    // Powers of two, or finer where the values lie close together.
    let bits = [FINE, 3, 2].into_iter().find(|&bits| counts.rows(1 << bits).len() >= 5);
    let step = 1 << bits.unwrap_or(1);
    let rows = counts.rows(step);
    let most = rows.iter().map(|r| r.1).max().unwrap_or(1).max(1);
    let whole = matches!(counts.max(), Some(Scalar::Whole(_)));
    let label = |row: i64| {
        let (from, to) = edges(row, step);
        let edge = |v: f64| match whole {
            true if v.abs() < 1e18 => short(Scalar::Whole(v.ceil() as i128), unit),
            _ => short(Scalar::Real(v), unit),
        };
        format!("{} .. {}", edge(from), edge(to))
    };
    let labels = rows.iter().map(|r| label(r.0).len()).max().unwrap_or(0);
    let digits = grouped(most).len();
    let room = width.saturating_sub(labels + digits + 7).clamp(10, 60);
    let mut next = None;
    for (row, n) in rows {
        let empty = next.map_or(0, |next| (row - next) / step);
        if empty > MOST_EMPTY {
            writeln!(out, "  {:>labels$}", "...")?;
        } else {
            for i in (1..=empty).rev() {
                writeln!(out, "  {:>labels$}  {:>digits$}  |", label(row - i * step), 0)?;
            }
        }
        // Between 0 and 1 lie a thousand rows, none of which holds an integer.
        let one = ONE.div_euclid(step) * step;
        next = Some(if whole && row == 0 { one } else { row + step });
        let bar = (n as f64 / most as f64 * room as f64).round().max(1.0) as usize;
        let (label, n) = (label(row), grouped(n));
        writeln!(out, "  {label:>labels$}  {n:>digits$}  |{}", "#".repeat(bar))?;
    }
    Ok(())
}

/// Four digits at least, in the unit that suits a length of time.
fn short(value: Scalar, unit: &str) -> String {
    if unit != "ns" {
        return match value {
            Scalar::Whole(n) => n.to_string(),
            Scalar::Real(n) if n != 0.0 && !(1e-3..1e9).contains(&n.abs()) => format!("{n:.3e}"),
            Scalar::Real(n) => format!("{n:.3}"),
        };
    }
    let ns = value.as_f64();
    let (scale, name) = match ns {
        _ if ns < 1e3 => return format!("{ns:.0}ns"),
        _ if ns < 1e6 => (1e3, "us"),
        _ if ns < 1e9 => (1e6, "ms"),
        _ => (1e9, "s"),
    };
    let n = ns / scale;
    let decimals = if n < 10.0 { 2 } else { usize::from(n < 100.0) };
    format!("{n:.decimals$}{name}")
}
