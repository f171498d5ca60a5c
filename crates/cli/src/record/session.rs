//! A recording under way: from `Create` to the finished trace.
//!
//! The order of things keeps the trace readable whatever happens in between: the directory is
//! described before the first event can be in it, stream files end at packets' ends, and the
//! description is replaced in one step when the recording is over. When the program dies the arena
//! outlives it, and what was committed is copied as if it had been stopped.

mod rotate;

pub(crate) use rotate::{Pieces, Rotate};

use super::arena::Arena;
use super::copy::Copier;
use super::launch::Launched;
use super::own::Own;
use super::pace::Pace;
use super::streams::Streams;
use super::trace_dir::{Description, TraceDir};
use super::{residue, snapshot};
use crate::args::ChooseFunctions;
use crate::connection::{Connection, Lost, wait_for};
use crate::console::Console;
use crate::discover::Live;
use crate::escape::shown;
use crate::failure::{Failure, Result};
use crate::functions::{self, Table};
use crate::interrupt::Interrupts;
use crate::perf::sides::{Asked, Sides, samples_itself, stacks_are_cut};
use crate::quantity;
use gracepoint_analysis::hints;
use gracepoint_analysis::sidecar::{ProgramEntry, Sidecar};
use gracepoint_analysis::tally::Tally;
use gracepoint_wire::clock::{Clock, Triple};
use gracepoint_wire::control::{
    Create, Created, ENTRY_ID, EXIT_ID, Limits, Listed, Message, Mode, Program, Stopped, WHOLE_ID,
};
use gracepoint_wire::glob;
use gracepoint_wire::schema::{Context, Declared, LOSS_ID, Level, UNTHROTTLE_ID, loss_event};
use rustix::event::PollFlags;
use rustix::fd::{AsFd, OwnedFd};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a program may take to answer a request.
pub(crate) const REPLY_WITHIN: Duration = Duration::from_secs(10);
/// How long it may take to stop; then the trace is finished from shared memory without it.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// How often partial pages are asked for, clocks are compared and the directory is looked after.
const CHORES_EVERY: Duration = Duration::from_secs(1);
/// How often the progress line changes.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);
/// Shortest and longest pause between two looks at the page table.
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));
/// Pages given back in one message.
const RELEASE_AT_ONCE: usize = 4096;
/// Clock triples kept; when there are more, every other one goes.
const TRIPLES_MOST: usize = 4096;

/// Why a recording is over.
#[derive(Debug)]
pub(crate) enum Ended {
    Duration,
    Interrupted,
    ProgramExit,
    ProgramKilled,
    CommandExit,
    /// Somebody ended the session in the program.
    Reset(String, Stopped),
    /// A kept session was taken out of the program.
    Extracted,
    /// The buffer was copied while it goes on.
    Snapshot,
    /// The program lives and speaks no more.
    ConnectionLost(String),
    /// The trace could not be written, or the arena not be read.
    Failed(String),
}

impl Ended {
    /// The word in the sidecar.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Ended::Duration => "duration",
            Ended::Interrupted => "interrupted",
            Ended::ProgramExit => "program-exit",
            Ended::ProgramKilled => "program-killed",
            Ended::CommandExit => "command-exit",
            Ended::Reset(..) => "reset",
            Ended::Extracted => "extracted",
            Ended::Snapshot => "snapshot",
            Ended::ConnectionLost(_) => "connection-lost",
            Ended::Failed(_) => "write-failed",
        }
    }

    fn program_is_gone(&self) -> bool {
        matches!(self, Ended::ProgramExit | Ended::ProgramKilled)
    }
}

/// What to record, and where to.
#[derive(Debug, Clone)]
pub(crate) struct Plan<'a> {
    pub(crate) globs: &'a [String],
    pub(crate) functions: &'a ChooseFunctions,
    pub(crate) buffer_bytes: u64,
    pub(crate) mode: Mode,
    pub(crate) context: Context,
    pub(crate) limits: Limits,
    pub(crate) level: Option<Level>,
    pub(crate) dir: &'a Path,
    pub(crate) force: bool,
    /// What the kernel shall tell beside.
    pub(crate) sides: Asked<'a>,
}

