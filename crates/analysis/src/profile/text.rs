//! A profile as text for people, and as JSON.

use super::Profile;
use std::fmt::Write;

/// Functions that are shown.
const MOST_FUNCTIONS: usize = 40;
/// Threads and spans that are shown.
const MOST_ROWS: usize = 30;

fn percent(part: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { part as f64 * 100.0 / of as f64 }
}

fn ms(ns: u64) -> String {
    format!("{:.1}", ns as f64 / 1e6)
}

impl Profile {
    /// Tables: functions, threads, spans.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let _ = write!(
            text,
            "{} samples, {} ms of CPU time, {:.1} % of it in the kernel",
            self.samples,
            ms(self.cpu_ns),
            percent(self.kernel_ns, self.cpu_ns)
        );
        if self.lost > 0 {
            // The kernel counts what found no room in its rings, and not what it was.
            let what = if self.knows_off_cpu { "records (samples, switches)" } else { "samples" };
            let _ = write!(text, "; {} {what} lost", self.lost);
        }
        text.push('\n');
        if !self.functions.is_empty() {
            let _ =
                writeln!(text, "\n{:>7} {:>7} {:>11}  FUNCTION", "SELF %", "TOTAL %", "SELF MS");
        }
        for function in self.functions.iter().take(MOST_FUNCTIONS) {
            let _ = writeln!(
                text,
                "{:>7.2} {:>7.2} {:>11}  {}",
                percent(function.self_ns, self.cpu_ns),
                percent(function.total_ns, self.cpu_ns),
                ms(function.self_ns),
                function.name
            );
        }
        more(&mut text, self.functions.len(), MOST_FUNCTIONS, "functions");
        self.threads_to_text(&mut text);
        self.spans_to_text(&mut text);
        for (path, why) in &self.unnamed {
            let _ = writeln!(text, "\nno names of functions of {path}: it {why}");
        }
        text
    }

    fn threads_to_text(&self, text: &mut String) {
        if !self.threads.is_empty() {
            let _ = writeln!(
                text,
                "\n{:>7} {:>11} {:>11} {:>11}  THREAD",
                "CPU %", "CPU MS", "RUNNABLE MS", "BLOCKED MS"
            );
        }
        // What is not known is not 0.
        let off = |ns: u64| if self.knows_off_cpu { ms(ns) } else { "-".to_owned() };
        for time in self.threads.iter().take(MOST_ROWS) {
            let _ = writeln!(
                text,
                "{:>7.2} {:>11} {:>11} {:>11}  {}/{}",
                percent(time.cpu_ns, self.cpu_ns),
                ms(time.cpu_ns),
                off(time.runnable_ns),
                off(time.blocked_ns),
                time.thread,
                time.tid
            );
        }
        more(text, self.threads.len(), MOST_ROWS, "threads");
        if !self.knows_off_cpu {
            let _ = writeln!(
                text,
                "the program sampled itself, so times off the CPUs are not known: only the kernel sees switches \
                 (perf events: the program's own user and kernel.perf_event_paranoid at most 2, or CAP_PERFMON)"
            );
        }
    }

    fn spans_to_text(&self, text: &mut String) {
        if !self.spans.is_empty() {
            let _ = writeln!(
                text,
                "\n{:>7} {:>11} {:>11}  INNERMOST SPAN",
                "CPU %", "CPU MS", "OFF MS"
            );
        }
        let off = |ns: u64| if self.knows_off_cpu { ms(ns) } else { "-".to_owned() };
        for time in self.spans.iter().take(MOST_ROWS) {
            let _ = writeln!(
                text,
                "{:>7.2} {:>11} {:>11}  {}",
                percent(time.cpu_ns, self.cpu_ns),
                ms(time.cpu_ns),
                off(time.off_ns),
                time.span
            );
        }
        more(text, self.spans.len(), MOST_ROWS, "spans");
    }

    /// One object.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn more(text: &mut String, all: usize, shown: usize, what: &str) {
    if all > shown {
        let _ = writeln!(text, "… and {} more {what}: --json has them all", all - shown);
    }
}
