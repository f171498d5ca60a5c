//! The kernel's tracepoints beside a program's events. Where this system does not give them the recording goes
//! on without, and says so; that is tested everywhere.

use crate::instance::Mounted;
use crate::real::{assert_ok, events, go, start};
use crate::scene::{Running, Scene};
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::Value;

pub(crate) fn trials() -> Vec<Trial> {
    let tests: [(&str, fn()); 13] = [
        ("kernel_switches_lie_between_the_programs_events", switches_lie_between),
        ("a_profile_and_the_kernels_events_are_one_trace", profiled),
        ("without_the_kernels_events_the_programs_own_are_recorded", without_tracefs),
        ("a_pattern_that_matches_no_kernel_event_is_an_error", no_such_event),
        ("a_killed_recorder_leaves_no_helper_behind", killed_recorder),
        ("slow_asks_for_what_it_needs", slow_asks),
        ("perf_stat_counts_a_program", perf_stat),
        ("perf_stat_tells_what_each_interval_adds", perf_stat_interval),
        ("perf_stat_tells_threads_apart", perf_stat_threads),
        ("perf_stat_counts_a_command_from_its_start", perf_stat_command),
        ("perf_stat_counts_a_commands_own_tracepoints", perf_stat_own),
        ("perf_stat_tells_what_a_killed_program_has_counted", perf_stat_killed),
        ("scenarios_are_told", scenarios),
    ];
    tests.into_iter().map(crate::trial).collect()
}

/// Whether the kernel's tracepoints can be had here: it says what is missing where they cannot.
fn has_tracefs(scene: &Scene, mounted: Option<&Mounted>) -> bool {
    let mut command = scene.gracepoint(&["record", "-k", "list"]);
    mounted.inspect(|mounted| mounted.tell(&mut command));
    let said = Running::start(command).end();
    match said.status {
        0 => {
            assert!(said.out.lines().any(|line| line == "sched:sched_switch"), "{}", said.out);
            true
        }
        _ => {
            let hint = ["mount", "may not be read"].iter().any(|word| said.err.contains(word));
            assert!(said.status == 2 && hint, "{}", said.err);
            false
        }
    }
}

fn record(scene: &Scene, mounted: Option<&Mounted>, pid: u32, patterns: &str) -> Running {
    let mut command = scene.gracepoint(&["record", "-p", &pid.to_string(), "-k", patterns, "-o"]);
    command.arg(scene.trace());
    mounted.inspect(|mounted| mounted.tell(&mut command));
    Running::start(command)
}

pub(crate) const NAPS: &str =
    "sched:sched_switch,sched:sched_waking,syscalls:sys_*_clock_nanosleep";

fn switches_lie_between() {
    let scene = Scene::new();
    let mounted = Mounted::new(&scene);
    if !has_tracefs(&scene, mounted.as_ref()) {
        return;
    }
    let mut program = start(&scene, &["burn", "30"]);
    let mut recorder = record(&scene, mounted.as_ref(), program.pid(), NAPS);
    let first = recorder.expect_error("gracepoint: ");
    if !first.starts_with("recording") {
        assert!(first.contains("CAP_PERFMON"), "{first}");
        return;
    }
    let helper = helpers(recorder.pid())[0];
    go(&mut program);
    program.expect("done");
    drop(program);
    let said = recorder.end();
    assert_ok(&said);
    // Where it is still at it now, it was when the recorder ended, which did not wait and said so.
    let goes_on = std::fs::exists(format!("/proc/{helper}")).unwrap();
    let told = said.err.contains(&format!("process {helper} goes on to give the kernel's"));
    assert!(told || !goes_on, "{}", said.err);
    assert_naps(&scene);
    assert_slow(&scene);
}

