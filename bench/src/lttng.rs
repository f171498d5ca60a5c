//! The peer LTTng-UST: a provider with the same event, compiled here with `cc`, and a session daemon
//! of our own with its files in a temporary directory, which ends with us. (Root's daemon has its
//! sockets in the system's directory whatever it is told; where one runs already it is left alone,
//! and nothing is measured.)
//!
//! The program measures as [`crate::measure`] does and prints its chunks, on the CPU to which this
//! one is pinned, right after the other rows.

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::measure::{Cost, summary};

pub(crate) const EMPTY: &str = "empty loop, in C";
pub(crate) const DISCARD: &str = "LTTng-UST, discard";
pub(crate) const OVERWRITE: &str = "LTTng-UST, overwrite";

const PROVIDER: &str = include_str!("../lttng/tp.h");
const PROGRAM: &str = include_str!("../lttng/main.c");
/// How long the daemon may take to come and to go.
const PATIENCE: Duration = Duration::from_secs(10);

const NOT_INSTALLED: &str = "not installed (Debian: gcc liblttng-ust-dev lttng-tools)";

/// A session daemon of our own and a program with the event.
pub(crate) struct Lttng {
    daemon: Option<Child>,
    pub(crate) folder: PathBuf,
}

impl Lttng {
    /// Compiles the program and starts the daemon; to be called before anything is pinned.
    ///
    /// # Errors
    /// When LTTng is not installed, or its daemon cannot be started; in words for people.
    pub(crate) fn start() -> Result<Lttng, Box<dyn Error>> {
        let mut peer = Lttng::prepare()?;
        fs::write(peer.folder.join("tp.h"), PROVIDER)?;
        fs::write(peer.folder.join("main.c"), PROGRAM)?;
        let mut compiler = peer.command("cc");
        compiler.args(["-O2", "-I.", "main.c", "-o", "main", "-llttng-ust", "-ldl"]);
        if !compiler.output().is_ok_and(|out| out.status.success()) {
            return Err(NOT_INSTALLED.into());
        }
        peer.begin()?;
        Ok(peer)
    }

    /// A folder for its files, and no daemon yet.
    ///
    /// # Errors
    /// When there can be no folder.
    pub(crate) fn prepare() -> Result<Lttng, Box<dyn Error>> {
        let name = format!("gracepoint-bench-lttng-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder)?;
        Ok(Lttng { daemon: None, folder })
    }

    /// Starts the daemon.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub(crate) fn begin(&mut self) -> Result<(), Box<dyn Error>> {
        if !answers("lttng-sessiond") {
            return Err(NOT_INSTALLED.into());
        }
        if self.lttng(&["list"]).is_ok() {
            return Err("not measured, because a session daemon runs already".into());
        }
        let mut daemon = self.command("lttng-sessiond");
        daemon.arg("--no-kernel").stdout(Stdio::null()).stderr(Stdio::null());
        self.daemon = Some(daemon.spawn()?);
        let begin = Instant::now();
        while self.lttng(&["list"]).is_err() {
            if begin.elapsed() > PATIENCE {
                return Err(format!("its daemon did not answer within {PATIENCE:?}").into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Measures both modes.
    ///
    /// # Errors
    /// When a command of LTTng fails, or events were lost in discard mode, which cost less.
    pub(crate) fn measure(&self, rounds: usize, chunk: u64) -> Result<Vec<Cost>, Box<dyn Error>> {
        let large = ["--subbuf-size=8M", "--num-subbuf=8", "--discard"];
        let small = ["--subbuf-size=1M", "--num-subbuf=4", "--overwrite"];
        let (empty, discard) = self.session(&[], large, rounds, chunk)?;
        let (_, overwrite) = self.session(&["--snapshot"], small, rounds, chunk)?;
        Ok(vec![summary(EMPTY, empty), summary(DISCARD, discard), summary(OVERWRITE, overwrite)])
    }

    /// Runs the program under a session; nanoseconds of an empty iteration and of an event.
    fn session(
        &self,
        kind: &[&str],
        channel: [&str; 3],
        rounds: usize,
        chunk: u64,
    ) -> Result<(Vec<f64>, Vec<f64>), Box<dyn Error>> {
        let name = format!("gracepoint-bench-{}", std::process::id());
        let output = self.folder.join("trace").to_string_lossy().into_owned();
        self.lttng(&[&["create", &name, "-o", &output], kind].concat())?;
        self.lttng(&[&["enable-channel", "-u", "channel"], &channel[..]].concat())?;
        self.lttng(&["enable-event", "-u", "gpbench:sample", "-c", "channel"])?;
        self.lttng(&["start"])?;
        let warm_up = rounds / 10 + 1;
        let mut program = self.command(self.folder.join("main"));
        let out = program.args([(rounds + warm_up).to_string(), chunk.to_string()]).output()?;
        let stopped = self.lttng(&["stop"])?;
        let destroyed = self.lttng(&["destroy", &name])?;
        if !out.status.success() {
            return Err(String::from_utf8_lossy(&out.stderr).trim().to_owned().into());
        }
        if kind.is_empty() && (stopped + &destroyed).contains("discarded") {
            return Err("events were discarded, so what they cost means nothing".into());
        }
        let text = String::from_utf8(out.stdout)?;
        let (mut empty, mut event) = (Vec::new(), Vec::new());
        for line in text.lines().skip(warm_up) {
            let (a, b) = line.split_once(' ').ok_or("the program printed something else")?;
            empty.push(a.parse::<f64>()? / chunk as f64);
            event.push(b.parse::<f64>()? / chunk as f64);
        }
        Ok((empty, event))
    }

    /// What `lttng` says.
    ///
    /// # Errors
    /// What it complains of.
    pub(crate) fn lttng(&self, args: &[&str]) -> Result<String, Box<dyn Error>> {
        let out = self.command("lttng").arg("--no-sessiond").args(args).output()?;
        let said = [out.stdout, out.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        if !out.status.success() {
            return Err(format!("lttng {}: {}", args.join(" "), said.trim()).into());
        }
        Ok(said)
    }

    /// A command in the folder that looks for this daemon.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.folder).stdin(Stdio::null());
        command.env("LTTNG_HOME", &self.folder).env("LTTNG_RUNDIR", self.folder.join("run"));
        command
    }
}

impl Drop for Lttng {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            // It ends its consumer daemon with it, which SIGKILL would leave behind.
            let pid = i32::try_from(daemon.id()).ok().and_then(Pid::from_raw);
            let asked = pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
            let begin = Instant::now();
            while asked && matches!(daemon.try_wait(), Ok(None)) && begin.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(5));
            }
            // Both fail only where there is nothing left to end.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn answers(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|out| out.status.success())
}
