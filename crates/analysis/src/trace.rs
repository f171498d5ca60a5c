//! Opens a trace: what is in the directory, what its events are, what its clock means.
//!
//! Where metadata and sidecar disagree the metadata counts, since it is what other tools read; the
//! sidecar adds exact types, documentation and clock triples to what agrees.

use crate::damage::DamageLog;
use crate::filter::Choice;
use crate::metadata::{self, Metadata};
use crate::plan::Plan;
use crate::read::Reader;
use crate::sidecar::{self, Sidecar};
use crate::stream::Stored;
use crate::{Damage, Error, Result, escape};
use gracepoint_wire::clock::{Clock, Source, Triple, scale};
use gracepoint_wire::profile::{SAMPLE_NAME, STACK_NAME, SWITCH_NAME};
use gracepoint_wire::schema::{Context, Declared, Field, MODULE_NAME, Role, Type};
use gracepoint_wire::{SIDECAR, glob, tsdl};
use std::collections::HashMap;
use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest `metadata` file that is read, in bytes.
const MOST_METADATA: u64 = 32 << 20;
/// Triples must span this many nanoseconds to measure a frequency better than the recorder did.
const BASELINE_NS: u64 = 10_000_000;

/// One kind of record of a trace.
#[derive(Debug, Clone)]
pub struct EventType {
    /// Id, role and schema; the schema's name has no role suffix.
    pub declared: Declared,
    /// The name in the trace, with the role's suffix: `db:query:begin`.
    pub name: String,
    /// The fields as they are written, those that the session's context and the role add included.
    pub fields: Vec<Field>,
    pub(crate) plan: Plan,
}

impl EventType {
    pub(crate) fn new(declared: Declared, context: &[Field]) -> Result<EventType> {
        let (name, own) = (declared.full_name(), declared.full_fields());
        let fields = [context, &own].concat();
        let plan = Plan::new(&fields).ok_or_else(|| {
            Error::new(format!("event {name:?} has a field whose type has no layout"))
        })?;
        Ok(EventType { declared, name, fields, plan })
    }

    /// Whether it is one of Gracepoint's own (`gp:*`) and no event of the program.
    pub fn is_own(&self) -> bool {
        self.name.starts_with("gp:")
    }

    /// Whether it is one that is there for tools (`gp:module`, those of a profile) and chosen only where it
    /// is asked for.
    pub(crate) fn is_for_tools(&self) -> bool {
        [MODULE_NAME, SAMPLE_NAME, STACK_NAME, SWITCH_NAME].contains(&self.name.as_str())
    }

    /// Position of the field called `name`; the event's own before one of the context.
    pub fn field(&self, name: &str) -> Option<usize> {
        self.fields.iter().rposition(|f| f.name == name)
    }
}

/// An opened trace. Nothing of its streams is in memory.
///
/// ```
/// let trace = gracepoint_analysis::Trace::open("tests/kv.trace")?;
/// let names: Vec<&str> = trace.events().iter().map(|event| event.name.as_str()).collect();
/// assert_eq!(names, ["gp:loss", "kv:get", "db:query:begin", "db:query:end", "far:away"]);
/// # Ok::<(), gracepoint_analysis::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Trace {
    dir: PathBuf,
    events: Vec<EventType>,
    clock: Clock,
    env: Vec<(String, String)>,
    sidecar: Option<Sidecar>,
    pub(crate) streams: Vec<Stored>,
    bytes: u64,
    damage: DamageLog,
}

impl Trace {
    /// Opens the trace in `dir`.
    ///
    /// # Errors
    /// When `dir` is no trace, is of another tracer, or was made by a newer version. A missing or
    /// damaged sidecar is no error.
    pub fn open(dir: impl AsRef<Path>) -> Result<Trace> {
        let dir = dir.as_ref();
        let mut damage = DamageLog::default();
        // First, because its error about a newer version is the clearest.
        let sidecar = match sidecar::read_lenient(dir) {
            Ok(Some(Ok(sidecar))) => Some(sidecar),
            Ok(Some(Err(what))) => {
                damage.add(SIDECAR, 0, format!("{what}; the trace is read without it"));
                None
            }
            Ok(None) => None,
            Err(e) if e.is_unreadable() && dir.is_dir() => {
                damage.add(SIDECAR, 0, format!("{e}; the trace is read without it"));
                None
            }
            Err(e) if e.is_unreadable() => None, // the metadata's error says it better
            Err(e) => return Err(e),
        };
        let metadata = read_metadata(dir)?;
        let events = merge_events(&metadata, sidecar.as_ref(), &mut damage)?;
        let clock = pick_clock(&metadata, sidecar.as_ref());
        let (streams, bytes) = list_streams(dir)?;
        if let Some(sidecar) = &sidecar {
            miss_streams(dir, sidecar, &mut damage);
        }
        let dir = dir.to_owned();
        Ok(Trace { dir, events, clock, env: metadata.env, sidecar, streams, bytes, damage })
    }

