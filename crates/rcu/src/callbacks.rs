//! Callbacks that wait for a grace period: where they queue and in which order they run.
//!
//! ```text
//!  call() ─► incoming ─► next ─► ready ─► running ─► run, oldest first
//!            (a stack,   after     (done)   (the runner's)
//!             lock-free) (two buckets, a cookie each)
//! ```
//!
//! * `call` pushes onto `incoming` by compare-exchange; it neither locks nor waits.
//! * The driver *collects*: it takes the whole stack, then one cookie for all of it. The cookie
//!   covers every callback of the stack: what a caller removed came before its push (release),
//!   the push before the taking (acquire), the taking before the snapshot. What
//!   must not be: a cookie that accepts the end of the grace period that runs, which
//!   may have confirmed a rank before the removal.
//! * At most two cookies are outstanding: the end of the grace period that runs, which
//!   was taken when nothing ran, and the end of the one after. Hence two buckets, and no search.
//! * When a bucket's cookie is done it becomes `ready`. All of this moves whole chains, a few
//!   words each, whatever their length.
//! * The runner takes `ready`, puts it in order (outside the driver's lock) and runs it. There is one
//!   runner at a time, so callbacks run in the order in which they were queued, and a marker that runs
//!   proves that all before it have run; that is all that `barrier` needs.
//!
//! A chain is a list of stacks: nodes of a stack are linked by `next`, newest first, and the
//! newest node of each stack links to the newest of the stack before it by `older`.

use crate::arch;
use crate::blocks::{self, Block, Place, Spent};
use std::any::{Any, type_name};
use std::mem::{MaybeUninit, needs_drop, offset_of};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};

/// What a callback starts with, whatever its type.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Node {
    pub(crate) next: *mut Node,
    older: *mut Node,
    kind: &'static Kind,
}

/// What callbacks of one type have in common.
#[derive(Debug)]
pub(crate) struct Kind {
    run: unsafe fn(*mut Node, &mut Spent),
    name: fn() -> &'static str,
    /// In a block's place, and not boxed.
    placed: bool,
    /// Where in the callback a pointer is to what it will drop, in bytes; 0 if there seems to be none.
    pointer: usize,
}

impl Kind {
    /// Of callbacks whose closure is so far from their beginning.
    const fn new<F>(run: unsafe fn(*mut Node, &mut Spent), placed: bool, closure: usize) -> Self {
        // A Box or an Arc, most likely: one that was retired.
        let points = size_of::<F>() == size_of::<usize>() && needs_drop::<F>();
        Self { run, name: type_name::<F>, placed, pointer: if points { closure } else { 0 } }
    }

    /// The type's name, which has the function that queued it.
    pub(crate) fn name(&self) -> &'static str {
        (self.name)()
    }
}

#[repr(C)]
struct Callback<F> {
    node: Node,
    f: F,
}

/// A small callback, in a place of its thread's block.
#[repr(C)]
struct Placed<F> {
    node: Node,
    block: NonNull<Block>,
    f: F,
}

/// Finds memory for a callback; `run` or nothing must follow.
#[inline]
pub(crate) fn new<F: FnOnce() + Send + 'static>(f: F) -> *mut Node {
    const { assert!(align_of::<Node>() <= align_of::<Place>()) };
    if size_of::<Placed<F>>() <= size_of::<Place>()
        && align_of::<F>() <= align_of::<Place>()
        && let Some((place, block)) = arch::with_shelf(blocks::give).flatten()
    {
        return placed(f, place, block);
    }
    boxed(f)
}

#[inline]
fn placed<F: FnOnce() + Send + 'static>(
    f: F,
    place: NonNull<Place>,
    block: NonNull<Block>,
) -> *mut Node {
    /// # Safety
    /// `node` came from `placed::<F>` and has not been run.
    unsafe fn run<F: FnOnce()>(node: *mut Node, spent: &mut Spent) {
        // SAFETY: `placed::<F>` wrote a Placed<F> there, whose first field (repr(C)) is the node, and
        // this is its only use: the closure is moved out, and the place then used no more.
        let f = unsafe {
            let placed = node.cast::<Placed<F>>();
            let f = (&raw const (*placed).f).read();
            spent.add((*placed).block);
            f
        };
        f();
    }
    let kind = const { &Kind::new::<F>(run::<F>, true, offset_of!(Placed<F>, f)) };
    let node = Node { next: ptr::null_mut(), older: ptr::null_mut(), kind };
    let placed = place.cast::<Placed<F>>();
    // SAFETY: `new` found that the place is large enough and aligned, and `blocks` gave it to
    // this call alone.
    unsafe { placed.write(Placed { node, block, f }) };
    placed.as_ptr().cast()
}

