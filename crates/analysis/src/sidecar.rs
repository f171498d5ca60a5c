//! The hidden `.gracepoint.json` beside a trace's `metadata`: what TSDL cannot say (documentation,
//! exact types, roles, clock triples, whether the trace is complete).
//!
//! A recorder writes it at the start with `complete: false`, may write it again while it runs, and
//! writes it a last time at the end. A trace can be read without it. Fields that this version does
//! not know are ignored; a format version above [`FORMAT`] is an error.

use crate::{Error, Result, escape};
use gracepoint_wire::SIDECAR;
use gracepoint_wire::clock::{Clock, Source, Triple};
use gracepoint_wire::schema::{Declared, Field, Role, Schema};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

/// Version of the format that this crate writes, and the newest that it reads.
pub const FORMAT: u32 = 1;
/// Largest sidecar that is read, in bytes.
const MOST: u64 = 64 << 20;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sidecar {
    /// Format version, [`FORMAT`].
    pub gracepoint: u32,
    /// Whether the recorder came to its end and everything that was recorded is here.
    #[serde(default)]
    pub complete: bool,
    /// Why the recording ended: `duration`, `interrupted`, `program-exit`, `program-killed`, …;
    /// empty while it runs.
    #[serde(default)]
    pub ended: String,
    /// The traced program.
    #[serde(default)]
    pub program: ProgramEntry,
    /// What ticks mean.
    #[serde(default)]
    pub clock: ClockEntry,
    /// What ids mean.
    #[serde(default)]
    pub events: Vec<EventEntry>,
    /// Events lost, by id: exact totals at the end, empty before.
    #[serde(default)]
    pub lost: BTreeMap<u32, u64>,
    /// Bytes of each stream file by the number in its name: exact at the end, empty before. A reader
    /// sees by them what has been cut or taken away since.
    #[serde(default)]
    pub streams: BTreeMap<u64, u64>,
    /// Who could still have been writing when the recording ended.
    #[serde(default)]
    pub holdouts: Vec<String>,
    /// Which piece of a recording this is, counted from 1; 0 for one that is a whole. What is lost in
    /// one piece may be told by the next.
    #[serde(default)]
    pub piece: u64,
    /// The tool that wrote it, such as `gracepoint 0.1.0`.
    #[serde(default)]
    pub tool: String,
    /// What the ids in `gp:function_entry` and its kin mean: those that were wanted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub functions: Vec<FunctionEntry>,
}

/// A function that was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FunctionEntry {
    /// Its id.
    pub id: u32,
    /// Its path, demangled; `0x` and its address where no symbol says more.
    pub name: String,
    /// Its source file; empty where that is not known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub file: String,
    /// The line there.
    #[serde(skip_serializing_if = "is_zero")]
    pub line: u32,
    /// File name of the object that it lies in; empty for those with the attribute.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub object: String,
    /// The event that follows its entry and tells its arguments; empty for none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub args: String,
    /// The event that comes before its exit and tells what it returned; empty for none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub returns: String,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// The traced program.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ProgramEntry {
    /// Its name.
    pub name: String,
    /// Its pid, as it sees itself.
    pub pid: u32,
    /// Path of its executable.
    pub exe: String,
    /// Its arguments, where the recorder knows them.
    pub args: Vec<String>,
    /// Whether its code keeps frame pointers, which stacks are found by; none where it does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame_pointers: Option<bool>,
}

/// What ticks mean.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ClockEntry {
    /// `tsc` or `monotonic`.
    pub source: String,
    /// Ticks per second.
    pub freq_hz: u64,
    /// The machine's boot id: 32 hexadecimal digits.
    pub boot_id: String,
    /// Ticks, monotonic nanoseconds, nanoseconds since 1970; in order of time.
    pub triples: Vec<(u64, u64, u64)>,
}

/// What one id means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventEntry {
    /// The number in the event header.
    pub id: u32,
    /// What kind of record it is.
    pub role: RoleEntry,
    /// The event's name in the program, without the role's suffix.
    pub name: String,
    /// Schema hash: 16 hexadecimal digits.
    #[serde(default)]
    pub hash: String,
    /// The struct's doc comment.
    #[serde(default)]
    pub docs: String,
    /// Its own fields, without those that the role adds.
    #[serde(default)]
    pub fields: Vec<FieldEntry>,
}

/// [`Role`], spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoleEntry {
    /// A point in time.
    Event,
    /// A span begins.
    Begin,
    /// A span ends.
    End,
    /// A thread enters a span.
    Enter,
    /// It leaves.
    Exit,
    /// Values of a span that came later.
    Record,
    /// A span follows another.
    Follows,
}

