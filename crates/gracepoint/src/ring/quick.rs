//! The quick way of an event into a page: what `trace!` does in line where nothing is out of the ordinary, which
//! is nearly always. The same protocol as in `ring.rs`, with everything left out that the ordinary does not need.
//!
//! * *Nothing but loads that depend on one another counts.* The time-stamp counter is not read before what
//!   comes earlier is done, so what an event costs beyond the counter is mostly the longest chain of loads
//!   before it. Hence [`Writers`], an address, in the probe array itself: key, array, writer, and no hop by way
//!   of the session or the ring (three hops more were 3 ns of 15 on Xeons of 2023).
//! * *`depth` is stored, not counted.* Whoever finds it 0 is the outermost writer, and a handler that comes
//!   leaves it as it found it. Whoever does not find it 0 goes the other way.
//! * *Whatever is out of the ordinary ends the attempt*, with nothing done. What a handler has recorded
//!   meanwhile is whole, and published by the next to publish on this slot, the agent at the latest: as if
//!   it had come before.

use super::{Place, Reserved, Ring, Writer, put_header, put_mark, twin};
use crate::arch::local;
use gracepoint_wire::packet::{self, COMPACT_HEADER};
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{Ordering, compiler_fence};

/// The writers of a ring that [is plain](Ring::is_plain).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Writers {
    /// That of thread index 0.
    first: NonNull<Writer>,
    #[cfg(test)]
    twin: super::Twin,
}

// SAFETY: an address; who uses it promises what that needs (`place`), and writers are atomics.
unsafe impl Send for Writers {}
// SAFETY: as above.
unsafe impl Sync for Writers {}

/// Where an event goes, between [`Writers::place`] and [`Quick::publish`].
pub(crate) struct Quick<'a> {
    /// Where its fields go.
    pub(crate) fields: *mut u8,
    writer: &'a Writer,
    end: u64,
    now: u64,
    #[cfg(test)]
    twin: super::Twin,
}

/// A writer whose `depth` is raised, and where its next record goes.
#[derive(Clone, Copy)]
pub(crate) struct Begun<'a> {
    writer: &'a Writer,
    pos: u64,
    #[cfg(test)]
    twin: super::Twin,
}

impl Ring {
    /// For events with ids that fit into a compact header. `None` if the ring is not plain.
    pub(crate) fn writers(&self) -> Option<Writers> {
        self.is_plain().then(|| self.plain_writers())
    }

    /// The same, of a ring that is plain.
    #[inline(always)]
    pub(super) fn plain_writers(&self) -> Writers {
        debug_assert!(self.is_plain());
        Writers {
            first: NonNull::from(self.writer(0)),
            #[cfg(test)]
            twin: self.twin,
        }
    }

    /// Publishes what has been written, by whomsoever, after [`Quick::publish`] could not.
    #[cold]
    #[inline(never)]
    pub(crate) fn publish_after_all(&self, unpublished: Unpublished<'_>) {
        match unpublished {
            Unpublished::Raised(writer) => self.commit(writer),
            Unpublished::Lowered(writer) => self.publish_again(writer),
        }
    }
}

