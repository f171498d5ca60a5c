//! Flight recorders: what a program leaves when it is killed, panics or is scribbled on, and what a
//! recording that overwrites holds at its end.
//!
//! `GRACEPOINT_KILLS=1000` kills so many programs, `GRACEPOINT_SCRIBBLE=10` scribbles for so many
//! seconds; `GRACEPOINT_SEED` makes the same choices again.

use crate::scene::{Running, Said, Scene};
use crate::trace::babeltrace;
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) fn trials() -> Vec<Trial> {
    let tests: [(&str, fn()); 7] = [
        ("killed_programs_leave_every_committed_event", killed_programs),
        ("a_running_flight_recorder_can_be_read", a_running_flight_recorder_can_be_read),
        ("snapshot_of_the_programs_own_recorder", snapshot_of_the_programs_own_recorder),
        ("a_panic_leaves_a_flight_recorder", a_panic_leaves_a_flight_recorder),
        ("scribbling_spoils_the_trace_and_no_more", scribbling_spoils_the_trace_and_no_more),
        ("a_recording_that_overwrites_counts_what_goes", overwriting_counts_what_goes),
        ("what_is_no_flight_recorder_is_refused", what_is_no_flight_recorder_is_refused),
    ];
    tests.into_iter().map(crate::trial).collect()
}

pub(crate) fn with_babeltrace() -> Vec<(&'static str, fn())> {
    vec![("babeltrace_reads_what_was_recovered", babeltrace_reads_what_was_recovered as fn())]
}

/// Threads of the programs here.
const WORKERS: u64 = 2;
/// Most events of a page of 4096 bytes.
const PER_PAGE: u64 = 100;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Splitmix, from a seed that is printed.
struct Random(u64);

impl Random {
    #[expect(clippy::print_stderr, reason = "whoever sees a failure wants the seed")]
    fn new() -> Random {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let seed = number("GRACEPOINT_SEED", now);
        eprintln!("GRACEPOINT_SEED={seed}");
        Random(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % limit
    }
}

/// A program with a flight recorder of this size that fires for ever, and where it says how far it is.
fn start(scene: &Scene, mode: &str, size: &str) -> (Running, PathBuf) {
    let marks = scene.dir.join("marks");
    std::fs::write(&marks, [0; 8 * WORKERS as usize]).unwrap();
    let mut command = scene.command(std::env::current_exe().unwrap());
    command.args(["--program", mode, &WORKERS.to_string()]).arg(&marks);
    command.env("GRACEPOINT_FLIGHT", scene.dir.join("flight"));
    command.env("GRACEPOINT_FLIGHT_SIZE", size).env("GRACEPOINT_FLIGHT_EVENTS", "work:s*,work:job");
    let mut program = Running::start(command);
    program.expect("ready");
    (program, marks)
}

fn recover(scene: &Scene) -> (Said, Value) {
    let said = scene.run(&["recover", "flight", "-o", "t.trace", "--force", "--json"]);
    assert_eq!(said.status, 0, "{}", said.err);
    let summary = serde_json::from_str(&said.out).unwrap();
    (said, summary)
}

/// First and last step of each worker; fails where one is missing or another than it was.
fn steps(scene: &Scene) -> BTreeMap<u64, (u64, u64)> {
    let said = scene.run(&["report", "--json", "t.trace"]);
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    let mut steps: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for line in said.out.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        if event["name"] != "work:step" {
            assert_eq!(
                (&event["name"], &event["fields"]["id"]),
                (&"gp:loss".into(), &"work:step".into())
            );
            continue;
        }
        let fields = &event["fields"];
        let n = fields["n"].as_u64().unwrap();
        assert_eq!(fields["balance"], -(n as i64), "{line}");
        assert_eq!(
            fields["text"],
            if n.is_multiple_of(2) { "ping" } else { "pång \"x\"" },
            "{line}"
        );
        let (_, last) =
            steps.entry(fields["worker"].as_u64().unwrap()).or_insert((n, n.wrapping_sub(1)));
        assert_eq!(n, last.wrapping_add(1), "no event is missing between two others: {line}");
        *last = n;
    }
    steps
}

