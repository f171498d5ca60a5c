//! Profiles: of a program whose parts are known, beside its spans, on one clock with them. Where this system
//! does not open perf events the command must say what is missing, and that is tested instead.

use crate::real::{assert_ok, go, start};
use crate::scene::{Running, Said, Scene};
use crate::verbs::until;
use libtest_mimic::Trial;
use serde_json::Value;

pub(crate) fn trials() -> Vec<Trial> {
    let tests: [(&str, fn()); 6] = [
        ("a_profile_tells_where_the_time_went", a_profile_tells_where_the_time_went),
        ("samples_are_on_one_clock_with_spans", samples_are_on_one_clock_with_spans),
        ("a_profile_goes_to_other_viewers", a_profile_goes_to_other_viewers),
        ("profile_of_a_command_exits_as_it_does", profile_of_a_command_exits_as_it_does),
        ("the_command_may_be_this_program", the_command_may_be_this_program),
        ("what_cannot_be_profiled_is_told", what_cannot_be_profiled_is_told),
    ];
    tests.into_iter().map(crate::trial).collect()
}

/// Whether it could be profiled; if not, it said so as it must.
pub(crate) fn is_allowed(said: &Said) -> bool {
    if ![2, 125].contains(&said.status) {
        return true;
    }
    assert!(
        said.err.contains("perf_event_paranoid") && said.err.contains("CAP_PERFMON"),
        "{}",
        said.err
    );
    false
}

/// Records the burning program with a profile, to its end; false where that is not allowed.
fn record_burning(scene: &Scene, rounds: u64) -> bool {
    let mut program = start(scene, &["burn", &rounds.to_string()]);
    let (pid, trace) = (program.pid().to_string(), scene.trace());
    let mut command =
        scene.gracepoint(&["record", "-p", &pid, "--profile", "--freq", "1999", "-o"]);
    let mut recorder = crate::scene::Running::start({
        command.arg(trace);
        command
    });
    let Some(_) = recorder.expect_error_or_end("gracepoint: recording ") else {
        let said = recorder.end();
        assert!(!is_allowed(&said), "{}", said.err);
        return false;
    };
    go(&mut program);
    program.expect("done");
    drop(program);
    let said = recorder.end();
    assert_ok(&said);
    true
}

pub(crate) fn profile(scene: &Scene) -> Value {
    let said = scene.run(&["report", "--profile", "--json", "t.trace"]);
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    serde_json::from_str(&said.out).unwrap()
}

/// A function's own part of all CPU time, in percent.
pub(crate) fn part(profile: &Value, function: &str) -> f64 {
    let functions = profile["functions"].as_array().unwrap();
    let own = functions.iter().filter(|f| f["name"].as_str().unwrap().ends_with(function));
    let own: u64 = own.map(|f| f["self_ns"].as_u64().unwrap()).sum();
    own as f64 * 100.0 / profile["cpu_ns"].as_u64().unwrap() as f64
}

fn a_profile_tells_where_the_time_went() {
    let scene = Scene::new();
    if !record_burning(&scene, 300) {
        return;
    }
    let profile = profile(&scene);
    let samples = profile["samples"].as_u64().unwrap();
    assert!(samples > 200, "{profile:#}");
    // Of n samples a part p is off by at most 5 standard deviations.
    let bound = |p: f64| 500.0 * (p * (1.0 - p) / samples as f64).sqrt() + 2.0;
    for (function, percent) in [("burn_sixty", 60.0), ("burn_thirty", 30.0), ("burn_ten", 10.0)] {
        let found = part(&profile, function);
        assert!(
            (found - percent).abs() < bound(percent / 100.0),
            "{function}: {found} %, {profile:#}"
        );
    }
    let spans = profile["spans"].as_array().unwrap();
    let span = |name: &str| spans.iter().find(|s| s["span"] == name).unwrap();
    let cpu = profile["cpu_ns"].as_u64().unwrap();
    assert!(span("burn:round")["cpu_ns"].as_u64().unwrap() * 10 > cpu * 8, "{profile:#}");
    // 30 naps of 10 ms: they may be longer, and not shorter.
    assert!(span("burn:nap")["off_ns"].as_u64().unwrap() >= 29 * 10_000_000, "{profile:#}");
    let threads = profile["threads"].as_array().unwrap();
    let blocked: u64 = threads.iter().map(|t| t["blocked_ns"].as_u64().unwrap()).sum();
    assert!(blocked >= 29 * 10_000_000, "{profile:#}");
    let text = scene.run(&["report", "--profile", "t.trace"]);
    assert_ok(&text);
    assert!(text.out.contains("burn_sixty") && text.out.contains("INNERMOST SPAN"), "{}", text.out);
    // What is there for tools is not mixed into the events.
    let report = scene.run(&["report", "t.trace"]);
    assert!(
        !report.out.contains("gp:sample") && report.out.contains("burn:round"),
        "{}",
        report.out
    );
}

