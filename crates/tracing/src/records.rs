//! Records of `log`: each place that makes some is a tracepoint, too.
//!
//! A record has no static of its own, so its target, file, line and level name it. They come to us as the
//! program's logger, or through `tracing-log`, whose events carry them as fields, all on five call
//! sites: what is inside is unpacked.
//!
//! # What a record costs that nobody wants
//! Beyond `log`'s maximum level it costs a comparison, and while nobody records, that is off (`maximum.rs`). One that
//! comes to us and is off costs a look-up: by the ends of its texts, without hashing the whole of them, locks or
//! allocation. `log_enabled!` is told whether anything of that level is on or may be taken in, or the target is new at
//! that level ([`is_enabled`]), so that a program prepares nothing in vain. `tracing-log` asks before it makes an event of
//! a record, and is told of the place itself ([`is_wanted`]).
//!
//! # Targets that are made up at run time
//! Places stay for good. So that a program that puts, say, a connection's number into its targets does not
//! grow with these, a line has at most [`MOST_TARGETS`] of them, and all lines have [`MOST_PLACES`]. Records with
//! further targets are one tracepoint for the line, `log:more targets of FILE:LINE`, or one for each level, `log:more
//! places`, where all lines together have too many; they have the target as a field.

use crate::table::Table;
use crate::{maximum, sites};
use gracepoint::dynamic::{self, Declaration, Level, Point};
use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Mutex, OnceLock, PoisonError};
use tracing_core::field::{Field, Visit};
use tracing_core::{Event, Metadata};

/// Targets that a line's records are told apart by.
const MOST_TARGETS: usize = 256;
/// Places of all lines.
const MOST_PLACES: usize = 1 << 16;

/// A place that makes records.
struct Place {
    /// `None` for what stands for further targets of the line.
    target: Option<String>,
    file: String,
    line: u32,
    level: Level,
    point: &'static Point,
}

/// A target that makes records of a level.
struct Target {
    target: String,
    level: Level,
}

