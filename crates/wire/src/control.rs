//! Messages on the agent's socket.
//!
//! A frame is u32 length of what follows, u16 kind, u16 flags, then a tag-length-value body. Each
//! side first sends [`Hello`]. Peers speak to each other when their majors differ by at most one:
//! within a major, new fields and new kinds are only ever added, and a receiver skips what it does
//! not know (an unknown *request* is answered with [`Failure`] `unsupported`, so that nobody waits).
//!
//! One request is under way at a time on a connection, and each has one reply; `Release` has none.
//! A reply may carry a descriptor (SCM_RIGHTS) with its first byte: `Created` carries the arena.
//! When a connection ends, the agent ends the sessions that it made, but for those to be kept: another
//! connection takes such a one over with `Attach`.

mod body;
mod functions;
mod late;
mod recording;
mod sessions;
mod stuck;

pub use functions::{
    ENTRY_ID, ENTRY_NAME, EXIT_ID, EXIT_NAME, Function, FunctionKind, FunctionObject, Functions,
    FunctionsWanted, WHOLE_ID, WHOLE_NAME, function_events,
};
pub use late::{late_events, late_frame};
pub use recording::{Create, Created, Flushed, Limits, Mode, Module, SamplesWanted, Stopped};
pub use sessions::{
    Count, Counts, LogEntry, Origin, SessionInfo, SessionState, Sessions, WasReset,
};
pub use stuck::{
    DomainState, OpenReader, OpenTask, RunningCall, RunningPeriod, RunningProbe, SpansKept, Stuck,
    WaitingThread,
};

use crate::clock::Triple;
use crate::schema::Schema;
use crate::tlv::Builder;
use crate::{ABI_MAJOR, ABI_MINOR, Error, Result};
use body::*;

/// Largest frame that an agent accepts.
pub const MAX_REQUEST: usize = 1 << 20;
/// Largest frame that a tool accepts.
pub const MAX_REPLY: usize = 64 << 20;
/// Bytes before a frame's body: length, kind, flags.
pub const FRAME_HEADER: usize = 8;

/// Feature bits of [`Hello`]; none is assigned in 1.0.
pub type Features = u64;

/// The first message in both directions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hello {
    /// ABI version, major.
    pub major: u16,
    /// ABI version, minor.
    pub minor: u16,
    /// What the sender can do beyond its version.
    pub features: Features,
    /// From an agent: the program it lives in.
    pub program: Option<Program>,
}

impl Hello {
    /// A hello of this version.
    pub fn current(program: Option<Program>) -> Hello {
        Hello { major: ABI_MAJOR, minor: ABI_MINOR, features: 0, program }
    }

    /// Whether two peers understand each other.
    pub fn speaks_to(&self, other: &Hello) -> bool {
        self.major.abs_diff(other.major) <= 1
    }
}

/// A traceable program.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Program {
    /// Its name: the builder's, or that of the executable.
    pub name: String,
    /// Its pid as it sees itself.
    pub pid: u32,
    /// Path of its executable, as it sees it.
    pub exe: String,
    /// When its agent started, nanoseconds since 1970.
    pub since_ns: u64,
    /// How its sites are switched: `text`, `mem`, `branch` or `refused`.
    pub patching: String,
    /// The value of `GRACEPOINT_RECORDER` in its environment: the recorder that launched it.
    pub launched_by: String,
    /// How many events are on.
    pub events_on: u32,
    /// How many events it has.
    pub events: u32,
    /// Its `init` waits for the recorder that launched it: nothing is missing yet.
    pub waiting: bool,
    /// Path of the shared object that this runtime and its events lie in; empty where that is the
    /// executable. A plugin that carries a runtime of its own has an agent of its own.
    pub object: String,
    /// It declares events at run time: more than it lists may come, so a pattern that matches none
    /// is no mistake.
    pub makes_events: bool,
    /// Whether its code keeps frame pointers, which stacks are found by; `None` if it does not say.
    pub frame_pointers: Option<bool>,
    /// Its sessions, those that are off included: their names, or else what made them.
    pub sessions: Vec<String>,
}

/// An event as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// What it is.
    pub schema: Schema,
    /// Sites of `trace!`.
    pub sites: u32,
    /// Sites of `span!`.
    pub spans: u32,
    /// Sessions and probes that it is on for.
    pub on: u32,
    /// `file:line` of the first site.
    pub location: String,
}

/// Reply that a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Failure {
    /// A word for programs: `unsupported`, `no-match`, `busy`, `memory`, `patching`, `session`,
    /// `functions`.
    pub code: String,
    /// A sentence for people, with what to do.
    pub text: String,
}

