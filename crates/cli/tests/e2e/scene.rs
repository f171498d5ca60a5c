//! A test's own world: a temporary directory, the programs in it, and the command under test.
//! Nothing is shared between tests, and every wait has a deadline that only a hang reaches.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Turns a hang into a failure; nothing is expected to take this long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A temporary directory and what runs in it.
pub(crate) struct Scene {
    pub(crate) dir: PathBuf,
}

/// A program that a test started; killed when the test is done with it.
pub(crate) struct Running {
    pub(crate) child: Child,
    lines: Receiver<String>,
    errors: Receiver<String>,
}

/// What the command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Scene {
    pub(crate) fn new() -> Scene {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("gracepoint-e2e-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir).unwrap();
        let scene = Scene { dir };
        let sockets = scene.sockets();
        std::fs::create_dir(&sockets).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(sockets, mode).unwrap();
        scene
    }

    pub(crate) fn sockets(&self) -> PathBuf {
        self.dir.join("sockets")
    }

    pub(crate) fn trace(&self) -> PathBuf {
        self.dir.join("t.trace")
    }

    /// This very binary as a traced program.
    pub(crate) fn program(&self, args: &[&str]) -> Running {
        let mut command = self.command(std::env::current_exe().unwrap());
        command.arg("--program").args(args);
        Running::start(command)
    }

    /// A fake agent in this mode, listening.
    pub(crate) fn fake(&self, mode: &str) -> Running {
        let mut fake = self.program(&["fake", mode, "kv"]);
        fake.expect("ready");
        fake
    }

    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("GRACEPOINT_DIR", self.sockets()).current_dir(&self.dir);
        command
            .env_remove("GRACEPOINT")
            .env_remove("GRACEPOINT_RECORDER")
            .env_remove("NO_COLOR")
            .env_remove("GRACEPOINT_FLIGHT");
        command
    }

    pub(crate) fn gracepoint<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_gracepoint"));
        command.args(args);
        command
    }

    /// Runs the command to its end.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Said {
        let mut command = self.gracepoint(args);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = child.spawn().unwrap();
        Said::from(within(move || child.wait_with_output().unwrap()))
    }

    /// Starts `record -p PID -o TRACE` and waits until it records.
    pub(crate) fn recorder(&self, pid: u32, more: &[&str]) -> Running {
        let (pid, trace) = (pid.to_string(), self.trace());
        let mut command = self.gracepoint(&["record", "-p", &pid, "-o"]);
        command.arg(trace).args(more);
        let mut recorder = Running::start(command);
        recorder.expect_error("gracepoint: recording ");
        recorder
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Runs `work` and fails when it hangs.
fn within<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = channel();
    std::thread::spawn(move || send.send(work()));
    receive.recv_timeout(DEADLINE).expect("it hangs")
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines() {
            let Ok(line) = line else { return };
            if send.send(line).is_err() {
                return;
            }
        }
    });
    receive
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Running {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out: ChildStdout = child.stdout.take().unwrap();
        let err = child.stderr.take().unwrap();
        Running { child, lines: lines(out), errors: lines(err) }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of stdout that begins like this; the rest of it.
    pub(crate) fn expect(&mut self, begin: &str) -> String {
        Self::find(&self.lines, begin)
    }

    /// The same for stderr.
    pub(crate) fn expect_error(&mut self, begin: &str) -> String {
        Self::find(&self.errors, begin)
    }

    /// The next line of stderr that begins like this; `None` where it ended without. (What it said instead
    /// is kept for `end`.)
    pub(crate) fn expect_error_or_end(&mut self, begin: &str) -> Option<String> {
        let deadline = Instant::now() + DEADLINE;
        let (keep, kept) = channel();
        while let Ok(line) =
            self.errors.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            if let Some(rest) = line.strip_prefix(begin) {
                return Some(rest.to_owned());
            }
            let _ = keep.send(line);
        }
        assert!(Instant::now() < deadline, "no line {begin:?}");
        self.errors = kept;
        None
    }

    fn find(lines: &Receiver<String>, begin: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        let mut other = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match lines.recv_timeout(left) {
                Ok(line) => match line.strip_prefix(begin) {
                    Some(rest) => return rest.to_owned(),
                    None => other.push(line),
                },
                Err(_) => panic!("no line {begin:?}, but {other:#?}"),
            }
        }
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end; what it has said since the last `expect`.
    pub(crate) fn end(mut self) -> Said {
        drop(self.child.stdin.take());
        let deadline = Instant::now() + DEADLINE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(2));
        };
        let collect = |lines: &Receiver<String>| {
            let mut text = String::new();
            while let Ok(line) = lines.recv_timeout(Duration::from_secs(5)) {
                text += &line;
                text.push('\n');
            }
            text
        };
        Said { status: code(status), out: collect(&self.lines), err: collect(&self.errors) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The exit status; a signal as a negative number.
fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().or_else(|| status.signal().map(|s| -s)).unwrap()
}

impl From<Output> for Said {
    fn from(output: Output) -> Said {
        Said {
            status: code(output.status),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Whether a program is installed.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| Path::new(&dir).join(program).is_file())
}
