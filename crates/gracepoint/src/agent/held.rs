//! The sessions of this program and whose they are: made by a connection, ended with it or kept,
//! taken over by another, shown to all. And a short log of it, for `gracepoint show` and for the
//! program itself.

use super::descriptors::Kept;
use crate::flight::{self, Flight};
use crate::session::{Counting, Session};
use crate::{clock, sys};
use gracepoint_wire::control::{
    Create, LogEntry, Mode, Origin, SessionInfo, SessionState, Sessions,
};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

/// Entries of the log that are kept.
const MOST_LOGGED: usize = 64;
/// Name of the session that `init` begins where the environment says so.
const FLIGHT: &str = "flight";
/// Characters kept of what a tool calls itself or a session.
const MOST_NAME: usize = 64;

/// What a session does with hits.
#[derive(Clone)]
pub(super) enum Kind {
    Recording(Arc<Session>),
    Counting(Arc<Counting>),
}

/// A session and whose it is.
pub(super) struct Held {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) keep: bool,
    origin: Origin,
    globs: Vec<String>,
    made_ns: u64,
    mode: Mode,
    /// The connection that drains it, by number, and the pid behind it.
    pub(super) consumer: Option<(u64, u32)>,
    pub(super) arena: Option<Kept>,
    /// Where a flight recorder's description lies.
    about: Option<PathBuf>,
}

impl Held {
    /// A session that the connection `consumer` asked for.
    pub(super) fn new(kind: Kind, wanted: &Create, who: &sys::PeerUser, consumer: u64) -> Held {
        let short = |text: &str| text.chars().take(MOST_NAME).collect::<String>();
        Held {
            kind,
            name: short(&wanted.name),
            keep: wanted.keep,
            origin: Origin { pid: who.pid, uid: who.uid, tool: short(&wanted.tool) },
            globs: wanted.globs.iter().take(MOST_NAME).map(|glob| short(glob)).collect(),
            made_ns: clock::triple(clock::source()).real_ns,
            mode: wanted.mode,
            consumer: Some((consumer, who.pid)),
            arena: None,
            about: None,
        }
    }

    /// The flight recorder that `init` has begun, which is the program's own.
    pub(super) fn flight(mut flight: Flight) -> Option<Held> {
        let who = sys::PeerUser { pid: std::process::id(), uid: sys::user() };
        let wanted = Create {
            globs: std::mem::take(&mut flight.globs),
            mode: Mode::Overwrite,
            keep: true,
            name: FLIGHT.into(),
            tool: "GRACEPOINT_FLIGHT".into(),
            ..Create::default()
        };
        let mut held = Held::new(Kind::Recording(flight.session.take()?), &wanted, &who, 0);
        held.consumer = None;
        // With it goes the lock by which others see that this program lives.
        held.arena = flight.file.take().map(Kept::new);
        held.about = Some(std::mem::take(&mut flight.about));
        Some(held)
    }

    /// Is it the flight recorder of `init`?
    pub(super) fn is_flight(&self) -> bool {
        self.origin.pid == std::process::id() && self.name == FLIGHT
    }

    /// What is to be done about once a second, or more often, while it is on.
    pub(super) fn look_after(&self) {
        let Some(session) = self.recording() else { return };
        session.tick();
        session.free_idle_pages();
        session.adapt();
        session.tend_samples();
        if let Some(about) = &self.about {
            flight::tell_later(session, about);
        }
    }

    /// Keeps a descriptor of the arena for those who attach.
    pub(super) fn keep_arena(&mut self, file: Option<&OwnedFd>) {
        self.arena = file.and_then(|file| file.try_clone().ok()).map(Kept::new);
    }

    pub(super) fn id(&self) -> u64 {
        match &self.kind {
            Kind::Recording(session) => session.id,
            Kind::Counting(counting) => counting.id,
        }
    }

    pub(super) fn recording(&self) -> Option<&Arc<Session>> {
        match &self.kind {
            Kind::Recording(session) => Some(session),
            Kind::Counting(_) => None,
        }
    }

    /// `session 3 (main)`.
    pub(super) fn title(&self) -> String {
        match self.name.as_str() {
            "" => format!("session {}", self.id()),
            name => format!("session {} ({name})", self.id()),
        }
    }

    /// `main`, or what made it: `gracepoint record`; and whether it is off.
    pub(super) fn label(&self) -> String {
        let name = if self.name.is_empty() { &self.origin.tool } else { &self.name };
        let off = self.recording().is_some_and(|session| !session.is_on());
        format!("{name}{}", if off { " (off)" } else { "" })
    }

    pub(super) fn switch_off(&self) {
        match &self.kind {
            Kind::Recording(session) => session.switch_off(),
            Kind::Counting(counting) => counting.switch_off(),
        }
    }

    pub(super) fn end(self) {
        match self.kind {
            Kind::Recording(session) => session.end(),
            Kind::Counting(counting) => counting.end(),
        }
    }

    fn info(&self) -> SessionInfo {
        let mut info = SessionInfo {
            session: self.id(),
            name: self.name.clone(),
            origin: self.origin.clone(),
            made_ns: self.made_ns,
            kept: self.keep,
            globs: self.globs.clone(),
            mode: self.mode as u8,
            consumer: self.consumer.map_or(0, |(_, pid)| pid),
            state: SessionState::On,
            ..SessionInfo::default()
        };
        match &self.kind {
            Kind::Recording(session) => {
                let (arena, header) = (&session.ring.arena, session.ring.arena.header());
                let used = header.pages.saturating_sub(arena.free_pages());
                info.buffer_bytes = u64::from(header.pages) * u64::from(header.page_bytes);
                info.filled_bytes = u64::from(used) * u64::from(header.page_bytes);
                info.lost = arena.lost();
                info.events = session.kinds();
                info.functions = session.functions();
                if !session.is_on() {
                    info.state = SessionState::Off;
                }
            }
            Kind::Counting(counting) => {
                info.counts = true;
                info.events = counting.kinds();
            }
        }
        info
    }
}

/// What happened to sessions.
#[derive(Default)]
pub(super) struct Log {
    entries: VecDeque<LogEntry>,
    /// Told of each entry as it comes.
    hook: Option<fn(&str)>,
}

impl Log {
    pub(super) fn new(hook: Option<fn(&str)>) -> Log {
        Log { entries: VecDeque::new(), hook }
    }

    pub(super) fn note(&mut self, text: String) {
        if let Some(hook) = self.hook {
            hook(&text);
        }
        if self.entries.len() >= MOST_LOGGED {
            self.entries.pop_front();
        }
        let at_ns = clock::triple(clock::source()).real_ns;
        self.entries.push_back(LogEntry { at_ns, text });
    }

    /// The reply to `Show`.
    pub(super) fn with(&self, held: &[Held]) -> Sessions {
        Sessions {
            sessions: held.iter().map(Held::info).collect(),
            log: self.entries.iter().cloned().collect(),
        }
    }
}
