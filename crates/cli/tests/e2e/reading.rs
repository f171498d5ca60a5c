//! `report` and `info` of traces that are larger than memory, of which a part is wanted, or that are
//! not whole.

use crate::scene::Scene;
use gracepoint_analysis::sidecar::{ProgramEntry, Sidecar};
use gracepoint_wire::clock::{Clock, Source, Triple};
use gracepoint_wire::packet::{HEADER, PacketHeader, compact_header};
use gracepoint_wire::schema::{Declared, Field, Role, Schema, loss_event};
use gracepoint_wire::tsdl;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

type Test = (&'static str, fn());

pub(crate) fn trials() -> Vec<libtest_mimic::Trial> {
    let tests: [Test; 5] = [
        ("a_trace_larger_than_memory_is_read", a_trace_larger_than_memory_is_read),
        ("parts_of_a_trace_are_shown", parts_of_a_trace_are_shown),
        ("an_unfinished_trace_is_an_error_only_with_strict", unfinished_is_an_error_with_strict),
        ("strict_sees_damage_outside_of_what_was_asked_for", strict_sees_damage_elsewhere),
        ("sensitive_fields_leave_no_trace", sensitive_fields_leave_no_trace),
    ];
    tests.into_iter().map(crate::trial).collect()
}

/// Bytes of a packet, most of which are a hole in the file: the largest that there are.
const PACKET: u64 = 1 << 20;
/// Events of a packet, one each microsecond.
const EVENTS: u64 = 500;
/// Streams of the trace.
const STREAMS: u64 = 4;
/// What the command may map, in KiB: its code, its stack, and 96 MiB less than that for the rest.
const LIMIT: &str = "131072";

/// Writes a trace of `packets` packets in each stream; the threads of odd packets have another name.
pub(crate) fn write(scene: &Scene, packets: u64) -> u64 {
    write_documented(scene, packets, "")
}

/// The same, with this as the documentation of the only field.
pub(crate) fn write_documented(scene: &Scene, packets: u64, docs: &str) -> u64 {
    let dir = scene.trace();
    std::fs::create_dir(&dir).unwrap();
    let field = Field { name: "n".into(), ty: "u64".parse().unwrap(), docs: docs.into() };
    let schema = Schema { name: "t:tick".into(), docs: String::new(), fields: vec![field] };
    let events = [loss_event(), Declared { id: 16, role: Role::Event, schema }];
    let triple = Triple { ticks: 0, mono_ns: 0, real_ns: 1_767_323_045_000_000_000 };
    let (source, freq_hz) = (Source::Monotonic, 1_000_000_000);
    let clock = Clock { source, freq_hz, boot_id: [0; 16], triples: vec![triple] };
    let text = tsdl::metadata(&tsdl::Metadata {
        clock: &clock,
        events: &events,
        context: Default::default(),
        env: &[],
    });
    std::fs::write(dir.join("metadata"), text).unwrap();
    if !docs.is_empty() {
        let mut sidecar = Sidecar::new(ProgramEntry::default(), &clock, &events);
        sidecar.complete = true;
        let text = serde_json::to_vec(&sidecar).unwrap();
        std::fs::write(dir.join(gracepoint_wire::SIDECAR), text).unwrap();
    }
    for stream in 0..STREAMS {
        let file = File::create(dir.join(format!("stream_{stream}"))).unwrap();
        file.set_len(packets * PACKET).unwrap();
        for seq in 0..packets {
            file.write_all_at(&packet(stream, seq), seq * PACKET).unwrap();
        }
    }
    STREAMS * packets * EVENTS
}

fn packet(stream: u64, seq: u64) -> Vec<u8> {
    let mut thread = [0; 16];
    thread[..4].copy_from_slice(if seq.is_multiple_of(2) { b"even" } else { b"odd!" });
    let begin = seq * EVENTS * 1000 + stream;
    let mut header = PacketHeader {
        stream,
        begin,
        end: begin + EVENTS * 1000 - 1,
        packet_bits: PACKET * 8,
        seq,
        tid: 40 + stream as u32,
        thread,
        ..PacketHeader::default()
    };
    let mut bytes = vec![0; HEADER];
    for n in 0..EVENTS {
        bytes.extend(&compact_header(16, begin + n * 1000).to_le_bytes()[..5]);
        bytes.extend((seq * EVENTS + n).to_le_bytes());
    }
    header.content_bits = bytes.len() as u64 * 8;
    bytes[..HEADER].copy_from_slice(&header.to_bytes());
    bytes
}

/// Half a gigabyte; `GRACEPOINT_LARGE=64` makes it 64.
fn a_trace_larger_than_memory_is_read() {
    let scene = Scene::new();
    let large = std::env::var("GRACEPOINT_LARGE").ok().and_then(|n| n.parse::<u64>().ok());
    let packets = large.map_or(512, |gigabytes| gigabytes * 1024) / STREAMS;
    let events = write(&scene, packets);
    let limited = |args: &[&str]| {
        let mut command = scene.command("sh");
        let script = format!("ulimit -v {LIMIT} && exec \"$0\" \"$@\"");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_gracepoint")]).args(args);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {} {said}", output.status);
        output.stdout
    };
    let count = |out: Vec<u8>| out.iter().filter(|&&b| b == b'\n').count() as u64;
    assert_eq!(count(limited(&["report", "t.trace"])), events);
    assert_eq!(count(limited(&["report", "t.trace", "--json", "--thread", "even"])), events / 2);
    assert_eq!(count(limited(&["report", "t.trace", "--last", "1000"])), 1000);
    let all_but_one = (events - 1).to_string();
    assert_eq!(count(limited(&["report", "t.trace", "--last", &all_but_one])), events - 1);
    let info: serde_json::Value =
        serde_json::from_slice(&limited(&["info", "t.trace", "--json"])).unwrap();
    assert_eq!(info["events"], events);
}