/// Boxes a callback.
fn boxed<F: FnOnce() + Send + 'static>(f: F) -> *mut Node {
    /// # Safety
    /// `node` came from `boxed::<F>` and has not been run.
    unsafe fn run<F: FnOnce()>(node: *mut Node, _: &mut Spent) {
        // SAFETY: `boxed::<F>` made this allocation as a Callback<F> whose first field
        // (repr(C)) is the node, and this is its only use.
        let callback = unsafe { Box::from_raw(node.cast::<Callback<F>>()) };
        (callback.f)();
    }
    let kind = const { &Kind::new::<F>(run::<F>, false, offset_of!(Callback<F>, f)) };
    let node = Node { next: ptr::null_mut(), older: ptr::null_mut(), kind };
    Box::into_raw(Box::new(Callback { node, f })).cast()
}

/// How far below a boxed callback the one is, more or less, that will soon come when a stack is put in order, in bytes.
const BELOW: usize = 512;

/// Asks for the memory of the callbacks that come after this one when a stack is put in order: those of one thread
/// lie one below the other.
///
/// # Safety
/// `node` is live and came from [`new`].
#[inline]
unsafe fn fetch_below(node: *mut Node) {
    // SAFETY: live, by this function's contract.
    if unsafe { (*node).kind.placed } {
        // SAFETY: `placed` made it, for some F; the block's address is before all that depends on F (repr(C)).
        let block = unsafe { (*node.cast::<Placed<()>>()).block };
        blocks::fetch_below(node.cast(), block);
    } else {
        arch::prefetch(MaybeUninit::new(node.cast_const().cast::<u8>().wrapping_sub(BELOW)));
    }
}

/// Goes some callbacks ahead of who runs them, and asks for the memory of what they will drop: it was last used on
/// another processor, by who retired it.
#[derive(Debug)]
pub(crate) struct Scout(*mut Node);

impl Scout {
    /// How many callbacks ahead.
    const AHEAD: usize = 6;

    /// # Safety
    /// `first` is the first of a list (or null) that nobody but the caller changes, and he only by taking away from its
    /// beginning, for as long as this is there; and he calls [`go_on`](Self::go_on) before he takes one.
    pub(crate) unsafe fn before(first: *mut Node) -> Self {
        let mut scout = Self(first);
        for _ in 0..Self::AHEAD {
            // SAFETY: by this function's contract; nothing was taken yet.
            unsafe { scout.go_on() };
        }
        scout
    }

    /// # Safety
    /// See [`before`](Self::before).
    #[inline]
    pub(crate) unsafe fn go_on(&mut self) {
        let node = self.0;
        if node.is_null() {
            return;
        }
        // SAFETY: in the list still, since this is ahead of who takes; and so live.
        unsafe {
            let pointer = (*node).kind.pointer;
            if pointer != 0 {
                // In the bounds of the callback; whatever it is.
                arch::prefetch(node.byte_add(pointer).cast::<MaybeUninit<*const u8>>().read());
            }
            self.0 = (*node).next;
        }
    }
}

/// What a callback is.
///
/// # Safety
/// `node` is live.
#[inline]
pub(crate) unsafe fn kind(node: *mut Node) -> &'static Kind {
    // SAFETY: a live node, by this function's contract.
    unsafe { (*node).kind }
}

/// Runs a callback and frees it, or adds its place to `spent`. False if it panicked; then `report` is told
/// with what text, and the panic goes no further.
///
/// # Safety
/// `node` came from [`new`], is in no list, and has not been run.
#[inline]
pub(crate) unsafe fn run(node: *mut Node, spent: &mut Spent, report: impl FnOnce(&str)) -> bool {
    // SAFETY: a live node, by this function's contract; `kind` is written by who made it.
    let run = unsafe { kind(node) }.run;
    // SAFETY: who made the node paired this function with it; not run before, by contract.
    // Unwind safety: the closure is consumed, and nothing of ours is half-changed here.
    let outcome = catch_unwind(AssertUnwindSafe(|| unsafe { run(node, spent) }));
    match outcome {
        Ok(()) => true,
        Err(payload) => {
            panicked(payload, report);
            false
        }
    }
}

#[cold]
fn panicked(payload: Box<dyn Any + Send>, report: impl FnOnce(&str)) {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    report(text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or(""));
    // Dropping a payload may panic too, with a payload of its own, which is leaked.
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        let _ = std::mem::ManuallyDrop::new(second);
    }
}

/// A chain of stacks. Both null, or both set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    newest: *mut Node,
    /// The newest node of the oldest stack.
    oldest: *mut Node,
    /// When the oldest node was queued (by `clock::coarse`).
    since: u64,
}

impl Chain {
    pub(crate) const EMPTY: Self =
        Self { newest: ptr::null_mut(), oldest: ptr::null_mut(), since: 0 };

    /// One stack as a chain; null is the empty chain.
    pub(crate) fn of_stack(top: *mut Node, since: u64) -> Self {
        Self { newest: top, oldest: top, since }
    }

    /// When its oldest callback was queued; `None` if it is empty.
    pub(crate) fn since(self) -> Option<u64> {
        (!self.is_empty()).then_some(self.since)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.newest.is_null()
    }

