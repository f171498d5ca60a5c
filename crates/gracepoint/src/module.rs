//! The shared objects that sites lie in, and their records.
//!
//! Each compiled copy of a site's code (inlining and generics make several) has a [`Record`] in the
//! section `gp1_sites`. A constructor in each shared object hands the bounds of that section over
//! when the object is loaded, so that all sites are known before the first is hit.
//!
//! # Why the table of modules needs no lock to be read
//! [`MODULES`] is a fixed array. A loader claims an entry by a compare-exchange of `end` from 0,
//! and publishes it by a release store to `start`; a reader that sees `start` by an acquire load
//! sees `end`. Unloading stores 0 to `start` first. Readers hold the tracer's lock, and so does the
//! unloader: nobody walks a section that is being unmapped.
//!
//! # Objects that stay
//! An object whose events have a probe must stay loaded ([`pin`]): threads may be in its cold blocks,
//! and in the probe's functions that were compiled for its events. The loader runs constructors and
//! destructors under a lock of its own, and the destructor takes the tracer's lock; so the loader is
//! asked before the tracer's lock is taken, and never under it. An object that nobody has asked for
//! goes at once: its destructor waits for the tracer's lock, which nobody holds for long, and for
//! nothing else.

use crate::key::Key;
use crate::site::Site;
use crate::sys;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicUsize};

/// An entry of the section `gp1_sites`.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Record {
    code: i32,
    cold: i32,
    site: i32,
}

impl Record {
    /// Address of the NOP; `None` at a site that loads and branches.
    #[cfg_attr(gp_branch, allow(dead_code, reason = "there is no code to patch"))]
    pub(crate) fn code(&self) -> Option<usize> {
        (self.code != 0).then(|| offset(&raw const self.code, self.code))
    }

    /// Address of the cold block.
    #[cfg_attr(gp_branch, allow(dead_code, reason = "there is no code to patch"))]
    pub(crate) fn cold(&self) -> usize {
        offset(&raw const self.cold, self.cold)
    }

    pub(crate) fn site(&self) -> &'static Site {
        let site = offset(&raw const self.site, self.site) as *const Site;
        // SAFETY: the linker put the distance of a static of the same object here, which stays mapped as
        // long as the record does.
        unsafe { &*site }
    }
}

fn offset(from: *const i32, distance: i32) -> usize {
    (from as usize).wrapping_add_signed(distance as isize)
}

struct Module {
    start: AtomicUsize,
    end: AtomicUsize,
    /// It stays loaded.
    pinned: AtomicBool,
}

impl Module {
    const fn none() -> Module {
        Module {
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            pinned: AtomicBool::new(false),
        }
    }
}

/// Shared objects with sites; more than this many at once are not traced.
const MOST_MODULES: usize = 512;

static MODULES: [Module; MOST_MODULES] = [const { Module::none() }; MOST_MODULES];

/// Called by a shared object's constructor, before `main` or in `dlopen`: no allocation and no lock, unless
/// another constructor came first and has attached probes.
#[doc(hidden)]
pub extern "C" fn gp1_load_module(start: *const u8, end: *const u8) {
    for module in &MODULES {
        if module.end.compare_exchange(0, end as usize, AcqRel, Relaxed).is_ok() {
            module.start.store(start as usize, Release);
            crate::tracer::catch_up();
            return;
        }
    }
}

/// Called by a shared object's destructor, in `dlclose` or at exit.
#[doc(hidden)]
pub extern "C" fn gp1_unload_module(start: *const u8, _end: *const u8) {
    crate::tracer::forget(|| {
        for module in &MODULES {
            if module.start.load(Acquire) == start as usize {
                module.start.store(0, Release);
                module.pinned.store(false, Relaxed);
                module.end.store(0, Release);
            }
        }
    });
}

/// A record and the number of the object that it lies in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) module: usize,
    pub(crate) record: &'static Record,
}

/// All records of all loaded objects. The caller holds the tracer's lock (see the top).
pub(crate) fn records() -> impl Iterator<Item = Found> {
    MODULES.iter().enumerate().flat_map(|(index, module)| {
        let start = module.start.load(Acquire);
        let bytes = module.end.load(Relaxed).saturating_sub(start);
        let count = if start == 0 { 0 } else { bytes / size_of::<Record>() };
        let start =
            if count == 0 { NonNull::<Record>::dangling().as_ptr() } else { start as *mut _ };
        // SAFETY: `start` and `end` are the linker's bounds of one object's section of records
        // (its name carries the ABI version, so every entry has this layout); the object stays
        // mapped while the caller holds the tracer's lock, which unloading takes.
        let records = unsafe { std::slice::from_raw_parts(start.cast_const(), count) };
        records.iter().map(move |record| Found { module: index, record })
    })
}

/// Has everything that there is been pinned, and with it the runtime?
pub(crate) fn all_pinned() -> bool {
    let mut used = MODULES.iter().filter(|module| module.end.load(Relaxed) != 0).peekable();
    used.peek().is_some() && used.all(|module| module.pinned.load(Relaxed))
}

/// Addresses of the objects that have sites of keys that are `wanted`, and may be unloaded. The caller
/// holds the tracer's lock.
pub(crate) fn unpinned(wanted: impl Fn(&'static Key) -> bool) -> Vec<usize> {
    let open = |found: &Found| !MODULES[found.module].pinned.load(Relaxed);
    let mut starts: Vec<usize> = records()
        .filter(|found| open(found) && wanted(found.record.site().key))
        .map(|found| MODULES[found.module].start.load(Relaxed))
        .collect();
    starts.dedup();
    starts
}

/// Does the object of this record stay loaded?
pub(crate) fn is_pinned(found: &Found) -> bool {
    MODULES[found.module].pinned.load(Relaxed)
}

/// Makes objects stay loaded, and the one that the runtime itself lies in. The caller does not hold
/// the tracer's lock, so one of them may have gone: then another object at its place stays.
pub(crate) fn pin(starts: &[usize]) {
    static OWN: AtomicBool = AtomicBool::new(false);
    if !OWN.load(Relaxed) {
        OWN.store(sys::keep_loaded((&raw const MODULES) as usize), Relaxed);
    }
    for &start in starts {
        if sys::keep_loaded(start) {
            // What is at this place now stays there, so this is true of whoever has registered it.
            for module in MODULES.iter().filter(|module| module.start.load(Acquire) == start) {
                module.pinned.store(true, Relaxed);
            }
        }
    }
}

/// The file of the shared object that the runtime lies in; `None` in a program that has it itself.
pub(crate) fn own_object() -> Option<PathBuf> {
    let name = sys::object_of((&raw const MODULES) as usize)?;
    Some(PathBuf::from(OsString::from_vec(name.into_bytes())))
}