/// One field of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldEntry {
    /// Its name.
    pub name: String,
    /// The canonical spelling of its type.
    #[serde(rename = "type")]
    pub ty: String,
    /// Its doc comment.
    #[serde(default)]
    pub docs: String,
}

impl Sidecar {
    /// A sidecar for a recording that begins: not complete, nothing lost.
    ///
    /// ```
    /// use gracepoint_analysis::sidecar::{ProgramEntry, Sidecar};
    /// use gracepoint_wire::clock::{Clock, Source};
    /// use gracepoint_wire::schema::loss_event;
    ///
    /// let clock = Clock {
    ///     source: Source::Monotonic,
    ///     freq_hz: 1_000_000_000,
    ///     boot_id: [0xab; 16],
    ///     triples: Vec::new(),
    /// };
    /// let begun = Sidecar::new(ProgramEntry::default(), &clock, &[loss_event()]);
    /// assert!(!begun.complete);
    /// assert_eq!(begun.events[0].name, "gp:loss");
    /// assert_eq!(begun.declared().unwrap(), [loss_event()]);
    /// ```
    pub fn new(program: ProgramEntry, clock: &Clock, events: &[Declared]) -> Sidecar {
        Sidecar {
            gracepoint: FORMAT,
            complete: false,
            ended: String::new(),
            program,
            clock: clock.into(),
            events: events.iter().map(EventEntry::from).collect(),
            lost: BTreeMap::new(),
            streams: BTreeMap::new(),
            holdouts: Vec::new(),
            piece: 0,
            tool: concat!("gracepoint ", env!("CARGO_PKG_VERSION")).into(),
            functions: Vec::new(),
        }
    }

    /// The clock; `None` where its source or frequency is not known or it has no triple.
    pub fn clock(&self) -> Option<Clock> {
        let entry = &self.clock;
        let source =
            [Source::Tsc, Source::Monotonic].into_iter().find(|s| s.name() == entry.source)?;
        if entry.freq_hz == 0 || entry.triples.is_empty() {
            return None;
        }
        let boot = u128::from_str_radix(&entry.boot_id, 16).unwrap_or_default();
        let triples = entry
            .triples
            .iter()
            .map(|&(ticks, mono_ns, real_ns)| Triple { ticks, mono_ns, real_ns })
            .collect();
        Some(Clock { source, freq_hz: entry.freq_hz, boot_id: boot.to_be_bytes(), triples })
    }

    /// The events as the program declared them.
    ///
    /// # Errors
    /// When a field's type is spelled in a way that this version does not know.
    pub fn declared(&self) -> Result<Vec<Declared>> {
        self.events.iter().map(EventEntry::declared).collect()
    }
}

impl EventEntry {
    /// The event as the program declared it.
    ///
    /// # Errors
    /// When a field's type is spelled in a way that this version does not know.
    pub fn declared(&self) -> Result<Declared> {
        let field = |f: &FieldEntry| {
            let ty = f.ty.parse().map_err(|e| {
                Error::new(format!("event {:?}, field {:?}: {e}", self.name, f.name))
            })?;
            Ok(Field { name: f.name.clone(), ty, docs: f.docs.clone() })
        };
        let fields = self.fields.iter().map(field).collect::<Result<_>>()?;
        let schema = Schema { name: self.name.clone(), docs: self.docs.clone(), fields };
        Ok(Declared { id: self.id, role: self.role.into(), schema })
    }
}

impl From<&Declared> for EventEntry {
    fn from(event: &Declared) -> EventEntry {
        let field = |f: &Field| FieldEntry {
            name: f.name.clone(),
            ty: f.ty.to_string(),
            docs: f.docs.clone(),
        };
        EventEntry {
            id: event.id,
            role: event.role.into(),
            name: event.schema.name.clone(),
            hash: format!("{:016x}", event.schema.hash()),
            docs: event.schema.docs.clone(),
            fields: event.schema.fields.iter().map(field).collect(),
        }
    }
}

impl From<&Clock> for ClockEntry {
    fn from(clock: &Clock) -> ClockEntry {
        ClockEntry {
            source: clock.source.name().into(),
            freq_hz: clock.freq_hz,
            boot_id: format!("{:032x}", u128::from_be_bytes(clock.boot_id)),
            triples: clock.triples.iter().map(|t| (t.ticks, t.mono_ns, t.real_ns)).collect(),
        }
    }
}

