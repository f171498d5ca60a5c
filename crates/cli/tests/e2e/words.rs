//! What commands say of what they did: to people in tables and notes, to scripts in JSON; and what sessions add and
//! leave out, whichever command made them.

use crate::real::{assert_ok, events, go, info, start};
use crate::scene::{Running, Scene};
use crate::verbs::{objects, round, say, session_of, show};
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::Value;

pub(crate) fn trials() -> Vec<Trial> {
    let tests: [(&str, fn()); 10] = [
        ("words_verbs_tell_what_they_did", verbs_tell_what_they_did),
        ("words_start_adds_and_leaves_out", start_adds_and_leaves_out),
        ("words_stream_adds_and_leaves_out", stream_adds_and_leaves_out),
        ("words_a_small_buffer_is_told", a_small_buffer_is_told),
        ("words_show_tells_patterns_and_modes", show_tells_patterns_and_modes),
        ("words_show_tells_its_log_when_nothing_is_on", show_tells_its_log_when_nothing_is_on),
        ("words_of_a_flight_recorder_without_events", of_a_flight_recorder_without_events),
        ("words_of_conditions_that_nothing_meets", of_conditions_that_nothing_meets),
        ("words_of_who_does_not_answer", of_who_does_not_answer),
        ("words_of_a_program_that_becomes_another", of_a_program_that_becomes_another),
    ];
    tests.into_iter().map(crate::trial).collect()
}

fn verbs_tell_what_they_did() {
    let scene = Scene::new();
    let mut program = start(&scene, &["rounds", "100"]);
    let pid = program.pid();
    let did = |words: &str| -> Value {
        let said = say(&scene, &format!("{words} --json"));
        let [did] = &objects(&said.out)[..] else { panic!("one object: {}", said.out) };
        assert_eq!((&did["pid"], &did["program"]), (&pid.into(), &"worker".into()), "{did}");
        assert_eq!(did["did"], words.split(' ').next().unwrap(), "{did}");
        did.clone()
    };
    let of_main = |did: &Value| {
        assert_eq!((&did["session"], &did["name"]), (&1.into(), &"main".into()), "{did}");
    };
    let started = did("start -e work:step --buffer 1M");
    of_main(&started);
    let bytes = started["buffer_bytes"].as_u64().unwrap();
    assert_eq!((&started["events"], &started["overwrites"]), (&1.into(), &false.into()));
    assert!((1 << 19..=1 << 20).contains(&bytes), "{started}");
    round(&mut program);
    of_main(&did("stop"));
    of_main(&did("restart"));
    for verb in ["snapshot", "extract"] {
        let written = did(&format!("{verb} -o {verb}.trace"));
        of_main(&written);
        assert_eq!(written["dir"], format!("{verb}.trace"));
        assert_eq!((&written["events"], &written["lost"]), (&100.into(), &0.into()), "{written}");
        assert!(written["complete"] == true && written["bytes"].as_u64() > Some(0), "{written}");
    }
    did("start");
    assert_eq!(did("reset")["sessions"], 1);
    assert_eq!(did("reset")["sessions"], 0);
    assert_eq!(say(&scene, "reset").err, "gracepoint: nothing was on\n");
}

fn start_adds_and_leaves_out() {
    let scene = Scene::new();
    let mut program = start(&scene, &["rounds", "1000"]);
    say(&scene, "start -e work:step --flight-recorder --context cpu,tid --sample 1/10");
    round(&mut program);
    say(&scene, "extract -o t.trace");
    let info = info(&scene);
    assert_eq!((&info["events"], &info["throttled"]), (&100.into(), &900.into()), "{info:#}");
    for event in events(&scene) {
        assert_eq!(event["fields"]["vtid"], event["tid"], "{event}");
        assert!(event["fields"]["cpu_id"].is_u64(), "{event}");
    }
}

