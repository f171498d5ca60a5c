//! Functions: listed, recorded, drawn and added up; of a fake program, of one with the attribute and of one with sleds.

use crate::scene::{Running, Said, Scene};
use libtest_mimic::Trial;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

pub(crate) fn trials() -> Vec<Trial> {
    let tests: [(&str, fn()); 14] = [
        ("functions_are_listed", are_listed),
        ("functions_errors_say_what_to_do", errors_say_what_to_do),
        ("functions_are_asked_for_by_number", are_asked_for_by_number),
        ("functions_are_recorded_and_drawn", are_recorded_and_drawn),
        ("functions_that_are_slow_are_recorded", slow_ones_are_recorded),
        ("functions_of_kept_sessions_have_names", kept_sessions_have_names),
        ("functions_of_pieces_have_names", pieces_have_names),
        ("functions_of_a_panic_end", a_panic_ends_calls),
        ("functions_with_sleds_are_recorded", with_sleds),
        ("functions_without_their_names_say_why", without_names),
        ("functions_that_nobody_called_are_told", nobody_called),
        ("a_stack_is_told_by_its_functions", a_stack_has_names),
        ("a_stack_begins_with_the_function", a_stack_begins_with_the_function),
        ("a_stack_is_whole_or_a_line_says_why_not", a_stack_is_whole_or_not),
    ];
    tests.into_iter().map(crate::trial).collect()
}

pub(crate) fn with_clang() -> Vec<(&'static str, fn())> {
    vec![("functions_of_cpp_go_by_their_paths", of_cpp)]
}

