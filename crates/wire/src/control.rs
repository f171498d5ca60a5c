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

mod functions;
mod sessions;

pub use functions::{
    ENTRY_ID, ENTRY_NAME, EXIT_ID, EXIT_NAME, Function, FunctionKind, FunctionObject, Functions,
    FunctionsWanted, WHOLE_ID, WHOLE_NAME, function_events,
};
pub use sessions::{
    Count, Counts, LogEntry, Origin, SessionInfo, SessionState, Sessions, WasReset,
};

use crate::clock::{Clock, Source, Triple};
use crate::schema::{Context, Declared, Field, Role, Schema};
use crate::tlv::{Builder, Item, items};
use crate::{ABI_MAJOR, ABI_MINOR, Error, Result};

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

/// What the buffers do when they are full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Mode {
    /// New events are lost and counted.
    #[default]
    Discard = 0,
    /// The oldest pages are written over, and their events counted as lost: a flight recorder.
    Overwrite = 1,
}

impl Mode {
    /// The mode with this number.
    pub fn from_u64(n: u64) -> Option<Mode> {
        [Mode::Discard, Mode::Overwrite].into_iter().find(|mode| *mode as u64 == n)
    }
}

/// Request: a new session, still off.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Create {
    /// Which events; an event that any pattern matches is in.
    pub globs: Vec<String>,
    /// Bytes of all pages together; 0 for the program's default.
    pub buffer_bytes: u64,
    /// What to do when they are full.
    pub mode: Mode,
    /// What to add to each event.
    pub context: Context,
    /// What to leave out.
    pub limits: Limits,
    /// The session stays when the connection goes, until it is ended.
    pub keep: bool,
    /// What to call it; names of kept sessions differ within a program.
    pub name: String,
    /// What the tool calls itself, for `Show`.
    pub tool: String,
    /// Which functions; `globs` may be empty where there are some.
    pub functions: Option<FunctionsWanted>,
}

/// Which of the events that fire are recorded. What is left out is counted, and the counts are in
/// the trace. The default leaves out nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// At most so many per second of each kind of event; 0 for no limit.
    pub max_rate: u64,
    /// One of so many of each kind of event; 0 and 1 for all.
    pub sample: u64,
    /// At most so many millionths of a CPU's time for recording, in the whole program; 0 for no
    /// limit. The session lowers `max_rate` by itself to keep to it.
    pub max_overhead_ppm: u32,
}

/// An executable or shared object of the program, for `gp:module`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Module {
    /// When it was first seen to be loaded, in ticks.
    pub at: u64,
    /// Address of the first byte that is mapped.
    pub base: u64,
    /// Bytes from there to the end of its last segment.
    pub size: u64,
    /// The linker's build id; empty if there is none.
    pub build_id: Vec<u8>,
    /// Its file, as the program sees it.
    pub path: String,
}

/// Reply to `Flush`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Flushed {
    /// So many pages were closed.
    pub pages: u32,
    /// Objects that this connection has not been told of.
    pub modules: Vec<Module>,
}

/// Reply to [`Create`] and to `Attach`; the arena's descriptor comes with it. Reply to `Count`, without
/// a descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Names the session in later requests.
    pub session: u64,
    /// What the ids in its packets mean.
    pub events: Vec<Declared>,
    /// What its ticks mean.
    pub clock: Clock,
    /// What lies before the fields of each event.
    pub context: Context,
    /// The objects that the program has loaded, as far as the session has seen them.
    pub modules: Vec<Module>,
}

/// Reply to `Stop`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stopped {
    /// True when nobody can still be writing; else who is, in `holdouts`.
    pub settled: bool,
    /// Threads still inside a read section, as text: `thread 4242 (worker-3)`.
    pub holdouts: Vec<String>,
    /// The moment of the stop.
    pub at: Triple,
    /// Objects that this connection has not been told of.
    pub modules: Vec<Module>,
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

fn triple_bytes(t: &Triple) -> [u8; 24] {
    let mut b = [0; 24];
    b[..8].copy_from_slice(&t.ticks.to_le_bytes());
    b[8..16].copy_from_slice(&t.mono_ns.to_le_bytes());
    b[16..].copy_from_slice(&t.real_ns.to_le_bytes());
    b
}

