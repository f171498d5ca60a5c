//! liburcu's flavours, through the shim in `liburcu.c`.
//!
//! Its rule that a thread registers before it reads is kept by a type: what a thread does with a flavour
//! goes through [`Registered`], which is made by registering and unregisters when dropped.

use std::cell::Cell;
use std::marker::PhantomData;

/// A flavour of liburcu.
#[derive(Debug)]
pub struct Liburcu {
    /// `memb`, `qsbr` or `bp`.
    pub name: &'static str,
    calls: Calls,
}

#[derive(Debug)]
struct Calls {
    register: unsafe extern "C" fn(),
    unregister: unsafe extern "C" fn(),
    lock: unsafe extern "C" fn(),
    unlock: unsafe extern "C" fn(),
    offline: unsafe extern "C" fn(),
    online: unsafe extern "C" fn(),
    quiescent: unsafe extern "C" fn(),
    synchronize: unsafe extern "C" fn(),
    barrier: unsafe extern "C" fn(),
    pairs: unsafe extern "C" fn(u64),
    quiet_pairs: unsafe extern "C" fn(u64),
    loads: unsafe extern "C" fn(u64) -> u64,
    call_latency: unsafe extern "C" fn() -> u64,
    defer: unsafe extern "C" fn(u64),
    freed: unsafe extern "C" fn() -> u64,
}

/// The flavours that this program was built with; none if liburcu was not installed then.
#[must_use]
pub fn flavours() -> &'static [Liburcu] {
    FLAVOURS
}

#[cfg(not(liburcu))]
static FLAVOURS: &[Liburcu] = &[];

#[cfg(liburcu)]
static FLAVOURS: &[Liburcu] = &[memb::LIBURCU, qsbr::LIBURCU, bp::LIBURCU];

#[cfg(liburcu)]
macro_rules! flavour {
    ($flavour:ident, $($call:ident = $symbol:literal ($($arg:ty),*) $(-> $ret:ty)?),* $(,)?) => {
        mod $flavour {
            use super::{Calls, Liburcu};

            unsafe extern "C" {
                $(
                    #[link_name = concat!("gp_urcu_", stringify!($flavour), "_", $symbol)]
                    fn $call($(_: $arg),*) $(-> $ret)?;
                )*
            }

            pub(super) const LIBURCU: Liburcu =
                Liburcu { name: stringify!($flavour), calls: Calls { $($call),* } };
        }
    };
}

#[cfg(liburcu)]
macro_rules! flavours {
    ($($flavour:ident),*) => {$(
        flavour!(
            $flavour,
            register = "register" (),
            unregister = "unregister" (),
            lock = "lock" (),
            unlock = "unlock" (),
            offline = "offline" (),
            online = "online" (),
            quiescent = "quiescent" (),
            synchronize = "synchronize" (),
            barrier = "barrier" (),
            pairs = "pairs" (u64),
            quiet_pairs = "quiet_pairs" (u64),
            loads = "loads" (u64) -> u64,
            call_latency = "call_latency" () -> u64,
            defer = "defer" (u64),
            freed = "freed" () -> u64,
        );
    )*};
}

#[cfg(liburcu)]
flavours!(memb, qsbr, bp);

thread_local! {
    /// The flavours that this thread is registered with, a bit for each.
    static REGISTERED: Cell<u8> = const { Cell::new(0) };
}

impl Liburcu {
    fn bit(&self) -> u8 {
        match self.name {
            "memb" => 1,
            "qsbr" => 2,
            _ => 4,
        }
    }

    /// Registers the calling thread, until the value is dropped.
    ///
    /// # Panics
    /// If the thread is registered already.
    #[must_use]
    pub fn register(&'static self) -> Registered {
        let again = REGISTERED.replace(REGISTERED.get() | self.bit()) & self.bit() != 0;
        assert!(!again, "this thread is registered with {} already", self.name);
        // SAFETY: any thread may register that is not registered, which was just asserted.
        unsafe { (self.calls.register)() };
        Registered { flavour: self, here: PhantomData }
    }

    /// How many objects of [`Registered::defer`] have been freed, by any thread.
    #[must_use]
    pub fn freed(&self) -> u64 {
        // SAFETY: an atomic load.
        unsafe { (self.calls.freed)() }
    }
}

/// What the calling thread, being registered, can do. It stays on its thread.
#[derive(Debug)]
pub struct Registered {
    flavour: &'static Liburcu,
    here: PhantomData<*const ()>,
}

impl Registered {
    /// `n` read sections with nothing in them.
    pub fn pairs(&self, n: u64) {
        // SAFETY: this thread is registered, by the existence of `self`, here and below.
        unsafe { (self.flavour.calls.pairs)(n) }
    }

    /// The same with `rcu_quiescent_state` after each (no instruction but in qsbr).
    pub fn quiet_pairs(&self, n: u64) {
        // SAFETY: registered.
        unsafe { (self.flavour.calls.quiet_pairs)(n) }
    }

    /// `n` read sections in which a published pointer is loaded and followed.
    pub fn loads(&self, n: u64) -> u64 {
        // SAFETY: registered; the pointer is to a static of the shim.
        unsafe { (self.flavour.calls.loads)(n) }
    }

    /// Runs `f` inside a read section.
    pub fn section<R>(&self, f: impl FnOnce() -> R) -> R {
        // SAFETY: registered; left below. (A panic in `f` would leave it open, which delays
        // grace periods and breaks nothing.)
        unsafe { (self.flavour.calls.lock)() };
        let result = f();
        // SAFETY: entered above, on this thread.
        unsafe { (self.flavour.calls.unlock)() };
        result
    }

    /// Runs `f`, which may sleep, while grace periods do not wait for this thread.
    pub fn offline<R>(&self, f: impl FnOnce() -> R) -> R {
        // SAFETY: registered. (Inside a section of qsbr it would end the section, which is what
        // the name says; nothing here reads memory that a grace period frees.)
        unsafe { (self.flavour.calls.offline)() };
        let result = f();
        // SAFETY: registered.
        unsafe { (self.flavour.calls.online)() };
        result
    }

    /// `rcu_quiescent_state`.
    pub fn quiescent(&self) {
        // SAFETY: registered.
        unsafe { (self.flavour.calls.quiescent)() };
    }

    /// `synchronize_rcu`.
    pub fn synchronize(&self) {
        // SAFETY: registered.
        unsafe { (self.flavour.calls.synchronize)() };
    }

    /// `rcu_barrier`.
    pub fn barrier(&self) {
        // SAFETY: registered.
        unsafe { (self.flavour.calls.barrier)() };
    }

    /// Nanoseconds from `call_rcu` to its callback.
    #[must_use]
    pub fn call_latency(&self) -> u64 {
        // SAFETY: registered; the node on the shim's stack is waited for before it goes.
        unsafe { (self.flavour.calls.call_latency)() }
    }

    /// `n` times: `malloc` of 64 bytes, and `call_rcu` of its `free`.
    pub fn defer(&self, n: u64) {
        // SAFETY: registered; the shim's nodes are the callbacks' own.
        unsafe { (self.flavour.calls.defer)(n) }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // SAFETY: registered by `register`, on this thread, since the value is not Send.
        unsafe { (self.flavour.calls.unregister)() };
        REGISTERED.set(REGISTERED.get() & !self.flavour.bit());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_deferred_is_freed() {
        for flavour in flavours() {
            let here = flavour.register();
            here.defer(100);
            here.barrier();
            assert_eq!(flavour.freed(), 100, "{}", flavour.name);
            assert_eq!(here.loads(3), 3);
            here.synchronize();
        }
    }
}
