//! Points, which are declared at run time, in sessions: how a hit is recorded, and how a session takes in
//! those that are declared after it was made.
//!
//! A session keeps ids in reserve for them, if the program makes points at all. What an id means is told
//! in the arena itself, in the part for late events: a frame is written, then the count of bytes moved past
//! it (release, which pairs with a consumer reading the count first), then the point is switched on. So
//! whoever sees a record can see what it means, also when the program is gone. Points beyond the
//! reserve are not recorded, and counted there.
//!
//! Takes place behind the door (`dynamic/registry.rs`), one at a time.

use super::Session;
use super::choice::Numbers;
use super::target::{Alone, LIMITED, Merged, Target, copy_record, publish_and_leave};
use crate::dynamic::registry::door;
use crate::dynamic::{Hit, Point};
use crate::key::{Call, Entry, SpanPoint};
use crate::limit::Limit;
use crate::tracer::{self, KeyId, Known};
use crate::{dynamic, glob_any};
use gracepoint_rcu::QuickGuard;
use gracepoint_wire::control::{Limits, Mode, late_frame};
use gracepoint_wire::schema::{Level, Role, Schema};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

/// Ids in reserve.
const RESERVE: u32 = 2048;
/// The same where each page has a counter for each id.
const RESERVE_OVERWRITE: u32 = 512;

/// Which events a session wants, also of those to come.
pub(super) struct Rules {
    globs: Vec<String>,
    level: Option<Level>,
}

impl Rules {
    pub(super) fn new(globs: &[String], level: Option<Level>) -> Rules {
        Rules { globs: globs.to_vec(), level }
    }

    /// Whether any events are asked for.
    pub(super) fn name_events(&self) -> bool {
        !self.globs.is_empty()
    }

    pub(super) fn want(&self, schema: &Schema) -> bool {
        glob_any(&self.globs, &schema.name) && schema.is_within(self.level)
    }
}

/// What a session has taken in since it was made.
pub(super) struct Late {
    rules: Rules,
    next: u32,
    /// Beyond the last id in reserve.
    end: u32,
    /// Boxed: probes point to them.
    #[expect(clippy::vec_box, reason = "the list grows while probes point to what is in it")]
    targets: Vec<Box<Target>>,
    keys: Vec<(KeyId, Call)>,
}

/// How many ids to keep in reserve.
pub(super) fn reserve(mode: Mode) -> u32 {
    match mode {
        _ if !dynamic::registry::is_used() => 0,
        Mode::Discard => RESERVE,
        Mode::Overwrite => RESERVE_OVERWRITE,
    }
}

impl Late {
    pub(super) fn new(rules: Rules, next: u32, mode: Mode) -> Mutex<Late> {
        let end = next + reserve(mode);
        Mutex::new(Late { rules, next, end, targets: Vec::new(), keys: Vec::new() })
    }

    /// Keys, and what to attach to them.
    fn probes(&self) -> impl Iterator<Item = (KeyId, Entry)> {
        self.keys.iter().zip(&self.targets).map(|(&(key, call), target)| {
            (key, Entry { call: Some(call), data: (&raw const **target).cast() })
        })
    }
}

impl Session {
    /// All that the session has, and whether that is to be on: what comes later goes by that.
    pub(super) fn probes_from_now_on(&self, on: &AtomicBool, value: bool) -> Vec<(KeyId, Entry)> {
        let _door = door();
        on.store(value, Relaxed);
        let late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        self.probes().into_iter().chain(late.probes()).collect()
    }

    /// The limits of points that were taken in.
    pub(super) fn late_limits(&self, mut look: impl FnMut(&Limit)) {
        let late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        late.targets.iter().for_each(|target| look(&target.limit));
    }

    /// The most verbose level of the points to come that the session would record.
    pub(crate) fn awaits(&self) -> Option<Level> {
        let late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        let wants = self.on.load(Relaxed) && late.rules.name_events();
        wants.then(|| late.rules.level.unwrap_or(Level::Trace))
    }

    /// Takes in a point that was just declared, if the session wants it. Behind the door.
    pub(crate) fn take_in(&self, point: &'static Point) {
        let Known { schema, .. } = tracer::point_known(point);
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        if !late.rules.want(&schema) {
            return;
        }
        let mut numbers = Numbers { next: late.next, declared: Vec::new() };
        let ids = numbers.declare_point(&schema, !point.is_span(), point.is_span());
        let frames: Vec<u8> = numbers.declared.iter().flat_map(late_frame).collect();
        if numbers.next > late.end || !self.ring.arena.append_late(&frames) {
            self.ring.arena.refuse_late();
            return;
        }
        late.next = numbers.next;
        let Limits { max_rate, sample, .. } = self.limits;
        let target = Target {
            ring: &raw const *self.ring,
            event: ids[0],
            begin: ids[1],
            end: ids[2],
            extras: self.extras(numbers.next - 1),
            pid: std::process::id(),
            limit: Limit::new(max_rate, sample),
        };
        let key = point.key();
        late.targets.push(Box::new(target));
        late.keys.push((KeyId::of(key), key.record));
        if self.on.load(Relaxed)
            && let Some((_, entry)) = late.probes().last()
        {
            tracer::attach_new(key, entry);
        }
    }
}