fn write_hello(b: &mut Builder, hello: &Hello) {
    b.u64(1, hello.major.into()).u64(2, hello.minor.into()).u64(3, hello.features);
    if let Some(p) = &hello.program {
        b.nested(4, |b| {
            b.str(1, &p.name).u64(2, p.pid.into()).str(3, &p.exe).u64(4, p.since_ns);
            b.str(5, &p.patching).str(6, &p.launched_by);
            b.u64(7, p.events_on.into()).u64(8, p.events.into()).u64(9, p.waiting.into());
            if !p.object.is_empty() {
                b.str(10, &p.object);
            }
        });
    }
}

fn read_hello(body: &[u8]) -> Result<Hello> {
    let mut hello = Hello::default();
    for item in items(body) {
        let item = item?;
        match item.tag {
            1 => hello.major = item.u64()?.try_into().unwrap_or(u16::MAX),
            2 => hello.minor = item.u64()?.try_into().unwrap_or(u16::MAX),
            3 => hello.features = item.u64()?,
            4 => hello.program = Some(read_program(item.value)?),
            _ => {}
        }
    }
    Ok(hello)
}

fn read_program(body: &[u8]) -> Result<Program> {
    let mut p = Program::default();
    for item in items(body) {
        let item = item?;
        match item.tag {
            1 => p.name = item.string()?,
            2 => p.pid = item.u32()?,
            3 => p.exe = item.string()?,
            4 => p.since_ns = item.u64()?,
            5 => p.patching = item.string()?,
            6 => p.launched_by = item.string()?,
            7 => p.events_on = item.u32()?,
            8 => p.events = item.u32()?,
            9 => p.waiting = item.u64()? != 0,
            10 => p.object = item.string()?,
            _ => {}
        }
    }
    Ok(p)
}

fn write_schema(b: &mut Builder, schema: &Schema) {
    b.str(1, &schema.name).str(2, &schema.docs);
    for field in &schema.fields {
        b.nested(3, |b| {
            b.str(1, &field.name).str(2, &field.ty.to_string()).str(3, &field.docs);
        });
    }
}

fn read_schema(body: &[u8]) -> Result<Schema> {
    let fields = list(body, 3, |b| {
        let ty = text(b, 2)?.parse()?;
        Ok(Field { name: text(b, 1)?, ty, docs: text(b, 3)? })
    })?;
    Ok(Schema { name: text(body, 1)?, docs: text(body, 2)?, fields })
}

fn write_listed(b: &mut Builder, e: &Listed) {
    b.nested(1, |b| write_schema(b, &e.schema));
    b.u64(2, e.sites.into()).u64(3, e.spans.into()).u64(4, e.on.into()).str(5, &e.location);
}

fn read_listed(body: &[u8]) -> Result<Listed> {
    Ok(Listed {
        schema: read_schema(bytes(body, 1)?)?,
        sites: number32(body, 2)?,
        spans: number32(body, 3)?,
        on: number32(body, 4)?,
        location: text(body, 5)?,
    })
}

fn write_declared(b: &mut Builder, d: &Declared) {
    b.u64(1, d.id.into()).u64(2, d.role as u64).nested(3, |b| write_schema(b, &d.schema));
}

fn read_declared(body: &[u8]) -> Result<Declared> {
    let role = u8::try_from(number(body, 2)?).ok().and_then(Role::from_u8);
    Ok(Declared {
        id: number32(body, 1)?,
        role: role.ok_or_else(|| Error::new("event of an unknown role"))?,
        schema: read_schema(bytes(body, 3)?)?,
    })
}

fn write_clock(b: &mut Builder, clock: &Clock) {
    b.u64(1, clock.source as u64).u64(2, clock.freq_hz).bytes(3, &clock.boot_id);
    for t in &clock.triples {
        b.bytes(4, &triple_bytes(t));
    }
}

fn read_clock(body: &[u8]) -> Result<Clock> {
    let source = u8::try_from(number(body, 1)?).ok().and_then(Source::from_u8);
    let boot_id = bytes(body, 3)?.try_into();
    let clock = Clock {
        source: source.ok_or_else(|| Error::new("clock of an unknown kind"))?,
        freq_hz: number(body, 2)?,
        boot_id: boot_id.map_err(|_| Error::new("boot id is not 16 bytes"))?,
        triples: list(body, 4, |b| crate::arena::parse_triple(b).ok_or_else(short_triple))?,
    };
    if clock.freq_hz == 0 || clock.triples.is_empty() {
        return Err(Error::new("clock without frequency or reference"));
    }
    Ok(clock)
}

