//! The command against programs with the real runtime in them.

use crate::scene::{Running, Said, Scene};
use crate::trace::babeltrace;
use gracepoint_wire::packet::PacketHeader;
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

pub(crate) fn trials() -> Vec<Trial> {
    let tests: [(&str, fn()); 18] = [
        ("list_before_the_first_hit", list_before_the_first_hit),
        ("every_event_is_recorded_with_its_fields", every_event_is_recorded_with_its_fields),
        ("duration_ends_a_recording", duration_ends_a_recording),
        ("ctrl_c_ends_a_recording", ctrl_c_ends_a_recording),
        ("ctrl_c_ends_a_recording_beside_a_sleeper", ctrl_c_ends_a_recording_beside_a_sleeper),
        ("program_exit_ends_a_recording", program_exit_ends_a_recording),
        ("a_killed_program_keeps_what_it_committed", a_killed_program_keeps_what_it_committed),
        ("overload_is_counted", overload_is_counted),
        ("a_command_is_recorded_from_its_start", a_command_is_recorded_from_its_start),
        ("a_command_that_ignores_ctrl_c_is_left", a_command_that_ignores_ctrl_c_is_left),
        ("only_the_first_program_of_a_command", only_the_first_program_of_a_command),
        (
            "a_command_that_cannot_be_traced_is_a_failure",
            a_command_that_cannot_be_traced_is_a_failure,
        ),
        ("a_bad_pattern_stops_the_command", a_bad_pattern_stops_the_command),
        ("two_recorders_do_not_disturb_each_other", two_recorders_do_not_disturb_each_other),
        ("too_many_recorders_are_refused", too_many_recorders_are_refused),
        ("spans_are_paired", spans_are_paired),
        ("a_cut_trace_is_read_up_to_the_cut", a_cut_trace_is_read_up_to_the_cut),
        ("more_threads_than_open_files", more_threads_than_open_files),
    ];
    tests.into_iter().map(crate::trial).collect()
}

pub(crate) fn with_babeltrace() -> Vec<(&'static str, fn())> {
    vec![
        ("babeltrace_reads_the_same", babeltrace_reads_the_same as fn()),
        ("babeltrace_counts_the_same_losses", babeltrace_counts_the_same_losses),
    ]
}

pub(crate) fn start(scene: &Scene, args: &[&str]) -> Running {
    let mut program = scene.program(args);
    program.expect("ready");
    program
}

pub(crate) fn go(program: &mut Running) {
    writeln!(program.child.stdin.as_mut().unwrap(), "go").unwrap();
}

