//! For unit tests: the events of one test, while others run beside it.
//!
//! ```
//! # #[cfg(target_os = "linux")] {
//! #[derive(gracepoint::Event)]
//! #[event(name = "doc.testing:get")]
//! struct Get<'a> { key: &'a str, hit: bool }
//!
//! let captured = gracepoint::testing::capture();
//! std::thread::spawn(|| gracepoint::trace!(Get { key: "17", hit: true })).join().unwrap();
//! let get = captured.one("doc.testing:get");
//! assert_eq!(get.get::<String>("key"), "17");
//! assert!(get.get::<bool>("hit"));
//! # }
//! ```
//!
//! # Whose events
//! Those of the thread that calls [`capture`], and of all threads that it and they start from then on, and so
//! of the tasks that run there. A thread is known by its timer slack: the kernel hands it down from the
//! thread that makes another one to that one, so a number in it says to which capture a thread
//! belongs, whoever made it (the standard library, an async runtime, C). The slack is some nanoseconds more
//! than its default of 50 µs for that.
//!
//! Threads that were there before (`#[tokio::test(flavor = "multi_thread")]` makes some before the test's
//! body runs, a pool of all tests is shared) belong to nobody; work for them is wrapped ([`Scope`]). Under
//! `cargo nextest`, where each test has a process to itself, threads that belong to nobody belong to the test.

use crate::error::ErrorKind;
use crate::owner::Tracer;
use crate::probe::Probe;
use crate::view::{HitKind, Value, View};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

/// Captures that are told apart; the next one has the first number again.
const NUMBERS: u64 = 10_000;
/// The kernel's default slack, in nanoseconds.
const SLACK: u64 = 50_000;

/// Of each capture that there is, the one that it was made in; 0 for none.
static OPEN: Mutex<BTreeMap<u64, u64>> = Mutex::new(BTreeMap::new());

thread_local! {
    /// What a [`Scope`] says, whatever the slack.
    static SCOPE: Cell<u64> = const { Cell::new(0) };
}

fn open() -> MutexGuard<'static, BTreeMap<u64, u64>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The capture that this thread belongs to; 0 for none.
fn own() -> u64 {
    let scope = SCOPE.try_with(Cell::get).unwrap_or(0);
    if scope != 0 {
        return scope;
    }
    let number = slack().checked_sub(SLACK).filter(|number| (1..=NUMBERS).contains(number));
    number.unwrap_or(0)
}

/// Whether this thread belongs to the capture `wanted`, or to one that was made in it.
fn belongs(wanted: u64) -> bool {
    let mut number = own();
    let open = open();
    for _ in 0..=open.len() {
        if number == wanted {
            return true;
        }
        match open.get(&number) {
            Some(&outer) => number = outer,
            None => return false,
        }
    }
    false
}

/// Whether this thread belongs to no capture that there is.
fn belongs_to_nobody() -> bool {
    let number = own();
    !open().contains_key(&number)
}

#[cfg(gp_supported)]
use crate::sys::{set_timer_slack as set_slack, timer_slack as slack};

#[cfg(not(gp_supported))]
fn slack() -> u64 {
    0
}

#[cfg(not(gp_supported))]
fn set_slack(_: u64) {}

/// Captures the events of this thread, and of the threads that it starts from now on, until what is
/// returned is dropped. Tracepoints that the program has by then; those of objects that are loaded later
/// and call sites of `tracing` that are hit later are not among them.
///
/// # Panics
/// Where tracepoints cannot be switched on (see [`patching`](crate::patching)).
#[must_use = "events are captured as long as this lives"]
pub fn capture() -> Captured {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let outer = own();
    let number = {
        let mut open = open();
        let free = |_: &u64| NEXT.fetch_add(1, Relaxed) % NUMBERS + 1;
        let number = (0..NUMBERS).map(|n| free(&n)).find(|number| !open.contains_key(number));
        let number = number.expect("not so many captures at once");
        open.insert(number, outer);
        number
    };
    let whole_process = alone();
    let log: Arc<Mutex<Vec<CapturedEvent>>> = Arc::default();
    let into = Arc::clone(&log);
    let probe = Tracer::global().tracepoints("*").name("capture").attach(move |view| {
        if belongs(number) || whole_process && belongs_to_nobody() {
            let event = CapturedEvent::new(view);
            into.lock().unwrap_or_else(PoisonError::into_inner).push(event);
        }
    });
    let probe = match probe {
        Ok(probe) => Some(probe),
        Err(error) if error.kind() == ErrorKind::NoMatch => None,
        Err(error) => {
            open().remove(&number);
            panic!("events cannot be captured: {error}");
        }
    };
    let before = (SCOPE.replace(number), slack());
    set_slack(SLACK + number);
    Captured { number, before, log, _probe: probe, _here: PhantomData }
}