static PLACES: Table<Place> = Table::new();
static TARGETS: Table<Target> = Table::new();
/// How many targets a line has; and all places. Taken before the tables' own locks.
static COUNTS: Mutex<Option<Counts>> = Mutex::new(None);
/// By level, what all further places are.
static REST: [OnceLock<&'static Point>; 5] = [const { OnceLock::new() }; 5];
/// By level, a bit: whether some place is on.
static ON: AtomicU32 = AtomicU32::new(0);

#[derive(Default)]
struct Counts {
    lines: HashMap<(String, u32, Level), usize>,
    places: Vec<&'static Place>,
}

struct Logger;

/// Installs our logger, unless there is one.
pub(crate) fn install() {
    if log::set_logger(&Logger).is_ok() {
        maximum::install();
    }
}

impl log::Log for Logger {
    fn enabled(&self, meta: &log::Metadata<'_>) -> bool {
        !crate::forward::is_forwarding() && is_enabled(meta.target(), level(meta.level()))
    }

    fn log(&self, record: &log::Record<'_>) {
        if crate::forward::is_forwarding() {
            return;
        }
        let (file, line) = (record.file().unwrap_or_default(), record.line().unwrap_or(0));
        let (point, is_rest) = find(record.target(), file, line, level(record.level()));
        if !point.is_on() {
            return maximum::no_news();
        }
        point.event(|fields| {
            fields.display(0, record.args());
            if is_rest {
                fields.str(1, record.target());
            }
        });
    }

    fn flush(&self) {}
}

fn level(level: log::Level) -> Level {
    match level {
        log::Level::Error => Level::Error,
        log::Level::Warn => Level::Warn,
        log::Level::Info => Level::Info,
        log::Level::Debug => Level::Debug,
        log::Level::Trace => Level::Trace,
    }
}

/// Whether it is worth preparing a record: some place of this level is on, a session takes in new ones, or the target
/// has made none of this level yet, so that nobody can know whether it is wanted.
fn is_enabled(target: &str, level: Level) -> bool {
    ON.load(Acquire) & bit(level) != 0
        || maximum::is_awaited(level)
        || known_target(target, level).is_none()
}

/// Whether a subscriber wants what is no call site of ours: a record that `tracing-log` asks about, whose place is looked
/// up. One without a place is mostly `log_enabled!` that asks; a "no" to that, which no event follows, would stay
/// with the registry as the answer for the thread's next event.
pub(crate) fn is_wanted(meta: &Metadata<'_>) -> bool {
    let (Some(file), Some(line), "log record") = (meta.file(), meta.line(), meta.name()) else {
        return true;
    };
    let known = known(meta.target(), file, line, sites::level(meta.level()));
    known.is_none_or(|(point, _)| point.is_on())
}

/// The most verbose level of places that are on.
pub(crate) fn most_verbose_on() -> Option<Level> {
    let on = ON.load(Acquire);
    Level::ALL.into_iter().rev().find(|level| on & bit(*level) != 0)
}

fn bit(level: Level) -> u32 {
    1 << level as u32
}

/// Places were switched: what is on is looked up anew.
pub(crate) fn follow() {
    let counts = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
    let places =
        counts.iter().flat_map(|counts| &counts.places).map(|place| (place.point, place.level));
    let rest =
        REST.iter().zip(Level::ALL).filter_map(|(point, level)| Some((*point.get()?, level)));
    let on = places.chain(rest).filter(|(point, _)| point.is_on());
    // Under the lock, so that of two changes the later one's answer stays, and none of a place that is made.
    ON.store(on.fold(0, |on, (_, level)| on | bit(level)), Release);
    drop(counts);
    maximum::follow();
}

/// A place has been made, and may be on from the start: a recording under way takes it in.
fn learned(point: &'static Point, level: Level) {
    if point.is_on() {
        ON.fetch_or(bit(level), Release);
    }
}

/// Cheap, and the same for one place: a text's length and ends instead of the whole of it.
fn hash(target: &str, file: &str, line: u32, level: Level) -> u64 {
    let ends = |text: &str| -> u64 {
        let (first, last) = (text.bytes().next(), text.bytes().next_back());
        let middle = text.as_bytes().get(text.len() / 2).copied().unwrap_or(0);
        let [first, last] = [first, last].map(|byte| u64::from(byte.unwrap_or(0)));
        text.len() as u64 ^ first << 16 ^ last << 24 ^ u64::from(middle) << 32
    };
    let line = u64::from(line) << 3 | level as u64;
    (ends(target) ^ ends(file).rotate_left(40))
        .wrapping_add(line.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn known_target(target: &str, level: Level) -> Option<&'static Target> {
    let is = |known: &'static Target| known.level == level && known.target == target;
    TARGETS.find(hash_of_text(target, level), is)
}

fn hash_of_text(text: &str, level: Level) -> u64 {
    let mut hasher = DefaultHasher::new();
    (text, level).hash(&mut hasher);
    hasher.finish()
}

/// What a record is recorded by, and whether its target has to be told.
fn find(target: &str, file: &str, line: u32, level: Level) -> (&'static Point, bool) {
    known(target, file, line, level).unwrap_or_else(|| learn(target, file, line, level))
}

/// The same, if the place is known.
#[inline]
fn known(target: &str, file: &str, line: u32, level: Level) -> Option<(&'static Point, bool)> {
    let is = |place: &'static Place| place.is(Some(target), file, line, level);
    if let Some(place) = PLACES.find(hash(target, file, line, level), is) {
        return Some((place.point, false));
    }
    let is_rest = |place: &'static Place| place.is(None, file, line, level);
    if let Some(place) = PLACES.find(hash("", file, line, level), is_rest) {
        return Some((place.point, true));
    }
    REST[level as usize - 1].get().map(|rest| (*rest, true))
}

impl Place {
    fn is(&self, target: Option<&str>, file: &str, line: u32, level: Level) -> bool {
        (self.line, self.level) == (line, level)
            && self.target.as_deref() == target
            && self.file == file
    }
}

#[cold]
fn learn(target: &str, file: &str, line: u32, level: Level) -> (&'static Point, bool) {
    let mut counts = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
    let counts = counts.get_or_insert_default();
    if counts.places.len() >= MOST_PLACES {
        let name = "log:more places".to_owned();
        let rest = *REST[level as usize - 1].get_or_init(|| declare(name, "", 0, level, true));
        learned(rest, level);
        return (rest, true);
    }
    let of_line = counts.lines.entry((file.to_owned(), line, level)).or_default();
    let is_rest = *of_line >= MOST_TARGETS;
    let own = (!is_rest).then_some(target);
    let made = || -> &'static Place {
        let at = if file.is_empty() { "record".to_owned() } else { sites::place(file, line) };
        let name = match own {
            Some(target) => format!("{target}:{at}"),
            None => format!("log:more targets of {at}"),
        };
        let point = declare(name, file, line, level, is_rest);
        let (target, file) = (own.map(str::to_owned), file.to_owned());
        Box::leak(Box::new(Place { target, file, line, level, point }))
    };
    let hash = hash(own.unwrap_or_default(), file, line, level);
    let mut new = false;
    let place = PLACES.find_or_make(
        hash,
        |place| place.is(own, file, line, level),
        || {
            new = true;
            made()
        },
    );
    if new {
        *of_line += 1;
        counts.places.push(place);
        maximum::has_news();
        if let Some(target) = own {
            let is = |known: &'static Target| known.level == level && known.target == target;
            TARGETS.find_or_make(hash_of_text(target, level), is, || {
                Box::leak(Box::new(Target { target: target.to_owned(), level }))
            });
        }
        learned(place.point, level);
    }
    (place.point, is_rest)
}

fn declare(name: String, file: &str, line: u32, level: Level, is_rest: bool) -> &'static Point {
    let fields = if is_rest { &["message", "target"][..] } else { &["message"] };
    dynamic::declare(Declaration {
        name,
        level: Some(level),
        file: file.to_owned(),
        line,
        fields: fields.iter().map(|&name| name.to_owned()).collect(),
        span: false,
    })
}