/// No sample of what only runs inside a span lies outside of one, to 50 µs: the kernel's clock and
/// the trace's are one. A nap is off its CPU inside of its span.
fn samples_are_on_one_clock_with_spans() {
    const SLACK: u64 = 50_000;
    let scene = Scene::new();
    if !record_burning(&scene, 100) {
        return;
    }
    let said = scene.run(&[
        "report",
        "--json",
        "-e",
        "burn:*",
        "-e",
        "gp:sample",
        "-e",
        "gp:switch",
        "t.trace",
    ]);
    assert_ok(&said);
    let events: Vec<Value> =
        said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let at = |event: &Value| event["ts_ns"].as_u64().unwrap();
    let spans = |name: &str| -> Vec<(u64, u64)> {
        let of = |suffix: &str| {
            let name = format!("{name}:{suffix}");
            events.iter().filter(move |e| e["name"] == name.as_str()).map(at).collect::<Vec<_>>()
        };
        of("begin").into_iter().zip(of("end")).collect()
    };
    let (rounds, naps) = (spans("burn:round"), spans("burn:nap"));
    assert_eq!((rounds.len(), naps.len()), (100, 10));
    // All of the burning is in rounds: between two of them there is next to nothing, but for naps.
    let (first, last) = (rounds[0].0, rounds[99].1);
    let inside = |spans: &[(u64, u64)], t: u64| {
        spans.iter().any(|(begin, end)| begin.saturating_sub(SLACK) <= t && t <= end + SLACK)
    };
    let samples: Vec<u64> = events
        .iter()
        .filter(|e| e["name"] == "gp:sample" && e["fields"]["kernel"] == false)
        .map(at)
        .filter(|t| (first..last).contains(t))
        .collect();
    assert!(samples.len() > 50, "{}", samples.len());
    let outside = samples.iter().filter(|&&t| !inside(&rounds, t)).count();
    assert!(
        outside * 50 <= samples.len(),
        "{outside} of {} samples are in no round",
        samples.len()
    );
    // Each nap has the switch out and the switch in, in this order, inside.
    let switches: Vec<(u64, bool)> = events
        .iter()
        .filter(|e| e["name"] == "gp:switch")
        .map(|e| (at(e), e["fields"]["out"] == true))
        .collect();
    for (begin, end) in &naps {
        let within = |t: u64| begin.saturating_sub(SLACK) <= t && t <= end + SLACK;
        let mine: Vec<bool> =
            switches.iter().filter(|(t, _)| within(*t)).map(|(_, out)| *out).collect();
        assert!(
            mine.len() >= 2 && mine.contains(&true) && mine.contains(&false),
            "{mine:?} in a nap"
        );
    }
}

fn a_profile_goes_to_other_viewers() {
    let scene = Scene::new();
    if !record_burning(&scene, 100) {
        return;
    }
    let export = |to: &str, file: &str| {
        let said = scene.run(&["export", "--profile", "--to", to, "-o", file, "t.trace"]);
        assert_ok(&said);
        std::fs::read(scene.dir.join(file)).unwrap()
    };
    let folded = String::from_utf8(export("folded", "a.folded")).unwrap();
    let sixty: u64 = folded
        .lines()
        .filter(|line| line.contains("burn_sixty "))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum();
    assert!(sixty > 0, "{folded}");
    let drawn = String::from_utf8(export("flamegraph", "a.svg")).unwrap();
    assert!(drawn.contains("<svg") && drawn.contains("burn_sixty"));
    let pprof = export("pprof", "a.pb");
    assert!(pprof.windows(10).any(|bytes| bytes == b"burn_sixty"));
    // `--to pprof` is of functions in any case, and Perfetto's is not.
    let said = scene.run(&["export", "--to", "pprof", "-o", "b.pb", "t.trace"]);
    assert_ok(&said);
    assert_eq!(std::fs::read(scene.dir.join("b.pb")).unwrap(), pprof);
    let said = scene.run(&["export", "--profile", "--to", "perfetto", "-o", "c", "t.trace"]);
    assert!(said.status == 2 && said.err.contains("flamegraph"), "{}", said.err);
}

fn profile_of_a_command_exits_as_it_does() {
    let scene = Scene::new();
    let said = scene.run(&["profile", "-o", "t.trace", "--", "sh", "-c", "sleep 0.05; exit 7"]);
    if is_allowed(&said) {
        assert_eq!(said.status, 7, "{}", said.err);
        let info = scene.run(&["info", "--json", "t.trace"]);
        let info: Value = serde_json::from_str(&info.out).unwrap();
        assert_eq!(info["complete"], true, "{info:#}");
    }
    let said = scene.run(&["profile", "-o", "u.trace", "--", "/no/such/command"]);
    assert_eq!(said.status, 127, "{}", said.err);
}

/// It is not taken for what launches it, whose objects are not the command's.
fn the_command_may_be_this_program() {
    let scene = Scene::new();
    let program = start(&scene, &["count", "1", "1"]);
    let pid = program.pid().to_string();
    let ours = env!("CARGO_BIN_EXE_gracepoint");
    // Until the program ends.
    let args = ["profile", "-o", "p.trace", "--", ours, "record", "-p", &pid];
    let mut profiler = Running::start(scene.gracepoint(&args));
    if profiler.expect_error_or_end("gracepoint: profiling ").is_none() {
        assert!(!is_allowed(&profiler.end()));
        return;
    }
    profiler.expect_error("gracepoint: recording ");
    until("its objects are in the trace", || {
        let said = scene.run(&["report", "-e", "gp:module", "p.trace"]);
        said.out.contains(&format!("path = \"{ours}\""))
    });
    let mut program = program;
    go(&mut program);
    program.expect("done");
    drop(program);
    assert_ok(&profiler.end());
}

fn what_cannot_be_profiled_is_told() {
    let scene = Scene::new();
    let said = scene.run(&["profile", "-p", "2147483647"]);
    assert!(
        said.status == 2 && said.err.contains("there is no process 2147483647"),
        "{}",
        said.err
    );
    assert!(!scene.dir.join("gracepoint.trace").exists());
    let mut program = start(&scene, &["count", "1", "1"]);
    let recorder = scene.recorder(program.pid(), &[]);
    go(&mut program);
    program.expect("done");
    drop(program);
    assert_ok(&recorder.end());
    let said = scene.run(&["report", "--profile", "t.trace"]);
    assert!(said.status == 2 && said.err.contains("record --profile"), "{}", said.err);
}
