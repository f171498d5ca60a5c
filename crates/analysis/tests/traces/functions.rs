//! Calls of functions: graphs, tables and exports of traces whose story is known, as text and JSON.

use crate::perfetto::decode;
use crate::recording::{Dir, Packet, Recording, START_NS};
use gracepoint_analysis::export::{self, Exported, Format};
use gracepoint_analysis::filter::Filter;
use gracepoint_analysis::functions::graph::{self, Graphed, graph};
use gracepoint_analysis::functions::table::{self, Row, Sort, table};
use gracepoint_analysis::sidecar::{self, FunctionEntry};
use gracepoint_analysis::{Result, Trace, hints};
use gracepoint_wire::control::{ENTRY_ID, EXIT_ID, WHOLE_ID, function_events};
use gracepoint_wire::schema::Role;
use serde_json::Value;

/// Frames of the functions on the one stack, the outermost first.
const STACK: u32 = 0x2000_0000;
const MAIN: u32 = 1;
const GET: u32 = 2;
const PUT: u32 = 3;
const ODD: u32 = 4;

fn recording(threshold: bool) -> Recording {
    let mut recording = Recording::new(&[
        (Role::Event, "kv:tick", &[("n", "u32")]),
        (Role::Event, "kv.get:args", &[("id", "u32"), ("size", "u8")]),
        (Role::Event, "kv.get:return", &[("value", "str")]),
        (Role::Begin, "kv:work", &[]),
        (Role::End, "kv:work", &[]),
    ]);
    recording.events.extend(function_events(threshold));
    recording
}

fn functions() -> Vec<FunctionEntry> {
    let entry = |id, name: &str, line, object: &str| FunctionEntry {
        id,
        name: name.into(),
        file: "src/kv.rs".into(),
        line,
        object: object.into(),
        ..FunctionEntry::default()
    };
    let mut all = vec![
        entry(MAIN, "kv::main", 3, "kv"),
        entry(GET, "kv::get", 10, ""),
        entry(PUT, "<kv::Store>::put::<u8>", 20, "kv"),
        entry(ODD, "kv::o*/dd\u{1b}[2J", 30, "kv"),
    ];
    all[1].args = "kv.get:args".into();
    all[1].returns = "kv.get:return".into();
    all
}

fn write(recording: &Recording) -> Dir {
    let dir = recording.write_bare();
    let mut about = recording.sidecar();
    about.functions = functions();
    sidecar::write(dir.path(), &about).unwrap();
    dir
}

fn enter(packet: &mut Packet, after: u64, function: u32, depth: u32) {
    let frame = STACK - depth * 10;
    packet.event(ENTRY_ID, after, &[function.to_le_bytes(), frame.to_le_bytes()].concat());
}

fn exit(packet: &mut Packet, after: u64, function: u32, depth: u32) {
    let frame = STACK - depth * 10;
    packet.event(EXIT_ID, after, &[function.to_le_bytes(), frame.to_le_bytes()].concat());
}

fn whole(packet: &mut Packet, after: u64, function: u32, took: u64) {
    let fields = [&function.to_le_bytes()[..], &STACK.to_le_bytes(), &took.to_le_bytes()];
    packet.event(WHOLE_ID, after, &fields.concat());
}

/// Two threads; one of them with arguments, events, a panic, recursion and marks, the other begun in the middle.
fn story() -> Dir {
    let mut recording = recording(false);
    let mut one = recording.packet(1, 101, "one", 0);
    enter(&mut one, 1_000, MAIN, 0);
    enter(&mut one, 2_000, GET, 1);
    one.event(17, 2_100, &[7, 0, 0, 0, 3]);
    one.event(18, 2_900, b"a*/b\0");
    exit(&mut one, 3_500, GET, 1);
    enter(&mut one, 10_000, PUT, 1);
    one.event(16, 11_000, &[5, 0, 0, 0]);
    enter(&mut one, 12_000, PUT, 2);
    exit(&mut one, 22_500, PUT, 2);
    enter(&mut one, 30_000, GET, 2);
    enter(&mut one, 31_000, ODD, 3);
    // A panic goes up to main, which calls on.
    enter(&mut one, 140_000, ODD, 1);
    exit(&mut one, 3_140_000, ODD, 1);
    one.loss(3_150_000, ENTRY_ID, 3);
    exit(&mut one, 2_000_000_000, MAIN, 0);
    enter(&mut one, 2_000_001_000, GET, 5);
    recording.close(one);
    let mut two = recording.packet(2, 102, "two", 500);
    exit(&mut two, 600, PUT, 4);
    enter(&mut two, 700, MAIN, 4);
    exit(&mut two, 900, MAIN, 4);
    exit(&mut two, 1_500, GET, 2);
    recording.close(two);
    write(&recording)
}

