//! Call sites: which tracepoint each is, and how `tracing`'s cache of interests follows the tracer.
//!
//! # No hit is lost
//! `tracing` asks once for each call site whether it is of interest (`never`, `sometimes`, `always`), keeps the
//! answer, and stores it without a lock, some time after it was given. So an answer that is old when
//! it is stored stays: a site that was said to be off while a recorder switched it on would be off for ever
//! (tracing's #3614 and #3615 are of that kind). Three rules keep that from happening:
//!
//! 1. `never` and `always` are said only to a rebuild of our own ([`rebuild`]); those take turns. Whoever
//!    else asks (a site that is hit for the first time, another subscriber's rebuild) is told
//!    `sometimes`, which is right whenever it is stored: each hit then asks [`Site::is_on`].
//! 2. A change is published before the rebuild that follows from it begins. So the last rebuild of ours
//!    stores what is, and what others store beside is `sometimes`.
//! 3. Sites at `sometimes` cost more than they should, so a rebuild is asked for *soon*, on a thread with
//!    nothing of the program on its stack ([`settle`]); at most one in [`PAUSE`]. One that was said
//!    `sometimes` too late for it shows by being asked about again and again ([`Site::asked`]).
//!
//! A rebuild on a thread where our subscriber is not the default would find no subscriber at all, and store
//! `never` everywhere; so it is made the default for that while. And where it cannot be (a thread in the
//! middle of an event), the rebuild is left to another.
//!
//! The first hit itself: `tracing` tells us of the site before it asks whether the hit is wanted. The
//! tracepoint is declared then, and sessions whose patterns match it take it in before `declare` returns.

use crate::table::Table;
use gracepoint::dynamic::{self, Change, Declaration, Level, Point};
use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tracing_core::callsite::rebuild_interest_cache;
use tracing_core::dispatcher::{self, WeakDispatch};
use tracing_core::subscriber::NoSubscriber;
use tracing_core::{Dispatch, Interest, Metadata};

/// Shortest time between two rebuilds that nobody waits for.
const PAUSE: Duration = Duration::from_millis(5);
/// A site that has been asked about so often, or twice, four times and so on as often, is settled anew.
const MANY: u32 = 1024;

/// A call site.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) meta: &'static Metadata<'static>,
    /// `None` for one that [`forward`](crate::forward) made.
    pub(crate) point: Option<&'static Point>,
    /// Among all sites.
    pub(crate) number: u32,
    /// How often its hits have been asked about since it was said to be settled.
    asked: AtomicU32,
}

static SITES: Table<Site> = Table::new();
/// The same by number.
static NUMBERED: Table<Site> = Table::new();
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// The dispatchers that lead to us.
static DISPATCHES: Mutex<Vec<WeakDispatch>> = Mutex::new(Vec::new());
/// Rule 1: our rebuilds take turns.
static REBUILDS: Mutex<()> = Mutex::new(());
/// Some site is at `sometimes`.
static UNSETTLED: AtomicBool = AtomicBool::new(false);
/// When a rebuild was asked for last, in nanoseconds since the first.
static SETTLED_AT: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// This thread is in a rebuild of ours.
    static REBUILDING: Cell<bool> = const { Cell::new(false) };
}

/// The site with this metadata, which is one of the program's statics: its address names it. (A call
/// site's own address does not: those of `tracing-log` have no size.)
#[inline]
pub(crate) fn of(meta: &'static Metadata<'static>) -> &'static Site {
    match known(meta) {
        Some(site) => site,
        None => learn(meta),
    }
}

/// The site with this metadata, if there is one: it may be no static.
#[inline]
pub(crate) fn known(meta: &Metadata<'_>) -> Option<&'static Site> {
    let address = std::ptr::from_ref(meta).addr() as u64;
    SITES.find(address, |_| true)
}

/// The site with this number.
#[inline]
pub(crate) fn numbered(number: u32) -> Option<&'static Site> {
    NUMBERED.find(number.into(), |_| true)
}

#[cold]
fn learn(meta: &'static Metadata<'static>) -> &'static Site {
    let address = std::ptr::from_ref(meta).addr() as u64;
    let made = || {
        let point = (!crate::forward::is_own(meta)).then(|| dynamic::declare(declaration(meta)));
        let number = COUNT.fetch_add(1, Relaxed) as u32;
        let site: &'static Site =
            Box::leak(Box::new(Site { meta, point, number, asked: AtomicU32::new(0) }));
        NUMBERED.find_or_make(number.into(), |_| true, || site)
    };
    SITES.find_or_make(address, |_| true, made)
}

fn declaration(meta: &Metadata<'_>) -> Declaration {
    let mut fields: Vec<String> = meta.fields().iter().map(|f| f.name().to_owned()).collect();
    fields.truncate(dynamic::MOST_FIELDS - crate::visit::EXTRA.len());
    fields.extend(crate::visit::EXTRA.iter().map(|&name| name.to_owned()));
    Declaration {
        name: format!("{}:{}", meta.target(), name(meta)),
        level: Some(level(meta.level())),
        file: meta.file().unwrap_or_default().to_owned(),
        line: meta.line().unwrap_or(0),
        fields,
        span: meta.is_span(),
    }
}

