//! Programs with real tracepoints, driven over stdin by the tests. All of them print what they
//! fired, counted by themselves.

use std::io::{BufRead, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A worker did one step.
#[derive(gracepoint::Event)]
#[event(name = "work:step")]
struct Step<'a> {
    /// Which worker.
    worker: u32,
    /// How many steps it did before.
    n: u64,
    /// Something to read.
    text: &'a str,
    /// Something negative.
    balance: i64,
    /// Something broken.
    ratio: f64,
    even: bool,
}

/// A worker rests.
#[derive(gracepoint::Event)]
#[event(name = "work:rest")]
struct Rest {
    /// How long.
    time: Duration,
}

/// A job from its beginning to its end.
#[derive(gracepoint::Event)]
#[event(name = "work:job")]
struct Job {
    /// Which.
    number: u64,
}

/// Somebody logged in.
#[derive(gracepoint::Event)]
#[event(name = "auth:login")]
struct Login<'a> {
    /// Who.
    #[event(sensitive)]
    user: &'a str,
    #[event(sensitive)]
    pin: u32,
    #[event(sensitive, display)]
    from: std::net::Ipv4Addr,
    ok: bool,
}

/// Runs program `args[0]`.
pub(crate) fn main(args: &[String]) {
    let number = |at: usize| args.get(at).map_or(0, |n| n.parse::<u64>().unwrap());
    match args[0].as_str() {
        "knock" => return knock(&args[1]),
        "refuse-perf" => refuse_perf(&args[1..]),
        "undumpable" => {
            rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
                .unwrap();
        }
        _ => {}
    }
    let allowed = args[0] == "secrets" && number(1) == 1;
    gracepoint::Builder::new().name("worker").allow_sensitive(allowed).start().unwrap();
    say("ready");
    match args[0].as_str() {
        "count" => count(number(1), number(2)),
        "forever" => forever(number(1)),
        "progress" => progress(),
        "at-once" => at_once(number(1)),
        "jobs" => jobs(number(1)),
        "marks" => marks(number(1), &args[2]),
        "panics" => panics(),
        "calls" => calls(),
        "asleep" => asleep(),
        "crowd" => crowd(number(1)),
        "rounds" => rounds(number(1)),
        "secrets" => secrets(),
        "burn" => burning(number(1)),
        "handoffs" => handoffs(number(1)),
        "no-files" => no_files(),
        "no-memory" => no_memory(),
        "exec" => exec(),
        "idlers" => idlers(number(1)),
        "mayflies" => mayflies(number(1)),
        "undumpable" | "idle" => wait(),
        other => panic!("no program {other}"),
    }
}

/// Two threads wake each other so often after a line of input, and again after another.
fn handoffs(times: u64) {
    let (mut at_there, mut there) = std::io::pipe().unwrap();
    let (mut at_here, mut here) = std::io::pipe().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut byte = [0];
            while at_there.read(&mut byte).unwrap() == 1 {
                here.write_all(&byte).unwrap();
            }
        });
        for _ in 0..2 {
            wait();
            for _ in 0..times {
                there.write_all(&[1]).unwrap();
                at_here.read_exact(&mut [0]).unwrap();
            }
            say("done");
        }
        drop(there);
    });
    wait();
}

/// Threads fire until there is a line of input, and write down in a file how many events are
/// committed: the first one after each, the others now and then.
fn marks(threads: u64, path: &str) {
    let stop = AtomicBool::new(false);
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    std::thread::scope(|scope| {
        for worker in 0..threads {
            let (stop, file) = (&stop, &file);
            scope.spawn(move || {
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    step(worker, n);
                    if worker == 0 || n.is_multiple_of(64) {
                        file.write_all_at(&(n + 1).to_le_bytes(), worker * 8).unwrap();
                    }
                }
            });
        }
        wait();
        stop.store(true, Ordering::Relaxed);
    });
    say("done");
}

fn panics() {
    (0..10).for_each(|n| step(0, n));
    panic!("as it is meant to");
}