    /// A trace that is nowhere yet: what a session declares, for [`crate::live`].
    ///
    /// # Errors
    /// When an event has a field whose type has no layout.
    pub fn of(events: &[Declared], context: Context, clock: Clock) -> Result<Trace> {
        let context = context.fields();
        let event = |event: &Declared| EventType::new(event.clone(), &context);
        Ok(Trace {
            dir: PathBuf::new(),
            events: events.iter().map(event).collect::<Result<_>>()?,
            clock,
            env: Vec::new(),
            sidecar: None,
            streams: Vec::new(),
            bytes: 0,
            damage: DamageLog::default(),
        })
    }

    /// The same trace with these bytes in place of its stream files.
    ///
    /// ```
    /// let trace = gracepoint_analysis::Trace::open("tests/kv.trace")?;
    /// let cut: std::sync::Arc<[u8]> = Vec::from(b"no packet").into();
    /// let trace = trace.with_streams([cut]);
    /// assert_eq!((trace.streams(), trace.reader().next_event().is_none()), (1, true));
    /// # Ok::<(), gracepoint_analysis::Error>(())
    /// ```
    #[must_use]
    pub fn with_streams(mut self, streams: impl IntoIterator<Item = Arc<[u8]>>) -> Trace {
        let named = |(n, bytes)| Stored::Memory(format!("stream_{n}"), bytes);
        self.streams = (0u64..).zip(streams).map(named).collect();
        self
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it can contain.
    pub fn events(&self) -> &[EventType] {
        &self.events
    }

    /// What ticks mean: the sidecar's clock where its triples span at least 10 ms, else that of the
    /// metadata.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Name and value pairs of the metadata's `env` block.
    pub fn env(&self) -> &[(String, String)] {
        &self.env
    }

    /// The sidecar, where there is a good one.
    pub fn sidecar(&self) -> Option<&Sidecar> {
        self.sidecar.as_ref()
    }

    /// Number of stream files.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Bytes of all files of the trace when it was opened.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What was wrong with the directory, metadata and sidecar.
    pub fn damage(&self) -> &[Damage] {
        self.damage.list()
    }

    /// What is damaged anywhere, opening the trace included: reads all of it, whatever is wanted.
    #[must_use]
    pub fn check(&self) -> Vec<Damage> {
        let everything = Choice::of(vec![true; self.events().len()]);
        let mut reader = self.reader_of(&everything);
        while reader.next_event().is_some() {}
        reader.into_damage()
    }

    pub(crate) fn damage_log(&self) -> DamageLog {
        self.damage.clone()
    }

    /// Events whose full name, or name without a role's suffix, matches one of `globs`; every
    /// event but those for tools (`gp:module`, a profile's) where there are no globs.
    ///
    /// # Errors
    /// When a glob matches no event of the trace; the message suggests names.
    pub(crate) fn select(&self, globs: &[String]) -> Result<Vec<bool>> {
        let all = |event: &EventType| globs.is_empty() && !event.is_for_tools();
        let mut wanted: Vec<bool> = self.events.iter().map(all).collect();
        for pattern in globs {
            let mut any = false;
            for (event, wanted) in self.events.iter().zip(&mut wanted) {
                let base = &event.declared.schema.name;
                if glob::matches(pattern, &event.name) || glob::matches(pattern, base) {
                    (any, *wanted) = (true, true);
                }
            }
            if !any {
                return Err(self.no_such_event(pattern));
            }
        }
        Ok(wanted)
    }

    pub(crate) fn no_such_event(&self, pattern: &str) -> Error {
        let names = self.events.iter().map(|e| e.name.as_str());
        let near = glob::near(pattern, names, 3);
        let near: Vec<String> = near.into_iter().map(escape::name).collect();
        let hint = match near.is_empty() {
            true => "`gracepoint info` lists its events".to_owned(),
            false => format!("did you mean {}?", near.join(", ")),
        };
        Error::new(format!(
            "no event of {} matches `{}`: {hint}",
            escape::name(&self.dir.display().to_string()),
            escape::name(pattern)
        ))
    }

    /// All events in order of time.
    pub fn reader(&self) -> Reader<'_> {
        Reader::new(self, Choice::of(vec![true; self.events.len()]))
    }

    /// The chosen events in order of time; see [`Trace::choose`].
    pub fn reader_of(&self, choice: &Choice) -> Reader<'_> {
        Reader::new(self, choice.clone())
    }
}

