//! Several sessions on the same events, and what a session may ask for: context and limits.

use crate::scene::{DEADLINE, Running, Scene};
use crate::trace::babeltrace;
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;
use std::time::Instant;

pub(crate) fn trials() -> Vec<Trial> {
    let tests: [(&str, fn()); 6] = [
        ("eight_sessions_record_the_same", eight_sessions_record_the_same),
        ("context_is_recorded", context_is_recorded),
        ("modules_lead_from_addresses_to_files", modules_lead_from_addresses_to_files),
        ("what_limits_leave_out_is_counted", what_limits_leave_out_is_counted),
        ("a_limit_on_overhead_is_exact_too", a_limit_on_overhead_is_exact_too),
        ("a_limit_on_overhead_says_so", a_limit_on_overhead_says_so),
    ];
    tests.into_iter().map(crate::trial).collect()
}

pub(crate) fn with_babeltrace() -> Vec<(&'static str, fn())> {
    vec![
        ("babeltrace_reads_context", babeltrace_reads_context as fn()),
        ("babeltrace_reads_modules", babeltrace_reads_modules),
    ]
}

fn program(scene: &Scene, threads: u64, events: u64) -> Running {
    let mut program = scene.program(&["count", &threads.to_string(), &events.to_string()]);
    program.expect("ready");
    program
}

/// Lets the program fire, and ends the recordings.
fn fire(mut program: Running, recorders: Vec<Running>) {
    writeln!(program.child.stdin.as_mut().unwrap(), "go").unwrap();
    program.expect("done");
    for recorder in recorders {
        recorder.signal(Signal::INT);
        let said = recorder.end();
        assert_eq!(said.status, 0, "{}", said.err);
    }
}

