//! Stalls as values: who waits, for what, and who holds it up.

use gracepoint_rcu::{
    Culprit, Domain, Event, GracePeriod, Link, Node, Observer, Progress, Stall, WaitCall, WaitKind,
};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// Asks for a grace period and drives until somebody is waited for.
fn begin(domain: &Domain) {
    let _cookie = domain.start_poll();
    while domain.poll() == Progress::Advanced {}
}

/// Runs `inside` while a thread of this name is in a section of `domain`, until it calls what it is
/// given, or returns, or panics.
fn with_reader<R>(domain: &Domain, name: &str, inside: impl FnOnce(&mut dyn FnMut()) -> R) -> R {
    let entered = Barrier::new(2);
    let (leave, wait) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let builder = thread::Builder::new().name(name.to_owned());
        let entered = &entered;
        let reader = builder.spawn_scoped(scope, move || {
            let _guard = domain.read();
            entered.wait();
            // Until the sender is dropped.
            let _ = wait.recv();
        });
        reader.expect("spawned");
        entered.wait();
        let mut leave = Some(leave);
        inside(&mut || drop(leave.take()))
    })
}

fn one(domain: &Domain) -> Stall {
    let mut stalls = domain.stalls();
    assert_eq!(stalls.len(), 1, "{stalls:?}");
    stalls.remove(0)
}

#[test]
fn nothing_runs_nothing_stalls() {
    let domain = Domain::new("quiet");
    assert!(domain.stalls().is_empty());
    domain.synchronize().expect("outside");
    assert!(domain.stalls().is_empty());
}

#[test]
fn the_chain_from_the_waiter_to_the_reader_is_a_value() {
    static DOMAIN: Domain = Domain::new("chain");
    with_reader(&DOMAIN, "culprit", |_| {
        begin(&DOMAIN);
        let first = one(&DOMAIN).grace_period.number;
        DOMAIN.call(|| {});
        thread::scope(|scope| {
            let builder = thread::Builder::new().name("waiter".to_owned());
            let waiter = builder.spawn_scoped(scope, || {
                assert!(!DOMAIN.synchronize_timeout(Duration::from_millis(500)).expect("outside"));
            });
            waiter.expect("spawned");
            // The waiter shows itself before it first pauses; it may also be done already, on a slow machine.
            let begun = Instant::now();
            let mut stall = one(&DOMAIN);
            while stall.waiters.is_empty() && begun.elapsed() < Duration::from_secs(1) {
                thread::yield_now();
                stall = one(&DOMAIN);
            }
            check_chain(&stall, first);
        });
    });
    DOMAIN.barrier().expect("outside");
    assert!(DOMAIN.stalls().is_empty());
}

fn check_chain(stall: &Stall, first: u64) {
    let GracePeriod { domain, number, .. } = stall.grace_period;
    assert_eq!((domain, number), ("chain", first));
    assert_eq!(stall.callbacks.number, 1);
    assert!(stall.callbacks.oldest.is_some());
    let [Culprit { reader, kernel, .. }] = &stall.culprits[..] else { panic!("{stall:?}") };
    assert_eq!(reader.sections, 1);
    let links = stall.links();
    let to_reader = links.iter().find(|link| matches!(link.to, Node::Reader(_)));
    let from = to_reader.expect("a reader").from;
    assert!(matches!(from, Node::GracePeriod(period) if period == stall.grace_period));
    assert!(links.iter().any(|link| matches!(link.from, Node::Callbacks(_))));
    let text = stall.to_string();
    if cfg!(target_os = "linux") {
        assert!(text.contains("(culprit) is inside 1 read section"), "{text}");
        assert_eq!(kernel.as_ref().expect("asked").name.as_deref(), Some("culprit"));
    }
    // It waits for the grace period after the one that was running when it came.
    for waiter in &stall.waiters {
        assert_eq!(waiter.kind, WaitKind::GracePeriod);
        assert_eq!(waiter.call.name(), "synchronize_timeout");
        assert_eq!(waiter.grace_period.number, first + 1);
        let link = links.iter().find(|link| matches!(link.from, Node::Waiter(_))).expect("one");
        assert!(matches!(link.to, Node::GracePeriod(period) if period.number == first + 1));
        let chained = links.iter().any(|link| {
            matches!((link.from, link.to), (Node::GracePeriod(a), Node::GracePeriod(b))
                if a.number == first + 1 && b.number == first)
        });
        assert!(chained, "{links:?}");
    }
}

