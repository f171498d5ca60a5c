//! When there is not enough: disk, descriptors, address space; when the recorder, its directory or the
//! program's image goes; and when there are very many threads. The program is unharmed, what it
//! committed is kept, and everybody says what happened.
//!
//! `GRACEPOINT_THREADS=10000` makes so many threads, short-lived and idle ones.

use crate::real::{assert_ok, events, go, info, start, steps};
use crate::scene::{Running, Scene};
use crate::verbs::{pieces, round, say, show, until};
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::Value;
use std::process::{Command, Stdio};

pub(crate) fn trials() -> Vec<Trial> {
    let tests: [(&str, fn()); 11] = [
        ("a_program_without_descriptors", a_program_without_descriptors),
        ("a_program_without_address_space", a_program_without_address_space),
        ("a_program_that_becomes_another", a_program_that_becomes_another),
        ("a_removed_directory_of_pieces", a_removed_directory_of_pieces),
        ("pieces_of_a_killed_recorder", pieces_of_a_killed_recorder),
        ("ps_tells_sessions", ps_tells_sessions),
        ("a_stopped_program_is_named", a_stopped_program_is_named),
        ("snapshot_beside_a_recorder", snapshot_beside_a_recorder),
        ("short_lived_threads_lose_nothing", short_lived_threads_lose_nothing),
        ("idle_threads_cost_little", idle_threads_cost_little),
        ("idle_threads_pin_no_pages", idle_threads_pin_no_pages),
    ];
    let mut trials: Vec<Trial> = tests.into_iter().map(crate::trial).collect();
    let mut unshare = Command::new("unshare");
    unshare.args(["-Urm", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
    let unshared = unshare.status().is_ok_and(|status| status.success());
    let full = crate::trial(("a_full_disk_ends_pieces", a_full_disk_ends_pieces));
    trials.push(match unshared {
        true => full,
        false => full.with_kind("skipped, needs user namespaces").with_ignored_flag(true),
    });
    trials
}

/// The events of one trace, as `info` counts them; nothing in it is damaged.
fn count(scene: &Scene, trace: &str) -> (u64, u64) {
    let said = scene.run(&["info", "--json", trace]);
    assert_eq!(said.status, 0, "{}", said.err);
    let info: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(info["damage"].as_array().unwrap().len(), 0, "{info:#}");
    (info["events"].as_u64().unwrap(), info["lost"].as_u64().unwrap())
}

fn a_program_without_descriptors() {
    let scene = Scene::new();
    let mut program = start(&scene, &["no-files"]);
    let pid = program.pid().to_string();
    let recorder = scene.recorder(program.pid(), &[]);
    go(&mut program);
    program.expect("full");
    // It cannot answer; that is said, and waited for no longer than for any that does not answer.
    let said = scene.run(&["list", "-p", &pid]);
    assert!(said.status == 2 && said.err.contains("does not answer"), "{}", said.err);
    go(&mut program);
    program.expect("done");
    assert_ok(&scene.run(&["list", "-p", &pid]));
    recorder.signal(Signal::INT);
    assert_ok(&recorder.end());
    assert!(steps(&events(&scene))[&0].iter().copied().eq(0..200));
    assert_ok(&program.end());
}

fn a_program_without_address_space() {
    let scene = Scene::new();
    let mut program = start(&scene, &["no-memory"]);
    let pid = program.pid().to_string();
    go(&mut program);
    program.expect("tight");
    let said = scene.run(&["record", "-p", &pid, "-o", "t.trace", "--buffer", "512M"]);
    assert_eq!(said.status, 2, "{}", said.err);
    assert!(said.err.contains("cannot be had") && said.err.contains("--buffer"), "{}", said.err);
    assert!(!scene.trace().exists(), "nothing was recorded");
    let recorder = scene.recorder(program.pid(), &["--buffer", "1M"]);
    round(&mut program);
    recorder.signal(Signal::INT);
    assert_ok(&recorder.end());
    assert!(steps(&events(&scene))[&0].iter().copied().eq(0..100));
    assert_ok(&program.end());
}

fn a_program_that_becomes_another() {
    let scene = Scene::new();
    let mut program = start(&scene, &["exec"]);
    let recorder = scene.recorder(program.pid(), &[]);
    go(&mut program);
    let said = recorder.end();
    assert!(said.status == 2 && said.err.contains("by exec"), "{} {}", said.status, said.err);
    // What was committed is there; that there may have been more is said.
    let said = scene.run(&["report", "--json", "t.trace"]);
    assert!(said.status == 0 && said.err.contains("events may be missing"), "{}", said.err);
    let lines: Vec<Value> =
        said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(steps(&lines)[&0].iter().copied().eq(0..100));
    // The same process, and a program that can be traced as any.
    program.expect("ready");
    std::fs::remove_dir_all(scene.trace()).unwrap();
    let recorder = scene.recorder(program.pid(), &[]);
    round(&mut program);
    recorder.signal(Signal::INT);
    assert_ok(&recorder.end());
    assert_eq!(info(&scene)["events"], 10);
    assert_ok(&program.end());
}

fn a_removed_directory_of_pieces() {
    let scene = Scene::new();
    let program = start(&scene, &["forever", "1"]);
    let recorder = scene.recorder(program.pid(), &["--rotate", "10ms"]);
    until("two pieces", || pieces(&scene, "t.trace").len() > 1);
    // Elsewhere first, since the recorder is making more in it.
    std::fs::rename(scene.trace(), scene.dir.join("gone")).unwrap();
    let said = recorder.end();
    assert_eq!(said.status, 2, "{}", said.err);
    assert!(said.err.contains("the trace is not whole: "), "{}", said.err);
    // The pieces are as good as before. The last one may have been taken away between being made and described.
    let all = pieces(&scene, "gone");
    let (last, whole) = all.split_last().unwrap();
    assert!(!whole.is_empty(), "{all:?}");
    for piece in whole {
        count(&scene, piece);
    }
    if scene.dir.join(last).join("metadata").exists() {
        count(&scene, last);
    }
    until("it is off", || show(&scene).is_empty());
    assert_ok(&program.end());
}

fn pieces_of_a_killed_recorder() {
    let scene = Scene::new();
    let program = start(&scene, &["forever", "2"]);
    let args = ["--rotate", "20ms", "--keep", "3", "--buffer", "64M"];
    let recorder = scene.recorder(program.pid(), &args);
    until("five pieces", || {
        pieces(&scene, "t.trace").last().is_some_and(|l| l.as_str() >= "t.trace/000005")
    });
    recorder.signal(Signal::KILL);
    assert_eq!(recorder.end().status, -9);
    let mut kept = pieces(&scene, "t.trace");
    // One that was being removed has lost its name first.
    kept.retain(|piece| !piece.starts_with("t.trace/."));
    assert!((2..=4).contains(&kept.len()), "{kept:?}");
    // All that ended are whole, and the last one is read as far as it goes. It may have been killed
    // between making a directory and describing it.
    let (last, whole) = kept.split_last().unwrap();
    for piece in whole {
        count(&scene, piece);
    }
    if scene.dir.join(last).join("metadata").exists() {
        assert_ok(&scene.run(&["report", last]));
    }
    until("it is off", || show(&scene).is_empty());
    assert_ok(&program.end());
}

/// A disk of a megabyte that only the recorder sees, and a program that soon fills it.
fn a_full_disk_ends_pieces() {
    let scene = Scene::new();
    let program = start(&scene, &["forever", "2"]);
    let script = "mkdir d && mount -t tmpfs -o size=1m none d || exit 9; \
                  \"$0\" record -p $1 -o d/t --buffer 64M --rotate 64K 2>err; echo status $?; \
                  cp -r d/t t.trace";
    let mut command = scene.command("unshare");
    command.args(["-Urm", "sh", "-c", script, env!("CARGO_BIN_EXE_gracepoint")]);
    command.arg(program.pid().to_string());
    let said = Running::start(command).end();
    let err = std::fs::read_to_string(scene.dir.join("err")).unwrap();
    assert_eq!((said.status, said.out.as_str()), (0, "status 2\n"), "{} {err}", said.err);
    assert!(err.contains("the trace is not whole: ") && err.contains("No space"), "{err}");
    let all = pieces(&scene, "t.trace");
    assert!(all.len() > 3, "{all:?}");
    let (_, whole) = all.split_last().unwrap();
    let recorded: u64 = whole.iter().map(|piece| count(&scene, piece).0).sum();
    assert!(recorded > 1000, "{recorded}");
    until("it is off", || show(&scene).is_empty());
    assert_ok(&program.end());
}

fn ps_tells_sessions() {
    let scene = Scene::new();
    let program = start(&scene, &["idle"]);
    let sessions = || {
        let ps: Value = serde_json::from_str(&say(&scene, "ps --json").out).unwrap();
        ps["sessions"].clone()
    };
    assert_eq!(sessions(), serde_json::json!([]));
    assert!(!say(&scene, "ps").out.lines().nth(1).unwrap().contains("record"));
    say(&scene, "start --session slow");
    let recorder = scene.recorder(program.pid(), &[]);
    assert_eq!(sessions(), serde_json::json!(["slow", "gracepoint record"]));
    say(&scene, "stop");
    let table = say(&scene, "ps").out;
    assert!(table.lines().next().unwrap().ends_with("SESSIONS"), "{table}");
    assert!(table.trim_end().ends_with("slow (off), gracepoint record"), "{table}");
    recorder.signal(Signal::INT);
    assert_ok(&recorder.end());
}

/// Verbs on all programs say which of them they did not reach.
fn a_stopped_program_is_named() {
    let scene = Scene::new();
    let (program, stopped) = (start(&scene, &["idle"]), start(&scene, &["idle"]));
    say(&scene, "start");
    stopped.signal(Signal::STOP);
    let missing = format!("process {} does not answer", stopped.pid());
    for (verb, status) in [("show", 0), ("reset", 2), ("start", 2)] {
        let said = scene.run(&[verb]);
        assert!(said.status == status && said.err.contains(&missing), "{verb}: {}", said.err);
    }
    stopped.signal(Signal::CONT);
    until("both are there", || show(&scene).len() == 2);
    say(&scene, "reset");
    assert_ok(&program.end());
    assert_ok(&stopped.end());
}

/// Whoever looks at a session that another drains sees what is there, whole, and disturbs nobody.
fn snapshot_beside_a_recorder() {
    let scene = Scene::new();
    let program = start(&scene, &["forever", "2"]);
    let recorder = scene.recorder(program.pid(), &["--buffer", "1M"]);
    for n in 0..5 {
        let name = format!("{n}.trace");
        say(&scene, &format!("snapshot -p {} -o {name}", program.pid()));
        count(&scene, &name);
        let said = scene.run(&["report", "--json", &name]);
        assert_eq!((said.status, said.err.as_str()), (0, ""));
        let lines: Vec<Value> =
            said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for steps in steps(&lines).values() {
            assert!(steps.windows(2).all(|pair| pair[1] == pair[0] + 1), "{steps:?}");
        }
    }
    recorder.signal(Signal::INT);
    assert_ok(&recorder.end());
    for steps in steps(&events(&scene)).values() {
        assert!(steps.windows(2).all(|pair| pair[1] == pair[0] + 1), "the recorder has all");
    }
}

fn threads(default: u64) -> u64 {
    let text = std::env::var("GRACEPOINT_THREADS").ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[expect(clippy::print_stdout, reason = "the figures are what the command is for")]
fn short_lived_threads_lose_nothing() {
    let threads = threads(2000);
    let scene = Scene::new();
    let mut program = start(&scene, &["mayflies", &threads.to_string()]);
    let recorder = scene.recorder(program.pid(), &["-e", "work:step"]);
    go(&mut program);
    program.expect("done");
    recorder.signal(Signal::INT);
    assert_ok(&recorder.end());
    let info = info(&scene);
    assert_eq!((&info["events"], &info["lost"]), (&threads.into(), &0.into()), "{info:#}");
    // Each event is in a packet of its own thread: a header and the event, and no page beside.
    let bytes = info["bytes"].as_u64().unwrap();
    println!("{threads} short-lived threads, an event each: none lost, {} B each", bytes / threads);
    assert!(bytes < threads * 256 + (64 << 10), "{bytes} bytes for {threads} events");
}

/// Bytes of memory of its own that a process uses beside the sessions' buffers: not the pages of its program's file that it has
/// looked at, which are the page cache's.
fn memory(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let (mut sum, mut buffer) = (0, false);
    for line in text.lines() {
        if let Some(own) = line.strip_prefix("Anonymous:") {
            let kilobytes: u64 = own.trim().strip_suffix(" kB").unwrap().trim().parse().unwrap();
            sum += if buffer { 0 } else { kilobytes << 10 };
        } else if line.starts_with(|c: char| c.is_ascii_hexdigit()) {
            buffer = line.contains("/memfd:");
        }
    }
    sum
}

#[expect(clippy::print_stdout, reason = "the figures are what the command is for")]
fn idle_threads_cost_little() {
    /// What does not grow with the threads (DESIGN.md, "What memory does a session take"): some 90 KiB, which
    /// allocators and page sizes may round up.
    const FIXED: u64 = 160 << 10;
    /// A session's own for each thread, and the program's, once: the numbers of DESIGN.md add up to 209.
    const EACH: u64 = 256;
    let threads = threads(1000);
    let scene = Scene::new();
    let mut program = start(&scene, &["idlers", &threads.to_string()]);
    program.expect("idle");
    let before = memory(program.pid());
    let recorder = scene.recorder(program.pid(), &["-e", "work:step", "--buffer", "16M"]);
    go(&mut program);
    program.expect("done");
    let session = || show(&scene).into_iter().next().unwrap();
    until("no thread has a page", || session()["filled_bytes"] == 0);
    let lost = session()["lost"].as_u64().unwrap();
    let grown = memory(program.pid()).saturating_sub(before + FIXED);
    let each = grown / threads + gracepoint_wire::arena::SLOT_ENTRY as u64;
    println!("{threads} idle threads: no page each, {each} B each beyond the buffer, {lost} lost");
    assert!(each <= EACH, "{each} B per thread");
    recorder.signal(Signal::INT);
    assert_ok(&recorder.end());
    let info = info(&scene);
    assert_eq!(lost, 0, "they share pages");
    assert_eq!(info["events"], threads);
    assert_ok(&program.end());
}

/// Where nobody drains the buffer, and it has fewer pages than there are threads.
fn idle_threads_pin_no_pages() {
    for flight in [&[][..], &["--flight-recorder"]] {
        let threads = threads(1000);
        let scene = Scene::new();
        let mut program = start(&scene, &["idlers", &threads.to_string()]);
        program.expect("idle");
        let pid = program.pid().to_string();
        let size = format!("{}K", threads);
        let begin = ["start", "-p", &pid, "-e", "work:step", "--buffer", &size];
        assert_ok(&scene.run(&[&begin, flight].concat()));
        go(&mut program);
        program.expect("done");
        assert_ok(&scene.run(&["extract", "-o", "trace"]));
        assert_eq!(count(&scene, "trace"), (threads, 0));
        assert_ok(&program.end());
    }
}