/// What may end a recording.
pub(crate) struct Until<'a> {
    pub(crate) duration: Option<Duration>,
    pub(crate) interrupts: &'a mut Interrupts,
    pub(crate) command: Option<&'a mut Launched>,
    /// Whether to show how it goes; a command has the terminal to itself.
    pub(crate) progress: bool,
}

/// What was recorded.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) ended: Ended,
    pub(crate) bytes: u64,
    /// How many pieces there have been.
    pub(crate) pieces: Option<u64>,
    pub(crate) lost: u64,
    pub(crate) length: Duration,
    pub(crate) holdouts: Vec<String>,
    /// The program was asked to stop and did not answer.
    pub(crate) unconfirmed: bool,
    /// Pages in which not everything was a packet.
    pub(crate) spoilt: u64,
    /// Call sites that came too late to be recorded.
    pub(crate) refused: u64,
    /// What went wrong while finishing.
    pub(crate) failure: Option<String>,
    /// The process that goes on to give tracepoints back to the kernel.
    pub(crate) taking_down: Option<u32>,
}

/// A recording under way.
pub(crate) struct Session {
    link: Connection,
    id: u64,
    pub(crate) program: Program,
    pub(crate) pid: u32,
    process: Option<OwnedFd>,
    copier: Copier,
    pub(crate) dir: TraceDir,
    clock: Clock,
    pub(crate) events: Vec<Declared>,
    context: Context,
    sidecar: Sidecar,
    began: Instant,
    chores_at: Instant,
    progress_at: Instant,
    pace: Pace,
    flushing: bool,
    lost: u64,
    /// How many events we know of that were declared since the session was made.
    learnt: usize,
    /// The program did not wait for us: its first events are not in the trace.
    pub(crate) late: bool,
    /// The trace is one in pieces, of which `dir` is the latest.
    pub(crate) pieces: Option<Pieces>,
    /// What the kernel tells of its threads.
    pub(crate) sides: Sides,
    /// What the sidecar tells of functions.
    functions: Table,
    /// What kept functions, or their names, out.
    pub(crate) notes: Vec<String>,
}

impl Session {
    /// Creates the session in the program and the directory on our side, and switches on.
    ///
    /// # Errors
    /// When a glob matches nothing, the program refuses, or the directory cannot be made.
    pub(crate) fn begin(mut live: Live, plan: &Plan<'_>) -> Result<Session> {
        let Message::Events(events) = ask(&mut live.link, &Message::List)? else {
            return Err(unexpected());
        };
        check_globs(plan.globs, &events, &live.program)?;
        let (mut functions, mut table, mut notes) = (None, Table::default(), Vec::new());
        if plan.functions.is_any() {
            let listing = functions::listing(&mut live)?;
            let chosen = listing.choose(plan.functions, &live.program)?;
            let idle = listing.idle(plan.functions, &live.program);
            (functions, table, notes) = (Some(chosen.0), chosen.1, listing.notes);
            notes.extend(idle);
        }
        let mut sides = plan.sides;
        let (samples, refused) = sides.take_from(live.pid).unzip();
        let create = Message::Create(Create {
            globs: plan.globs.to_vec(),
            buffer_bytes: plan.buffer_bytes,
            mode: plan.mode,
            context: plan.context,
            limits: plan.limits,
            keep: false,
            name: String::new(),
            tool: "gracepoint record".into(),
            level: plan.level,
            functions,
            samples,
        });
        let reply = ask(&mut live.link, &create)?;
        if samples.is_some() {
            notes.extend(samples_itself(&reply, refused.flatten())?);
        }
        let mut session = Session::of(live, reply, table, plan.dir, plan.force)?;
        if plan.context.has(Context::STACK) {
            notes.extend(hints::of_stacks(&session.program.name, session.program.frame_pointers));
        }
        notes.extend(stacks_are_cut(samples, session.copier.arena.header.page_bytes));
        let asked = if plan.buffer_bytes == 0 { u64::MAX } else { plan.buffer_bytes };
        notes.extend(session.copier.arena.larger_than(asked));
        session.notes = notes;
        match session.begin_sides(sides).and_then(|()| session.start()) {
            Ok(()) => Ok(session),
            Err(failure) => {
                session.dir.discard();
                Err(failure)
            }
        }
    }