#[test]
fn a_thread_in_barrier_waits_for_callbacks() {
    static DOMAIN: Domain = Domain::new("barrier");
    let waiter = with_reader(&DOMAIN, "holder", |release| {
        begin(&DOMAIN);
        thread::scope(|scope| {
            scope.spawn(|| DOMAIN.barrier().expect("outside"));
            // It stays until the reader leaves, which is after this.
            loop {
                let stalls = DOMAIN.stalls();
                let waiter = stalls.iter().flat_map(|stall| &stall.waiters).next().cloned();
                if let Some(waiter) = waiter {
                    release();
                    return waiter;
                }
                thread::yield_now();
            }
        })
    });
    assert_eq!((waiter.kind, waiter.call), (WaitKind::Callbacks, WaitCall::Barrier));
    assert!(waiter.to_string().contains("has waited for callbacks"));
    assert!(DOMAIN.stalls().is_empty());
}

#[test]
fn since_when_is_since_first_seen_and_of_the_same_section() {
    let domain = Domain::new("since");
    let first = domain.read();
    begin(&domain);
    let seen = |culprit: &Culprit| culprit.seen;
    let early = seen(&one(&domain).culprits[0]);
    let later = one(&domain);
    assert!(seen(&later.culprits[0]) > early, "it is the same section");
    assert!(later.age >= seen(&later.culprits[0]));
    drop(first);
    domain.synchronize().expect("outside");
    for _ in 0..3 {
        // Nobody looks at this one, after which new sections go to the rank of the one before.
        let unseen = domain.read();
        begin(&domain);
        drop(unseen);
        domain.synchronize().expect("outside");
        let begun = Instant::now();
        let another = domain.read();
        begin(&domain);
        assert!(one(&domain).culprits[0].seen <= begun.elapsed(), "another section");
        drop(another);
        domain.synchronize().expect("outside");
    }
}

#[test]
fn call_sites_are_noted_on_request() {
    let domain = Domain::new("sites");
    drop(domain.read()); // The fast path is open.
    let silent = domain.read();
    begin(&domain);
    assert!(one(&domain).culprits[0].entered.is_none());
    drop(silent);
    domain.synchronize().expect("outside");

    domain.note_call_sites(true);
    let line = line!() + 1;
    let guard = domain.read();
    let nested = domain.read();
    begin(&domain);
    let entered = one(&domain).culprits[0].entered.expect("noted");
    assert_eq!((entered.at.file(), entered.at.line()), (file!(), line));
    assert!(entered.ago.is_some());
    drop((guard, nested));
    domain.synchronize().expect("outside");
    let line = line!() + 1;
    let owned = domain.read_owned("owner");
    begin(&domain);
    let stall = one(&domain);
    assert_eq!(stall.culprits[0].reader.owner, Some("owner"));
    assert_eq!(stall.culprits[0].entered.expect("noted").at.line(), line);
    drop(owned);

    domain.note_call_sites(false);
    domain.synchronize().expect("outside");
    let _guard = domain.read();
    begin(&domain);
    assert!(one(&domain).culprits[0].entered.is_none(), "noted no longer");
}