/// Events, samples and the kernel's tracepoints of one recording, for each of their readers.
fn profiled() {
    let scene = Scene::new();
    let mounted = Mounted::new(&scene);
    if !has_tracefs(&scene, mounted.as_ref()) {
        return;
    }
    let mut program = start(&scene, &["burn", "60"]);
    let pid = program.pid().to_string();
    let mut command = scene.gracepoint(&["record", "-p", &pid, "--profile", "--freq", "1999"]);
    command.args(["-k", NAPS, "-o"]).arg(scene.trace());
    mounted.as_ref().inspect(|mounted| mounted.tell(&mut command));
    let mut recorder = Running::start(command);
    // Where one of the two is not given it is told, and the other recorded.
    let mut told = Vec::new();
    while !told.last().is_some_and(|line: &String| line.starts_with("recording")) {
        told.push(recorder.expect_error("gracepoint: "));
    }
    let has_kernel = !told.iter().any(|line| line.contains("the program's own are"));
    go(&mut program);
    program.expect("done");
    drop(program);
    assert_ok(&recorder.end());

    let profile = crate::profile::profile(&scene);
    assert!(profile["samples"].as_u64().unwrap() > 20, "{profile:#}");
    let parts = ["burn_sixty", "burn_thirty", "burn_ten"]
        .map(|function| crate::profile::part(&profile, function));
    assert!(parts.iter().sum::<f64>() > 80.0 && parts[0] > parts[2], "{parts:?}");
    let said = scene.run(&["export", "--to", "perfetto", "-o", "t.pftrace", "t.trace"]);
    assert_ok(&said);
    let exported = std::fs::read(scene.dir.join("t.pftrace")).unwrap();
    let has = |name: &str| exported.windows(name.len()).any(|bytes| bytes == name.as_bytes());
    assert!(has("burn_sixty") && has("burn:nap"));
    if has_kernel {
        assert!(has("clock_nanosleep"));
        let naps =
            scene.run(&["slow", "--event", "burn:nap", "--over", "5ms", "--json", "t.trace"]);
        assert_ok(&naps);
        let slow: Value = serde_json::from_str(&naps.out).unwrap();
        let parts = slow["sum"]["blocked_ns"].as_object().unwrap().iter();
        let sleeps = parts.filter(|(why, _)| why.starts_with("clock_nanosleep"));
        let blocked: u64 = sleeps.map(|(_, ns)| ns.as_u64().unwrap()).sum();
        let total = slow["sum"]["total_ns"].as_u64().unwrap();
        // Nearly all of it, and no part of it twice.
        assert!(blocked * 10 > total * 9 && blocked <= total, "{slow:#}");
    }
    // A copy without the hidden file.
    std::fs::remove_file(scene.trace().join(".gracepoint.json")).unwrap();
    let folded = ["export", "--profile", "--to", "folded", "-o", "t.folded", "t.trace"];
    for args in [&["report", "--profile", "t.trace"][..], &folded] {
        let said = scene.run(args);
        assert_eq!(said.status, 0, "{}", said.err);
        assert!(said.err.contains("samples are not found: .gracepoint.json"), "{}", said.err);
    }
}

/// Each of three naps of 10 ms has its system call and the switch out of it inside, to 50 µs.
pub(crate) fn assert_naps(scene: &Scene) {
    const SLACK: u64 = 50_000;
    let events = events(scene);
    let at = |event: &Value| event["ts_ns"].as_u64().unwrap();
    let named = |name: &str| events.iter().filter(|e| e["name"] == name).collect::<Vec<_>>();
    let naps: Vec<(u64, u64)> = named("burn:nap:begin")
        .into_iter()
        .map(at)
        .zip(named("burn:nap:end").into_iter().map(at))
        .collect();
    assert_eq!(naps.len(), 3);
    let tid = named("burn:nap:begin")[0]["tid"].clone();
    let switches = named("sched:sched_switch");
    let (enters, exits) =
        (named("syscalls:sys_enter_clock_nanosleep"), named("syscalls:sys_exit_clock_nanosleep"));
    for (begin, end) in &naps {
        let inside = |list: &[&Value]| {
            let of = list.iter().filter(|event| event["tid"] == tid);
            let times = of.map(|event| at(event));
            times
                .filter(|t| begin.saturating_sub(SLACK) <= *t && *t <= end + SLACK)
                .collect::<Vec<_>>()
        };
        let (enter, off, exit) = (inside(&enters), inside(&switches), inside(&exits));
        assert!(
            !enter.is_empty() && !off.is_empty() && !exit.is_empty(),
            "{enter:?} {off:?} {exit:?}"
        );
        assert!(
            enter[0] <= off[0] && off[0] <= *exit.last().unwrap(),
            "{enter:?} {off:?} {exit:?}"
        );
        // It slept 10 ms in between.
        assert!(exit.last().unwrap() - off[0] >= 9_900_000, "{off:?} {exit:?}");
    }
    let fields = &switches[0]["fields"];
    assert!(fields["prev_comm"].is_string() && fields["next_pid"].is_number(), "{fields:#}");
}