    /// Takes over session `id`, which is kept in the program, or with `look` only looks at it, and makes
    /// the directory on our side.
    ///
    /// # Errors
    /// When the program refuses, or the directory cannot be made; the session stays as it was.
    pub(crate) fn attach(
        mut live: Live,
        id: u64,
        look: bool,
        dir: &Path,
        force: bool,
    ) -> Result<Session> {
        super::trace_dir::check(dir, force)?;
        let reply = ask(&mut live.link, &Message::Attach { session: id, look })?;
        let (mut table, mut notes) = (Table::default(), Vec::new());
        if matches!(&reply, Message::Created(created) if created.events.iter().any(is_of_functions))
        {
            let listing = functions::listing(&mut live)?;
            (table, notes) = (listing.whole_table(), listing.notes);
        }
        let mut session = Session::of(live, reply, table, dir, force)?;
        session.notes = notes;
        // The triple before the last is from when the session was made.
        let made = session.clock.triples.iter().rev().nth(1);
        session.copier.since = made.map_or(0, |triple| triple.ticks);
        Ok(session)
    }

    /// Our side of a session that the program describes in `reply`, and its directory.
    fn of(
        live: Live,
        reply: Message,
        mut functions: Table,
        dir: &Path,
        force: bool,
    ) -> Result<Session> {
        let Live { mut link, pid, program } = live;
        let Message::Created(created) = reply else {
            return Err(unexpected());
        };
        let Created { session, mut events, mut clock, context, modules } = created;
        clock.refine();
        if !events.iter().any(|event| event.id == LOSS_ID) {
            events.insert(0, loss_event());
        }
        let fd = link.take_descriptor().ok_or_else(unexpected)?;
        let arena = Arena::open(fd)?;
        let dir = TraceDir::create(dir, force)?;
        let about = ProgramEntry {
            name: program.name.clone(),
            pid: program.pid,
            exe: program.exe.clone(),
            args: arguments(pid),
            frame_pointers: program.frame_pointers,
        };
        let now = Instant::now();
        let mut session = Session {
            link,
            id: session,
            pid,
            process: process(pid),
            copier: Copier::new(arena, Streams::new(&dir.path)),
            sidecar: Sidecar::new(about, &clock, &events),
            program,
            dir,
            clock,
            events,
            context,
            began: now,
            chores_at: now + CHORES_EVERY,
            progress_at: now,
            pace: Pace::default(),
            flushing: false,
            lost: 0,
            learnt: 0,
            late: false,
            pieces: None,
            sides: Sides::default(),
            notes: Vec::new(),
            functions: Table::default(),
        };
        session.sidecar.functions = functions.entries(false);
        session.functions = functions;
        session.copier.tells_throttling =
            session.events.iter().any(|event| event.id == UNTHROTTLE_ID);
        session.copier.context = session.context;
        session.copier.own = Own::of(&session.events, modules);
        session.learn();
        session.describe()?;
        Ok(session)
    }

    /// Samples go into streams of their own, behind those of the ring's slots and the recorder's.
    fn begin_sides(&mut self, asked: Asked<'_>) -> Result<()> {
        let first = u64::from(self.copier.arena.header.slots) + 1;
        let (sides, mut events) = Sides::begin(self.pid, asked, first, self.context)?;
        self.sides = sides;
        // The program's own samples are the same events.
        events.retain(|event| self.events.iter().all(|known| known.id != event.id));
        if events.is_empty() {
            return Ok(());
        }
        self.events.extend(events);
        self.sidecar.events = self.events.iter().map(Into::into).collect();
        self.describe()
    }

    /// How many functions it wants.
    pub(crate) fn functions(&self) -> u64 {
        self.sidecar.functions.len() as u64
    }