#[test]
fn the_hook_is_called_by_who_drives_and_may_use_the_domain() {
    static DOMAIN: Domain = Domain::new("hook");
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    /// Calls that came to the panic at their end, and not to another.
    static GOOD: AtomicUsize = AtomicUsize::new(0);
    static LAST: Mutex<Option<Stall>> = Mutex::new(None);
    let driver = thread::current().id();
    DOMAIN.on_stall(move |stall| {
        assert_eq!(thread::current().id(), driver);
        CALLS.fetch_add(1, Ordering::Relaxed);
        *LAST.lock().expect("the last") = Some(stall.clone());
        // No lock of the domain is held.
        drop(DOMAIN.read());
        DOMAIN.poll();
        DOMAIN.call(|| {});
        assert_eq!(DOMAIN.stalls().len(), 1);
        DOMAIN.stalled_after(Duration::ZERO);
        GOOD.fetch_add(1, Ordering::Relaxed);
        panic!("a hook that panics harms nobody");
    });
    let begun = Instant::now();
    with_reader(&DOMAIN, "long", |_| {
        begin(&DOMAIN);
        for _ in 0..100 {
            DOMAIN.poll();
        }
        let threshold = Duration::from_secs(10);
        if begun.elapsed() < threshold {
            assert_eq!(CALLS.load(Ordering::Relaxed), 0, "it is young");
        }
        DOMAIN.stalled_after(Duration::ZERO);
        // Twice as old each time: so many calls that the age cannot have doubled as often.
        while CALLS.load(Ordering::Relaxed) < 3 {
            DOMAIN.poll();
        }
        for _ in 0..1000 {
            DOMAIN.poll();
        }
        let calls = CALLS.load(Ordering::Relaxed);
        let doublings = begun.elapsed().as_micros().ilog2() as usize;
        assert!(calls <= doublings + 2, "{calls} calls in {:?}", begun.elapsed());
    });
    let stall = LAST.lock().expect("the last").take().expect("it was called");
    assert_eq!(GOOD.load(Ordering::Relaxed), CALLS.load(Ordering::Relaxed), "see above");
    assert_eq!(stall.grace_period.domain, "hook");
    assert_eq!(stall.culprits.len(), 1);
    DOMAIN.barrier().expect("outside");
}

#[test]
fn a_thread_that_ended_inside_is_a_culprit_too() {
    let domain = Domain::new("gone");
    let builder = thread::Builder::new().name("leaker".to_owned());
    thread::scope(|scope| {
        let leaker = builder.spawn_scoped(scope, || {
            #[expect(clippy::mem_forget, reason = "leaking a guard is what is tested")]
            std::mem::forget(domain.read());
        });
        leaker.expect("spawned").join().expect("joined");
    });
    begin(&domain);
    let stall = one(&domain);
    let culprit = &stall.culprits[0];
    let thread = culprit.reader.thread.expect("known");
    assert!(thread.ended);
    assert!(culprit.kernel.is_none(), "there is nobody to ask about");
}

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#[test]
fn a_culprits_calls_are_told_by_a_signal() {
    use gracepoint_rcu::backtraces_by_signal;

    static DOMAIN: Domain = Domain::new("calls");
    let signal = libc::SIGRTMIN() + 5;
    backtraces_by_signal(signal).expect("a free signal");
    backtraces_by_signal(signal).expect("the same again");
    // SAFETY: no handler is called; the signal is ignored from here on.
    unsafe { libc::signal(libc::SIGRTMIN() + 6, libc::SIG_IGN) };
    assert!(backtraces_by_signal(libc::SIGRTMIN() + 6).is_err(), "in use");
    assert!(backtraces_by_signal(0).is_err(), "no signal");
    with_reader(&DOMAIN, "called", |_| {
        begin(&DOMAIN);
        // There is one request at a time, and another test may wait for an answer that does not come; or the
        // thread does not get a processor in time. Only a hang takes a minute.
        let begun = Instant::now();
        let backtrace = loop {
            if let Some(backtrace) = one(&DOMAIN).culprits[0].backtrace.clone() {
                break backtrace;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "it answers");
            std::thread::sleep(Duration::from_millis(1));
        };
        assert!(!backtrace.is_empty());
        assert!(backtrace.iter().all(|address| *address != 0));
        let text = one(&DOMAIN).to_string();
        assert!(text.contains("called from 0x") || one(&DOMAIN).culprits[0].backtrace.is_none());
    });
}

