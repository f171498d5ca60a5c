//! Perf events: what handles count, of whom, and what they tell one by one. (How their rings behave under
//! threads and signals is tested where they are written, with a twin that fails.)
#![cfg(target_os = "linux")]

use gracepoint::{ErrorKind, FunctionFilter, PerfAttr, PerfEvent, PerfGroup, SystemEvent, Tracer};
use std::os::fd::AsFd;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// An event of one test: tests run in parallel, and a process's counts have all threads in them.
macro_rules! events {
    ($($module:ident)*) => { $(
        #[allow(dead_code, reason = "a test may need one of them alone")]
        mod $module {
            #[derive(gracepoint::Event)]
            pub(crate) struct One {
                pub(crate) n: u64,
            }
            #[derive(gracepoint::Event)]
            pub(crate) struct Two {
                pub(crate) n: u64,
            }
            /// Hits the first so often.
            pub(crate) fn hit(times: u64) {
                for n in 0..times {
                    gracepoint::trace!(One { n });
                }
            }
        }
    )* };
}

events! { counted closed picked paced rung crowded grouped spanned forked many named refed }

fn open(attr: PerfAttr) -> PerfEvent {
    PerfEvent::open(attr).unwrap()
}

#[track_caller]
fn until(mut what: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !what() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waits in vain");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn hits_are_counted_of_the_process_or_of_a_thread() {
    use counted::{One, hit};
    let all = open(PerfAttr::tracepoint::<One>());
    let mine = open(PerfAttr::tracepoint::<One>().this_thread());
    hit(10);
    let theirs = std::thread::spawn(|| {
        let theirs = open(PerfAttr::tracepoint::<One>().this_thread());
        hit(7);
        theirs.read().value
    });
    assert_eq!(theirs.join().unwrap(), 7);
    assert_eq!((all.read().value, mine.read().value), (17, 10));
    all.reset();
    hit(1);
    assert_eq!((all.read().value, mine.read().value), (1, 11));
}

#[test]
fn what_is_disabled_leaves_the_tracepoint_off_and_its_clock_stands() {
    use closed::{One, hit};
    let handle = open(PerfAttr::tracepoint::<One>().disabled());
    // A field is evaluated only where the site is on.
    let is_on = || {
        let evaluated = AtomicBool::new(false);
        gracepoint::trace!(One { n: u64::from(evaluated.swap(true, Relaxed)) });
        evaluated.into_inner()
    };
    assert!(!is_on());
    assert_eq!(handle.read(), Default::default());
    handle.enable().unwrap();
    handle.enable().unwrap();
    assert!(is_on());
    hit(4);
    handle.disable();
    assert!(!is_on());
    let first = handle.read();
    assert_eq!(first.value, 5);
    assert!(first.enabled > Duration::ZERO && first.running == first.enabled);
    std::thread::sleep(Duration::from_millis(1));
    assert_eq!(handle.read(), first);
    handle.disable();
    handle.enable().unwrap();
    hit(1);
    let second = handle.read();
    assert!(second.value == 6 && second.enabled > first.enabled, "{second:?}");
    handle.reset();
    assert!(handle.read().value == 0 && handle.read().enabled >= second.enabled);
    drop(handle);
    assert!(!is_on());
}

#[test]
fn a_tracepoint_is_found_by_its_name() {
    let error = PerfEvent::open(PerfAttr::named("no:such")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoMatch);
    assert!(error.to_string().contains("no:such"), "{error}");
    let name = <named::One as gracepoint::Event>::DESC.name();
    let handle = open(PerfAttr::named(name));
    named::hit(3);
    assert_eq!(handle.read().value, 3);
}

#[test]
fn every_nth_hit_is_a_sample_and_stands_for_n() {
    use picked::{One, hit};
    let handle = open(PerfAttr::tracepoint::<One>().every(10).ring(64, 64));
    hit(105);
    let mut samples = Vec::new();
    handle.ring().unwrap().drain(|sample| samples.push(sample));
    assert_eq!(samples.len(), 10);
    assert!(samples.iter().all(|sample| sample.hits == 10 && sample.span.is_none()));
    assert!(samples.is_sorted_by_key(|sample| sample.at), "{samples:?}");
    assert_eq!(samples[9].count, 100);
    // SAFETY: asks for a number.
    let tid = unsafe { libc::gettid() }.cast_unsigned();
    assert!(samples.iter().all(|sample| sample.tid == tid));
    assert_eq!(handle.read().value, 105);
}

