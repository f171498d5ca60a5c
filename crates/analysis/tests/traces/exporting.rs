//! Exports to other viewers' formats, read back by other readers: `protobuf` with Perfetto's published
//! schema, `serde_json`, and `inferno`, which draws.

use crate::perfetto::{Picture, decode};
use crate::recording::{Dir, EVERY_TYPE, Recording, START_NS, busy, every_type};
use gracepoint_analysis::export::{Exported, Format, Options, export};
use gracepoint_analysis::filter::Filter;
use gracepoint_analysis::{Result, Trace};
use gracepoint_wire::schema::{Role, throttle_events};
use serde_json::Value;
use std::collections::BTreeMap;

pub(crate) fn options(format: Format) -> Options {
    Options { format, ..Options::default() }
}

pub(crate) fn try_export(dir: &Dir, options: &Options) -> Result<(Vec<u8>, Exported)> {
    let mut out = Vec::new();
    let done = export(&Trace::open(dir.path())?, options, &mut out, &mut |_| true)?;
    assert_eq!(done.bytes, out.len() as u64);
    Ok((out, done))
}

pub(crate) fn perfetto(dir: &Dir) -> (Picture, Exported) {
    let (bytes, done) = try_export(dir, &options(Format::Perfetto)).unwrap();
    (decode(&bytes), done)
}

pub(crate) fn chrome(dir: &Dir) -> (Vec<Value>, Exported) {
    let (bytes, done) = try_export(dir, &options(Format::Chrome)).unwrap();
    let json: Value = serde_json::from_slice(&bytes).unwrap();
    (json["traceEvents"].as_array().unwrap().clone(), done)
}

fn folded(dir: &Dir) -> String {
    String::from_utf8(try_export(dir, &options(Format::Folded)).unwrap().0).unwrap()
}