fn json(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

fn json_object(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[track_caller]
fn done(said: Said) -> String {
    assert_eq!(said.status, 0, "{}{}", said.out, said.err);
    said.out
}

fn are_listed() {
    let scene = Scene::new();
    let fake = scene.fake("functions");
    let pid = fake.pid().to_string();
    let said = scene.run(&["functions", "-p", &pid]);
    assert_eq!(said.err, "gracepoint: 4 functions\n");
    let lines: Vec<&str> = said.out.lines().collect();
    assert!(
        lines[0].starts_with("e2e::fake::main  ") && lines[0].contains("fake.rs:"),
        "{lines:?}"
    );
    assert_eq!(
        lines[1..],
        ["kv::main", "kv::store::get  src/store.rs:12", "kv::store::put  src/store.rs:40"]
    );
    assert_eq!(done(scene.run(&["functions", "-p", &pid, "all"])), said.out);
    let listed = done(scene.run(&["list", "-p", &pid]));
    assert!(listed.contains("t:tick") && done(scene.run(&["list", "-p", &pid, "all"])) == listed);
    let found = json(&done(scene.run(&["functions", "--name", "kv", "--json", "*::get", "e2e*"])));
    assert_eq!(found.len(), 2);
    assert_eq!((&found[0]["kind"], &found[1]["kind"]), (&"sleds".into(), &"attribute".into()));
    assert_eq!(found[1]["args"], "kv.store:get_args");
    let said = scene.run(&["functions", "-p", &pid, "kv::store::gte"]);
    assert_eq!(said.status, 1);
    assert!(
        said.err
            .contains("no function of kv matches `kv::store::gte`: did you mean kv::store::get"),
        "{}",
        said.err
    );
}

fn errors_say_what_to_do() {
    let scene = Scene::new();
    for (mode, status, want) in [
        (
            "good",
            2,
            "kv cannot trace functions: its gracepoint is too old, build it with a newer one",
        ),
        (
            "functionless",
            1,
            "put #[gracepoint::function] on some, or build it with `cargo gracepoint build`",
        ),
    ] {
        let fake = scene.fake(mode);
        let said = scene.run(&["functions", "-p", &fake.pid().to_string()]);
        assert_eq!(said.status, status, "{}", said.err);
        assert!(said.err.contains(want), "{}", said.err);
        let record = ["record", "-p", &fake.pid().to_string(), "-l", "all"];
        let said = scene.run(&record);
        assert_eq!(said.status, 2, "{}", said.err);
        assert!(said.err.contains(want), "{}", said.err);
    }
    let fake = scene.fake("functionless");
    let said = scene.run(&["functions", "-p", &fake.pid().to_string()]);
    assert!(said.err.contains("gracepoint: sleds of version 9 in libold.so"), "{}", said.err);
    let fake = scene.fake("other-build");
    let said = scene.run(&["functions", "-p", &fake.pid().to_string()]);
    assert!(said.err.contains("is not what runs (its build id is another one)"), "{}", said.err);
    assert!(said.out.lines().any(|line| line.starts_with("0x")), "{}", said.out);
    let fake = scene.fake("stripped");
    let said = scene.run(&["functions", "-p", &fake.pid().to_string()]);
    assert!(
        said.err.contains("/stripped is stripped, so its functions have addresses for names: build it with `strip = false`"),
        "{}",
        said.err
    );
    assert!(said.out.lines().any(|line| line.starts_with("0x")), "{}", said.out);
    let said = scene.run(&["functions", "-p", "1000000000"]);
    assert!(said.status == 2 && said.err.contains("no process 1000000000"), "{}", said.err);
    let said = scene.run(&["record", "-p", "1", "--depth", "3"]);
    assert_eq!(
        (said.status, said.err.as_str()),
        (2, "gracepoint: --depth is about functions: say which with --functions GLOB\n")
    );
    for both in [["-p", "nop", "-p", "function"], ["-p", "function_graph", "--plugin", "nop"]] {
        let said = scene.run(&[&["start"], &both[..]].concat());
        assert_eq!(
            (said.status, said.err.as_str()),
            (
                2,
                "gracepoint: nop is without functions, and function records them: give one of the two\n"
            )
        );
    }
    for part in [["-e", "kv:*"], ["--last", "3"]] {
        let said = scene.run(&[&["report", "t.trace", "--functions"], &part[..]].concat());
        assert!(said.status == 2 && said.err.contains("not by -e or --last"), "{}", said.err);
    }
}

fn are_asked_for_by_number() {
    let scene = Scene::new();
    let mut fake = scene.fake("functions");
    let pid = fake.pid().to_string();
    let trace = scene.trace();
    let record = |more: &[&str]| {
        let mut args =
            vec!["record", "-p", &pid, "-d", "100ms", "--force", "-o", trace.to_str().unwrap()];
        args.extend(more);
        scene.run(&args)
    };
    done(record(&[
        "-l",
        "kv::*",
        "-n",
        "*put",
        "--depth",
        "3",
        "--threshold",
        "10us",
        "--tid",
        "7",
    ]));
    assert_eq!(fake.expect("asked "), "[] [(1, 1), (3, 3)] 3 10000 [7]");
    done(record(&["-l", "all", "-e", "t:*"]));
    assert_eq!(fake.expect("asked "), "[\"t:*\"] [(1, 4)] 0 0 []");
    let said = record(&["-l", "kv::*", "-n", "kv::*"]);
    assert!(said.status == 2 && said.err.contains("--notrace leaves no function"), "{}", said.err);
    let said = record(&["-l", "kv::*", "-n", "kv::store::gte"]);
    assert_eq!(said.status, 0, "{}", said.err);
    let idle = "gracepoint: --notrace leaves out nothing: no function of kv matches `kv::store::gte`: did you mean \
                kv::store::get?\n";
    assert!(said.err.contains(idle), "{}", said.err);
    assert_eq!(fake.expect("asked "), "[] [(1, 3)] 0 0 []");
    let said = record(&["-l", "kv::nothing::at::all"]);
    assert!(said.status == 2 && said.err.contains("no function of kv matches"), "{}", said.err);
}

/// Records what this very binary does with functions that have the attribute, while it does `rounds` of it.
fn recorded(scene: &Scene, rounds: u32, more: &[&str]) -> PathBuf {
    let mut program = scene.program(&["calls"]);
    program.expect("ready");
    let recorder = scene.recorder(program.pid(), more);
    work(&mut program, rounds);
    program.end();
    done(recorder.end());
    scene.trace()
}

fn work(program: &mut Running, rounds: u32) {
    use std::io::Write;
    for _ in 0..rounds {
        program.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        program.expect("round");
    }
}

fn calls(scene: &Scene, trace: &Path) -> Vec<Value> {
    let mut lines = json(&done(scene.run(&["graph", trace.to_str().unwrap(), "--json"])));
    lines.retain(|line| line.get("call").is_some());
    lines
}

fn count(calls: &[Value], name: &str, end: &str) -> usize {
    let it = |call: &&Value| call["call"].as_str().unwrap().ends_with(name) && call["end"] == end;
    calls.iter().filter(it).count()
}

fn are_recorded_and_drawn() {
    let scene = Scene::new();
    let trace = recorded(
        &scene,
        5,
        &[
            "-l",
            "*::outer",
            "-l",
            "*::inner",
            "-l",
            "*::left_out",
            "-n",
            "*left_out",
            "-e",
            "work:*",
        ],
    );
    let drawn = done(scene.run(&["graph", trace.to_str().unwrap()]));
    let inner = "  e2e::programs::inner(n = 4); /* = value = 16 */\n";
    assert!(drawn.contains(inner) && !drawn.contains("left_out"), "{drawn}");
    assert!(drawn.contains("/* work:step: { "), "{drawn}");
    let calls = calls(&scene, &trace);
    assert_eq!((count(&calls, "::outer", "exit"), count(&calls, "::inner", "exit")), (5, 5));
    let inner = calls.iter().find(|call| call["call"] == "e2e::programs::inner").unwrap();
    assert!(
        inner["depth"] == 1 && inner["file"].as_str().unwrap().ends_with("programs.rs"),
        "{inner}"
    );
    let table = json(&done(scene.run(&[
        "report",
        trace.to_str().unwrap(),
        "--functions",
        "--sort",
        "calls",
        "--json",
    ])));
    let names: Vec<&str> = table.iter().map(|row| row["function"].as_str().unwrap()).collect();
    assert_eq!(names, ["e2e::programs::inner", "e2e::programs::outer"]);
    assert!(table.iter().all(|row| row["calls"] == 5 && row["without_exit"] == 0), "{table:?}");
    let text = done(scene.run(&["report", trace.to_str().unwrap(), "--functions=*outer"]));
    assert!(text.lines().count() == 2 && text.contains("e2e::programs::outer"), "{text}");
}

fn slow_ones_are_recorded() {
    let scene = Scene::new();
    let trace = recorded(&scene, 3, &["-l", "*::programs::*", "--threshold", "5ms"]);
    let calls = calls(&scene, &trace);
    // They sleep for longer than that, and the others hardly ever take as long.
    assert_eq!((count(&calls, "::outer", "exit"), count(&calls, "::left_out", "exit")), (3, 3));
    assert!(
        calls.iter().all(|call| call["duration_ns"].as_u64().unwrap() >= 5_000_000),
        "{calls:?}"
    );
}

fn kept_sessions_have_names() {
    let scene = Scene::new();
    let mut program = scene.program(&["calls"]);
    program.expect("ready");
    let pid = program.pid().to_string();
    done(scene.run(&[
        "start",
        "-p",
        "function_graph",
        "-p",
        &pid,
        "--functions",
        "*::programs::*",
        "-s",
        "kept",
    ]));
    done(scene.run(&[
        "start",
        "--plugin",
        "function",
        "-p",
        &pid,
        "--flight-recorder",
        "-s",
        "flight",
    ]));
    work(&mut program, 4);
    let shown = json(&done(scene.run(&["show", "-p", &pid, "--json"])));
    let kept = shown.iter().find(|session| session["name"] == "kept").unwrap();
    assert!(kept["functions"].as_u64().unwrap() >= 3, "{kept}");
    let text = done(scene.run(&["show", "-p", &pid]));
    assert!(text.lines().next().unwrap().contains("EVENTS  FUNCTIONS  BUFFER"), "{text}");
    let (now, trace) = (scene.dir.join("now.trace"), scene.trace());
    done(scene.run(&["snapshot", "-p", &pid, "-s", "flight", "-o", now.to_str().unwrap()]));
    assert_eq!(count(&calls(&scene, &now), "::inner", "exit"), 4);
    done(scene.run(&["extract", "-p", &pid, "-s", "kept", "-o", trace.to_str().unwrap()]));
    assert_eq!(count(&calls(&scene, &trace), "e2e::programs::inner", "exit"), 4);
    let said = scene.run(&["start", "-p", "nop", "-p", &pid, "-s", "flight"]);
    assert!(said.status == 0 && said.err.contains("flight of "), "{}", said.err);
    assert_eq!(scene.run(&["show", "-p", &pid]).status, 1, "nothing is on");
    program.end();
}

fn pieces_have_names() {
    let scene = Scene::new();
    let trace = recorded(&scene, 30, &["-l", "*::inner", "--rotate", "50ms"]);
    let mut pieces: Vec<_> =
        std::fs::read_dir(&trace).unwrap().map(|e| e.unwrap().path()).collect();
    pieces.sort();
    assert!(pieces.len() > 1);
    let found: usize = pieces
        .iter()
        .map(|piece| match scene.run(&["graph", piece.to_str().unwrap(), "--json"]) {
            said if said.status == 0 => count(&json(&said.out), "e2e::programs::inner", "exit"),
            said => panic!("{}", said.err),
        })
        .sum();
    assert!(found > 0);
}

fn a_panic_ends_calls() {
    let scene = Scene::new();
    let trace = recorded(&scene, 2, &["-l", "*::caught", "-l", "*::panicking"]);
    let calls = calls(&scene, &trace);
    assert_eq!(count(&calls, "::panicking", "exit"), 2, "its guard is dropped: {calls:?}");
    assert_eq!((count(&calls, "::caught", "exit"), calls.len()), (2, 4));
}

/// `crates/gracepoint/tests/sleds`, built as the tests of the runtime build it, in the same folder.
fn sleds() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        const TARGET: &str = "x86_64-unknown-linux-gnu";
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
        let folder = root.join("target/sleds");
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--package", "gracepoint-sleds", "--target", TARGET])
            .arg("--target-dir")
            .arg(&folder)
            .current_dir(root)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTFLAGS", "-Z instrument-xray=always -C force-frame-pointers=yes")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env_remove("GRACEPOINT_PATCH")
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        folder.join(TARGET).join("debug/gracepoint-sleds")
    })
}

