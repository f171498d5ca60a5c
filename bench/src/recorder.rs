//! The recorder: `gracepoint record` as a process of its own, as a user would start it.

use std::error::Error;
use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long the recorder may take to write the last events.
const PATIENCE: Duration = Duration::from_secs(10);

/// A recording of this process that is under way.
pub(crate) struct Recorder {
    process: Child,
    folder: PathBuf,
}

/// What the trace says about itself.
pub(crate) struct Recorded {
    pub(crate) events: u64,
    pub(crate) lost: u64,
    /// Bytes of all its files.
    pub(crate) bytes: u64,
}

impl Recorder {
    /// Starts to record the event `name` of this process, with these options; returns when it has
    /// begun.
    pub(crate) fn start(name: &str, options: &[&str]) -> Result<Recorder, Box<dyn Error>> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let pid = std::process::id().to_string();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("gracepoint-bench-{pid}-{number}"));
        fs::create_dir(&folder)?;
        let mut command = gracepoint()?;
        command.args(["record", "-p", &pid, "-e", name]).args(options);
        command.arg("-o").arg(folder.join("trace"));
        // What it says is only of interest at its begin and when it fails, and fits into a pipe.
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut recorder = Recorder { process: command.spawn()?, folder };
        let mut said = String::new();
        if let Some(stderr) = &mut recorder.process.stderr {
            let mut byte = [0];
            while stderr.read(&mut byte)? == 1 && byte != *b"\n" {
                said.push(char::from(byte[0]));
            }
        }
        if !said.contains("recording ") {
            let rest = recorder.said();
            return Err(format!("gracepoint record ended at once: {said}\n{rest}").into());
        }
        Ok(recorder)
    }

    /// What the recorder, which has ended, wrote to its standard error.
    fn said(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut stderr) = self.process.stderr.take() {
            // Half a message is better than none.
            let _ = stderr.read_to_string(&mut text);
        }
        text
    }

    /// Ends the recording, as Ctrl-C would, and reads what the trace says.
    pub(crate) fn stop(mut self) -> Result<Recorded, Box<dyn Error>> {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.ok_or("the recorder has no pid")?, Signal::INT)?;
        let begin = Instant::now();
        while self.process.try_wait()?.is_none() {
            if begin.elapsed() > PATIENCE {
                return Err(format!("gracepoint record did not end within {PATIENCE:?}").into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let out =
            gracepoint()?.arg("info").arg(self.folder.join("trace")).arg("--json").output()?;
        let info: serde_json::Value = serde_json::from_slice(&out.stdout)?;
        let number = |key: &str| info[key].as_u64().ok_or(format!("info --json has no {key}"));
        let (events, lost, bytes) = (number("events")?, number("lost")?, number("bytes")?);
        Ok(Recorded { events, lost, bytes })
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // All three fail only where there is nothing left to end or to remove.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// This very program, under the name of the command line.
pub(crate) fn gracepoint() -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg0("gracepoint").stdin(Stdio::null());
    Ok(command)
}
