//! Writes the source of the tracepoints: `points.rs` and a table of their functions.

use std::fmt::Write;
use std::path::Path;

/// As many as the kernel of the machine at hand has events.
const POINTS: usize = 2000;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let mut text = String::new();
    let (mut hits, mut attrs, mut logs) = (String::new(), String::new(), String::new());
    for n in 0..POINTS {
        let _ = writeln!(
            text,
            "#[derive(gracepoint::Event)] #[event(name = \"points:p{n}\")] struct P{n} {{ n: u64 }}
             fn hit{n}(n: u64) {{ gracepoint::trace!(P{n} {{ n }}); }}
             fn attr{n}() -> gracepoint::PerfAttr {{ gracepoint::PerfAttr::tracepoint::<P{n}>() }}
             fn log{n}(n: u64) {{ tracing::trace!(target: \"points\", n); }}"
        );
        let _ = write!(hits, "hit{n}, ");
        let _ = write!(attrs, "attr{n}, ");
        let _ = write!(logs, "log{n}, ");
    }
    let _ = writeln!(
        text,
        "/// Hits a tracepoint each.\npub static HITS: [fn(u64); {POINTS}] = [{hits}];
         /// What a perf event of each counts.\npub static ATTRS: [fn() -> gracepoint::PerfAttr; {POINTS}] = [{attrs}];
         /// Hits a callsite of `tracing` each.\npub static LOGS: [fn(u64); {POINTS}] = [{logs}];"
    );
    let out = std::env::var_os("OUT_DIR").expect("cargo says where to write");
    std::fs::write(Path::new(&out).join("points.rs"), text).expect("a file to write");
}