/// Every message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Both: who is there.
    Hello(Hello),
    /// Tool: name all events.
    List,
    /// Agent: here they are.
    Events(Vec<Listed>),
    /// Tool: make a session.
    Create(Create),
    /// Agent: made.
    Created(Created),
    /// Tool: switch the session's events on.
    Start(u64),
    /// Agent: on, since this moment.
    Started(Triple),
    /// Tool: switch them off; the data stays.
    Stop(u64),
    /// Agent: off.
    Stopped(Stopped),
    /// Tool: these pages (index, ordinal) of the session are copied. No reply.
    Release(u64, Vec<(u32, u64)>),
    /// Tool: close the partly filled pages of threads that are not writing.
    Flush(u64),
    /// Agent: they are closed.
    Flushed(Flushed),
    /// Tool: no session will come; do not wait for one.
    Proceed,
    /// Agent: noted.
    Done,
    /// Agent: it did not work.
    Failure(Failure),
    /// Tool: name all sessions.
    Show,
    /// Agent: here they are.
    Sessions(Sessions),
    /// Tool: let this connection drain and end a kept session that nobody drains or, with `look`,
    /// look at any session without taking anything from it. The reply is `Created`.
    Attach {
        /// The session.
        session: u64,
        /// Only look.
        look: bool,
    },
    /// Tool: end the session and free its memory.
    End(u64),
    /// Tool: end all sessions, whosoever they are.
    Reset,
    /// Agent: ended.
    WasReset(WasReset),
    /// Tool: make a session that counts hits and records nothing; of `Create`, `globs` and `tool` count.
    Count(Create),
    /// Tool: tell the counts of a counting session.
    Stat(u64),
    /// Agent: here they are.
    Counts(Counts),
    /// Agent, unasked: this session of the connection's was ended by somebody else.
    Ended {
        /// The session.
        session: u64,
        /// Who did it, as a part of a sentence.
        by: String,
        /// When it was switched off.
        stopped: Stopped,
    },
    /// Tool: name all functions that can be traced.
    ListFunctions,
    /// Agent: here they are.
    Functions(Functions),
    /// Tool: why are you stuck?
    Why,
    /// Agent: here is who waits for whom.
    Stuck(Stuck),
    /// A kind that this version does not know.
    Unknown(u16),
}

impl Message {
    fn kind(&self) -> u16 {
        match self {
            Message::Hello(_) => 1,
            Message::List => 2,
            Message::Events(_) => 3,
            Message::Create(_) => 4,
            Message::Created(_) => 5,
            Message::Start(_) => 6,
            Message::Started(_) => 7,
            Message::Stop(_) => 8,
            Message::Stopped(_) => 9,
            Message::Release(..) => 10,
            Message::Flush(_) => 11,
            Message::Flushed(_) => 12,
            Message::Proceed => 13,
            Message::Done => 14,
            Message::Failure(_) => 15,
            Message::Show => 32,
            Message::Sessions(_) => 33,
            Message::Attach { .. } => 34,
            Message::End(_) => 35,
            Message::Reset => 36,
            Message::WasReset(_) => 37,
            Message::Count(_) => 38,
            Message::Stat(_) => 39,
            Message::Counts(_) => 40,
            Message::Ended { .. } => 41,
            Message::ListFunctions => 48,
            Message::Functions(_) => 49,
            Message::Why => 64,
            Message::Stuck(_) => 65,
            Message::Unknown(kind) => *kind,
        }
    }

    /// The whole frame.
    ///
    /// # Panics
    /// When a message exceeds 4 GiB, which no schema of a real program comes near.
    pub fn to_frame(&self) -> Vec<u8> {
        let mut body = Builder::default();
        self.write(&mut body);
        let mut frame = Vec::with_capacity(FRAME_HEADER + body.bytes.len());
        let len = u32::try_from(body.bytes.len() + 4).expect("a message is under 4 GiB");
        frame.extend_from_slice(&len.to_le_bytes());
        frame.extend_from_slice(&self.kind().to_le_bytes());
        frame.extend_from_slice(&0u16.to_le_bytes());
        frame.extend_from_slice(&body.bytes);
        frame
    }

