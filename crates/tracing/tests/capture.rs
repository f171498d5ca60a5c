//! `gracepoint::testing::capture` with tasks: those that a test spawns are its own, on whatever thread they run.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stdout, reason = "a test says why it is skipped")]

use gracepoint::testing::{Captured, capture};
use std::process::Command;

/// What a task does.
#[derive(gracepoint::Event)]
#[event(name = "captured:step")]
struct Step {
    whose: &'static str,
    n: u64,
}

/// Steps of tasks that yield, so that they may go on elsewhere.
async fn steps(whose: &'static str, n: u64) {
    for _ in 0..3 {
        gracepoint::trace!(Step { whose, n });
        tokio::task::yield_now().await;
    }
}

/// Each of so many tasks has made its three steps, and nobody else has.
fn check(captured: &Captured, whose: &str, tasks: u64) {
    let mut steps = vec![0; tasks as usize];
    for event in captured.matching("captured:step") {
        assert_eq!(event.get::<String>("whose"), whose);
        steps[event.get::<usize>("n")] += 1;
    }
    assert!(steps.iter().all(|steps| *steps == 3), "{steps:?}");
}

/// A runtime that a test makes has its worker threads from the test.
fn own_runtime(whose: &'static str) {
    let captured = capture();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).build().unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..20).map(|n| tokio::spawn(steps(whose, n))).collect();
        for task in tasks {
            task.await.unwrap();
        }
        // And threads for what blocks.
        let blocking = move || (0..3).for_each(|_| gracepoint::trace!(Step { whose, n: 20 }));
        tokio::task::spawn_blocking(blocking).await.unwrap();
    });
    check(&captured, whose, 21);
}

#[test]
fn tasks_of_an_own_runtime() {
    own_runtime("own");
}

/// The same, beside it.
#[test]
fn tasks_of_another_runtime_beside() {
    own_runtime("beside");
}

/// Workers of `#[tokio::test]` are there before the test's body runs, so what it spawns is wrapped.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn wrapped_tasks_on_workers_that_were_there() {
    // What is returned stays on its thread, which the body of a test is polled on.
    let captured = capture();
    let scope = captured.scope();
    let tasks: Vec<_> = (0..20).map(|n| tokio::spawn(scope.wrap(steps("wrapped", n)))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    check(&captured, "wrapped", 20);
}

/// Without, they are nobody's; under nextest, where the test is alone in its process, they are the test's.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn unwrapped_tasks_on_workers_that_were_there() {
    let captured = capture();
    let tasks: Vec<_> = (0..20).map(|n| tokio::spawn(steps("unwrapped", n))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    if std::env::var_os("NEXTEST_EXECUTION_MODE").is_some() {
        check(&captured, "unwrapped", 20);
    } else {
        assert_eq!(captured.matching("captured:step").len(), 0);
    }
}

/// The tests above by `cargo nextest` itself, where it is installed.
#[test]
fn by_nextest() {
    if std::env::var_os("NEXTEST").is_some() {
        return; // this is nextest
    }
    let cargo = || Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    if !cargo().args(["nextest", "--version"]).output().unwrap().status.success() {
        println!("skipped, needs cargo-nextest");
        return;
    }
    // It is told of this binary, so that nothing is built.
    let folder = std::env::temp_dir().join(format!("gp-nextest-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let metadata = cargo().args(["metadata", "--format-version", "1", "--offline"]).output();
    let metadata = metadata.unwrap().stdout;
    let described: serde_json::Value = serde_json::from_slice(&metadata).unwrap();
    let package = described["packages"].as_array().unwrap().iter();
    let package = package.clone().find(|package| package["name"] == env!("CARGO_PKG_NAME"));
    let id = format!("{}::capture", env!("CARGO_PKG_NAME"));
    let binaries = serde_json::json!({
        "rust-build-meta": {
            "target-directory": described["target_directory"],
            "base-output-directories": [],
            "non-test-binaries": {},
            "build-script-out-dirs": {},
            "linked-paths": [],
            "target-platforms": [],
            "target-platform": null,
        },
        "rust-binaries": { &id: {
            "binary-id": &id,
            "binary-name": "capture",
            "package-id": package.unwrap()["id"],
            "kind": "test",
            "binary-path": std::env::current_exe().unwrap(),
            "build-platform": "target",
        }},
    });
    let (of_cargo, of_binaries) = (folder.join("cargo.json"), folder.join("binaries.json"));
    std::fs::write(&of_cargo, &metadata).unwrap();
    std::fs::write(&of_binaries, binaries.to_string()).unwrap();
    let mut command = cargo();
    command.args(["nextest", "run", "--filterset", "not test(nextest)", "--color", "never"]);
    command.arg("--cargo-metadata").arg(&of_cargo);
    command.arg("--binaries-metadata").arg(&of_binaries);
    let said = command.output().unwrap();
    let words = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && words.contains("4 tests run: 4 passed"), "{words}");
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Each of these tests as nextest runs it: in a process of its own, and told so.
#[test]
fn as_under_nextest() {
    if std::env::var_os("NEXTEST_EXECUTION_MODE").is_some() {
        return; // this is such a process
    }
    for test in [
        "tasks_of_an_own_runtime",
        "wrapped_tasks_on_workers_that_were_there",
        "unwrapped_tasks_on_workers_that_were_there",
    ] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture"]);
        command.env("NEXTEST", "1").env("NEXTEST_EXECUTION_MODE", "process-per-test");
        let said = command.output().unwrap();
        let out = String::from_utf8_lossy(&said.stdout);
        let err = String::from_utf8_lossy(&said.stderr);
        assert!(said.status.success() && out.contains("1 passed"), "{test}: {out}{err}");
    }
}
