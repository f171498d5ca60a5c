//! Ways out of a function and into one that are not a call and a return of Rust's: tail calls, `longjmp`, coroutines, objects
//! that are loaded later, and functions of C and C++.

use crate::frames::{register, seen};
use crate::traced;
use gracepoint::{FunctionFilter, FunctionOps};
use std::cell::Cell;
use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64};
use std::time::Duration;

unsafe extern "C" {
    fn sleds_guarded(
        body: unsafe extern "C" fn(*mut c_void, *mut c_void),
        argument: *mut c_void,
    ) -> libc::c_int;
    fn sleds_jump(buffer: *mut c_void);
}

/// Runs `body`, which may jump out of all that it has called. Whether it did.
fn guarded(mut body: &dyn Fn(*mut c_void)) -> bool {
    unsafe extern "C" fn run(buffer: *mut c_void, argument: *mut c_void) {
        // SAFETY: the argument below.
        (unsafe { *argument.cast::<&dyn Fn(*mut c_void)>() })(buffer);
    }
    // SAFETY: what is jumped over are frames with nothing to drop.
    unsafe { sleds_guarded(run, (&raw mut body).cast()) != 0 }
}

fn jump(buffer: *mut c_void) -> u64 {
    // SAFETY: a buffer of `sleds_guarded`, which has not returned.
    unsafe { sleds_jump(buffer) };
    0
}

fn tail_calls() {
    assert_eq!(seen(|| assert_eq!(traced::tail(1), 12)), "T0 t0 L0 l0");
}

fn jumps() {
    for round in 0..300 {
        let seen = seen(|| {
            let left = guarded(&|buffer| _ = traced::calls(&|| traced::calls(&|| jump(buffer))));
            assert!(left);
            traced::leaf(1);
        });
        assert_eq!(seen, "C0 C1 L0 l0", "round {round}");
    }
}

/// The first bytes of the leaf: its sled.
fn sled() -> [u8; 11] {
    let at = traced::leaf as fn(u64) -> u64 as usize as *const [u8; 11];
    // SAFETY: code of this program, which nobody changes just now.
    unsafe { at.read_volatile() }
}

/// A thread may be preempted in the middle of a sled that is on, for as long as it likes: whatever is wanted of the function meanwhile,
/// what it goes on with must be what it began with.
fn one_byte_changes() {
    let set = traced::all().find().expect("found before");
    let mut all = Vec::new();
    for round in 0..4 {
        let ops = FunctionOps::on(&set).on_entry(|_| ());
        let ops = if round == 2 { ops.per_thread().with_depth().on_exit(|_| ()) } else { ops };
        let ops = ops.register().expect("registered");
        all.push(sled());
        ops.unregister();
        all.push(sled());
    }
    let (on, off) = (all[0], all[1]);
    assert_eq!(
        (on[0], off[0], &on[1..]),
        (0x68, 0xeb, &off[1..]),
        "push, and the jump over all of it"
    );
    assert!(all.chunks(2).all(|pair| *pair == [on, off]), "{all:02x?}");
}

thread_local! {
    static HERE: Cell<*mut libc::ucontext_t> = const { Cell::new(std::ptr::null_mut()) };
    static THERE: Cell<*mut libc::ucontext_t> = const { Cell::new(std::ptr::null_mut()) };
}

/// Makes this thread's two contexts: the one that it is in, and one that runs `body` on this stack once it is switched to.
fn prepare(stack: &'static mut [u8], body: extern "C" fn()) {
    // SAFETY: plain data; the contexts and the stack stay for good, as a context may be switched to as long as it is known.
    unsafe {
        let [here, there] = Box::leak(Box::<[libc::ucontext_t; 2]>::new(std::mem::zeroed()));
        assert_eq!(libc::getcontext(there), 0);
        there.uc_stack.ss_sp = stack.as_mut_ptr().cast();
        there.uc_stack.ss_size = stack.len();
        libc::makecontext(there, body, 0);
        HERE.set(here);
        THERE.set(there);
    }
}

fn switch(from: *mut libc::ucontext_t, to: *mut libc::ucontext_t) {
    // SAFETY: contexts of this thread that outlive their use.
    assert_eq!(unsafe { libc::swapcontext(from, to) }, 0);
}

