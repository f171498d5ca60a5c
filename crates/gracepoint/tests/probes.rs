//! User probes inside one process: who is called, in which order, until when, and what becomes of what
//! they captured. Each test has events of its own, since a hit calls the probes of all tracers.
#![cfg(target_os = "linux")]

use gracepoint::{ErrorKind, HitKind, Moment, Probe, Tracer, span, trace};
use std::cell::Cell;
use std::panic::Location;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

/// Waits for what other threads are about to do.
#[track_caller]
fn until(what: impl Fn() -> bool) {
    let begun = Instant::now();
    while !what() {
        assert!(begun.elapsed() < Duration::from_secs(120), "{} waits in vain", Location::caller());
        thread::sleep(Duration::from_millis(1));
    }
}

/// A list that probes write to.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn add(&self, text: impl Into<String>) {
        self.0.lock().unwrap().push(text.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// A closed gate, at which probes stand until it is opened.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<(u32, bool)>, Condvar)>);

impl Gate {
    fn pass(&self) {
        let mut state = self.0.0.lock().unwrap();
        state.0 += 1;
        drop(self.0.1.wait_while(state, |state| !state.1).unwrap());
    }

    fn standing(&self) -> u32 {
        self.0.0.lock().unwrap().0
    }

    fn open(&self) {
        self.0.0.lock().unwrap().1 = true;
        self.0.1.notify_all();
    }
}

#[derive(gracepoint::Event)]
struct Two<'a, 'b> {
    one: &'a str,
    two: &'b str,
}

#[test]
fn an_event_with_several_lifetimes_has_one_in_a_probe() {
    let log = Log::default();
    let seen = log.clone();
    let probe = Two::tracepoint().attach(move |event: &Two<'_, '_>| {
        let longer = if event.one.len() > event.two.len() { event.one } else { event.two };
        seen.add(longer);
    });
    let one = String::from("one");
    trace!(Two { one: &one, two: "three" });
    probe.unwrap().detach();
    trace!(Two { one: &one, two: "four" });
    assert_eq!(log.take(), ["three"]);
}

/// Its lifetime can be neither shortened nor prolonged, and need not be.
#[derive(gracepoint::Event)]
struct Invariant<'a> {
    #[event(debug)]
    cell: Cell<&'a str>,
}

#[test]
fn an_event_with_one_lifetime_may_be_invariant() {
    let probe = Invariant::tracepoint().attach(|event| event.cell.set("static"));
    let text = String::from("text");
    let cell = Cell::new(text.as_str());
    trace!(Invariant { cell: Cell::new(cell.get()) });
    probe.unwrap().detach();
}

#[derive(gracepoint::Event)]
struct Ordered;

#[test]
fn probes_are_called_by_priority_then_in_the_order_of_attaching() {
    let (log, tracer) = (Log::default(), Tracer::new("ordered"));
    let attach = |name: &'static str, priority: i32| {
        let log = log.clone();
        let tracepoint = tracer.tracepoint::<Ordered>().priority(priority);
        tracepoint.attach(move |_| log.add(name)).unwrap()
    };
    let probes: Vec<Probe> = [("c", 0), ("a", 7), ("e", -1), ("d", 0), ("b", 7)]
        .map(|(name, priority)| attach(name, priority))
        .into();
    trace!(Ordered);
    assert_eq!(log.take(), ["a", "b", "c", "d", "e"]);
    for probe in probes.into_iter().skip(1).step_by(2) {
        probe.detach(); // a and d; the others go with the iterator
    }
    trace!(Ordered);
    assert_eq!(log.take(), Vec::<String>::new());
}

#[derive(gracepoint::Event)]
struct Owned;

#[test]
fn a_tracer_takes_its_probes_along_and_no_others() {
    let (mine, yours) = (Tracer::new("mine"), Tracer::new("yours"));
    let count = |tracer: &Tracer| {
        let calls = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&calls);
        let probe = tracer.tracepoint::<Owned>().attach(move |_| {
            counted.fetch_add(1, Relaxed);
        });
        (probe.unwrap(), calls)
    };
    let ((probe, my_calls), (kept, _)) = (count(&mine), count(&mine));
    let (_yours, your_calls) = count(&yours);
    kept.keep();
    trace!(Owned);
    assert_eq!((mine.statistics().attached, yours.statistics().attached), (2, 1));
    drop(mine);
    assert!(!probe.is_attached());
    trace!(Owned);
    probe.detach_wait().unwrap();
    assert_eq!((my_calls.load(Relaxed), your_calls.load(Relaxed)), (1, 2));
}