#[test]
fn a_frequency_bounds_the_samples_and_their_weights_add_up() {
    use paced::{One, hit};
    let handle = open(PerfAttr::tracepoint::<One>().frequency(200).ring(1 << 16, 1));
    let begun = Instant::now();
    let mut hits = 0;
    while begun.elapsed() < Duration::from_millis(50) {
        hit(1000);
        hits += 1000;
    }
    let took = begun.elapsed();
    let (mut samples, mut weight, mut last) = (0, 0, 0);
    handle.ring().unwrap().drain(|sample| {
        (samples, weight, last) = (samples + 1, weight + sample.hits, sample.count);
    });
    // One at once, and one in each 5 ms since: the bound holds however slow this machine is.
    let most = 2 + took.as_millis() as u64 / 5;
    assert!(samples >= 1 && samples <= most, "{samples} samples in {took:?}");
    assert_eq!(weight, last, "each hit up to the last sample is in the weight of one");
    assert!(last <= hits && handle.read().value == hits);
}

fn is_ready(ring: &gracepoint::PerfRing) -> bool {
    let fd = std::os::fd::AsRawFd::as_raw_fd(&ring.as_fd());
    let mut list = [libc::pollfd { fd, events: libc::POLLIN, revents: 0 }];
    // SAFETY: a list of one entry, and no wait.
    unsafe { libc::poll(list.as_mut_ptr(), 1, 0) == 1 }
}

#[test]
fn a_descriptor_is_ready_when_a_watermark_of_samples_has_come() {
    use rung::{One, hit};
    let handle = open(PerfAttr::tracepoint::<One>().ring(64, 8));
    let ring = handle.ring().unwrap();
    for round in 0..20 {
        hit(7);
        assert!(!is_ready(ring), "round {round}");
        hit(1);
        assert!(is_ready(ring), "round {round}");
        let mut samples = 0;
        ring.drain(|_| samples += 1);
        assert_eq!(samples, 8);
        assert!(!is_ready(ring), "round {round}");
    }
}

#[test]
fn a_full_ring_loses_the_new_samples_and_counts_them() {
    use crowded::{One, hit};
    let handle = open(PerfAttr::tracepoint::<One>().ring(50, 1)); // 64
    hit(100);
    let ring = handle.ring().unwrap();
    let mut counts = Vec::new();
    ring.drain(|sample| counts.push(sample.count));
    assert_eq!(counts, (1..=64).collect::<Vec<_>>());
    assert_eq!(ring.lost(), 36);
    hit(1);
    // What was lost is in the weight of nobody else: its loss is known by number.
    ring.drain(|sample| assert_eq!((sample.count, sample.hits), (101, 1)));
}

#[test]
fn a_group_is_one() {
    use grouped::{One, Two, hit};
    let attrs = [
        PerfAttr::tracepoint::<One>().disabled().ring(8, 1),
        PerfAttr::system(SystemEvent::CpuClock).disabled(),
        PerfAttr::tracepoint::<Two>().disabled().ring(8, 1),
    ];
    let group = PerfGroup::open(attrs).unwrap();
    hit(1);
    group.enable().unwrap();
    hit(2);
    gracepoint::trace!(Two { n: 1 });
    group.disable();
    gracepoint::trace!(Two { n: 1 });
    let counts = group.read();
    assert_eq!((counts[0].value, counts[2].value), (2, 1));
    assert!(counts[1].value > 0);
    assert!(counts.iter().all(|count| count.enabled == counts[0].enabled));
    group.ring(2).unwrap().drain(|sample| assert_eq!(sample.event, 2));
    assert!(group.ring(1).is_none() && group.ring(3).is_none());
    group.reset();
    assert!(group.read().iter().all(|count| count.value == 0));
}

