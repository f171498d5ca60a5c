//! Sessions that outlive the command that made them: `start`, `stop`, `restart`, `show`, `extract`,
//! `snapshot`, `reset`.

use crate::real::{assert_ok, events, go, info, start, steps};
use crate::scene::{Running, Said, Scene};
use crate::trace::babeltrace;
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::Value;
use std::time::{Duration, Instant};

pub(crate) fn trials() -> Vec<Trial> {
    let tests: [(&str, fn()); 23] = [
        ("verbs_start_and_extract", start_and_extract),
        ("verbs_stop_and_restart", stop_and_restart),
        ("verbs_a_full_buffer_counts", a_full_buffer_counts),
        ("verbs_all_programs", all_programs),
        ("verbs_sessions_have_names", sessions_have_names),
        ("verbs_nothing_to_do_is_said", nothing_to_do_is_said),
        ("verbs_reset_ends_everybodys", reset_ends_everybodys),
        ("verbs_snapshot_takes_nothing", snapshot_takes_nothing),
        ("verbs_snapshot_of_a_flight_recorder", snapshot_of_a_flight_recorder),
        ("verbs_a_full_disk_frees_nothing", a_full_disk_frees_nothing),
        ("verbs_stat_counts_every_hit", stat_counts_every_hit),
        ("verbs_stat_by_interval", stat_by_interval),
        ("verbs_stat_ended_by_others", stat_ended_by_others),
        ("verbs_stream_ended_by_others", stream_ended_by_others),
        ("verbs_stream_shows_all_in_order", stream_shows_all_in_order),
        ("verbs_stream_is_prompt", stream_is_prompt),
        ("verbs_stream_into_a_closed_pipe", stream_into_a_closed_pipe),
        ("verbs_pieces_make_a_whole", pieces_make_a_whole),
        ("verbs_the_latest_pieces_are_kept", the_latest_pieces_are_kept),
        ("verbs_pieces_replace_pieces_alone", pieces_replace_pieces_alone),
        ("verbs_record_as_a_flight_recorder", record_as_a_flight_recorder),
        ("verbs_a_killed_recorder_leaves_nothing", a_killed_recorder_leaves_nothing),
        ("verbs_a_stopped_recorder_holds_up_nobody", a_stopped_recorder_holds_up_nobody),
    ];
    tests.into_iter().map(crate::trial).collect()
}

pub(crate) fn with_babeltrace() -> Vec<(&'static str, fn())> {
    vec![("verbs_babeltrace_reads_an_extract", babeltrace_reads_an_extract as fn())]
}

pub(crate) fn round(program: &mut Running) {
    go(program);
    program.expect("done");
}