/// The events of the trace, as `report --json` tells them.
pub(crate) fn events(scene: &Scene) -> Vec<Value> {
    let said = scene.run(&["report", "--json", "t.trace"]);
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn info(scene: &Scene) -> Value {
    let said = scene.run(&["info", "--json", "t.trace"]);
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    let info: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(info["damage"].as_array().unwrap().len(), 0, "{info:#}");
    assert_eq!(info["contradictions"].as_array().unwrap().len(), 0, "{info:#}");
    info
}

/// `n` of each step, by worker, in order of time.
pub(crate) fn steps(events: &[Value]) -> BTreeMap<u64, Vec<u64>> {
    let mut steps: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for event in events.iter().filter(|event| event["name"] == "work:step") {
        let fields = &event["fields"];
        let worker = fields["worker"].as_u64().unwrap();
        steps.entry(worker).or_default().push(fields["n"].as_u64().unwrap());
    }
    steps
}

#[track_caller]
pub(crate) fn assert_ok(said: &Said) {
    assert_eq!(said.status, 0, "{}", said.err);
}

fn list_before_the_first_hit() {
    let scene = Scene::new();
    let program = start(&scene, &["count", "1", "1"]);
    let said = scene.run(&["list", "-p", &program.pid().to_string(), "work:*"]);
    assert_ok(&said);
    for part in ["work:job  off  1 span  ", "work:rest  off  1 site  ", "work:step  off  1 site  "]
    {
        assert!(said.out.lines().any(|line| line.starts_with(part)), "{part} in {}", said.out);
    }
    for line in ["    A worker did one step.", "  text: str     Something to read.", "  even: bool"]
    {
        assert!(said.out.lines().any(|l| l == line), "{line} in {}", said.out);
    }
    let ps = scene.run(&["ps", "--json"]);
    let ps: Value = serde_json::from_str(&ps.out).unwrap();
    assert_eq!((&ps["name"], &ps["events_on"]), (&"worker".into(), &0.into()));
    assert_eq!(ps["pid"], program.pid());
}

fn every_event_is_recorded_with_its_fields() {
    const EACH: u64 = 20_000;
    let scene = Scene::new();
    let mut program = start(&scene, &["count", "4", &EACH.to_string()]);
    let recorder = scene.recorder(program.pid(), &["--json"]);
    go(&mut program);
    program.expect("done");
    recorder.signal(Signal::INT);
    let said = recorder.end();
    assert_ok(&said);
    let summary: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&summary["events"], &summary["lost"]), (&(4 * EACH).into(), &0.into()));
    let events = events(&scene);
    for (worker, steps) in steps(&events) {
        assert!(steps == (0..EACH).collect::<Vec<_>>(), "worker {worker}: {}", steps.len());
    }
    let mut threads = std::collections::HashSet::new();
    for event in &events {
        let fields = &event["fields"];
        let n = fields["n"].as_u64().unwrap();
        assert_eq!(fields["text"], if n % 2 == 0 { "ping" } else { "pång \"x\"" });
        assert_eq!(fields["balance"], -(n as i64));
        assert_eq!(fields["ratio"].as_f64(), Some(n as f64 / 2.0));
        assert_eq!(fields["even"], n % 2 == 0);
        threads.insert((event["tid"].as_u64(), fields["worker"].as_u64()));
    }
    assert_eq!(threads.len(), 4, "a worker is a thread");
    let times: Vec<_> = events.iter().map(|event| event["ts_ns"].as_u64()).collect();
    assert!(times.is_sorted());
    let patching = &info(&scene)["program"]["patching"];
    assert!(["text", "mem", "branch"].iter().any(|way| patching == way), "{patching}");
    assert_private(&scene);
}

fn assert_private(scene: &Scene) {
    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(scene.trace()), 0o700);
    for entry in std::fs::read_dir(scene.trace()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(path.clone()), 0o600, "{}", path.display());
    }
}

/// Without losses, what was recorded of each worker is one stretch.
fn assert_stretches(scene: &Scene, workers: usize) {
    assert_eq!(info(scene)["lost"], 0);
    let steps = steps(&events(scene));
    assert_eq!(steps.len(), workers);
    for (worker, steps) in steps {
        let from = steps[0];
        let want: Vec<u64> = (from..from + steps.len() as u64).collect();
        assert!(steps == want, "worker {worker} from {from}: {} steps", steps.len());
    }
}

fn duration_ends_a_recording() {
    let scene = Scene::new();
    let program = start(&scene, &["forever", "3"]);
    // Longer than a second: partial pages are taken back on the way.
    let said = scene.recorder(program.pid(), &["--duration", "1300ms"]).end();
    assert_ok(&said);
    assert_stretches(&scene, 3);
    assert_eq!(info(&scene)["ended"], "duration");
    let ps = scene.run(&["ps", "--json"]);
    assert!(ps.out.contains("\"events_on\":0"), "it is off again: {}", ps.out);
}

fn ctrl_c_ends_a_recording() {
    let scene = Scene::new();
    let program = start(&scene, &["forever", "3"]);
    let recorder = scene.recorder(program.pid(), &["-e", "work:st*"]);
    while scene.run(&["report", "--limit", "1", "t.trace"]).out.is_empty() {}
    recorder.signal(Signal::INT);
    assert_ok(&recorder.end());
    assert_stretches(&scene, 3);
    assert_eq!(info(&scene)["ended"], "interrupted");
}

