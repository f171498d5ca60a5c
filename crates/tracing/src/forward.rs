//! The other direction: Gracepoint's own events to `tracing` or `log`, so that nobody instruments twice.
//!
//! # No loops
//! What is forwarded comes back to us where our subscriber, layer or logger is installed. The call sites
//! that are made here are known ([`is_own`]) and become no tracepoints; a thread that is forwarding says so
//! ([`is_forwarding`]), for records of `log`, which have no call site; and tracepoints that were made from
//! call sites of `tracing` are not forwarded at all.

use crate::Error;
use gracepoint::event::EventDesc;
use gracepoint::{HitKind, Value, View};
use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, OnceLock, PoisonError, RwLock};
use tracing_core::field::{self, FieldSet};
use tracing_core::{Callsite, Event, Interest, Kind, Level, Metadata, callsite, dispatcher};

/// Fields that are forwarded; `tracing` has no more.
const MOST_FIELDS: usize = 30;

thread_local!(static FORWARDING: Cell<bool> = const { Cell::new(false) });

/// Whether this thread is handing an event on.
pub(crate) fn is_forwarding() -> bool {
    FORWARDING.get()
}

/// Addresses of the metadata that was made here.
static OWN: RwLock<Option<HashSet<usize>>> = RwLock::new(None);

/// Whether a call site was made here.
pub(crate) fn is_own(meta: &Metadata<'_>) -> bool {
    let own = OWN.read().unwrap_or_else(PoisonError::into_inner);
    own.as_ref().is_some_and(|own| own.contains(&std::ptr::from_ref(meta).addr()))
}

/// Hands Gracepoint's events on; see [`Forward`].
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// #[derive(gracepoint::Event)]
/// #[event(name = "doc.forward:get")]
/// struct Get { n: u32 }
///
/// let forwarding = gracepoint_tracing::forward().events("doc.forward:*").start();
/// gracepoint::trace!(Get { n: 1 }); // a `tracing` event at level INFO, target `doc.forward:get`
/// # drop(forwarding.expect("there is such an event"));
/// # }
/// ```
#[must_use = "nothing is forwarded before `start`"]
pub fn forward() -> Forward {
    Forward { globs: Vec::new(), level: Level::INFO, to_log: false }
}

/// What is to be forwarded, and how.
#[derive(Debug, Clone)]
pub struct Forward {
    globs: Vec<String>,
    level: Level,
    to_log: bool,
}

/// As long as this lives, events are forwarded.
#[must_use = "nothing is forwarded any more when this is dropped"]
pub struct Forwarding {
    _probe: gracepoint::Probe,
}

impl fmt::Debug for Forwarding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forwarding").finish_non_exhaustive()
    }
}

impl Forward {
    /// Events that match this pattern, as of `gracepoint record -e`; may be called more than once. Without, all
    /// events that the program declares itself.
    #[must_use = "nothing is forwarded before `start`"]
    pub fn events(mut self, glob: impl Into<String>) -> Forward {
        self.globs.push(glob.into());
        self
    }

    /// The level of what is forwarded; `INFO` without.
    #[must_use = "nothing is forwarded before `start`"]
    pub fn level(mut self, level: Level) -> Forward {
        self.level = level;
        self
    }

    /// To `log` instead of `tracing`: one line with the fields, and the event's name as the target.
    #[must_use = "nothing is forwarded before `start`"]
    pub fn to_log(mut self) -> Forward {
        self.to_log = true;
        self
    }

    /// Begins. A span is two events, with the fields `span` and, at its begin, its own; `moment` says which.
    /// Events are handed on by the thread that makes them, while it makes them: what the subscriber
    /// costs, each event costs then.
    ///
    /// # Errors
    /// [`Error::Agent`] when no event matches, or the system does not let tracepoints be switched.
    pub fn start(self) -> Result<Forwarding, Error> {
        let Forward { globs, level, to_log } = self;
        let chosen = move |desc: &EventDesc| {
            let name = desc.name();
            let fits = globs.is_empty() || globs.iter().any(|glob| matches(glob, &name));
            // Those that were declared at run time come from `tracing`.
            fits && !desc.ident.is_empty()
        };
        let tracer = gracepoint::Tracer::global();
        let probe = tracer.tracepoints_where(chosen).name("forward").attach(move |view| {
            if FORWARDING.replace(true) {
                return; // an event of the subscriber's own
            }
            let _again = Again;
            if to_log { log_line(view, level) } else { dispatch(view, level) }
        });
        let probe = probe.map_err(|error| Error::Agent(error.to_string()))?;
        Ok(Forwarding { _probe: probe })
    }
}

/// Ends the forwarding of one event, also by a panic.
struct Again;

impl Drop for Again {
    fn drop(&mut self) {
        FORWARDING.set(false);
    }
}

fn matches(glob: &str, name: &str) -> bool {
    gracepoint::event::name_matches(glob, name)
}

