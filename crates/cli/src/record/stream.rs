//! `gracepoint stream`: events as they happen.
//!
//! A session of its own, whose pages are asked for every [`CYCLE`]: the program notes the time and
//! closes the pages of threads that are not writing; what it had recorded by then is copied when it has said so, put in
//! order and shown. What came later waits for the next cycle, so that lines are in order of time.
//! An event that a thread was in the middle of writing may come a cycle late.

use super::arena::Arena;
use super::copy::Copier;
use super::own;
use super::residue;
use super::session::{ask, check_globs, is_ready, process, unexpected, why_closed};
use super::streams::Streams;
use crate::args::StreamArgs;
use crate::connection::{Connection, Lost, wait_for};
use crate::console::Console;
use crate::discover::{self, Live as Program};
use crate::escape::shown;
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupts;
use gracepoint_analysis::Trace;
use gracepoint_analysis::live::Live;
use gracepoint_analysis::report::{Format, Lines};
use gracepoint_wire::clock::Clock;
use gracepoint_wire::control::{Create, Message, Module};
use gracepoint_wire::schema::{Context, Declared, LOSS_ID, UNTHROTTLE_ID, loss_event};
use rustix::event::PollFlags;
use rustix::fd::{AsFd, OwnedFd};
use std::io;
use std::time::{Duration, Instant};

/// Time between two looks.
const CYCLE: Duration = Duration::from_millis(20);
/// What is promised: an event waits for the next look; what a thread was in the middle of writing, or a program that
/// does not answer at once had closed too late, for one more. The work itself has as much time.
const PROMISED: Duration = Duration::from_millis(100);
const _: () = assert!(4 * CYCLE.as_millis() < PROMISED.as_millis());
/// How long the program may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// What is shown.
struct Tail {
    link: Connection,
    session: u64,
    process: Option<OwnedFd>,
    copier: Copier,
    /// A reply to `Flush` is on its way.
    flushing: bool,
    /// Nothing more comes.
    over: Option<Over>,
    /// Objects of the program that are known.
    modules: Vec<Module>,
    /// When the next look is due.
    next: Instant,
}

/// Why nothing more comes.
enum Over {
    Gone,
    /// Somebody ended the session in the program: who.
    Reset(String),
    /// The program lives and speaks no more.
    Lost(String),
}

/// Runs `stream`.
pub(crate) fn stream(args: &StreamArgs, console: &mut Console) -> Result<u8> {
    let mut interrupts = Interrupts::catch(true)?;
    let (mut tail, mut about) = begin(args)?;
    if let Some(note) = tail.copier.arena.larger_than(args.buffer.unwrap_or(u64::MAX)) {
        console.note(note);
    }
    let format = if args.json { Format::JsonLines } else { Format::Text };
    let mut trace = about.trace()?;
    let mut left = args.limit.unwrap_or(u64::MAX);
    let end = args.duration.map(|length| Instant::now() + length);
    let mut packets = Vec::new();
    let mut before: Option<Lines> = None;
    loop {
        let lines = Lines::new(&trace, format, args.time.time()).with_symbols(&trace);
        let mut show =
            Show { lines: before.iter().fold(lines, Lines::after), live: Live::new(&trace), left };
        let status =
            watch(&mut tail, &about, &mut show, &mut packets, (&mut interrupts, end), console)?;
        if status {
            return tail.conclude(console);
        }
        // Events have been declared that what is to come may tell of.
        show.some(&[], u64::MAX, console)?;
        left = show.left;
        before = Some(show.lines);
        (about.events, about.modules) = (tail.events(&about)?, tail.modules.clone());
        trace = about.trace()?;
    }
}

/// What packets mean.
struct About {
    events: Vec<Declared>,
    context: Context,
    clock: Clock,
    /// How many of the events the session was made with.
    made: usize,
    /// Where the program's objects lie, for the functions of stacks.
    modules: Vec<Module>,
}

impl About {
    fn trace(&self) -> Result<Trace> {
        let trace = Trace::of(&self.events, self.context, self.clock.clone())?;
        if !self.context.has(Context::STACK) {
            return Ok(trace);
        }
        let records = own::records(&self.modules, 0, self.context.empty_len());
        Ok(trace.with_streams([own::packet(0, 0, 0, &records).into()]))
    }
}

