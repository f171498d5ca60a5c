//! What is written comes back: values, order, times; with and without the sidecar.

use crate::recording::{Dir, EVERY_TYPE, Recording, START, START_NS, busy, every_type};
use gracepoint_analysis::filter::Filter;
use gracepoint_analysis::report::{Format, Options, Time, report};
use gracepoint_analysis::{Trace, sidecar};
use gracepoint_wire::schema::Role;
use std::fs;

fn text(dir: &Dir, options: &Options) -> String {
    let trace = Trace::open(dir.path()).expect("the trace opens");
    let mut out = Vec::new();
    let reported = report(&trace, options, &mut out).expect("the report is written");
    assert_eq!(reported.damage, []);
    String::from_utf8(out).expect("a report is UTF-8")
}

fn json() -> Options {
    Options { format: Format::JsonLines, ..Options::default() }
}

#[test]
fn every_type_comes_back_as_text_and_json() {
    let dir = every_type().write();
    let want: Vec<String> = EVERY_TYPE.iter().map(|t| format!("{} = {}", t.0, t.3)).collect();
    let line = format!(
        "03:04:05.000000010 (+?.?????????) worker-1/4242 all:types: {{ {} }}\n",
        want.join(", ")
    );
    assert_eq!(text(&dir, &Options::default()), line);

    let want: Vec<String> = EVERY_TYPE.iter().map(|t| format!("\"{}\":{}", t.0, t.4)).collect();
    let line = format!(
        "{{\"ts_ns\":{},\"name\":\"all:types\",\"tid\":4242,\"thread\":\"worker-1\",\
         \"fields\":{{{}}}}}\n",
        START_NS + 10,
        want.join(",")
    );
    let got = text(&dir, &json());
    assert_eq!(got, line);
    serde_json::from_str::<serde_json::Value>(&got).expect("a line is JSON");
}

#[test]
fn without_the_sidecar_only_names_of_types_are_lost() {
    let dir = every_type().write_bare();
    let line = text(&dir, &Options::default());
    for (name, ty, _, value, _) in EVERY_TYPE {
        let want = match *ty {
            "ns" => "latency = 1200".to_owned(),
            "?ns" => "some_time = 1".to_owned(),
            "char" if *name == "letter" => "letter = \"ß\"".to_owned(),
            "char" => "zero_char = \"\"".to_owned(),
            _ => format!("{name} = {value}"),
        };
        assert!(line.contains(&want), "no {want:?} in {line}");
    }
}

#[test]
fn a_sidecar_that_disagrees_is_not_believed() {
    let recording = every_type();
    let dir = recording.write();
    let mut lie = recording.sidecar();
    lie.events[1].fields[0].ty = "u64".into();
    sidecar::write(dir.path(), &lie).unwrap();
    let trace = Trace::open(dir.path()).unwrap();
    assert!(trace.damage()[0].what.contains("all:types"), "{:?}", trace.damage());
    let mut reader = trace.reader();
    let event = reader.next_event().unwrap();
    assert_eq!(event.value(0), Some(gracepoint_analysis::Value::Uint(200)));
}

#[test]
fn streams_merge_by_time_and_ties_go_by_stream() {
    let dir = busy(200).write();
    let trace = Trace::open(dir.path()).unwrap();
    let mut reader = trace.reader();
    let (mut last, mut count) = ((0, 0), 0);
    while let Some(event) = reader.next_event() {
        assert!((event.ticks, event.stream) >= last, "{} after {last:?}", event.ticks);
        last = (event.ticks, event.stream);
        assert_eq!(event.ns, START_NS + (event.ticks - START));
        assert_eq!(u64::from(event.tid), 100 + event.stream);
        assert_eq!(event.thread, format!("t{}", event.stream));
        count += 1;
    }
    assert_eq!(reader.damage(), []);
    assert_eq!(count, 3 * (200 * 3 + 20 * 2));
}