    /// Ends it as if it had never been.
    pub(crate) fn discard(mut self) {
        self.stop(&Ended::Interrupted);
        self.dir.discard();
    }

    fn start(&mut self) -> Result<()> {
        self.copier.since = self.clock.triples.last().map_or(0, |triple| triple.ticks);
        match request(&mut self.link, &Message::Start(self.id)) {
            Ok(Message::Started(at)) => {
                self.note_time(at);
                self.copier.since = at.ticks;
            }
            // A short program may be done before its agent comes to answer; its events are there.
            Err(Lost::Closed) => {}
            other => {
                understood(other, self.pid)?;
                return Err(unexpected());
            }
        }
        self.began = Instant::now();
        Ok(())
    }

    /// Copies until something ends it.
    pub(crate) fn run(&mut self, until: &mut Until<'_>, console: &mut Console) -> Ended {
        if until.progress && console.is_live() {
            self.copier.streams.tally = Some(Tally::new(&self.events, self.context));
        }
        let end_at = until.duration.map(|length| self.began + length);
        let mut pause = PAUSE.0;
        loop {
            match self.copy() {
                Ok(0) => pause = (pause * 2).min(PAUSE.1),
                Ok(pages) if pages * 4 > self.copier.arena.header.pages as usize => pause = PAUSE.0,
                Ok(_) => pause = (pause / 2).max(PAUSE.0),
                Err(e) => return Ended::Failed(e.to_string()),
            }
            if let Err(failure) = self.rotate() {
                return Ended::Failed(failure.to_string());
            }
            if let Some(ended) = self.receive() {
                return ended;
            }
            if let Some(ended) = self.asked_to_end(until, console) {
                return ended;
            }
            if !self.copier.arena.overwrites() && self.copier.pages_are_short() && !self.flushing {
                self.flush();
            }
            let now = Instant::now();
            if end_at.is_some_and(|at| now >= at) {
                return Ended::Duration;
            }
            if let Some(ended) = self.chores(now) {
                return ended;
            }
            if until.progress && console.is_live() && now >= self.progress_at {
                self.show_progress(console);
                self.progress_at = now + PROGRESS_EVERY;
            }
            let most = end_at.map_or(pause, |at| pause.min(at.saturating_duration_since(now)));
            let mut fds = vec![(self.link.as_fd(), self.link.interest())];
            fds.extend(self.process.iter().map(|fd| (fd.as_fd(), PollFlags::IN)));
            fds.extend(until.interrupts.interest());
            wait_for(&fds, most);
        }
    }

    /// Copies full pages and gives them back; returns how many. Of a flight recorder, none.
    fn copy(&mut self) -> io::Result<usize> {
        self.copier.write_modules()?;
        self.sides.tend(&self.clock, &mut self.copier.streams)?;
        if self.copier.arena.overwrites() {
            return Ok(0); // the newest are copied at the end
        }
        let done = self.copier.copy_full()?;
        for some in done.chunks(RELEASE_AT_ONCE) {
            self.link.send(&Message::Release(self.id, some.to_vec()));
        }
        Ok(done.len())
    }

    /// Takes what the program says; a reply to `Flush` is the only thing to expect.
    fn receive(&mut self) -> Option<Ended> {
        loop {
            match self.link.try_receive() {
                Ok(None) => break,
                Ok(Some(Message::Flushed(flushed))) => {
                    self.copier.own.add(flushed.modules);
                    self.flushing = false;
                }
                Ok(Some(Message::Failure(_))) => self.flushing = false,
                Ok(Some(Message::Ended { by, stopped, .. })) => {
                    return Some(Ended::Reset(by, stopped));
                }
                Ok(Some(_)) => {}
                Err(Lost::Garbled(what)) => return Some(Ended::ConnectionLost(what)),
                Err(Lost::Closed | Lost::Silent) => {
                    return Some(match why_closed(self.process.as_ref()) {
                        Some(why) => Ended::ConnectionLost(format!(
                            "{why}; what it did after that is not in the trace"
                        )),
                        None => Ended::ProgramExit,
                    });
                }
            }
        }
        // Where a child of the program has inherited the socket, its end does not show there.
        let dead = self.process.as_ref().is_some_and(is_ready);
        dead.then_some(Ended::ProgramExit)
    }