/// Whoever sleeps in a probe of the program's own holds up nobody who wants to end: they are told who it is.
fn ctrl_c_ends_a_recording_beside_a_sleeper() {
    let scene = Scene::new();
    let mut program = start(&scene, &["asleep"]);
    program.expect("asleep");
    let recorder = scene.recorder(program.pid(), &["-e", "work:step"]);
    while scene.run(&["report", "--limit", "1", "t.trace"]).out.is_empty() {}
    recorder.signal(Signal::INT);
    let said = recorder.end();
    assert_ok(&said);
    let who = "running probe \"slow\" of work:step; what it may be writing is not in the trace";
    assert!(said.err.contains(who), "{}", said.err);
    assert_stretches(&scene, 1);
    assert_eq!(info(&scene)["ended"], "interrupted");
    go(&mut program); // wakes it
    assert_ok(&program.end());
}

fn program_exit_ends_a_recording() {
    let scene = Scene::new();
    let mut program = start(&scene, &["count", "2", "1000"]);
    let recorder = scene.recorder(program.pid(), &[]);
    go(&mut program);
    program.expect("done");
    assert_eq!(program.end().status, 0);
    assert_ok(&recorder.end());
    assert_eq!(info(&scene)["events"], 2000);
    assert_eq!(info(&scene)["ended"], "program-exit");
}

fn a_killed_program_keeps_what_it_committed() {
    let scene = Scene::new();
    let mut program = start(&scene, &["progress"]);
    let recorder = scene.recorder(program.pid(), &[]);
    go(&mut program);
    program.expect("fired 5000");
    program.signal(Signal::KILL);
    let said = program.end();
    assert_eq!(said.status, -9);
    let reported = said.out.lines().filter_map(|line| line.strip_prefix("fired ")?.parse().ok());
    let reported: u64 = reported.max().unwrap_or(5000);
    assert_ok(&recorder.end());
    let steps = &steps(&events(&scene))[&0];
    assert!(*steps == (0..steps.len() as u64).collect::<Vec<_>>());
    let recorded = steps.len() as u64;
    assert!(recorded == reported || recorded == reported + 1, "{recorded}, said {reported}");
}

fn overloaded(scene: &Scene) -> Value {
    let mut program = start(scene, &["count", "4", "100000"]);
    let recorder = scene.recorder(program.pid(), &["--buffer", "64K"]);
    go(&mut program);
    program.expect("done");
    recorder.signal(Signal::INT);
    assert_ok(&recorder.end());
    info(scene)
}

fn overload_is_counted() {
    let scene = Scene::new();
    let info = overloaded(&scene);
    let step = info["per_event"].as_array().unwrap().iter().find(|e| e["name"] == "work:step");
    let number = |key: &str| step.unwrap()[key].as_u64().unwrap();
    assert!(number("lost") > 0, "64 KiB are not enough: {info:#}");
    assert_eq!(number("events") + number("lost"), 400_000);
}

/// `record -o t.trace MORE -- PROGRAM ARGS`
fn command(scene: &Scene, more: &[&str], args: &[&str]) -> Running {
    let mut command = scene.gracepoint(&["record", "-o", "t.trace"]);
    command.args(more).arg("--").arg(std::env::current_exe().unwrap()).arg("--program").args(args);
    Running::start(command)
}

fn a_command_is_recorded_from_its_start() {
    let scene = Scene::new();
    let said = command(&scene, &[], &["at-once", "3000"]).end();
    assert_ok(&said);
    assert_eq!(said.out, "ready\n");
    assert!(said.err.contains("recorded 3,000 events ("), "{}", said.err);
    let steps = &steps(&events(&scene))[&0];
    assert!(*steps == (0..3000).collect::<Vec<_>>(), "from the first on: {:?}", steps.first());
}

/// Ctrl-C is for the command to decide, and for the user where that does nothing.
fn a_command_that_ignores_ctrl_c_is_left() {
    let scene = Scene::new();
    let script = "trap '' INT; exec \"$0\" --program forever 1";
    let mut command = scene.gracepoint(&["record", "-o", "t.trace", "--", "sh", "-c", script]);
    command.arg(std::env::current_exe().unwrap());
    let mut recorder = Running::start(command);
    recorder.expect_error("gracepoint: recording ");
    recorder.signal(Signal::INT);
    let note = recorder.expect_error("gracepoint: sh has Ctrl-C too");
    assert!(note.contains("once more ends the recording"), "{note}");
    recorder.signal(Signal::INT);
    let note = recorder.expect_error("gracepoint: sh (pid ");
    let (pid, what) = note.split_once(')').unwrap();
    assert_eq!(what, " goes on, and is left to itself");
    let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).expect("it goes on");
    let said = recorder.end();
    assert_eq!(said.status, 130, "{}", said.err);
    let info = info(&scene);
    assert!(info["ended"] == "interrupted" && info["events"].as_u64() > Some(0), "{info:#}");
}

