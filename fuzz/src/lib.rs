//! What the fuzzers do with their bytes. Each function takes whatever comes and must return: a panic,
//! a hang or an allocation beyond the limits of `scripts/fuzz` is a finding. Where the bytes make
//! sense something more must hold, which is asserted.
//!
//! The seeds come from the recordings that the tests of `gracepoint-analysis` make.
#![forbid(unsafe_code)]

#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../crates/analysis/tests/traces/recording.rs"]
mod recording;
mod seeds;

pub use seeds::seeds;

use gracepoint_analysis::filter::Filter;
use gracepoint_analysis::report::{Format, Options, report};
use gracepoint_analysis::{Trace, hang, hist, info, tally::Tally};
use gracepoint_wire::arena::{ArenaHeader, PAGE_ENTRY};
use gracepoint_wire::control::{MAX_REQUEST, Message, next_frame};
use gracepoint_wire::packet::PacketHeader;
use gracepoint_wire::schema::Context;
use recording::{Dir, EVERY_TYPE, Recording, declare};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

/// Pages of the arena that is made of a fuzzer's bytes.
const PAGES: u32 = 6;

/// A recording with every type and with spans, without packets: ids 16 (`all:types`), 17 to 19
/// (`kv:get` and the span `db:query`), and 5000.
pub(crate) fn everything() -> Recording {
    use gracepoint_wire::schema::Role;
    let types: Vec<(&str, &str)> = EVERY_TYPE.iter().map(|t| (t.0, t.1)).collect();
    let mut recording = Recording::new(&[
        (Role::Event, "all:types", &types),
        (Role::Event, "kv:get", &[("key", "str"), ("hit", "bool"), ("latency", "ns")]),
        (Role::Begin, "db:query", &[("table", "str")]),
        (Role::End, "db:query", &[]),
    ]);
    recording.events.push(declare(5000, Role::Event, "far:away", &[("n", "?u32")]));
    recording
}

/// The trace whose stream files a fuzzer writes, without any; opened once.
fn opened() -> Trace {
    static TRACE: OnceLock<Trace> = OnceLock::new();
    let open = || Trace::open(everything().write().path()).expect("our own metadata");
    TRACE.get_or_init(open).clone()
}

/// Stream files: the first bytes as one stream, the rest as another, read in every way. Two bytes
/// before them say where to cut and what to choose.
pub fn packets(data: &[u8]) {
    let (&cut, data) = data.split_first().unwrap_or((&0, &[]));
    let (&choice, data) = data.split_first().unwrap_or((&0, &[]));
    let (first, second) = data.split_at(data.len() * usize::from(cut) / 256);
    let trace = &opened().with_streams([first.into(), second.into()]);
    let lines = |format, filter: &Filter| {
        let options = Options { format, filter: filter.clone(), ..Options::default() };
        report(trace, &options, &mut std::io::sink()).expect("a report to nowhere").lines
    };
    let all = lines(Format::Text, &Filter::default());
    let filter = filter(choice);
    let some = lines(Format::JsonLines, &filter);
    assert!(some <= all.min(filter.last.unwrap_or(u64::MAX)));
    let info = info::info_of(trace, &filter).expect("the events are there");
    assert!(info.events <= all && info.to_json().len() < 4 << 20);
    let (event, field) = [("kv:get", "latency"), ("db:query", "duration"), ("all:types", "a_f64")]
        [usize::from(choice % 3)];
    let options = hist::Options { event: event.into(), field: field.into(), by: None };
    hist::hist(trace, &options).expect("the event and its field are there");
    static TALLY: OnceLock<Tally> = OnceLock::new();
    let tally = TALLY.get_or_init(|| Tally::new(&everything().events, Context::default()));
    assert!(tally.count(first) <= first.len() as u64);
}