fn stream_adds_and_leaves_out() {
    let scene = Scene::new();
    let mut program = start(&scene, &["rounds", "1000"]);
    let pid = program.pid().to_string();
    let args = ["stream", "-p", &pid, "-e", "work:step", "--json"];
    let limits = ["--context=tid,thread", "--sample=1/10", "--max-rate=100000"];
    let stream = session_of(&scene, &[&args[..], &limits].concat());
    round(&mut program);
    stream.signal(Signal::INT);
    let said = stream.end();
    assert_ok(&said);
    let (steps, others): (Vec<_>, Vec<_>) =
        objects(&said.out).into_iter().partition(|event| event["name"] == "work:step");
    assert_eq!(steps.len(), 100);
    for event in steps {
        assert_eq!(event["fields"]["vtid"], event["tid"], "{event}");
        assert_eq!(event["fields"]["procname"], event["thread"], "{event}");
    }
    let told = others.iter().filter(|event| event["name"] == "gp:unthrottle");
    let count: u64 = told.map(|event| event["fields"]["count"].as_u64().unwrap()).sum();
    assert_eq!(count, 900, "{others:#?}");
}

/// There is a least, and whoever asks for less is told.
fn a_small_buffer_is_told() {
    let scene = Scene::new();
    let mut program = start(&scene, &["rounds", "1"]);
    let pid = program.pid().to_string();
    let told = "the least that there is, where 1 B were asked for";
    for more in [&[][..], &["--flight-recorder"]] {
        let record = ["record", "-p", &pid, "-d", "1ms", "-o", "small", "--force", "-b"];
        let said = scene.run(&[&record[..], &["1"], more].concat());
        assert_ok(&said);
        assert!(said.err.contains(told), "{}", said.err);
        let said = scene.run(&[&record[..], &["1M"], more].concat());
        assert!(said.status == 0 && !said.err.contains("asked for"), "{}", said.err);
    }
    let said = say(&scene, "start -b 1");
    assert!(said.err.contains(told), "{}", said.err);
    say(&scene, "reset");
    let said = say(&scene, "start -b 64K");
    assert!(!said.err.contains("asked for"), "{}", said.err);
    let mut stream = Running::start(scene.gracepoint(&["stream", "-p", &pid, "-b", "1"]));
    assert!(stream.expect_error("gracepoint: the buffer has ").ends_with(told));
    go(&mut program);
}

fn show_tells_patterns_and_modes() {
    let scene = Scene::new();
    let _program = start(&scene, &["rounds", "1"]);
    say(&scene, "start --session one -e work:step -e auth:* --flight-recorder");
    say(&scene, "start --session two");
    let many = ["a", "b", "c", "d", "work:*"].map(|glob| format!("-e *{glob}*")).join(" ");
    say(&scene, &format!("start --session many {many}"));
    let said = say(&scene, "show");
    let line = |name: &str| {
        let mut lines = said.out.lines().filter(|line| line.contains(&format!(" {name} ")));
        lines.next().unwrap_or_else(|| panic!("{name} in {}", said.out)).to_owned()
    };
    assert!(line("PROGRAM").contains("  WHEN FULL  ") && line("PROGRAM").ends_with("PATTERNS"));
    let one = line("one");
    assert!(one.contains("  overwrites  ") && one.ends_with("  work:step, auth:*"), "{one}");
    let two = line("two");
    assert!(two.contains("  discards ") && two.ends_with("  *"), "{two}");
    assert!(line("many").contains(" and "), "{}", line("many"));
    say(&scene, "reset");
    // Of what only counts, and of the program's own recorder.
    let mut command = scene.command(std::env::current_exe().unwrap());
    command.args(["--program", "rounds", "1"]).env("GRACEPOINT_FLIGHT", scene.dir.join("flight"));
    command.env("GRACEPOINT_FLIGHT_EVENTS", "work:step, work:job");
    let mut own = Running::start(command);
    own.expect("ready");
    let stat = session_of(&scene, &["stat", "-p", &own.pid().to_string()]);
    let of = |counts: bool| {
        let sessions = show(&scene).into_iter();
        sessions.filter(|session| session["counts"] == counts).collect::<Vec<_>>()
    };
    assert_eq!(of(false)[0]["globs"], serde_json::json!(["work:step", "work:job"]));
    let said = say(&scene, "show");
    let counting = said.out.lines().find(|line| line.contains("on, counting")).unwrap();
    assert!(of(true).len() == 1 && counting.contains("  -  "), "{counting}");
    drop(stat);
}