fn only_the_first_program_of_a_command() {
    let scene = Scene::new();
    let me = std::env::current_exe().unwrap();
    let script = "\"$0\" --program at-once 10; \"$0\" --program at-once 20; exit 5";
    let mut command = scene.gracepoint(&["record", "-o", "t.trace", "--", "sh", "-c", script]);
    command.arg(me);
    let said = Running::start(command).end();
    assert_eq!(said.status, 5, "{}", said.err);
    assert!(said.err.contains("worker (pid "), "{}", said.err);
    assert!(said.err.contains(") is not recorded: one program at a time is"), "{}", said.err);
    assert_eq!(info(&scene)["events"], 10);
}

fn a_command_that_cannot_be_traced_is_a_failure() {
    let scene = Scene::new();
    for (script, status) in [("exit 0", 125), ("exit 3", 3)] {
        let said = scene.run(&["record", "-o", "t.trace", "--", "sh", "-c", script]);
        assert_eq!(said.status, status, "{}", said.err);
        assert!(said.err.contains("call gracepoint::init() in it"), "{}", said.err);
        assert!(!scene.trace().exists());
    }
}

fn a_bad_pattern_stops_the_command() {
    let scene = Scene::new();
    let said = command(&scene, &["-e", "work:stop"], &["forever", "1"]).end();
    assert_eq!(said.status, 125);
    let err = "gracepoint: no event of worker matches `work:stop`: did you mean work:step";
    assert!(said.err.starts_with(err), "{}", said.err);
    assert!(!scene.trace().exists());
}

fn two_recorders_do_not_disturb_each_other() {
    let scene = Scene::new();
    let mut program = start(&scene, &["count", "2", "5000"]);
    let first = scene.recorder(program.pid(), &[]);
    let pid = program.pid().to_string();
    let second = scene.gracepoint(&["record", "-p", &pid, "-o", "second.trace", "-e", "*:step"]);
    let mut second = Running::start(second);
    second.expect_error("gracepoint: recording ");
    go(&mut program);
    program.expect("done");
    first.signal(Signal::INT);
    assert_ok(&first.end());
    second.signal(Signal::INT);
    assert_ok(&second.end());
    assert_eq!(info(&scene)["events"], 10_000);
    std::fs::remove_dir_all(scene.trace()).unwrap();
    std::fs::rename(scene.dir.join("second.trace"), scene.trace()).unwrap();
    assert_eq!(info(&scene)["events"], 10_000);
}

fn too_many_recorders_are_refused() {
    let scene = Scene::new();
    let program = start(&scene, &["forever", "1"]);
    let pid = program.pid().to_string();
    let mut recorders = Vec::new();
    for n in 0..100 {
        let dir = format!("{n}.trace");
        let args = ["record", "-p", &pid, "-o", &dir, "--buffer", "64K", "-d", "60s"];
        let mut recorder = Running::start(scene.gracepoint(&args));
        let line = recorder.expect_error("gracepoint: ");
        if !line.starts_with("recording ") {
            assert!(
                line.starts_with("the program refuses: it has 32 sessions already")
                    && n == 32
                    && line.contains("gracepoint show` tells whose they are; end one"),
                "{line}"
            );
            assert_eq!(recorder.end().status, 2);
            assert!(!scene.dir.join(dir).exists());
            return;
        }
        recorders.push(recorder);
    }
    panic!("100 recorders at once");
}

fn spans_are_paired() {
    let scene = Scene::new();
    let mut program = start(&scene, &["jobs", "100"]);
    let recorder = scene.recorder(program.pid(), &["-e", "work:*"]);
    go(&mut program);
    program.expect("done");
    recorder.signal(Signal::INT);
    assert_ok(&recorder.end());
    assert_eq!(info(&scene)["events"], 300);
    let said = scene.run(&["hist", "t.trace", "-e", "work:job", "-f", "duration", "--json"]);
    assert_ok(&said);
    let hist: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(hist["unpaired"], 0);
    assert_eq!(hist["groups"][0]["count"], 100, "{hist:#}");
}