fn parts_of_a_trace_are_shown() {
    let scene = Scene::new();
    let events = write(&scene, 4);
    let count = |args: &[&str]| {
        let said = scene.run(&[&["report", "t.trace"], args].concat());
        assert_eq!(said.status, 0, "{}", said.err);
        said.out.lines().count() as u64
    };
    assert_eq!(count(&[]), events);
    assert_eq!(count(&["--since", "+500us", "--until", "+1ms"]), events / 4);
    assert_eq!(count(&["--since", "-500us", "--thread", "43"]), EVENTS);
    assert_eq!(count(&["--until", "03:04:05.0005", "--last", "7", "-e", "t:*"]), 7);
    assert_eq!(count(&["--since", "2026-01-03"]), 0);
    assert_eq!(count(&["--last", "10", "--limit", "3"]), 3);
    let said = scene.run(&["info", "t.trace", "--json", "--thread", "odd*", "--last", "600"]);
    let info: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&info["events"], &info["threads"][0]["name"]), (&600.into(), &"odd!".into()));
    let said = scene.run(&["report", "t.trace", "--since", "yesterday"]);
    assert!(said.status == 2 && said.err.contains("is no moment"), "{}", said.err);
    let said = scene.run(&["report", "t.trace", "-e", "t:tock"]);
    assert!(said.status == 2 && said.err.contains("did you mean t:tick?"), "{}", said.err);
}

fn unfinished_is_an_error_with_strict() {
    let scene = Scene::new();
    let events = write(&scene, 4);
    let strict = |command: &str, want: &str| {
        let said = scene.run(&[command, "t.trace", "--strict"]);
        assert!(said.status == 2 && said.err.contains(want), "{}", said.err);
    };
    // Without a sidecar nothing says that the trace is whole.
    strict("report", "no .gracepoint.json");
    let len = 3 * PACKET + 1000;
    let file = File::options().write(true).open(scene.trace().join("stream_2")).unwrap();
    file.set_len(len).unwrap();
    for command in ["report", "info"] {
        let said = scene.run(&[command, "t.trace"]);
        assert_eq!(said.status, 0, "{}", said.err);
        assert!(said.err.contains("is damaged in 1 place"), "{}", said.err);
        assert!(
            said.out.contains("the file ends after") || said.err.contains("the file ends after")
        );
        strict(command, "is damaged in 1 place");
    }
    let kept = scene.run(&["report", "t.trace"]).out.lines().count() as u64;
    assert_eq!(kept, events - EVENTS + (1000 - HEADER as u64) / 13);
}

