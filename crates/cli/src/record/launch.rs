//! `record -- CMD`: starts a command and finds the traceable program that comes of it.
//!
//! The command gets a token in `GRACEPOINT_RECORDER`. A program that finds one there waits in
//! `init()`, for a second at most, until a recorder has begun; its hello repeats the token. The
//! first such program is recorded, later ones are told at once to go on without.

use crate::connection::{Connection, Lost, wait_for};
use crate::console::Console;
use crate::discover::{Answer, Directory, Live, answer, is_ours};
use crate::escape::shown;
use crate::failure::{Failure, Result};
use crate::interrupt::{Interrupts, STATUS, Signal};
use gracepoint_wire::control::Message;
use rustix::process::{Pid, kill_process};
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant, SystemTime};

/// The token's variable.
pub(crate) const TOKEN: &str = "GRACEPOINT_RECORDER";
/// How long to look every millisecond; programs that start late are looked for less often.
const EAGER_FOR: Duration = Duration::from_secs(3);
/// A command that ends by Ctrl-C takes less, as a rule.
const ENDS_WITHIN: Duration = Duration::from_secs(1);
/// How long a socket may refuse before it is given up: it may be bound and not listen yet.
const REFUSES_AT_MOST: Duration = Duration::from_secs(5);
/// Looks at our own directory for one at the whole network namespace.
const WIDE_LOOK_EVERY: u32 = 32;

/// A command that we started.
#[derive(Debug)]
pub(crate) struct Launched {
    child: Child,
    name: String,
    watch: Watch,
    status: Option<ExitStatus>,
    /// Traceable programs after the first.
    further: u32,
    /// The first Ctrl-C, which it got as well, and whether the user was told what another does.
    interrupted: Option<Instant>,
    told: bool,
    left: bool,
}