/// Says on which thread it was dropped.
struct Dropped(Sender<String>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.send(thread::current().name().unwrap_or("nameless").to_owned());
    }
}

fn dropped() -> (Dropped, Receiver<String>) {
    let (sender, receiver) = channel();
    (Dropped(sender), receiver)
}

#[derive(gracepoint::Event)]
struct Once;

#[test]
fn a_probe_may_detach_itself_and_its_captures_go_later_and_elsewhere() {
    let gate = Gate::default();
    let (witness, drops) = dropped();
    let own: Arc<Mutex<Option<Probe>>> = Arc::default();
    let (cell, closed) = (Arc::downgrade(&own), gate.clone());
    let probe = Once::tracepoint().attach(move |_| {
        let _captured = &witness;
        let own = cell.upgrade().and_then(|own| own.lock().unwrap().take());
        own.expect("called once").detach();
        closed.pass();
    });
    *own.lock().unwrap() = Some(probe.unwrap());
    let hit = thread::spawn(|| trace!(Once));
    until(|| gate.standing() == 1);
    trace!(Once); // would panic: it is off
    assert!(drops.try_recv().is_err(), "a call is under way");
    gate.open();
    hit.join().unwrap();
    // Whoever runs callbacks: not a thread of this test.
    assert_ne!(drops.recv().unwrap(), thread::current().name().unwrap());
}

#[derive(gracepoint::Event)]
struct Slow;

#[test]
fn waiting_ends_with_the_last_call_and_reports_name_who_is_inside() {
    let (gate, tracer) = (Gate::default(), Tracer::new("slow"));
    let closed = gate.clone();
    let probe = tracer.tracepoint::<Slow>().name("sleeper").attach(move |_| closed.pass());
    let reader = thread::Builder::new().name("the-reader".into()).spawn(|| trace!(Slow)).unwrap();
    until(|| gate.standing() == 1);
    assert!(!probe.unwrap().detach_timeout(Duration::from_millis(1)).unwrap());
    assert_eq!((tracer.statistics().attached, tracer.statistics().leaving), (0, 1));
    assert!(tracer.statistics().waiting_bytes > 0);
    let named = |stall: &gracepoint::Stall| {
        stall.holdout.contains("(the-reader) is inside 1 read section")
            && stall.probes == [("sleeper".to_owned(), "probes:slow".to_owned())]
            && stall.to_string().ends_with("running probe \"sleeper\" of probes:slow")
    };
    until(|| tracer.stalls().iter().any(named));
    gate.open();
    reader.join().unwrap();
    until(|| tracer.statistics().leaving == 0);
    assert!(!tracer.stalls().iter().any(named));
}

#[derive(gracepoint::Event)]
struct Inside;

#[test]
fn nobody_waits_for_himself() {
    let other = Inside::tracepoint().attach(|_| {}).unwrap();
    let (result, other) = (Arc::new(Mutex::new(None)), Mutex::new(Some(other)));
    let outcome = Arc::clone(&result);
    let probe = Inside::tracepoint().attach(move |_| {
        if let Some(other) = other.lock().unwrap().take() {
            *outcome.lock().unwrap() = Some(other.detach_wait());
        }
    });
    trace!(Inside);
    let error = result.lock().unwrap().take().expect("called").expect_err("inside");
    assert_eq!(error.kind(), ErrorKind::InsideProbe);
    assert!(error.to_string().starts_with("the probe is detached, but"), "{error}");
    probe.unwrap().detach_wait().unwrap();
}

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[derive(gracepoint::Event)]
struct Awaited;

#[test]
fn a_future_is_ready_when_the_last_call_has_ended() {
    let gate = Gate::default();
    let closed = gate.clone();
    let probe = Awaited::tracepoint().attach(move |_| closed.pass()).unwrap();
    let hit = thread::spawn(|| trace!(Awaited));
    until(|| gate.standing() == 1);
    let mut detached = Box::pin(probe.detach_async());
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    assert_eq!(detached.as_mut().poll(&mut context), Poll::Pending);
    gate.open();
    while detached.as_mut().poll(&mut context).is_pending() {
        thread::park();
    }
    hit.join().unwrap();
}