/// The session writer for points.
///
/// # Safety
/// `data` points to a `Target` whose session is alive while the read section lasts; `event` is null (the
/// end of a span) or points to a [`Hit`]; `span` is null or points to a span's ids.
pub(crate) unsafe fn record_hit(data: *const (), event: *const (), span: *const SpanPoint) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let target = &*data.cast::<Target>();
        match event.cast::<Hit<'_>>().as_ref() {
            Some(hit) => target.record_hit(hit, span.as_ref()),
            None => target.record_end(span.as_ref()),
        }
    }
}

/// The same for several sessions.
///
/// # Safety
/// As for [`record_hit`], but that `data` points to a [`Merged`] of such targets.
pub(crate) unsafe fn record_hit_all(
    data: *const (),
    event: *const (),
    span: *const SpanPoint,
) -> bool {
    // SAFETY: the caller's promise.
    let Merged { targets, .. } = unsafe { &*data.cast::<Merged>() };
    let mut recorded = false;
    for &target in targets {
        // SAFETY: the caller's promise.
        recorded |= unsafe { record_hit(target, event, span) };
    }
    recorded
}

impl Alone {
    /// [`record_hit`] in line. False, and nothing has been done, if something is out of the ordinary.
    ///
    /// # Safety
    /// This was made from `data`, that of a point's session, which is alive until `section` ends.
    #[inline(always)]
    pub(crate) unsafe fn record_hit(
        self,
        data: *const (),
        hit: &Hit<'_>,
        span: &SpanPoint,
        section: QuickGuard<'_>,
    ) -> bool {
        // SAFETY: the caller's promise. Only the id is taken from there, on which no address depends.
        let id = unsafe { &*data.cast::<Target>() }.id_of(hit.role);
        // SAFETY: the ring lives as long as the session; the section keeps the thread's index.
        let place = unsafe { self.writers.place(id, hit.role.ids() * 8 + hit.bytes.len()) };
        let Some(place) = place else { return false };
        // SAFETY: the place has room for that.
        unsafe { write_hit(place.fields, hit, span) };
        if let Err(unpublished) = place.publish() {
            // SAFETY: the caller's promise.
            unsafe { publish_and_leave(data, unpublished, section) };
        }
        true
    }
}

/// Writes the ids that the hit's role has, and its fields.
///
/// # Safety
/// At `at` there is room for both.
#[inline(always)]
unsafe fn write_hit(at: *mut u8, hit: &Hit<'_>, span: &SpanPoint) {
    let ids = hit.role.ids();
    let point = [span.id, span.parent];
    // SAFETY: the caller's promise; there are at most two ids.
    unsafe {
        for (i, id) in point.iter().take(ids).enumerate() {
            at.add(8 * i).cast::<[u8; 8]>().write_unaligned(id.to_le_bytes());
        }
        copy_record(hit.bytes.as_ptr(), at.add(8 * ids), hit.bytes.len());
    }
}

impl Target {
    /// The id of a moment.
    #[inline(always)]
    fn id_of(&self, role: Role) -> u32 {
        match role {
            Role::Event => self.event,
            Role::Begin => self.begin,
            role => self.end + (role as u32 - Role::End as u32),
        }
    }

    #[inline(always)]
    fn record_hit(&self, hit: &Hit<'_>, span: Option<&SpanPoint>) -> bool {
        let id = self.id_of(hit.role);
        let ids = hit.role.ids() * 8;
        let len = ids + hit.bytes.len();
        let (place, at) = if self.extras == 0 {
            let Some(place) = self.ring().place_plain(id, len) else { return false };
            let at = place.fields;
            (place, at)
        } else {
            // Who has seen a begin shall see what comes after.
            let limited = self.extras & LIMITED != 0
                && matches!(hit.role, Role::Event | Role::Begin)
                && !self.admits(id);
            if limited {
                return false;
            }
            let Some(found) = self.place(id, len) else { return false };
            found
        };
        let point = span.copied().unwrap_or_default();
        // SAFETY: the place has room for that.
        unsafe { write_hit(at, hit, &point) };
        self.ring().publish(&place);
        true
    }
}

const _: () = assert!(Role::Enter as u32 == Role::End as u32 + 1 && Role::Follows as u32 == 6);
