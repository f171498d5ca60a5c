//! An event seen by a probe that does not know its type: names and values.
//!
//! The first value that a probe asks for encodes the event as a session would, into [`SMALL`] bytes of the
//! hit's stack (an event that is larger goes to the heap); values are decoded from there each time they
//! are asked for. So a probe sees what a trace would show, cut texts and rendered fields included, and one
//! that looks at the name alone pays for nothing. `crates/gracepoint/examples/probe_cost.rs` measures it.

mod decode;
mod value;

pub use value::{Numbers, Value};

use crate::event::{Event, EventDesc};
use crate::key::SpanPoint;
use decode::Cursor;
use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::mem::MaybeUninit;

/// Bytes of an encoded event that need no allocation.
const SMALL: usize = 1024;

/// Writes the event into the room.
///
/// # Safety
/// `event` points to a value of the type that the function was made for.
pub(crate) type Encode = unsafe fn(event: *const (), room: &mut Room);

/// Where an event is encoded.
pub(crate) struct Room {
    small: MaybeUninit<[u8; SMALL]>,
    large: Vec<u8>,
    size: usize,
}

impl Room {
    /// Room for `size` bytes, all of which the caller writes.
    fn reserve(&mut self, size: usize) -> *mut u8 {
        self.size = size;
        if size <= SMALL {
            return self.small.as_mut_ptr().cast();
        }
        self.large.reserve_exact(size);
        self.large.as_mut_ptr()
    }

    fn bytes(&self) -> &[u8] {
        let from: *const u8 =
            if self.size <= SMALL { self.small.as_ptr().cast() } else { self.large.as_ptr() };
        // SAFETY: `encode` has written `size` bytes at what `reserve` returned, which is `from`; with
        // nothing encoded `size` is 0.
        unsafe { std::slice::from_raw_parts(from, self.size) }
    }
}

/// [`Encode`] for events of type `E`.
///
/// # Safety
/// `event` points to an `E`.
pub(crate) unsafe fn encode<E: Event>(event: *const (), room: &mut Room) {
    // SAFETY: the caller's promise.
    let event = unsafe { &*event.cast::<E>() };
    let prepared = event.prepare();
    let at = room.reserve(event.size(&prepared));
    // SAFETY: `reserve` made room for `size` bytes, which this writes all (AGREE).
    unsafe { event.write(&prepared, at) };
}

/// [`Encode`] for hits of points, which are encoded already.
///
/// # Safety
/// `event` points to a [`Hit`](crate::dynamic::Hit).
pub(crate) unsafe fn encode_hit(event: *const (), room: &mut Room) {
    // SAFETY: the caller's promise.
    let hit = unsafe { &*event.cast::<crate::dynamic::Hit<'_>>() };
    let at = room.reserve(hit.bytes.len());
    // SAFETY: `reserve` made room for so many bytes.
    unsafe { at.copy_from_nonoverlapping(hit.bytes.as_ptr(), hit.bytes.len()) };
}

/// What kind of hit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HitKind {
    /// Of `trace!`.
    Event,
    /// The begin of a span.
    Begin,
    /// The end of a span, which has no fields.
    End,
}

/// A hit of a tracepoint of any type, for as long as the probe runs.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// #[derive(gracepoint::Event)]
/// #[event(name = "doc.view:get")]
/// struct Get<'a> { key: &'a str, hit: bool }
///
/// let probe = gracepoint::Tracer::global().tracepoints("doc.view:*").attach(|view| {
///     assert_eq!(view.name(), "doc.view:get");
///     assert_eq!(view.get("key").and_then(|key| key.as_str()), Some("17"));
///     println!("{view}"); // doc.view:get key="17" hit=true
/// });
/// gracepoint::trace!(Get { key: "17", hit: true });
/// # drop(probe.expect("sites can be switched here"));
/// # }
/// ```
pub struct View<'v> {
    name: &'v str,
    desc: &'v EventDesc,
    event: *const (),
    encode: Encode,
    span: Option<SpanPoint>,
    encoded: Cell<bool>,
    room: UnsafeCell<Room>,
}

impl<'v> View<'v> {
    /// # Safety
    /// `event` is null or points to an event that `encode` and `desc` were made for, which stays
    /// unchanged as long as the view.
    pub(crate) unsafe fn new(
        name: &'v str,
        desc: &'v EventDesc,
        encode: Encode,
        event: *const (),
        span: Option<SpanPoint>,
    ) -> View<'v> {
        let room = Room { small: MaybeUninit::uninit(), large: Vec::new(), size: 0 };
        let (encoded, room) = (Cell::new(event.is_null()), UnsafeCell::new(room));
        View { name, desc, event, encode, span, encoded, room }
    }

    /// The event's name in traces, `kv:get`.
    #[must_use]
    pub fn name(&self) -> &'v str {
        self.name
    }

    /// How the program declares the event.
    #[must_use]
    pub fn desc(&self) -> &'v EventDesc {
        self.desc
    }

    /// Whether this is an event, or a span's begin or end.
    #[must_use]
    pub fn kind(&self) -> HitKind {
        match (self.event.is_null(), self.span) {
            (false, None) => HitKind::Event,
            (false, Some(_)) => HitKind::Begin,
            (true, _) => HitKind::End,
        }
    }

    /// The span's id, the same at its begin and at its end.
    #[must_use]
    pub fn span_id(&self) -> Option<u64> {
        self.span.map(|span| span.id)
    }

    /// The id of the span around this one.
    #[must_use]
    pub fn parent_id(&self) -> Option<u64> {
        self.span.and_then(|span| span.parent())
    }

    /// The value of the field with this name.
    #[must_use]
    pub fn get(&self, field: &str) -> Option<Value<'_>> {
        self.fields().find_map(|(name, value)| (name == field).then_some(value))
    }

    /// All fields, in the order in which they are declared. None at the end of a span.
    pub fn fields(&self) -> impl Iterator<Item = (&'v str, Value<'_>)> {
        let mut cursor = Cursor::new(self.bytes());
        let present = if self.event.is_null() { &[][..] } else { self.desc.fields };
        present.iter().map_while(move |field| Some((field.name, cursor.value(&field.ty)?)))
    }

    fn bytes(&self) -> &[u8] {
        if !self.encoded.get() {
            // SAFETY: no reference into the room is out: they all come from below, after the one time
            // that this is done. A field's own `Display` cannot come back here: it does not know us.
            let room = unsafe { &mut *self.room.get() };
            // SAFETY: the promise of `new`; the event is not null, or `encoded` would be true.
            unsafe { (self.encode)(self.event, room) };
            self.encoded.set(true);
        }
        // SAFETY: from here on the room is only read.
        unsafe { &*self.room.get() }.bytes()
    }
}

/// The name and the fields on one line, `kv:get key="17" hit=true`.
impl fmt::Display for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        match self.kind() {
            HitKind::Event => {}
            HitKind::Begin => f.write_str(" begin")?,
            HitKind::End => f.write_str(" end")?,
        }
        for (name, value) in self.fields() {
            write!(f, " {name}={value}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "View({self})")
    }
}

#[cfg(test)]
mod tests;