#[derive(gracepoint::Event)]
struct Recursive;

#[test]
fn a_probe_that_hits_its_own_tracepoint_stops_at_four() {
    let (tracer, calls) = (Tracer::new("recursive"), Arc::new(AtomicU32::new(0)));
    let counted = Arc::clone(&calls);
    let probe = tracer.tracepoint::<Recursive>().attach(move |_| {
        counted.fetch_add(1, Relaxed);
        trace!(Recursive);
    });
    let probe = probe.unwrap();
    for _ in 0..3 {
        trace!(Recursive);
    }
    assert_eq!((calls.load(Relaxed), probe.skipped()), (12, 3));
    drop(probe);
    until(|| tracer.statistics().leaving == 0);
    assert_eq!(tracer.statistics().skipped, 3, "the count outlives the probe");
}

#[derive(gracepoint::Event)]
#[event(name = "probes:bad")]
struct Bad {
    n: u32,
}

/// Unwinding out of here would end the process.
extern "C" fn foreign(n: u32) {
    trace!(Bad { n });
}

#[test]
fn a_panic_ends_the_probe_and_nothing_else() {
    let (tracer, log) = (Tracer::new("bad"), Log::default());
    let (told, calls) = (log.clone(), Arc::new(AtomicU32::new(0)));
    tracer.on_failure(move |failure| {
        told.add(failure.to_string());
        panic!("who is told may panic, too");
    });
    let (witness, drops) = dropped();
    let bad = tracer.tracepoint::<Bad>().name("picky").attach(move |bad| {
        let _captured = &witness;
        assert!(bad.n < 2, "no {}", bad.n);
    });
    let counted = Arc::clone(&calls);
    let good = tracer.tracepoint::<Bad>().attach(move |_| {
        counted.fetch_add(1, Relaxed);
    });
    let (bad, good) = (bad.unwrap(), good.unwrap());
    for n in 0..5 {
        foreign(n);
    }
    assert_eq!((bad.is_attached(), good.is_attached(), calls.load(Relaxed)), (false, true, 5));
    let failures = tracer.failures();
    assert_eq!(failures.len(), 1);
    assert_eq!(
        failures[0].to_string(),
        "probe \"picky\" of probes:bad panicked and is detached: no 2"
    );
    drops.recv().unwrap(); // it is detached without its handle's help
    until(|| tracer.statistics().leaving == 0 && tracer.statistics().attached == 1);
    drop(bad);
    assert_eq!(tracer.failures(), failures);
    until(|| log.0.lock().unwrap().len() == 1);
    assert_eq!(log.take(), [failures[0].to_string()], "told once");
}

/// Detaches a probe and panics when it is dropped.
struct Nasty(Option<Probe>);

impl Drop for Nasty {
    fn drop(&mut self) {
        self.0.take().expect("a probe").detach();
        panic!("nasty");
    }
}

#[derive(gracepoint::Event)]
struct Chained;

#[test]
fn what_was_captured_may_detach_and_panic_when_it_goes() {
    let tracer = Tracer::new("chained");
    let second = tracer.tracepoint::<Chained>().attach(|_| {}).unwrap();
    let nasty = Nasty(Some(second));
    let first = tracer.tracepoint::<Chained>().name("first").attach(move |_| {
        let _captured = &nasty;
    });
    trace!(Chained);
    drop(first.unwrap());
    until(|| tracer.statistics().failures == 1);
    until(|| tracer.statistics().leaving == 0 && tracer.statistics().attached == 0);
    assert_eq!(tracer.failures()[0].message, "(dropping what it captured) nasty");
}

#[derive(gracepoint::Event)]
#[event(name = "many:one")]
struct One<'a> {
    text: &'a str,
}

#[derive(gracepoint::Event)]
#[event(name = "many:two")]
struct Another {
    n: i32,
}

