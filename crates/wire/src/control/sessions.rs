//! Messages about sessions that outlive the tool that made them: what there is, whose it is, taking
//! one over, ending it, ending all, and counting hits.

use super::body::{bytes, list, number, number32, text, triple, triple_bytes};
use crate::clock::Triple;
use crate::tlv::{Builder, Item};
use crate::{Error, Result};

/// Who made a session, as the program's kernel told it; the tool's own words are its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// The tool's pid in the program's pid namespace; 0 where it has none there.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// What it calls itself: `gracepoint start`.
    pub tool: String,
}

/// What a session is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum SessionState {
    /// Its events are off; what it has recorded is kept.
    #[default]
    Off = 0,
    /// Its events are on.
    On = 1,
}

/// A session as shown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionInfo {
    /// Names it in requests.
    pub session: u64,
    /// What its maker calls it; empty where it has no name.
    pub name: String,
    /// Who made it.
    pub origin: Origin,
    /// When, in nanoseconds since 1970.
    pub made_ns: u64,
    /// Whether its events are on.
    pub state: SessionState,
    /// It stays when the connection that made it goes.
    pub kept: bool,
    /// It counts hits and records nothing: it has no buffer.
    pub counts: bool,
    /// Kinds of event in it, without those that tell of functions.
    pub events: u32,
    /// The patterns that chose them.
    pub globs: Vec<String>,
    /// Bytes of all its pages together.
    pub buffer_bytes: u64,
    /// Bytes of the pages that hold something, or are held to be filled.
    pub filled_bytes: u64,
    /// Events lost so far.
    pub lost: u64,
    /// What its buffer does when it is full, as in `Create`.
    pub mode: u8,
    /// Pid of the tool that drains it now; 0 for none.
    pub consumer: u32,
    /// How many functions it records.
    pub functions: u64,
}

/// Something that happened to the program's sessions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogEntry {
    /// When, in nanoseconds since 1970.
    pub at_ns: u64,
    /// A sentence: who did what.
    pub text: String,
}

/// Reply to `Show`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sessions {
    /// All sessions of the program, in the order in which they were made.
    pub sessions: Vec<SessionInfo>,
    /// The latest of what happened to them, oldest first.
    pub log: Vec<LogEntry>,
}

/// Reply to `Reset`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WasReset {
    /// Sessions that were ended.
    pub sessions: u32,
    /// Threads still inside a read section, as text; their session is freed when they leave it.
    pub holdouts: Vec<String>,
}

/// Hits of one event id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// The id, as declared in `Created`.
    pub id: u32,
    /// Hits since the session was made.
    pub hits: u64,
}

/// Reply to `Stat`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    /// When they were counted.
    pub at: Triple,
    /// One for each id with hits.
    pub counts: Vec<Count>,
}

pub(super) fn write_sessions(b: &mut Builder, shown: &Sessions) {
    for session in &shown.sessions {
        b.nested(1, |b| write_session(b, session));
    }
    for entry in &shown.log {
        b.nested(2, |b| {
            b.u64(1, entry.at_ns).str(2, &entry.text);
        });
    }
}

pub(super) fn read_sessions(body: &[u8]) -> Result<Sessions> {
    let entry = |b: &[u8]| Ok(LogEntry { at_ns: number(b, 1)?, text: text(b, 2)? });
    Ok(Sessions { sessions: list(body, 1, read_session)?, log: list(body, 2, entry)? })
}

fn write_session(b: &mut Builder, s: &SessionInfo) {
    b.u64(1, s.session).str(2, &s.name).u64(3, s.origin.pid.into()).u64(4, s.origin.uid.into());
    b.str(5, &s.origin.tool).u64(6, s.made_ns).u64(7, s.state as u64).u64(8, s.kept.into());
    b.u64(9, s.counts.into()).u64(10, s.events.into());
    for glob in &s.globs {
        b.str(11, glob);
    }
    b.u64(12, s.buffer_bytes).u64(13, s.filled_bytes).u64(14, s.lost).u64(15, s.mode.into());
    b.u64(16, s.consumer.into()).u64(17, s.functions);
}

fn read_session(body: &[u8]) -> Result<SessionInfo> {
    let origin = Origin { pid: number32(body, 3)?, uid: number32(body, 4)?, tool: text(body, 5)? };
    let on = number(body, 7)? == SessionState::On as u64;
    Ok(SessionInfo {
        session: number(body, 1)?,
        name: text(body, 2)?,
        origin,
        made_ns: number(body, 6)?,
        state: if on { SessionState::On } else { SessionState::Off },
        kept: number(body, 8)? != 0,
        counts: number(body, 9)? != 0,
        events: number32(body, 10)?,
        globs: list(body, 11, |b| Item { tag: 11, value: b }.string())?,
        buffer_bytes: number(body, 12)?,
        filled_bytes: number(body, 13)?,
        lost: number(body, 14)?,
        mode: number(body, 15)?.try_into().unwrap_or(u8::MAX),
        consumer: number32(body, 16)?,
        functions: number(body, 17)?,
    })
}

pub(super) fn write_reset(b: &mut Builder, reset: &WasReset) {
    b.u64(1, reset.sessions.into());
    for who in &reset.holdouts {
        b.str(2, who);
    }
}

pub(super) fn read_reset(body: &[u8]) -> Result<WasReset> {
    let holdouts = list(body, 2, |b| Item { tag: 2, value: b }.string())?;
    Ok(WasReset { sessions: number32(body, 1)?, holdouts })
}

pub(super) fn write_counts(b: &mut Builder, counts: &Counts) {
    let mut all = Vec::with_capacity(counts.counts.len() * 12);
    for count in &counts.counts {
        all.extend_from_slice(&count.id.to_le_bytes());
        all.extend_from_slice(&count.hits.to_le_bytes());
    }
    b.bytes(1, &triple_bytes(&counts.at)).bytes(2, &all);
}

pub(super) fn read_counts(body: &[u8]) -> Result<Counts> {
    let all = bytes(body, 2)?;
    if all.len() % 12 != 0 {
        return Err(Error::new("list of counts is cut"));
    }
    let count = |c: &[u8]| {
        let word = |at: usize| u32::from_le_bytes([c[at], c[at + 1], c[at + 2], c[at + 3]]);
        Count { id: word(0), hits: u64::from(word(4)) | u64::from(word(8)) << 32 }
    };
    Ok(Counts { at: triple(body, 1)?, counts: all.chunks_exact(12).map(count).collect() })
}