/// Are there sleds at all?
fn no_sleds() -> bool {
    cfg!(not(target_arch = "x86_64")) || option_env!("GRACEPOINT_PATCH") == Some("branch")
}

/// The program with sleds at work.
fn serving(scene: &Scene) -> Running {
    let mut command = scene.command(sleds());
    command.arg("serve");
    let mut program = Running::start(command);
    program.expect("/");
    program
}

fn of_cpp() {
    if no_sleds() {
        return;
    }
    let scene = Scene::new();
    let program = serving(&scene);
    let pid = program.pid().to_string();
    let listed = done(scene.run(&["functions", "-p", &pid, "sleds::Store::*"]));
    assert_eq!(listed.split_whitespace().next(), Some("sleds::Store::get(long)"), "{listed}");
    assert_eq!(listed.lines().count(), 1, "{listed}");
    let said = scene.run(&["functions", "-p", &pid, "sleds::Store::got"]);
    assert!(said.err.contains("did you mean sleds::Store::get(long)"), "{}", said.err);
    let trace = scene.trace();
    let dir = trace.to_str().unwrap();
    let wanted = ["-l", "sleds::*", "-l", "foreign_*", "-n", "*_leaf"];
    done(scene.run(&[&["record", "-p", &pid, "-d", "200ms", "-o", dir][..], &wanted].concat()));
    let drawn = done(scene.run(&["graph", dir]));
    assert!(drawn.contains("|  foreign_store() {\n"), "{drawn}");
    assert!(drawn.contains("    sleds::Store::get(long)"), "{drawn}");
    let table = done(scene.run(&["report", dir, "--functions=sleds::Store::get*"]));
    assert!(table.lines().count() == 2 && table.contains("sleds::Store::get(long)"), "{table}");
    program.end();
}