#[test]
fn one_probe_on_all_that_match_sees_names_and_values() {
    let (tracer, log) = (Tracer::new("many"), Log::default());
    let seen = log.clone();
    let all = tracer.tracepoints("many:*").name("all").attach(move |view| {
        seen.add(view.to_string());
        assert_eq!(view.kind() == HitKind::Event, view.span_id().is_none());
    });
    let all = all.unwrap();
    trace!(One { text: "x" });
    trace!(Another { n: -3 });
    drop(span!(Another { n: 4 }));
    let seen = ["many:one text=\"x\"", "many:two n=-3", "many:two begin n=4", "many:two end"];
    assert_eq!(log.take(), seen);
    let seen = log.clone();
    let signed = tracer
        .tracepoints_where(|desc| desc.name().starts_with("many:") && desc.fields[0].name == "n")
        .attach(move |view| seen.add(format!("{:?}", view.get("n"))))
        .unwrap();
    drop(all);
    trace!(One { text: "y" });
    trace!(Another { n: 5 });
    assert_eq!(log.take(), ["Some(Int(5))"]);
    drop(signed);
    let none = tracer.tracepoints("many:three").attach(|_| {});
    assert_eq!(none.expect_err("no such event").kind(), ErrorKind::NoMatch);
}

#[derive(gracepoint::Event)]
struct Outer {
    n: u8,
}

#[derive(gracepoint::Event)]
struct Inner;

#[test]
fn spans_are_seen_from_begin_to_end() {
    let log = Log::default();
    let (outer, inner, plain) = (log.clone(), log.clone(), log.clone());
    let ids: Arc<Mutex<Vec<u64>>> = Arc::default();
    let open = Arc::clone(&ids);
    let _outer = Outer::tracepoint().attach_spans(move |moment: Moment<'_, Outer>| match moment {
        Moment::Begin { event, id, parent, .. } => {
            open.lock().unwrap().push(id);
            outer.add(format!("begin {} in {parent:?}", event.n));
        }
        Moment::End { id, .. } => {
            assert_eq!(open.lock().unwrap().pop(), Some(id));
            outer.add("end");
        }
        Moment::Event { event, .. } => outer.add(format!("event {}", event.n)),
        other => panic!("{other:?}", other = other.clone_kind()),
    });
    let _plain = Outer::tracepoint().attach(move |outer| plain.add(format!("plain {}", outer.n)));
    let parents = Arc::clone(&ids);
    let _inner = Inner::tracepoint().attach_spans(move |moment| {
        if let Moment::Begin { parent, .. } = moment {
            assert_eq!(parent, parents.lock().unwrap().last().copied());
            inner.add("inner");
        }
    });
    trace!(Outer { n: 1 });
    let outer = span!(Outer { n: 2 });
    assert!(outer.id().is_some());
    drop(span!(Inner));
    thread::spawn(move || drop(outer)).join().unwrap();
    let seen = ["event 1", "plain 1", "begin 2 in None", "plain 2", "inner", "end"];
    assert_eq!(log.take(), seen);
}

trait CloneKind {
    fn clone_kind(&self) -> &'static str;
}

impl<T> CloneKind for Moment<'_, T> {
    fn clone_kind(&self) -> &'static str {
        "a moment from the future"
    }
}

#[derive(gracepoint::Event)]
struct Used;

#[test]
fn hooks_are_told_of_the_first_and_the_last() {
    let (tracer, log) = (Tracer::new("used"), Log::default());
    let attach = || tracer.tracepoint::<Used>().attach(|_| {}).unwrap();
    let before = attach();
    let told = log.clone();
    let hook = Used::tracepoint().on_use(move |used| told.add(used.to_string())).unwrap();
    assert_eq!(log.take(), ["true"], "told of what is");
    let second = attach();
    drop(before);
    assert_eq!(log.take(), Vec::<String>::new());
    drop(second);
    assert_eq!(log.take(), ["false"]);
    drop(attach());
    assert_eq!(log.take(), ["true", "false"]);
    drop(hook);
    drop(attach());
    assert_eq!(log.take(), Vec::<String>::new());
}

#[derive(gracepoint::Event)]
struct Held;

#[test]
fn a_hook_may_attach_and_detach_and_is_never_called_twice_at_once() {
    let (tracer, log) = (Arc::new(Tracer::new("held")), Log::default());
    let (told, inner, busy) = (log.clone(), Arc::clone(&tracer), AtomicBool::new(false));
    let held: Mutex<Option<Probe>> = Mutex::new(None);
    // Holds on to the tracepoint as soon as anybody uses it, once.
    let _hook = Held::tracepoint().on_use(move |used| {
        assert!(!busy.swap(true, Acquire), "called twice at once");
        told.add(used.to_string());
        let mut held = held.lock().unwrap();
        if held.is_none() {
            *held = Some(inner.tracepoint::<Held>().attach(|_| {}).unwrap());
        }
        busy.store(false, Release);
    });
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    drop(tracer.tracepoint::<Held>().attach(|_| {}).unwrap());
                }
            });
        }
    });
    assert_eq!(log.take(), ["true"]);
}