fn write_create(b: &mut Builder, create: &Create) {
    for glob in &create.globs {
        b.str(1, glob);
    }
    let Limits { max_rate, sample, max_overhead_ppm } = create.limits;
    b.u64(2, create.buffer_bytes).u64(3, create.mode as u64);
    b.u64(4, create.context.bits().into());
    b.u64(5, max_rate).u64(6, sample).u64(7, max_overhead_ppm.into());
    b.u64(32, create.keep.into()).str(33, &create.name).str(34, &create.tool);
    if let Some(wanted) = &create.functions {
        b.nested(35, |b| functions::write_wanted(b, wanted));
    }
}

fn read_create(body: &[u8]) -> Result<Create> {
    let mode = Mode::from_u64(number(body, 3)?);
    Ok(Create {
        globs: list(body, 1, |b| Item { tag: 1, value: b }.string())?,
        buffer_bytes: number(body, 2)?,
        mode: mode.ok_or_else(|| Error::new("buffer mode is not known"))?,
        context: Context::from_bits(number32(body, 4)?),
        limits: Limits {
            max_rate: number(body, 5)?,
            sample: number(body, 6)?,
            max_overhead_ppm: number32(body, 7)?,
        },
        keep: number(body, 32)? != 0,
        name: text(body, 33)?,
        tool: text(body, 34)?,
        functions: list(body, 35, functions::read_wanted)?.pop(),
    })
}

fn write_stopped(b: &mut Builder, stopped: &Stopped) {
    b.u64(1, u64::from(stopped.settled)).bytes(2, &triple_bytes(&stopped.at));
    for who in &stopped.holdouts {
        b.str(3, who);
    }
    write_modules(b, 4, &stopped.modules);
}

fn write_modules(b: &mut Builder, tag: u16, modules: &[Module]) {
    for module in modules {
        b.nested(tag, |b| {
            b.u64(1, module.at).u64(2, module.base).u64(3, module.size);
            b.bytes(4, &module.build_id).str(5, &module.path);
        });
    }
}

fn read_module(body: &[u8]) -> Result<Module> {
    Ok(Module {
        at: number(body, 1)?,
        base: number(body, 2)?,
        size: number(body, 3)?,
        build_id: bytes(body, 4)?.to_vec(),
        path: text(body, 5)?,
    })
}

fn read_stopped(body: &[u8]) -> Result<Stopped> {
    Ok(Stopped {
        settled: number(body, 1)? != 0,
        at: triple(body, 2)?,
        holdouts: list(body, 3, |b| Item { tag: 3, value: b }.string())?,
        modules: list(body, 4, read_module)?,
    })
}

fn read_created(body: &[u8]) -> Result<Created> {
    Ok(Created {
        session: number(body, 1)?,
        clock: read_clock(bytes(body, 2)?)?,
        events: list(body, 3, read_declared)?,
        context: Context::from_bits(number32(body, 4)?),
        modules: list(body, 5, read_module)?,
    })
}

fn read_pages(body: &[u8]) -> Result<Vec<(u32, u64)>> {
    let bytes = bytes(body, 2)?;
    if bytes.len() % 12 != 0 {
        return Err(Error::new("list of pages is cut"));
    }
    Ok(bytes
        .chunks_exact(12)
        .map(|c| {
            let word = |at: usize| u32::from_le_bytes([c[at], c[at + 1], c[at + 2], c[at + 3]]);
            (word(0), u64::from(word(4)) | u64::from(word(8)) << 32)
        })
        .collect())
}

fn short_triple() -> Error {
    Error::new("clock triple is not 24 bytes")
}

fn triple(body: &[u8], tag: u16) -> Result<Triple> {
    crate::arena::parse_triple(bytes(body, tag)?).ok_or_else(short_triple)
}

/// The last field with this tag, or an empty one.
fn bytes(body: &[u8], tag: u16) -> Result<&[u8]> {
    let mut found: &[u8] = &[];
    for item in items(body) {
        let item = item?;
        if item.tag == tag {
            found = item.value;
        }
    }
    Ok(found)
}

/// 0 where there is no such field.
fn number(body: &[u8], tag: u16) -> Result<u64> {
    Item { tag, value: bytes(body, tag)? }.u64()
}

fn number32(body: &[u8], tag: u16) -> Result<u32> {
    Item { tag, value: bytes(body, tag)? }.u32()
}

fn text(body: &[u8], tag: u16) -> Result<String> {
    Item { tag, value: bytes(body, tag)? }.string()
}

fn list<T>(body: &[u8], tag: u16, read: impl Fn(&[u8]) -> Result<T>) -> Result<Vec<T>> {
    let mut all = Vec::new();
    for item in items(body) {
        let item = item?;
        if item.tag == tag {
            all.push(read(item.value)?);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
