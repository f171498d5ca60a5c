//! The two halves of the asymmetric barrier, and which of its two forms is in force.
//!
//! * **membarrier** (Linux): the light barrier is a compiler fence, which is no instruction; the heavy
//!   one is `membarrier(PRIVATE_EXPEDITED)`, which returns after every thread of this process
//!   that was running has executed a full memory barrier (those that were not have executed
//!   one when they were switched out, and will when switched in).
//! * **fence** (everything else, or `GRACEPOINT_RCU=fence` in the environment): both are
//!   SeqCst fences.
//!
//! Any other value of that variable is a mistake that would go unnoticed: whoever misspells `fence` believes that it is
//! in force. A line on stderr says so when the program starts, and [`requested_strategy`] is for those who refuse to.
//!
//! Which, is decided once, before the first read section. Readers do not test it: in the fence
//! form a domain does not offer its fast path (`Domain::fast` stays null), so `light` below is only
//! ever run in the membarrier form.
//!
//! If `membarrier` worked at start and fails later (a seccomp filter installed since), heavy
//! barriers fail and grace periods stop ending: memory is kept, never freed too early, and reports of stalls say why.

use crate::sync::{AtomicBool, AtomicU32, Ordering, compiler_fence, fence};
use crate::system;
use std::fmt;
use std::sync::OnceLock;

const UNDECIDED: u32 = 0;
const MEMBARRIER: u32 = 1;
const FENCE: u32 = 2;

static MODE: AtomicU32 = AtomicU32::new(UNDECIDED);
/// 1 if `membarrier(SYNC_CORE)` is registered.
static CODE: AtomicU32 = AtomicU32::new(0);
/// The latest heavy barrier of a grace period was refused.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// Who pays for the order between readers and updaters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Readers execute no barrier; updaters use `membarrier`.
    Membarrier,
    /// Both execute fences.
    Fence,
}

/// The reader's half: see the module's text.
#[inline(always)]
pub(crate) fn light() {
    compiler_fence(Ordering::SeqCst);
}

/// The reader's half in the form that is in force, for sections that are entered in either.
#[inline(always)]
pub(crate) fn either() {
    if readers_are_cheap() { light() } else { fence(Ordering::SeqCst) }
}

/// Decides the form, once. Later calls do nothing. Safe in a signal handler but for `getenv`,
/// which is why it is called at load time.
pub(crate) fn decide() {
    if MODE.load(Ordering::Acquire) != UNDECIDED {
        return;
    }
    let asked = system::with_wish(Asked::new).unwrap_or(Asked::NOTHING);
    if ASKED.set(asked).is_ok() && asked.strategy().is_none() {
        complain(&asked);
    }
    let fence = asked.strategy() == Some(Some(Strategy::Fence));
    // Registered also where read sections are told to do without: `heavy_barrier` uses it.
    let cheap = system::register_membarrier() && !fence;
    let code = system::register_membarrier_for_code();
    CODE.store(u32::from(code), Ordering::Relaxed);
    let mode = if cheap { MEMBARRIER } else { FENCE };
    // Two threads may get here; the first decides. Registering twice is harmless.
    let _ = MODE.compare_exchange(UNDECIDED, mode, Ordering::AcqRel, Ordering::Acquire);
}

/// Whether readers may do without fences.
pub(crate) fn readers_are_cheap() -> bool {
    MODE.load(Ordering::Acquire) == MEMBARRIER
}

/// What `GRACEPOINT_RCU` was when the form was decided, cut to a length that is worth telling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    text: [u8; Self::LEN],
    len: usize,
    cut: bool,
}

static ASKED: OnceLock<Asked> = OnceLock::new();

impl Asked {
    const LEN: usize = 40;
    const NOTHING: Self = Self { text: [0; Self::LEN], len: 0, cut: false };

    fn new(wish: &[u8]) -> Self {
        let mut asked = Self { cut: wish.len() > Self::LEN, ..Self::NOTHING };
        for (to, from) in asked.text.iter_mut().zip(wish) {
            // It goes to a terminal.
            *to = if from.is_ascii_graphic() || *from == b' ' { *from } else { b'?' };
            asked.len += 1;
        }
        asked
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.text[..self.len]).unwrap_or("")
    }

    /// `None` if that is no strategy; of nothing, it is none in particular.
    fn strategy(&self) -> Option<Option<Strategy>> {
        match self.text() {
            "" => Some(None),
            "fence" if !self.cut => Some(Some(Strategy::Fence)),
            _ => None,
        }
    }
}