/// What `show --json` tells, a session each.
pub(crate) fn show(scene: &Scene) -> Vec<Value> {
    let said = scene.run(&["show", "--json"]);
    assert!(said.status == 0 || said.out.is_empty(), "{} {}", said.status, said.err);
    said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn say(scene: &Scene, words: &str) -> Said {
    let said = scene.run(&words.split(' ').collect::<Vec<_>>());
    assert_ok(&said);
    said
}

fn start_and_extract() {
    let scene = Scene::new();
    let mut program = start(&scene, &["count", "4", "5000"]);
    let pid = program.pid();
    let said = say(&scene, "start -e all");
    assert!(said.err.contains(" kinds of event on in worker"), "{}", said.err);
    let [session] = &show(&scene)[..] else { panic!("one session") };
    assert_eq!((&session["pid"], &session["name"]), (&pid.into(), &"main".into()));
    assert_eq!((&session["on"], &session["kept"]), (&true.into(), &true.into()));
    assert_eq!(session["by"]["tool"], "gracepoint start");
    assert_eq!(session["by"]["uid"], rustix::process::getuid().as_raw());
    assert_eq!((&session["lost"], &session["drained_by"]), (&0.into(), &Value::Null));
    assert_eq!(session["filled_bytes"], 0);
    round(&mut program);
    assert!(show(&scene)[0]["filled_bytes"].as_u64().unwrap() > 0);
    let said = say(&scene, "list -p PID work:step".replace("PID", &pid.to_string()).as_str());
    assert!(said.out.starts_with("work:step  on  "), "{}", said.out);
    say(&scene, "extract -o t.trace");
    let info = info(&scene);
    assert_eq!((&info["events"], &info["lost"]), (&20_000.into(), &0.into()), "{info:#}");
    assert_eq!((&info["complete"], &info["ended"]), (&true.into(), &"extracted".into()));
    let steps = steps(&events(&scene));
    assert!(steps.len() == 4 && steps.values().all(|s| s.iter().copied().eq(0..5000)));
    assert!(show(&scene).is_empty(), "it is freed");
    let said = scene.run(&["show"]);
    assert_eq!((said.status, said.out.as_str()), (1, ""));
    assert_ok(&program.end());
}

fn stop_and_restart() {
    let scene = Scene::new();
    let mut program = start(&scene, &["rounds", "100"]);
    round(&mut program);
    say(&scene, "start");
    round(&mut program);
    let said = say(&scene, "stop");
    assert!(said.err.contains("main of worker") && said.err.contains(" is off"), "{}", said.err);
    assert_eq!(show(&scene)[0]["on"], false);
    let ps: Value = serde_json::from_str(&say(&scene, "ps --json").out).unwrap();
    assert_eq!(ps["events_on"], 0, "sites are off");
    round(&mut program);
    say(&scene, "restart");
    assert_eq!(show(&scene)[0]["on"], true);
    round(&mut program);
    say(&scene, "extract -o t.trace");
    let expected: Vec<u64> = (100..200).chain(300..400).collect();
    assert_eq!(steps(&events(&scene))[&0], expected);
    assert_eq!(info(&scene)["lost"], 0);
}

/// Nobody drains it: what fits is kept, and the rest counted.
fn overfill(scene: &Scene) {
    let mut program = start(scene, &["count", "2", "20000"]);
    say(scene, "start --buffer 256K -e work:step");
    round(&mut program);
    let session = &show(scene)[0];
    assert!(session["lost"].as_u64().unwrap() > 0, "{session:#}");
    say(scene, "extract -o t.trace");
    assert_ok(&program.end());
}

fn a_full_buffer_counts() {
    let scene = Scene::new();
    overfill(&scene);
    let info = info(&scene);
    let (events, lost) = (info["events"].as_u64().unwrap(), info["lost"].as_u64().unwrap());
    assert!(events > 1000 && events + lost == 40_000, "{info:#}");
}

fn babeltrace_reads_an_extract() {
    let scene = Scene::new();
    overfill(&scene);
    let (info, babel) = (info(&scene), babeltrace(&scene.trace()));
    let steps = babel.lines.iter().filter(|line| line.contains(" work:step: ")).count();
    assert_eq!(info["events"], steps);
    assert_eq!(babel.discarded(), info["lost"].as_u64().unwrap(), "{}", babel.warnings);
}

fn all_programs() {
    let scene = Scene::new();
    let mut programs = [start(&scene, &["rounds", "10"]), start(&scene, &["rounds", "10"])];
    say(&scene, "start -e work:step");
    assert_eq!(show(&scene).len(), 2);
    programs.iter_mut().for_each(round);
    say(&scene, "extract -o all");
    for program in &programs {
        let dir = format!("all/worker-{}-main", program.pid());
        let said = say(&scene, &format!("info --json {dir}"));
        let info: Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!((&info["events"], &info["lost"]), (&10.into(), &0.into()));
    }
    // One that is gone has taken its session with it.
    say(&scene, "start");
    let [one, other] = programs;
    assert_ok(&one.end());
    assert_eq!(show(&scene).len(), 1);
    say(&scene, &format!("reset -p {}", other.pid()));
    assert!(show(&scene).is_empty());
}

fn sessions_have_names() {
    let scene = Scene::new();
    let mut program = start(&scene, &["rounds", "10"]);
    say(&scene, "start -e work:step");
    let said = scene.run(&["start"]);
    assert_eq!(said.status, 2);
    assert!(said.err.contains("session 1 (main) is there already"), "{}", said.err);
    say(&scene, "start --session other -e work:*");
    round(&mut program);
    let said = scene.run(&["stop", "--session", "othr"]);
    assert_eq!(said.status, 1);
    assert!(said.err.contains("did you mean `other`?"), "{}", said.err);
    say(&scene, "stop --session other");
    let on: Vec<_> = show(&scene).iter().map(|session| session["on"].clone()).collect();
    assert_eq!(on, [true, false]);
    round(&mut program);
    say(&scene, "extract --session other -o t.trace");
    assert_eq!(info(&scene)["events"], 10);
    std::fs::remove_dir_all(scene.trace()).unwrap();
    say(&scene, "extract -o t.trace");
    assert_eq!(info(&scene)["events"], 20);
    let log = say(&scene, "start").err + &scene.run(&["show", "--log"]).out;
    for part in ["session 1 (main) made by pid ", "session 2 (other) stopped", "(other) ended"] {
        assert!(log.contains(part), "{part} in {log}");
    }
}

fn nothing_to_do_is_said() {
    let scene = Scene::new();
    for verb in ["start", "stop", "restart", "extract", "snapshot", "reset", "show"] {
        let said = scene.run(&[verb]);
        assert_eq!(said.status, 1, "{verb}: {}", said.err);
        assert!(said.err.contains("calling gracepoint::init()"), "{verb}: {}", said.err);
    }
    let program = start(&scene, &["rounds", "10"]);
    for verb in ["stop", "restart", "extract", "snapshot"] {
        let said = scene.run(&[verb]);
        assert_eq!(said.status, 1, "{verb}: {}", said.err);
        assert!(said.err.contains("`gracepoint start` does that"), "{verb}: {}", said.err);
    }
    assert!(!scene.dir.join("gracepoint.trace").exists());
    let said = scene.run(&["start", "-p", &program.pid().to_string(), "-e", "wrk:step"]);
    assert_eq!(said.status, 2);
    assert!(said.err.contains("did you mean work:step"), "{}", said.err);
    say(&scene, "reset");
}

fn reset_ends_everybodys() {
    let scene = Scene::new();
    let mut program = start(&scene, &["rounds", "1000"]);
    let recorder = scene.recorder(program.pid(), &["--json"]);
    say(&scene, "start");
    round(&mut program);
    let sessions = show(&scene);
    assert_eq!(sessions[0]["drained_by"], recorder.pid());
    assert_eq!(sessions.len(), 2);
    let said = say(&scene, "reset");
    assert!(said.err.contains("2 sessions of worker"), "{}", said.err);
    assert!(show(&scene).is_empty());
    let ps: Value = serde_json::from_str(&say(&scene, "ps --json").out).unwrap();
    assert_eq!(ps["events_on"], 0);
    let said = recorder.end();
    assert_ok(&said);
    assert!(said.err.contains("the recording was ended by pid "), "{}", said.err);
    assert_eq!(serde_json::from_str::<Value>(&said.out).unwrap()["ended"], "reset");
    let info = info(&scene);
    assert_eq!((&info["events"], &info["lost"]), (&1000.into(), &0.into()), "{info:#}");
    assert_eq!(info["complete"], true);
    round(&mut program);
    assert_ok(&program.end());
}

fn snapshot_takes_nothing() {
    let scene = Scene::new();
    let mut program = start(&scene, &["rounds", "1000"]);
    say(&scene, "start");
    for round_number in 1..=3u64 {
        round(&mut program);
        let filled = show(&scene)[0]["filled_bytes"].as_u64().unwrap();
        assert!((1..=256 << 10).contains(&filled), "{filled}");
        say(&scene, "snapshot -o t.trace");
        let info = info(&scene);
        assert_eq!((&info["events"], &info["lost"]), (&(1000 * round_number).into(), &0.into()));
        assert_eq!(info["ended"], "snapshot");
        assert!(steps(&events(&scene))[&0].iter().copied().eq(0..1000 * round_number));
        std::fs::remove_dir_all(scene.trace()).unwrap();
    }
    assert_eq!(show(&scene)[0]["on"], true);
    say(&scene, "extract -o t.trace");
    assert_eq!(info(&scene)["events"], 3000);
}

fn snapshot_of_a_flight_recorder() {
    let scene = Scene::new();
    let mut program = start(&scene, &["rounds", "20000"]);
    say(&scene, "start --flight-recorder --buffer 256K -e work:step");
    for round_number in 1..=2u64 {
        round(&mut program);
        say(&scene, "snapshot -o t.trace");
        let info = info(&scene);
        let (events_here, lost) =
            (info["events"].as_u64().unwrap(), info["lost"].as_u64().unwrap());
        let fired = 20_000 * round_number;
        assert!(lost > 0 && events_here + lost == fired, "{info:#}");
        let steps = &steps(&events(&scene))[&0];
        assert!(steps.iter().copied().eq(lost..fired), "the latest {events_here}");
        std::fs::remove_dir_all(scene.trace()).unwrap();
    }
    // And while it writes: what is there is whole, whatever was written over meanwhile.
    let busy = start(&scene, &["forever", "2"]);
    say(&scene, &format!("start -p {} --session busy --flight-recorder --buffer 64K", busy.pid()));
    for _ in 0..5 {
        say(&scene, "snapshot --session busy -o t.trace");
        let said = scene.run(&["report", "--json", "t.trace"]);
        assert_eq!((said.status, said.err.as_str()), (0, ""));
        std::fs::remove_dir_all(scene.trace()).unwrap();
    }
    say(&scene, "reset");
}

fn a_full_disk_frees_nothing() {
    let scene = Scene::new();
    let mut program = start(&scene, &["count", "1", "5000"]);
    say(&scene, "start");
    round(&mut program);
    // Files of at most 32 KiB, through the shell's limit (in units of 512 bytes).
    let mut command = scene.command("sh");
    command.args(["-c", "ulimit -f 64; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_gracepoint")]);
    command.args(["extract", "-o", "small.trace"]);
    let said = Running::start(command).end();
    assert_eq!(said.status, 2, "{}", said.err);
    assert!(said.err.contains("keeps what it has: make room"), "{}", said.err);
    let session = &show(&scene)[0];
    assert_eq!((&session["on"], &session["drained_by"]), (&false.into(), &Value::Null));
    say(&scene, "extract -o t.trace");
    assert_eq!(info(&scene)["events"], 5000);
}

