//! `export`: a file that is whole or not there, what is said beside, and what is refused.

use crate::reading::write;
use crate::scene::Scene;
use std::fs::{self, File};

type Test = (&'static str, fn());

pub(crate) fn trials() -> Vec<libtest_mimic::Trial> {
    let tests: [Test; 4] = [
        ("a_trace_is_exported_to_each_format", a_trace_is_exported_to_each_format),
        ("an_export_is_refused_before_it_begins", an_export_is_refused_before_it_begins),
        ("a_full_disk_leaves_no_half_of_an_export", a_full_disk_leaves_no_half_of_an_export),
        ("an_export_says_what_is_damaged", an_export_says_what_is_damaged),
    ];
    tests.into_iter().map(crate::trial).collect()
}

/// Names in the test's directory, hidden ones too.
fn names(scene: &Scene) -> Vec<String> {
    let entries = fs::read_dir(&scene.dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn a_trace_is_exported_to_each_format() {
    let scene = Scene::new();
    let events = write(&scene, 2);
    let said =
        scene.run(&["export", "t.trace", "--to", "perfetto", "--counter", "t:tick.n", "--json"]);
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    let told: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(
        (&told["output"], &told["format"]),
        (&"gracepoint.pftrace".into(), &"perfetto".into())
    );
    assert_eq!((&told["events"], &told["samples"]), (&events.into(), &events.into()));
    let len = fs::metadata(scene.dir.join("gracepoint.pftrace")).unwrap().len();
    assert_eq!(told["bytes"], len);
    let said =
        scene.run(&["export", "t.trace", "--to", "chrome", "-o", "x.json", "--thread", "even"]);
    assert_eq!(said.status, 0, "{}", said.err);
    assert!(said.err.contains("x.json: 2,000 events"), "{}", said.err);
    let json = fs::read(scene.dir.join("x.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let instants = json["traceEvents"].as_array().unwrap().iter().filter(|e| e["ph"] == "i");
    assert_eq!(instants.count() as u64, events / 2);
    let said = scene.run(&["export", "t.trace", "--to", "chrome", "-o", "-"]);
    assert_eq!((said.status, said.err.as_str()), (0, ""));
    let json: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert!(json["traceEvents"].as_array().unwrap().len() as u64 > events);
    let said = scene.run(&["export", "t.trace", "--to", "folded"]);
    assert_eq!(said.status, 0, "{}", said.err);
    let want = ["gracepoint.folded", "gracepoint.pftrace", "sockets", "t.trace", "x.json"];
    assert_eq!(names(&scene), want);
}

fn an_export_is_refused_before_it_begins() {
    let scene = Scene::new();
    write(&scene, 1);
    let refused = |args: &[&str], want: &str| {
        let said = scene.run(&[&["export", "t.trace"], args].concat());
        assert!(said.status == 2 && said.err.contains(want), "{args:?}: {}", said.err);
    };
    refused(&["--to", "svg"], "perfetto, chrome, folded, flamegraph");
    refused(&["--to", "chrome", "-e", "t:tock"], "did you mean t:tick?");
    refused(&["--to", "chrome", "--counter", "t:tick.m"], "did you mean n?");
    refused(&["--to", "flamegraph"], "no span ended");
    refused(&["--to", "chrome", "-o", "no/where"], "cannot create");
    refused(&["--to", "chrome", "-o", "/dev/null", "--force"], "no file that can be replaced");
    refused(&["--to", "chrome", "-o", "-", "--json"], "--json");
    fs::write(scene.dir.join("x"), "mine").unwrap();
    refused(&["--to", "chrome", "-o", "x"], "x exists");
    assert_eq!(fs::read(scene.dir.join("x")).unwrap(), b"mine");
    let said = scene.run(&["export", "t.trace", "--to", "chrome", "-o", "x", "--force"]);
    assert_eq!(said.status, 0, "{}", said.err);
    assert!(fs::read(scene.dir.join("x")).unwrap().starts_with(b"{"));
    assert_eq!(names(&scene), ["sockets", "t.trace", "x"]);
}

fn a_full_disk_leaves_no_half_of_an_export() {
    let scene = Scene::new();
    write(&scene, 16);
    fs::write(scene.dir.join("x"), "mine").unwrap();
    for more in [&["-o", "y"][..], &["-o", "x", "--force"]] {
        let mut command = scene.command("sh");
        // 200 blocks of 512 bytes; the command gets an error and no signal.
        let script = "ulimit -f 200 && exec \"$0\" export t.trace --to chrome \"$@\"";
        command.args(["-c", script, env!("CARGO_BIN_EXE_gracepoint")]).args(more);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("cannot write the output") && said.contains("was not written"));
        assert_eq!(names(&scene), ["sockets", "t.trace", "x"]);
        assert_eq!(fs::read(scene.dir.join("x")).unwrap(), b"mine");
    }
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut command = scene.gracepoint(&["export", "t.trace", "--to", "chrome", "-o", "-"]);
    assert_eq!(command.stdout(full).output().unwrap().status.code(), Some(2));
}

fn an_export_says_what_is_damaged() {
    let scene = Scene::new();
    let events = write(&scene, 2);
    let file = File::options().write(true).open(scene.trace().join("stream_2")).unwrap();
    file.set_len(1000).unwrap();
    for (strict, status) in [(false, 0), (true, 2)] {
        let mut args = vec!["export", "t.trace", "--to", "chrome", "--force"];
        args.extend(strict.then_some("--strict"));
        let said = scene.run(&args);
        assert_eq!(said.status, status, "{}", said.err);
        assert!(
            said.err.contains("damaged: stream_2") && said.err.contains("is damaged in 1 place")
        );
    }
    // What is asked for strictly is there when the trace is whole, or not at all; what was there stays.
    let path = scene.dir.join("gracepoint.json");
    let before = fs::read(&path).unwrap();
    let refused = [
        &["export", "t.trace", "--to", "perfetto", "--strict"][..],
        &["export", "t.trace", "--to", "chrome", "--strict", "--force"],
        &["view", "t.trace", "--strict"],
    ];
    for args in refused {
        let said = scene.run(args);
        assert!(said.status == 2 && said.err.contains(" was not written"), "{}", said.err);
        assert_eq!(said.err.matches("damaged: stream_2").count(), 1, "{}", said.err);
        assert_eq!(names(&scene), ["gracepoint.json", "sockets", "t.trace"], "{args:?}");
    }
    assert!(fs::read(&path).unwrap() == before);
    let json: serde_json::Value = serde_json::from_slice(&before).unwrap();
    let kept = json["traceEvents"].as_array().unwrap().iter().filter(|e| e["ph"] == "i").count();
    assert!(kept as u64 > events / 2 && (kept as u64) < events);
}