/// The program has frame pointers: its stacks are told by name when they are read.
fn a_stack_has_names() {
    if cfg!(not(target_arch = "x86_64")) || option_env!("GRACEPOINT_PATCH") == Some("branch") {
        return; // that program is not built
    }
    let scene = Scene::new();
    let mut command = scene.command(sleds());
    command.arg("serve");
    let mut program = Running::start(command);
    program.expect("/");
    let pid = program.pid().to_string();
    let args = ["record", "-p", &pid, "-e", "sleds:there", "--context", "stack", "-d", "100ms"];
    done(scene.run(&[&args[..], &["-o", "t.trace"]].concat()));
    let events = json(&done(scene.run(&["report", "t.trace", "--json", "--limit", "10"])));
    assert_eq!(events.len(), 10);
    for event in events {
        let frames = event["frames"].as_array().unwrap();
        let addresses = event["fields"]["callstack"].as_array().unwrap();
        assert_eq!(frames.len(), addresses.len(), "{event:#}");
        let at =
            |end: &str| frames.iter().position(|f| f.as_str().is_some_and(|f| f.ends_with(end)));
        let (inner, outer) = (at("::serve::second"), at("::serve::first"));
        assert!(inner.is_some() && outer == inner.map(|at| at + 1), "{event:#}");
    }
    let text = done(scene.run(&["report", "t.trace", "--limit", "1"]));
    // For people the event's own function comes first.
    let first = "callstack = [gracepoint_sleds::serve::second, gracepoint_sleds::serve::first, ";
    assert!(text.contains(first), "{text}");
    // As they happen, too.
    let args = ["stream", "-p", &pid, "-e", "sleds:there", "--context", "stack", "--limit", "3"];
    let text = done(scene.run(&args));
    assert!(text.lines().count() == 3 && text.lines().all(|line| line.contains(first)), "{text}");
    program.end();
}

