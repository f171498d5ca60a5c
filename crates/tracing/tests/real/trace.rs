//! Recording and reading by the command line, in processes of their own.

use serde_json::Value;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A folder for one test, with the sockets' directory in it.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("gp-bridge-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let folder = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&folder).expect("a folder");
        Folder(folder)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("UTF-8").to_owned()
    }

    /// The command line.
    pub(crate) fn gracepoint(&self, args: &[&str]) -> Output {
        let exe = std::env::current_exe().expect("this program has a path");
        let mut command = Command::new(exe);
        command.arg("cli").args(args).env("GRACEPOINT_DIR", &self.0);
        command.output().expect("the command line runs")
    }

    /// Records a program of ours from its start; its stdout.
    pub(crate) fn record(&self, options: &[&str], program: &[&str]) -> String {
        self.record_telling(options, program).0
    }

    /// The same, and what the command says.
    pub(crate) fn record_telling(&self, options: &[&str], program: &[&str]) -> (String, String) {
        let exe = std::env::current_exe().expect("this program has a path");
        let trace = self.path("trace");
        let mut args = vec!["record", "-o", &trace, "--buffer", "64M"];
        args.extend(options);
        args.extend(["--", exe.to_str().expect("UTF-8"), "run"]);
        args.extend(program);
        let output = self.gracepoint(&args);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code().is_some_and(|code| code == 0 || code == 137), "{words}");
        assert!(words.contains(" 0 lost)"), "{words}");
        (String::from_utf8_lossy(&output.stdout).into_owned(), words)
    }

    /// What was recorded.
    pub(crate) fn report(&self, options: &[&str]) -> Vec<Recorded> {
        let trace = self.path("trace");
        let output =
            self.gracepoint(&[&["report", &trace, "--json", "--strict"], options].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        text.lines().map(|line| Recorded(serde_json::from_str(line).expect("JSON"))).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An event as `report --json` has it.
pub(crate) struct Recorded(Value);

impl Recorded {
    pub(crate) fn name(&self) -> &str {
        self.0["name"].as_str().unwrap_or_default()
    }

    pub(crate) fn field(&self, name: &str) -> &Value {
        &self.0["fields"][name]
    }
}
