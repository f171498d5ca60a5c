//! [`FunctionOps`]: closures of the program that are called when functions begin and end.

use super::hit::{FunctionCall, NO_DEPTH};
use super::ops::{self, Op, Owner, Set};
use super::{Frames, registry, symbols};
use crate::probe::discard;
use crate::sys::Mapping;
use crate::{Error, ErrorKind, drive, start, tracer};
use gracepoint_rcu::WaitCall;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize};
use std::time::Duration;

type Callback = Box<dyn Fn(&FunctionCall) + Send + Sync>;

/// Which functions, by the patterns that their paths match.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use gracepoint::{ErrorKind, FunctionFilter};
///
/// let found = FunctionFilter::new("mydb::storage::*").or("mydb::log::*").notrace("*::fmt").find();
/// assert_eq!(found.unwrap_err().kind(), ErrorKind::NoMatch); // this program has none of them
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing happens before `find`"]
pub struct FunctionFilter {
    filters: Vec<String>,
    notrace: Vec<String>,
    within: Option<FunctionSet>,
}

impl FunctionFilter {
    /// Those whose path this pattern matches: `*` any run of characters, `?` one, `[a-z]` a set.
    pub fn new(filter: impl Into<String>) -> FunctionFilter {
        FunctionFilter { filters: vec![filter.into()], notrace: Vec::new(), within: None }
    }

    /// Those, too.
    pub fn or(mut self, filter: impl Into<String>) -> FunctionFilter {
        self.filters.push(filter.into());
        self
    }

    /// But not those.
    pub fn notrace(mut self, filter: impl Into<String>) -> FunctionFilter {
        self.notrace.push(filter.into());
        self
    }

    /// Looks them up. Reads the symbols of the program's files, which takes milliseconds. Objects that are loaded later are
    /// not among what is found.
    ///
    /// # Errors
    /// [`ErrorKind::NoMatch`] where there are none, in words that say what to do.
    pub fn find(&self) -> Result<FunctionSet, Error> {
        registry::with_table(|table| {
            let (mut ids, mut named) = (Vec::new(), 0);
            symbols::each(table, |id, name| {
                named += 1;
                let wanted = crate::glob_any(&self.filters, name)
                    && !crate::glob_any(&self.notrace, name)
                    && self.within.as_ref().is_none_or(|set| set.0.has(id));
                ids.extend(wanted.then_some(id));
            });
            if !ids.is_empty() {
                return Ok(FunctionSet(ids.into_iter().collect()));
            }
            let text = match (table.len(), named) {
                (0, _) => "this program has no functions that can be traced: build it with \
                           `-Z instrument-xray`, or put #[gracepoint::function] on them"
                    .to_owned(),
                (_, 0) => "the names of functions are stripped from this program: build it with \
                           `strip = false` in the profile"
                    .to_owned(),
                _ => format!("no function matches {}", self.filters.join(" or ")),
            };
            Err(Error::new(ErrorKind::NoMatch, text))
        })
    }
}

impl fmt::Display for FunctionFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.filters.join(" or "))
    }
}

/// Functions that were found; see [`FunctionOps::on`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionSet(Set);

impl FunctionSet {
    /// How many, never 0.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

#[derive(Debug)]
enum Wanted {
    Named(FunctionFilter),
    Found(FunctionSet),
}

/// What to call when which functions begin and end: the kernel's `ftrace_ops`.
///
/// A closure runs on the thread that calls the function, between the call and the function's first instruction,
/// or after its last one. So it can be in the middle of anything, in a signal handler too, under
/// any lock of the program: it must not take one that a traced function may hold, and neither wait nor
/// allocate where the allocator is traced. What it calls is not traced meanwhile. One that panics is
/// not called again.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
/// use std::sync::Arc;
///
/// mod store {
///     #[gracepoint::function]
///     pub fn get(key: u32) -> u32 { key * 2 }
/// }
///
/// let calls = Arc::new(AtomicU32::new(0));
/// let counter = Arc::clone(&calls);
/// let ops = gracepoint::FunctionOps::new("*::store::*")
///     .on_entry(move |_| { counter.fetch_add(1, Relaxed); })
///     .register()
///     .expect("sites can be switched here");
/// store::get(1);
/// ops.unregister();
/// store::get(2);
/// assert_eq!(calls.load(Relaxed), 1);
/// # }
/// ```
#[must_use = "nothing happens before `register`"]
pub struct FunctionOps {
    functions: Wanted,
    entry: Option<Callback>,
    exit: Option<Callback>,
    depth: bool,
    per_thread: bool,
}

impl FunctionOps {
    /// For functions whose path this pattern matches: `*` any run of characters, `?` one, `[a-z]` a set.
    /// Paths are as in `gracepoint functions`: `mydb::storage::Page::load`.
    pub fn new(filter: impl Into<String>) -> FunctionOps {
        FunctionOps::of(Wanted::Named(FunctionFilter::new(filter)))
    }