/// Whether the process has one test only.
fn alone() -> bool {
    std::env::var_os("NEXTEST_EXECUTION_MODE").is_some_and(|mode| mode == "process-per-test")
}

/// The events of a test so far.
pub struct Captured {
    number: u64,
    /// What the thread was part of before.
    before: (u64, u64),
    log: Arc<Mutex<Vec<CapturedEvent>>>,
    _probe: Option<Probe>,
    /// It ends on the thread where it began.
    _here: PhantomData<*const ()>,
}

impl fmt::Debug for Captured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.events()).finish()
    }
}

impl Captured {
    fn log(&self) -> MutexGuard<'_, Vec<CapturedEvent>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All events so far, in the order in which they came.
    #[must_use]
    pub fn events(&self) -> Vec<CapturedEvent> {
        self.log().clone()
    }

    /// Those whose name matches a pattern as of `gracepoint record -e`.
    #[must_use]
    pub fn matching(&self, glob: &str) -> Vec<CapturedEvent> {
        let matches = |event: &&CapturedEvent| crate::event::name_matches(glob, &event.name);
        self.log().iter().filter(matches).cloned().collect()
    }

    /// How many have this name, begins and ends of spans included.
    #[must_use]
    pub fn count(&self, name: &str) -> usize {
        self.log().iter().filter(|event| event.name == name).count()
    }

    /// The only event with this name.
    ///
    /// # Panics
    /// When there is none, or another one; the message shows all events.
    #[must_use]
    #[track_caller]
    pub fn one(&self, name: &str) -> CapturedEvent {
        let mut found = self.matching(name);
        match found.pop() {
            Some(event) if found.is_empty() => event,
            _ => {
                let all: String = self.log().iter().map(|event| format!("\n  {event}")).collect();
                let number = self.count(name);
                panic!("there should be one {name}, and there are {number}; all events:{all}")
            }
        }
    }

    /// Forgets what came so far.
    pub fn clear(&self) {
        self.log().clear();
    }

    /// What work on a thread of others is wrapped in, so that its events are captured here.
    #[must_use]
    pub fn scope(&self) -> Scope {
        Scope { number: self.number }
    }
}

impl Drop for Captured {
    fn drop(&mut self) {
        let (scope, slack) = self.before;
        SCOPE.set(scope);
        set_slack(slack);
        open().remove(&self.number);
    }
}

/// Says to which capture work belongs that runs on a thread of others.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// # #[derive(gracepoint::Event)]
/// # struct Tick { n: u32 }
/// let (send, pool) = std::sync::mpsc::channel::<Box<dyn FnOnce() + Send>>();
/// let worker = std::thread::spawn(move || pool.into_iter().for_each(|work| work()));
/// let captured = gracepoint::testing::capture();
/// let scope = captured.scope();
/// send.send(Box::new(move || scope.run(|| gracepoint::trace!(Tick { n: 1 })))).unwrap();
/// drop(send);
/// worker.join().unwrap();
/// assert_eq!(captured.events().len(), 1);
/// # }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    number: u64,
}

/// Sets back what a scope has set, also by a panic.
struct Back(u64);

impl Drop for Back {
    fn drop(&mut self) {
        SCOPE.set(self.0);
    }
}

impl Scope {
    /// Runs `work` as a part of the test.
    pub fn run<T>(self, work: impl FnOnce() -> T) -> T {
        let _back = Back(SCOPE.replace(self.number));
        work()
    }

    /// A task that is a part of the test, on whatever thread it is polled.
    pub fn wrap<F: Future>(self, task: F) -> impl Future<Output = F::Output> {
        let mut task = Box::pin(task);
        std::future::poll_fn(move |context: &mut Context<'_>| -> Poll<F::Output> {
            self.run(|| Pin::as_mut(&mut task).poll(context))
        })
    }
}

/// An event that was captured.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CapturedEvent {
    /// Its name, `kv:get`.
    pub name: String,
    /// Whether it is an event, or a span's begin or end.
    pub kind: HitKind,
    /// The span's id, the same at its begin and at its end.
    pub span: Option<u64>,
    /// Name of the thread.
    pub thread: String,
    /// Names and values of its fields.
    pub fields: Vec<(String, CapturedValue)>,
}