/// Shows what comes, until it is over (true), or until there are events that `about` does not know
/// (false); then what was copied and not shown is in `packets`.
fn watch(
    tail: &mut Tail,
    about: &About,
    show: &mut Show<'_>,
    packets: &mut Vec<u8>,
    (interrupts, end): (&mut Interrupts, Option<Instant>),
    console: &mut Console,
) -> Result<bool> {
    loop {
        if packets.is_empty() {
            tail.cycle(interrupts)?;
            *packets = tail.copier.streams.take();
            // After the packets: what they tell of was declared before.
            if tail.events(about)?.len() > about.events.len()
                || tail.modules.len() > about.modules.len()
            {
                return Ok(false);
            }
        }
        let until = tail.copier.arena.triple().map_or(0, |triple| triple.ticks);
        show.some(&std::mem::take(packets), until, console)?;
        let over = interrupts.take().is_some() || end.is_some_and(|end| Instant::now() >= end);
        if show.left == 0 {
            return Ok(true);
        }
        if over || tail.over.is_some() {
            break;
        }
    }
    tail.finish(console).map_err(|e| failed(&e))?;
    show.some(&tail.copier.streams.take(), u64::MAX, console)?;
    Ok(true)
}

fn failed(error: &io::Error) -> Failure {
    Failure::new(format!("the program's buffer cannot be read: {error}; try again"))
}

fn begin(args: &StreamArgs) -> Result<(Tail, About)> {
    let Program { mut link, pid, program } = discover::find(&args.target.which())?;
    let Message::Events(listed) = ask(&mut link, &Message::List)? else {
        return Err(unexpected());
    };
    check_globs(&args.events, &listed, &program)?;
    let create = Message::Create(Create {
        globs: args.events.clone(),
        buffer_bytes: args.buffer.unwrap_or(0),
        tool: "gracepoint stream".into(),
        context: args.hits.context(),
        limits: args.hits.limits(),
        level: args.level,
        ..Create::default()
    });
    let Message::Created(mut created) = ask(&mut link, &create)? else {
        return Err(unexpected());
    };
    let arena = Arena::open(link.take_descriptor().ok_or_else(unexpected)?)?;
    if !created.events.iter().any(|event| event.id == LOSS_ID) {
        created.events.insert(0, loss_event());
    }
    created.clock.refine();
    let about = About {
        made: created.events.len(),
        events: created.events,
        context: created.context,
        clock: created.clock,
        modules: created.modules.clone(),
    };
    let Message::Started(at) = ask(&mut link, &Message::Start(created.session))? else {
        return Err(unexpected());
    };
    let mut copier = Copier::new(arena, Streams::gathering());
    copier.since = at.ticks;
    copier.context = created.context;
    copier.tells_throttling = about.events.iter().any(|event| event.id == UNTHROTTLE_ID);
    let tail = Tail {
        link,
        session: created.session,
        process: process(pid),
        copier,
        flushing: false,
        over: None,
        modules: created.modules,
        next: Instant::now(),
    };
    Ok((tail, about))
}

impl Tail {
    /// The events that there are now.
    fn events(&self, about: &About) -> Result<Vec<Declared>> {
        let late = self.copier.arena.late_events().map_err(|e| failed(&e))?;
        Ok(about.events[..about.made].iter().cloned().chain(late).collect())
    }

    /// When it is time for the next look: asks for what there is, and copies it when the program has closed its pages,
    /// or a cycle later.
    fn cycle(&mut self, interrupts: &Interrupts) -> Result<()> {
        self.wait(false, interrupts);
        if !self.flushing && self.over.is_none() {
            self.link.send(&Message::Flush(self.session));
            self.flushing = true;
        }
        self.next = Instant::now() + CYCLE;
        self.wait(true, interrupts);
        let done = self.copier.copy_full().map_err(|e| failed(&e))?;
        if !done.is_empty() {
            self.link.send(&Message::Release(self.session, done));
        }
        Ok(())
    }