#[test]
fn the_domains_thread_tells_of_a_stall_when_nobody_waits() {
    static DOMAIN: Domain = Domain::with_thread("watched");
    let (told, heard) = mpsc::channel();
    DOMAIN.stalled_after(Duration::from_millis(1));
    DOMAIN.on_stall(move |stall| drop(told.send(stall.clone())));
    with_reader(&DOMAIN, "sleeper", |leave| {
        DOMAIN.call(|| {});
        let stall = heard.recv().expect("nobody but the thread drives");
        assert_eq!(stall.grace_period.domain, "watched");
        assert!(stall.waiters.is_empty(), "{stall}");
        assert_eq!(stall.callbacks.number, 1);
        assert_eq!(stall.culprits.len(), 1, "{stall}");
        leave();
    });
    DOMAIN.barrier().expect("outside");
}

/// Where the links from these nodes go, by number of the grace period.
fn targets(links: &[Link<'_>], from: fn(&Node<'_>) -> bool) -> Vec<u64> {
    let to = |link: &Link<'_>| match link.to {
        Node::GracePeriod(period) => period.number,
        _ => panic!("{link:?}"),
    };
    links.iter().filter(|link| from(&link.from)).map(to).collect()
}

/// What was there when a grace period began waits for that, what came later for the next, and what is ready for none.
#[test]
fn callbacks_and_futures_wait_each_for_their_own_grace_period() {
    use std::future::Future as _;
    use std::task::{Context, Waker};

    static DOMAIN: Domain = Domain::new("own");
    static OTHER: Domain = Domain::new("own, too");
    let callbacks =
        |stall: &Stall| targets(&stall.links(), |node| matches!(node, Node::Callbacks(_)));
    let futures = |stall: &Stall| targets(&stall.links(), |node| matches!(node, Node::Futures(_)));
    let next = |stall: &Stall| {
        let links = stall.links();
        let running = stall.grace_period;
        let is_next = |node: &Node<'_>| matches!(node, Node::GracePeriod(period) if period.number == running.number + 1);
        links.iter().any(|link| {
            is_next(&link.from) && matches!(link.to, Node::GracePeriod(to) if to == running)
        })
    };
    let mut cx = Context::from_waker(Waker::noop());
    // A ready callback that nobody has run.
    DOMAIN.call(|| {});
    while DOMAIN.poll() != Progress::Idle {}
    with_reader(&DOMAIN, "holder", |_| {
        begin(&DOMAIN);
        let number = one(&DOMAIN).grace_period.number;
        let stall = one(&DOMAIN);
        assert_eq!((stall.callbacks.number, callbacks(&stall)), (1, vec![]), "it could run");
        assert!(!next(&stall));

        DOMAIN.call(|| {});
        assert_eq!(callbacks(&one(&DOMAIN)), [number + 1], "in the queue");
        DOMAIN.poll();
        assert_eq!(callbacks(&one(&DOMAIN)), [number + 1], "in its bucket");
        assert!(next(&one(&DOMAIN)), "{:?}", one(&DOMAIN).links());
        let mut late = std::pin::pin!(DOMAIN.synchronized());
        assert!(late.as_mut().poll(&mut cx).is_pending());
        let stall = one(&DOMAIN);
        assert_eq!((futures(&stall), stall.async_waiters), (vec![number + 1], 1));
        assert_eq!((stall.futures.for_running, stall.futures.for_next), (0, 1));
    });
    DOMAIN.barrier().expect("outside");

    // Both are there when it begins. (In a domain in which the future has not left a thread that drives.)
    with_reader(&OTHER, "holder", |_| {
        OTHER.call(|| {});
        let mut early = std::pin::pin!(OTHER.synchronized());
        assert!(early.as_mut().poll(&mut cx).is_pending());
        let stall = one(&OTHER);
        let number = stall.grace_period.number;
        assert_eq!((callbacks(&stall), futures(&stall)), (vec![number], vec![number]));
        assert!(!next(&stall));
        OTHER.call(|| {});
        let stall = one(&OTHER);
        assert_eq!(callbacks(&stall), [number, number + 1], "some of each");
        assert!(next(&stall));
    });
    OTHER.barrier().expect("outside");
}