    fn asked_to_end(&self, until: &mut Until<'_>, console: &mut Console) -> Option<Ended> {
        let signal = until.interrupts.take();
        let Some(command) = &mut until.command else {
            return signal.map(|_| Ended::Interrupted);
        };
        if command.heed(signal) {
            return Some(Ended::Interrupted);
        }
        command.tend(console);
        command.has_ended().then(|| {
            if command.pid() == self.pid { Ended::ProgramExit } else { Ended::CommandExit }
        })
    }

    fn chores(&mut self, now: Instant) -> Option<Ended> {
        if now >= self.chores_at {
            self.chores_at = now + CHORES_EVERY;
            if !self.flushing && !self.copier.arena.overwrites() {
                self.flush();
            }
            if let Some(triple) = self.copier.arena.triple() {
                self.note_time(triple);
            }
            if self.learn()
                && let Err(failure) = self.describe()
            {
                return Some(Ended::Failed(failure.to_string()));
            }
            if !self.dir.is_there() {
                return Some(Ended::Failed("its directory was removed".into()));
            }
        }
        None
    }

    /// Asks for the partly filled pages of threads that are not writing.
    fn flush(&mut self) {
        self.link.send(&Message::Flush(self.id));
        self.flushing = true;
    }

    fn show_progress(&mut self, console: &mut Console) {
        self.count_lost();
        let events = self.copier.streams.events;
        let per_second = self.pace.note(Instant::now(), events);
        console.progress(format_args!(
            "{}: {} events, {}/s, {} lost, {}",
            quantity::length(self.began.elapsed()),
            quantity::count(events),
            quantity::count(per_second),
            quantity::count(self.lost),
            quantity::bytes(
                self.copier.streams.bytes + self.pieces.as_ref().map_or(0, Pieces::bytes)
            ),
        ));
    }

    fn count_lost(&mut self) {
        if let Ok(losses) = self.copier.arena.losses() {
            self.lost = losses.iter().map(|loss| loss.lost).fold(0, u64::saturating_add);
        }
    }

    fn note_time(&mut self, triple: Triple) {
        let triples = &mut self.clock.triples;
        let newer = triples
            .last()
            .is_none_or(|last| triple.ticks > last.ticks && triple.mono_ns > last.mono_ns);
        if newer {
            triples.push(triple);
            self.clock.refine();
        }
        let triples = &mut self.clock.triples;
        if triples.len() > TRIPLES_MOST {
            let mut index = 0;
            triples.retain(|_| {
                index += 1;
                index % 2 == 1
            });
        }
    }

    /// Takes note of events that were declared since the session was made. True if there are new ones.
    fn learn(&mut self) -> bool {
        let late = self.copier.arena.late_events().unwrap_or_default();
        if late.len() <= self.learnt {
            return false;
        }
        self.events.extend_from_slice(&late[self.learnt..]);
        self.learnt = late.len();
        self.sidecar.events = self.events.iter().map(Into::into).collect();
        if self.copier.streams.tally.is_some() {
            self.copier.streams.tally = Some(Tally::new(&self.events, self.context));
        }
        true
    }

    fn describe(&self) -> Result<()> {
        self.dir.describe(&Description {
            program: &self.program,
            clock: &self.clock,
            events: &self.events,
            context: self.context,
            sidecar: &self.sidecar,
        })
    }

