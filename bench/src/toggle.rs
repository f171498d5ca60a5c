//! Suite `toggle`: what it takes to switch two thousand tracepoints on, off and on again while four
//! threads hit some of them; and what a site costs in bytes.
//!
//! * in process, under four policies of synchronisation, and beside a `reload` of `tracing`;
//! * from outside, over the agent's socket, beside `lttng enable-event` on the same number of events
//!   and beside the kernel's own `events/enable` ([`outside`], [`lttng`]);
//! * what a hit of a tracepoint costs that has one probe, and eight ([`hits`]);
//! * the bytes of 500 sites, beside 500 callsites of `tracing` ([`size`]).
//!
//! Peers that are not there have no row, and say so. Times are medians and minima of rounds in which
//! all rows take their turn.

mod hits;
mod lttng;
pub(crate) mod outside;
mod size;

use std::error::Error;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gracepoint::__private::{Policy, Probes};
use gracepoint::Tracer;
use gracepoint_bench_points::{HITS, LOGS};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::table::Goal;

const ROUNDS: usize = 200;
/// Rounds of the policy that waits two thousand times.
const SLOW_ROUNDS: usize = 5;
/// Threads that hit tracepoints, and how many of them each hits in turn.
const THREADS: usize = 4;
const HOT: usize = 64;
/// How long the probe takes that a reader is inside of in the second circumstance.
const BUSY: Duration = Duration::from_micros(20);
/// All of the tracepoints.
const GLOB: &str = "points:*";

const OURS: &str = "ours";
const SESSION: &str = "ours, as sessions";
const NOTHING: &str = "no synchronisation (unsafe)";
const EACH: &str = "one grace period per transition";
const COOKIES: &str = "shared cookies";
/// Added to a row's name where a fifth thread is inside a probe all the time.
const BESIDE: &str = ", beside a slow probe";
const RELOAD: &str = "tracing: reload of a filter";

/// Times of one thing that was done again and again.
struct Row {
    what: String,
    times: Vec<Duration>,
}

impl Row {
    fn new(what: impl Into<String>, times: Vec<Duration>) -> Row {
        Row { what: what.into(), times }
    }

    fn microseconds(&self, at: impl Fn(usize) -> usize) -> f64 {
        let mut times = self.times.clone();
        times.sort_unstable();
        times.get(at(times.len())).map_or(f64::NAN, |time| time.as_nanos() as f64 / 1000.0)
    }

    fn median(&self) -> f64 {
        self.microseconds(|len| len / 2)
    }

    fn min(&self) -> f64 {
        self.microseconds(|_| 0)
    }
}

/// What was found.
#[derive(Default)]
struct Findings {
    rows: Vec<Row>,
    hits: Vec<crate::measure::Cost>,
    sizes: Vec<size::Size>,
    notes: Vec<String>,
    goals: Vec<Goal>,
}

impl Findings {
    fn median(&self, what: &str) -> Option<f64> {
        self.rows.iter().find(|row| row.what == what).map(Row::median)
    }

    fn goal(&mut self, what: String, met: bool) {
        self.goals.push(Goal { what, met });
    }
}

pub(crate) fn run(rounds: Option<usize>, json: bool) -> Result<(), Box<dyn Error>> {
    let rounds = rounds.unwrap_or(ROUNDS);
    let mut found = Findings::default();
    found.notes.extend(crate::table::machine(None, rounds));
    found.notes.push(format!("{} tracepoints, {THREADS} threads that hit {HOT} each", HITS.len()));
    let filter = subscribe()?;
    let socket = match gracepoint::init()? {
        gracepoint::Status::Listening(path) => path,
        other => return Err(format!("no agent: {other:?}").into()),
    };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let stop = &stop;
            scope.spawn(move || hammer(thread, stop));
        }
        let done = policies(rounds, "", &mut found)
            .and_then(|()| beside_a_slow_probe(rounds, &stop, &mut found))
            .and_then(|()| reloads(&filter, rounds, &mut found))
            .and_then(|()| outside::over_the_socket(&socket, rounds.min(50), &mut found));
        stop.store(true, Ordering::Relaxed);
        done
    })?;
    hits::of_probes(&mut found)?;
    eprintln!("in process and over the socket: done; now the peers");
    lttng::enable_event(HITS.len(), rounds.min(10), &mut found);
    outside::kernel(rounds.min(5), &mut found);
    eprintln!("building programs whose sizes are compared");
    let sizes = size::of_sites(&mut found);
    judge(&mut found);
    print!("{}", if json { as_json(&found) } else { as_text(&found) });
    sizes // What was measured is printed even where that has failed.
}