    fn write(&self, b: &mut Builder) {
        match self {
            Message::Hello(hello) => write_hello(b, hello),
            Message::List
            | Message::Proceed
            | Message::Done
            | Message::Show
            | Message::Reset
            | Message::ListFunctions
            | Message::Why
            | Message::Unknown(_) => {}
            Message::Events(events) => {
                for e in events {
                    b.nested(1, |b| write_listed(b, e));
                }
            }
            Message::Create(create) | Message::Count(create) => write_create(b, create),
            Message::Created(created) => {
                b.u64(1, created.session).nested(2, |b| write_clock(b, &created.clock));
                for event in &created.events {
                    b.nested(3, |b| write_declared(b, event));
                }
                b.u64(4, created.context.bits().into());
                write_modules(b, 5, &created.modules);
            }
            Message::Start(session)
            | Message::Stop(session)
            | Message::Flush(session)
            | Message::End(session)
            | Message::Stat(session) => {
                b.u64(1, *session);
            }
            Message::Started(at) => {
                b.bytes(1, &triple_bytes(at));
            }
            Message::Stopped(stopped) => write_stopped(b, stopped),
            Message::Release(session, pages) => {
                b.u64(1, *session);
                let mut list = Vec::with_capacity(pages.len() * 12);
                for (page, ordinal) in pages {
                    list.extend_from_slice(&page.to_le_bytes());
                    list.extend_from_slice(&ordinal.to_le_bytes());
                }
                b.bytes(2, &list);
            }
            Message::Flushed(flushed) => {
                b.u64(1, u64::from(flushed.pages));
                write_modules(b, 2, &flushed.modules);
            }
            Message::Failure(failure) => {
                b.str(1, &failure.code).str(2, &failure.text);
            }
            Message::Sessions(shown) => sessions::write_sessions(b, shown),
            Message::Attach { session, look } => {
                b.u64(1, *session).u64(2, u64::from(*look));
            }
            Message::WasReset(reset) => sessions::write_reset(b, reset),
            Message::Counts(counts) => sessions::write_counts(b, counts),
            Message::Stuck(stuck) => stuck::write(b, stuck),
            Message::Ended { session, by, stopped } => {
                b.u64(1, *session).str(2, by).nested(3, |b| write_stopped(b, stopped));
            }
            Message::Functions(all) => functions::write_functions(b, all),
        }
    }

    /// Reads a frame's payload: what follows the length word (kind, flags, body).
    ///
    /// # Errors
    /// When a field runs over the end or has an impossible value. Kinds and fields that this
    /// version does not know are no errors.
    pub fn parse(payload: &[u8]) -> Result<Message> {
        let (head, body) = payload
            .split_first_chunk::<4>()
            .ok_or_else(|| Error::new("message is shorter than its header"))?;
        let kind = u16::from_le_bytes([head[0], head[1]]);
        Ok(match kind {
            1 => Message::Hello(read_hello(body)?),
            2 => Message::List,
            3 => Message::Events(list(body, 1, read_listed)?),
            4 => Message::Create(read_create(body)?),
            5 => Message::Created(read_created(body)?),
            6 => Message::Start(number(body, 1)?),
            7 => Message::Started(triple(body, 1)?),
            8 => Message::Stop(number(body, 1)?),
            9 => Message::Stopped(read_stopped(body)?),
            10 => Message::Release(number(body, 1)?, read_pages(body)?),
            11 => Message::Flush(number(body, 1)?),
            12 => Message::Flushed(Flushed {
                pages: number(body, 1)?.try_into().unwrap_or(u32::MAX),
                modules: list(body, 2, read_module)?,
            }),
            13 => Message::Proceed,
            14 => Message::Done,
            15 => Message::Failure(Failure { code: text(body, 1)?, text: text(body, 2)? }),
            32 => Message::Show,
            33 => Message::Sessions(sessions::read_sessions(body)?),
            34 => Message::Attach { session: number(body, 1)?, look: number(body, 2)? != 0 },
            35 => Message::End(number(body, 1)?),
            36 => Message::Reset,
            37 => Message::WasReset(sessions::read_reset(body)?),
            38 => Message::Count(read_create(body)?),
            39 => Message::Stat(number(body, 1)?),
            40 => Message::Counts(sessions::read_counts(body)?),
            41 => Message::Ended {
                session: number(body, 1)?,
                by: text(body, 2)?,
                stopped: read_stopped(bytes(body, 3)?)?,
            },
            48 => Message::ListFunctions,
            49 => Message::Functions(functions::read_functions(body)?),
            64 => Message::Why,
            65 => Message::Stuck(stuck::read(body)?),
            other => Message::Unknown(other),
        })
    }
}

/// Splits the first frame off `buffer`: its payload for [`Message::parse`] and the bytes taken.
/// `None` means that more bytes are needed.
///
/// # Errors
/// When the frame says that it is longer than `limit`, or shorter than its own header.
pub fn next_frame(buffer: &[u8], limit: usize) -> Result<Option<(&[u8], usize)>> {
    let Some(len) = buffer.first_chunk::<4>() else { return Ok(None) };
    let len = u32::from_le_bytes(*len) as usize;
    if !(4..=limit).contains(&len) {
        return Err(Error::new(format!("message of {len} bytes; the limit is {limit}")));
    }
    Ok(buffer.get(4..4 + len).map(|payload| (payload, 4 + len)))
}

#[cfg(test)]
mod tests;