/// `slow` says where the naps' time went.
pub(crate) fn assert_slow(scene: &Scene) {
    let said = scene.run(&["slow", "--event", "burn:nap", "--over", "5ms", "--json", "t.trace"]);
    assert_ok(&said);
    let slow: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&slow["spans"], &slow["slow"]), (&3.into(), &3.into()), "{slow:#}");
    // A thread of the program may have been the one that was there to wake it.
    let parts = slow["sum"]["blocked_ns"].as_object().unwrap().iter();
    let sleeps = parts.filter(|(why, _)| why.starts_with("clock_nanosleep"));
    let blocked: u64 = sleeps.map(|(_, ns)| ns.as_u64().unwrap()).sum();
    assert!(blocked >= 3 * 9_900_000, "{slow:#}");
    let total = slow["sum"]["total_ns"].as_u64().unwrap();
    assert!(blocked <= total, "{slow:#}");
    let said = scene.run(&["slow", "--event", "burn:nap", "t.trace"]);
    assert!(said.status == 0 && said.out.contains("blocked in clock_nanosleep"), "{}", said.out);
    let said = scene.run(&["slow", "--event", "burn:nap", "--over", "1h", "t.trace"]);
    assert_eq!(said.status, 1, "{}", said.out);
}

fn without_tracefs() {
    let scene = Scene::new();
    let mut program = start(&scene, &["count", "1", "10"]);
    let mut command =
        scene.gracepoint(&["record", "-p", &program.pid().to_string(), "-k", "sched:*", "-o"]);
    command.arg(scene.trace()).env("GRACEPOINT_TRACEFS", "/no/such/place");
    let mut recorder = Running::start(command);
    let why = recorder.expect_error("gracepoint: ");
    assert!(why.contains("mount -t tracefs") && why.contains("the program's own are"), "{why}");
    recorder.expect_error("gracepoint: recording ");
    go(&mut program);
    program.expect("done");
    drop(program);
    assert_ok(&recorder.end());
    assert_eq!(events(&scene).iter().filter(|event| event["name"] == "work:step").count(), 10);
}

fn no_such_event() {
    let scene = Scene::new();
    let mounted = Mounted::new(&scene);
    if !has_tracefs(&scene, mounted.as_ref()) {
        return;
    }
    let program = start(&scene, &["count", "1", "1"]);
    let mut command =
        scene.gracepoint(&["record", "-p", &program.pid().to_string(), "-k", "sched:sched_swich"]);
    command.args(["-o", "t.trace"]);
    mounted.as_ref().inspect(|mounted| mounted.tell(&mut command));
    let said = Running::start(command).end();
    assert!(said.status == 2 && said.err.contains("sched:sched_switch"), "{}", said.err);
    assert!(!scene.trace().exists());
}

