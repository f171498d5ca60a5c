//! What `info` says to people.

use super::Info;
use crate::escape::name;
use crate::report::spell::{push_date, push_duration};
use std::fmt::Write;

/// Threads that are listed; JSON has all.
const MOST_THREADS: usize = 20;

pub(super) fn spell(info: &Info) -> String {
    let mut out = String::new();
    write(&mut out, info).expect("writing to a string does not fail");
    out
}

fn write(out: &mut String, info: &Info) -> std::fmt::Result {
    let p = &info.program;
    let command: Vec<String> =
        std::iter::once(&p.exe).chain(&p.args).map(|word| name(word)).collect();
    let program = if p.name.is_empty() { "(unknown)".into() } else { name(&p.name) };
    write!(out, "program   {program}")?;
    if p.pid != 0 {
        write!(out, ", pid {}", p.pid)?;
    }
    writeln!(out, "{}{}", if p.exe.is_empty() { "" } else { ", " }, command.join(" ").trim_end())?;
    if !p.patching.is_empty() {
        writeln!(out, "switched  by {}", name(&p.patching))?;
    }
    match (info.begin_ns, info.end_ns) {
        (Some(begin), Some(end)) => {
            writeln!(out, "recorded  {}, for {}", moment(begin), duration(end - begin))?;
        }
        _ => writeln!(out, "recorded  nothing")?,
    }
    writeln!(out, "events    {}", grouped(info.events))?;
    writeln!(out, "lost      {}", grouped(info.lost))?;
    if info.throttled > 0 {
        writeln!(out, "throttled {}", grouped(info.throttled))?;
    }
    writeln!(
        out,
        "size      {} bytes, {} packets, {} streams",
        grouped(info.bytes),
        grouped(info.packets),
        grouped(info.streams)
    )?;
    writeln!(out, "clock     {}, {} Hz", info.clock.source, grouped(info.clock.freq_hz))?;
    let complete = if info.complete { "yes" } else { "no" };
    match info.ended.as_str() {
        "" => writeln!(out, "complete  {complete}")?,
        ended => writeln!(out, "complete  {complete}, ended by {}", name(ended))?,
    }
    write_tables(out, info)?;
    let notes = info.contradictions.iter().cloned();
    let notes = notes.chain(info.holdouts.iter().map(|h| format!("still writing: {}", name(h))));
    let notes = notes.chain(info.damage.iter().map(|d| d.to_string()));
    for (i, note) in notes.enumerate() {
        writeln!(out, "{}warning: {note}", if i == 0 { "\n" } else { "" })?;
    }
    Ok(())
}

fn write_tables(out: &mut String, info: &Info) -> std::fmt::Result {
    let shown: Vec<_> =
        info.per_event.iter().filter(|e| e.events > 0 || e.lost > 0 || e.throttled > 0).collect();
    if !shown.is_empty() {
        let throttled = if info.throttled > 0 { "       throttled" } else { "" };
        writeln!(out, "\n{:>15} {:>15}{throttled}  event", "events", "lost")?;
    }
    for e in &shown {
        write!(out, "{:>15} {:>15}", grouped(e.events), grouped(e.lost))?;
        if info.throttled > 0 {
            write!(out, " {:>15}", grouped(e.throttled))?;
        }
        writeln!(out, "  {}", name(&e.name))?;
    }
    let never = info.per_event.len() - shown.len();
    if never > 0 {
        let were = if never == 1 { "event was" } else { "events were" };
        writeln!(
            out,
            "{}{never} {were} on but {}",
            if shown.is_empty() { "\n" } else { "" },
            if info.damage.is_empty() { "never hit" } else { "not in what can be read" },
        )?;
    }
    if !info.threads.is_empty() {
        writeln!(out, "\n{:>15} {:>15}  thread", "events", "tid")?;
    }
    for t in info.threads.iter().take(MOST_THREADS) {
        writeln!(out, "{:>15} {:>15}  {}", grouped(t.events), t.tid, name(&t.name))?;
    }
    if let Some(more) = info.threads.len().checked_sub(MOST_THREADS).filter(|&n| n > 0) {
        writeln!(out, "and {more} threads more (--json lists them)")?;
    }
    Ok(())
}

/// `2026-01-02 03:04:05.000000000 UTC`
pub(super) fn moment(ns: u64) -> String {
    let second = ns / 1_000_000_000;
    let mut date = Vec::new();
    push_date(second / 86_400, &mut date);
    let (h, m, s) = (second / 3600 % 24, second / 60 % 60, second % 60);
    let nanos = ns % 1_000_000_000;
    format!("{} {h:02}:{m:02}:{s:02}.{nanos:09} UTC", String::from_utf8_lossy(&date))
}

fn duration(ns: u64) -> String {
    let mut out = Vec::new();
    push_duration(ns, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// Digits in groups of three.
///
/// ```
/// assert_eq!(gracepoint_analysis::info::grouped(1_234_567), "1,234,567");
/// ```
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}