    /// For those that were found before: symbols are not read again. As many operations as one likes may be
    /// registered for one set.
    pub fn on(functions: &FunctionSet) -> FunctionOps {
        FunctionOps::of(Wanted::Found(functions.clone()))
    }

    fn of(functions: Wanted) -> FunctionOps {
        FunctionOps { functions, entry: None, exit: None, depth: false, per_thread: false }
    }

    /// But not for those whose path this one matches.
    pub fn notrace(mut self, filter: impl Into<String>) -> FunctionOps {
        let named = match self.functions {
            Wanted::Named(named) => named,
            Wanted::Found(set) => FunctionFilter { within: Some(set), ..FunctionFilter::new("*") },
        };
        self.functions = Wanted::Named(named.notrace(filter));
        self
    }

    /// Called when one begins.
    pub fn on_entry(mut self, f: impl Fn(&FunctionCall) + Send + Sync + 'static) -> FunctionOps {
        self.entry = Some(Box::new(f));
        self
    }

    /// Called when one ends: returns, or goes over into another by a tail call; with the attribute also when a panic unwinds it.
    /// Of calls, too, that were under way when the operations were registered.
    pub fn on_exit(mut self, f: impl Fn(&FunctionCall) + Send + Sync + 'static) -> FunctionOps {
        self.exit = Some(Box::new(f));
        self
    }

    /// Notes calls that are under way, so that [`FunctionCall::depth`] can be told. Takes a page of memory for each
    /// thread, and addresses for all that there may be.
    pub fn with_depth(mut self) -> FunctionOps {
        self.depth = true;
        self
    }

    /// Only on threads that [`RegisteredOps::enable_here`] was called on. They are none at first.
    pub fn per_thread(mut self) -> FunctionOps {
        self.per_thread = true;
        self
    }

    /// Switches the functions on. Reads the symbols of the program's files, which takes milliseconds. Not from
    /// a signal handler.
    ///
    /// # Errors
    /// [`ErrorKind::NoMatch`] where no function matches, in words that say what to do;
    /// [`ErrorKind::Patching`] where the system does not let code be changed;
    /// [`ErrorKind::InsideProbe`] from a callback that interrupted a change of probes.
    pub fn register(self) -> Result<RegisteredOps, Error> {
        if tracer::locked_unless_held(|| ()).is_none() {
            let text = "a callback that interrupts a change of probes cannot register another";
            return Err(crate::probe::inside(text));
        }
        start::register();
        let FunctionSet(set) = match self.functions {
            Wanted::Named(named) => named.find()?,
            Wanted::Found(found) => found,
        };
        let no_addresses = |error: std::io::Error| {
            Error::new(
                ErrorKind::System,
                format!("no addresses for a word of each thread ({error})"),
            )
        };
        let frames = self.depth.then(Frames::new).transpose().map_err(no_addresses)?;
        let control = self.per_thread.then(Control::new).transpose().map_err(no_addresses)?;
        let body = Box::new(Body {
            set,
            entry: self.entry,
            exit: self.exit,
            frames,
            control,
            dead: AtomicBool::new(false),
            panics: AtomicU64::new(0),
        });
        let calls = body.calls();
        let data = Box::into_raw(body);
        // SAFETY: the box that was just made; it is freed below, or by `RegisteredOps`.
        let set = unsafe { &(*data).set };
        let op = Op::new(Owner::Program, calls, data.cast_const().cast(), set);
        registry::attach(op).map_err(|error| {
            free_later(data);
            Error::new(ErrorKind::Patching, error.to_string())
        })?;
        Ok(RegisteredOps { body: data })
    }
}

impl fmt::Debug for FunctionOps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FunctionOps").field("functions", &self.functions).finish_non_exhaustive()
    }
}

/// What a hit needs of registered operations; freed a grace period after they were taken off.
struct Body {
    set: Set,
    entry: Option<Callback>,
    exit: Option<Callback>,
    frames: Option<Frames>,
    control: Option<Control>,
    /// A callback has panicked, or they could not be taken off at once.
    dead: AtomicBool,
    panics: AtomicU64,
}

/// Which threads operations are for: a word for each index, which holds the token of the thread that it is on for.
struct Control(Mapping);

impl Control {
    fn new() -> std::io::Result<Control> {
        let bytes = gracepoint_rcu::MAX_THREADS * size_of::<AtomicUsize>();
        Mapping::wiped_on_fork(bytes).map(Control)
    }