fn hammer(thread: usize, stop: &AtomicBool) {
    let hot = HITS.iter().skip(thread * HOT).take(HOT);
    for n in 0.. {
        hot.clone().for_each(|hit| hit(n));
        if stop.load(Ordering::Relaxed) {
            return;
        }
    }
}

fn timed<T, E>(times: &mut Vec<Duration>, body: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let begin = Instant::now();
    let result = body();
    times.push(begin.elapsed());
    result
}

/// What is switched on and off.
trait Switched {
    fn on(&mut self) -> Result<(), Box<dyn Error>>;
    fn off(&mut self) -> Result<(), Box<dyn Error>>;
    /// Waits until what was switched off has been freed.
    fn settle(&self);
}

impl Switched for Probes {
    fn on(&mut self) -> Result<(), Box<dyn Error>> {
        Ok(self.set(true)?)
    }

    fn off(&mut self) -> Result<(), Box<dyn Error>> {
        Ok(self.set(false)?)
    }

    fn settle(&self) {
        Probes::settle(self);
    }
}

/// As any program has it: one probe of all tracepoints that match, found anew each time.
#[derive(Default)]
struct Public(Option<gracepoint::Probe>);

impl Switched for Public {
    fn on(&mut self) -> Result<(), Box<dyn Error>> {
        self.0 = Some(Tracer::global().tracepoints(GLOB).attach(|_| {})?);
        Ok(())
    }

    fn off(&mut self) -> Result<(), Box<dyn Error>> {
        self.0 = None;
        Ok(())
    }

    fn settle(&self) {
        while Tracer::global().statistics().waiting_callbacks > 0 {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

/// Has a probe that takes [`BUSY`].
#[derive(gracepoint::Event)]
#[event(name = "bench:slow")]
struct Slow;

/// The same where a thread is in a read section nearly all the time, for [`BUSY`] each: what a grace period
/// waits for is then not only threads that were preempted at a bad moment.
fn beside_a_slow_probe(
    rounds: usize,
    stop: &AtomicBool,
    found: &mut Findings,
) -> Result<(), Box<dyn Error>> {
    let slow = Slow::tracepoint().attach(|_| {
        let begin = Instant::now();
        while begin.elapsed() < BUSY {}
    })?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) && !stop.load(Ordering::Relaxed) {
                gracepoint::trace!(Slow);
            }
        });
        let done = policies(rounds.min(50), BESIDE, found);
        over.store(true, Ordering::Relaxed);
        done
    })?;
    slow.detach();
    Ok(())
}

/// On, off, on again, off, under each policy in turn.
fn policies(rounds: usize, circumstance: &str, found: &mut Findings) -> Result<(), Box<dyn Error>> {
    let policies = [
        (NOTHING, Some(Policy::Nothing), rounds),
        (EACH, Some(Policy::EachTransition), rounds.min(SLOW_ROUNDS)),
        (COOKIES, Some(Policy::Cookies), rounds),
        (SESSION, Some(Policy::Ours), rounds),
        (OURS, None, rounds),
    ];
    let mut times = [const { [const { Vec::new() }; 4] }; 5];
    for round in 0..rounds + 1 {
        for ((_, policy, most), times) in policies.iter().zip(&mut times) {
            if round > *most {
                continue;
            }
            let mut probes: Box<dyn Switched> = match policy {
                Some(policy) => Box::new(Probes::new(GLOB, *policy)),
                None => Box::new(Public::default()),
            };
            let [on, off, again, freed] = times;
            timed(on, || probes.on())?;
            timed(off, || probes.off())?;
            timed(again, || probes.on())?;
            let begin = Instant::now();
            probes.off()?;
            probes.settle();
            freed.push(begin.elapsed());
        }
        if round == 0 {
            // Warms up: the first batch copies the pages of text.
            times.iter_mut().flatten().for_each(Vec::clear);
        }
    }
    for ((name, _, _), times) in policies.iter().zip(times) {
        let what = ["on", "off", "on again", "off, until all is freed"];
        found.rows.extend(
            what.iter()
                .zip(times)
                .map(|(what, times)| Row::new(format!("{name}{circumstance}: {what}"), times)),
        );
    }
    Ok(())
}

/// A layer that is interested in everything, and only counts it.
struct Nothing;

static LOGGED: AtomicU64 = AtomicU64::new(0);

impl<S: tracing::Subscriber> Layer<S> for Nothing {
    fn on_event(
        &self,
        _event: &tracing::Event<'_>,
        _context: tracing_subscriber::layer::Context<'_, S>,
    ) {
        LOGGED.fetch_add(1, Ordering::Relaxed);
    }
}

/// How many of the peer's callsites are on.
fn logged() -> usize {
    let before = LOGGED.load(Ordering::Relaxed);
    LOGS.iter().for_each(|log| log(0));
    (LOGGED.load(Ordering::Relaxed) - before) as usize
}