/// What of ours leads from the function to the record is left out, at its begin and its end.
fn a_stack_begins_with_the_function() {
    if no_sleds() {
        return;
    }
    let scene = Scene::new();
    let program = serving(&scene);
    let pid = program.pid().to_string();
    let args = ["record", "-p", &pid, "-l", "*::traced::outer", "-l", "*::traced::leaf"];
    let more = ["--context", "stack", "-d", "100ms", "--force", "-o", "t.trace"];
    let (mut leaves, mut outer, mut events) = (0, 0, Vec::new());
    // Until there are some, however busy the machine is.
    while events.len() < 20 {
        let said = scene.run(&[&args[..], &more].concat());
        assert!(said.status == 0 && !said.err.contains("frame pointers"), "{}", said.err);
        let said = scene.run(&["report", "t.trace", "--json", "--limit", "200"]);
        assert!(!said.err.contains("frame pointers"), "{}", said.err);
        events = json(&done(said));
    }
    program.end();
    for event in events {
        let (name, function) = (&event["name"], &event["fields"]["function"]);
        if name != "gp:function_entry" && name != "gp:function_exit" {
            continue;
        }
        let frames = event["frames"].as_array().unwrap();
        assert_eq!(&frames[0], function, "{event:#}");
        match function.as_str().unwrap() {
            "gracepoint_sleds::traced::leaf" => {
                assert_eq!(frames[1], "gracepoint_sleds::traced::outer", "{event:#}");
                leaves += 1;
            }
            _ => outer += 1,
        }
        let run =
            |f: &Value| f.as_str().is_some_and(|f| f.contains("gracepoint_sleds::serve::run"));
        assert!(frames.iter().any(run), "{event:#}");
    }
    assert!(leaves > 0 && outer > 0, "{leaves} and {outer}");

    // With the attribute the function has a frame, if anything has.
    let scene = Scene::new();
    let trace = recorded(&scene, 3, &["-l", "*::inner", "--context", "stack"]);
    for event in json(&done(scene.run(&["report", trace.to_str().unwrap(), "--json"]))) {
        let frames = event["frames"].as_array().unwrap();
        if event["name"] == "gp:function_entry" && is_whole(frames) {
            assert_eq!(frames[0], "e2e::programs::inner", "{event:#}");
            assert_eq!(frames[1], "e2e::programs::outer", "{event:#}");
        }
    }
}