/// What the macro was given as the name; for an event without one, its file and line without the
/// directories, which depend on where it was built.
fn name(meta: &Metadata<'_>) -> String {
    match (meta.name().strip_prefix("event "), meta.file(), meta.line()) {
        (Some(_), Some(file), Some(line)) => place(file, line),
        _ => meta.name().to_owned(),
    }
}

/// `conn.rs:228`
pub(crate) fn place(file: &str, line: u32) -> String {
    format!("{}:{line}", file.rsplit(['/', '\\']).next().unwrap_or(file))
}

pub(crate) fn level(level: &tracing_core::Level) -> Level {
    match *level {
        tracing_core::Level::ERROR => Level::Error,
        tracing_core::Level::WARN => Level::Warn,
        tracing_core::Level::INFO => Level::Info,
        tracing_core::Level::DEBUG => Level::Debug,
        tracing_core::Level::TRACE => Level::Trace,
    }
}

impl Site {
    #[inline(always)]
    pub(crate) fn is_on(&self) -> bool {
        self.point.is_some_and(Point::is_on) || self.is_noted()
    }

    /// Whether spans of this site that begin now are to have a note.
    #[inline]
    pub(crate) fn is_noted(&self) -> bool {
        self.meta.is_span() && crate::tasks::wants(self.meta.level())
    }

    /// A hit asks; so the site is at `sometimes`.
    pub(crate) fn asked(&self) -> bool {
        if UNSETTLED.load(Relaxed) {
            settle();
        } else {
            let asked = self.asked.fetch_add(1, Relaxed) + 1;
            if asked >= MANY && asked.is_power_of_two() {
                UNSETTLED.store(true, Relaxed);
            }
        }
        self.is_on()
    }
}

/// The answer to whoever asks about a call site.
pub(crate) fn interest(meta: &'static Metadata<'static>) -> Interest {
    let site = of(meta);
    match (REBUILDING.get(), site.is_on()) {
        _ if site.point.is_none() => Interest::never(),
        (true, true) => Interest::always(),
        (true, false) => Interest::never(),
        (false, _) => {
            settle();
            Interest::sometimes()
        }
    }
}

/// Whether a hit is wanted, of which somebody asks. A call site that we do not know yet decides when it comes.
pub(crate) fn is_enabled(meta: &Metadata<'_>) -> bool {
    known(meta).map_or_else(|| crate::records::is_wanted(meta), Site::asked)
}

/// Lets the tracer know that there will be call sites.
pub(crate) fn announce() {
    dynamic::on_change(|what| match what {
        Change::Awaited => crate::maximum::follow(),
        Change::Listed => {
            crate::maximum::learn();
            rebuild();
        }
        _ => rebuild(),
    });
    dynamic::on_tasks(crate::tasks::open_tasks);
}

/// A dispatcher leads to us.
pub(crate) fn registered(dispatch: &Dispatch) {
    let mut dispatches = DISPATCHES.lock().unwrap_or_else(PoisonError::into_inner);
    dispatches.retain(|known| known.upgrade().is_some());
    dispatches.push(dispatch.downgrade());
}

/// It has changed which spans are noted: when this returns, call sites follow.
pub(crate) fn follow() {
    rebuild();
}

/// Asks for a rebuild soon.
fn settle() {
    static START: OnceLock<Instant> = OnceLock::new();
    UNSETTLED.store(true, Relaxed);
    let now = START.get_or_init(Instant::now).elapsed().as_nanos() as u64 + 1;
    let last = SETTLED_AT.load(Relaxed);
    let due = last == 0 || now.saturating_sub(last) >= PAUSE.as_nanos() as u64;
    if due && SETTLED_AT.compare_exchange(last, now, Relaxed, Relaxed).is_ok() {
        dynamic::call_soon();
    }
}

/// Stores in `tracing`'s cache what is, and for records of `log`. Once for each batch of changes.
fn rebuild() {
    crate::records::follow();
    let dispatch = {
        let dispatches = DISPATCHES.lock().unwrap_or_else(PoisonError::into_inner);
        dispatches.iter().find_map(WeakDispatch::upgrade)
    };
    let Some(dispatch) = dispatch else { return };
    let _turn = REBUILDS.lock().unwrap_or_else(PoisonError::into_inner);
    UNSETTLED.store(false, Relaxed);
    let done = dispatcher::with_default(&dispatch, || {
        // In the middle of an event there is none.
        if dispatcher::get_default(Dispatch::is::<NoSubscriber>) {
            return false;
        }
        REBUILDING.set(true);
        rebuild_interest_cache();
        REBUILDING.set(false);
        true
    });
    if !done {
        dynamic::call_soon();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_have_no_directories() {
        assert_eq!(place("hyper-1.0/src/proto/conn.rs", 17), "conn.rs:17");
        assert_eq!(place("src\\main.rs", 3), "main.rs:3");
        assert_eq!(place("lib.rs", 3), "lib.rs:3");
    }
}