impl From<Role> for RoleEntry {
    fn from(role: Role) -> RoleEntry {
        match role {
            Role::Event => RoleEntry::Event,
            Role::Begin => RoleEntry::Begin,
            Role::End => RoleEntry::End,
            Role::Enter => RoleEntry::Enter,
            Role::Exit => RoleEntry::Exit,
            Role::Record => RoleEntry::Record,
            Role::Follows => RoleEntry::Follows,
        }
    }
}

impl From<RoleEntry> for Role {
    fn from(role: RoleEntry) -> Role {
        match role {
            RoleEntry::Event => Role::Event,
            RoleEntry::Begin => Role::Begin,
            RoleEntry::End => Role::End,
            RoleEntry::Enter => Role::Enter,
            RoleEntry::Exit => Role::Exit,
            RoleEntry::Record => Role::Record,
            RoleEntry::Follows => Role::Follows,
        }
    }
}

/// Opens a file that is a file: to open a pipe would wait for its other end, and a device never ends.
pub(crate) fn open_plain(path: &Path) -> io::Result<File> {
    if fs::metadata(path)?.is_file() {
        return File::open(path);
    }
    Err(io::Error::new(ErrorKind::InvalidInput, "it is not a plain file"))
}

/// Reads the sidecar of the trace in `dir`; `None` where there is none.
///
/// # Errors
/// When it cannot be read, is not such a file (see [`read_lenient`] to go on without it), or was
/// made by a newer version.
pub fn read(dir: &Path) -> Result<Option<Sidecar>> {
    read_lenient(dir)?.map(|found| found.map_err(Error::new)).transpose()
}

/// Like [`read`], but what is not a sidecar comes back as the inner error, in words: a trace can be
/// read without it.
///
/// # Errors
/// When it exists and cannot be read, or was made by a newer version.
pub fn read_lenient(dir: &Path) -> Result<Option<std::result::Result<Sidecar, String>>> {
    let path = dir.join(SIDECAR);
    let file = match open_plain(&path) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound) => return Ok(None),
        Err(e) => return Err(Error::io("open", &path, &e)),
    };
    let mut text = Vec::new();
    let read = file.take(MOST + 1).read_to_end(&mut text);
    read.map_err(|e| Error::io("read", &path, &e))?;
    if text.len() as u64 > MOST {
        return Ok(Some(Err(format!("{} is larger than {MOST} bytes", path.display()))));
    }
    // The version first: a newer file may not fit the structs of this version.
    #[derive(Deserialize)]
    struct Version {
        gracepoint: u64,
    }
    // The parser's words may quote the file.
    let bad = |e: serde_json::Error| {
        format!("{} is not a sidecar: {}", path.display(), escape::name(&e.to_string()))
    };
    let version = match serde_json::from_slice::<Version>(&text) {
        Ok(version) => version.gracepoint,
        Err(e) => return Ok(Some(Err(bad(e)))),
    };
    if version > u64::from(FORMAT) {
        return Err(Error::new(format!(
            "{} was made by a newer version of gracepoint (format {version}, this one reads up to \
             {FORMAT}); use a newer gracepoint",
            path.display()
        )));
    }
    Ok(Some(serde_json::from_slice(&text).map_err(bad)))
}

/// Writes the sidecar of the trace in `dir`: to a temporary file with mode 0600 that is then
/// renamed, so that a reader finds the old one or the new one, whole. Not synced to the disk: what
/// it guards against is a killed recorder, not a power cut.
///
/// # Errors
/// When the directory does not exist or cannot be written to.
pub fn write(dir: &Path, sidecar: &Sidecar) -> Result<()> {
    let temp = dir.join(format!("{SIDECAR}.{}", std::process::id()));
    let path = dir.join(SIDECAR);
    let text = serde_json::to_vec_pretty(sidecar)
        .map_err(|e| Error::new(format!("cannot spell {}: {e}", path.display())))?;
    let result = create_anew(&temp).and_then(|mut file| file.write_all(&text));
    let result = result.and_then(|()| fs::rename(&temp, &path));
    result.map_err(|e| {
        let _ = fs::remove_file(&temp);
        Error::io("write", &path, &e)
    })
}

/// Creates a file that was not there before; a leftover of a killed recorder is removed.
fn create_anew(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let create = || options.open(path);
    create().or_else(|e| {
        if e.kind() == ErrorKind::AlreadyExists {
            fs::remove_file(path)?;
            return create();
        }
        Err(e)
    })
}