/// Whether a piece of a recording (`record --rotate`) is called so: a number of six digits.
///
/// ```
/// use gracepoint_analysis::trace::is_piece_name;
/// assert!(is_piece_name("000017") && !is_piece_name("17") && !is_piece_name("kv.trace"));
/// ```
pub fn is_piece_name(name: &str) -> bool {
    name.len() == 6 && name.bytes().all(|b| b.is_ascii_digit())
}

/// The latest of the traces that `record --rotate` left in a directory.
fn latest_piece(dir: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(dir).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let named =
        |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).is_some_and(is_piece_name);
    entries.filter(|path| named(path) && path.join("metadata").is_file()).max()
}

fn read_metadata(dir: &Path) -> Result<Metadata> {
    let path = dir.join("metadata");
    let file = sidecar::open_plain(&path).map_err(|e| {
        let dir_shown = dir.display();
        Error::new(match e.kind() {
            ErrorKind::PermissionDenied => {
                format!("{dir_shown} may not be read ({e}): traces are for their owner alone")
            }
            _ => match latest_piece(dir) {
                Some(piece) => format!(
                    "{dir_shown} holds the pieces of a recording with --rotate, each a trace: give one of them, \
                     the latest is {}",
                    piece.display()
                ),
                None => format!(
                    "{dir_shown} is not a trace: cannot open its metadata: {e}; give the directory that \
                     `gracepoint record` made"
                ),
            },
        })
    })?;
    let mut text = Vec::new();
    let read = file.take(MOST_METADATA + 1).read_to_end(&mut text);
    read.map_err(|e| Error::io("read", &path, &e))?;
    if text.len() as u64 > MOST_METADATA {
        return Err(Error::new(format!(
            "{} is larger than {MOST_METADATA} bytes; it is no metadata of ours",
            path.display()
        )));
    }
    metadata::parse(&text).map_err(|e| Error::new(format!("{}: {e}", path.display())))
}

/// The metadata's events, each as the sidecar tells where that has the same layout.
fn merge_events(
    metadata: &Metadata,
    sidecar: Option<&Sidecar>,
    damage: &mut DamageLog,
) -> Result<Vec<EventType>> {
    let mut told: HashMap<u32, _> = HashMap::new();
    for entry in sidecar.iter().flat_map(|s| &s.events) {
        told.insert(entry.id, entry);
    }
    let mut seen = HashMap::new();
    let mut out: Vec<EventType> = Vec::new();
    for event in metadata.events.iter().cloned() {
        let id = event.id;
        let context = &metadata.context;
        if let Some(first) = seen.insert(id, event.full_name()) {
            damage.add("metadata", 0, format!("id {id} is given twice; {first:?} counts"));
            seen.insert(id, first);
            continue;
        }
        let better = told.get(&id).map(|entry| entry.declared());
        match better {
            Some(Ok(better)) if agree(&better, &event) => {
                out.push(EventType::new(better, context)?);
                continue;
            }
            Some(Ok(_)) => {
                let what = format!(
                    "event {:?} is another one here than in the metadata, which counts",
                    event.full_name()
                );
                damage.add(SIDECAR, 0, what);
            }
            Some(Err(e)) => damage.add(SIDECAR, 0, format!("{e}; the metadata counts")),
            None => {}
        }
        out.push(EventType::new(event, context)?);
    }
    out.sort_by_key(|e| e.declared.id);
    Ok(out)
}

/// Same name, same fields, same layout?
fn agree(better: &Declared, event: &Declared) -> bool {
    let (a, b) = (better.full_fields(), event.full_fields());
    let same = |(a, b): (&Field, &Field)| {
        tsdl::identifier(&a.name) == b.name && erased(&a.ty) == erased(&b.ty)
    };
    // TSDL cannot spell control characters.
    let written = better.full_name().replace(char::is_control, "?");
    written == event.full_name() && a.len() == b.len() && a.iter().zip(&b).all(same)
}

/// The type as far as its layout tells.
fn erased(ty: &Type) -> Type {
    match ty {
        Type::Bool => Type::Uint(1),
        Type::Char => Type::Str,
        Type::Duration => Type::Uint(8),
        Type::Enum(size, _) => Type::Uint(*size),
        Type::Option(of) => Type::Option(Box::new(erased(of))),
        other => other.clone(),
    }
}

fn pick_clock(metadata: &Metadata, sidecar: Option<&Sidecar>) -> Clock {
    let block = &metadata.clock;
    let source = if block.name == "tsc" { Source::Tsc } else { Source::Monotonic };
    let told = sidecar.and_then(Sidecar::clock);
    if let Some(mut clock) = told.clone()
        && let [first, .., last] = &clock.triples[..]
        && last.mono_ns.saturating_sub(first.mono_ns) >= BASELINE_NS
    {
        clock.refine();
        return clock;
    }
    let epoch_ns = block.offset_s.saturating_mul(1_000_000_000).saturating_add(scale(
        block.offset,
        1_000_000_000,
        block.freq_hz,
    ));
    Clock {
        source,
        freq_hz: block.freq_hz,
        boot_id: told.map_or([0; 16], |clock| clock.boot_id),
        triples: vec![Triple { ticks: 0, mono_ns: 0, real_ns: epoch_ns }],
    }
}

