//! How a thread's end is noticed, and how a fork is: pthread keys and pthread_atfork.
//!
//! The key is made at load time, so that it is one of the first 32: for those glibc's
//! `pthread_setspecific` writes into the thread's own descriptor, neither allocating nor locking,
//! and so may be called in a signal handler. (musl does so for all keys.) If the key came
//! later, threads do without an index, which is slower but right.
//!
//! Destructors of keys run in rounds while values remain, up to four, and those of Rust's
//! thread-locals run before them. The destructor here asks for another round until the last,
//! so that destructors of others still find the thread registered.
//!
//! A shared object that is unloaded takes its key with it: threads that end later must not call a
//! destructor that is not there any more, and there are not many cheap keys.

use crate::sync::{AtomicPtr, AtomicU32, Ordering};
use std::ffi::c_void;
use std::ptr;

/// `PTHREAD_DESTRUCTOR_ITERATIONS`, in glibc and in musl.
const ROUNDS: usize = 4;

/// Keys below this need no allocation in glibc (`PTHREAD_KEY_2NDLEVEL_SIZE`).
const CHEAP_KEYS: u64 = 32;

/// The key plus one, 0 before there is one.
static KEY: AtomicU32 = AtomicU32::new(0);
/// What to call when a thread that asked for it ends.
static THEN: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// # Safety
/// Called by the system as a key's destructor, with a value that `arm` stored.
unsafe extern "C" fn destructor(round: *mut c_void) {
    let round = round.addr();
    if round < ROUNDS && arm(round + 1) {
        return;
    }
    let then = THEN.load(Ordering::Acquire);
    if !then.is_null() {
        // SAFETY: `prepare_exit_notice` is the one that writes it, with this type.
        let then = unsafe { std::mem::transmute::<*mut (), fn()>(then) };
        then();
    }
}

fn key() -> Option<libc::pthread_key_t> {
    match KEY.load(Ordering::Acquire) {
        0 => None,
        // A pthread_key_t is 32 bits on Linux and 64 on macOS; keys are small numbers.
        key => Some(libc::pthread_key_t::from(key - 1)),
    }
}

fn arm(round: usize) -> bool {
    let Some(key) = key() else { return false };
    // SAFETY: the key exists; it is deleted when nobody calls this object's code any more, or at
    // exit. The value is a number, not an address.
    unsafe { libc::pthread_setspecific(key, ptr::without_provenance(round)) == 0 }
}

/// Called when the object is unloaded, or the program exits.
#[used]
#[cfg_attr(target_os = "linux", unsafe(link_section = ".fini_array"))]
static AT_UNLOAD: extern "C" fn() = delete_key;

extern "C" fn delete_key() {
    if let Some(key) = key() {
        KEY.store(0, Ordering::Release);
        // SAFETY: our own key, which nobody finds any more.
        unsafe { libc::pthread_key_delete(key) };
    }
}

/// Makes the key. `then` is called on a thread that asked for it, at its very end.
pub(crate) fn prepare_exit_notice(then: fn()) {
    if key().is_some() {
        return;
    }
    // A reference to the destructor, so that the linker takes the object that holds it.
    std::hint::black_box(&AT_UNLOAD);
    THEN.store(then as *mut (), Ordering::Release);
    let mut key: libc::pthread_key_t = 0;
    // SAFETY: the key goes to a variable of ours; the destructor has the right type.
    if unsafe { libc::pthread_key_create(&raw mut key, Some(destructor)) } != 0 {
        return;
    }
    #[allow(clippy::useless_conversion, reason = "a pthread_key_t is a u64 on macOS")]
    let number = u64::from(key);
    let cheap = !cfg!(target_env = "gnu") || number < CHEAP_KEYS;
    let stored = u32::try_from(number + 1).is_ok_and(|number| {
        cheap && KEY.compare_exchange(0, number, Ordering::AcqRel, Ordering::Acquire).is_ok()
    });
    if !stored {
        // SAFETY: made above, stored nowhere and used by nobody.
        unsafe { libc::pthread_key_delete(key) };
    }
}

/// Asks for the notice on this thread. False if it will not come.
pub(crate) fn notify_exit() -> bool {
    arm(1)
}

/// Registers what to do around `fork`. Not for signal handlers.
pub(crate) fn on_fork(
    before: unsafe extern "C" fn(),
    parent: unsafe extern "C" fn(),
    child: unsafe extern "C" fn(),
) {
    // SAFETY: the functions are valid for the life of the program and take nothing. On
    // failure (no memory, at load time) children are not repaired, as if forked behind
    // our back.
    unsafe { libc::pthread_atfork(Some(before), Some(parent), Some(child)) };
}