fn strict_sees_damage_elsewhere() {
    let scene = Scene::new();
    write(&scene, 4);
    // In the second packet of a stream, whose thread is odd.
    let file = File::options().write(true).open(scene.trace().join("stream_2")).unwrap();
    file.write_all_at(&[0xff; 14], PACKET + HEADER as u64).unwrap();
    let parts: [&[&str]; 4] =
        [&["--last", "3"], &["--since", "-500us"], &["--until", "+1us"], &["--thread", "even"]];
    for (command, part) in ["report", "info", "export"].iter().flat_map(|c| parts.map(|p| (*c, p)))
    {
        let args = [&[command, "t.trace"], part].concat();
        let args = match command {
            "export" => [&args[..], &["--to", "chrome", "-o", "-"]].concat(),
            _ => args,
        };
        let said = scene.run(&args);
        assert_eq!(said.status, 0, "{args:?}: {}", said.err);
        assert!(!said.err.contains("damaged"), "{args:?}: {}", said.err);
        let strict = scene.run(&[&args[..], &["--strict"]].concat());
        assert_eq!(strict.status, 2, "{args:?}: {}", strict.err);
        assert!(strict.err.contains("is damaged in 1 place"), "{args:?}: {}", strict.err);
        assert!(strict.err.contains("stream_2 at byte"), "{args:?}: {}", strict.err);
        assert_eq!(strict.out, said.out, "{args:?}");
    }
}

/// All bytes of the trace's files.
fn raw(scene: &Scene) -> Vec<u8> {
    let entries = std::fs::read_dir(scene.trace()).unwrap();
    entries.flat_map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect()
}

fn sensitive_fields_leave_no_trace() {
    for allowed in [false, true] {
        let scene = Scene::new();
        let mut program = scene.program(&["secrets", if allowed { "1" } else { "0" }]);
        program.expect("ready");
        let pid = program.pid().to_string();
        let listed = scene.run(&["list", "-p", &pid, "auth:*"]).out;
        assert!(listed.contains("user: ?str  [sensitive] Who."), "{listed}");
        let listed = scene.run(&["list", "-p", &pid, "--json", "auth:*"]).out;
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        assert_eq!(listed["fields"][1]["sensitive"], true);
        assert_eq!(listed["fields"][3]["sensitive"], false);
        let recorder = scene.recorder(program.pid(), &[]);
        writeln!(program.child.stdin.as_mut().unwrap(), "go").unwrap();
        program.expect("done");
        recorder.signal(rustix::process::Signal::INT);
        assert_eq!(recorder.end().status, 0);
        let report = scene.run(&["report", "t.trace"]).out;
        let clear = "{ user = \"mallory\", pin = 1589831661, from = \"198.51.100.7\", ok = true }";
        let masked = "{ user = ***, pin = ***, from = ***, ok = true }";
        let (shown, hidden) = if allowed { (clear, masked) } else { (masked, clear) };
        assert!(report.contains(shown) && !report.contains(hidden), "{report}");
        let raw = raw(&scene);
        let has = |bytes: &[u8]| raw.windows(bytes.len()).any(|w| w == bytes);
        assert!(has(b"auth:login"));
        for secret in [&b"mallory"[..], b"198.51", &0x5ec2_e7ed_u32.to_le_bytes()] {
            assert_eq!(has(secret), allowed, "{secret:?}");
        }
        // Of the two, one has a longer name: their records have the same length.
        let json = scene.run(&["report", "t.trace", "--json"]).out;
        assert_eq!(json.matches("\"user\":null").count(), if allowed { 0 } else { 2 });
    }
}