/// `whole`: no page went while it was being copied.
fn check_info(scene: &Scene, whole: bool) {
    let said = scene.run(&["info", "--json", "t.trace"]);
    assert_eq!((said.status, said.err.is_empty()), (0, whole), "{}", said.err);
    let info: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(info["damage"].as_array().unwrap().len(), 0, "{info:#}");
    assert_eq!(info["contradictions"].as_array().unwrap().len(), 0, "{info:#}");
    let patching = info["program"]["patching"].as_str().unwrap();
    assert!(["text", "mem", "branch"].contains(&patching), "{info:#}");
}

/// After the end of a program: what it knew to be committed is there, and the rest is counted.
fn check(scene: &Scene, marks: &PathBuf, lost: u64) {
    check_info(scene, true);
    let (steps, marks) = (steps(scene), File::open(marks).unwrap());
    let mut gone = 0..=0;
    for worker in 0..WORKERS {
        let mut mark = [0; 8];
        marks.read_exact_at(&mut mark, worker * 8).unwrap();
        let known = u64::from_le_bytes(mark);
        match steps.get(&worker) {
            Some((first, last)) => {
                assert!(
                    last + 1 >= known,
                    "worker {worker}: {known} committed, {last} is the last"
                );
                gone = gone.start() + first..=gone.end() + first;
            }
            // It did not run for so long that the other one has written over all it wrote.
            None => gone = gone.start() + known..=gone.end() + known + 64,
        }
    }
    // A page that was just going when the program was killed is not counted yet.
    let least = gone.start().saturating_sub(WORKERS * PER_PAGE);
    assert!((least..=*gone.end()).contains(&lost), "{gone:?} gone, {lost} counted");
}

fn killed_programs() {
    let mut random = Random::new();
    for _ in 0..number("GRACEPOINT_KILLS", 6) {
        let scene = Scene::new();
        let (program, marks) = start(&scene, "marks", "256K");
        std::thread::sleep(Duration::from_micros(random.below(40_000)));
        program.signal(Signal::KILL);
        assert_eq!(program.end().status, -9);
        let (_, summary) = recover(&scene);
        assert_eq!((&summary["spoilt"], &summary["rejected"]), (&0.into(), &0.into()));
        assert_eq!(summary["overwritten"], summary["lost"], "there is always a page that can go");
        check(&scene, &marks, summary["lost"].as_u64().unwrap());
    }
}

fn a_running_flight_recorder_can_be_read() {
    let scene = Scene::new();
    let (program, marks) = start(&scene, "marks", "1M");
    // Until pages are being written over.
    while recover(&scene).1["lost"] == 0 {}
    for _ in 0..3 {
        let (_, summary) = recover(&scene);
        assert!(summary["events"].as_u64().unwrap() > 1000 && summary["spoilt"] == 0, "{summary}");
        check_info(&scene, summary["rejected"] == 0);
    }
    program.signal(Signal::KILL);
    program.end();
    let lost = recover(&scene).1["lost"].as_u64().unwrap();
    check(&scene, &marks, lost);
}

/// `snapshot` beside `recover`: the file is there for both, and the recorder goes on.
fn snapshot_of_the_programs_own_recorder() {
    let scene = Scene::new();
    let (program, marks) = start(&scene, "marks", "1M");
    let pid = program.pid().to_string();
    for _ in 0..3 {
        let said = scene.run(&["snapshot", "-p", &pid, "-o", "t.trace", "--force"]);
        assert_eq!(said.status, 0, "{}", said.err);
        assert!(steps(&scene).values().all(|(first, last)| first <= last));
    }
    program.signal(Signal::KILL);
    program.end();
    let lost = recover(&scene).1["lost"].as_u64().unwrap();
    check(&scene, &marks, lost);
}

fn a_panic_leaves_a_flight_recorder() {
    let scene = Scene::new();
    let (program, _) = start(&scene, "panics", "256K");
    assert_eq!(program.end().status, 101);
    recover(&scene);
    assert_eq!(steps(&scene), BTreeMap::from([(0, (0, 9))]));
}

