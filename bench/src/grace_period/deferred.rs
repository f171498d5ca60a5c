//! Freeing later: how many objects of 64 bytes a thread can allocate and leave to be freed per
//! second, until the last is freed; and how many wait to be freed while one thread floods.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use gracepoint_bench_peers::{Registered, flavours, retire, retire_hazard};
use gracepoint_rcu::{Domain, Progress};
use rustix::time::{ClockId, clock_gettime};

use super::{Engine, start_workers};
use crate::measure::{pin, pin_beside};
use crate::sections::{Samples, Section};
use crate::table::Goal;

/// Objects per round of the suite, and at most in one go.
const PER_ROUND: u64 = 20_000;
const AT_MOST: u64 = 1_000_000;
const TIMES: usize = 5;
const FLOODS: usize = 3;
/// How often a producer drives, and looks how many wait.
const DRIVES_EVERY: u64 = 512;
const LOOKS_EVERY: u64 = 64;

/// Above 100,000 callers of a domain with a thread are slowed down, which is looked at now and then.
const SERVED_MOST: f64 = 110_000.0;

const BOXED: &str = "gracepoint retire(Box), producer drives";
const BASE: &str = "gracepoint retire(Box), no blocks";
const VALUE: &str = "gracepoint retire(value), producer drives";
const SERVED: &str = "gracepoint retire(Box), its thread drives";
const EPOCH: &str = "crossbeam-epoch defer";
const MEMB: &str = "liburcu memb call_rcu";
/// Whose throughput is to be exceeded by whom: on one thread, and on two.
const PAIRS: [(&str, &str); 5] =
    [(BOXED, EPOCH), (BOXED, MEMB), (VALUE, EPOCH), (VALUE, MEMB), (SERVED, MEMB)];

static DEFERRED: Domain = Domain::new("bench deferred");
static BY_THREAD: Domain = Domain::with_thread("bench deferred, served");

/// Objects freed, counted by each thread in a place of its own: cheaper than one for all.
static FREED: [AtomicU64; PLACES] = [const { AtomicU64::new(0) }; PLACES];
/// More than threads ever free.
const PLACES: usize = 16;

thread_local! {
    static PLACE: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    };
}

/// 64 bytes, as liburcu's object with its head.
struct Object([u64; 8]);

impl Object {
    fn new(number: u64) -> Object {
        Object([number; 8])
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        black_box(&self.0);
        PLACE.with(|&place| {
            let mine = &FREED[place];
            mine.store(mine.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        });
    }
}

/// An object whose callback is aligned too strictly for the blocks that small callbacks share, so it has a malloc
/// of its own: all else is as with [`BOXED`].
#[repr(align(16))]
struct Unplaced {
    _object: Box<Object>,
}

/// Somebody who frees later.
enum Deferrer {
    Boxed,
    Base,
    Value,
    Served,
    Epoch,
    Seize(Box<seize::Collector>),
    Hazard,
    Peer(&'static str, &'static gracepoint_bench_peers::Liburcu, Registered),
}

impl Deferrer {
    fn all() -> Vec<Deferrer> {
        let seize = Deferrer::Seize(Box::default());
        let ours = [Deferrer::Boxed, Deferrer::Base, Deferrer::Value, Deferrer::Served];
        let mut all = Vec::from(ours);
        all.extend([Deferrer::Epoch, seize, Deferrer::Hazard]);
        let peers = flavours().iter();
        all.extend(peers.map(|peer| Deferrer::Peer(peer.name, peer, peer.register())));
        all
    }

    fn name(&self) -> String {
        match self {
            Deferrer::Boxed => BOXED.to_owned(),
            Deferrer::Base => BASE.to_owned(),
            Deferrer::Value => VALUE.to_owned(),
            Deferrer::Served => SERVED.to_owned(),
            Deferrer::Epoch => EPOCH.to_owned(),
            Deferrer::Seize(_) => "seize retire".to_owned(),
            Deferrer::Hazard => "haphazard retire_ptr".to_owned(),
            Deferrer::Peer(name, ..) => format!("liburcu {name} call_rcu"),
        }
    }

    fn freed(&self) -> u64 {
        match self {
            Deferrer::Peer(_, peer, _) => peer.freed(),
            _ => FREED.iter().map(|place| place.load(Ordering::Relaxed)).sum(),
        }
    }

