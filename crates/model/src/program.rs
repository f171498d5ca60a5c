//! Programs: words, objects, threads, and what must hold at the end.

use crate::context::{Context, Step};
use std::fmt;

/// A word of shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Word(pub(crate) usize);

/// Something that is freed at most once and not used afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Object(pub(crate) usize);

impl Object {
    /// What a word holds that points to it: never 0.
    #[must_use]
    pub fn address(self) -> u64 {
        self.0 as u64 + 1
    }

    /// The object at an address; `None` for 0.
    #[must_use]
    pub fn at(address: u64) -> Option<Self> {
        Some(Self(usize::try_from(address.checked_sub(1)?).ok()?))
    }
}

/// What a thread may return: nothing, or a number that [`Report::reached`](crate::Report::reached) looks at.
pub trait Outcome {
    /// As a number; 0 for nothing.
    fn number(self) -> u64;
}

impl Outcome for () {
    fn number(self) -> u64 {
        0
    }
}

impl Outcome for u64 {
    fn number(self) -> u64 {
        self
    }
}

type Body = Box<dyn Fn(&Context) -> Step<u64>>;
type EndCheck = Box<dyn Fn(&End<'_>) -> Result<(), String>>;

pub(crate) struct Thread {
    pub(crate) name: String,
    /// It may be waiting when the program ends.
    pub(crate) serves: bool,
    pub(crate) body: Body,
}

/// A small concurrent program. See the crate's text for what its closures may do.
pub struct Program {
    pub(crate) name: String,
    pub(crate) words: Vec<(String, u64)>,
    pub(crate) objects: Vec<String>,
    pub(crate) threads: Vec<Thread>,
    pub(crate) end_checks: Vec<EndCheck>,
}

impl Program {
    /// An empty program.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            words: Vec::new(),
            objects: Vec::new(),
            threads: Vec::new(),
            end_checks: Vec::new(),
        }
    }

    /// A word of memory and what it holds at first.
    pub fn word(&mut self, name: impl Into<String>, value: u64) -> Word {
        self.words.push((name.into(), value));
        Word(self.words.len() - 1)
    }

    /// An object that is there at first.
    ///
    /// # Panics
    /// If there are 64 already.
    pub fn object(&mut self, name: impl Into<String>) -> Object {
        assert!(self.objects.len() < 64, "at most 64 objects");
        self.objects.push(name.into());
        Object(self.objects.len() - 1)
    }

    /// A thread, which must come to its end.
    pub fn thread<R: Outcome>(
        &mut self,
        name: impl Into<String>,
        body: impl Fn(&Context) -> Step<R> + 'static,
    ) {
        self.add(name.into(), false, body);
    }

    /// A thread that may still be waiting for work when everybody else is done.
    pub fn server<R: Outcome>(
        &mut self,
        name: impl Into<String>,
        body: impl Fn(&Context) -> Step<R> + 'static,
    ) {
        self.add(name.into(), true, body);
    }

    fn add<R: Outcome>(
        &mut self,
        name: String,
        serves: bool,
        body: impl Fn(&Context) -> Step<R> + 'static,
    ) {
        assert!(self.threads.len() < 64, "at most 64 threads");
        let body: Body = Box::new(move |cx| body(cx).map(Outcome::number));
        self.threads.push(Thread { name, serves, body });
    }

    /// What must hold when nothing moves any more.
    pub fn at_end(&mut self, check: impl Fn(&End<'_>) -> Result<(), String> + 'static) {
        self.end_checks.push(Box::new(check));
    }

    pub(crate) fn word_name(&self, word: Word) -> &str {
        &self.words[word.0].0
    }

    pub(crate) fn object_name(&self, object: Object) -> &str {
        self.objects.get(object.0).map_or("nothing", String::as_str)
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A state in which nothing moves any more: threads are done, or stalled, or serve.
#[derive(Debug)]
pub struct End<'e> {
    pub(crate) memory: &'e [u64],
    pub(crate) freed: u64,
    pub(crate) results: Vec<Option<u64>>,
}

impl End<'_> {
    /// What the word holds.
    #[must_use]
    pub fn value(&self, word: Word) -> u64 {
        self.memory[word.0]
    }

    /// Whether the object was freed.
    #[must_use]
    pub fn is_freed(&self, object: Object) -> bool {
        self.freed & (1 << object.0) != 0
    }

    /// What each thread returned, in the order in which they were added; `None` for one that is not done.
    #[must_use]
    pub fn results(&self) -> &[Option<u64>] {
        &self.results
    }
}