fn more_threads_than_open_files() {
    let scene = Scene::new();
    let mut program = start(&scene, &["crowd", "300"]);
    let recorder = scene.recorder(program.pid(), &["--buffer", "64M"]);
    go(&mut program);
    program.expect("done");
    recorder.signal(Signal::INT);
    assert_ok(&recorder.end());
    let info = info(&scene);
    assert_eq!((&info["events"], &info["lost"]), (&3000.into(), &0.into()));
    assert!(info["streams"].as_u64().unwrap() >= 300, "{info:#}");
    let steps = steps(&events(&scene));
    assert!(steps.len() == 300 && steps.values().all(|s| s.iter().copied().eq(0..10)));
}

fn a_cut_trace_is_read_up_to_the_cut() {
    let scene = Scene::new();
    let mut program = start(&scene, &["count", "1", "5000"]);
    let recorder = scene.recorder(program.pid(), &[]);
    go(&mut program);
    program.expect("done");
    recorder.signal(Signal::INT);
    assert_ok(&recorder.end());
    let whole = scene.run(&["info", "--json", "t.trace"]);
    assert!(whole.status == 0 && whole.out.contains("\"complete\": true"), "{}", whole.out);
    let files = std::fs::read_dir(scene.trace()).unwrap().map(|entry| entry.unwrap().path());
    let stream = files.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let bytes = std::fs::read(&stream).unwrap();
    let first = PacketHeader::parse(&bytes).unwrap().packet_bytes();
    assert!(first < bytes.len() as u64, "there is more than one packet");
    // In the middle of a packet, and where one ends and nothing else shows it.
    for len in [bytes.len() as u64 - 100, first] {
        std::fs::OpenOptions::new().write(true).open(&stream).unwrap().set_len(len).unwrap();
        let said = scene.run(&["report", "t.trace"]);
        assert_eq!(said.status, 0, "{}", said.err);
        let strict = scene.run(&["report", "t.trace", "--strict"]);
        assert!(strict.status == 2 && strict.out == said.out && strict.err == said.err);
        assert!(said.out.lines().count() > 100, "what is left is shown");
        assert!(said.err.contains("are missing"), "{}", said.err);
        assert!(said.err.lines().last().unwrap().contains("copy it again"), "{}", said.err);
        let said = scene.run(&["info", "--json", "t.trace", "--strict"]);
        assert!(said.status == 2 && said.out.contains("\"complete\": false"), "{}", said.out);
    }
    std::fs::remove_file(&stream).unwrap();
    let said = scene.run(&["report", "t.trace"]);
    assert!(said.status == 0, "{}", said.err);
    assert_eq!(said.err.matches("the file is missing").count(), 1, "once: {}", said.err);
}

fn babeltrace_reads_the_same() {
    let scene = Scene::new();
    let mut program = start(&scene, &["count", "4", "5000"]);
    let recorder = scene.recorder(program.pid(), &[]);
    go(&mut program);
    program.expect("done");
    recorder.signal(Signal::INT);
    assert_ok(&recorder.end());
    let babel = babeltrace(&scene.trace());
    assert_eq!(babel.warnings, "");
    let mut theirs: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for line in &babel.lines {
        assert!(line.contains(" work:step: "), "{line}");
        let field = |name: &str| -> u64 {
            let rest = line.split(&format!(" {name} = ")).nth(1).unwrap();
            rest.split([',', ' ']).next().unwrap().parse().unwrap()
        };
        theirs.entry(field("worker")).or_default().push(field("n"));
    }
    assert!(theirs == steps(&events(&scene)));
    assert_eq!(babel.lines.len(), 20_000);
}

fn babeltrace_counts_the_same_losses() {
    let scene = Scene::new();
    let info = overloaded(&scene);
    let babel = babeltrace(&scene.trace());
    let steps = babel.lines.iter().filter(|line| line.contains(" work:step: ")).count();
    assert_eq!(info["events"], steps);
    assert_eq!(babel.discarded(), info["lost"].as_u64().unwrap(), "{}", babel.warnings);
}