#[test]
fn lines_can_be_chosen_and_limited() {
    let dir = busy(50).write();
    let lines = |globs: &[&str], limit| {
        let events = globs.iter().map(|g| g.to_string()).collect();
        let filter = Filter { events, ..Filter::default() };
        text(&dir, &Options { filter, limit, time: Time::Relative, ..Options::default() })
    };
    assert_eq!(lines(&["kv:*"], None).lines().count(), 150);
    assert_eq!(lines(&["db:query"], None).lines().count(), 300);
    assert_eq!(lines(&["db:query:end", "far:*"], None).lines().count(), 165);
    let first = "0.000000000 (+?.?????????) t0/100 kv:get: { key = \"key-0\", hit = false, \
                 latency = 0ns }\n0.000000001 (+0.000000001) t1/101 kv:get: { key = \"key-0\", ";
    assert!(lines(&["kv:*"], Some(2)).starts_with(first), "{}", lines(&["kv:*"], Some(2)));
    let trace = Trace::open(dir.path()).unwrap();
    let error = trace.choose(&Filter { events: vec!["kv:gte".into()], ..Filter::default() });
    let error = error.unwrap_err().to_string();
    assert!(error.ends_with("matches `kv:gte`: did you mean kv:get?"), "{error}");
}

#[test]
fn an_open_packet_is_read_up_to_its_mark() {
    let mut recording = Recording::new(&[(Role::Event, "a:b", &[("n", "u8")])]);
    let mut packet = recording.packet(0, 1, "main", 0);
    packet.event(16, 5, &[1]);
    recording.close(packet);
    let mut packet = recording.packet(0, 1, "main", 6);
    packet.event(16, 7, &[2]);
    recording.leave_open(packet);
    let dir = recording.write();
    assert_eq!(text(&dir, &json()).lines().count(), 2);
}

#[test]
fn a_cut_file_is_read_up_to_the_cut() {
    let dir = busy(50).write();
    let path = dir.join("stream_1");
    let whole = fs::read(&path).unwrap();
    let mut before = 0;
    for cut in (0..=whole.len()).rev().step_by(97) {
        fs::write(&path, &whole[..cut]).unwrap();
        let trace = Trace::open(dir.path()).unwrap();
        let mut reader = trace.reader();
        let mut count = 0;
        while let Some(event) = reader.next_event() {
            count += usize::from(event.stream == 1);
        }
        assert!(before == 0 || count <= before, "more events with a cut at {cut}");
        assert!(reader.damage().len() <= 1, "{:?}", reader.damage());
        before = count.max(1);
    }
    assert_eq!(before, 1);
}

#[test]
fn what_is_wrong_is_said() {
    let dir = busy(200).write();
    let path = dir.join("stream_0");
    let whole = fs::read(&path).unwrap();
    let said = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let trace = Trace::open(dir.path()).unwrap();
        let mut reader = trace.reader();
        while reader.next_event().is_some() {}
        reader.damage().iter().map(|d| format!("{d}\n")).collect::<String>()
    };
    assert_eq!(said(&whole), "");
    let size = (u64::from_le_bytes(whole[40..48].try_into().unwrap()) / 8) as usize;
    let gone = [&whole[..size], &whole[size * 2..]].concat();
    for (bytes, want) in [
        (whole[..size - 9].to_vec(), "the file ends after"),
        (whole[..size + 20].to_vec(), "cut after 20 bytes"),
        (gone, "no packet here"),
        (flipped(&whole, 88, 0xff), "which the metadata does not name"),
        (flipped(&whole, 46, 0xff), "more than any has"),
        (flipped(&whole, 31, 0x00), ""),
        (flipped(&whole, 24, 0xff), "later than its packet's end"),
    ] {
        let said = said(&bytes);
        assert!(said.contains(want), "{said:?} says nothing like {want:?}");
    }
}

fn flipped(bytes: &[u8], at: usize, by: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= by;
    if at == 24 {
        bytes[24..32].copy_from_slice(&START.to_le_bytes());
    }
    bytes
}

