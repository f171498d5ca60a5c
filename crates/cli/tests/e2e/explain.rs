//! `gracepoint explain`, as a user calls it.

use crate::scene::{Said, Scene};
use crate::trial;
use libtest_mimic::Trial;
use std::io::Write;
use std::process::{Command, Stdio};

const CYCLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../analysis/tests/hang/two-locks.log");
const UNKNOWN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../analysis/tests/hang/owner.log");

pub(crate) fn trials() -> Vec<Trial> {
    let tests: [(&str, fn()); 4] = [
        ("explain_says_by_its_status_what_it_found", status_says_what_was_found),
        ("explain_has_a_form_for_each_reader", each_form),
        ("explain_reads_stdin_and_any_bytes", stdin_and_any_bytes),
        ("explain_says_what_is_wrong_with_a_file", wrong_files),
    ];
    tests.map(trial).into()
}

fn status_says_what_was_found() {
    let scene = Scene::new();
    let said = scene.run(&["explain", CYCLE]);
    assert_eq!(said.status, 0, "{said:?}");
    assert!(said.out.contains("cycle: ") && said.err.is_empty(), "{said:?}");
    let said = scene.run(&["explain", UNKNOWN]);
    assert_eq!(said.status, 1, "{said:?}");
    assert!(said.out.contains("to know more, collect"), "{said:?}");
}

fn each_form() {
    let scene = Scene::new();
    let explain = |more: &[&str]| {
        let said = scene.run(&[&["explain", CYCLE][..], more].concat());
        assert_eq!(said.status, 0, "{said:?}");
        said.out
    };
    let json: serde_json::Value = serde_json::from_str(&explain(&["--json"])).unwrap();
    assert_eq!(json["accounts"][0]["chains"][0]["verdict"], "cycle");
    assert!(explain(&["--dot"]).starts_with("digraph"));
    assert!(explain(&["--html"]).starts_with("<!doctype html>"));
    assert!(explain(&["--format", "report"]).contains("## Workaround"));
    assert_eq!(explain(&["--format", "text"]), explain(&[]));
    assert_eq!(explain(&["--format", "json"]), explain(&["--json"]));
    let said = scene.run(&["explain", CYCLE, "--json", "--html"]);
    assert_eq!(said.status, 2, "{said:?}");
}

fn stdin_and_any_bytes() {
    let scene = Scene::new();
    let fed = |bytes: &[u8]| {
        let mut command: Command = scene.gracepoint(&["explain", "-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        Said::from(child.wait_with_output().unwrap())
    };
    let log = std::fs::read(CYCLE).unwrap();
    assert_eq!(fed(&log).out, scene.run(&["explain", CYCLE]).out);
    let any: Vec<u8> = (0..=255).cycle().take(10_000).collect();
    let said = fed(&any);
    assert_eq!(said.status, 1, "{said:?}");
    assert!(said.out.contains("no hang"), "{said:?}");
}

fn wrong_files() {
    let scene = Scene::new();
    let said = scene.run(&["explain", "nowhere.log"]);
    assert_eq!(said.status, 2, "{said:?}");
    assert!(said.err.contains("nowhere.log"), "{said:?}");
    let said = scene.run(&["explain", CYCLE, "--vmlinux", CYCLE]);
    assert_eq!(said.status, 2, "{said:?}");
    assert!(said.err.contains("with debug information"), "{said:?}");
}
