//! Tracepoints that are declared at run time: the door for bridges from other instrumentation.
//!
//! An event struct is known when the program is built. A call site of another library is known when it is
//! first hit, and the types of its values at each hit. [`declare`] makes a tracepoint of such a site:
//! from then on it is listed, switched, filtered and recorded like any other, by the same sessions into
//! the same ring. What differs, and why:
//!
//! * It has no site that could be patched. Whoever declares it asks [`Point::is_on`], a load, or keeps a
//!   switch of its own and is told of changes ([`on_change`]), once for each batch.
//! * Its fields are of the type `any`: each value says what it is. The types of a call site may differ
//!   from hit to hit (a generic function has one call site for all its types), and a session has to
//!   declare its events before the first hit.
//! * A session that is running when it is declared takes it in if the session's patterns match it
//!   (`dynamic/registry.rs`), before `declare` returns: the hit that led to the declaration is recorded.
//! * Its spans may be entered and left many times, get values later, and follow others.
//!
//! A point lives as long as the program: call sites are statics, and there are so many of them.
//!
//! Nothing here allocates, locks or makes a system call but [`declare`] and what is said to.

mod fields;
#[cfg(gp_supported)]
pub(crate) mod registry;

pub use fields::Fields;
pub use gracepoint_wire::schema::Level;

use crate::event::{EventDesc, FieldDesc};
use crate::field::TypeDesc;
use crate::key::{Key, SpanPoint, fire, fire_sessions, hit_quickly};
use gracepoint_wire::schema::Role;
use std::ptr;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{Acquire, Release};

/// Most fields of a point; a declaration's further ones are left out.
pub const MOST_FIELDS: usize = 64;

/// What is declared.
///
/// ```
/// use gracepoint::dynamic::{Level, declare, Declaration};
/// let point = declare(Declaration {
///     name: "hyper::proto:parsed".into(),
///     level: Some(Level::Debug),
///     file: "src/proto.rs".into(),
///     line: 17,
///     fields: vec!["bytes".into(), "message".into()],
///     span: false,
/// });
/// point.event(|fields| {
///     fields.u64(0, 512);
///     fields.display(1, &"parsed 3 headers");
/// });
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Declaration {
    /// The tracepoint's name, `target:name`.
    pub name: String,
    /// How urgent its events are; sessions may choose by that.
    pub level: Option<Level>,
    /// The source file.
    pub file: String,
    /// The line there.
    pub line: u32,
    /// Names of the fields.
    pub fields: Vec<String>,
    /// It is a span's, not an event's.
    pub span: bool,
}

/// A tracepoint that was declared at run time.
#[derive(Debug)]
pub struct Point {
    key: Key,
    fields: usize,
    span: bool,
}

/// Room for a point, or none, that threads share.
///
/// ```
/// use gracepoint::dynamic::{PointCell, declare, Declaration};
/// let cell = PointCell::default();
/// assert!(cell.get().is_none());
/// cell.set(Some(declare(Declaration { name: "cells:one".into(), ..Declaration::default() })));
/// assert_eq!(cell.get().map(|point| point.fields()), Some(0));
/// ```
#[derive(Debug, Default)]
pub struct PointCell(AtomicPtr<Point>);

impl PointCell {
    /// What was put in last.
    #[inline(always)]
    pub fn get(&self) -> Option<&'static Point> {
        // Acquire pairs with the release in `set`: the point is whole.
        let point = self.0.load(Acquire);
        // SAFETY: null, or made from a reference for ever.
        unsafe { point.as_ref() }
    }

    /// Puts a point in, or none.
    #[inline(always)]
    pub fn set(&self, point: Option<&'static Point>) {
        let point = point.map_or(ptr::null_mut(), |point| ptr::from_ref(point).cast_mut());
        self.0.store(point, Release); // pairs with the load in `get`
    }
}

/// What one hit gives the session's writer.
pub(crate) struct Hit<'h> {
    pub(crate) role: Role,
    /// The encoded fields.
    pub(crate) bytes: &'h [u8],
}

