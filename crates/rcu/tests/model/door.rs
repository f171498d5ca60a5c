//! The model's side of the door: `crate::sync`, `crate::arch` and `crate::barrier` for files that ship.
//!
//! Their code cannot return a `Stop`, so an access that has no result yet unwinds. What a twin
//! changes *inside* of a file that ships is changed here, at the access: a store that is left out or
//! comes late.

use crate::{Form, Twin};
use gracepoint_model::{Context, Program, Step, Word};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

/// One run of one thread.
pub(crate) struct Run {
    pub(crate) cx: Context,
    pub(crate) twin: Twin,
    form: Form,
    /// [`Twin::LateBegin`]: the store that is held back.
    late: Cell<Option<(Word, u64)>>,
    /// What a driver knows of the words that it last read in a scan.
    pub(crate) known: RefCell<Vec<(Word, u64)>>,
    /// Heavy barriers executed.
    pub(crate) barriers: Cell<u64>,
}

/// A program that is being built, and its words by name.
struct Build {
    program: Program,
    names: Vec<String>,
    words: HashMap<String, Word>,
}

thread_local! {
    static RUN: RefCell<Option<Rc<Run>>> = const { RefCell::new(None) };
    static BUILD: RefCell<Option<Build>> = const { RefCell::new(None) };
}

/// Makes values whose atomics become words of `program`, by these names, in the order in which they are made.
pub(crate) fn build<T>(
    program: Program,
    names: impl Iterator<Item = String>,
    make: impl FnOnce() -> T,
) -> (Program, HashMap<String, Word>, T) {
    let mut names: Vec<String> = names.collect();
    names.reverse();
    BUILD.set(Some(Build { program, names, words: HashMap::new() }));
    let made = make();
    let build = BUILD.take().expect("it was put there");
    assert!(build.names.is_empty(), "more names than atomics: {:?}", build.names);
    (build.program, build.words, made)
}

fn new_word(value: u64) -> Word {
    BUILD.with_borrow_mut(|build| {
        let build = build.as_mut().expect("atomics are made by `build`");
        let name = build.names.pop().expect("a name for each atomic");
        let word = build.program.word(name.clone(), value);
        build.words.insert(name, word);
        word
    })
}

/// A thread's closure: `body` with this run in place. Returns how many heavy barriers it took.
pub(crate) fn body(
    twin: Twin,
    form: Form,
    body: impl Fn() + 'static,
) -> impl Fn(&Context) -> Step<u64> {
    move |cx| {
        let late = Cell::new(None);
        let barriers = Cell::new(0);
        let known = RefCell::default();
        let run = Rc::new(Run { cx: cx.clone(), twin, form, late, known, barriers });
        RUN.set(Some(Rc::clone(&run)));
        body();
        Ok(run.barriers.get())
    }
}

pub(crate) fn run() -> Rc<Run> {
    RUN.with_borrow(|run| Rc::clone(run.as_ref().expect("inside of `body`")))
}

/// The result of an access, or out of here.
pub(crate) fn access<T: Default>(make: impl FnOnce(&Context) -> Step<T>) -> T {
    if std::thread::panicking() {
        return T::default(); // A destructor, on the way out.
    }
    make(&run().cx).unwrap_or_else(|stop| stop.unwind())
}

fn store(word: Word, value: u64, name: Named) {
    // How often it was looked in vain decides delays alone; without it there are fewer states.
    if name != Named::Attempts {
        access(|cx| cx.store(word, value));
    }
}

/// The old value. What grace periods do to `seq` is here: they begin with both ranks awaited (3), and lose one or
/// both by confirmations.
fn compare_exchange(word: Word, from: u64, to: u64, name: Named) -> u64 {
    let run = run();
    match (run.twin, name) {
        (Twin::LateBegin, Named::Seq) if to & 3 == 3 => {
            run.late.set(Some((word, to)));
            from
        }
        (Twin::OldConfirmations, Named::Seq) if to & 3 == 3 => {
            access(|cx| cx.compare_exchange(word, from, to - 1))
        }
        (Twin::LateConfirmation, Named::Seq) if from & 3 != 0 => {
            let confirmed = from & !if to & 3 == 0 { 0 } else { to } & 3;
            loop {
                let now = access(|cx| cx.load(word));
                let left = now & 3 & !confirmed;
                let next = if left == 0 { (now + 3) & !3 } else { (now & !3) | left };
                if access(|cx| cx.compare_exchange(word, now, next)) == now {
                    return from;
                }
            }
        }
        _ => access(|cx| cx.compare_exchange(word, from, to)),
    }
}