/// The value of a field, as [`Value`] has it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum CapturedValue {
    /// An unsigned integer of any size.
    Uint(u128),
    /// A signed integer of any size.
    Int(i128),
    /// A float.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A character.
    Char(char),
    /// Text; the name of an enum's value.
    Text(String),
    /// A length of time.
    Duration(Duration),
    /// A sequence or an array.
    List(Vec<CapturedValue>),
    /// An `Option` that is `None`.
    None,
}

impl CapturedValue {
    fn new(value: Value<'_>) -> CapturedValue {
        match value {
            Value::Uint(n) => CapturedValue::Uint(n),
            Value::Int(n) => CapturedValue::Int(n),
            Value::Float(n) => CapturedValue::Float(n),
            Value::Bool(value) => CapturedValue::Bool(value),
            Value::Char(c) => CapturedValue::Char(c),
            Value::Str(text) => CapturedValue::Text(text.to_owned()),
            Value::Bytes(bytes) => CapturedValue::Text(String::from_utf8_lossy(bytes).into_owned()),
            Value::Duration(time) => CapturedValue::Duration(time),
            Value::Numbers(numbers) => {
                CapturedValue::List(numbers.iter().map(CapturedValue::new).collect())
            }
            Value::None => CapturedValue::None,
            Value::Enum(_, Some(name)) => CapturedValue::Text(name.to_owned()),
            Value::Enum(n, None) => CapturedValue::Uint(n.into()),
        }
    }
}

impl CapturedEvent {
    fn new(view: &View<'_>) -> CapturedEvent {
        let fields = view.fields();
        CapturedEvent {
            name: view.name().to_owned(),
            kind: view.kind(),
            span: view.span_id(),
            thread: std::thread::current().name().unwrap_or_default().to_owned(),
            fields: fields.map(|(name, v)| (name.to_owned(), CapturedValue::new(v))).collect(),
        }
    }

    /// The value of a field.
    #[must_use]
    pub fn value(&self, field: &str) -> Option<&CapturedValue> {
        self.fields.iter().find_map(|(name, value)| (name == field).then_some(value))
    }

    /// The value of a field, as a `T`: an integer of any size, `f64`, `bool`, `char`, `String`, `Duration`, or an
    /// `Option` of one of these.
    ///
    /// # Panics
    /// When there is no such field, or its value is not a `T`; the message shows the event.
    #[must_use]
    #[track_caller]
    pub fn get<T: FromCaptured>(&self, field: &str) -> T {
        let Some(value) = self.value(field) else { panic!("no field {field} in {self}") };
        let ty = std::any::type_name::<T>();
        T::from_captured(value).unwrap_or_else(|| panic!("{field} is no {ty} in {self}"))
    }
}

/// The name and the fields on one line.
impl fmt::Display for CapturedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        match self.kind {
            HitKind::Event => {}
            HitKind::Begin => f.write_str(" begin")?,
            HitKind::End => f.write_str(" end")?,
        }
        self.fields.iter().try_for_each(|(name, value)| write!(f, " {name}={value:?}"))
    }
}

/// A type that a captured value may be asked for as.
pub trait FromCaptured: Sized {
    /// The value, if it is one of this type.
    fn from_captured(value: &CapturedValue) -> Option<Self>;
}

macro_rules! from_captured {
    ($($ty:ty, $value:ident => $get:expr;)*) => {$(
        impl FromCaptured for $ty {
            fn from_captured($value: &CapturedValue) -> Option<$ty> {
                $get
            }
        }
    )*};
    (integers: $($ty:ty)*) => {
        from_captured! {$($ty, value => match value {
            CapturedValue::Uint(n) => (*n).try_into().ok(),
            CapturedValue::Int(n) => (*n).try_into().ok(),
            _ => None,
        };)*}
    };
}

from_captured! { integers: u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize }
from_captured! {
    f64, value => if let CapturedValue::Float(n) = value { Some(*n) } else { None };
    bool, value => if let CapturedValue::Bool(value) = value { Some(*value) } else { None };
    char, value => if let CapturedValue::Char(c) = value { Some(*c) } else { None };
    String, value => if let CapturedValue::Text(text) = value { Some(text.clone()) } else { None };
    Duration, value => if let CapturedValue::Duration(time) = value { Some(*time) } else { None };
}

impl<T: FromCaptured> FromCaptured for Option<T> {
    fn from_captured(value: &CapturedValue) -> Option<Option<T>> {
        match value {
            CapturedValue::None => Some(None),
            value => T::from_captured(value).map(Some),
        }
    }
}