pub(crate) fn helpers(pid: u32) -> Vec<u32> {
    let children =
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_ascii_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn killed_recorder() {
    let scene = Scene::new();
    let mounted = Mounted::new(&scene);
    if !has_tracefs(&scene, mounted.as_ref()) {
        return;
    }
    let program = start(&scene, &["count", "1", "1"]);
    let mut recorder = record(&scene, mounted.as_ref(), program.pid(), "sched:sched_switch");
    if !recorder.expect_error("gracepoint: ").starts_with("recording") {
        return;
    }
    let helpers = helpers(recorder.pid());
    recorder.signal(Signal::KILL);
    recorder.end();
    for helper in helpers {
        let begun = std::time::Instant::now();
        while std::fs::exists(format!("/proc/{helper}")).unwrap() {
            assert!(begun.elapsed() < crate::scene::DEADLINE, "the helper goes on");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

fn slow_asks() {
    let scene = Scene::new();
    let mut program = start(&scene, &["jobs", "3"]);
    let recorder = scene.recorder(program.pid(), &[]);
    go(&mut program);
    program.expect("done");
    drop(program);
    assert_ok(&recorder.end());
    let said = scene.run(&["slow", "--event", "work:job", "t.trace"]);
    assert!(said.status == 2 && said.err.contains("record -k"), "{}", said.err);
    let said = scene.run(&["slow", "--event", "work:rest", "t.trace"]);
    assert!(said.status == 2 && said.err.contains("point in time"), "{}", said.err);
    let said = scene.run(&["slow", "--event", "work:jbo", "t.trace"]);
    assert!(said.status == 2 && said.err.contains("work:job"), "{}", said.err);
}

fn counts(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What the kernel does not count here is null, and said.
fn count(counts: &[Value], event: &str, said: &str) -> Option<u64> {
    // `:u` where the kernel's part is not for us.
    let is = |row: &&Value| row["event"].as_str().unwrap().trim_end_matches(":u") == event;
    let row = counts.iter().find(is).unwrap();
    let value = row["value"].as_u64();
    assert!(value.is_some() || said.contains("perf_event_paranoid"), "{said}");
    value
}

fn perf_stat() {
    const EVENTS: u64 = 10_000;
    let scene = Scene::new();
    let mut program = start(&scene, &["count", "2", &EVENTS.to_string()]);
    let pid = program.pid().to_string();
    let events = "work:step,task-clock,page-faults,context-switches";
    let command = scene.gracepoint(&["perf", "stat", "-p", &pid, "-e", events, "--json"]);
    let mut stat = Running::start(command);
    while !stat.expect_error("gracepoint: ").starts_with("counting") {}
    go(&mut program);
    program.expect("done");
    stat.signal(Signal::INT);
    let said = stat.end();
    assert_ok(&said);
    let counts = counts(&said.out);
    assert_eq!(count(&counts, "work:step", ""), Some(2 * EVENTS));
    let note = "perf_event_paranoid";
    assert!(count(&counts, "task-clock", note).is_none_or(|ns| ns > 0), "{}", said.out);

    let said = scene.run(&["perf", "stat", "-p", &pid, "-e", "no-such-event", "--duration", "1ms"]);
    assert!(said.status == 2 && said.err.contains("page-faults"), "{}", said.err);
    let said = scene.run(&["perf", "stat", "-p", &pid, "--duration", "1ms"]);
    assert!(said.status == 0 && said.out.contains("task-clock"), "{} {}", said.out, said.err);
}

/// Each row has what has come since the one before: together they are all, and none is told twice.
fn perf_stat_interval() {
    const EVENTS: u64 = 10_000;
    let scene = Scene::new();
    let mut program = start(&scene, &["count", "2", &EVENTS.to_string()]);
    let pid = program.pid().to_string();
    let mut command = scene.gracepoint(&["perf", "stat", "-p", &pid, "-e", "work:step", "--json"]);
    command.args(["--interval", "10ms"]);
    let mut stat = Running::start(command);
    let row = |stat: &mut Running| {
        let row: Value = serde_json::from_str(&stat.expect("")).unwrap();
        assert!(row["event"] == "work:step" && row["seconds"].as_f64().unwrap() > 0.0, "{row:#}");
        row["value"].as_u64().unwrap()
    };
    assert_eq!(row(&mut stat), 0, "the program has not begun");
    go(&mut program);
    let mut sum = 0;
    while sum < 2 * EVENTS {
        sum += row(&mut stat);
    }
    assert_eq!(sum, 2 * EVENTS);
    program.expect("done");
    assert_eq!(row(&mut stat), 0, "nothing has come");
    drop(program);
    let said = stat.end();
    assert_ok(&said);
    assert_eq!(counts(&said.out).pop().unwrap()["value"], 0, "{}", said.out);
}

/// What a program has counted is told when it is no more, whatever ended it.
fn perf_stat_killed() {
    let scene = Scene::new();
    let mut program = start(&scene, &["count", "2", "1234"]);
    let pid = program.pid().to_string();
    let command = scene.gracepoint(&["perf", "stat", "-p", &pid, "-e", "work:step", "--json"]);
    let mut stat = Running::start(command);
    while !stat.expect_error("gracepoint: ").starts_with("counting") {}
    go(&mut program);
    program.expect("done");
    program.signal(Signal::KILL);
    let said = stat.end();
    assert_ok(&said);
    assert_eq!(count(&counts(&said.out), "work:step", ""), Some(2 * 1234), "{}", said.err);
}

/// A command's own tracepoints are counted from its first hit to its last one.
fn perf_stat_own() {
    let scene = Scene::new();
    let stat = |events: &str, more: &[&str], script: &str| {
        let words = ["perf", "stat", "--json", "-e", events];
        let mut command =
            scene.gracepoint(&[&words[..], more, &["--", "sh", "-c", script]].concat());
        command.arg(std::env::current_exe().unwrap());
        let said = Running::start(command).end();
        assert_ok(&said);
        let rows = said.out.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (rows, said)
    };
    let (rows, said): (Vec<Value>, _) =
        stat("work:step,work:stop,page-faults", &[], "exec \"$0\" --program count 3 2000");
    assert_eq!(count(&rows, "work:step", ""), Some(3 * 2000), "{}", said.err);
    assert!(said.err.contains("work:stop is not counted"), "{}", said.err);
    assert!(said.err.contains("did you mean work:step"), "{}", said.err);
    assert_eq!(rows.len(), 3, "{}", said.out);
    // The first program that comes of it; a later one does not wait for anybody.
    let two = "\"$0\" --program count 1 500; \"$0\" --program count 1 7";
    let (rows, said) = stat("work:step", &["--per-thread"], two);
    assert_eq!(count(&rows, "work:step", ""), Some(500), "{}", said.err);
    assert!(said.err.contains("all threads together"), "{}", said.err);
    assert!(said.err.contains("worker (pid") && said.err.contains("is not counted: one"));
}

fn perf_stat_threads() {
    let scene = Scene::new();
    let program = start(&scene, &["count", "1", "1"]);
    let pid = program.pid().to_string();
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut threads: Vec<u64> = threads
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    threads.sort_unstable();
    let words = ["perf", "stat", "-p", &pid, "--per-thread", "--duration", "1ms"];
    let said = scene.run(&[&words[..], &["-e", "page-faults", "--json"]].concat());
    assert_ok(&said);
    let rows = counts(&said.out);
    let tids: Vec<u64> = rows.iter().filter_map(|row| row["tid"].as_u64()).collect();
    if tids.is_empty() {
        assert!(count(&rows, "page-faults", &said.err).is_none(), "{}", said.out);
        return;
    }
    assert_eq!(tids, threads);
    assert!(rows.iter().all(|row| row["value"].is_u64()), "{}", said.out);
    let said = scene.run(&words);
    let label = format!("/{}  ", threads[0]);
    assert!(said.out.lines().any(|line| line.contains(&label)), "{}", said.out);
}

fn perf_stat_command() {
    let scene = Scene::new();
    let said = scene.run(&["perf", "stat", "--json", "--", "sh", "-c", "exit 3"]);
    assert_eq!(said.status, 3, "{}", said.err);
    let counts = counts(&said.out);
    assert!(count(&counts, "page-faults", &said.err).is_none_or(|n| n > 10), "{}", said.out);
    let said = scene.run(&["perf", "stat", "-e", "work:step", "--", "true"]);
    assert!(said.status == 0 && said.err.contains("no traceable program came"), "{}", said.err);
    assert!(said.out.contains("not counted  work:step"), "{}", said.out);
    let said = scene.run(&["perf", "stat", "--", "/no/such/command"]);
    assert_eq!(said.status, 127, "{}", said.err);
}

fn scenarios() {
    let scene = Scene::new();
    for (name, words) in [
        ("teardown-stall", "process_srcu"),
        ("blind-spot", "dynticks_watching"),
        ("stale-data", "static_call"),
    ] {
        let said = scene.run(&["scenario", name]);
        assert_ok(&said);
        assert!(said.out.contains(words) && said.out.contains("Ours"), "{}", said.out);
        let said = scene.run(&["scenario", name, "--json"]);
        let told: Value = serde_json::from_str(&said.out).unwrap();
        assert!(told["schedule"].as_array().unwrap().len() > 3, "{told:#}");
        let measured = told["measured"].as_array().unwrap().len();
        assert!(measured > 0 || told["not_measured"].is_string(), "{told:#}");
    }
}
