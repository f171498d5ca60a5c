//! Slow spans as text for people, and as JSON.

use super::{Parts, Slow};
use std::fmt::Write;

/// Spans that are shown one by one.
const MOST_ROWS: usize = 20;
/// Reasons of one span that are shown.
const MOST_REASONS: usize = 3;

fn ms(ns: u64) -> String {
    format!("{:.3}", ns as f64 / 1e6)
}

fn reasons(parts: &Parts) -> Vec<(&str, u64)> {
    let mut reasons: Vec<(&str, u64)> =
        parts.blocked_ns.iter().map(|(why, ns)| (why.as_str(), *ns)).collect();
    reasons.sort_by_key(|(_, ns)| std::cmp::Reverse(*ns));
    reasons
}

impl Slow {
    /// All together, then the slowest.
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "{} of {} spans of {} took {} ms or more\n",
            self.slow,
            self.spans,
            self.event,
            ms(self.over_ns)
        );
        if self.slow == 0 {
            return text;
        }
        let percent = |ns: u64| ns as f64 * 100.0 / self.sum.total_ns.max(1) as f64;
        let _ = writeln!(text, "\n{:>7} {:>12}  WHERE THE TIME OF ALL OF THEM WENT", "%", "MS");
        let mut row = |what: &str, ns: u64| {
            if ns > 0 {
                let _ = writeln!(text, "{:>7.2} {:>12}  {what}", percent(ns), ms(ns));
            }
        };
        row("running", self.sum.running_ns);
        row("runnable, and not on a CPU", self.sum.runnable_ns);
        row("in no thread: its task was not polled", self.sum.outside_ns);
        for (why, ns) in reasons(&self.sum) {
            row(&format!("blocked in {why}"), ns);
        }
        let _ = writeln!(
            text,
            "\n{:>12} {:>12} {:>12} {:>12}  SPAN",
            "MS", "RUNNING", "RUNNABLE", "BLOCKED"
        );
        for one in self.slowest.iter().take(MOST_ROWS) {
            let parts = &one.parts;
            let _ = writeln!(
                text,
                "{:>12} {:>12} {:>12} {:>12}  {}/{} at {}.{:09}",
                ms(parts.total_ns),
                ms(parts.running_ns),
                ms(parts.runnable_ns),
                ms(parts.blocked_ns.values().sum()),
                one.thread,
                one.tid,
                one.begin_ns / 1_000_000_000,
                one.begin_ns % 1_000_000_000,
            );
            if parts.outside_ns > 0 {
                let ns = ms(parts.outside_ns);
                let _ = writeln!(text, "{ns:>52} ms in no thread: its task was not polled");
            }
            for (why, ns) in reasons(parts).into_iter().take(MOST_REASONS) {
                let _ = writeln!(text, "{:>52} ms in {why}", ms(ns));
            }
        }
        if self.slow as usize > MOST_ROWS {
            let _ =
                writeln!(text, "… and {} more: --json has them", self.slow as usize - MOST_ROWS);
        }
        if !self.has_calls {
            text.push_str(
                "\nIn which system calls is not in the trace: record with -k 'syscalls:*'.\n",
            );
        }
        if !self.has_wakers {
            text.push_str(
                "\nWho woke whom is not in the trace: record with -k sched:sched_waking.\n",
            );
        }
        text
    }

    /// One object.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