/// The stream files, in order of their slots, and the bytes of all files.
fn list_streams(dir: &Path) -> Result<(Vec<Stored>, u64)> {
    let fail = |e: &std::io::Error| Error::io("list", dir, e);
    let mut bytes = 0;
    let mut streams = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| fail(&e))? {
        let entry = entry.map_err(|e| fail(&e))?;
        let Ok(about) = fs::metadata(entry.path()) else { continue };
        if !about.is_file() {
            continue;
        }
        bytes += about.len();
        let name = entry.file_name();
        if let Some(rest) = name.to_string_lossy().strip_prefix("stream") {
            let slot: u64 = rest.trim_start_matches('_').parse().unwrap_or(u64::MAX);
            streams.push((slot, entry.path()));
        }
    }
    streams.sort();
    Ok((streams.into_iter().map(|(_, path)| Stored::File(path)).collect(), bytes))
}

/// Notes what has been cut off or taken away since the recorder finished.
fn miss_streams(dir: &Path, sidecar: &Sidecar, damage: &mut DamageLog) {
    for (&stream, &bytes) in &sidecar.streams {
        let file = format!("stream_{stream}");
        match fs::metadata(dir.join(&file)).map(|about| about.len()) {
            Ok(len) if len < bytes => {
                damage.add(
                    &file,
                    len,
                    format!("the last {} of {bytes} bytes are missing", bytes - len),
                );
            }
            Ok(_) => {}
            Err(_) => damage.add(&file, 0, format!("the file is missing, and its {bytes} bytes")),
        }
    }
}

/// Turns ticks into nanoseconds since 1970; the same result as [`Clock::real_ns`], faster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ToNs {
    epoch_ns: u64,
    freq_hz: u64,
}

impl ToNs {
    pub(crate) fn new(clock: &Clock) -> ToNs {
        ToNs { epoch_ns: clock.epoch_ns(), freq_hz: clock.freq_hz.max(1) }
    }

    /// Nanoseconds that so many ticks take.
    #[inline]
    pub(crate) fn length(self, ticks: u64) -> u64 {
        const BILLION: u64 = 1_000_000_000;
        if self.freq_hz == BILLION {
            return ticks;
        }
        // Below 2³⁴ Hz the product of the remainder fits in 64 bits.
        if self.freq_hz < 1 << 34 {
            let (seconds, rest) = (ticks / self.freq_hz, ticks % self.freq_hz);
            return seconds.saturating_mul(BILLION).saturating_add(rest * BILLION / self.freq_hz);
        }
        scale(ticks, BILLION, self.freq_hz)
    }

    #[inline]
    pub(crate) fn real(self, ticks: u64) -> u64 {
        self.epoch_ns.saturating_add(self.length(ticks))
    }
}

/// Whether it is `gp:unthrottle`, laid out as ours.
pub(crate) fn is_unthrottle(event: &EventType) -> bool {
    let [_, ours] = gracepoint_wire::schema::throttle_events();
    event.declared.role == Role::Event && agree(&ours, &event.declared)
}

/// Whether its `id` is the number of another event in the trace: `gp:loss`, `gp:throttle` or `gp:unthrottle`.
pub(crate) fn tells_of_event(event: &EventType) -> bool {
    let [throttle, unthrottle] = gracepoint_wire::schema::throttle_events();
    let ours = [gracepoint_wire::schema::loss_event(), throttle, unthrottle];
    event.declared.role == Role::Event && ours.iter().any(|ours| agree(ours, &event.declared))
}

/// Whether it is `gp:loss`, laid out as ours.
pub(crate) fn is_loss(event: &EventType) -> bool {
    let ours = gracepoint_wire::schema::loss_event();
    event.declared.role == Role::Event && agree(&ours, &event.declared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fast_clock_agrees_with_the_exact_one() {
        let ticks = [0, 1, 999, 1 << 20, 123_456_789_012_345, 1 << 54, u64::MAX / 3, u64::MAX];
        for freq_hz in [1, 7, 1_000_000_000, 1_900_000_001, 2_894_560_000, 1 << 33, 1 << 40] {
            let clock = Clock {
                source: Source::Tsc,
                freq_hz,
                boot_id: [0; 16],
                triples: vec![Triple { ticks: 5, mono_ns: 0, real_ns: 1_700_000_000_000_000_000 }],
            };
            for t in ticks {
                assert_eq!(ToNs::new(&clock).real(t), clock.real_ns(t), "{t} at {freq_hz} Hz");
            }
        }
    }
}