/// Declares a tracepoint; sessions that run and want it record it from now on. Allocates and locks.
///
/// May be called wherever the program may take a lock, and not in a signal handler.
pub fn declare(declaration: Declaration) -> &'static Point {
    let Declaration { name, level, file, line, fields, span } = declaration;
    let text = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
    let docs = level.map_or_else(String::new, |level| format!("[{}]", level.name()));
    let mut names: Vec<String> = Vec::new();
    for field in fields.into_iter().take(MOST_FIELDS) {
        names.push(unused(field, &names, span));
    }
    let fields =
        names.into_iter().map(|name| FieldDesc { name: text(name), ty: TypeDesc::Any, docs: "" });
    let desc: &'static EventDesc = Box::leak(Box::new(EventDesc {
        module: "",
        ident: "",
        name: Some(text(name)),
        docs: text(docs),
        fields: Box::leak(fields.collect()),
        file: text(file),
        line,
    }));
    let key = Key::at_run_time(desc);
    let point: &'static Point = Box::leak(Box::new(Point { key, fields: desc.fields.len(), span }));
    #[cfg(gp_supported)]
    registry::add(point);
    point
}

/// A name that no other field has, nor the ids that a span's records begin with.
fn unused(mut name: String, taken: &[String], span: bool) -> String {
    let is_id = |name: &str| Role::ALL.iter().any(|role| role.id_names().contains(&name));
    while taken.contains(&name) || span && is_id(&name) {
        name.push('_');
    }
    name
}

/// What [`on_change`] tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Points were switched on or off, or [`call_soon`] asks. What is [awaited] may be another, too.
    ///
    /// [awaited]: awaited
    Switched,
    /// No point was switched, but what is [awaited] may have changed.
    ///
    /// [awaited]: awaited
    Awaited,
    /// A tool asks which events there are.
    Listed,
}

/// Says that points will be declared, and who is to be told when any of them is switched on or off, and when
/// sessions come and go: `changed` is called once for each batch, after it, on the thread that makes the change (the
/// agent's, or one that attaches a probe), under no lock. The first call counts.
pub fn on_change(changed: fn(Change)) {
    #[cfg(gp_supported)]
    registry::on_change(changed);
    #[cfg(not(gp_supported))]
    let _ = changed;
}

/// The most verbose level that a session which is on records new points of, if their names match its patterns; `None` if
/// no session would record any. So whoever keeps hits from becoming points until somebody wants them need not
/// let those above it through. A session that is switched on counts before [`on_change`] tells of it, and one that is
/// switched off counts no more. Locks.
pub fn awaited() -> Option<Level> {
    #[cfg(gp_supported)]
    return registry::awaited();
    #[cfg(not(gp_supported))]
    None
}

/// Calls what [`on_change`] was given soon, on a thread of the tracer's, with nothing of the program on
/// its stack. Allocates; never waits. Calls that come before it ran are one.
pub fn call_soon() {
    #[cfg(gp_supported)]
    registry::call_soon();
}

/// Where a task of an async runtime is, as a bridge knows it: an open span without open spans inside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OpenTask {
    /// Names of its spans, with their fields, the outermost first.
    pub spans: Vec<String>,
    /// `file:line` of the innermost one.
    pub location: String,
    /// How long ago it was entered, if it is inside now, or left, or began, nanoseconds.
    pub since_ns: u64,
    /// How long ago it began, nanoseconds.
    pub begun_ns: u64,
    /// How often it was entered.
    pub polls: u64,
    /// The thread that is inside now ([`thread_number`]); 0 for none.
    pub tid: u32,
}

/// What a bridge tells of tasks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OpenTasks {
    /// Tasks, those first that were not polled for longest.
    pub tasks: Vec<OpenTask>,
    /// How many were left out.
    pub more: u64,
    /// Whether open spans are kept track of; `None` if nobody is there who could.
    pub kept: Option<bool>,
}

/// Says who knows of open spans: `tell` is called on the agent's thread, under no lock, when a tool asks why the
/// program is stuck. The first call counts.
pub fn on_tasks(tell: fn() -> OpenTasks) {
    #[cfg(gp_supported)]
    registry::on_tasks(tell);
    #[cfg(not(gp_supported))]
    let _ = tell;
}

/// Whether the program is watched ([`Builder::watch`](crate::Builder::watch)): then spans are worth being kept track
/// of though nobody records them. [`on_change`] is told when it begins.
#[inline]
pub fn is_watched() -> bool {
    #[cfg(gp_supported)]
    return registry::is_watched();
    #[cfg(not(gp_supported))]
    false
}

/// Nanoseconds since some moment, by a clock that costs little and goes by steps of some milliseconds.
pub fn coarse_ns() -> u64 {
    #[cfg(gp_supported)]
    return crate::clock::coarse_ns();
    #[cfg(not(gp_supported))]
    0
}

