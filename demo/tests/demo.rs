//! The demonstration itself, in a short form: what a newcomer sees first must never be broken.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A folder of this test, removed when the test has passed.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let folder = std::env::temp_dir().join(format!("gp-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a temporary folder");
        Scratch(folder)
    }

    /// The demo, with its trace and its socket in this folder.
    fn demo(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gracepoint-demo"));
        command.args(args).env("TMPDIR", &self.0).env("GRACEPOINT_DIR", self.0.join("sockets"));
        command.env_remove("GRACEPOINT").stdin(Stdio::null()).stderr(Stdio::piped());
        command
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// The process id at the end of the server's greeting.
fn pid_in(line: &str) -> Option<u32> {
    let greeting = line.starts_with("serving on http://127.0.0.1:");
    greeting.then(|| line.rsplit(' ').next()?.parse().ok()).flatten()
}

fn ends_within(pid: u32, limit: Duration) -> bool {
    let begin = Instant::now();
    let alive = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    while alive() {
        if begin.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

#[test]
fn the_demonstration_runs_to_its_end() {
    let scratch = Scratch::new("demo");
    let out = scratch.demo(&["--duration", "300ms"]).output().expect("the demo starts");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{:?}\n{text}\n{errors}", out.status);

    let pid = text.lines().find_map(pid_in).unwrap_or_else(|| panic!("no greeting in\n{text}"));
    let trace = text
        .lines()
        .find(|l| l.starts_with('/') && l.ends_with("/trace"))
        .unwrap_or_else(|| panic!("no trace is named in\n{text}"));
    let wanted = [
        "$ gracepoint ps".to_owned(),
        format!("$ gracepoint list -p {pid}"),
        format!("$ gracepoint record -p {pid} -e 'kv:*' -e 'http:*' -o {trace} --duration 300ms"),
        format!("$ gracepoint info {trace}"),
        format!("$ gracepoint report {trace} --limit 20"),
        format!("$ gracepoint hist {trace} -e kv:get -f latency --by hit"),
        format!("babeltrace2 {trace}"),
    ];
    let mut rest = text.as_str();
    for line in &wanted {
        let at = rest.find(line.as_str());
        let at = at.unwrap_or_else(|| panic!("no `{line}`, or not in its turn, in\n{text}"));
        rest = &rest[at + line.len()..];
    }
    assert!(text.contains("A key was looked up."), "no description is listed in\n{text}");
    let report = text.split("--limit 20").nth(1).and_then(|t| t.split("\n#").next());
    assert!(report.is_some_and(|r| r.contains("kv:get")), "no event is reported in\n{text}");
    assert!(Path::new(trace).join("metadata").is_file(), "no trace in {trace}");
    assert!(ends_within(pid, Duration::ZERO), "the server {pid} is still there");
}

#[test]
fn the_server_ends_with_the_user() {
    let scratch = Scratch::new("demo-killed");
    let mut demo = scratch
        .demo(&["--duration", "60s"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the demo starts");
    let lines = BufReader::new(demo.stdout.take().expect("piped")).lines();
    let pid = lines.map_while(Result::ok).find_map(|l| pid_in(&l));
    demo.kill().expect("the demo can be killed");
    demo.wait().expect("the demo has ended");
    let pid = pid.expect("the server was started");
    assert!(ends_within(pid, Duration::from_secs(10)), "the server {pid} outlives the demo");
}

#[test]
fn a_wrong_option_is_an_error() {
    let scratch = Scratch::new("demo-option");
    let out = scratch.demo(&["--fast"]).output().expect("the demo starts");
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&out.stderr).contains("--help"));
}