    fn word(&self, index: u32) -> &AtomicUsize {
        #[expect(clippy::cast_ptr_alignment, reason = "a mapping begins on a page")]
        let words = self.0.base().cast::<AtomicUsize>();
        // SAFETY: the mapping has a zeroed word for each index.
        unsafe { &*words.add(index as usize) }
    }

    /// The calling thread, and its token: its index may have been another's.
    fn here(&self) -> Option<(&AtomicUsize, usize)> {
        let index = gracepoint_rcu::thread_index()?;
        let token = super::with_guard(|guard| std::ptr::from_ref(guard) as usize);
        Some((self.word(index), token))
    }

    fn is_on(&self) -> bool {
        self.here().is_some_and(|(word, token)| word.load(Relaxed) == token)
    }

    fn set(&self, on: bool) -> bool {
        let Some((word, token)) = self.here() else { return false };
        word.store(if on { token } else { 0 }, Relaxed);
        true
    }
}

impl Body {
    /// What a hit calls: nothing where nobody would see it.
    fn calls(&self) -> [Option<ops::Call>; 2] {
        if self.frames.is_some() || self.control.is_some() {
            let noted = self.frames.is_some();
            return [
                (noted || self.entry.is_some()).then_some(call_chosen::<false> as ops::Call),
                (noted || self.exit.is_some()).then_some(call_chosen::<true> as ops::Call),
            ];
        }
        [
            self.entry.is_some().then_some(call::<false> as ops::Call),
            self.exit.is_some().then_some(call::<true> as ops::Call),
        ]
    }

    #[inline(always)]
    fn run<const EXIT: bool>(&self, call: &FunctionCall) {
        let Some(f) = (if EXIT { &self.exit } else { &self.entry }) else { return };
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| f(call))) {
            self.died(payload);
        }
    }

    #[cold]
    fn died(&self, payload: Box<dyn std::any::Any + Send>) {
        self.dead.store(true, Release);
        self.panics.fetch_add(1, Relaxed);
        discard(payload);
    }
}

/// Out of line, for the list of functions that are never traced.
#[cfg(not(gp_branch))]
pub(super) fn called() -> [usize; 4] {
    [call::<false>, call::<true>, call_chosen::<false>, call_chosen::<true>]
        .map(|f: ops::Call| f as usize)
}

/// # Safety
/// `data` is a `Body` that lives while the read section lasts.
unsafe extern "C" fn call<const EXIT: bool>(data: *const (), call: &FunctionCall) {
    // SAFETY: the caller's promise.
    let body = unsafe { &*data.cast::<Body>() };
    if !body.dead.load(Acquire) {
        body.run::<EXIT>(call);
    }
}

/// The same on some threads alone, or with depth.
///
/// # Safety
/// As for [`call`].
unsafe extern "C" fn call_chosen<const EXIT: bool>(data: *const (), call: &FunctionCall) {
    // SAFETY: the caller's promise.
    let body = unsafe { &*data.cast::<Body>() };
    if body.dead.load(Acquire) || body.control.as_ref().is_some_and(|control| !control.is_on()) {
        return;
    }
    let depth = body.frames.as_ref().and_then(|frames| match EXIT {
        false => frames.begin(call.id, call.frame, 0),
        true => frames.end(call.id, call.frame).map(|call| call.depth),
    });
    body.run::<EXIT>(&FunctionCall { depth: depth.unwrap_or(NO_DEPTH), ..*call });
}

/// Registered operations. Dropping it takes them off, as [`unregister`](Self::unregister) does.
#[must_use = "the operations are taken off when this is dropped"]
pub struct RegisteredOps {
    body: *mut Body,
}

// SAFETY: the body is shared with hits on all threads; its closures are Send and Sync, the rest are atomics.
unsafe impl Send for RegisteredOps {}
// SAFETY: as above.
unsafe impl Sync for RegisteredOps {}

impl RegisteredOps {
    fn body(&self) -> &Body {
        // SAFETY: freed after `drop` alone.
        unsafe { &*self.body }
    }

    /// How many functions they are for.
    #[must_use]
    pub fn functions(&self) -> usize {
        self.body().set.len()
    }

    /// Whether they are called: none has panicked.
    #[must_use]
    pub fn is_called(&self) -> bool {
        !self.body().dead.load(Relaxed)
    }

    /// For operations [`per_thread`](FunctionOps::per_thread): from now on they are called on this thread. False where the
    /// thread can have no index any more, because it is ending.
    pub fn enable_here(&self) -> bool {
        self.body().control.as_ref().is_none_or(|control| control.set(true))
    }