fn log_line(view: &View<'_>, level: Level) {
    let level = match level {
        Level::ERROR => log::Level::Error,
        Level::WARN => log::Level::Warn,
        Level::INFO => log::Level::Info,
        Level::DEBUG => log::Level::Debug,
        Level::TRACE => log::Level::Trace,
    };
    if level > log::max_level() {
        return;
    }
    let desc = view.desc();
    log::logger().log(
        &log::Record::builder()
            .args(format_args!("{view}"))
            .level(level)
            .target(view.name())
            .file_static(Some(desc.file))
            .line(Some(desc.line))
            .module_path_static(Some(desc.module))
            .build(),
    );
}

/// A call site for the events of one tracepoint at one level.
struct Site {
    meta: OnceLock<Metadata<'static>>,
    /// No subscriber wants it.
    never: AtomicBool,
}

impl Callsite for Site {
    fn set_interest(&self, interest: Interest) {
        self.never.store(interest.is_never(), Relaxed);
    }

    fn metadata(&self) -> &Metadata<'_> {
        self.meta.get().expect("set before anybody sees the site")
    }
}

/// The call site of a tracepoint; made at its first event.
fn site(view: &View<'_>, level: Level) -> &'static Site {
    /// Where a type is declared, and what it is called: descriptions have no address of their own, and fields that are
    /// alike may share one.
    type Place = (&'static str, u32, &'static str);
    type Sites = HashMap<(Place, Level), &'static Site>;
    static SITES: Mutex<Option<Sites>> = Mutex::new(None);
    let desc = view.desc();
    let mut sites = SITES.lock().unwrap_or_else(PoisonError::into_inner);
    let sites = sites.get_or_insert_default();
    let key = (desc.file, desc.line, desc.ident);
    sites.entry((key, level)).or_insert_with(|| make(view, level))
}

fn make(view: &View<'_>, level: Level) -> &'static Site {
    let site: &'static Site =
        Box::leak(Box::new(Site { meta: OnceLock::new(), never: AtomicBool::new(false) }));
    let desc = view.desc();
    let names = ["moment", "span"].into_iter();
    let names = names.chain(desc.fields.iter().map(|field| field.name)).take(MOST_FIELDS);
    let name: &'static str = Box::leak(view.name().into());
    let fields = FieldSet::new(Box::leak(names.collect()), callsite::Identifier(site));
    let meta = Metadata::new(
        name,
        name,
        level,
        Some(desc.file),
        Some(desc.line),
        Some(desc.module),
        fields,
        Kind::EVENT,
    );
    let meta = site.meta.get_or_init(|| meta);
    let mut own = OWN.write().unwrap_or_else(PoisonError::into_inner);
    own.get_or_insert_default().insert(std::ptr::from_ref(meta).addr());
    drop(own);
    callsite::register(site);
    site
}

fn dispatch(view: &View<'_>, level: Level) {
    let site = site(view, level);
    if site.never.load(Relaxed) {
        return;
    }
    let Some(meta) = site.meta.get() else { return };
    dispatcher::get_default(|dispatch| {
        if dispatch.enabled(meta) {
            with_values(view, meta, |event| dispatch.event(event));
        }
    });
}

/// A value as `tracing` takes it.
enum Owned<'v> {
    U64(u64),
    U128(u128),
    I64(i64),
    I128(i128),
    F64(f64),
    Bool(bool),
    Str(&'v str),
    Other(field::DisplayValue<Value<'v>>),
}

impl<'v> Owned<'v> {
    fn new(value: Value<'v>) -> Option<Owned<'v>> {
        Some(match value {
            Value::None => return None,
            Value::Uint(n) => u64::try_from(n).map_or(Owned::U128(n), Owned::U64),
            Value::Int(n) => i64::try_from(n).map_or(Owned::I128(n), Owned::I64),
            Value::Float(n) => Owned::F64(n),
            Value::Bool(value) => Owned::Bool(value),
            Value::Str(text) => Owned::Str(text),
            Value::Enum(_, Some(name)) => Owned::Str(name),
            other => Owned::Other(field::display(other)),
        })
    }

    fn value(&self) -> &dyn field::Value {
        match self {
            Owned::U64(n) => n,
            Owned::U128(n) => n,
            Owned::I64(n) => n,
            Owned::I128(n) => n,
            Owned::F64(n) => n,
            Owned::Bool(value) => value,
            Owned::Str(text) => text,
            Owned::Other(value) => value,
        }
    }
}

fn with_values(view: &View<'_>, meta: &'static Metadata<'static>, tell: impl FnOnce(&Event<'_>)) {
    let moment = match view.kind() {
        HitKind::Begin => Some("begin"),
        HitKind::End => Some("end"),
        _ => None,
    };
    let first = [moment.map(Owned::Str), view.span_id().map(Owned::U64)];
    let own = view.fields().map(|(_, value)| Owned::new(value));
    let owned: Vec<Option<Owned<'_>>> = first.into_iter().chain(own).take(MOST_FIELDS).collect();
    let mut values: Vec<Option<&dyn field::Value>> =
        owned.iter().map(|value| value.as_ref().map(Owned::value)).collect();
    values.resize(meta.fields().len(), None);
    tell(&Event::new(meta, &meta.fields().value_set_all(&values)));
}