    /// Takes what the program says, until it is time for the next look; or `for_pages`, until they are closed. Not
    /// longer than until it is over, or a signal waits.
    fn wait(&mut self, for_pages: bool, interrupts: &Interrupts) {
        loop {
            match self.link.try_receive() {
                Ok(None) => {}
                Ok(Some(Message::Ended { by, .. })) => self.over = Some(Over::Reset(by)),
                Ok(Some(Message::Flushed(flushed))) => {
                    self.flushing = false;
                    self.modules.extend(flushed.modules);
                }
                Ok(Some(_)) => self.flushing = false,
                Err(lost) => self.over = Some(self.hung_up(lost)),
            }
            if self.process.as_ref().is_some_and(is_ready) {
                self.over.get_or_insert(Over::Gone);
            }
            let left = self.next.saturating_duration_since(Instant::now());
            if self.over.is_some() || left.is_zero() || for_pages && !self.flushing {
                return;
            }
            let mut fds = vec![(self.link.as_fd(), self.link.interest())];
            fds.extend(self.process.iter().map(|fd| (fd.as_fd(), PollFlags::IN)));
            fds.extend(interrupts.interest());
            wait_for(&fds, left);
            if interrupts_wait(interrupts) {
                return;
            }
        }
    }

    fn hung_up(&self, lost: Lost) -> Over {
        match lost {
            Lost::Garbled(what) => Over::Lost(what),
            Lost::Closed | Lost::Silent => {
                why_closed(self.process.as_ref()).map_or(Over::Gone, Over::Lost)
            }
        }
    }

    /// Switches off, where that is not done, and copies what is left.
    fn finish(&mut self, console: &mut Console) -> io::Result<()> {
        if self.over.is_none() {
            self.stop(console);
        }
        while !self.copier.copy_full()?.is_empty() {}
        self.copier.copy_owned(|_| 0)?;
        let now = self.copier.arena.triple().map_or(0, |triple| triple.ticks);
        residue::write(&mut self.copier, now)?;
        Ok(())
    }

    fn stop(&mut self, console: &mut Console) {
        self.link.send(&Message::Stop(self.session));
        let deadline = Instant::now() + STOP_WITHIN;
        loop {
            match self.link.receive(deadline) {
                Ok(Message::Stopped(_)) => return,
                Ok(Message::Ended { by, .. }) => {
                    self.over = Some(Over::Reset(by));
                    return;
                }
                // Else: a reply to `Flush`; or somebody is ending the session, which will be told.
                Ok(_) => {}
                Err(Lost::Silent) => {
                    console.note(
                        "the program did not answer when told to stop (is it stopped itself?): what it had \
                         written by then is shown",
                    );
                    return;
                }
                Err(lost) => {
                    self.over = Some(self.hung_up(lost));
                    return;
                }
            }
        }
    }

    /// Says why it is over, where that is news.
    fn conclude(self, console: &mut Console) -> Result<u8> {
        match self.over {
            None | Some(Over::Gone) => Ok(0),
            Some(Over::Reset(by)) => {
                let by = shown(&by);
                console.note(format_args!("the stream was ended by {by}: gracepoint reset"));
                Ok(0)
            }
            Some(Over::Lost(why)) => Err(Failure::new(format!("connection lost: {}", shown(&why)))),
        }
    }
}

/// Whether a signal waits to be taken.
fn interrupts_wait(interrupts: &Interrupts) -> bool {
    let mut fds =
        interrupts.interest().map(|(fd, flags)| rustix::event::PollFd::from_borrowed_fd(fd, flags));
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&now)).is_ok_and(|n| n > 0)
}

/// Where lines are made.
struct Show<'t> {
    lines: Lines,
    live: Live<'t>,
    left: u64,
}

impl Show<'_> {
    /// Shows what is in `packets` and what was held back, up to this time.
    fn some(&mut self, packets: &[u8], until: u64, console: &mut Console) -> Result<()> {
        self.live.push(packets);
        let (lines, left) = (&mut self.lines, &mut self.left);
        let mut text = Vec::new();
        self.live.drain(until, |event| {
            if *left > 0 {
                lines.push(event, &mut text);
                *left -= 1;
            }
        });
        if text.is_empty() {
            return Ok(());
        }
        console.bytes(&text)?;
        console.flush()
    }
}