/// Functions of one test.
mod called {
    #[gracepoint::function]
    pub(crate) fn first(n: u64) -> u64 {
        std::hint::black_box(n) + 1
    }
    #[gracepoint::function]
    pub(crate) fn second(n: u64) -> u64 {
        first(n) + 1
    }
}

#[test]
fn calls_of_functions_are_counted_sampled_and_closed() {
    let both = FunctionFilter::new("*::called::first").or("*::called::second");
    let all = open(PerfAttr::functions(both));
    let first = open(PerfAttr::function("*::called::first").every(2).ring(64, 1).disabled());
    called::second(1);
    assert_eq!((all.read().value, first.read().value), (2, 0));
    first.enable().unwrap();
    (0..5).for_each(|n| _ = called::second(n));
    let other = std::thread::spawn(|| {
        let mine = open(PerfAttr::function("*::called::second").this_thread());
        called::second(1);
        mine.read().value
    });
    assert_eq!(other.join().unwrap(), 1);
    assert_eq!((all.read().value, first.read().value), (14, 6));
    let mut samples = Vec::new();
    first.ring().unwrap().drain(|sample| samples.push((sample.count, sample.hits)));
    assert_eq!(samples, [(2, 2), (4, 2), (6, 2)]);
    first.disable();
    all.reset();
    called::first(1);
    assert_eq!((all.read().value, first.read().value), (1, 6));
    drop((all, first));
    until(|| Tracer::global().statistics().waiting_callbacks == 0);

    let error = PerfEvent::open(PerfAttr::function("*::called::third")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoMatch);
    assert!(error.to_string().contains("*::called::third"), "{error}");
}

#[test]
fn functions_and_tracepoints_are_one_group() {
    let attrs = [PerfAttr::tracepoint::<refed::Two>(), PerfAttr::function("*::grouped_call")];
    #[gracepoint::function]
    fn grouped_call() {
        gracepoint::trace!(refed::Two { n: 1 });
    }
    let group = PerfGroup::open(attrs).unwrap();
    (0..3).for_each(|_| grouped_call());
    group.disable();
    grouped_call();
    let values: Vec<u64> = group.read().iter().map(|count| count.value).collect();
    assert_eq!(values, [3, 3]);
}

#[test]
fn begins_of_spans_are_hits_and_their_ends_are_not() {
    use spanned::One;
    let handle = open(PerfAttr::tracepoint::<One>().ring(8, 1));
    let span = gracepoint::span!(One { n: 1 });
    drop(span);
    assert_eq!(handle.read().value, 1);
    let mut spans = 0;
    handle.ring().unwrap().drain(|sample| spans += u64::from(sample.span.is_some()));
    assert_eq!(spans, 1);
}

#[test]
fn many_are_closed_in_one_batch_and_what_they_kept_is_freed() {
    use many::{One, Two, hit};
    let attrs = |n: u64| match n % 2 {
        0 => PerfAttr::tracepoint::<One>(),
        _ => PerfAttr::tracepoint::<Two>(),
    };
    let handles: Vec<_> = (0..100).map(|n| open(attrs(n).ring(64, 1))).collect();
    hit(3);
    let counted: u64 = handles.iter().map(|handle| handle.read().value).sum();
    assert_eq!(counted, 150);
    PerfEvent::close_all(handles);
    let evaluated = AtomicBool::new(false);
    gracepoint::trace!(One { n: u64::from(evaluated.swap(true, Relaxed)) });
    assert!(!evaluated.into_inner(), "the site is off");
    until(|| Tracer::global().statistics().waiting_callbacks == 0);
}

#[test]
fn a_forked_child_counts_for_itself() {
    use forked::{One, hit};
    let handle = open(PerfAttr::tracepoint::<One>());
    hit(2);
    // SAFETY: the child uses what a forked child of this runtime may use, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        hit(3);
        let good = handle.read().value == 5;
        drop(handle);
        // SAFETY: ends the child.
        unsafe { libc::_exit(i32::from(!good)) };
    }
    let mut status = 0;
    // SAFETY: waits for our own child.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0);
    assert_eq!(handle.read().value, 2);
}