fn try_graph(dir: &Dir, options: &graph::Options) -> Result<(String, Graphed)> {
    let mut out = Vec::new();
    let done = graph(&Trace::open(dir.path())?, options, &mut out)?;
    Ok((String::from_utf8(out).unwrap(), done))
}

fn drawn(dir: &Dir, options: &graph::Options) -> (String, Graphed) {
    try_graph(dir, options).unwrap()
}

const STORY: &str = r#"# THREAD                    DURATION           FUNCTION CALLS
# |                          |   |              |   |   |   |
 two/102                |                |  } /* <kv::Store>::put::<u8> */
 two/102                |   0.200 us     |  kv::main();
 two/102                |                |  } /* kv::get */
 one/101                |                |  kv::main() {
 one/101                |   1.500 us     |    kv::get(id = 7, size = 3); /* = value = "a* /b" */
 one/101                |                |    <kv::Store>::put::<u8>() {
 one/101                |                |      /* kv:tick: { n = 5 } */
 one/101                | + 10.500 us    |      <kv::Store>::put::<u8>();
 one/101                |                |      kv::get() {
 one/101                |                |        kv::o*/dd\u{1b}[2J() {
 one/101                |                |        } /* kv::o* /dd\u{1b}[2J: left without an exit */
 one/101                |                |      } /* kv::get: left without an exit */
 one/101                |                |    } /* <kv::Store>::put::<u8>: left without an exit */
 one/101                | # 3000.000 us  |    kv::o*/dd\u{1b}[2J();
 one/101                |                |    /* gp:loss: { id = gp:function_entry, count = 3 } */
 one/101                | $ 1999999.000 us |  }
 one/101                |                |  kv::get() {
"#;

#[test]
fn hollow_stacks_are_told_where_there_are_stacks() {
    let mut recording = Recording::new(&[
        (Role::Event, "kv:deep", &[("callstack", "[u64]")]),
        (Role::Event, "kv:flat", &[("n", "u32")]),
    ]);
    recording.events.extend(function_events(false));
    let dir = recording.write_bare();
    for (frame_pointers, want) in [(None, false), (Some(true), false), (Some(false), true)] {
        let mut about = recording.sidecar();
        about.program.frame_pointers = frame_pointers;
        sidecar::write(dir.path(), &about).unwrap();
        let trace = Trace::open(dir.path()).unwrap();
        let told = |globs: &[&str]| {
            let globs: Vec<String> = globs.iter().map(|&glob| glob.into()).collect();
            hints::stacks(&trace, &globs).unwrap().is_some()
        };
        assert_eq!((told(&[]), told(&["kv:deep"])), (want, want));
        assert!(!told(&["kv:flat"]) && !told(&["gp:function_entry"]));
    }
}

#[test]
fn a_story_is_drawn_as_the_kernel_does() {
    let (text, done) = drawn(&story(), &graph::Options::default());
    assert_eq!(text, STORY);
    let counts = (done.calls, done.left, done.open, done.without_entry, done.events);
    assert_eq!(counts, (5, 3, 1, 2, 2));
    assert!(done.damage.is_empty());
}

#[test]
fn a_graph_may_begin_at_a_function_and_end_at_a_depth() {
    let dir = story();
    let options = graph::Options {
        functions: vec!["kv::Store::put".into()],
        depth: Some(2),
        tail: true,
        ..graph::Options::default()
    };
    let (text, done) = drawn(&dir, &options);
    let want = r"
 one/101                |                |  <kv::Store>::put::<u8>() {
 one/101                |                |    /* kv:tick: { n = 5 } */
 one/101                | + 10.500 us    |    <kv::Store>::put::<u8>();
 one/101                |                |    kv::get() {
 one/101                |                |    } /* kv::get: left without an exit */
 one/101                |                |  } /* <kv::Store>::put::<u8>: left without an exit */
 one/101                |                |  /* gp:loss: { id = gp:function_entry, count = 3 } */
";
    assert_eq!(text.split_once("|   |   |   |").unwrap().1, want);
    assert_eq!((done.calls, done.left, done.without_entry), (1, 2, 0));
    let options = graph::Options { functions: vec!["kv::gte".into()], ..graph::Options::default() };
    let error = try_graph(&dir, &options).unwrap_err().to_string();
    assert!(error.contains("matches `kv::gte`: did you mean kv::get"), "{error}");
}

#[test]
fn reports_and_counts_know_functions() {
    let dir = story();
    let trace = Trace::open(dir.path()).unwrap();
    let mut text = Vec::new();
    gracepoint_analysis::report::report(&trace, &Default::default(), &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("gp:function_entry: { function = kv::get, frame = "), "{text}");
    assert!(text.contains("function = kv::o*/dd\\u{1b}[2J, frame"), "{text}");
    let info = gracepoint_analysis::info::info(&trace).unwrap();
    assert_eq!(info.events, 9 + 7 + 3, "entries, exits and other events");
}

#[test]
fn conditions_and_events_are_chosen_as_in_reports() {
    let filter = |events: &[&str], threads: &[&str]| graph::Options {
        filter: Filter {
            events: events.iter().map(|&e| e.into()).collect(),
            threads: threads.iter().map(|&t| t.into()).collect(),
            ..Filter::default()
        },
        ..graph::Options::default()
    };
    let (text, done) = drawn(&story(), &filter(&["gp:loss"], &["two"]));
    assert!(!text.contains("one/101") && !text.contains("kv:tick"), "{text}");
    assert_eq!((done.calls, done.events), (1, 0));
    let (text, _) = drawn(&story(), &filter(&["gp:loss"], &["one"]));
    assert!(text.contains("gp:loss") && !text.contains("kv:tick"), "{text}");
}

#[test]
fn json_has_a_line_for_each_call_when_it_ends() {
    let (text, done) = drawn(&story(), &graph::Options { json: true, ..graph::Options::default() });
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let calls: Vec<&Value> = lines.iter().filter(|line| line.get("call").is_some()).collect();
    assert_eq!(calls.len() as u64, done.calls + done.left + done.open);
    let get = calls.iter().find(|call| call["call"] == "kv::get" && call["end"] == "exit").unwrap();
    assert_eq!((&get["duration_ns"], &get["self_ns"]), (&1500.into(), &1500.into()));
    assert_eq!((&get["depth"], &get["tid"], &get["line"]), (&1.into(), &101.into(), &10.into()));
    assert_eq!(get["args"], serde_json::json!({ "id": 7, "size": 3 }));
    assert_eq!(get["returns"], serde_json::json!({ "value": "a*/b" }));
    let left: Vec<&str> = calls
        .iter()
        .filter(|call| call["end"] == "left" && call["duration_ns"].is_null())
        .filter_map(|call| call["call"].as_str())
        .collect();
    assert_eq!(left, ["kv::o*/dd\u{1b}[2J", "kv::get", "<kv::Store>::put::<u8>"]);
    assert!(lines.iter().any(|line| line["name"] == "kv:tick" && line["fields"]["n"] == 5));
}

/// `main` (0 to 100 µs) calls `get` twice, 20 to 30 and 40 to 90, the second one `put` from 50 to 60.
fn slow() -> Dir {
    let mut recording = recording(true);
    let mut one = recording.packet(1, 101, "one", 0);
    whole(&mut one, 30_000, GET, 10_000);
    one.event(16, 55_000, &[9, 0, 0, 0]);
    whole(&mut one, 60_000, PUT, 10_000);
    whole(&mut one, 90_000, GET, 50_000);
    whole(&mut one, 100_000, MAIN, 100_000);
    whole(&mut one, 150_000, MAIN, 20_000);
    recording.close(one);
    write(&recording)
}

#[test]
fn calls_told_at_their_end_are_drawn_in_order() {
    let (text, done) = drawn(&slow(), &graph::Options::default());
    let want = r"
 one/101                |                |  kv::main() {
 one/101                |   10.000 us    |    kv::get();
 one/101                |                |    kv::get() {
 one/101                |                |      <kv::Store>::put::<u8>() {
 one/101                |                |        /* kv:tick: { n = 9 } */
 one/101                |   10.000 us    |      }
 one/101                | + 50.000 us    |    }
 one/101                | + 100.000 us   |  }
 one/101                | + 20.000 us    |  kv::main();
";
    assert_eq!(text.split_once("|   |   |   |").unwrap().1, want);
    assert_eq!((done.calls, done.left, done.open), (5, 0, 0));
}

fn rows(dir: &Dir, options: &table::Options) -> Vec<Row> {
    table(&Trace::open(dir.path()).unwrap(), options).unwrap().rows
}

#[test]
fn a_table_adds_up() {
    let dir = story();
    let all = table(&Trace::open(dir.path()).unwrap(), &table::Options::default()).unwrap();
    let names: Vec<&str> = all.rows.iter().map(|row| row.function.as_str()).collect();
    assert_eq!(names, ["kv::main", "kv::o*/dd\u{1b}[2J", "kv::get", "<kv::Store>::put::<u8>"]);
    let main = &all.rows[0];
    assert_eq!((main.calls, main.total_ns), (2, 1_999_999_000 + 200));
    assert_eq!(main.self_ns, 1_999_999_000 - 1_500 - 3_000_000 + 200);
    assert_eq!((main.min_ns, main.max_ns), (200, 1_999_999_000));
    let put = &all.rows[3];
    // The inner one of two: the outer one was left.
    assert_eq!((put.calls, put.total_ns, put.avg_ns), (1, 0, 10_500));
    assert_eq!((put.without_exit, put.without_entry), (1, 1));
    assert_eq!((all.rows[2].without_exit, all.rows[2].without_entry), (2, 1));
    let text = all.to_text();
    assert!(text.lines().next().unwrap().ends_with("P99 us  FUNCTION"), "{text}");
    assert!(text.contains("kv::get  (2 without exit)  (1 without entry)"), "{text}");
    assert!(!text.contains('\u{1b}'));
    for line in all.to_json().lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        assert!(row["calls"].is_u64() && row["function"].is_string());
    }
    let options = table::Options {
        functions: vec!["kv::Store::*".into(), "kv::main".into()],
        sort: Sort::Name,
        ..table::Options::default()
    };
    let names: Vec<String> = rows(&dir, &options).into_iter().map(|row| row.function).collect();
    assert_eq!(names, ["<kv::Store>::put::<u8>", "kv::main"]);
}

#[test]
fn a_table_of_calls_told_at_their_end() {
    let rows = rows(&slow(), &table::Options { sort: Sort::Own, ..table::Options::default() });
    let told: Vec<(&str, u64, u64, u64)> =
        rows.iter().map(|r| (r.function.as_str(), r.calls, r.total_ns, r.self_ns)).collect();
    assert_eq!(
        told,
        [
            ("kv::main", 2, 120_000, 60_000),
            ("kv::get", 2, 60_000, 50_000),
            ("<kv::Store>::put::<u8>", 1, 10_000, 10_000),
        ]
    );
}

#[test]
fn a_trace_without_functions_says_how_to_get_some() {
    let dir = crate::recording::busy(3).write();
    let error = try_graph(&dir, &graph::Options::default()).unwrap_err().to_string();
    assert!(error.contains("record with --functions GLOB"), "{error}");
}

#[test]
fn without_a_sidecar_functions_have_numbers() {
    let mut recording = recording(false);
    let mut one = recording.packet(1, 101, "one", 0);
    enter(&mut one, 10, GET, 0);
    exit(&mut one, 20, GET, 0);
    recording.close(one);
    let (text, done) = drawn(&recording.write_bare(), &graph::Options::default());
    assert!(text.ends_with("|   0.010 us     |  function 2();\n"), "{text}");
    assert_eq!(done.calls, 1);
}

#[test]
fn a_slot_that_another_thread_gets_begins_anew() {
    let mut recording = recording(false);
    for (tid, at) in [(101, 0), (102, 1000)] {
        let mut packet = recording.packet(1, tid, "t", at);
        enter(&mut packet, at + 10, MAIN, 0);
        enter(&mut packet, at + 20, GET, 1);
        exit(&mut packet, at + 30, GET, 1);
        recording.close(packet);
    }
    let (text, done) = drawn(&write(&recording), &graph::Options::default());
    assert_eq!((done.calls, done.open, done.left), (2, 2, 0));
    assert_eq!(text.matches("|  kv::main() {").count(), 2);
}

fn exported(dir: &Dir, format: Format) -> (Vec<u8>, Exported) {
    let options = export::Options { format, ..export::Options::default() };
    let mut out = Vec::new();
    let done = export::export(&Trace::open(dir.path()).unwrap(), &options, &mut out, &mut |_| true);
    (out, done.unwrap())
}

#[test]
fn calls_are_slices_on_the_timeline_of_events() {
    let (bytes, done) = exported(&story(), Format::Perfetto);
    assert_eq!((done.calls, done.unfinished, done.without_begin, done.events), (8, 1, 2, 3));
    let picture = decode(&bytes);
    assert_eq!(picture.bad_ends, 0);
    let told = |name: &str| -> Vec<(u64, usize, Option<u64>)> {
        let it = picture.slices.iter().filter(|slice| slice.name == name);
        let mut told: Vec<_> =
            it.map(|s| (s.ns - START_NS, s.depth, s.end_ns.map(|end| end - START_NS))).collect();
        told.sort_unstable();
        told
    };
    assert_eq!(told("kv::main"), [(700, 0, Some(900)), (1_000, 0, Some(2_000_000_000))]);
    let put = [(10_000, 1, Some(140_000)), (12_000, 2, Some(22_500))];
    assert_eq!(told("<kv::Store>::put::<u8>"), put);
    assert_eq!(told("kv::get").last(), Some(&(2_000_001_000, 0, None)));
    let main = picture.slices.iter().find(|slice| slice.name == "kv::main").unwrap();
    assert_eq!(main.annotations["file"], ["s:src/kv.rs"]);
    assert_eq!(main.annotations["line"], ["u:3"]);
    assert!(picture.instants.iter().any(|i| i.name == "kv:tick" && i.ns == START_NS + 11_000));
    let (json, _) = exported(&story(), Format::Chrome);
    let json: Value = serde_json::from_slice(&json).unwrap();
    let events = json["traceEvents"].as_array().unwrap();
    let get = events.iter().find(|e| e["name"] == "kv::get" && e["ph"] == "X").unwrap();
    assert_eq!(
        (&get["dur"], &get["args"]["line"], &get["cat"]),
        (&1.5.into(), &10.into(), &"kv".into())
    );
}

#[test]
fn spans_and_calls_are_one_stack_of_a_flame_graph() {
    let mut recording = recording(false);
    let mut one = recording.packet(1, 101, "one", 0);
    let span = |id: u64, parent: u64| [id.to_le_bytes(), parent.to_le_bytes()].concat();
    one.event(19, 0, &span(1, 0));
    enter(&mut one, 10_000, MAIN, 0);
    one.event(19, 20_000, &span(2, 1));
    enter(&mut one, 30_000, GET, 1);
    exit(&mut one, 40_000, GET, 1);
    one.event(20, 50_000, &2u64.to_le_bytes());
    exit(&mut one, 70_000, MAIN, 0);
    one.event(20, 90_000, &1u64.to_le_bytes());
    recording.close(one);
    let (text, done) = exported(&write(&recording), Format::Folded);
    let want = "one;kv:work 30\none;kv:work;kv::main 30\none;kv:work;kv::main;kv:work 20\n\
                one;kv:work;kv::main;kv:work;kv::get 10\n";
    assert_eq!(String::from_utf8(text).unwrap(), want);
    assert_eq!((done.spans, done.calls, done.apart), (2, 2, 0));
}

#[test]
fn calls_told_at_their_end_are_slices_too() {
    let (bytes, done) = exported(&slow(), Format::Perfetto);
    assert_eq!((done.calls, done.events, done.unfinished), (5, 1, 0));
    let picture = decode(&bytes);
    assert_eq!(picture.bad_ends, 0);
    let mut told: Vec<(u64, usize, u64)> = picture
        .slices
        .iter()
        .map(|slice| (slice.ns - START_NS, slice.depth, slice.end_ns.unwrap() - slice.ns))
        .collect();
    told.sort_unstable();
    // The first call within the first one begins when that does, and may not.
    let want = [(0, 0, 100_000), (20_000, 1, 10_000), (40_000, 1, 50_000), (50_000, 2, 10_000)];
    assert_eq!(told[..4], want);
    let (text, _) = exported(&slow(), Format::Folded);
    let want = "one;kv::main 60\none;kv::main;kv::get 50\n\
                one;kv::main;kv::get;<kv::Store>::put::<u8> 10\n";
    assert_eq!(String::from_utf8(text).unwrap(), want);
}