fn scribbling_spoils_the_trace_and_no_more() {
    let scene = Scene::new();
    let mut random = Random::new();
    let (mut program, _) = start(&scene, "marks", "1M");
    let arena = scene.dir.join(format!("flight/{}.gp1.flight", program.pid()));
    let file = OpenOptions::new().write(true).open(arena).unwrap();
    let length = file.metadata().unwrap().len();
    let until = Instant::now() + Duration::from_millis(number("GRACEPOINT_SCRIBBLE", 1) * 1000);
    let mut looked = 0;
    while Instant::now() < until || looked < 2 {
        for _ in 0..1000 {
            let word = random.below(u64::MAX);
            // Header and tables are small: every other word goes there.
            let within = if random.below(2) == 0 { 1 << 14 } else { length - 8 };
            file.write_all_at(&word.to_le_bytes()[..1 + (word % 8) as usize], random.below(within))
                .unwrap();
        }
        let (_, summary) = recover(&scene);
        let said = scene.run(&["report", "t.trace"]);
        assert!((0..=2).contains(&said.status) && !said.err.contains("panicked"), "{}", said.err);
        assert!(summary["events"].is_u64() || said.status != 0);
        looked += 1;
    }
    // It goes on, as it does without.
    writeln!(program.child.stdin.as_mut().unwrap(), "stop").unwrap();
    program.expect("done");
    assert_eq!(program.end().status, 0);
}

fn overwriting_counts_what_goes() {
    const EACH: u64 = 50_000;
    let scene = Scene::new();
    let mut program = scene.program(&["count", &WORKERS.to_string(), &EACH.to_string()]);
    program.expect("ready");
    let recorder =
        scene.recorder(program.pid(), &["--json", "--flight-recorder", "--buffer", "256K"]);
    writeln!(program.child.stdin.as_mut().unwrap(), "go").unwrap();
    program.expect("done");
    recorder.signal(Signal::INT);
    let said = recorder.end();
    assert_eq!(said.status, 0, "{}", said.err);
    let summary: Value = serde_json::from_str(&said.out).unwrap();
    let (events, lost) = (summary["events"].as_u64().unwrap(), summary["lost"].as_u64().unwrap());
    assert!(lost > 0 && events > 1000, "{summary}");
    assert_eq!(events + lost, WORKERS * EACH, "fired = recorded + lost");
    check_info(&scene, true);
    let steps = steps(&scene);
    assert!(steps.values().all(|(_, last)| *last == EACH - 1), "the newest are there: {steps:?}");
    assert_eq!(
        steps.values().map(|(first, _)| first).sum::<u64>() + EACH * (WORKERS - steps.len() as u64),
        lost
    );
}

fn what_is_no_flight_recorder_is_refused() {
    let scene = Scene::new();
    let said = scene.run(&["recover", "."]);
    assert_eq!(said.status, 2);
    assert!(said.err.contains("holds no flight recorder"), "{}", said.err);
    std::fs::write(scene.dir.join("1.gp1.flight"), b"x").unwrap();
    std::fs::write(scene.dir.join("1.gp1.about"), b"x").unwrap();
    let said = scene.run(&["recover", "1.gp1.flight"]);
    assert_eq!(said.status, 2);
    assert!(said.err.contains("not the description"), "{}", said.err);
    // A place that the program must not use is an error of init.
    let mut command = scene.command(std::env::current_exe().unwrap());
    command.args(["--program", "count"]).env("GRACEPOINT_FLIGHT", "/proc");
    let said = Running::start(command).end();
    assert!(said.err.contains("GRACEPOINT_FLIGHT"), "{}", said.err);
}

fn babeltrace_reads_what_was_recovered() {
    let scene = Scene::new();
    let (program, _) = start(&scene, "marks", "256K");
    while recover(&scene).1["lost"] == 0 {}
    program.signal(Signal::KILL);
    program.end();
    let (_, summary) = recover(&scene);
    let told = babeltrace(&scene.trace());
    let steps = told.lines.iter().filter(|line| line.contains("work:step")).count() as u64;
    assert_eq!(Some(steps), summary["events"].as_u64());
}