/// A thread sleeps in a probe until there is a line of input, while another fires.
fn asleep() {
    const SLEEPER: u32 = 7;
    let (tell, told) = std::sync::mpsc::channel();
    let stop = AtomicBool::new(false);
    let probe = Step::tracepoint().name("slow").attach(move |step: &Step<'_>| {
        if step.worker == SLEEPER {
            tell.send(()).unwrap();
            wait();
        }
    });
    std::thread::scope(|scope| {
        let sleeper = scope.spawn(|| step(SLEEPER.into(), 0));
        told.recv().unwrap();
        say("asleep");
        scope.spawn(|| {
            (0..).take_while(|_| !stop.load(Ordering::Relaxed)).for_each(|n| step(1, n));
        });
        sleeper.join().unwrap();
        stop.store(true, Ordering::Relaxed);
    });
    drop(probe);
}

/// Calls functions for each line of input.
fn calls() {
    say("ready");
    let lines = std::io::stdin().lock().lines();
    for (n, _) in lines.enumerate() {
        let n = n as u64;
        outer(n);
        std::panic::catch_unwind(|| caught(n)).unwrap_or_default();
        say("round");
    }
}

#[gracepoint::function]
fn outer(n: u64) {
    step(0, n);
    inner(n);
    left_out();
}

#[gracepoint::function(args(n), ret)]
fn inner(n: u64) -> u64 {
    std::hint::black_box(n * n)
}

#[gracepoint::function]
fn left_out() {
    std::thread::sleep(Duration::from_millis(10));
}

#[gracepoint::function]
fn caught(n: u64) {
    std::panic::set_hook(Box::new(|_| ()));
    let _ = std::panic::catch_unwind(|| panicking(n));
}

#[gracepoint::function]
fn panicking(n: u64) {
    assert_eq!(n, u64::MAX, "as it is meant to");
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    // Whoever listened may be gone at the end.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Waits for a line of input, or its end.
fn wait() {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).unwrap();
}

fn step(worker: u64, n: u64) {
    let text = if n.is_multiple_of(2) { "ping" } else { "pång \"x\"" };
    gracepoint::trace!(Step {
        worker: worker as u32,
        n,
        text,
        balance: -(n as i64),
        ratio: n as f64 / 2.0,
        even: n.is_multiple_of(2),
    });
}

/// On a line of input, so many threads fire so many events each; ends at the next line.
fn count(threads: u64, events: u64) {
    wait();
    std::thread::scope(|scope| {
        for worker in 0..threads {
            scope.spawn(move || (0..events).for_each(|n| step(worker, n)));
        }
    });
    say("done");
    wait();
}

/// Threads fire until there is a line of input.
fn forever(threads: u64) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for worker in 0..threads {
            let stop = &stop;
            scope.spawn(move || {
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    step(worker, n);
                    n += 1;
                    if n.is_multiple_of(20) {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            });
        }
        wait();
        stop.store(true, Ordering::Relaxed);
    });
}

/// On a line of input, fires for ever and says after each event that it has.
fn progress() {
    wait();
    for n in 0.. {
        step(0, n);
        say(&format!("fired {}", n + 1));
    }
}

/// Fires as soon as `init` has returned, and exits.
fn at_once(events: u64) {
    (0..events).for_each(|n| step(0, n));
}

/// On a line of input, so many spans with an event inside.
fn jobs(number: u64) {
    wait();
    for number in 0..number {
        let _span = gracepoint::span!(Job { number });
        gracepoint::trace!(Rest { time: Duration::from_millis(number) });
    }
    say("done");
    wait();
}

/// On a line of input, so many threads that are there at the same time fire ten events each.
fn crowd(threads: u64) {
    wait();
    let all_here = std::sync::Barrier::new(threads as usize);
    std::thread::scope(|scope| {
        for worker in 0..threads {
            let all_here = &all_here;
            scope.spawn(move || {
                (0..5).for_each(|n| step(worker, n));
                all_here.wait();
                (5..10).for_each(|n| step(worker, n));
            });
        }
    });
    say("done");
    wait();
}

/// On each line of input, fires so many events; ends with the input.
fn rounds(events: u64) {
    let mut n = 0;
    let mut line = String::new();
    while std::io::stdin().lock().read_line(&mut line).unwrap() > 0 {
        (n..n + events).for_each(|n| step(0, n));
        n += events;
        say("done");
        line.clear();
    }
}