fn report(scene: &Scene, dir: &str) -> Vec<Value> {
    let said = scene.run(&["report", "--json", dir]);
    // This binary may be built without frame pointers, and then that is told where there are stacks.
    let told = said.err.lines().find(|line| !line.contains("keeps no frame pointers"));
    assert_eq!((said.status, told), (0, None));
    said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn eight_sessions_record_the_same() {
    const EACH: u64 = 2_000;
    let scene = Scene::new();
    let program = program(&scene, 2, EACH);
    let recorders = (0..8).map(|n| {
        let mut args = vec!["record".into(), "-p".into(), program.pid().to_string()];
        args.extend(["-o".into(), format!("{n}.trace")]);
        match n {
            // Sessions differ, and disturb each other in nothing.
            0 => args.push("--flight-recorder".into()),
            1 => args.push("--context=tid,stack".into()),
            2 => args.extend(["-e".into(), "work:s*".into()]),
            3 => args.extend(["--buffer".into(), "1M".into()]),
            _ => {}
        }
        let mut recorder = Running::start(scene.gracepoint(&args));
        recorder.expect_error("gracepoint: recording ");
        recorder
    });
    let recorders = recorders.collect();
    fire(program, recorders);
    let values = |n: u32| -> BTreeMap<(u64, u64), Value> {
        let events = report(&scene, &format!("{n}.trace"));
        assert_eq!(events.len() as u64, 2 * EACH, "session {n}");
        let key =
            |fields: &Value| (fields["worker"].as_u64().unwrap(), fields["n"].as_u64().unwrap());
        let own = |mut event: Value| {
            let fields = event["fields"].as_object_mut().unwrap();
            fields.remove("vtid");
            fields.remove("callstack");
            event["fields"].clone()
        };
        events.into_iter().map(own).map(|fields| (key(&fields), fields)).collect()
    };
    let first = values(0);
    assert_eq!(first.len() as u64, 2 * EACH);
    assert!((1..8).all(|n| values(n) == first));
}

fn context_is_recorded() {
    let scene = Scene::new();
    let program = program(&scene, 2, 10);
    let pid = program.pid();
    let recorder = scene.recorder(pid, &["--context", "cpu,tid,pid", "--context", "thread,stack"]);
    fire(program, vec![recorder]);
    let events = report(&scene, "t.trace");
    assert_eq!(events.len(), 20);
    for event in events {
        let fields = &event["fields"];
        assert_eq!(fields["vtid"], event["tid"]);
        assert_eq!(fields["vpid"], pid);
        assert_eq!(fields["procname"], event["thread"]);
        assert!(fields["cpu_id"].as_u64().is_some_and(|cpu| cpu < 4096), "{event}");
        assert!(!fields["callstack"].is_null() && fields["n"].is_u64(), "{event}");
    }
}

fn modules(scene: &Scene) -> Vec<Value> {
    let said = scene.run(&["report", "--json", "-e", "gp:module", "t.trace"]);
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn modules_lead_from_addresses_to_files() {
    let scene = Scene::new();
    let program = program(&scene, 1, 10);
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", program.pid())).unwrap();
    let recorder = scene.recorder(program.pid(), &["--context", "cpu"]);
    fire(program, vec![recorder]);
    let events = report(&scene, "t.trace");
    assert_eq!(events.len(), 10, "a report has no modules where nobody asks for them");
    let modules = modules(&scene);
    let exe = std::env::current_exe().unwrap();
    assert_eq!(modules[0]["fields"]["path"], exe.to_str().unwrap());
    assert!(modules.len() > 2, "the loader and a library: {modules:?}");
    for module in &modules {
        let (fields, number) = (&module["fields"], |of: &Value| of.as_u64().unwrap());
        let (path, base) = (fields["path"].as_str().unwrap(), number(&fields["base"]));
        let first = format!("{base:08x}-");
        // The kernel names files without links; what it maps itself has none.
        let file = std::fs::canonicalize(path).unwrap_or_default();
        let mapped =
            |line: &str| line.starts_with(&first) && line.ends_with(file.to_str().unwrap());
        assert!(!path.starts_with('/') || maps.lines().any(mapped), "{module} in {maps}");
        assert!(number(&module["ts_ns"]) <= number(&events[0]["ts_ns"]));
    }
}

fn babeltrace_reads_modules() {
    let scene = Scene::new();
    let program = program(&scene, 1, 10);
    let recorder = scene.recorder(program.pid(), &["--context=tid,stack"]);
    fire(program, vec![recorder]);
    let told = babeltrace(&scene.trace());
    let ours = modules(&scene);
    assert_eq!((told.modules.len(), told.warnings.as_str()), (ours.len(), ""));
    for module in ours {
        let path = format!("path = {}", module["fields"]["path"]);
        let base = format!("base = {},", module["fields"]["base"]);
        let same = |line: &&String| line.contains(&path) && line.contains(&base);
        assert_eq!(told.modules.iter().filter(same).count(), 1, "{module} in {:?}", told.modules);
    }
}

fn babeltrace_reads_context() {
    let scene = Scene::new();
    let program = program(&scene, 2, 10);
    let pid = program.pid();
    let recorder = scene.recorder(pid, &["--context=cpu,tid,pid,thread,stack"]);
    fire(program, vec![recorder]);
    let told = babeltrace(&scene.trace());
    assert_eq!(told.lines.len(), 20, "{}", told.warnings);
    assert!(told.lines.iter().all(|line| line.contains(&format!("vpid = {pid}"))));
}

/// Recorded steps, and those that the trace says were left out.
fn counted(scene: &Scene) -> (u64, u64) {
    let events = report(scene, "t.trace");
    let steps = events.iter().filter(|event| event["name"] == "work:step").count() as u64;
    let left_out = events.iter().filter(|event| event["name"] == "gp:unthrottle");
    let left_out = left_out.inspect(|event| assert_eq!(event["fields"]["id"], "work:step"));
    let left_out: u64 = left_out.map(|event| event["fields"]["count"].as_u64().unwrap()).sum();
    let info = crate::real::info(scene);
    assert_eq!((&info["events"], &info["throttled"]), (&steps.into(), &Value::from(left_out)));
    (steps, left_out)
}

fn what_limits_leave_out_is_counted() {
    const EACH: u64 = 20_000;
    for (args, most) in [
        (&["--sample", "1/10"][..], 4_000),
        (&["--max-rate", "100/s"], 2 * EACH),
        (&["--max-rate=100/s", "--sample=1/2", "--flight-recorder"], EACH),
    ] {
        let scene = Scene::new();
        let program = program(&scene, 2, EACH);
        let recorder = scene.recorder(program.pid(), args);
        fire(program, vec![recorder]);
        let (recorded, left_out) = counted(&scene);
        assert_eq!(recorded + left_out, 2 * EACH, "{args:?}: fired = recorded + throttled");
        assert!(recorded > 0 && recorded <= most, "{args:?}: {recorded}");
        if args[0] == "--sample" {
            assert_eq!(recorded, most);
        }
    }
}

fn a_limit_on_overhead_says_so() {
    let scene = Scene::new();
    let mut program = scene.program(&["forever", "2"]);
    program.expect("ready");
    // One event in a window: less than any machine fires.
    let recorder = scene.recorder(program.pid(), &["--max-overhead", "0.0001%"]);
    let begun = Instant::now();
    let throttled = || {
        let said = scene.run(&["report", "-e", "gp:throttle", "t.trace"]);
        said.out.contains("gp:throttle: { id = work:step, rate = ")
    };
    while !throttled() {
        assert!(begun.elapsed() < DEADLINE, "the rate is never lowered");
    }
    recorder.signal(Signal::INT);
    let said = recorder.end();
    assert_eq!(said.status, 0, "{}", said.err);
    let (recorded, left_out) = counted(&scene);
    assert!(recorded > 0 && left_out > 0, "{recorded} {left_out}");
}

fn a_limit_on_overhead_is_exact_too() {
    let scene = Scene::new();
    let program = program(&scene, 2, 20_000);
    let recorder = scene.recorder(program.pid(), &["--max-overhead", "0.01%"]);
    fire(program, vec![recorder]);
    let (recorded, left_out) = counted(&scene);
    assert_eq!(recorded + left_out, 40_000, "fired = recorded + throttled");
}