/// Waits until `done`.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "never {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn a_killed_recorder_leaves_nothing() {
    let scene = Scene::new();
    let mut program = start(&scene, &["rounds", "1000"]);
    let recorder = scene.recorder(program.pid(), &[]);
    round(&mut program);
    recorder.signal(Signal::KILL);
    until("without a session", || show(&scene).is_empty());
    let said = scene.run(&["show", "--log"]);
    assert!(said.out.contains("session 1 ended with its connection"), "{}", said.out);
    round(&mut program);
    assert_ok(&program.end());
}

fn a_stopped_recorder_holds_up_nobody() {
    let scene = Scene::new();
    let mut program = start(&scene, &["count", "2", "50000"]);
    let recorder = scene.recorder(program.pid(), &["--buffer", "256K"]);
    recorder.signal(Signal::STOP);
    say(&scene, "start --session mine -e work:step --buffer 64M");
    round(&mut program);
    say(&scene, "extract --session mine -o mine.trace");
    let mine: Value = serde_json::from_str(&say(&scene, "info --json mine.trace").out).unwrap();
    assert_eq!((&mine["events"], &mine["lost"]), (&100_000.into(), &0.into()));
    recorder.signal(Signal::CONT);
    recorder.signal(Signal::INT);
    assert_ok(&recorder.end());
    let info = info(&scene);
    let (events, lost) = (info["events"].as_u64().unwrap(), info["lost"].as_u64().unwrap());
    assert!(lost > 0 && events + lost == 100_000, "{info:#}");
}