fn show_tells_its_log_when_nothing_is_on() {
    let scene = Scene::new();
    let _program = start(&scene, &["rounds", "1"]);
    let said = scene.run(&["show", "--log"]);
    assert_eq!((said.status, said.out.as_str()), (1, ""), "{}", said.err);
    say(&scene, "start");
    say(&scene, "reset");
    let said = say(&scene, "show --log");
    assert!(said.out.contains("reset by pid "), "{}", said.out);
    assert!(said.err.contains("nothing is on"), "{}", said.err);
    assert_eq!(scene.run(&["show"]).status, 1);
}

fn of_a_flight_recorder_without_events() {
    let scene = Scene::new();
    let flight = scene.dir.join("flight");
    let mut command = scene.command(std::env::current_exe().unwrap());
    command.args(["--program", "rounds", "1"]).env("GRACEPOINT_FLIGHT", &flight);
    command.env("GRACEPOINT_FLIGHT_EVENTS", "nomatch*");
    let said = Running::start(command).end();
    assert_ne!(said.status, 0);
    let told = "GRACEPOINT_FLIGHT_EVENTS=nomatch* matches no event of the program";
    assert!(said.err.contains(told), "{}", said.err);
    assert_eq!(std::fs::read_dir(flight).unwrap().count(), 0, "nothing is left of it");
}

fn of_conditions_that_nothing_meets() {
    let scene = Scene::new();
    let mut program = start(&scene, &["rounds", "100"]);
    say(&scene, "start -e work:step -e work:rest");
    round(&mut program);
    say(&scene, "extract -o t.trace");
    let report = |more: &[&str]| {
        let said = scene.run(&[&["report", "t.trace"], more].concat());
        assert_eq!((said.status, said.out.as_str()), (0, ""), "{}", said.err);
        said.err
    };
    for conditions in
        [&["--thread", "nobody"][..], &["--since", "+1h", "--until", "+2h"], &["-e", "work:rest"]]
    {
        let err = report(conditions);
        let told = "gracepoint: no event meets the conditions: there are 100 events, from 20";
        assert!(err.starts_with(told) && err.contains(" UTC (gracepoint info)"), "{err}");
    }
    assert_eq!(report(&["--limit", "0"]), "");
    say(&scene, "start");
    say(&scene, "extract -o t.trace --force");
    assert!(report(&["--last", "3"]).contains("the trace has no events"));
    assert_eq!(report(&[]), "");
}

/// Those who watch it say what has happened, and what they had seen.
fn of_a_program_that_becomes_another() {
    let scene = Scene::new();
    let mut program = start(&scene, &["exec"]);
    let pid = program.pid().to_string();
    let stream = session_of(&scene, &["stream", "-p", &pid, "-e", "work:step", "--json"]);
    let stat = session_of(&scene, &["stat", "-p", &pid, "-e", "work:step"]);
    go(&mut program);
    let (stream, stat) = (stream.end(), stat.end());
    assert!(stream.status == 2 && stream.err.contains("connection lost: "), "{}", stream.err);
    assert!(stream.err.contains("(by exec, "), "{}", stream.err);
    let steps = objects(&stream.out).into_iter().filter(|event| event["name"] == "work:step");
    assert_eq!(steps.count(), 100);
    assert!(stat.status == 2 && stat.err.contains("worker (pid "), "{}", stat.err);
    assert_eq!(stat.out, "");
}

fn of_who_does_not_answer() {
    let scene = Scene::new();
    let _one = scene.fake("mute");
    let said = scene.run(&["start"]);
    let told = "no traceable program: one process does not answer (gracepoint ps)";
    assert!(said.status == 1 && said.err.contains(told), "{}", said.err);
    let _other = scene.fake("mute");
    let said = scene.run(&["start"]);
    assert!(said.err.contains(": 2 processes do not answer"), "{}", said.err);
}
