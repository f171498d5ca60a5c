//! A program that is stuck, and the tool that looks at it.

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Turns a hang of the test into a failure.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A program, and the directory of its socket.
pub(crate) struct Program {
    pub(crate) child: Child,
    pub(crate) dir: PathBuf,
    lines: Mutex<Receiver<String>>,
}

/// A command that goes on.
pub(crate) struct Tool {
    child: Child,
    /// The line that was waited for.
    pub(crate) line: String,
}

impl Tool {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops it, as Ctrl-Z does; when this returns it is stopped.
    pub(crate) fn stop(&self) {
        // SAFETY: kill takes two integers; the child is ours and not yet waited for.
        assert_eq!(unsafe { libc::kill(self.pid().cast_signed(), libc::SIGSTOP) }, 0);
        let stat = || std::fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        while !stat().expect("it lives").contains(") T ") {
            std::thread::yield_now();
        }
    }

    /// Waits for its end; its status.
    pub(crate) fn end(mut self) -> i32 {
        let status = self.child.wait().expect("ours");
        status.code().unwrap_or(-1)
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the tool said.
pub(crate) struct Said {
    pub(crate) status: i32,
    pub(crate) text: String,
    pub(crate) errors: String,
}

fn me(dir: &PathBuf, mode: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.arg(mode).env("GRACEPOINT_DIR", dir);
    for name in ["GRACEPOINT", "GRACEPOINT_RECORDER", "GRACEPOINT_FLIGHT", "NO_COLOR"] {
        command.env_remove(name);
    }
    command
}

impl Program {
    /// Starts a program of this kind and waits until it is stuck.
    pub(crate) fn start(kind: &str) -> Program {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir =
            std::env::temp_dir().join(format!("gracepoint-stuck-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&dir, mode).expect("our directory");
        let mut command = me(&dir, "--program");
        command.arg(kind).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("this binary");
        let stdout = child.stdout.take().expect("piped");
        let (send, lines) = channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.for_each(|line| drop(send.send(line)));
        });
        let program = Program { child, dir, lines: Mutex::new(lines) };
        program.expect("stuck");
        program
    }

    /// The next line that begins with this word; the rest of it.
    pub(crate) fn expect(&self, word: &str) -> String {
        loop {
            let lines = self.lines.lock().expect("not poisoned");
            let line = lines.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("no line {word:?}"));
            if let Some(rest) = line.strip_prefix(word) {
                return rest.trim().to_owned();
            }
        }
    }

    /// Number of the thread that the program calls the culprit.
    pub(crate) fn culprit(&self) -> u32 {
        self.expect("culprit").parse().expect("a number")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn tool(&self, args: &[&str]) -> Said {
        let output =
            me(&self.dir, "--cli").args(args).stdin(Stdio::null()).output().expect("this binary");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said {
            status: output.status.code().unwrap_or(-1),
            text: text(&output.stdout),
            errors: text(&output.stderr),
        }
    }

    /// What `why` says of it, as text and as JSON.
    pub(crate) fn why(&self, more: &[&str]) -> (String, Value) {
        let pid = self.pid().to_string();
        let args = |form: &[&'static str]| {
            let mut args = vec!["why", "-p", &pid];
            if !more.contains(&"--older-than") {
                args.extend(["--older-than", "0ms"]);
            }
            args.extend(more);
            args.extend(form);
            self.tool(&args)
        };
        let said = args(&[]);
        assert!(said.status < 2, "{}{}", said.text, said.errors);
        let json = args(&["--json"]);
        let value = serde_json::from_str(&json.text);
        let value = value.unwrap_or_else(|error| panic!("{error}: {}{}", json.text, json.errors));
        (said.text, value)
    }

    /// Starts the tool and waits until it says a line with these words.
    pub(crate) fn tool_that_goes_on(&self, args: &[&str], words: &str) -> Tool {
        let mut command = me(&self.dir, "--cli");
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().expect("this binary");
        let mut tool = Tool { child, line: String::new() };
        let (send, lines) = channel();
        let out = tool.child.stdout.take().expect("piped");
        let errors = tool.child.stderr.take().expect("piped");
        let pipes: [Box<dyn std::io::Read + Send>; 2] = [Box::new(out), Box::new(errors)];
        for pipe in pipes {
            let send = send.clone();
            std::thread::spawn(move || {
                let lines = BufReader::new(pipe).lines().map_while(Result::ok);
                lines.for_each(|line| drop(send.send(line)));
            });
        }
        while !tool.line.contains(words) {
            let line = lines.recv_timeout(DEADLINE);
            tool.line = line.unwrap_or_else(|_| panic!("no line {words:?}"));
        }
        tool
    }

    pub(crate) fn signal(&self, signal: libc::c_int) {
        // SAFETY: kill takes two integers; the child is ours and not yet waited for.
        let sent = unsafe { libc::kill(self.pid().cast_signed(), signal) };
        assert_eq!(sent, 0, "{}", std::io::Error::last_os_error());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