type Filter = reload::Handle<LevelFilter, Registry>;

/// Makes all callsites of `tracing` known, which they are once they have been hit while on; then off.
fn subscribe() -> Result<Filter, reload::Error> {
    let (filter, handle) = reload::Layer::new(LevelFilter::TRACE);
    tracing_subscriber::registry().with(filter).with(Nothing).init();
    LOGS.iter().for_each(|log| log(0));
    handle.reload(LevelFilter::OFF)?;
    Ok(handle)
}

fn reloads(filter: &Filter, rounds: usize, found: &mut Findings) -> Result<(), Box<dyn Error>> {
    let (mut on, mut off) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        timed(&mut on, || filter.reload(LevelFilter::TRACE))?;
        let all = logged();
        timed(&mut off, || filter.reload(LevelFilter::OFF))?;
        let none = logged();
        if (all, none) != (LOGS.len(), 0) {
            return Err(format!("tracing: {all} callsites on, then {none}").into());
        }
    }
    found.rows.push(Row::new(format!("{RELOAD}: on"), on));
    found.rows.push(Row::new(format!("{RELOAD}: off"), off));
    Ok(())
}

/// The goals, where there is something to compare with.
fn judge(found: &mut Findings) {
    for what in ["on", "off", "on again"] {
        let ours = found.median(&format!("{OURS}: {what}")).unwrap_or(f64::NAN);
        found.goal(format!("{what}: {ours:.0} µs, at most 1000"), ours <= 1000.0);
    }
    hits::judge(found);
    judge_policies("", found);
    judge_policies(BESIDE, found);
    if let (Some(ours), Some(theirs), Some(floor)) =
        (found.median(outside::STARTED), found.median(lttng::ENABLE), found.median(lttng::FLOOR))
    {
        // Ours has no command in it that begins and ends.
        let theirs = theirs - floor;
        let what = match theirs > 0.0 {
            true => format!(
                "over the socket {:.2} x lttng's time without its command's own, at most 0.5",
                ours / theirs
            ),
            false => "over the socket: what lttng's command does is lost in what it takes to begin and end"
                .to_owned(),
        };
        found.goal(what, ours <= theirs / 2.0);
    }
    size::judge(found);
}

/// Ours beside one grace period per transition, and beside none: on, off and on again together.
fn judge_policies(circumstance: &str, found: &mut Findings) {
    let sum = |name: &str| -> f64 {
        let of = |what| found.median(&format!("{name}{circumstance}: {what}")).unwrap_or(f64::NAN);
        ["on", "off", "on again"].map(of).iter().sum()
    };
    let [ours, session, each, nothing] = [OURS, SESSION, EACH, NOTHING].map(sum);
    let times = each / ours;
    let what = format!("{times:.1} x as fast as {EACH}{circumstance}, at least 20");
    found.goal(what, times >= 20.0);
    for (name, time) in [(OURS, ours), (SESSION, session)] {
        let beside = time / nothing;
        // The noise of a shared machine.
        let what = format!("{name}{circumstance}: {beside:.2} x {NOTHING}, at most 1.5");
        found.goal(what, beside <= 1.5);
    }
}

fn as_json(found: &Findings) -> String {
    let mut text = String::new();
    for row in &found.rows {
        let (min, median) = (row.min(), row.median());
        let row = serde_json::json!({
            "suite": "toggle", "row": row.what, "min_us": min, "median_us": median,
            "rounds": row.times.len(),
        });
        text += &format!("{row}\n");
    }
    text += &hits::json(found);
    for size in &found.sizes {
        text += &format!("{}\n", size.json());
    }
    for goal in &found.goals {
        let goal = serde_json::json!({"suite": "toggle", "goal": goal.what, "met": goal.met});
        text += &format!("{goal}\n");
    }
    text
}

fn as_text(found: &Findings) -> String {
    let mut text = String::new();
    for note in &found.notes {
        text += &format!("{note}\n");
    }
    let width = found.rows.iter().map(|row| row.what.chars().count()).max().unwrap_or(0);
    text +=
        &format!("\n{:width$}  {:>10}  {:>10}  {:>6}\n", "toggle", "min µs", "median µs", "rounds");
    for row in &found.rows {
        let (min, median, rounds) = (row.min(), row.median(), row.times.len());
        text += &format!("{:width$}  {min:10.1}  {median:10.1}  {rounds:6}\n", row.what);
    }
    text += &hits::table(found);
    text += &size::table(&found.sizes);
    for goal in &found.goals {
        text += &format!("{}: {}\n", if goal.met { "met" } else { "NOT MET" }, goal.what);
    }
    text
}
