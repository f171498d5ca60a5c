//! Backtraces of other threads, by a signal that the user names.
//!
//! Who wants one writes down whose (`WANTED`) and sends that thread the signal; the handler runs there,
//! follows the frame pointers from the interrupted registers, and answers. It allocates nothing, takes no
//! lock, and reads no memory by itself: each pair of words is fetched by `process_vm_readv`, which
//! fails where there is nothing to read, whatever is in the frame pointer.
//!
//! One request at a time. `WANTED` is the handshake:
//!
//! ```text
//!  IDLE ──► the thread's number ──► BUSY ──► DONE ──► IDLE
//!   asker          handler (cas)      handler    asker
//! ```
//!
//! The asker waits for [`PATIENCE`] and takes its request back (compare-exchange): the thread blocks the
//! signal, or sleeps where signals do not wake it. If that fails, the handler is at it; should it not be done
//! in the same time again (the thread was stopped in it), the request stays as it is, and there are no
//! backtraces until the handler goes on.
//!
//! The handler runs on the thread's signal stack, if it has one: it may have interrupted a recursion that has used up
//! the other. That may be small (8 KiB), with a handler of the program's on it already, and each frame of the kernel's
//! takes 3.5 KiB where vectors are wide. So this handler takes little (112 bytes; 360 where nothing is optimised) and
//! lets no other signal come on top of it.
//!
//! Orderings: BUSY and DONE are release stores, acquired by the asker: the frames that it reads are the handler's.

use crate::arch;
use crate::sync::{AtomicU64, AtomicUsize, Ordering};
use crate::system;
use crate::trylock::TryLock;
use std::io;
use std::time::{Duration, Instant};

/// How many calls are told at most.
const FRAMES: usize = 64;
/// How long a thread is waited for.
const PATIENCE: Duration = Duration::from_millis(50);

const IDLE: u64 = 0;
const BUSY: u64 = 1 << 32;
const DONE: u64 = 2 << 32;

/// The signal; 0 while there is none.
static SIGNAL: AtomicUsize = AtomicUsize::new(0);
static ASKER: TryLock<()> = TryLock::new(());
static WANTED: AtomicU64 = AtomicU64::new(IDLE);
static COUNT: AtomicUsize = AtomicUsize::new(0);
static FOUND: [AtomicUsize; FRAMES] = [const { AtomicUsize::new(0) }; FRAMES];

/// Lets stall reports have backtraces of threads that are waited for: when one is made, such a thread is sent this
/// signal, whose handler writes down where it is.
///
/// For the whole process, and until its end; choose a signal that nobody else uses, a real-time one for
/// instance. Code must be compiled with frame pointers (`-C force-frame-pointers=yes`) for more than the
/// innermost address; what is compiled without is left out or ends it. A thread that is in a slow system
/// call gets on with it (`SA_RESTART`), but a few calls (`nanosleep`, `epoll_wait`, `futex` with a
/// timeout) return `EINTR`, as they do for any signal.
///
/// # Errors
/// If the signal has a handler or is ignored, if the system refuses a handler, or if this is not Linux on
/// x86-64 or AArch64.
///
/// ```
/// # #[cfg(all(target_os = "linux", not(miri)))]
/// gracepoint_rcu::backtraces_by_signal(libc::SIGRTMIN() + 7).expect("nobody else's");
/// ```
pub fn backtraces_by_signal(signal: i32) -> io::Result<()> {
    if SIGNAL.load(Ordering::Relaxed) == signal as usize && signal != 0 {
        return Ok(());
    }
    system::handle(signal, answer)?;
    SIGNAL.store(signal as usize, Ordering::Relaxed);
    Ok(())
}

/// The calls of another thread of this process, innermost first, if that was allowed and it answers.
pub(crate) fn of_thread(tid: u32) -> Option<Vec<usize>> {
    let signal = SIGNAL.load(Ordering::Relaxed);
    if signal == 0 || tid == 0 || tid == system::thread_id() {
        return None;
    }
    let _asker = ASKER.try_lock(arch::thread_token())?;
    let wanted = u64::from(tid);
    let order = (Ordering::Relaxed, Ordering::Relaxed);
    // An answer that came when its asker had gone is nobody's.
    let _ = WANTED.compare_exchange(DONE, IDLE, order.0, order.1);
    WANTED.compare_exchange(IDLE, wanted, order.0, order.1).ok()?;
    if !system::send_to_thread(tid, signal as i32) || !wait_for_done() {
        // Relaxed: nothing was written for us.
        if WANTED.compare_exchange(wanted, IDLE, order.0, order.1).is_ok() || !wait_for_done() {
            return None;
        }
    }
    let count = COUNT.load(Ordering::Relaxed).min(FRAMES);
    let frames = FOUND[..count].iter().map(|frame| frame.load(Ordering::Relaxed)).collect();
    WANTED.store(IDLE, Ordering::Relaxed);
    Some(frames)
}

fn wait_for_done() -> bool {
    let begun = Instant::now();
    // Acquire: pairs with the release in `answer`.
    while WANTED.load(Ordering::Acquire) != DONE {
        if begun.elapsed() > PATIENCE {
            return false;
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    true
}

/// In the handler, on the thread that was asked for: the interrupted instruction and frame.
fn answer(instruction: usize, frame: usize) {
    let wanted = u64::from(system::thread_id());
    let order = (Ordering::Relaxed, Ordering::Relaxed);
    if WANTED.compare_exchange(wanted, BUSY, order.0, order.1).is_err() {
        return; // Taken back, or the signal is somebody's else.
    }
    FOUND[0].store(instruction, Ordering::Relaxed);
    let mut count = 1;
    let mut frame = frame;
    while count < FRAMES && frame != 0 && frame.is_multiple_of(size_of::<usize>()) {
        // A frame is the caller's frame and the address to return to.
        let Some([caller, back]) = system::read_words(frame) else { break };
        if back == 0 {
            break;
        }
        FOUND[count].store(back, Ordering::Relaxed);
        count += 1;
        // Stacks grow down: callers' frames lie above, or this is not a frame.
        if caller <= frame {
            break;
        }
        frame = caller;
    }
    COUNT.store(count, Ordering::Relaxed);
    // Release: pairs with the acquire in `wait_for_done`.
    WANTED.store(DONE, Ordering::Release);
}

/// In a forked child, which has neither the asker nor the thread that was asked, unless it is this one.
pub(crate) fn child_after_fork(me: usize) {
    if ASKER.abandon_unless_mine(me) {
        WANTED.store(IDLE, Ordering::Relaxed);
    }
}

#[cfg(all(
    test,
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(miri)
))]
mod tests {
    use super::{DONE, Ordering, WANTED, backtraces_by_signal, of_thread};
    use crate::system;
    use std::sync::mpsc;
    use std::thread;

    #[test]
    fn an_answer_that_nobody_waited_for_is_not_the_last() {
        backtraces_by_signal(libc::SIGRTMIN() + 3).expect("a free signal");
        let (told, tid) = mpsc::channel();
        let (leave, wait) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            told.send(system::thread_id()).expect("received");
            let _ = wait.recv();
        });
        let tid = tid.recv().expect("sent");
        // What a handler does that was stopped for longer than its asker waits.
        WANTED.store(DONE, Ordering::Relaxed);
        // The thread may not get a processor in time, so several tries.
        assert!((0..1000).find_map(|_| of_thread(tid)).is_some());
        drop(leave);
        thread.join().expect("joined");
    }
}