#[test]
fn thousands_of_streams_need_few_open_files() {
    let mut recording = Recording::new(&[(Role::Event, "a:b", &[("n", "u32")])]);
    for slot in 0..3000u32 {
        for round in 0..2 {
            let at = round * 1_000_000 + u64::from(slot);
            let mut packet = recording.packet(slot.into(), slot, "t", at);
            packet.event(16, at, &slot.to_le_bytes());
            packet.event(16, at + 500_000, &slot.to_le_bytes());
            recording.close(packet);
        }
    }
    let dir = recording.write();
    let trace = Trace::open(dir.path()).unwrap();
    let mut reader = trace.reader();
    let (mut last, mut count, mut most) = (0, 0, 0);
    while let Some(event) = reader.next_event() {
        assert!(event.ticks >= last);
        (last, count) = (event.ticks, count + 1);
        if count % 1000 == 0 {
            let open = fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count());
            most = most.max(open);
        }
    }
    assert_eq!(count, 12_000);
    assert_eq!(reader.damage(), []);
    assert!(most < 600, "{most} files were open");
}

#[test]
fn what_is_no_trace_says_so() {
    let said = |metadata: Option<&str>| {
        let dir = Dir::new();
        if let Some(text) = metadata {
            fs::write(dir.join("metadata"), text).unwrap();
        }
        Trace::open(dir.path()).unwrap_err().to_string()
    };
    assert!(said(None).contains("is not a trace"));
    assert!(said(Some("")).contains("cut short"));
    assert!(said(Some("hello world")).contains("line 1"));
    assert!(said(Some("\u{1e}{\"type\":\"preamble\"}")).contains("newer gracepoint"));
    let ours = busy(1).metadata();
    assert!(said(Some(&ours.replace("minor = 8", "minor = 9"))).contains("CTF 1.9"));
    assert!(said(Some(&ours.replace("uint32_t tid;", ""))).contains("not laid out"));
    assert!(said(Some(&ours.replace("_key", "key"))).contains("no field is laid out"));
    assert!(said(Some(&ours[..ours.len() / 2])).contains("metadata"));
    assert!(Trace::open("/nonexistent/trace").unwrap_err().to_string().contains("/nonexistent"));
}

/// To open a pipe would wait for ever, and a device never ends.
#[cfg(unix)]
#[test]
fn what_is_no_plain_file_is_not_opened() {
    for name in ["metadata", ".gracepoint.json", "stream_1"] {
        let dir = busy(3).write();
        fs::remove_file(dir.join(name)).unwrap();
        let made = std::process::Command::new("mkfifo").arg(dir.join(name)).status();
        assert!(made.is_ok_and(|status| status.success()), "mkfifo");
        match Trace::open(dir.path()) {
            Ok(trace) if name == "stream_1" => assert_eq!(trace.streams(), 2),
            Ok(trace) => assert!(name == ".gracepoint.json" && trace.sidecar().is_none()),
            Err(error) => assert!(error.to_string().contains("not a plain file"), "{error}"),
        }
        fs::remove_file(dir.join(name)).unwrap();
        std::os::unix::fs::symlink("/dev/zero", dir.join(name)).unwrap();
        assert_eq!(Trace::open(dir.path()).is_ok(), name != "metadata");
    }
}

#[test]
fn hostile_metadata_neither_recurses_nor_explodes() {
    let mut deep = String::from("typealias struct { uint8_t a; } := t0;\n");
    for i in 1..200 {
        let before = i - 1;
        deep += &format!("typealias struct {{ t{before} a; t{before} b; }} := t{i};\n");
    }
    let prelude = "typealias integer { size = 8; align = 8; signed = false; } := uint8_t;\n";
    let twenty: String = deep.lines().take(20).collect();
    let open = "struct { ".repeat(100_000);
    for text in [
        format!("{prelude}{deep}"),
        format!("{prelude}{twenty}trace {{ packet.header := t19; byte_order = le; }};"),
        format!("event {{ fields := {open}"),
        "trace ".repeat(10_000),
        "a[".repeat(10_000),
    ] {
        assert!(gracepoint_analysis::metadata::parse(text.as_bytes()).is_err());
    }
}