/// What [`Quick::publish`] leaves to [`Ring::publish_after_all`], because a handler has recorded meanwhile.
pub(crate) enum Unpublished<'a> {
    /// `depth` is raised.
    Raised(&'a Writer),
    /// It is not.
    Lowered(&'a Writer),
}

impl Writers {
    /// Reserves on the calling thread's own page. `None`, and nothing has been done, if it cannot at once.
    ///
    /// # Safety
    /// The ring lives, with its pages, as long as the place is used; the thread keeps its index so long.
    #[inline(always)]
    pub(crate) unsafe fn place<'a>(self, id: u32, len: usize) -> Option<Quick<'a>> {
        let line = gracepoint_rcu::thread_line()?;
        // SAFETY: the caller's promise; the line is its own.
        let begun = unsafe { self.begin(line)? };
        begun.place(counter_after(), id, len)
    }

    /// Raises `depth`, for a [`Begun::place`] or [`Begun::withdraw`] that must follow. `None`, and nothing has
    /// been done, if somebody is under way or the agent asks for the page.
    ///
    /// # Safety
    /// As for [`place`](Self::place); `line` is the calling thread's.
    #[inline(always)]
    pub(crate) unsafe fn begin<'a>(self, line: usize) -> Option<Begun<'a>> {
        const { assert!(size_of::<Writer>() == 64, "a writer is a line") };
        // SAFETY: `first` is one of MAX_THREADS writers in a row, and the line is 64 times an index.
        let writer = unsafe { self.first.byte_add(line).as_ref() };
        if writer.depth.load(Relaxed) != 0 && !twin!(self, StoresDepth) {
            return None;
        }
        writer.depth.store(1, Relaxed);
        // `depth`, then `claim`: see "Taking pages back". `depth`, then `pos`: from here on handlers leave the
        // page where it is.
        compiler_fence(Ordering::SeqCst);
        let begun = Begun {
            writer,
            pos: writer.pos.load(Relaxed),
            #[cfg(test)]
            twin: self.twin,
        };
        if writer.claim.load(Relaxed) != 0 && !twin!(self, IgnoresClaim) {
            begun.withdraw();
            return None;
        }
        Some(begun)
    }
}

/// The counter, read after all that comes before in the program: each `pos`, as in `Ring::reserve`.
#[inline(always)]
pub(crate) fn counter_after() -> u64 {
    compiler_fence(Ordering::SeqCst);
    local::counter()
}

impl<'a> Begun<'a> {
    /// Reserves, with the time `now`, which was [read after](counter_after) this had begun. `None`, and `depth` is
    /// lowered, if there is no room, if the record needs the longer header, or if a handler has recorded meanwhile.
    #[inline(always)]
    pub(crate) fn place(self, now: u64, id: u32, len: usize) -> Option<Quick<'a>> {
        debug_assert!(!packet::needs_extended(id, 0));
        let Begun { writer, pos, .. } = self;
        let end = pos + (COMPACT_HEADER + len) as u64;
        let fits = end <= writer.limit.load(Relaxed);
        // A gap below 0 is a long one.
        let extended = packet::needs_extended(0, now.wrapping_sub(writer.last.load(Relaxed)));
        // These were loaded after the clock was read, and fit `pos` if the exchange succeeds: then nobody has been
        // here since it was loaded. Without a page `limit` is 0.
        if !fits || extended || !local::replace(&writer.pos, pos, end) {
            self.withdraw();
            return None;
        }
        writer.last.store(now, Relaxed);
        let reserved = Reserved { pos, end, now, extended: false };
        Some(Quick {
            fields: put_header(id, &reserved),
            writer,
            end,
            now,
            #[cfg(test)]
            twin: self.twin,
        })
    }

    /// Lowers `depth`.
    #[inline(always)]
    pub(crate) fn withdraw(self) {
        compiler_fence(Ordering::SeqCst);
        self.writer.depth.store(0, Relaxed);
    }
}

impl<'a> Quick<'a> {
    /// For [`Ring::publish`].
    #[inline(always)]
    pub(super) fn into_place(self) -> Place<'a> {
        Place { fields: self.fields, writer: self.writer, end: self.end, now: self.now }
    }

    /// When it is recorded.
    #[cfg(test)]
    pub(super) fn time(&self) -> u64 {
        self.now
    }

    /// Commits the event, whose fields are written.
    ///
    /// # Errors
    /// What is left to be done, if a handler has recorded since the place was reserved.
    #[inline(always)]
    pub(crate) fn publish(self) -> Result<(), Unpublished<'a>> {
        let Quick { writer, end, now, .. } = self;
        // The packet before `pos`: in a forked child both are 0 from some moment on, and then `pos` says so.
        let packet = writer.packet.load(Relaxed);
        compiler_fence(Ordering::SeqCst);
        if writer.pos.load(Relaxed) != end {
            return Err(Unpublished::Raised(writer));
        }
        put_mark(packet, end, now);
        // Release pairs with the agent's acquire in `take_one`, as a decrement does: who sees that nobody is under
        // way also sees how far the packet goes.
        writer.depth.store(0, Release);
        compiler_fence(Ordering::SeqCst);
        // As in `Ring::publish`.
        if writer.pos.load(Relaxed) != end && !twin!(self, PublishesOnce) {
            return Err(Unpublished::Lowered(writer));
        }
        Ok(())
    }
}
