//! Switched from outside: by a tool over the agent's socket, and what the kernel takes for its own.

use std::error::Error;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use gracepoint_wire::control::{Create, Hello, MAX_REPLY, Message, next_frame};

use super::{Findings, GLOB, Row, timed};

/// The row that is compared with LTTng's.
pub(super) const STARTED: &str = "over the socket: started";

/// A connection to the agent of this program, as a tool has it.
struct Tool {
    link: UnixStream,
    inbox: Vec<u8>,
}

impl Tool {
    fn connect(socket: &Path) -> Result<Tool, Box<dyn Error>> {
        let mut tool = Tool { link: UnixStream::connect(socket)?, inbox: Vec::new() };
        tool.ask(&Message::Hello(Hello::current(None)))?;
        Ok(tool)
    }

    fn ask(&mut self, message: &Message) -> Result<Message, Box<dyn Error>> {
        self.link.write_all(&message.to_frame())?;
        loop {
            if let Some((payload, taken)) = next_frame(&self.inbox, MAX_REPLY)? {
                let message = Message::parse(payload)?;
                self.inbox.drain(..taken);
                return Ok(message);
            }
            let mut chunk = [0; 64 << 10];
            let n = self.link.read(&mut chunk)?;
            if n == 0 {
                return Err("the agent has gone".into());
            }
            self.inbox.extend_from_slice(&chunk[..n]);
        }
    }
}

/// A session of all tracepoints: from the request until the reply, when all of them are on (or off, and
/// nobody is inside any more).
pub(super) fn over_the_socket(
    socket: &Path,
    rounds: usize,
    found: &mut Findings,
) -> Result<(), Box<dyn Error>> {
    let (mut made, mut on, mut off) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let mut tool = Tool::connect(socket)?;
        let globs = vec![GLOB.to_owned()];
        let create = Message::Create(Create { globs, buffer_bytes: 1 << 20, ..Create::default() });
        let reply = timed(&mut made, || tool.ask(&create))?;
        let Message::Created(created) = reply else { return Err(format!("{reply:?}").into()) };
        let reply = timed(&mut on, || tool.ask(&Message::Start(created.session)))?;
        let Message::Started(_) = reply else { return Err(format!("{reply:?}").into()) };
        let reply = timed(&mut off, || tool.ask(&Message::Stop(created.session)))?;
        let Message::Stopped(_) = reply else { return Err(format!("{reply:?}").into()) };
    }
    found.rows.push(Row::new("over the socket: session made", made));
    found.rows.push(Row::new(STARTED, on));
    found.rows.push(Row::new("over the socket: stopped and settled", off));
    Ok(())
}

/// A mount of tracefs that goes when it is dropped.
struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// All of the kernel's own events, on and off, where tracefs is to be had.
pub(super) fn kernel(rounds: usize, found: &mut Findings) {
    let mounted = Tracefs::find();
    let root = mounted.path();
    let enable = root.join("events/enable");
    let (mut on, mut off) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        for (value, times) in [("1", &mut on), ("0", &mut off)] {
            let begin = Instant::now();
            if std::fs::write(&enable, value).is_err() {
                let _ = std::fs::write(&enable, "0");
                found.notes.push("the kernel's events: tracefs cannot be had, no rows".into());
                return;
            }
            times.push(begin.elapsed());
        }
    }
    let events = std::fs::read_to_string(root.join("available_events")).unwrap_or_default();
    let events = events.lines().count();
    found.rows.push(Row::new(format!("the kernel's events/enable ({events}): on"), on));
    found.rows.push(Row::new(format!("the kernel's events/enable ({events}): off"), off));
}

/// Where tracefs is, mounted for the occasion where it was not.
pub(crate) struct Tracefs(Option<Mount>);

impl Tracefs {
    const HERE: &str = "/sys/kernel/tracing";

    pub(crate) fn find() -> Tracefs {
        Tracefs(if Path::new(Tracefs::HERE).join("events").exists() { None } else { mount() })
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.as_ref().map_or(Path::new(Tracefs::HERE), |mount| mount.0.as_path())
    }
}

fn mount() -> Option<Mount> {
    let place = std::env::temp_dir().join(format!("gracepoint-tracefs-{}", std::process::id()));
    std::fs::create_dir(&place).ok()?;
    let mut command = Command::new("mount");
    command.args(["-t", "tracefs", "tracefs"]).arg(&place).stderr(Stdio::null());
    let mounted = command.status().is_ok_and(|status| status.success());
    if !mounted {
        let _ = std::fs::remove_dir(&place);
    }
    mounted.then_some(Mount(place))
}