    /// The opposite. A signal handler that interrupts this may still be traced.
    pub fn disable_here(&self) -> bool {
        self.body().control.as_ref().is_none_or(|control| control.set(false))
    }

    /// Takes them off. A hit whose read section begins after this returned never calls them; one that
    /// is under way may. What they captured is dropped when those have ended, on the callback thread.
    ///
    /// Never waits for a hit, however long it takes. May be called from a callback, not from a signal handler.
    pub fn unregister(self) {
        drop(self);
    }

    /// Takes them off, and waits at most so long until the last call has ended. False if it has not.
    ///
    /// # Errors
    /// [`ErrorKind::InsideProbe`] from a callback, where it would wait for itself. They are taken off all the same.
    pub fn unregister_wait(self, most: Duration) -> Result<bool, Error> {
        drop(self);
        tracer::wait(WaitCall::UnregisterWait, Some(most))
    }
}

impl Drop for RegisteredOps {
    fn drop(&mut self) {
        let data = self.body.cast_const().cast::<()>();
        if tracer::locked_unless_held(|| ()).is_some() {
            registry::detach(data);
            free_later(self.body);
            return;
        }
        // A callback that interrupted our own change: later, and until then none is called.
        self.body().dead.store(true, Release);
        let body = Parcel(self.body);
        drive::after_grace_period(0, move || {
            let Parcel(body) = body.whole();
            registry::detach(body.cast_const().cast());
            free_later(body);
        });
    }
}

impl fmt::Debug for RegisteredOps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegisteredOps")
            .field("functions", &self.functions())
            .field("called", &self.is_called())
            .finish()
    }
}

struct Parcel(*mut Body);

// SAFETY: a body may be freed on any thread: its closures are Send.
unsafe impl Send for Parcel {}

impl Parcel {
    /// For closures, which would capture the pointer alone.
    fn whole(self) -> Parcel {
        self
    }
}

/// Frees what was taken off (or never was on) a grace period later: `ops.rs` has the argument.
fn free_later(body: *mut Body) {
    let body = Parcel(body);
    drive::after_grace_period(size_of::<Body>(), move || {
        let Parcel(body) = body.whole();
        // SAFETY: it was taken off before the grace period began, so no hit has it, and its owner has let go of it.
        let body = unsafe { Box::from_raw(body) };
        // What was captured may panic when it is dropped.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(body))) {
            discard(payload);
        }
    });
}

/// Operations that are there as long as the program: two functions in a `static`, which capture nothing.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use gracepoint::{FunctionCall, StaticFunctionOps};
/// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
///
/// static CALLS: AtomicU32 = AtomicU32::new(0);
/// static OPS: StaticFunctionOps = StaticFunctionOps::new(entry, exit);
/// fn entry(_: &FunctionCall) { CALLS.fetch_add(1, Relaxed); }
/// fn exit(_: &FunctionCall) {}
///
/// #[gracepoint::function]
/// fn work() {}
///
/// OPS.register("*::work").expect("sites can be switched here");
/// work();
/// OPS.unregister();
/// work();
/// assert_eq!(CALLS.load(Relaxed), 1);
/// # }
/// ```
#[derive(Debug)]
pub struct StaticFunctionOps {
    entry: fn(&FunctionCall),
    exit: fn(&FunctionCall),
    /// What is registered; null for nothing.
    body: AtomicPtr<RegisteredOps>,
}

impl StaticFunctionOps {
    /// Not registered yet.
    #[must_use]
    pub const fn new(entry: fn(&FunctionCall), exit: fn(&FunctionCall)) -> StaticFunctionOps {
        StaticFunctionOps { entry, exit, body: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// Registers them for functions whose path matches; in place of those that they were registered for.
    ///
    /// # Errors
    /// As [`FunctionOps::register`].
    pub fn register(&'static self, filter: &str) -> Result<(), Error> {
        let ops = FunctionOps::new(filter).on_entry(self.entry).on_exit(self.exit);
        let ops = Box::new(ops.register()?);
        self.replace(Box::into_raw(ops));
        Ok(())
    }

    /// Takes them off; as [`RegisteredOps::unregister`].
    pub fn unregister(&'static self) {
        self.replace(std::ptr::null_mut());
    }

    fn replace(&self, new: *mut RegisteredOps) {
        // AcqRel's halves: who takes a box finds it whole, and hands its own over whole.
        let old = self.body.swap(new, std::sync::atomic::Ordering::AcqRel);
        if !old.is_null() {
            // SAFETY: a box of `register`, which the swap gave to this call alone.
            drop(unsafe { Box::from_raw(old) });
        }
    }
}