#[test]
fn tasks_that_wait_are_counted() {
    use std::future::Future as _;
    use std::task::{Context, Waker};

    static DOMAIN: Domain = Domain::new("tasks");
    with_reader(&DOMAIN, "reader", |_| {
        let mut wait = std::pin::pin!(DOMAIN.synchronized());
        assert!(wait.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        begin(&DOMAIN);
        assert_eq!(one(&DOMAIN).async_waiters, 1);
    });
}

/// A callback of this test, by whose name it is recognised.
fn hang_until_told(begun: &mpsc::Sender<u32>, told: &mpsc::Receiver<()>) {
    begun.send(gracepoint_rcu::thread_index().expect("an index")).expect("received");
    // Until the sender is dropped.
    let _ = told.recv();
}

#[test]
fn a_callback_that_hangs_is_a_value_and_is_told_to_who_waits() {
    static DOMAIN: Domain = Domain::with_thread("hangs");
    static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let (send_begun, begun) = mpsc::channel();
    let (tell, told) = mpsc::channel::<()>();
    let tell = Mutex::new(Some(tell));
    DOMAIN.stalled_after(Duration::from_millis(1));
    DOMAIN.on_callback_stall(|running| TOLD.lock().expect("no panic").push(running.to_string()));
    assert!(DOMAIN.running_callback().is_none());
    DOMAIN.call(|| {});
    DOMAIN.call(move || hang_until_told(&send_begun, &told));
    DOMAIN.retire(vec![0_u8; 10]);
    DOMAIN.call(|| {});
    let runner = begun.recv().expect("it began");

    let running = DOMAIN.running_callback().expect("it does not end");
    assert_eq!((running.domain, running.number), ("hangs", 2));
    assert!(running.name.contains("a_callback_that_hangs_is_a_value"), "{}", running.name);
    assert_eq!(running.index, Some(runner));
    assert_eq!(running.thread.expect("known").tid, thread_tid(runner));
    assert_eq!(running.behind.number, 2);
    assert!(running.behind.oldest.is_some());
    assert!(matches!(running.links()[..], [Link { to: Node::Running(_), .. }]), "{running:?}");

    thread::scope(|scope| {
        scope.spawn(|| DOMAIN.barrier().expect("outside"));
        // Its thread waits, which is seen, and tells.
        let waits = loop {
            let running = DOMAIN.running_callback().expect("it does not end");
            if !running.waiters.is_empty() && !TOLD.lock().expect("no panic").is_empty() {
                break running;
            }
            thread::yield_now();
        };
        assert_eq!(waits.waiters[0].kind, WaitKind::Callbacks);
        let links = waits.links();
        let [first, second] = links[..] else { panic!("{links:?}") };
        assert!(matches!((first.from, first.to), (Node::Waiter(_), Node::Callbacks(_))));
        assert!(matches!((second.from, second.to), (Node::Callbacks(_), Node::Running(_))));
        assert!(waits.ran_for >= running.ran_for);
        drop(tell.lock().expect("no panic").take());
    });
    assert!(DOMAIN.running_callback().is_none());
    let told = TOLD.lock().expect("no panic");
    assert!(told[0].starts_with("callback 2 of domain \"hangs\", "), "{told:?}");
    assert!(told[0].contains("(rcu:hangs)"), "{told:?}");
}

fn thread_tid(index: u32) -> u32 {
    gracepoint_rcu::thread_info(index).expect("alive").tid
}

#[test]
fn what_is_retired_is_called_by_its_type() {
    struct Odd(mpsc::Sender<&'static str>);
    static DOMAIN: Domain = Domain::new("type");
    impl Drop for Odd {
        fn drop(&mut self) {
            self.0.send(DOMAIN.running_callback().expect("this").name).expect("received");
        }
    }
    let (sender, names) = mpsc::channel();
    DOMAIN.retire(Odd(sender));
    DOMAIN.barrier().expect("outside");
    let name = names.recv().expect("dropped");
    assert!(name.contains("Odd"), "{name}");
}

#[test]
fn a_hook_for_callbacks_that_panics_stops_nobody() {
    static DOMAIN: Domain = Domain::new("panics in its hook");
    let calls = &*Box::leak(Box::new(AtomicUsize::new(0)));
    DOMAIN.stalled_after(Duration::from_millis(1));
    DOMAIN.on_callback_stall(move |_| {
        calls.fetch_add(1, Ordering::Relaxed);
        panic!("in the hook");
    });
    let (tell, told) = mpsc::channel::<()>();
    let (send_begun, begun) = mpsc::channel();
    DOMAIN.call(move || hang_until_told(&send_begun, &told));
    thread::scope(|scope| {
        scope.spawn(|| DOMAIN.barrier().expect("outside"));
        begun.recv().expect("it began");
        while calls.load(Ordering::Relaxed) < 2 {
            DOMAIN.drive();
        }
        drop(tell);
    });
    assert_eq!(DOMAIN.pending_callbacks(), 0);
}

/// What an observer was told of stalls, with the thread that told it.
#[derive(Default)]
struct Stalls(Mutex<Vec<(thread::ThreadId, Stall)>>, Mutex<Vec<gracepoint_rcu::RunningCallback>>);

impl Observer for Stalls {
    fn event(&self, domain: &str, event: &Event<'_>) {
        let Self(stalls, callbacks) = self;
        match event {
            Event::GracePeriodStalled { stall, .. } => {
                assert_eq!(stall.grace_period.domain, domain);
                stalls.lock().expect("stalls").push((thread::current().id(), (*stall).clone()));
            }
            Event::CallbackStalled { running, .. } => {
                assert_eq!(running.domain, domain);
                callbacks.lock().expect("callbacks").push((*running).clone());
            }
            _ => {}
        }
    }
}

#[test]
fn an_observer_is_told_of_a_stall_without_a_hook_as_seldom_as_a_hook() {
    static DOMAIN: Domain = Domain::new("stall observed");
    let told: &'static Stalls = Box::leak(Box::default());
    DOMAIN.observe(told);
    let begun = Instant::now();
    with_reader(&DOMAIN, "observed", |_| {
        begin(&DOMAIN);
        DOMAIN.stalled_after(Duration::ZERO);
        while told.0.lock().expect("stalls").len() < 3 {
            DOMAIN.poll();
        }
        for _ in 0..1000 {
            DOMAIN.poll();
        }
        let stalls = told.0.lock().expect("stalls");
        let doublings = begun.elapsed().as_micros().ilog2() as usize;
        assert!(stalls.len() <= doublings + 2, "{} in {:?}", stalls.len(), begun.elapsed());
        let (driver, stall) = &stalls[0];
        assert_eq!(*driver, thread::current().id());
        assert_eq!(stall.culprits.len(), 1, "{stall}");
        for [(_, before), (_, after)] in stalls.windows(2).map(|pair| [&pair[0], &pair[1]]) {
            assert_eq!(before.grace_period, after.grace_period);
            assert!(after.age >= 2 * before.age);
        }
    });
    DOMAIN.barrier().expect("outside");
}

#[test]
fn an_observer_is_told_of_a_callback_that_hangs_beside_the_hook() {
    static DOMAIN: Domain = Domain::new("hang observed");
    static HOOK: AtomicUsize = AtomicUsize::new(0);
    let told: &'static Stalls = Box::leak(Box::default());
    DOMAIN.observe(told);
    DOMAIN.stalled_after(Duration::from_millis(1));
    DOMAIN.on_callback_stall(|_| {
        HOOK.fetch_add(1, Ordering::Relaxed);
    });
    let (tell, wait) = mpsc::channel::<()>();
    let (send_begun, begun) = mpsc::channel();
    DOMAIN.call(move || hang_until_told(&send_begun, &wait));
    thread::scope(|scope| {
        scope.spawn(|| DOMAIN.barrier().expect("outside"));
        begun.recv().expect("it began");
        while told.1.lock().expect("callbacks").len() < 2 {
            DOMAIN.drive();
        }
        drop(tell);
    });
    let callbacks = told.1.lock().expect("callbacks");
    assert_eq!(callbacks.len(), HOOK.load(Ordering::Relaxed), "both, each time");
    assert!(callbacks[0].name.contains("observer_is_told_of_a_callback"), "{}", callbacks[0].name);
}
