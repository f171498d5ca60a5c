//! Thousands of tracepoints switched at once, under four policies of synchronisation: what the
//! benchmark `toggle` compares. Only ours is used by anything else: here as sessions have it.
//!
//! All of them switch the sites in one batch. They differ in when the next step may come, and when an
//! array that was replaced is freed. The policies that wait do so while the sites are on, as they would
//! for a tracepoint that is in use: a hit that finds no array does nothing.

use crate::key::{Entry, Key, Member, SpanPoint, TRACE};
use crate::{module, patch, tracer};
use gracepoint_rcu::{Cookie, Progress};
use std::collections::BTreeSet;
use std::ptr;

/// See the top.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Nobody waits and nothing says when an array may be freed: with function and data in two
    /// words, and arrays freed at once, this is the fault that the others avoid. (Here they are
    /// freed at the end.)
    Nothing,
    /// A grace period is waited for at each tracepoint's each change.
    EachTransition,
    /// A tracepoint that is switched on waits for the grace period of its last change, if that has not
    /// passed yet; arrays are freed later.
    Cookies,
    /// Nobody waits; arrays are freed after a grace period that they share.
    Ours,
}

/// A key under the benchmark's eyes.
struct Point {
    key: &'static Key,
    array: Option<Box<[Member]>>,
    changed: Option<Cookie>,
}

/// A probe that does nothing, on all events that a glob matches.
pub struct Probes {
    policy: Policy,
    points: Vec<Point>,
    ours: Vec<(tracer::KeyId, Entry)>,
    late: Vec<Box<[Member]>>,
}

impl std::fmt::Debug for Probes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probes").field("points", &self.points.len()).finish_non_exhaustive()
    }
}

unsafe fn nothing(_data: *const (), _event: *const (), _span: *const SpanPoint) -> bool {
    false
}

static DATA: u8 = 0;

fn entry() -> Entry {
    Entry { call: Some(nothing), data: (&raw const DATA).cast() }
}

impl Probes {
    /// Not attached yet. Nothing else may attach to these events meanwhile.
    pub fn new(glob: &str, policy: Policy) -> Probes {
        let matches = |key: &Key| gracepoint_wire::glob::matches(glob, &key.desc.name());
        let (mut seen, mut points) = (BTreeSet::new(), Vec::new());
        tracer::locked(|| {
            for key in module::records().map(|found| found.record.site().key) {
                if matches(key) && seen.insert(ptr::from_ref(key) as usize) {
                    points.push(Point { key, array: None, changed: None });
                }
            }
        });
        let ours = points.iter().map(|point| (tracer::KeyId::of(point.key), entry())).collect();
        Probes { policy, points, ours, late: Vec::new() }
    }

    /// How many tracepoints.
    pub fn len(&self) -> usize {
        self.points.len()
    }

    /// None at all?
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// Attaches the probe to all, or detaches it; effective when it returns.
    ///
    /// # Errors
    /// Why the system refuses to switch sites.
    pub fn set(&mut self, on: bool) -> Result<(), String> {
        if self.policy != Policy::Ours {
            return tracer::locked(|| if on { self.attach() } else { self.detach() })
                .map_err(|error| error.to_string());
        }
        if on {
            return tracer::attach(&self.ours).map_err(|error| error.to_string());
        }
        tracer::detach(&self.ours);
        Ok(())
    }

    fn attach(&mut self) -> Result<(), patch::PatchError> {
        self.switch(true)?;
        for point in &mut self.points {
            match point.changed.take() {
                Some(cookie) if self.policy == Policy::Cookies => {
                    // Only a thread inside a read section may not wait; the benchmark is in none.
                    let _ = TRACE.cond_synchronize(cookie);
                }
                _ => {}
            }
            let member = Member::new(entry(), 0, true);
            let mut array: Box<[Member]> = Box::new([member, Member::END]);
            point.key.publish(array.as_mut_ptr());
            point.array = Some(array);
            if self.policy == Policy::EachTransition {
                let _ = TRACE.synchronize();
            }
        }
        Ok(())
    }

    fn detach(&mut self) -> Result<(), patch::PatchError> {
        for point in &mut self.points {
            point.key.publish(ptr::null_mut());
            let Some(array) = point.array.take() else { continue };
            match self.policy {
                Policy::Nothing => self.late.push(array),
                Policy::EachTransition if TRACE.synchronize().is_ok() => drop(array),
                _ => {
                    TRACE.retire(array);
                    point.changed = Some(TRACE.get_state());
                }
            }
        }
        self.switch(false)
    }

    fn switch(&self, on: bool) -> Result<(), patch::PatchError> {
        let keys: Vec<&'static Key> = self.points.iter().map(|point| point.key).collect();
        tracer::switch(&keys, on)
    }

    /// Drives grace periods until what was replaced before may be freed.
    pub fn settle(&self) {
        let cookie = TRACE.start_poll();
        loop {
            let progress = TRACE.drive();
            if TRACE.poll_state(cookie) {
                return;
            }
            if let Progress::Pending(delay) = progress {
                std::thread::sleep(delay);
            }
        }
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        let _ = self.set(false);
        for array in self.late.drain(..) {
            TRACE.retire(array);
        }
    }
}
