//! Depth: panics, other stacks, deep recursion, threads that end inside. And callbacks that misbehave.

use crate::traced;
use gracepoint::{FunctionCall, FunctionOps, RegisteredOps};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};

/// What was seen: (function, depth, did it end).
static LOG: Mutex<Vec<(u32, u32, bool)>> = Mutex::new(Vec::new());

fn note(call: &FunctionCall, ended: bool) {
    let mut log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    if log.len() < log.capacity() {
        log.push((call.id(), call.depth().unwrap_or(u32::MAX), ended));
    }
}

pub(crate) fn register() -> RegisteredOps {
    LOG.lock().unwrap_or_else(PoisonError::into_inner).reserve(100_000);
    FunctionOps::on(&traced::all().find().expect("found before"))
        .with_depth()
        .on_entry(|call| note(call, false))
        .on_exit(|call| note(call, true))
        .register()
        .expect("registered")
}

/// The first letter of a function's name, which is read from the program's file once.
fn letter(id: u32) -> char {
    static LETTERS: Mutex<BTreeMap<u32, char>> = Mutex::new(BTreeMap::new());
    let mut letters = LETTERS.lock().unwrap_or_else(PoisonError::into_inner);
    *letters.entry(id).or_insert_with(|| {
        let name = gracepoint::function_name(id).unwrap_or_default();
        name.rsplit("::").next().and_then(|name| name.chars().next()).unwrap_or('?')
    })
}

/// What `body` is seen to do: letters of functions, with their depth, small where they end.
pub(crate) fn seen(body: impl FnOnce()) -> String {
    LOG.lock().unwrap_or_else(PoisonError::into_inner).clear();
    body();
    let log = LOG.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let word = |&(id, depth, ended): &(u32, u32, bool)| {
        let letter = letter(id);
        format!("{}{depth}", if ended { letter } else { letter.to_ascii_uppercase() })
    };
    log.iter().map(word).collect::<Vec<_>>().join(" ")
}

static STACK: AtomicUsize = AtomicUsize::new(0);
const STACK_BYTES: usize = 64 << 10;

extern "C" fn handler(_signal: libc::c_int) {
    traced::outer(1);
}

/// A handler on a stack of its own.
fn signal_stack() {
    let stack = vec![0_u8; STACK_BYTES].leak();
    STACK.store(stack.as_ptr() as usize, Relaxed);
    // SAFETY: memory that stays, and a handler for a signal that nobody else has.
    unsafe {
        let stack =
            libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: STACK_BYTES };
        assert_eq!(libc::sigaltstack(&raw const stack, std::ptr::null_mut()), 0);
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_ONSTACK;
        libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut());
    }
}

extern "C" fn ends_inside(_: *mut libc::c_void) -> *mut libc::c_void {
    traced::calls(&|| {
        // SAFETY: ends this thread, as the kernel does it: nothing of it is run any more.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
        0
    });
    std::ptr::null_mut()
}

fn thread_that_ends_inside() {
    let mut thread = 0;
    // SAFETY: a thread that touches nothing of ours after its end, and is waited for.
    unsafe {
        libc::pthread_create(&raw mut thread, std::ptr::null(), ends_inside, std::ptr::null_mut());
        libc::pthread_join(thread, std::ptr::null_mut());
    }
}

pub(crate) fn run() {
    let ops = register();
    let plain = "O0 L1 l1 L1 l1 o0";
    assert_eq!(seen(|| _ = traced::outer(1)), plain);
    for round in 0..300 {
        let caught = seen(|| {
            let panic = || traced::calls(&|| traced::panics(1));
            assert!(std::panic::catch_unwind(panic).is_err());
            traced::leaf(1);
        });
        assert_eq!(caught, "C0 P1 L0 l0", "round {round}");
    }
    signal_stack();
    let interrupted = seen(|| {
        traced::calls(&|| {
            // SAFETY: raises a signal that has a handler.
            unsafe { libc::raise(libc::SIGUSR1) };
            traced::leaf(1)
        });
    });
    assert_eq!(interrupted, "C0 O0 L1 l1 L1 l1 o0 L1 l1 c0");
    for _ in 0..50 {
        assert_eq!(seen(thread_that_ends_inside), "C0");
        assert_eq!(
            seen(|| std::thread::spawn(|| traced::outer(1)).join().map(drop).expect("well")),
            plain
        );
    }
    let deep = seen(|| assert_eq!(traced::deep(5000), 5000));
    let words: Vec<&str> = deep.split(' ').collect();
    assert_eq!(words.len(), 2 * 5001);
    assert_eq!((words[253], words[254]), ("D253", "D4294967295"), "noted as far as there is room");
    assert_eq!(words[words.len() - 1], "d0");
    ops.unregister();
    assert_eq!(seen(|| _ = traced::outer(1)), "");
    println!("frames are right");
}

pub(crate) fn recursion() {
    let set = traced::all().find().expect("found before");
    let before = gracepoint::missed_function_hits();
    let inner =
        FunctionOps::on(&set).on_entry(|_| _ = traced::outer(1)).register().expect("registered");
    traced::leaf(1);
    assert_eq!(
        gracepoint::missed_function_hits() - before,
        3,
        "what a callback calls is passed by; nobody wants exits, so they are off"
    );
    inner.unregister();
    let panics = FunctionOps::on(&set).on_entry(|_| std::panic::resume_unwind(Box::new(1)));
    let panics = panics.register().expect("registered");
    assert_eq!(traced::outer(1), 5);
    assert!(!panics.is_called(), "one that panics is not called again");
    assert_eq!(traced::outer(1), 5);
    println!("the guard holds");
}
