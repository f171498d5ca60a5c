//! `tests/kv.trace`, which the examples in the documentation read: a trace of ABI 1 that stays as it
//! is, so that a change that makes old traces unreadable, or writes others, is seen.
//!
//! `GRACEPOINT_BLESS=1 cargo test -p gracepoint-analysis sample` writes it anew, which only a new ABI
//! calls for.

use crate::recording::{Recording, busy};
use gracepoint_analysis::report::{Options, report};
use gracepoint_analysis::{Trace, sidecar};
use std::fs;
use std::path::Path;

const SAMPLE: &str = "tests/kv.trace";

fn bless(recording: &Recording, dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("metadata"), recording.metadata()).unwrap();
    for (slot, bytes) in &recording.streams {
        fs::write(dir.join(format!("stream_{slot}")), bytes).unwrap();
    }
    let mut exact = recording.sidecar();
    exact.lost.insert(16, 12);
    sidecar::write(dir, &exact).unwrap();
    fs::write(dir.with_extension("txt"), spelled(dir)).unwrap();
}

fn spelled(dir: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    report(&Trace::open(dir).unwrap(), &Options::default(), &mut out).unwrap();
    out
}

#[test]
fn the_sample_is_still_what_is_written_and_read() {
    let (dir, recording) = (Path::new(SAMPLE), busy(20));
    if std::env::var_os("GRACEPOINT_BLESS").is_some() {
        bless(&recording, dir);
    }
    let text = fs::read_to_string(dir.join("metadata")).unwrap();
    assert_eq!(text, recording.metadata());
    for (slot, bytes) in &recording.streams {
        assert_eq!(&fs::read(dir.join(format!("stream_{slot}"))).unwrap(), bytes);
    }
    let golden = fs::read(dir.with_extension("txt")).unwrap();
    assert_eq!(String::from_utf8_lossy(&spelled(dir)), String::from_utf8_lossy(&golden));
}
