//! Tasks that wait for what never comes, and a poll that does not return: `gracepoint why` names them.

use crate::trace::Folder;
use serde_json::Value;
use std::future::pending;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::task::yield_now;
use tracing::Instrument;
use tracing_subscriber::prelude::*;

/// Who keeps track of spans.
const BRIDGE: u64 = 0;
const LAYER: u64 = 1;
const NOBODY: u64 = 2;

/// The program. When it has printed `stuck`, every task waits, or is in the poll that does not return.
pub(crate) fn program(who: u64) {
    let long = Duration::from_secs(3600);
    match who {
        BRIDGE => {
            let builder = gracepoint::Builder::new().watch(long);
            gracepoint_tracing::init_with(builder).expect("the agent starts");
        }
        LAYER => {
            let layer = gracepoint_tracing::layer();
            assert!(layer.inner().started().is_ok());
            tracing_subscriber::registry().with(layer).init();
            gracepoint_tracing::watch_spans(gracepoint_tracing::LevelFilter::INFO);
        }
        _ => drop(gracepoint_tracing::init().expect("the agent starts")),
    }
    let (inside, entered) = std::sync::mpsc::channel();
    std::thread::Builder::new()
        .name("blocker".into())
        .spawn(move || on_one_thread(blocks(inside)))
        .expect("a thread");
    entered.recv().expect("it gets there");
    on_one_thread(async {
        let fetch = async {
            let query = tracing::info_span!("query", n = 7);
            async { pending::<()>().await }.instrument(query).await;
        };
        tokio::spawn(fetch.instrument(tracing::info_span!("fetch", url = "http://x/?y")));
        for id in 0..3 {
            tokio::spawn(pending::<()>().instrument(tracing::info_span!("connection", id)));
        }
        let done = tokio::spawn(yield_now().instrument(tracing::info_span!("done")));
        tokio::spawn(pending::<()>().instrument(tracing::debug_span!("detail")));
        done.await.expect("it ends");
        // One thread: while this runs, none of the others is polled, and each has been.
        for _ in 0..10 {
            yield_now().await;
        }
        println!("stuck");
        std::io::stdin().lines().next();
    });
}

fn on_one_thread(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future);
}

async fn blocks(inside: std::sync::mpsc::Sender<()>) {
    let busy = async {
        yield_now().await;
        inside.send(()).expect("somebody waits");
        loop {
            std::thread::sleep(Duration::from_secs(3600));
        }
    };
    busy.instrument(tracing::info_span!("blocking")).await;
}

struct Stuck {
    child: Child,
    folder: Folder,
}

impl Drop for Stuck {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Stuck {
    fn start(who: u64) -> Stuck {
        let folder = Folder::new();
        let mut child = Command::new(std::env::current_exe().expect("this binary"))
            .args(["run", "stuck", &who.to_string()])
            .env("GRACEPOINT_DIR", folder.path(""))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this binary");
        let out = child.stdout.take().expect("piped");
        let line = BufReader::new(out).lines().next();
        assert_eq!(line.expect("a line").expect("text"), "stuck");
        Stuck { child, folder }
    }

    /// Both what is said and what is noted beside.
    fn why(&self, more: &[&str]) -> (String, String) {
        let pid = self.child.id().to_string();
        let args = [&["why", "-p", &pid], more].concat();
        let said = self.folder.gracepoint(&args);
        let errors = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.status.code().is_some_and(|code| code < 2), "{errors}");
        (String::from_utf8(said.stdout).expect("text"), errors)
    }
}

#[track_caller]
fn assert_named(who: u64) {
    let program = Stuck::start(who);
    let (text, _) = program.why(&["--older-than", "0ms"]);
    let tid = blocker(&program);
    for part in [
        "task `fetch{url=\"http://x/?y\"} > query{n=7}`",
        "polled once, not",
        "stuck.rs:",
        "nor have 2 more in such spans",
        "task `connection{id=",
        "in a poll",
        &format!("culprit: blocker/{tid}"),
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    for part in ["done", "detail"] {
        assert!(!text.contains(part), "{part}: {text}");
    }
    let json: Value =
        serde_json::from_str(&program.why(&["--older-than", "0ms", "--json"]).0).expect("JSON");
    let symptoms = json["accounts"][0]["symptoms"].as_array().expect("symptoms");
    assert_eq!(symptoms.len(), 3, "{json:#}");
    let (text, _) = program.why(&["--older-than", "1h"]);
    assert!(text.contains("or agent is stuck"), "{text}");
}

fn blocker(program: &Stuck) -> String {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", program.child.id())).expect("it lives");
    let tasks = tasks.flatten().find(|task| {
        let name = std::fs::read_to_string(task.path().join("comm"));
        name.is_ok_and(|name| name == "blocker\n")
    });
    tasks.expect("the thread").file_name().into_string().expect("a number")
}

pub(crate) fn bridge() {
    assert_named(BRIDGE);
}

pub(crate) fn layer() {
    assert_named(LAYER);
}

pub(crate) fn not_watched() {
    let (text, notes) = Stuck::start(NOBODY).why(&["--older-than", "0ms"]);
    assert!(text.contains("or agent is stuck") && notes.contains("watch_spans"), "{text}{notes}");
}