/// Events by phase.
fn phases(events: &[Value]) -> BTreeMap<String, usize> {
    let mut phases = BTreeMap::new();
    for event in events {
        *phases.entry(event["ph"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    phases
}

/// `a:outer` (16, 17), `a:inner` (18, 19), `a:tick` (20).
fn spans() -> Recording {
    Recording::new(&[
        (Role::Begin, "a:outer", &[("n", "u32")]),
        (Role::End, "a:outer", &[]),
        (Role::Begin, "a:inner", &[]),
        (Role::End, "a:inner", &[]),
        (Role::Event, "a:tick", &[("span", "u8"), ("took", "ns")]),
    ])
}

fn outer(span: u64, parent: u64) -> Vec<u8> {
    [&inner(span, parent)[..], &7u32.to_le_bytes()].concat()
}

fn inner(span: u64, parent: u64) -> Vec<u8> {
    [span.to_le_bytes(), parent.to_le_bytes()].concat()
}

#[test]
fn the_sample_as_tracks_slices_and_instants() {
    let trace = Trace::open("tests/kv.trace").unwrap();
    let mut bytes = Vec::new();
    let done = export(&trace, &options(Format::Perfetto), &mut bytes, &mut |_| true).unwrap();
    let picture = decode(&bytes);
    assert_eq!((done.events, done.spans, done.apart, done.lost), (186, 60, 0, 12));
    assert_eq!((done.unfinished, done.without_begin, done.threads), (0, 0, 3));
    let labels: Vec<&str> = picture.tracks.values().map(|track| track.label.as_str()).collect();
    for want in ["77 kv", "77/100 t0", "77/101 t1", "77/102 t2", "lost events"] {
        assert!(labels.contains(&want), "{want}: {labels:?}");
    }
    assert_eq!((picture.slices.len(), picture.bad_ends, picture.sequences), (60, 0, 4));
    assert!(picture.slices.iter().all(|s| s.end_ns.is_some() && s.name == "db:query"));
    assert!(picture.slices.iter().all(|s| s.annotations["table"] == ["s:users"]));
    let gets = picture.instants.iter().filter(|i| i.name == "kv:get" && i.category == "kv");
    assert_eq!(gets.count(), 60);
    let lost: Vec<_> = picture.instants.iter().filter(|i| i.name == "lost: kv:get").collect();
    assert_eq!(lost.len(), 6);
    assert!(lost.iter().all(|l| picture.tracks[&l.track].label == "lost events"));
    assert_eq!(lost[0].annotations["count"], ["u:2"]);
    assert_eq!(lost[0].annotations["thread"], ["s:t0"]);
    assert_eq!(picture.instants.iter().map(|i| i.ns).min(), Some(START_NS));
    assert_eq!((picture.clock, picture.clocks[0]), (1, (1, START_NS)));
}

#[test]
fn fields_keep_their_types() {
    let (picture, done) = perfetto(&every_type().write());
    assert_eq!((done.events, picture.instants.len()), (1, 1));
    let got = &picture.instants[0].annotations;
    for (name, want) in [
        ("a_u64", "u:18446744073709551615"),
        ("a_i64", "i:-9223372036854775808"),
        ("a_u128", "s:340282366920938463463374607431768211455"),
        ("a_f64", "d:NaN"),
        ("yes", "b:true"),
        ("letter", "s:ß"),
        ("zero_char", "s:\0"),
        ("string", "s:a\"b\0c"),
        ("event", "s:\u{fffd}\u{1b}[2J"),
        ("latency", "u:1200"),
        ("list", "[u:1 u:2]"),
        ("cut_list", "[u:5 s:... 8 more]"),
        ("empty_list", "[]"),
        ("array", "[d:1 d:-1]"),
        ("something", "u:7"),
        ("state", "s:Busy"),
        ("strange", "u:9"),
    ] {
        assert_eq!(got[name], [want], "{name}");
    }
    assert!(!got.contains_key("nothing"));
    assert_eq!(got.len(), EVERY_TYPE.len() - 1);
    let (events, _) = chrome(&every_type().write());
    let args = &events.iter().find(|e| e["ph"] == "i").unwrap()["args"];
    for (name, _, _, _, json) in EVERY_TYPE.iter().filter(|t| !t.1.contains("128")) {
        assert_eq!(args[name], serde_json::from_str::<Value>(json).unwrap(), "{name}");
    }
}

/// On thread 1: outer 1 with 2 and 3 in it, all in one nanosecond; 4 ends on thread 2; 5 sticks out of 6;
/// 7 never ends; 99 has no begin.
pub(crate) fn tangled() -> Dir {
    let mut recording = spans();
    let mut one = recording.packet(1, 101, "one", 0);
    one.event(16, 1000, &outer(1, 0));
    one.event(18, 1000, &inner(2, 1));
    one.event(19, 1000, &2u64.to_le_bytes());
    one.event(18, 1000, &inner(3, 1));
    one.event(19, 1000, &3u64.to_le_bytes());
    one.event(18, 2000, &inner(4, 1));
    one.event(17, 9000, &1u64.to_le_bytes());
    one.event(16, 10_000, &outer(6, 0));
    one.event(18, 11_000, &inner(5, 6));
    one.event(17, 12_000, &6u64.to_le_bytes());
    one.event(19, 15_000, &5u64.to_le_bytes());
    one.event(17, 16_000, &99u64.to_le_bytes());
    one.event(16, 17_000, &outer(7, 0));
    one.event(20, 18_000, &[5, 44, 0, 0, 0, 0, 0, 0, 0]);
    recording.close(one);
    let mut two = recording.packet(2, 102, "two", 1);
    two.event(19, 5000, &4u64.to_le_bytes());
    recording.close(two);
    recording.write()
}

#[test]
fn spans_that_do_not_nest_have_tracks_of_their_own() {
    let (picture, done) = perfetto(&tangled());
    let counts = (done.spans, done.apart, done.unfinished, done.without_begin);
    assert_eq!(counts, (6, 2, 1, 1));
    assert_eq!(picture.bad_ends, 0);
    let of = |id: u64| {
        let is =
            |slice: &&crate::perfetto::Drawn| slice.annotations["span"][0] == format!("u:{id}");
        picture.slices.iter().find(is).unwrap_or_else(|| panic!("span {id}"))
    };
    let label = |id| picture.tracks[&of(id).track].label.as_str();
    let length = |id| of(id).end_ns.map(|end| end - of(id).ns);
    for (id, on, depth) in
        [(1, "77/101 one", 0), (2, "77/101 one", 1), (3, "77/101 one", 1), (6, "77/101 one", 0)]
    {
        assert_eq!((label(id), of(id).depth), (on, depth), "{id}");
    }
    assert_eq!((length(1), of(1).ns), (Some(8000), START_NS + 1000));
    assert_eq!((label(4), length(4), of(4).depth), ("a:inner", Some(3000), 0));
    assert_eq!((label(5), length(5)), ("a:inner", Some(4000)));
    assert_ne!(of(4).track, of(5).track);
    let process = picture.tracks.iter().find(|(_, track)| track.label == "77 kv").unwrap().0;
    assert_eq!(picture.tracks[&of(4).track].parent, *process);
    assert_eq!((of(4).flows.len(), &of(1).flows), (1, &of(4).flows), "a flow from its parent");
    assert_eq!((length(7), label(7)), (None, "77/101 one"));
    assert_eq!(picture.instants[0].annotations["span"], ["u:5"]);
}

#[test]
fn chrome_has_complete_and_asynchronous_events() {
    let (events, _) = chrome(&tangled());
    let want = [("B", 1), ("M", 3), ("X", 4), ("b", 2), ("e", 2), ("i", 1)];
    assert_eq!(phases(&events), BTreeMap::from(want.map(|(ph, n)| (ph.to_owned(), n))));
    let first = events.iter().find(|e| e["args"]["span"] == 1).unwrap();
    assert_eq!((&first["ts"], &first["dur"]), (&0.0.into(), &8.0.into()));
    assert_eq!((&first["name"], &first["cat"]), (&"a:outer".into(), &"a".into()));
    assert_eq!((&first["pid"], &first["tid"]), (&77.into(), &101.into()));
    let second = events.iter().find(|e| e["args"]["span"] == 2).unwrap();
    assert_eq!(second["ts"], 0.001, "inside the other, which begins in the same nanosecond");
    let halves: Vec<&Value> = events.iter().filter(|e| e.get("id2").is_some()).collect();
    assert_eq!(halves[0]["id2"], halves[1]["id2"]);
    assert_ne!(halves[1]["id2"], halves[2]["id2"]);
}

#[test]
fn time_goes_to_the_innermost_span() {
    let mut recording = spans();
    let mut one = recording.packet(1, 101, "one 1", 0);
    one.event(16, 0, &outer(1, 0));
    one.event(18, 10_000, &inner(2, 1));
    one.event(19, 40_000, &2u64.to_le_bytes());
    one.event(17, 100_000, &1u64.to_le_bytes());
    one.event(18, 200_000, &inner(3, 0));
    one.event(19, 200_001, &3u64.to_le_bytes());
    recording.close(one);
    let dir = recording.write();
    let want = "one_1;a:inner 1\none_1;a:outer 70\none_1;a:outer;a:inner 30\n";
    assert_eq!(folded(&dir), want);
    let (svg, _) = try_export(&dir, &options(Format::Flamegraph)).unwrap();
    let svg = String::from_utf8(svg).unwrap();
    assert!(svg.starts_with("<?xml") && svg.trim_end().ends_with("</svg>"));
    assert!(svg.contains("Spans of kv") && svg.contains("a:outer (100 µs"), "{svg}");
}

#[test]
fn without_spans_there_is_nothing_to_draw() {
    let dir = every_type().write();
    assert_eq!(folded(&dir), "");
    let error = try_export(&dir, &options(Format::Flamegraph)).unwrap_err().to_string();
    assert!(error.contains("no span ended"), "{error}");
}

/// A task that is polled on two threads, gets a value later, and follows a span that is over; a span of one
/// visit; and a visit to a span whose begin is not in the trace.
fn polls() -> Dir {
    let task: &[(&str, &str)] = &[("n", "any")];
    let mut recording = Recording::new(&[
        (Role::Begin, "a:task", task),
        (Role::End, "a:task", &[]),
        (Role::Enter, "a:task", &[]),
        (Role::Exit, "a:task", &[]),
        (Role::Record, "a:task", task),
        (Role::Follows, "a:task", &[]),
    ]);
    let ids = |ids: &[u64]| ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>();
    let begin = |id: u64, n: &[u8]| [ids(&[id, 0]), n.to_vec()].concat();
    let (nothing, text): (&[u8], &[u8]) = (&[0], b"\x05late\0");
    let mut one = recording.packet(1, 101, "one", 0);
    one.event(16, 1000, &begin(1, &[4, 1]));
    one.event(18, 2000, &ids(&[1]));
    one.event(19, 5000, &ids(&[1]));
    one.event(17, 6000, &ids(&[1]));
    one.event(16, 10_000, &begin(2, nothing));
    one.event(21, 10_500, &ids(&[2, 1]));
    one.event(18, 11_000, &ids(&[2]));
    one.event(20, 12_000, &[ids(&[2]), text.to_vec()].concat());
    one.event(19, 13_000, &ids(&[2]));
    one.event(18, 30_000, &ids(&[9]));
    one.event(19, 31_000, &ids(&[9]));
    recording.close(one);
    let mut two = recording.packet(2, 102, "two", 1);
    two.event(18, 20_000, &ids(&[2]));
    two.event(19, 24_000, &ids(&[2]));
    two.event(17, 25_000, &ids(&[2]));
    recording.close(two);
    recording.write()
}

#[test]
fn tasks_are_slices_of_their_polls() {
    let (picture, done) = perfetto(&polls());
    assert_eq!((done.spans, done.visits, done.apart, done.unfinished), (2, 4, 1, 0));
    assert_eq!((picture.bad_ends, done.without_begin), (0, 0));
    let slices: Vec<(&str, u64, Option<u64>)> = picture
        .slices
        .iter()
        .map(|slice| {
            let label = picture.tracks[&slice.track].label.as_str();
            (label, slice.ns - START_NS, slice.end_ns.map(|end| end - START_NS))
        })
        .collect();
    for want in [
        ("77/101 one", 2000, Some(5000)),
        ("77/101 one", 11_000, Some(13_000)),
        ("77/102 two", 20_000, Some(24_000)),
        ("77/101 one", 30_000, Some(31_000)),
        ("a:task", 10_000, Some(25_000)),
    ] {
        assert!(slices.contains(&want), "{want:?} is not among {slices:?}");
    }
    let at = |ns: u64| picture.slices.iter().find(|slice| slice.ns == START_NS + ns).unwrap();
    assert_eq!(at(2000).annotations["n"], ["b:true"]);
    assert_eq!(at(11_000).annotations["n"], ["s:late"], "a value that came before the poll's end");
    assert!(
        at(11_000).flows.iter().any(|flow| at(20_000).flows.contains(flow)),
        "polls are linked"
    );
    assert!(at(2000).flows.iter().any(|flow| at(11_000).flows.contains(flow)), "what it follows");
    assert!(!at(2000).flows.iter().any(|flow| at(20_000).flows.contains(flow)));
}

#[test]
fn time_in_polls_is_time_in_the_span() {
    let want = "one;a:task 1\none;a:task 5\ntwo;a:task 4\n";
    assert_eq!(folded(&polls()), want, "3 us and 2 us, and 1 us of the one without a begin");
}

#[test]
fn chrome_has_polls_and_the_whole() {
    let (events, _) = chrome(&polls());
    let of = |phase: &str| events.iter().filter(|event| event["ph"] == phase).collect::<Vec<_>>();
    assert_eq!((of("X").len(), of("b").len(), of("e").len()), (4, 1, 1));
    assert_eq!(of("b")[0]["args"]["n"], "late");
    let (start, end) = (of("s"), of("f"));
    assert_eq!((start.len(), &start[0]["id"]), (1, &end[0]["id"]));
    assert_eq!((&start[0]["ts"], &end[0]["ts"]), (&1.0.into(), &10.0.into()));
}

#[test]
fn counters_are_curves() {
    let counters = vec!["a:tick.took".into(), "a:outer.n".into()];
    let curves = Options { counters, ..options(Format::Perfetto) };
    let (bytes, done) = try_export(&tangled(), &curves).unwrap();
    let picture = decode(&bytes);
    assert_eq!((done.samples, picture.samples.len()), (4, 4));
    let took = picture.samples.iter().find(|s| s.value.as_deref() == Some("I64(44)")).unwrap();
    let track = &picture.tracks[&took.track];
    assert_eq!((track.label.as_str(), track.unit), ("a:tick.took", 1));
    let (bytes, _) = try_export(&tangled(), &Options { format: Format::Chrome, ..curves }).unwrap();
    let json: Value = serde_json::from_slice(&bytes).unwrap();
    let events = json["traceEvents"].as_array().unwrap();
    assert!(events.iter().any(|e| e["ph"] == "C" && e["args"]["value"] == 44));
    for (name, want) in [
        ("took", "write EVENT.FIELD"),
        ("a:tock.took", "did you mean a:tick?"),
        ("a:tick.tock", "did you mean took?"),
        ("all:types.string", "no event"),
    ] {
        let options = Options { counters: vec![name.into()], ..Options::default() };
        let error = try_export(&tangled(), &options).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
    let options = Options { counters: vec!["all:types.string".into()], ..Options::default() };
    let error = try_export(&every_type().write(), &options).unwrap_err().to_string();
    assert!(error.contains("is of type str"), "{error}");
}

/// Events of one name that differ in their fields: two versions of a crate in one program, or call sites of `tracing`.
fn versions() -> Dir {
    let mut recording = Recording::new(&[
        (Role::Event, "a:tick", &[("n", "u8"), ("gone", "u8")]),
        (Role::Event, "a:tick", &[("n", "str")]),
        (Role::Event, "a:tick", &[("more", "u8"), ("n", "u16")]),
        (Role::Event, "a:tick", &[]),
    ]);
    let mut packet = recording.packet(1, 101, "one", 0);
    packet.event(16, 1000, &[1, 77]);
    packet.event(17, 2000, b"text\0");
    packet.event(18, 3000, &[78, 2, 1]);
    packet.event(19, 4000, &[]);
    recording.close(packet);
    recording.write()
}

/// The same name with other fields, in one trace and from one trace to the next: each event has the fields that it
/// was recorded with, and what one of them has not is told of only where none has it.
#[test]
fn events_whose_fields_changed_have_their_own() {
    let dir = versions();
    let curves = Options { counters: vec!["a:tick.n".into()], ..options(Format::Perfetto) };
    let picture = decode(&try_export(&dir, &curves).unwrap().0);
    let fields = |at: usize| {
        let annotations = picture.instants[at].annotations.iter();
        annotations.map(|(name, value)| (name.as_str(), value[0].as_str())).collect::<Vec<_>>()
    };
    assert_eq!(fields(0), [("gone", "u:77"), ("n", "u:1")]);
    assert_eq!(fields(1), [("n", "s:text")]);
    assert_eq!(fields(2), [("more", "u:78"), ("n", "u:258")]);
    assert_eq!((picture.instants.len(), fields(3)), (4, vec![]));
    let samples: Vec<_> = picture.samples.iter().map(|s| (s.track, s.value.as_deref())).collect();
    let track = samples[0].0;
    assert_eq!(samples, [(track, Some("I64(1)")), (track, Some("I64(258)"))], "one curve");
    let (events, _) = chrome(&dir);
    let args: Vec<_> = events.iter().filter(|e| e["ph"] == "i").map(|e| &e["args"]).collect();
    assert_eq!(
        (&args[0]["n"], &args[1]["n"], &args[2]["n"]),
        (&1.into(), &"text".into(), &258.into())
    );
    for (name, want) in [("a:tick.gone", None), ("a:tick.lost", Some("no field"))] {
        let curves = Options { counters: vec![name.into()], ..options(Format::Perfetto) };
        let error = try_export(&dir, &curves).err().map(|error| error.to_string());
        assert_eq!(error.is_some(), want.is_some(), "{error:?}");
        assert!(error.is_none_or(|error| error.contains(want.unwrap_or_default())));
    }
    // The next trace, by the same command.
    let mut next = Recording::new(&[(Role::Event, "a:tick", &[("m", "u8")])]);
    let mut packet = next.packet(1, 101, "one", 0);
    packet.event(16, 1000, &[1]);
    next.close(packet);
    let error = try_export(&next.write(), &curves).unwrap_err().to_string();
    assert!(error.contains("a:tick") && error.contains("did you mean m?"), "{error}");
}

#[test]
fn throttling_and_losses_that_no_record_tells_are_shown() {
    let mut recording = spans();
    recording.events.extend(throttle_events());
    let mut one = recording.packet(1, 101, "one", 0);
    let about = |id: u32, n: u64| [&id.to_le_bytes()[..], &n.to_le_bytes()].concat();
    one.event(1, 10, &about(20, 100));
    one.event(20, 11, &[0; 9]);
    one.event(2, 12, &about(20, 33));
    one.loss(13, 20, 2);
    one.loss(14, 777, 1);
    recording.close(one);
    let dir = recording.write();
    let mut sidecar = recording.sidecar();
    sidecar.lost.insert(20, 12);
    gracepoint_analysis::sidecar::write(dir.path(), &sidecar).unwrap();
    let (picture, done) = perfetto(&dir);
    assert_eq!((done.events, done.lost), (1, 12));
    let notes: Vec<(&str, &str, &str)> = picture
        .instants
        .iter()
        .filter(|i| i.category == "gp")
        .map(|i| {
            let number = i.annotations.iter().find(|(name, _)| *name != "thread").unwrap().1;
            (picture.tracks[&i.track].label.as_str(), i.name.as_str(), number[0].as_str())
        })
        .collect();
    let want = [
        ("throttled events", "throttled: a:tick", "u:100"),
        ("throttled events", "no longer throttled: a:tick", "u:33"),
        ("lost events", "lost: a:tick", "u:2"),
        ("lost events", "lost: id 777", "u:1"),
        ("lost events", "lost: nothing tells when", "u:9"),
    ];
    assert_eq!(notes, want);
    let (events, _) = chrome(&dir);
    assert_eq!(events.iter().filter(|e| e["cat"] == "gp:loss").count(), 3);
    // Who asks for some events is told what is missing of them.
    let filter = Filter { events: vec!["a:tick".into()], ..Filter::default() };
    let some = Options { filter, ..Options::default() };
    let (bytes, done) = try_export(&dir, &some).unwrap();
    assert_eq!((done.events, done.lost, decode(&bytes).instants.len()), (1, 3, 5));
}

#[test]
fn hostile_names_stay_names() {
    let name = "x:\"}],<b>&\\\u{1b}[2J;a 7\u{2028}";
    let mut recording =
        Recording::new(&[(Role::Begin, name, &[("a\":{}", "str")]), (Role::End, name, &[])]);
    let mut one = recording.packet(1, 0, "\"},\n<x> ;&1 2", 0);
    let begin = [&inner(1, 0)[..], b"</script>\xff\"\n\x01\0"].concat();
    one.event(16, 0, &begin);
    one.event(17, 5000, &1u64.to_le_bytes());
    recording.close(one);
    let dir = recording.write();
    let (picture, _) = perfetto(&dir);
    let slice = &picture.slices[0];
    assert_eq!(slice.name, name);
    assert_eq!(slice.annotations["a\":{}"], ["s:</script>\u{fffd}\"\n\u{1}"]);
    assert!(picture.tracks[&slice.track].label.contains("<x> ;&1 2"), "tid 0 is no thread there");
    let (events, _) = chrome(&dir);
    assert!(events.iter().any(|e| e["ph"] == "X" && e["name"] == name));
    assert!(events.iter().any(|e| e["args"]["name"] == "\"},\n<x> ;&1 2"));
    let text = folded(&dir);
    let (stack, number) = text.trim_end().rsplit_once(' ').unwrap();
    assert_eq!((stack.matches(';').count(), number, text.lines().count()), (1, "5", 1));
    assert!(!text.contains('\u{1b}') && !stack.contains(' '), "{text:?}");
    let svg = try_export(&dir, &options(Format::Flamegraph)).unwrap().0;
    let svg = String::from_utf8(svg).unwrap();
    assert!(!svg.contains("<x>") && !svg.contains('\u{1b}') && svg.contains("&lt;x&gt;"));
}

#[test]
fn parts_and_damaged_traces_are_exported_as_far_as_they_go() {
    let recording = busy(200);
    let dir = recording.write();
    let filter = Filter { threads: vec!["t1".into()], last: Some(50), ..Filter::default() };
    for format in [Format::Perfetto, Format::Chrome, Format::Folded] {
        let part = Options { filter: filter.clone(), ..options(format) };
        let (_, done) = try_export(&dir, &part).unwrap();
        assert_eq!((done.threads, done.damage.len()), (1, 0));
    }
    let path = dir.join("stream_1");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.truncate(bytes.len() / 2);
    std::fs::write(&path, bytes).unwrap();
    let (picture, done) = perfetto(&dir);
    assert!(!done.damage.is_empty() && done.events > 400, "{done:?}");
    assert_eq!(picture.slices.len() as u64, done.spans + done.unfinished);
    assert_eq!(picture.bad_ends, 0);
}

#[test]
fn bytes_of_any_kind_are_exported() {
    let seed = std::env::var("GRACEPOINT_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| u64::from(std::process::id()) << 20 | 1);
    let mut state = seed;
    let mut random = move |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let recording = busy(12);
    for round in 0..12 {
        let dir = recording.write();
        let path = dir.join(&format!("stream_{}", random(3)));
        let mut bytes = std::fs::read(&path).unwrap();
        for _ in 0..=random(40) {
            let at = random(bytes.len());
            bytes[at] = random(256) as u8;
        }
        std::fs::write(&path, bytes).unwrap();
        let told = format!("GRACEPOINT_SEED={seed}, round {round}");
        let (picture, done) = perfetto(&dir);
        assert_eq!(picture.bad_ends, 0, "{told}");
        assert_eq!(picture.slices.len() as u64, done.spans + done.unfinished, "{told}");
        let ended = picture.slices.iter().filter(|slice| slice.end_ns.is_some()).count() as u64;
        assert_eq!(ended, done.spans, "{told}");
        chrome(&dir);
        assert!(folded(&dir).lines().all(|line| line.contains(';')), "{told}");
    }
}