    /// Defers objects with these numbers.
    fn defer(&self, numbers: std::ops::Range<u64>) {
        match self {
            Deferrer::Boxed => numbers.for_each(|n| DEFERRED.retire(Box::new(Object::new(n)))),
            Deferrer::Base => numbers.for_each(|n| {
                DEFERRED.retire(Unplaced { _object: Box::new(Object::new(n)) });
            }),
            Deferrer::Served => numbers.for_each(|n| BY_THREAD.retire(Box::new(Object::new(n)))),
            Deferrer::Value => numbers.for_each(|n| DEFERRED.retire(Object::new(n))),
            Deferrer::Epoch => numbers.for_each(|n| {
                let object = Box::new(Object::new(n));
                crossbeam_epoch::pin().defer(move || drop(object));
            }),
            Deferrer::Seize(collector) => numbers.for_each(|n| retire(collector, Object::new(n))),
            Deferrer::Hazard => numbers.for_each(|n| retire_hazard(Object::new(n))),
            Deferrer::Peer(_, _, here) => {
                here.defer(numbers.end - numbers.start);
                here.quiescent();
            }
        }
    }

    /// What a producer does now and then where nobody else frees.
    fn drive(&self) {
        if let Deferrer::Boxed | Deferrer::Base | Deferrer::Value = self {
            while DEFERRED.drive() == Progress::Advanced {}
        }
    }

    /// Waits until everything is freed: `goal` objects, as `freed` counts.
    fn finish(&self, goal: u64) {
        while self.freed() < goal {
            match self {
                Deferrer::Boxed | Deferrer::Base | Deferrer::Value => {
                    DEFERRED.barrier().expect("no section is open here");
                }
                Deferrer::Served => BY_THREAD.barrier().expect("no section is open here"),
                Deferrer::Epoch => crossbeam_epoch::pin().flush(),
                Deferrer::Seize(collector) => {
                    use seize::Guard;
                    collector.enter().flush();
                }
                Deferrer::Hazard => {
                    haphazard::Domain::global().eager_reclaim();
                }
                Deferrer::Peer(_, _, here) => here.barrier(),
            }
        }
    }

