//! A batch of call sites is switched by one rebuild of tracing's cache of interests, and what is off is `never`.
#![cfg(target_os = "linux")]

use gracepoint_tracing::Bridge;
use std::sync::Mutex;
use std::thread::{self, ThreadId};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Dispatch, Event, Metadata, Subscriber};

/// Who asked about which call site, and the answer.
static ASKED: Mutex<Vec<(ThreadId, &str, Answer)>> = Mutex::new(Vec::new());

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answer {
    Never,
    Sometimes,
    Always,
}

/// Our subscriber, and what it answers.
struct Noted(Bridge);

impl Subscriber for Noted {
    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        self.0.on_register_dispatch(dispatch);
    }

    fn register_callsite(&self, meta: &'static Metadata<'static>) -> Interest {
        let interest = self.0.register_callsite(meta);
        let answer = match (interest.is_never(), interest.is_always()) {
            (true, _) => Answer::Never,
            (_, true) => Answer::Always,
            _ => Answer::Sometimes,
        };
        if meta.target() == "batch" {
            ASKED.lock().unwrap().push((thread::current().id(), meta.name(), answer));
        }
        interest
    }

    fn enabled(&self, meta: &Metadata<'_>) -> bool {
        self.0.enabled(meta)
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        self.0.new_span(attributes)
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        self.0.record(id, values);
    }

    fn record_follows_from(&self, id: &Id, follows: &Id) {
        self.0.record_follows_from(id, follows);
    }

    fn event(&self, event: &Event<'_>) {
        self.0.event(event);
    }

    fn enter(&self, id: &Id) {
        self.0.enter(id);
    }

    fn exit(&self, id: &Id) {
        self.0.exit(id);
    }
}

fn hit() {
    tracing::info!(name: "a", target: "batch", "hit");
    tracing::debug!(name: "b", target: "batch", "hit");
    tracing::trace!(name: "c", target: "batch", "hit");
    tracing::error_span!(target: "batch", "d").in_scope(|| ());
}

/// What this thread asks while it changes something. (Others rebuild the cache when they have learnt of sites.)
fn asked(change: impl FnOnce()) -> Vec<(&'static str, Answer)> {
    ASKED.lock().unwrap().clear();
    change();
    let own = thread::current().id();
    let asked = ASKED.lock().unwrap();
    let mut asked: Vec<_> = asked
        .iter()
        .filter(|(who, ..)| *who == own)
        .map(|&(_, name, answer)| (name, answer))
        .collect();
    asked.sort_by_key(|(name, _)| *name);
    asked
}

#[test]
fn a_batch_is_one_rebuild() {
    tracing::subscriber::set_global_default(Noted(Bridge::new())).expect("the first one");
    let all = |answer| ["a", "b", "c", "d"].map(|name| (name, answer));
    assert_eq!(asked(hit), all(Answer::Sometimes), "a first hit's answer may be stored late");
    let mut probe = None;
    let tracepoints = |glob: &str| gracepoint::Tracer::global().tracepoints(glob).attach(|_| {});
    assert_eq!(asked(|| probe = tracepoints("batch:*").ok()), all(Answer::Always));
    assert_eq!(asked(hit), [], "nobody is asked any more");
    assert_eq!(asked(|| drop(probe)), all(Answer::Never));
    let mut probe = None;
    let one = asked(|| probe = tracepoints("batch:c").ok());
    let mut want = all(Answer::Never);
    want[2].1 = Answer::Always;
    assert_eq!(one, want);
}
