//! Records of `log`: each place that makes some is a tracepoint, too.
//!
//! A record has no static of its own, so its target, file, line and level name it. They come to us as the
//! program's logger, or through `tracing-log`, whose events carry them as fields, all on five call
//! sites: what is inside is unpacked.

use crate::sites;
use crate::table::Table;
use gracepoint::dynamic::{self, Declaration, Level, Point};
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use tracing_core::field::{Field, Visit};
use tracing_core::{Event, Metadata};

/// A place that makes records.
struct Place {
    target: String,
    file: String,
    line: u32,
    level: Level,
    point: &'static Point,
}

static PLACES: Table<Place> = Table::new();

struct Logger;

/// Installs our logger, unless there is one.
pub(crate) fn install() {
    if log::set_logger(&Logger).is_ok() {
        log::set_max_level(log::LevelFilter::Trace);
    }
}

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if crate::forward::is_forwarding() {
            return;
        }
        let (file, line) = (record.file().unwrap_or_default(), record.line().unwrap_or(0));
        let point = find(record.target(), file, line, level(record.level()));
        point.event(|fields| fields.display(0, record.args()));
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

fn find(target: &str, file: &str, line: u32, level: Level) -> &'static Point {
    let mut hasher = DefaultHasher::new();
    (target, file, line, level).hash(&mut hasher);
    let hash = hasher.finish();
    let same = |place: &'static Place| {
        (place.line, place.level) == (line, level) && place.target == target && place.file == file
    };
    let make = || -> &'static Place {
        let name = if file.is_empty() { "record".to_owned() } else { sites::place(file, line) };
        let point = dynamic::declare(Declaration {
            name: format!("{target}:{name}"),
            level: Some(level),
            file: file.to_owned(),
            line,
            fields: vec!["message".to_owned()],
            span: false,
        });
        let (target, file) = (target.to_owned(), file.to_owned());
        Box::leak(Box::new(Place { target, file, line, level, point }))
    };
    PLACES.find_or_make(hash, same, make).point
}

/// Whether an event is a record of `log` that `tracing-log` has packed.
#[inline]
pub(crate) fn is_bridged(meta: &Metadata<'_>) -> bool {
    meta.target() == "log" && meta.name() == "log event"
}

/// Records what is inside.
#[cold]
pub(crate) fn unwrap(event: &Event<'_>) {
    let mut packed = Packed { target: String::new(), file: String::new(), line: 0 };
    event.record(&mut packed);
    let Packed { target, file, line } = packed;
    let point = find(&target, &file, line, sites::level(event.metadata().level()));
    point.event(|fields| event.record(&mut Message(fields)));
}

struct Packed {
    target: String,
    file: String,
    line: u32,
}

impl Visit for Packed {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "log.target" => value.clone_into(&mut self.target),
            "log.file" => value.clone_into(&mut self.file),
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