fn is_whole(frames: &[Value]) -> bool {
    frames.iter().any(|frame| frame == "e2e::programs::outer")
}

/// However this binary was built.
fn a_stack_is_whole_or_not() {
    let scene = Scene::new();
    let mut program = scene.program(&["calls"]);
    program.expect("ready");
    let pid = program.pid().to_string();
    let args = ["record", "-p", &pid, "-e", "work:*", "--context", "stack", "-o", "t.trace"];
    let mut recorder = Running::start(scene.gracepoint(&args));
    recorder.expect_error("gracepoint: recording ");
    work(&mut program, 3);
    program.end();
    let recorder = recorder.end();
    let told = scene.run(&["report", "t.trace"]);
    let info = scene.run(&["info", "t.trace"]);
    let hint = "keeps no frame pointers, so its stacks are empty or end early: build it with \
                `-C force-frame-pointers=yes`";
    let hints: Vec<usize> =
        [&told, &info].iter().map(|said| said.err.matches(hint).count()).collect();
    let events = json(&done(scene.run(&["report", "t.trace", "--json"])));
    let whole = events.iter().all(|event| is_whole(event["frames"].as_array().unwrap()));
    assert!(events.len() >= 3);
    assert_eq!(hints, [usize::from(!whole); 2], "{events:#?}");
    assert_eq!(recorder.status, 0);

    let fake = scene.fake("hollow");
    let pid = fake.pid().to_string();
    let record = |more: &[&str]| {
        let args = ["record", "-p", &pid, "-d", "50ms", "--force", "-o", "h.trace"];
        scene.run(&[&args[..], more].concat()).err
    };
    assert_eq!(record(&["--context", "tid,stack"]).matches(hint).count(), 1);
    assert!(!record(&["--context", "tid"]).contains(hint));
}

fn nobody_called() {
    let scene = Scene::new();
    let none = recorded(&scene, 0, &["-l", "*::outer"]);
    let scene_of_some = Scene::new();
    let some = recorded(&scene_of_some, 1, &["-l", "*::outer", "-l", "*::inner"]);
    let (none, some) = (none.to_str().unwrap(), some.to_str().unwrap());
    for (words, want) in [
        (&["graph", none][..], "no function that was on was called: record for longer, or others"),
        (&["report", none, "--functions"], "no function that was on was called"),
        (&["graph", some, "--thread", "nobody"], "no function was called in what is chosen"),
        (&["report", some, "--functions", "--until", "+0s"], ""),
        (&["report", some, "--functions", "--thread", "nobody"], "in what is chosen of the trace"),
    ] {
        let said = scene.run(words);
        assert_eq!(said.status, 0, "{words:?}: {}", said.err);
        assert!(said.err.contains(want), "{words:?}: {}", said.err);
        assert_eq!(want.is_empty(), !said.err.contains(" was called"), "{words:?}: {}", said.err);
    }
    // One that recorded no functions at all.
    let scene = Scene::new();
    let events = recorded(&scene, 1, &["-e", "work:*"]);
    for words in [&["graph"][..], &["report", "--functions"]] {
        let said = scene.run(&[words, &[events.to_str().unwrap()]].concat());
        assert_eq!(said.status, 2, "{}", said.err);
        assert!(
            said.err.contains("no function was recorded in")
                && said.err.contains("record with --functions GLOB"),
            "{}",
            said.err
        );
    }
}