impl Launched {
    /// Starts it.
    ///
    /// # Errors
    /// With exit status 127 when there is no such command, 126 when it cannot be executed.
    pub(crate) fn spawn(command: &[OsString]) -> Result<Launched> {
        let (program, args) = command.split_first().expect("clap asks for at least one word");
        let token = token();
        let watch = Watch::new(Directory::from_env(), token.clone());
        let name = shown(&program.to_string_lossy()).into_owned();
        let spawned = Command::new(program).args(args).env(TOKEN, token).spawn();
        let child = spawned.map_err(|e| match e.kind() {
            ErrorKind::NotFound => {
                Failure::new(format!("{name}: command not found")).with_status(127)
            }
            _ => Failure::new(format!("{name}: cannot be executed: {e}")).with_status(126),
        })?;
        Ok(Launched {
            child,
            name,
            watch,
            status: None,
            further: 0,
            interrupted: None,
            told: false,
            left: false,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Hands a signal on that only we got. The command has Ctrl-C too, and decides; at the second one it is left to
    /// itself: true from then on.
    pub(crate) fn heed(&mut self, signal: Option<Signal>) -> bool {
        match signal {
            Some(Signal::Terminate) => self.terminate(),
            Some(Signal::Interrupt) => {
                self.left |= self.interrupted.is_some();
                self.interrupted.get_or_insert_with(Instant::now);
            }
            None => {}
        }
        self.left
    }

    /// Says that the command goes on though it was left.
    fn leave(&mut self, console: &mut Console) -> u8 {
        console.note(format_args!(
            "{} (pid {}) goes on, and is left to itself",
            self.name,
            self.pid()
        ));
        STATUS
    }

    /// Waits until the first traceable program has said hello; `None` when the command ended
    /// before, or is left.
    pub(crate) fn wait_for_program(
        &mut self,
        interrupts: &mut Interrupts,
        console: &mut Console,
    ) -> Option<Live> {
        let started = Instant::now();
        loop {
            // In this order, so that a program that is already gone is not missed.
            let ended = self.has_ended();
            let mut found = self.watch.look().into_iter();
            if let Some(live) = found.next() {
                found.for_each(|other| self.wave_on(other));
                return Some(live);
            }
            if ended || self.heed(interrupts.take()) {
                return None;
            }
            self.remind(console);
            let eager = started.elapsed() < EAGER_FOR;
            let pause = Duration::from_millis(if eager { 1 } else { 10 });
            wait_for(&interrupts.interest(), pause);
        }
    }

    /// Looks for further programs and lets them go on.
    pub(crate) fn tend(&mut self, console: &mut Console) {
        self.remind(console);
        for live in self.watch.look() {
            console.note(format_args!(
                "{} (pid {}) is not recorded: one program at a time is",
                shown(&live.program.name),
                live.pid
            ));
            self.wave_on(live);
        }
    }

    /// Says what another Ctrl-C does, where the first one was not heeded.
    fn remind(&mut self, console: &mut Console) {
        if !self.told && self.interrupted.is_some_and(|at| at.elapsed() > ENDS_WITHIN) {
            self.told = true;
            console.note(format_args!(
                "{} has Ctrl-C too, and goes on; once more ends the recording and leaves it running",
                self.name
            ));
        }
    }

    fn wave_on(&mut self, live: Live) {
        self.further += 1;
        self.watch.wave_on(live.link);
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status.is_some()
    }

    /// Asks the command to end.
    pub(crate) fn terminate(&mut self) {
        if self.status.is_some() {
            return;
        }
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, rustix::process::Signal::TERM);
        }
    }

    /// Waits until the command has ended, and returns the exit status that tells how; or until it is left.
    pub(crate) fn wait(&mut self, interrupts: &mut Interrupts, console: &mut Console) -> u8 {
        while !self.has_ended() {
            self.tend(console);
            if self.heed(interrupts.take()) {
                return self.leave(console);
            }
            wait_for(&interrupts.interest(), Duration::from_millis(10));
        }
        self.exit_status()
    }

    /// The command's exit status, 128 + signal where one ended it.
    pub(crate) fn exit_status(&self) -> u8 {
        let Some(status) = self.status else { return 0 };
        self::status(status)
    }

    /// Whether a signal ended it.
    pub(crate) fn was_killed(&self) -> bool {
        self.status.is_some_and(|status| status.signal().is_some())
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// What a shell makes of how a command ended.
pub(crate) fn status(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255)
}

/// A word that no other recorder has.
pub(crate) fn token() -> String {
    let now = SystemTime::now();
    format!("{}-{:016x}", std::process::id(), RandomState::new().hash_one(now))
}

/// A socket file, told from a later one of the same name.
type Identity = (u64, u64, Option<SystemTime>);

/// Looks for new sockets.
#[derive(Debug)]
pub(crate) struct Watch {
    directory: Directory,
    token: String,
    seen: HashSet<Identity>,
    refusing: HashMap<Identity, Instant>,
    greeted: Vec<Connection>,
    leaving: Vec<Connection>,
    looks: u32,
}

impl Watch {
    /// Looks for those that are not there yet.
    pub(crate) fn new(directory: Directory, token: String) -> Watch {
        let seen = directory.sockets_nearby().iter().filter_map(|path| identity(path)).collect();
        Watch {
            directory,
            token,
            seen,
            refusing: HashMap::new(),
            greeted: Vec::new(),
            leaving: Vec::new(),
            looks: 0,
        }
    }

    /// Programs with our token that have just said hello.
    pub(crate) fn look(&mut self) -> Vec<Live> {
        self.leaving.retain_mut(|link| matches!(link.try_receive(), Ok(None)));
        let wide = self.looks % WIDE_LOOK_EVERY == WIDE_LOOK_EVERY - 1;
        self.looks = self.looks.wrapping_add(1);
        let paths = if wide { self.directory.sockets_nearby() } else { self.directory.sockets() };
        for path in paths {
            self.greet(&path);
        }
        let mut ours = Vec::new();
        let mut waiting = Vec::new();
        for mut link in std::mem::take(&mut self.greeted) {
            match link.try_receive() {
                Ok(None) => waiting.push(link),
                Ok(Some(message)) => match answer(link, message) {
                    Answer::Ready(live) if live.program.launched_by == self.token => {
                        ours.push(*live);
                    }
                    _ => {}
                },
                Err(Lost::Closed | Lost::Silent | Lost::Garbled(_)) => {}
            }
        }
        self.greeted = waiting;
        ours
    }

    /// Lets a program go on, which waits for a recorder, and leaves it to itself.
    pub(crate) fn wave_on(&mut self, mut link: Connection) {
        link.send(&Message::Proceed);
        // Until it has read that: closing at once might look like a recorder that died.
        self.leaving.push(link);
    }

    fn greet(&mut self, path: &Path) {
        let Some(identity) = identity(path) else { return };
        if self.seen.contains(&identity) {
            return;
        }
        match Connection::open(path) {
            Ok(mut link) => {
                if is_ours(&link) {
                    link.greet();
                    self.greeted.push(link);
                }
            }
            Err(e) if matches!(e.kind(), ErrorKind::ConnectionRefused | ErrorKind::WouldBlock) => {
                let since = self.refusing.entry(identity).or_insert_with(Instant::now);
                if since.elapsed() < REFUSES_AT_MOST {
                    return;
                }
            }
            Err(_) => {}
        }
        self.refusing.remove(&identity);
        self.seen.insert(identity);
    }
}

fn identity(path: &Path) -> Option<Identity> {
    let meta = fs::symlink_metadata(path).ok()?;
    Some((meta.dev(), meta.ino(), meta.created().ok()))
}