/// Touches so many new pages.
fn fault(pages: usize) {
    let len = pages << 12;
    let (protection, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping that nobody else uses, written to inside, and unmapped.
    unsafe {
        let base = libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0);
        assert_ne!(base, libc::MAP_FAILED);
        libc::madvise(base, len, libc::MADV_NOHUGEPAGE);
        for page in 0..pages {
            base.cast::<u8>().add(page << 12).write_volatile(1);
        }
        libc::munmap(base, len);
    }
}

fn spin(ms: u64) {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(ms) {}
}

#[test]
fn the_system_counts_for_a_thread_and_for_the_process() {
    let of = |event| {
        let thread = open(PerfAttr::system(event).this_thread());
        (thread, open(PerfAttr::system(event)))
    };
    let faults = of(SystemEvent::PageFaults);
    fault(100);
    let (mine, all) = (faults.0.read().value, faults.1.read().value);
    assert!(mine >= 100 && all >= 100, "{mine} of {all} faults");
    std::thread::spawn(|| fault(200)).join().unwrap();
    let (still, all) = (faults.0.read().value, faults.1.read().value - all);
    assert!(still - mine < 100 && all >= 200, "{still}, {all}: a thread's are its own");

    let switches = of(SystemEvent::ContextSwitches);
    (0..5).for_each(|_| std::thread::sleep(Duration::from_millis(1)));
    let (mine, all) = (switches.0.read().value, switches.1.read().value);
    assert!(mine >= 5 && all >= 5, "{mine} of {all} switches");

    let clocks = of(SystemEvent::CpuClock);
    spin(5);
    let (mine, all) = (clocks.0.read().value, clocks.1.read().value);
    assert!(mine > 0 && all > 0, "{mine} of {all} ns");
    clocks.0.disable();
    let stood = clocks.0.read().value;
    spin(2);
    assert_eq!(clocks.0.read().value, stood);
}

/// What only perf events of the kernel count: right where the kernel allows it, and where it does not, an error
/// that says what is missing.
#[test]
fn what_takes_a_perf_event_of_the_kernel_is_counted_or_refused_in_words() {
    let inherited = PerfAttr::system(SystemEvent::PageFaults).this_thread().inherit(true);
    let handles = [
        PerfEvent::open(inherited),
        PerfEvent::open(PerfAttr::system(SystemEvent::Migrations)),
        PerfEvent::open(PerfAttr::system(SystemEvent::Migrations).this_thread()),
    ];
    let before = handles[0].as_ref().map_or(0, |faults| faults.read().value);
    // Ends before it is looked at: what an inherited event counted comes back with the thread's end.
    std::thread::spawn(|| fault(300)).join().unwrap();
    match &handles {
        [Ok(faults), Ok(all), Ok(_mine)] => {
            until(|| faults.read().value >= before + 300);
            let _moves: u64 = all.read().value;
        }
        refused => {
            for error in refused.iter().map(|handle| handle.as_ref().unwrap_err()) {
                assert_eq!(error.kind(), ErrorKind::Refused);
                let text = error.to_string();
                assert!(
                    text.contains("perf_event_paranoid") && text.contains("CAP_PERFMON"),
                    "{text}"
                );
            }
        }
    }
}

#[test]
fn what_cannot_be_counted_so_is_refused() {
    let refused = |attr| PerfEvent::open(attr).unwrap_err();
    let error = refused(PerfAttr::tracepoint::<named::Two>().this_thread().inherit(true));
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let error = refused(PerfAttr::system(SystemEvent::CpuClock).ring(8, 1));
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    for event in [SystemEvent::CpuClock, SystemEvent::PageFaults] {
        // No thread has such a number.
        let handle = PerfEvent::open(PerfAttr::system(event).thread(i32::MAX as u32));
        match handle {
            Err(error) => assert_eq!(error.kind(), ErrorKind::NoMatch, "{error}"),
            // Without perf events it is not known before it is read: it stays 0.
            Ok(handle) => assert_eq!(handle.read().value, 0),
        }
    }
}