#[derive(gracepoint::Event)]
struct Hot {
    n: u32,
}

thread_local! {
    static IN_PROBE: Cell<bool> = const { Cell::new(false) };
}

/// Probes that attach and detach others from inside, on four threads at once, while they are hit.
#[test]
fn probes_attach_and_detach_probes_from_inside() {
    let tracer = Arc::new(Tracer::new("hot"));
    let (owner, pool) = (Arc::downgrade(&tracer), Mutex::new(Vec::new()));
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let _root = tracer.tracepoint::<Hot>().attach(move |hot| {
        let Some(tracer) = owner.upgrade() else { return };
        if IN_PROBE.replace(true) {
            return;
        }
        let counted = Arc::clone(&counted);
        let new = tracer.tracepoint::<Hot>().priority(hot.n as i32 % 3).attach(move |_| {
            counted.fetch_add(1, Relaxed);
        });
        let old = {
            let mut pool = pool.lock().unwrap();
            pool.push(new.unwrap());
            (pool.len() > 3).then(|| pool.remove(0))
        };
        drop(old);
        IN_PROBE.set(false);
    });
    thread::scope(|scope| {
        for t in 0..4 {
            scope.spawn(move || {
                for n in 0..200 {
                    trace!(Hot { n: t * 1000 + n });
                }
            });
        }
    });
    assert!(calls.load(Relaxed) > 0);
    until(|| tracer.statistics().leaving == 0);
    assert_eq!((tracer.statistics().attached, tracer.failures().len()), (4, 0));
}

/// An event that is dropped, whose fields are moved, of few words.
#[derive(gracepoint::Event)]
struct Moved<'a> {
    text: &'a str,
    #[event(debug)]
    counted: Counted<'a>,
    small: u8,
}

#[derive(Debug)]
struct Counted<'a>(&'a AtomicU32);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Relaxed);
    }
}

impl Drop for Moved<'_> {
    fn drop(&mut self) {
        assert_eq!(self.counted.0.fetch_add(10, Relaxed) % 11, 0, "before its fields, once");
    }
}

/// Of too many words for registers.
#[derive(gracepoint::Event)]
struct Large<'a> {
    counted: u64,
    bytes: [u8; 48],
    text: &'a str,
}

/// Of too many fields.
#[derive(gracepoint::Event)]
struct Many {
    a: u8,
    b: u16,
    c: u32,
    d: u64,
    e: i8,
    f: bool,
    g: Option<u32>,
}

#[test]
fn events_arrive_whole_and_are_dropped_once() {
    let (tracer, log) = (Tracer::new("whole"), Log::default());
    let [moved, large, many] = [(); 3].map(|()| log.clone());
    let _moved = tracer.tracepoint::<Moved<'_>>().attach(move |event| {
        let Moved { text, counted, small } = event;
        moved.add(format!("{text} {small} {}", counted.0.load(Relaxed)));
    });
    let _large = tracer.tracepoint::<Large<'_>>().attach(move |event| {
        let Large { counted, bytes, text } = event;
        large.add(format!("{counted} {bytes:?} {text}"));
    });
    let _many = tracer.tracepoint::<Many>().attach(move |event| {
        let Many { a, b, c, d, e, f, g } = event;
        many.add(format!("{a} {b} {c} {d} {e} {f} {g:?}"));
    });
    let drops = AtomicU32::new(0);
    for n in 0..3 {
        let text = n.to_string() + "th";
        trace!(Moved { text: &text, counted: Counted(&drops), small: n + 250 });
        assert_eq!(drops.load(Relaxed), 11 * (u32::from(n) + 1));
        assert_eq!(log.take(), [format!("{n}th {} {}", n + 250, 11 * u32::from(n))]);
    }
    trace!(Large { counted: 3, bytes: [9; 48], text: "end" });
    trace!(Many { a: 1, b: 2, c: 3, d: 4, e: -5, f: true, g: Some(7) });
    assert_eq!(log.take(), [format!("3 {:?} end", [9; 48]), "1 2 3 4 -5 true Some(7)".into()]);
}