pub(crate) fn objects(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Starts a command and waits until it has a session that is on.
pub(crate) fn session_of(scene: &Scene, args: &[&str]) -> Running {
    let before = show(scene).len();
    let command = Running::start(scene.gracepoint(args));
    until("a session", || {
        let now = show(scene);
        now.len() > before && now.iter().all(|session| session["on"] == true)
    });
    command
}

fn stat_counts_every_hit() {
    let scene = Scene::new();
    let mut program = start(&scene, &["count", "4", "20000"]);
    let stat = session_of(&scene, &["stat", "--json"]);
    assert_eq!(show(&scene)[0]["counts"], true);
    round(&mut program);
    stat.signal(Signal::INT);
    let said = stat.end();
    assert_ok(&said);
    let rows = objects(&said.out);
    let hits = |event: &str| -> u64 {
        let rows = rows.iter().filter(|row| row["event"] == event);
        rows.map(|row| row["hits"].as_u64().unwrap()).sum()
    };
    assert_eq!((hits("work:step"), hits("work:job")), (80_000, 0), "{rows:#?}");
    until("without a session", || show(&scene).is_empty());
    assert_ok(&program.end());
}

fn stat_by_interval() {
    let scene = Scene::new();
    let mut program = start(&scene, &["jobs", "300"]);
    let mut stat =
        Running::start(scene.gracepoint(&["stat", "-e", "work:*", "--interval", "10ms", "--json"]));
    stat.expect("{"); // it counts
    round(&mut program);
    // Later lines tell the total, whichever interval the hits fell into.
    let deadline = Instant::now() + Duration::from_secs(60);
    let (mut jobs, mut rests) = (false, false);
    while !(jobs && rests) {
        let line: Value = serde_json::from_str(&format!("{{{}", stat.expect("{"))).unwrap();
        jobs |= line["event"] == "work:job" && line["total"] == 300;
        rests |= line["event"] == "work:rest" && line["total"] == 300;
        assert!(Instant::now() < deadline, "{line}");
    }
    // The program's end is the end.
    assert_ok(&program.end());
    let said = stat.end();
    assert_ok(&said);
    assert!(said.err.contains("worker (pid ") && said.err.contains(" has ended"), "{}", said.err);
}

/// What was counted by then is told, and who ended it; without that, that it is gone with the program.
fn stat_ended_by_others() {
    let scene = Scene::new();
    let mut program = start(&scene, &["rounds", "1000"]);
    let pid = program.pid();
    let words = format!("gracepoint: the counting in worker (pid {pid}) was ended by pid ");
    for more in [&[][..], &["--interval", "1h"]] {
        let stat = session_of(&scene, &[&["stat", "-e", "work:step", "--json"], more].concat());
        round(&mut program);
        say(&scene, "reset");
        let said = stat.end();
        assert_ok(&said);
        assert!(said.err.starts_with(&words), "{}", said.err);
        assert!(said.err.ends_with(": gracepoint reset\n"), "{}", said.err);
        let rows = objects(&said.out);
        assert!(rows.len() == 1 && rows[0]["total"] == 1000, "{rows:#?}");
    }
    let stat = session_of(&scene, &["stat", "--duration", "1h"]);
    assert_ok(&program.end());
    let said = stat.end();
    assert_eq!((said.status, said.out.as_str()), (2, ""), "{}", said.err);
    assert!(said.err.contains("nothing is left of what was counted"), "{}", said.err);
}

fn stream_shows_all_in_order() {
    let scene = Scene::new();
    let mut program = start(&scene, &["count", "4", "5000"]);
    let pid = program.pid().to_string();
    let args = ["stream", "-p", &pid, "-e", "work:step", "--json", "--buffer", "64M"];
    let stream = session_of(&scene, &args);
    // Beside a recording, which it does not disturb.
    let recorder = scene.recorder(program.pid(), &["--buffer", "64M"]);
    round(&mut program);
    recorder.signal(Signal::INT);
    assert_ok(&recorder.end());
    stream.signal(Signal::INT);
    let said = stream.end();
    assert_ok(&said);
    let shown = objects(&said.out);
    assert_eq!(shown.len(), 20_000);
    let steps = steps(&shown);
    assert!(steps.len() == 4 && steps.values().all(|s| s.iter().copied().eq(0..5000)));
    assert_eq!(info(&scene)["events"], 20_000);
}

/// Each event is shown before the next happens: in the end what is slow here is the test.
fn stream_is_prompt() {
    let scene = Scene::new();
    let mut program = start(&scene, &["rounds", "1"]);
    let pid = program.pid().to_string();
    let mut stream = session_of(&scene, &["stream", "-p", &pid, "--time", "relative"]);
    for n in 0..20 {
        round(&mut program);
        let line = stream.expect("");
        assert!(line.contains(&format!("n = {n},")), "{line}");
    }
    assert_ok(&program.end());
    assert_ok(&stream.end());
}

fn stream_ended_by_others() {
    let scene = Scene::new();
    let mut program = start(&scene, &["rounds", "1000"]);
    let pid = program.pid().to_string();
    let stream = session_of(&scene, &["stream", "-p", &pid, "-e", "work:step", "--json"]);
    round(&mut program);
    say(&scene, "reset");
    let said = stream.end();
    assert_ok(&said);
    assert!(said.err.starts_with("gracepoint: the stream was ended by pid "), "{}", said.err);
    assert!(steps(&objects(&said.out))[&0].iter().copied().eq(0..1000));
}

fn stream_into_a_closed_pipe() {
    let scene = Scene::new();
    let mut program = start(&scene, &["forever", "2"]);
    let pid = program.pid().to_string();
    let mut command = scene.command("sh");
    let gracepoint = env!("CARGO_BIN_EXE_gracepoint");
    command.args(["-c", "\"$0\" \"$@\" | head -n 3; echo over", gracepoint, "stream", "-p", &pid]);
    let mut said = Running::start(command);
    said.expect("over");
    let said = said.end();
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    until("without a session", || show(&scene).is_empty());
    go(&mut program);
    assert_ok(&program.end());
}

/// The pieces in a directory, in order.
pub(crate) fn pieces(scene: &Scene, dir: &str) -> Vec<String> {
    let names = std::fs::read_dir(scene.dir.join(dir)).unwrap();
    let mut names: Vec<String> =
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names.into_iter().map(|name| format!("{dir}/{name}")).collect()
}

/// Each piece is a trace without damage, and together they tell all events and all losses.
fn pieces_make_a_whole() {
    let scene = Scene::new();
    // In a small buffer, so that there are losses.
    let mut program = start(&scene, &["count", "2", "100000"]);
    let recorder = scene.recorder(program.pid(), &["--rotate", "100K", "--buffer", "128K"]);
    round(&mut program);
    recorder.signal(Signal::INT);
    let said = recorder.end();
    assert_ok(&said);
    let (mut events, mut lost) = (0, 0);
    let all = pieces(&scene, "t.trace");
    assert!(all.len() > 2, "{all:?}");
    assert!(said.err.contains(&format!("recorded {} pieces", all.len())), "{}", said.err);
    for (i, piece) in all.iter().enumerate() {
        let told = scene.run(&["info", "--json", piece]);
        assert_eq!((told.status, told.err.as_str()), (0, ""));
        let info: Value = serde_json::from_str(&told.out).unwrap();
        assert_eq!(info["ended"], if i + 1 < all.len() { "rotated" } else { "interrupted" });
        assert_eq!(info["complete"], true, "{info:#}");
        for empty in ["damage", "contradictions"] {
            assert_eq!(info[empty].as_array().unwrap().len(), 0, "{info:#}");
        }
        events += info["events"].as_u64().unwrap();
        lost += info["lost"].as_u64().unwrap();
    }
    assert_eq!(events + lost, 200_000, "{events} recorded, {lost} lost");
    // Whoever takes all of them for one is told what to do.
    let said = scene.run(&["report", "t.trace"]);
    let hint = format!("give one of them, the latest is {}", all.last().unwrap());
    assert!(said.status == 2 && said.err.contains(&hint), "{}", said.err);
}

fn the_latest_pieces_are_kept() {
    let scene = Scene::new();
    let program = start(&scene, &["forever", "2"]);
    let args = ["--rotate", "20ms", "--keep", "3", "--buffer", "64M"];
    let recorder = scene.recorder(program.pid(), &args);
    until("six pieces", || {
        pieces(&scene, "t.trace").last().is_some_and(|l| l.as_str() >= "t.trace/000006")
    });
    recorder.signal(Signal::INT);
    assert_ok(&recorder.end());
    let kept = pieces(&scene, "t.trace");
    assert!((2..=3).contains(&kept.len()), "{kept:?}");
    // Without losses they are one stretch of events for each thread.
    let mut all: std::collections::BTreeMap<u64, Vec<u64>> = Default::default();
    for piece in &kept {
        let said = scene.run(&["report", "--json", piece]);
        assert_eq!((said.status, said.err.as_str()), (0, ""));
        for (worker, theirs) in steps(&objects(&said.out)) {
            all.entry(worker).or_default().extend(theirs);
        }
    }
    for steps in all.values() {
        assert!(steps.windows(2).all(|pair| pair[1] == pair[0] + 1), "{steps:?}");
    }
}

fn pieces_replace_pieces_alone() {
    let scene = Scene::new();
    let program = start(&scene, &["forever", "1"]);
    let pid = program.pid().to_string();
    let record = |more: &[&str]| {
        let args = ["record", "-p", &pid, "-o", "p", "-d", "10ms", "--rotate", "1h"];
        scene.run(&[&args[..], more].concat())
    };
    assert_ok(&record(&[]));
    let said = record(&[]);
    assert!(said.status == 2 && said.err.contains("--force"), "{}", said.err);
    // What cannot be recorded replaces nothing.
    assert_eq!(record(&["--force", "-e", "no:such"]).status, 2);
    std::fs::rename(scene.dir.join("p/000001"), scene.dir.join("p/000007")).unwrap();
    let said = scene.run(&["record", "-o", "p", "--rotate", "1h", "--force", "--", "/no/such"]);
    assert_eq!(said.status, 127, "{}", said.err);
    assert_eq!(pieces(&scene, "p"), ["p/000007"]);
    assert_ok(&record(&["--force"]));
    assert_eq!(pieces(&scene, "p"), ["p/000001"]);
    // What a killed recorder was removing is nobody's.
    std::fs::create_dir(scene.dir.join("p/.000003.gone")).unwrap();
    std::fs::write(scene.dir.join("p/.000003.gone/stream_0"), "half").unwrap();
    assert_ok(&record(&["--force"]));
    assert_eq!(pieces(&scene, "p"), ["p/000001"]);
    // Nor is a piece that it had just begun, and not described; or was removing when it had no other name.
    for (piece, file) in
        [("p/000002", None), ("p/000003", Some(".metadata.7")), ("p/000004", Some("stream_3"))]
    {
        std::fs::create_dir(scene.dir.join(piece)).unwrap();
        if let Some(file) = file {
            std::fs::write(scene.dir.join(piece).join(file), "half").unwrap();
        }
    }
    let said = record(&[]);
    assert!(said.status == 2 && said.err.contains("--force"), "{}", said.err);
    assert_ok(&record(&["--force"]));
    assert_eq!(pieces(&scene, "p"), ["p/000001"]);
    // The same of the piece whose place is taken, and of a recording without pieces.
    std::fs::remove_file(scene.dir.join("p/000001/metadata")).unwrap();
    assert_ok(&record(&["--force"]));
    assert_eq!(pieces(&scene, "p"), ["p/000001"]);
    std::fs::remove_file(scene.dir.join("p/000001/metadata")).unwrap();
    let one = |more: &[&str]| {
        scene.run(&[&["record", "-p", &pid, "-o", "p/000001", "-d", "10ms"], more].concat())
    };
    assert_eq!(one(&[]).status, 2);
    assert_ok(&one(&["--force"]));
    // Anything else is somebody's.
    std::fs::create_dir(scene.dir.join("p/000005")).unwrap();
    std::fs::write(scene.dir.join("p/000005/stream_of_thoughts"), "").unwrap();
    let said = record(&["--force"]);
    assert!(said.status == 2 && said.err.contains("other things than pieces"), "{}", said.err);
    std::fs::remove_dir_all(scene.dir.join("p/000005")).unwrap();
    std::fs::write(scene.dir.join("p/precious"), "").unwrap();
    let said = record(&["--force"]);
    assert!(said.status == 2 && said.err.contains("other things than pieces"), "{}", said.err);
    assert!(scene.dir.join("p/precious").exists() && scene.dir.join("p/000001").exists());
}

fn record_as_a_flight_recorder() {
    let scene = Scene::new();
    let mut program = start(&scene, &["rounds", "20000"]);
    let recorder = scene
        .recorder(program.pid(), &["--flight-recorder", "--buffer", "256K", "-e", "work:step"]);
    round(&mut program);
    say(&scene, "snapshot -o now.trace");
    round(&mut program);
    recorder.signal(Signal::INT);
    assert_ok(&recorder.end());
    let now: Value = serde_json::from_str(&say(&scene, "info --json now.trace").out).unwrap();
    for (info, fired) in [(now, 20_000), (info(&scene), 40_000)] {
        let (events, lost) = (info["events"].as_u64().unwrap(), info["lost"].as_u64().unwrap());
        assert!(lost > 0 && events + lost == fired, "{info:#}");
    }
    let steps = &steps(&events(&scene))[&0];
    assert_eq!(steps.last(), Some(&39_999), "the latest");
}
