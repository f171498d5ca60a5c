//! Bytes flipped, cut, doubled and moved at random: whatever comes, nothing panics, hangs or asks
//! for memory beyond the file's own size. `GRACEPOINT_SEED` repeats a run, `GRACEPOINT_TIMES=100`
//! makes it longer.

use crate::recording::{Recording, busy, every_type};
use gracepoint_analysis::report::{Format, Options, report};
use gracepoint_analysis::{Trace, hist, info};
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len());
        let n = random.below(64).min(bytes.len() - at);
        match random.below(7) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 if !bytes.is_empty() => bytes[at] = random.next() as u8,
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..at + n)),
            4 => {
                let copy = bytes[at..at + n].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, copy);
            }
            5 => bytes[at..at + n].fill(if random.below(2) == 0 { 0 } else { 0xff }),
            // Where it hurts: the header of the first packet and the first records.
            _ if bytes.len() > 120 => bytes[random.below(120)] = random.next() as u8,
            _ => {}
        }
    }
}

/// Reads all that there is, in each way.
fn read_all(dir: &std::path::Path, seed: u64) {
    let Ok(trace) = Trace::open(dir) else { return };
    let mut out = Vec::new();
    for format in [Format::Text, Format::JsonLines] {
        out.clear();
        let options = Options { format, ..Options::default() };
        report(&trace, &options, &mut out).expect("a report into memory");
    }
    for line in out.split(|&b| b == b'\n').filter(|l| !l.is_empty()) {
        let json = serde_json::from_slice::<serde_json::Value>(line);
        assert!(json.is_ok(), "seed {seed}: {}", String::from_utf8_lossy(line));
    }
    for (event, field) in [("kv:get", "latency"), ("db:query", "duration"), ("all:types", "a_f64")]
    {
        let by = trace.events().last().and_then(|e| Some(e.fields.first()?.name.clone()));
        let options = hist::Options { event: event.into(), field: field.into(), by };
        for options in [hist::Options { by: None, ..options.clone() }, options] {
            if let Ok(hist) = hist::hist(&trace, &options) {
                assert!(hist.to_text(80).len() < 1 << 20 && !hist.to_json().is_empty());
            }
        }
    }
    let info = info::info(&trace).expect("info");
    assert!(info.to_text().len() < 1 << 20 && info.to_json().len() < 1 << 20);
}

fn torture(recording: &Recording, cases: u64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64);
    let chosen = std::env::var("GRACEPOINT_SEED").ok().and_then(|s| s.parse().ok());
    let seed: u64 = chosen.unwrap_or(now) | 1;
    #[expect(clippy::print_stderr, reason = "shown where the test fails, to repeat it")]
    {
        eprintln!("repeat with GRACEPOINT_SEED={seed}");
    }
    let times = std::env::var("GRACEPOINT_TIMES").ok().and_then(|s| s.parse().ok());
    let cases = cases * times.unwrap_or(1);
    let mut random = Random(seed);
    let dir = recording.write();
    let names = ["stream_0", "stream_1", "stream_3", "metadata", ".gracepoint.json"];
    let files: Vec<_> = names
        .iter()
        .filter_map(|name| Some((dir.join(name), fs::read(dir.join(name)).ok()?)))
        .collect();
    for _ in 0..cases {
        // Streams twice as often as the rest.
        let (path, whole) = &files[random.below(2 * files.len()) % files.len()];
        let mut bytes = whole.clone();
        damage(&mut bytes, &mut random);
        fs::write(path, &bytes).unwrap();
        read_all(dir.path(), seed);
        fs::write(path, whole).unwrap();
    }
}

#[test]
fn a_damaged_trace_of_many_packets() {
    torture(&busy(12), 1500);
}

#[test]
fn a_damaged_trace_of_every_type() {
    torture(&every_type(), 2500);
}