extern "C" fn coroutine() {
    loop {
        traced::calls(&|| {
            switch(THERE.get(), HERE.get());
            traced::leaf(1)
        });
        switch(THERE.get(), HERE.get());
    }
}

/// A function of a coroutine goes on after one that began later has ended.
fn coroutines() {
    // Far from the thread's own stack, and never freed.
    let stack = vec![0_u8; 8 << 20].leak();
    prepare(stack, coroutine);
    for round in 0..300 {
        let seen = seen(|| {
            traced::calls(&|| {
                switch(HERE.get(), THERE.get());
                0
            });
            traced::leaf(1);
            switch(HERE.get(), THERE.get());
        });
        assert_eq!(seen, "C0 C0 c0 L0 l0 L1 l1 c0", "round {round}");
    }
}

static BUFFER: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

extern "C" fn leaves(_signal: libc::c_int) {
    jump(BUFFER.load(Relaxed));
}

/// A handler that interrupts a callback leaves it by `longjmp`: the thread is traced again, and what the callback may still have
/// had in use is kept for good.
fn a_jump_out_of_a_callback() {
    // SAFETY: a handler for a signal that nobody else has.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = leaves as extern "C" fn(libc::c_int) as usize;
        libc::sigaction(libc::SIGUSR2, &raw const action, std::ptr::null_mut());
    }
    let armed = AtomicBool::new(true);
    let hits = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&hits);
    let ops = FunctionOps::on(&traced::all().find().expect("found before")).on_entry(move |_| {
        count.fetch_add(1, Relaxed);
        if armed.swap(false, Relaxed) {
            // SAFETY: raises a signal that has a handler.
            unsafe { libc::raise(libc::SIGUSR2) };
        }
    });
    let ops = ops.register().expect("registered");
    let left = guarded(&|buffer| {
        BUFFER.store(buffer, Relaxed);
        traced::leaf(1);
    });
    assert!(left && hits.load(Relaxed) == 1);
    traced::outer(1);
    assert_eq!(hits.load(Relaxed), 4, "the thread is traced again");
    // On another thread: this one counts as inside.
    let wait = move || ops.unregister_wait(Duration::from_millis(50)).expect("not from a callback");
    let over = std::thread::spawn(wait).join().expect("well");
    assert!(!over && Arc::strong_count(&hits) == 2, "its section is open, so nothing is freed");
}

static MISSED: AtomicU32 = AtomicU32::new(0);

extern "C" fn on_a_stack_above(_signal: libc::c_int) {
    traced::leaf(1);
}

/// A handler on a signal stack that lies above the stack that it interrupts is no proof that a callback is over.
fn a_signal_stack_above() {
    std::thread::spawn(|| {
        // One block: the lower half for a stack to work on, the upper one for the handler.
        let block = vec![0_u8; 1 << 20].leak();
        let (work, handler) = block.split_at_mut(512 << 10);
        // SAFETY: memory that stays, a handler for a signal that nobody else has.
        unsafe {
            let stack = libc::stack_t {
                ss_sp: handler.as_mut_ptr().cast(),
                ss_flags: 0,
                ss_size: handler.len(),
            };
            assert_eq!(libc::sigaltstack(&raw const stack, std::ptr::null_mut()), 0);
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_a_stack_above as extern "C" fn(libc::c_int) as usize;
            action.sa_flags = libc::SA_ONSTACK;
            libc::sigaction(libc::SIGUSR2, &raw const action, std::ptr::null_mut());
        }
        let inside = AtomicBool::new(false);
        let set = traced::all().find().expect("found before");
        let ops = FunctionOps::on(&set).on_entry(move |_| {
            assert!(!inside.swap(true, Relaxed), "a callback is not interrupted by itself");
            let before = gracepoint::missed_function_hits();
            // SAFETY: raises a signal that has a handler.
            unsafe { libc::raise(libc::SIGUSR2) };
            MISSED.fetch_add((gracepoint::missed_function_hits() - before) as u32, Relaxed);
            inside.store(false, Relaxed);
        });
        let ops = ops.register().expect("registered");
        extern "C" fn body() {
            traced::leaf(1);
            switch(THERE.get(), HERE.get());
        }
        prepare(work, body);
        switch(HERE.get(), THERE.get());
        assert!(ops.is_called(), "no callback panicked");
    })
    .join()
    .expect("well");
    // The entry and the exit of the leaf that the handler calls; exits have no callback, and so no sled that is on.
    assert_eq!(MISSED.load(Relaxed), 1);
}