    /// Ends the session in the program, copies what is left and describes the trace anew.
    pub(crate) fn finish(mut self, ended: Ended, console: &mut Console) -> Recorded {
        let length = self.began.elapsed();
        console.clear_progress();
        let stopped = match &ended {
            Ended::Reset(_, stopped) => Some(stopped.clone()),
            Ended::Snapshot => None,
            ended if ended.program_is_gone() => None,
            ended => self.stop(ended),
        };
        let silent = matches!(ended, Ended::ConnectionLost(_) | Ended::Snapshot);
        let alive = !ended.program_is_gone() && !silent;
        let unconfirmed = alive && stopped.is_none();
        let mut holdouts = Vec::new();
        match &stopped {
            Some(stopped) => {
                self.copier.own.add(stopped.modules.clone());
                self.note_time(stopped.at);
                if !stopped.settled {
                    holdouts = stopped.holdouts.clone();
                    holdouts.truncate(1000);
                }
            }
            None => {
                if let Some(triple) = self.copier.arena.triple() {
                    self.note_time(triple);
                }
            }
        }
        let mut failure = None;
        if !matches!(ended, Ended::Failed(_)) {
            let told = self.copier.write_modules();
            let copied = self.copy_rest(matches!(ended, Ended::Snapshot));
            let beside = self.sides.finish(&self.clock, &mut self.copier.streams);
            failure = told.and(copied).and(beside).err().map(|e| e.to_string());
            self.sidecar.lost.extend(self.sides.losses());
        }
        self.count_lost();
        self.learn();
        let cut = matches!(ended, Ended::Failed(_) | Ended::ConnectionLost(_));
        let whole = failure.is_none() && !cut;
        self.clock.refine();
        self.sidecar.clock = (&self.clock).into();
        self.sidecar.complete = whole && !self.late;
        self.sidecar.streams =
            self.copier.streams.lengths().iter().map(|(&n, &len)| (n, len)).collect();
        self.sidecar.ended = ended.word().into();
        self.sidecar.holdouts = holdouts.clone();
        self.sidecar.functions = self.functions.entries(true);
        if let Err(e) = self.describe() {
            failure.get_or_insert(e.to_string());
        }
        if matches!(ended, Ended::Extracted) && failure.is_none() {
            let freed = ask(&mut self.link, &Message::End(self.id));
            failure = freed.err().map(|e| format!("the buffer was not freed: {e}"));
        }
        Recorded {
            ended,
            bytes: self.copier.streams.bytes + self.pieces.as_ref().map_or(0, Pieces::bytes),
            pieces: self.pieces.as_ref().map(Pieces::count),
            lost: self.lost,
            length,
            holdouts,
            unconfirmed,
            spoilt: self.copier.spoilt,
            refused: self.copier.arena.refused(),
            failure,
            taking_down: self.sides.taking_down,
        }
    }

    /// Switches off; `None` when the program does not confirm it.
    fn stop(&mut self, ended: &Ended) -> Option<Stopped> {
        if matches!(ended, Ended::ConnectionLost(_)) {
            return None;
        }
        self.link.send(&Message::Stop(self.id));
        let deadline = Instant::now() + STOP_WITHIN;
        loop {
            match self.link.receive(deadline) {
                Ok(Message::Stopped(stopped)) => return Some(stopped),
                Ok(Message::Ended { stopped, .. }) => return Some(stopped),
                Ok(Message::Flushed(flushed)) => {
                    self.copier.own.add(flushed.modules);
                    self.flushing = false;
                }
                // Somebody is ending it already, and its end will be told.
                Ok(Message::Failure(failure)) if !self.flushing && failure.code != "session" => {
                    return None;
                }
                Ok(_) => self.flushing = false,
                Err(_) => return None,
            }
        }
    }

    /// Copies what is left; with `look`, what is there now and goes on.
    fn copy_rest(&mut self, look: bool) -> io::Result<()> {
        if look || self.copier.arena.overwrites() {
            let now = self.clock.triples.last().map_or(0, |triple| triple.ticks);
            self.sidecar.lost = snapshot::copy(&mut self.copier, now)?.lost;
            return Ok(());
        }
        while !self.copier.copy_full()?.is_empty() {}
        let slots = self.copier.arena.slot_losses()?;
        let discarded = |slot| slots.iter().find(|s| s.slot == slot).map_or(0, |s| s.discarded);
        self.copier.copy_owned(discarded)?;
        // What the packets do not tell of losses.
        let now = self.clock.triples.last().map_or(0, |triple| triple.ticks);
        self.sidecar.lost = residue::write(&mut self.copier, now)?;
        Ok(())
    }
}