    /// Defers `count` objects and waits until they are freed.
    fn run(&self, count: u64) -> Run {
        let already = self.freed();
        let mut most = 0;
        let (begin, ran) = (Instant::now(), cpu_time(ClockId::ThreadCPUTime));
        let all_ran = cpu_time(ClockId::ProcessCPUTime);
        for number in (0..count).step_by(LOOKS_EVERY as usize) {
            self.defer(number..number + LOOKS_EVERY);
            let deferred = number + LOOKS_EVERY;
            if deferred.is_multiple_of(DRIVES_EVERY) {
                self.drive();
            }
            most = most.max(deferred - (self.freed() - already));
        }
        let producing = cpu_time(ClockId::ThreadCPUTime) - ran;
        self.finish(already + count.next_multiple_of(LOOKS_EVERY));
        let running = cpu_time(ClockId::ProcessCPUTime) - all_ran;
        Run { seconds: begin.elapsed().as_secs_f64(), running, producing, most: most as f64 }
    }
}

/// Seconds that this thread, or the process, has run.
fn cpu_time(of: ClockId) -> f64 {
    let now = clock_gettime(of);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

struct Run {
    /// Until the last was freed.
    seconds: f64,
    /// Processor time of all threads until then.
    running: f64,
    /// Processor time until the last was deferred.
    producing: f64,
    /// Objects that waited at once.
    most: f64,
}

pub(crate) fn throughput(rounds: usize) -> Section {
    start_workers(&[&BY_THREAD]);
    let _ = pin();
    let count = AT_MOST.min(PER_ROUND * rounds as u64).next_multiple_of(LOOKS_EVERY);
    let deferrers = Deferrer::all();
    let mut rates = vec![(Vec::new(), Vec::new()); deferrers.len()];
    // The first time warms up the allocator.
    for time in 0..=TIMES {
        for (deferrer, rates) in deferrers.iter().zip(&mut rates) {
            let run = deferrer.run(count);
            if time > 0 {
                rates.0.push(count as f64 / run.seconds / 1e6);
                rates.1.push(count as f64 / run.running / 1e6);
            }
        }
    }
    let rows: Vec<_> = deferrers
        .iter()
        .zip(rates)
        .map(|(deferrer, rates)| {
            let (rates, of_cpu) = (Samples::of(rates.0), Samples::of(rates.1));
            let mut values = [0.0, 0.5, 1.0].map(|q| rates.quantile(q)).to_vec();
            values.push(of_cpu.quantile(0.5));
            (deferrer.name(), values)
        })
        .collect();
    let mut section = Section {
        title: "deferred freeing, with malloc and free",
        unit: "M objects/s",
        columns: &["min", "median", "max", "of CPU time"],
        rows,
        notes: vec![
            format!("{count} objects in one go, until the last is freed"),
            "liburcu and the domain's thread free on a second thread, the others on the producer's"
                .to_owned(),
            "of CPU time: median for a second of all threads' processor time".to_owned(),
            "no blocks: as the row above it, but with a malloc for each callback, too".to_owned(),
        ],
        goals: Vec::new(),
    };
    for (row, peer) in PAIRS {
        for column in ["median", "of CPU time"] {
            let ours = section.value(row, column).unwrap_or(f64::NAN);
            if let Some(theirs) = section.value(peer, column) {
                let what = format!("{row}: {column} {ours:.1} M/s, above {peer}'s {theirs:.1}");
                section.goals.push(Goal { what, met: ours > theirs });
            }
        }
    }
    section
}

/// One producer, and a reader on another processor that is inside most of the time.
///
/// A producer that does not wait leaves as many as it makes while a section lasts, and a few batches; so
/// that, and not the length of the flood, is what bounds it. (A reader that is preempted inside has a long
/// section, on a machine where other things run.)
pub(crate) fn flood(rounds: usize) -> Section {
    let count = AT_MOST.min(PER_ROUND * rounds as u64).next_multiple_of(LOOKS_EVERY);
    let reader = &Reader::default();
    let rows: Vec<_> = thread::scope(|scope| {
        scope.spawn(move || {
            let _ = pin_beside();
            reader.run();
        });
        let _ = pin();
        let deferrers = Deferrer::all();
        let mut floods: Vec<Floods> = deferrers.iter().map(|_| Floods::default()).collect();
        for _ in 0..FLOODS {
            for (deferrer, floods) in deferrers.iter().zip(&mut floods) {
                floods.add(deferrer, reader, count);
            }
        }
        reader.stop.store(true, Ordering::Relaxed);
        deferrers.iter().zip(floods).map(|(who, floods)| (who.name(), floods.row())).collect()
    });
    let mut section = Section {
        title: "objects that wait while one thread floods, at most",
        unit: "objects",
        columns: &["flood", "4 x as long", "section, ms", "over"],
        rows,
        notes: vec![
            format!("floods of {count} and {} objects of 64 bytes, medians of {FLOODS}", 4 * count),
            "section: the longest of the reader, who is inside nearly always, 2 µs at a time"
                .to_owned(),
            "haphazard has no sections: its pointers guard one object each, and none of these"
                .to_owned(),
            format!(
                "over: of {} floods, those in which more waited than twice what is made in that time",
                2 * FLOODS
            ),
        ],
        goals: Vec::new(),
    };
    for row in [BOXED, VALUE] {
        let over = section.value(row, "over").unwrap_or(f64::NAN);
        let what = format!("{row}: bounded by the longest section, over in {over} floods");
        section.goals.push(Goal { what, met: over == 0.0 });
    }
    let most = section.value(SERVED, "4 x as long").unwrap_or(f64::NAN);
    let what = format!("{SERVED}: {most} wait, at most {SERVED_MOST}");
    section.goals.push(Goal { what, met: most <= SERVED_MOST });
    section
}

#[derive(Default)]
struct Floods {
    short: Vec<f64>,
    long: Vec<f64>,
    longest_section: f64,
    over: u32,
}

impl Floods {
    fn add(&mut self, deferrer: &Deferrer, reader: &Reader, count: u64) {
        for (count, most) in [(count, &mut self.short), (4 * count, &mut self.long)] {
            reader.longest_ns.store(0, Ordering::Relaxed);
            let run = deferrer.run(count);
            let section = reader.longest_section();
            let made = count as f64 / run.producing * section;
            self.over += u32::from(run.most > 2.0 * (made + 2.0 * DRIVES_EVERY as f64));
            self.longest_section = self.longest_section.max(section);
            most.push(run.most);
        }
    }

    fn row(self) -> Vec<f64> {
        let [short, long] = [self.short, self.long].map(|most| Samples::of(most).quantile(0.5));
        vec![short, long, self.longest_section * 1e3, f64::from(self.over)]
    }
}

#[derive(Default)]
struct Reader {
    stop: AtomicBool,
    laps: AtomicU64,
    longest_ns: AtomicU64,
}

impl Reader {
    /// Is inside of everybody's sections, for some microseconds each.
    fn run(&self) {
        let mut engines = Engine::all(&DEFERRED);
        engines.push(Engine::Ours(&BY_THREAD));
        while !self.stop.load(Ordering::Relaxed) {
            for engine in &engines {
                self.timed(|| engine.section(spin));
            }
            self.timed(|| {
                let _guard = crossbeam_epoch::pin();
                spin();
            });
            self.laps.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn timed(&self, section: impl FnOnce()) {
        let begin = Instant::now();
        section();
        self.longest_ns.fetch_max(begin.elapsed().as_nanos() as u64, Ordering::Relaxed);
    }

    /// Seconds, the section that is open now included.
    fn longest_section(&self) -> f64 {
        let laps = self.laps.load(Ordering::Relaxed);
        while self.laps.load(Ordering::Relaxed) < laps + 2 {
            thread::yield_now();
        }
        self.longest_ns.load(Ordering::Relaxed) as f64 / 1e9
    }
}

fn spin() {
    let begin = Instant::now();
    while begin.elapsed().as_micros() < 2 {}
}