/// A copy of the visible files alone has numbers for names.
fn without_names() {
    let scene = Scene::new();
    let trace = recorded(&scene, 2, &["-l", "*::outer", "-l", "*::inner", "-e", "work:*"]);
    let copy = scene.dir.join("copy.trace");
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(&trace).unwrap().flatten() {
        if !entry.file_name().to_string_lossy().starts_with('.') {
            std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
    }
    let why = "functions have numbers for names: .gracepoint.json, which names them, is not in copy.trace";
    for (words, status) in [
        (&["report", "copy.trace"][..], 0),
        (&["report", "copy.trace", "--functions"], 0),
        (&["graph", "copy.trace"], 0),
        (&["export", "copy.trace", "--to", "perfetto"], 0),
        (&["export", "copy.trace", "--to", "chrome"], 0),
        (&["export", "copy.trace", "--to", "folded"], 0),
        (&["view", "copy.trace"], 0),
        (&["report", "copy.trace", "--functions=*inner"], 2),
        (&["graph", "copy.trace", "--functions", "*inner"], 2),
    ] {
        let said = scene.run(words);
        assert_eq!(said.status, status, "{words:?}: {}", said.err);
        assert_eq!(said.err.matches(why).count(), 1, "{words:?}: {}", said.err);
        assert!(said.err.contains("`cp -r DIR` takes it along"), "{words:?}: {}", said.err);
    }
    let said = scene.run(&["report", "copy.trace", "-e", "work:*"]);
    assert!(!said.err.contains(why), "{}", said.err);
    let said = scene.run(&["graph", trace.to_str().unwrap()]);
    assert!(!said.err.contains("numbers for names"), "{}", said.err);
}

fn with_sleds() {
    if no_sleds() {
        return;
    }
    let scene = Scene::new();
    let program = serving(&scene);
    let pid = program.pid().to_string();
    let listed = done(scene.run(&["functions", "-p", &pid, "*::traced::outer"]));
    assert!(listed.contains("::traced::outer") && listed.contains("traced.rs:"), "{listed}");
    let trace = scene.trace();
    let dir = trace.to_str().unwrap();
    done(scene.run(&["record", "-p", &pid, "-l", "*::traced::*", "-d", "200ms", "-o", dir]));
    let table = json(&done(scene.run(&["report", dir, "--functions", "--json"])));
    let outer =
        table.iter().find(|row| row["function"].as_str().unwrap().ends_with("::outer")).unwrap();
    assert!(outer["calls"].as_u64().unwrap() > 0 && outer["line"].as_u64().unwrap() > 0, "{outer}");
    assert!(outer["without_exit"].as_u64().unwrap() <= 1, "all but the last one ended: {outer}");
    let calls = calls(&scene, &trace);
    assert!(
        calls.iter().any(|call| call["depth"].as_u64().unwrap() > 0),
        "something calls something"
    );
    // What found no room is not passed over.
    let small = ["record", "-p", &pid, "-l", "*::traced::*", "--buffer", "16K", "-d", "200ms"];
    loop {
        let args = ["-o", "small.trace", "--force"];
        done(scene.run(&[&small[..], &args].concat()));
        let info = json_object(&done(scene.run(&["info", "small.trace", "--json"])));
        if info["lost"].as_u64() > Some(0) {
            break; // the recorder was too slow for it, as sooner or later it is
        }
    }
    for verb in [&["report", "small.trace", "--functions"][..], &["graph", "small.trace"]] {
        let said = scene.run(verb);
        assert!(said.err.contains("records of functions were lost"), "{}", said.err);
    }
    program.end();
}