/// Sends a request and waits for its reply.
///
/// # Errors
/// When the program refuses, or does not answer.
pub(crate) fn ask(link: &mut Connection, request: &Message) -> Result<Message> {
    let reply = self::request(link, request);
    understood(reply, link.pid)
}

/// Like [`ask`], but what the program refuses comes back as it says it.
///
/// # Errors
/// When it does not answer.
pub(crate) fn ask_for(
    link: &mut Connection,
    request: &Message,
) -> Result<std::result::Result<Message, gracepoint_wire::control::Failure>> {
    match self::request(link, request) {
        Ok(Message::Failure(failure)) => Ok(Err(failure)),
        reply => understood(reply, link.pid).map(Ok),
    }
}

fn request(link: &mut Connection, request: &Message) -> std::result::Result<Message, Lost> {
    link.send(request);
    link.receive(Instant::now() + REPLY_WITHIN)
}

fn understood(reply: std::result::Result<Message, Lost>, pid: u32) -> Result<Message> {
    match reply {
        Ok(Message::Failure(failure)) => Err(Failure::new(format!(
            "the program refuses: {}",
            if failure.text.is_empty() { shown(&failure.code) } else { shown(&failure.text) }
        ))),
        Ok(message) => Ok(message),
        Err(Lost::Closed) => Err(Failure::new(
            "connection lost: the program has ended or closed it; `gracepoint ps` shows what runs",
        )),
        Err(Lost::Silent) => Err(Failure::new(format!(
            "process {pid} does not answer: it may be stopped (`kill -CONT {pid}` lets it go on)"
        ))),
        Err(Lost::Garbled(what)) => {
            Err(Failure::new(format!("the program's answer makes no sense: {}", shown(&what))))
        }
    }
}

pub(crate) fn unexpected() -> Failure {
    Failure::new(
        "the program answers something else than it was asked: is its gracepoint newer than this?",
    )
}

/// Whether an event tells of functions that begin or end.
fn is_of_functions(event: &Declared) -> bool {
    [ENTRY_ID, EXIT_ID, WHOLE_ID].contains(&event.id)
}

/// Every pattern must match an event.
pub(crate) fn check_globs(globs: &[String], events: &[Listed], program: &Program) -> Result<()> {
    let names = || events.iter().map(|event| event.schema.name.as_str());
    for pattern in globs {
        // Where events are declared at run time, one that matches may come.
        if names().any(|name| glob::matches(pattern, name)) || program.makes_events {
            continue;
        }
        let near: Vec<_> = glob::near(pattern, names(), 3).into_iter().map(shown).collect();
        let mut text = format!("no event of {} matches `{}`", shown(&program.name), shown(pattern));
        text += &match near.as_slice() {
            [] if events.is_empty() => ": it has no events".to_owned(),
            [] => ": `gracepoint list` shows what there is".to_owned(),
            near => format!(": did you mean {}?", near.join(", ")),
        };
        return Err(Failure::new(text));
    }
    Ok(())
}

/// A descriptor that becomes readable when the process ends.
pub(crate) fn process(pid: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// Why the program has closed its socket and goes on; `None` where it is gone.
pub(crate) fn why_closed(process: Option<&OwnedFd>) -> Option<String> {
    let process = process?;
    wait_for(&[(process.as_fd(), PollFlags::IN)], Duration::from_secs(1));
    (!is_ready(process)).then(|| {
        "the program goes on and has closed it (by exec, or with all its descriptors)".into()
    })
}

pub(crate) fn is_ready(fd: &OwnedFd) -> bool {
    let mut fds = [rustix::event::PollFd::new(fd, PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 }))
        .is_ok_and(|n| n > 0)
}

/// The program's arguments after its own name, as far as we may see them.
pub(crate) fn arguments(pid: u32) -> Vec<String> {
    let Ok(bytes) = std::fs::read(format!("/proc/{pid}/cmdline")) else { return Vec::new() };
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    bytes.split(|&b| b == 0).skip(1).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect()
}