/// A filter by the bits of a byte.
fn filter(bits: u8) -> Filter {
    let bit = |n: u8| bits >> n & 1 == 1;
    let when = |on: bool, text: &str| on.then(|| text.parse().expect("a moment"));
    Filter {
        events: bit(0).then(|| "kv:*".to_owned()).into_iter().collect(),
        threads: bit(1).then(|| "w*".to_owned()).into_iter().collect(),
        since: when(bit(2), if bit(3) { "+5us" } else { "-7us" }),
        until: when(bit(4), if bit(5) { "03:04:06" } else { "2026-01-02T03:04:05.00002" }),
        last: bit(6).then_some(if bit(7) { 3 } else { 1 << 40 }),
    }
}

/// The `metadata` file: parsed alone; and as a trace's, with the rest of the bytes as its sidecar.
pub fn metadata(data: &[u8]) {
    static DIR: OnceLock<Dir> = OnceLock::new();
    let cut = data.iter().position(|&b| b == 0).unwrap_or(data.len());
    let (text, rest) = data.split_at(cut);
    let parsed = gracepoint_analysis::metadata::parse(text);
    if parsed.is_ok() || rest.len() > 1 {
        let dir = DIR.get_or_init(Dir::new);
        fs::write(dir.join("metadata"), text).expect("a temporary directory that can be written");
        fs::write(dir.join(".gracepoint.json"), rest.get(1..).unwrap_or_default())
            .expect("a temporary directory that can be written");
        if let Ok(trace) = Trace::open(dir.path()) {
            info::info(&trace).expect("info has no errors");
        }
    }
}

/// Frames of the control protocol: what is understood says the same when it is said again.
pub fn control(data: &[u8]) {
    let mut rest = data;
    while let Ok(Some((payload, taken))) = next_frame(rest, MAX_REQUEST) {
        if let Ok(message) = Message::parse(payload) {
            let frame = message.to_frame();
            let (again, _) =
                next_frame(&frame, usize::MAX).expect("our own frame").expect("the whole of it");
            assert_eq!(Message::parse(again).as_ref(), Ok(&message));
        }
        rest = &rest[taken..];
    }
}

/// An arena of a hostile program: its header raw, or a good one with tables and pages of these
/// bytes; what is copied from it must be whole packets.
pub fn arena(data: &[u8]) {
    static DIR: OnceLock<Dir> = OnceLock::new();
    let Some((&how, data)) = data.split_first() else { return };
    let Ok(fd) = memfd_create("arena", MemfdFlags::CLOEXEC) else { return };
    let mut file = File::from(fd);
    file.set_len(1 << 20).expect("a megabyte of memory");
    if how % 4 == 0 {
        file.write_all(&data[..data.len().min(1 << 20)]).expect("it fits");
    } else {
        let header = ArenaHeader::lay_out(4096, PAGES, 8, 8);
        file.write_all(&header.to_bytes()).expect("it fits");
        let table = PAGES as usize * PAGE_ENTRY;
        let (table, pages) = data.split_at(data.len().min(table));
        file.write_all_at(table, header.table_at).expect("it fits");
        let pages = &pages[..pages.len().min(PAGES as usize * 4096)];
        file.write_all_at(pages, header.pages_at).expect("it fits");
    }
    let dir = DIR.get_or_init(Dir::new);
    gracepoint_cli::fuzzing::copy_arena(file, dir.path());
    for entry in fs::read_dir(dir.path()).expect("our own directory").flatten() {
        let bytes = fs::read(entry.path()).expect("a stream file");
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let header = PacketHeader::parse(rest).expect("a packet follows a packet");
            assert!(header.end >= header.begin && header.packet_bits > 0);
            rest = rest.get(header.packet_bytes() as usize..).expect("packets are whole");
        }
        fs::remove_file(entry.path()).expect("our own file");
    }
}

/// Kernel logs.
pub fn log(data: &[u8]) {
    let explanation = hang::explain(data).expect("bytes in memory can be read");
    let forms = [
        explanation.to_text(),
        explanation.to_json(),
        explanation.to_dot(),
        explanation.to_html(),
        explanation.to_report(),
    ];
    let size: usize = forms.iter().map(String::len).sum();
    assert!(size < 64 << 20, "{size} bytes of explanation");
    for form in &forms {
        let control = form.chars().find(|char| char.is_control() && *char != '\n');
        assert_eq!(control, None, "what a log holds reaches a terminal");
    }
}