/// The kernel's number for the calling thread. A system call.
pub fn thread_number() -> u32 {
    #[cfg(gp_supported)]
    return crate::sys::thread_id();
    #[cfg(not(gp_supported))]
    0
}

/// An id for a span: no other of this process has it, those of [`span!`](crate::span!) included.
#[inline]
pub fn span_id() -> u64 {
    crate::span::next_id()
}

impl Point {
    /// Whether a session or a probe wants its hits.
    #[inline(always)]
    pub fn is_on(&self) -> bool {
        self.key.has_probes()
    }

    /// Whether it is a span's.
    pub fn is_span(&self) -> bool {
        self.span
    }

    /// How many fields it has.
    pub fn fields(&self) -> usize {
        self.fields
    }

    pub(crate) fn key(&'static self) -> &'static Key {
        &self.key
    }

    /// An event. `fill` is called if the point is on, and gives the values; those that it leaves out are
    /// recorded as nothing.
    #[inline]
    pub fn event(&self, fill: impl FnOnce(&mut Fields<'_>)) -> bool {
        self.hit(Role::Event, None, fill)
    }

    /// A span begins. False if nobody recorded it; then its other moments are not worth telling.
    #[inline]
    pub fn begin(&self, id: u64, parent: u64, fill: impl FnOnce(&mut Fields<'_>)) -> bool {
        self.hit(Role::Begin, Some(SpanPoint { id, parent }), fill)
    }

    /// Values of a span that were not known at its begin.
    #[inline]
    pub fn record(&self, id: u64, fill: impl FnOnce(&mut Fields<'_>)) -> bool {
        self.hit(Role::Record, Some(SpanPoint { id, parent: 0 }), fill)
    }

    /// The thread goes on with the span.
    #[inline]
    pub fn enter(&self, id: u64) {
        self.moment(Role::Enter, id, 0);
    }

    /// The thread leaves the span.
    #[inline]
    pub fn exit(&self, id: u64) {
        self.moment(Role::Exit, id, 0);
    }

    /// The span was caused by `other`.
    #[inline]
    pub fn follows(&self, id: u64, other: u64) {
        self.moment(Role::Follows, id, other);
    }

    /// The span ends.
    #[inline]
    pub fn end(&self, id: u64) {
        if !self.is_on() {
            return;
        }
        let (hit, point) = (Hit { role: Role::End, bytes: &[] }, SpanPoint { id, parent: 0 });
        if !hit_quickly(&self.key, &hit, &point) {
            // SAFETY: a null event is the end of a span, of whatever type.
            unsafe { fire(&self.key, ptr::null(), &raw const point) };
        }
    }

    #[inline]
    fn hit(&self, role: Role, span: Option<SpanPoint>, fill: impl FnOnce(&mut Fields<'_>)) -> bool {
        if !self.is_on() {
            return false;
        }
        let mut room = fields::Room::new();
        let bytes = room.fill(self.fields, fill);
        let hit = Hit { role, bytes };
        if hit_quickly(&self.key, &hit, &span.unwrap_or_default()) {
            return true;
        }
        let span = span.as_ref().map_or(ptr::null(), ptr::from_ref);
        let hit = (&raw const hit).cast();
        // SAFETY: the key was made for `Hit`s, of which this is one; a begin has a span's ids, and only
        // sessions are told of values that come later.
        unsafe {
            match role {
                Role::Record => fire_sessions(&self.key, hit, span),
                _ => fire(&self.key, hit, span),
            }
        }
    }

    #[inline]
    fn moment(&self, role: Role, id: u64, parent: u64) {
        if !self.is_on() {
            return;
        }
        let (hit, point) = (Hit { role, bytes: &[] }, SpanPoint { id, parent });
        if hit_quickly(&self.key, &hit, &point) {
            return;
        }
        // SAFETY: as in `hit`.
        unsafe { fire_sessions(&self.key, (&raw const hit).cast(), &raw const point) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_fields_are_made_different() {
        let names = |span: bool| -> Vec<&'static str> {
            let fields = ["a", "a", "span", "a_"].map(String::from).to_vec();
            let name = format!("dynamic.names:{span}");
            let point = declare(Declaration { name, fields, span, ..Declaration::default() });
            point.key.desc.fields.iter().map(|field| field.name).collect()
        };
        assert_eq!(names(false), ["a", "a_", "span", "a__"]);
        assert_eq!(names(true), ["a", "a_", "span_", "a__"]);
    }
}