/// Stores what was held back.
pub(crate) fn catch_up() {
    if let Some((word, value)) = run().late.take() {
        access(|cx| cx.store(word, value));
    }
}

/// Atomics that are treated in their own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    Seq,
    Attempts,
    Other,
}

fn named(word: Word) -> Named {
    BUILD.with_borrow(|build| {
        let is = |name: &str| build.as_ref().is_some_and(|b| b.words.get(name) == Some(&word));
        match () {
            () if is("seq") => Named::Seq,
            () if is("attempts") => Named::Attempts,
            () => Named::Other,
        }
    })
}

pub(crate) mod sync {
    //! Atomics that are words of the program.

    use super::{Named, access, named, new_word};
    use crate::Twin;
    use gracepoint_model::Word;
    pub(crate) use std::sync::atomic::Ordering;

    pub(crate) mod unexplored {
        pub(crate) use std::sync::atomic::AtomicU64;
    }

    macro_rules! constant {
        ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty $body:block) => {
            $(#[$meta])* $vis fn $name($($arg: $ty),*) -> $ret $body
        };
    }
    pub(crate) use constant;

    macro_rules! atomic {
        ($name:ident, $int:ty) => {
            #[derive(Debug)]
            pub(crate) struct $name {
                pub(crate) word: Word,
                named: Named,
            }

            #[allow(dead_code, reason = "each file uses a part")]
            impl $name {
                pub(crate) fn new(value: $int) -> Self {
                    let word = new_word(value as u64);
                    Self { word, named: named(word) }
                }

                pub(crate) fn load(&self, _: Ordering) -> $int {
                    if self.named == Named::Attempts {
                        return 0;
                    }
                    access(|cx| cx.load(self.word)) as $int
                }

                pub(crate) fn store(&self, value: $int, _: Ordering) {
                    super::store(self.word, value as u64, self.named);
                }

                pub(crate) fn fetch_add(&self, value: $int, _: Ordering) -> $int {
                    if super::run().twin == Twin::SharedSlotNotAtomic {
                        access(|cx| cx.increment(self.word));
                        return 0; // Nobody asks.
                    }
                    access(|cx| cx.fetch_add(self.word, value as u64)) as $int
                }

                pub(crate) fn fetch_max(&self, value: $int, _: Ordering) -> $int {
                    access(|cx| cx.fetch_max(self.word, value as u64)) as $int
                }

                pub(crate) fn compare_exchange(
                    &self,
                    from: $int,
                    to: $int,
                    _: Ordering,
                    _: Ordering,
                ) -> Result<$int, $int> {
                    let (from_word, to_word) = (from as u64, to as u64);
                    let old =
                        super::compare_exchange(self.word, from_word, to_word, self.named) as $int;
                    if old == from { Ok(old) } else { Err(old) }
                }
            }
        };
    }

    atomic!(AtomicU64, u64);
    atomic!(AtomicUsize, usize);

    /// The files in here have one fence: `Grace::snapshot`'s.
    pub(crate) fn fence(_: Ordering) {
        if super::run().twin != Twin::NoSnapshotFence {
            access(gracepoint_model::Context::fence);
        }
    }

    /// The lock in here guards nothing: the grace period's state is in atomics.
    #[derive(Debug)]
    pub(crate) struct Guarded<T>(std::cell::UnsafeCell<T>);

    impl<T> Guarded<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}

pub(crate) mod arch {
    //! The increment: one instruction, and a twin that is two.

    use super::{access, run, sync::AtomicU64};
    use crate::Twin;

    pub(crate) fn increment(counter: &AtomicU64) {
        if run().twin == Twin::SplitIncrement {
            let value = access(|cx| cx.load(counter.word));
            crate::world::perhaps_a_signal();
            access(|cx| cx.store(counter.word, value + 1));
        } else {
            access(|cx| cx.increment(counter.word));
        }
    }

    /// Here every store is a release.
    pub(crate) fn increment_release(counter: &AtomicU64) {
        increment(counter);
    }
}

pub(crate) mod barrier {
    //! The light barrier: a compiler fence, which is no instruction.

    use crate::{Form, Twin};

    pub(crate) fn light() {}

    /// In the form of this program: nothing, or the reader's fence.
    pub(crate) fn either() {
        let run = super::run();
        if run.form == Form::Fence && run.twin != Twin::NoReaderFence {
            super::access(gracepoint_model::Context::fence);
        }
    }
}