/// One line, without memory and locks: the program has hardly begun.
#[cold]
fn complain(asked: &Asked) {
    let dots = if asked.cut { "…" } else { "" };
    let parts =
        ["gracepoint-rcu: GRACEPOINT_RCU=", asked.text(), dots, UNKNOWN, "; it is ignored\n"];
    let (mut line, mut len) = ([0_u8; 256], 0);
    for byte in parts.into_iter().flat_map(str::bytes) {
        line[len] = byte;
        len = (len + 1).min(line.len() - 1);
    }
    system::write_to_stderr(&line[..len]);
}

const UNKNOWN: &str =
    " is not known: set it to \"fence\", with which readers execute fences, or to nothing";

/// `GRACEPOINT_RCU` has a value that means nothing. See [`requested_strategy`].
#[derive(Clone, PartialEq, Eq)]
pub struct UnknownStrategy(Asked);

impl UnknownStrategy {
    /// The value, or how it begins. What is not printable ASCII is `?`.
    #[must_use]
    pub fn value(&self) -> &str {
        self.0.text()
    }
}

impl fmt::Debug for UnknownStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UnknownStrategy").field(&self.value()).finish()
    }
}

/// For people: the variable, its value, and what it may be.
impl fmt::Display for UnknownStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dots = if self.0.cut { "…" } else { "" };
        write!(f, "GRACEPOINT_RCU={}{dots}{UNKNOWN}", self.value())
    }
}

impl std::error::Error for UnknownStrategy {}

/// What `GRACEPOINT_RCU` in the environment asked for when the program started: `None` if it asked for nothing.
///
/// [`strategy`] is what is in force, which can be [`Strategy::Fence`] also where nobody asked for it.
///
/// # Errors
/// [`UnknownStrategy`] if its value means nothing. It is ignored then, and a line on stderr has said so.
///
/// ```
/// use gracepoint_rcu::{Strategy, requested_strategy, strategy};
///
/// if requested_strategy().expect("GRACEPOINT_RCU is right") == Some(Strategy::Fence) {
///     assert_eq!(strategy(), Strategy::Fence);
/// }
/// ```
pub fn requested_strategy() -> Result<Option<Strategy>, UnknownStrategy> {
    decide();
    let asked = *ASKED.get().unwrap_or(&Asked::NOTHING);
    asked.strategy().ok_or(UnknownStrategy(asked))
}

/// Which form of the barrier is in force in this process.
///
/// ```
/// use gracepoint_rcu::{Strategy, strategy};
///
/// match strategy() {
///     Strategy::Membarrier => println!("a read section is two increments"),
///     Strategy::Fence => println!("a read section is two increments and a fence"),
/// }
/// ```
#[must_use]
pub fn strategy() -> Strategy {
    decide();
    if readers_are_cheap() { Strategy::Membarrier } else { Strategy::Fence }
}

/// The heavy half for grace periods. In the fence form, a fence is all it takes, because
/// readers execute the other one. False: nothing is known about other threads.
pub(crate) fn heavy() -> bool {
    if readers_are_cheap() {
        let had = system::membarrier();
        if had == is_refused() {
            REFUSED.store(!had, Ordering::Relaxed);
        }
        had
    } else {
        fence(Ordering::SeqCst);
        true
    }
}

/// Whether the system, which had `membarrier` at start, has refused it of late; for reports.
pub(crate) fn is_refused() -> bool {
    REFUSED.load(Ordering::Relaxed)
}

/// Executes a full memory barrier on every thread of this process.
///
/// True: between call and return every running thread has executed a full barrier, and the
/// caller too. What the caller wrote before is seen by what those threads do after
/// theirs, and what they did before it is seen by the caller afterwards, although they
/// themselves used nothing but compiler fences.
///
/// False: `membarrier` is not to be had. Only the caller has executed a (SeqCst) fence, and it
/// pairs only with SeqCst fences of the other threads.
///
/// Costs 0.2 µs, and 2–3 µs when another thread of the process is running. Not tied to
/// [`strategy`]: it tries `membarrier` also where `GRACEPOINT_RCU=fence` makes read sections do without.
///
/// ```
/// if !gracepoint_rcu::heavy_barrier() {
///     println!("readers must fence for themselves");
/// }
/// ```
pub fn heavy_barrier() -> bool {
    decide();
    fence(Ordering::SeqCst);
    system::membarrier()
}

/// Makes every thread of this process execute a core-serialising instruction before it next
/// runs code in user space, so that none goes on with instructions that it fetched before
/// the caller changed them.
///
/// False if the system cannot (`membarrier(SYNC_CORE)` is Linux 4.16 and later): then the changed
/// code must be reached in some other way that serialises.
///
/// ```
/// // after patching instructions:
/// let everywhere = gracepoint_rcu::heavy_barrier_code();
/// # let _ = everywhere;
/// ```
pub fn heavy_barrier_code() -> bool {
    decide();
    CODE.load(Ordering::Relaxed) == 1 && system::membarrier_for_code()
}