/// Whether an event is a record of `log` that `tracing-log` has packed.
#[inline]
pub(crate) fn is_bridged(meta: &Metadata<'_>) -> bool {
    meta.target() == "log" && meta.name() == "log event"
}

/// Records what is inside.
#[cold]
pub(crate) fn unwrap(event: &Event<'_>) {
    let mut packed = Packed { target: Text::new(), file: Text::new(), line: 0 };
    event.record(&mut packed);
    let Packed { target, file, line } = &packed;
    let level = sites::level(event.metadata().level());
    let (point, is_rest) = find(target.get(), file.get(), *line, level);
    point.event(|fields| {
        event.record(&mut Message(fields));
        if is_rest {
            fields.str(1, target.get());
        }
    });
}

/// A text of a record, which is kept while it is looked up: without allocation unless it is long.
struct Text {
    short: [u8; 160],
    len: usize,
    long: String,
}

impl Text {
    fn new() -> Text {
        Text { short: [0; 160], len: 0, long: String::new() }
    }

    fn set(&mut self, text: &str) {
        match self.short.get_mut(..text.len()) {
            Some(short) => {
                short.copy_from_slice(text.as_bytes());
                self.len = text.len();
            }
            None => text.clone_into(&mut self.long),
        }
    }

    fn get(&self) -> &str {
        match self.long.is_empty() {
            true => std::str::from_utf8(&self.short[..self.len]).unwrap_or_default(),
            false => &self.long,
        }
    }
}

struct Packed {
    target: Text,
    file: Text,
    line: u32,
}

impl Visit for Packed {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "log.target" => self.target.set(value),
            "log.file" => self.file.set(value),
            _ => {}
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "log.line" {
            self.line = value.try_into().unwrap_or(0);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

struct Message<'f, 'r>(&'f mut dynamic::Fields<'r>);

impl Visit for Message<'_, '_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0.debug(0, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_targets_are_bounded() {
        let of = |n: usize| find(&format!("made-up-{n}"), "src/made_up.rs", 7, Level::Debug);
        let first: Vec<_> = (0..MOST_TARGETS).map(of).collect();
        assert!(first.iter().all(|(_, is_rest)| !is_rest));
        let rest = of(MOST_TARGETS);
        assert!(rest.1);
        for n in MOST_TARGETS..10 * MOST_TARGETS {
            let (point, is_rest) = of(n);
            assert!(is_rest && std::ptr::eq(point, rest.0), "{n}");
        }
        // Those that were known are known still, and another line has its own.
        assert!((0..MOST_TARGETS).all(|n| std::ptr::eq(of(n).0, first[n].0)));
        assert!(!find("made-up-9999", "src/made_up.rs", 8, Level::Debug).1);
    }

    #[test]
    fn texts_are_kept_whatever_their_length() {
        for len in [0, 1, 159, 160, 161, 1000] {
            let long = "ß".repeat(len / 2) + if len % 2 == 1 { "a" } else { "" };
            let mut text = Text::new();
            text.set(&long);
            assert_eq!(text.get(), long);
        }
    }

    #[test]
    fn places_differ_by_each_of_their_parts() {
        let point = |target, file, line, level| find(target, file, line, level).0;
        let one = point("parts", "src/parts.rs", 1, Level::Info);
        let others = [
            point("parti", "src/parts.rs", 1, Level::Info),
            point("pXrts", "src/parts.rs", 1, Level::Info),
            point("parts", "src/pXrts.rs", 1, Level::Info),
            point("parts", "src/parts.rs", 2, Level::Info),
            point("parts", "src/parts.rs", 1, Level::Warn),
        ];
        assert!(others.iter().all(|other| !std::ptr::eq(*other, one)));
        assert!(std::ptr::eq(one, point("parts", "src/parts.rs", 1, Level::Info)));
    }
}