/// On a line of input, two logins.
fn secrets() {
    wait();
    for user in ["mallory", "eve-with-a-long-name"] {
        let from = std::net::Ipv4Addr::new(198, 51, 100, 7);
        gracepoint::trace!(Login { user, pin: 0x5ec2_e7ed, from, ok: true });
    }
    say("done");
    wait();
}

/// On a line of input, burns so many rounds.
fn burning(rounds: u64) {
    wait();
    crate::burn::burn(rounds);
    say("done");
    wait();
}

/// Becomes a command that can open no perf events, as in a container.
fn refuse_perf(command: &[String]) -> ! {
    use seccompiler::{SeccompAction, SeccompFilter};
    let rules = [(nix::libc::SYS_perf_event_open, Vec::new())].into();
    let refuse = SeccompAction::Errno(nix::libc::EPERM.unsigned_abs());
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).unwrap();
    let program: seccompiler::BpfProgram = filter.try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
    let error = std::os::unix::process::CommandExt::exec(
        std::process::Command::new(&command[0]).args(&command[1..]),
    );
    panic!("{error}");
}

/// Connects to a socket as a stranger would, and says how many bytes of an answer came.
fn knock(socket: &str) {
    let mut bytes = Vec::new();
    let stream = std::os::unix::net::UnixStream::connect(socket);
    let answer = stream.and_then(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        std::io::Read::read_to_end(&mut stream, &mut bytes)
    });
    say(&format!("{} bytes, {:?}", bytes.len(), answer.map_err(|e| e.kind())));
}

/// On a line of input, uses up its descriptors and fires; on the next, gives them back and fires again.
fn no_files() {
    let limit = rustix::process::Rlimit { current: Some(128), maximum: Some(128) };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    wait();
    let mut files = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        files.push(file);
    }
    (0..100).for_each(|n| step(0, n));
    say("full");
    wait();
    drop(files);
    (100..200).for_each(|n| step(0, n));
    say("done");
    wait();
}

/// On a line of input, leaves itself 32 MiB of address space; on each that follows, fires.
fn no_memory() {
    wait();
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    let most = Some(pages * rustix::param::page_size() as u64 + (32 << 20));
    let limit = rustix::process::Rlimit { current: most, maximum: most };
    rustix::process::setrlimit(rustix::process::Resource::As, limit).unwrap();
    say("tight");
    rounds(100);
}

/// On a line of input, fires and becomes another program.
fn exec() {
    wait();
    (0..100).for_each(|n| step(0, n));
    let mut next = std::process::Command::new(std::env::current_exe().unwrap());
    let error = std::os::unix::process::CommandExt::exec(next.args(["--program", "rounds", "10"]));
    panic!("{error}");
}

/// What a stack is going to need is no cost of recording.
#[inline(never)]
fn use_stack() {
    std::hint::black_box([1u8; 24 << 10]);
}

/// So many threads, which fire once on a line of input and stay until the next.
fn idlers(threads: u64) {
    // One after the other: of those that are preempted in the middle of a record some may find no room.
    let turn = std::sync::Mutex::new(());
    let here = std::sync::Barrier::new(threads as usize + 1);
    std::thread::scope(|scope| {
        for worker in 0..threads {
            let (here, turn) = (&here, &turn);
            let idle = move || {
                use_stack();
                step(worker, 0);
                (0..2).for_each(|_| {
                    here.wait();
                });
                let one = turn.lock().unwrap();
                step(worker, 1);
                drop(one);
                (0..2).for_each(|_| {
                    here.wait();
                });
            };
            let builder = std::thread::Builder::new().stack_size(256 << 10);
            builder.spawn_scoped(scope, idle).unwrap();
        }
        here.wait();
        say("idle");
        wait();
        here.wait();
        here.wait();
        say("done");
        wait();
        here.wait();
    });
}

/// On a line of input, so many threads, some at a time, that fire once and end.
fn mayflies(threads: u64) {
    const AT_ONCE: u64 = 8;
    wait();
    for first in (0..threads).step_by(AT_ONCE as usize) {
        std::thread::scope(|scope| {
            for worker in first..threads.min(first + AT_ONCE) {
                scope.spawn(move || step(worker, 0));
            }
        });
    }
    say("done");
    wait();
}