/// What each function that is named is seen to do, begun and ended.
fn calls_of(names: &[&str], body: impl FnOnce()) -> [u64; 2] {
    let mut filter = FunctionFilter::new(names[0]);
    for name in &names[1..] {
        filter = filter.or(*name);
    }
    let set = filter.find().expect("they have sleds");
    assert_eq!(set.len(), names.len(), "{names:?}");
    let counts = Arc::new([const { AtomicU64::new(0) }; 2]);
    let [entries, exits] = [Arc::clone(&counts), Arc::clone(&counts)];
    let ops = FunctionOps::on(&set)
        .on_entry(move |_| _ = entries[0].fetch_add(1, Relaxed))
        .on_exit(move |_| _ = exits[1].fetch_add(1, Relaxed))
        .register()
        .expect("registered");
    body();
    drop(ops);
    [counts[0].load(Relaxed), counts[1].load(Relaxed)]
}

pub(crate) fn run() {
    // Last of all, since nothing is freed after it.
    one_byte_changes();
    let ops = register();
    tail_calls();
    jumps();
    coroutines();
    ops.unregister();
    a_signal_stack_above();
    a_jump_out_of_a_callback();
    println!("every way is right");
}

pub(crate) fn loaded(path: &str) {
    let before = FunctionFilter::new("library::*").find();
    assert!(before.is_err(), "it is not loaded yet");
    let path = std::ffi::CString::new(path).expect("no NUL");
    // SAFETY: a library of ours, whose constructors are those of the standard library; and its function, of this type.
    let outer: extern "C" fn(u64) -> u64 = unsafe {
        let library = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
        assert!(!library.is_null(), "{path:?}");
        let outer = libc::dlsym(library, c"library_outer".as_ptr());
        assert!(!outer.is_null());
        // We hold it no more: the tracer keeps it, as its functions may be on.
        let outer: extern "C" fn(u64) -> u64 = std::mem::transmute(outer);
        assert_eq!(calls_of(&["library::inner", "library_outer"], || _ = outer(1)), [3, 3]);
        libc::dlclose(library);
        outer
    };
    assert_eq!(calls_of(&["library::inner"], || assert_eq!(outer(1), 5)), [2, 2]);
    assert_eq!(outer(1), 5);
    println!("the library is traced");
}

#[cfg(not(clang))]
pub(crate) fn foreign() {
    println!("skipped, needs clang");
}

/// Nothing to call.
#[cfg(not(clang))]
pub(crate) fn call_foreign() {}

/// For recorders.
#[cfg(clang)]
pub(crate) fn call_foreign() {
    assert_eq!(foreign_store(2), 42);
}

#[cfg(clang)]
unsafe extern "C" {
    safe fn foreign_outer(x: libc::c_long) -> libc::c_long;
    safe fn foreign_tail(x: libc::c_long) -> libc::c_long;
    safe fn foreign_store(x: libc::c_long) -> libc::c_long;
}

#[cfg(clang)]
pub(crate) fn foreign() {
    let c = ["foreign_outer", "foreign_leaf", "foreign_tail"];
    let seen = calls_of(&c, || {
        assert_eq!(foreign_outer(1), 5);
        assert_eq!(foreign_tail(1), 12);
    });
    assert_eq!(seen, [5, 5]);
    // C++, by its paths.
    for name in ["sleds::Store::get(long)", "sleds::Store::*"] {
        assert_eq!(calls_of(&[name], call_foreign), [1, 1], "{name}");
    }
    assert!(
        FunctionFilter::new("_ZN5sleds*").find().is_err(),
        "nobody has to know how C++ spells them"
    );
    println!("functions of C and C++ are traced");
}