    /// Puts `younger` behind everything in this chain.
    fn append(&mut self, younger: Self) {
        if younger.is_empty() {
            return;
        }
        if self.is_empty() {
            *self = younger;
            return;
        }
        // SAFETY: nodes in a chain are live and reached through it alone, and the chains are
        // the driver's, who is the one caller.
        unsafe { (*younger.oldest).older = self.newest };
        self.newest = younger.newest;
    }

    /// Links all nodes by `next`, oldest first, and returns the first.
    pub(crate) fn into_run_order(self) -> *mut Node {
        let mut first: *mut Node = ptr::null_mut();
        let mut stack = self.newest;
        while !stack.is_null() {
            // SAFETY: nodes of a chain are live and owned by the holder of the chain, which
            // was moved in here; `older` is read before the node is relinked.
            let older = unsafe { (*stack).older };
            let mut node = stack;
            while !node.is_null() {
                // SAFETY: as above.
                unsafe { fetch_below(node) };
                // SAFETY: as above; `next` is read before it is overwritten.
                let below = unsafe { std::mem::replace(&mut (*node).next, first) };
                first = node;
                node = below;
            }
            stack = older;
        }
        first
    }

    /// How many callbacks are in the chain. Walks it all.
    pub(crate) fn count(self) -> usize {
        let mut count = 0;
        let mut stack = self.newest;
        while !stack.is_null() {
            count += count_list(stack);
            // SAFETY: nodes of a chain are live; the caller holds the chain.
            stack = unsafe { (*stack).older };
        }
        count
    }
}

/// How many nodes are linked by `next` from here.
pub(crate) fn count_list(mut node: *mut Node) -> usize {
    let mut count = 0;
    while !node.is_null() {
        count += 1;
        // SAFETY: nodes of a list are live; the caller holds the list.
        node = unsafe { (*node).next };
    }
    count
}

/// Callbacks with the cookie that they wait for.
#[derive(Debug)]
struct Bucket {
    cookie: u64,
    chain: Chain,
}

/// What the driver keeps, under its lock.
#[derive(Debug)]
pub(crate) struct Buckets {
    next: Bucket,
    after: Bucket,
    ready: Chain,
}

// SAFETY: the raw pointers own callbacks, whose closures are Send (`new`'s bound).
unsafe impl Send for Buckets {}

impl Buckets {
    pub(crate) const fn new() -> Self {
        Self {
            next: Bucket { cookie: 0, chain: Chain::EMPTY },
            after: Bucket { cookie: 0, chain: Chain::EMPTY },
            ready: Chain::EMPTY,
        }
    }

    /// Files what was queued under the cookie that was taken after it.
    pub(crate) fn file(&mut self, chain: Chain, cookie: u64) {
        if self.next.chain.is_empty() {
            self.next = Bucket { cookie, chain };
        } else if self.next.cookie == cookie {
            self.next.chain.append(chain);
        } else {
            // A third cookie cannot be: `collect` sweeps between taking a cookie and filing by it, so those
            // that are here are later than the last end. Were it wrong, the later cookie would be the safe one.
            debug_assert!(self.after.chain.is_empty() || self.after.cookie == cookie);
            self.after.cookie = self.after.cookie.max(cookie);
            self.after.chain.append(chain);
        }
    }

    /// Moves callbacks whose cookie is done to `ready`. Whether there were any.
    pub(crate) fn sweep(&mut self, is_done: impl Fn(u64) -> bool) -> bool {
        let mut any = false;
        while !self.next.chain.is_empty() && is_done(self.next.cookie) {
            let after =
                std::mem::replace(&mut self.after, Bucket { cookie: 0, chain: Chain::EMPTY });
            let done = std::mem::replace(&mut self.next, after);
            self.ready.append(done.chain);
            any = true;
        }
        any
    }

    /// The cookies that callbacks in here wait for; 0 where none do.
    pub(crate) fn cookies(&self) -> [u64; 2] {
        [&self.next, &self.after].map(|bucket| match bucket.chain.is_empty() {
            true => 0,
            false => bucket.cookie,
        })
    }

    /// When the oldest callback in here was queued; 0 if there is none.
    pub(crate) fn oldest(&self) -> u64 {
        let stages = [self.ready, self.next.chain, self.after.chain];
        stages.into_iter().find_map(Chain::since).unwrap_or(0)
    }

    /// Takes what is ready.
    pub(crate) fn take_ready(&mut self) -> Chain {
        std::mem::replace(&mut self.ready, Chain::EMPTY)
    }

    /// Takes everything, done or not, oldest first: for a domain that is being dropped.
    pub(crate) fn take_all(&mut self) -> Chain {
        self.sweep(|_| true);
        self.take_ready()
    }

    /// How many callbacks are here. Walks them all.
    pub(crate) fn count(&self) -> usize {
        self.next.chain.count() + self.after.chain.count() + self.ready.count()
    }
}
