//! Signal stacks that are as small as one wants, above a page that must not be touched.
//!
//! What the kernel's frame takes depends on the processor (2 KiB to 3.5 KiB and more, by its vectors): it is measured, by a
//! handler that does nothing.

use std::ptr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// What the program's own handler may take, in a build that is not optimised.
pub(crate) const OWN: usize = 512;
const PAGE: usize = 4096;
/// What nobody has written to.
const CANARY: u64 = 0x5eed_5eed_5eed_5eed;

/// A signal stack of the calling thread's, until it is dropped.
pub(crate) struct SignalStack {
    base: *mut u8,
    mapped: usize,
    size: usize,
    before: libc::stack_t,
}

impl SignalStack {
    pub(crate) fn new(size: usize) -> SignalStack {
        let size = size.next_multiple_of(16);
        let mapped = PAGE + size.next_multiple_of(PAGE);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let all = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping; its first page then cannot be used, and the stack lies right above that.
        unsafe {
            let base = libc::mmap(ptr::null_mut(), mapped, all, flags, -1, 0).cast::<u8>();
            assert_ne!(base.cast(), libc::MAP_FAILED);
            assert_eq!(libc::mprotect(base.cast(), PAGE, libc::PROT_NONE), 0);
            let stack = libc::stack_t { ss_sp: base.add(PAGE).cast(), ss_flags: 0, ss_size: size };
            let mut before: libc::stack_t = std::mem::zeroed();
            assert_eq!(libc::sigaltstack(&raw const stack, &raw mut before), 0);
            let this = SignalStack { base, mapped, size, before };
            this.paint();
            this
        }
    }

    #[expect(clippy::cast_ptr_alignment, reason = "a mapping begins on a page")]
    fn word(&self, at: usize) -> *mut u64 {
        self.base.wrapping_add(PAGE).cast::<u64>().wrapping_add(at)
    }

    /// Its words are as nobody has left them.
    pub(crate) fn paint(&self) {
        for at in 0..self.size / 8 {
            // SAFETY: a word of the stack, on which nothing lives: this thread is not on it.
            unsafe { self.word(at).write_volatile(CANARY) };
        }
    }

    /// Bytes that were used since then.
    pub(crate) fn used(&self) -> usize {
        // SAFETY: a word of the stack.
        let is_new = |at: &usize| unsafe { self.word(*at).read_volatile() } == CANARY;
        self.size - (0..self.size / 8).take_while(is_new).count() * 8
    }
}

impl Drop for SignalStack {
    fn drop(&mut self) {
        // SAFETY: the stack from before goes on being the thread's; nobody is on this one, nor has its address.
        unsafe {
            libc::sigaltstack(&raw const self.before, ptr::null_mut());
            libc::munmap(self.base.cast(), self.mapped);
        }
    }
}

extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// How often that was.
pub(crate) static BELOW: AtomicU64 = AtomicU64::new(0);

/// A handler that lasts until another signal has come on top of it: until the stack below it is not what it was.
pub(crate) extern "C" fn long(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let mine = 0_u64;
    // A word of the kernel's next frame, far enough below what this function itself calls. It is memory of the
    // stack's mapping and not of `mine`.
    let here = std::hint::black_box((&raw const mine).expose_provenance());
    let below = ptr::with_exposed_provenance::<u64>(here - OWN - 1024);
    // SAFETY: on the stack, which has room for another frame of the kernel's (2 KiB at least).
    unsafe {
        while below.read_volatile() == CANARY {
            std::hint::spin_loop();
        }
    }
    BELOW.fetch_add(1, Relaxed);
}

pub(crate) type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);

pub(crate) fn catch(signal: libc::c_int, handler: Handler) {
    // SAFETY: all-zero is a valid sigaction; the handlers touch their own stack and a counter.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
        assert_eq!(libc::sigaction(signal, &raw const action, ptr::null_mut()), 0);
    }
}

/// What a signal takes whose handler does nothing.
pub(crate) fn frame() -> usize {
    catch(libc::SIGUSR2, nothing);
    let stack = SignalStack::new(64 << 10);
    // SAFETY: a signal with a handler, to this thread.
    assert_eq!(unsafe { libc::raise(libc::SIGUSR2) }, 0);
    stack.used()
}
