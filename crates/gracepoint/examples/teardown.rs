//! Prints how long `detach` takes while a reader sleeps in a probe, signals storm every thread and four
//! threads hit tracepoints, beside the bare system calls in the same run:
//! `cargo run -p gracepoint --release --example teardown`. On Linux.
#![allow(clippy::print_stdout, reason = "a program speaks to its user")]

#[cfg(target_os = "linux")]
fn main() -> Result<(), gracepoint::Error> {
    storm::run()
}

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
mod storm {
    use gracepoint::{Error, Probe, Tracer};
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering::Relaxed;
    use std::time::{Duration, Instant};

    const CYCLES: usize = 10_000;

    #[derive(gracepoint::Event)]
    #[event(name = "teardown:same")]
    struct Same {
        sleeps: bool,
    }

    #[derive(gracepoint::Event)]
    #[event(name = "teardown:other")]
    struct Other {
        n: u64,
    }

    #[derive(gracepoint::Event)]
    #[event(name = "teardown:storm")]
    struct Storm;

    static AWAKE: AtomicBool = AtomicBool::new(false);
    static OVER: AtomicBool = AtomicBool::new(false);

    extern "C" fn handler(_signal: libc::c_int) {
        gracepoint::trace!(Storm);
    }

    fn begin_storm() {
        // SAFETY: a handler for a signal of our own.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as extern "C" fn(libc::c_int) as usize;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(libc::SIGPROF, &raw const action, std::ptr::null_mut());
        }
        std::thread::spawn(|| {
            let process = std::process::id().cast_signed();
            while !OVER.load(Relaxed) {
                let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
                for task in tasks {
                    let name = task.file_name();
                    let Some(Ok(thread)) = name.to_str().map(str::parse::<i32>) else { continue };
                    // SAFETY: a signal with a handler, to a thread of this process.
                    unsafe { libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGPROF) };
                }
            }
        });
    }

    /// The calls of one switch: a page made writable and back, and two barriers.
    fn bare(page: *mut libc::c_void) {
        const SYNC_CORE: i32 = 1 << 5;
        // SAFETY: a page of our own; the barriers have no precondition but that they were registered,
        // which the runtime does at load.
        unsafe {
            libc::syscall(libc::SYS_membarrier, SYNC_CORE, 0, 0);
            libc::mprotect(page, 4096, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC);
            libc::mprotect(page, 4096, libc::PROT_READ | libc::PROT_EXEC);
            libc::syscall(libc::SYS_membarrier, SYNC_CORE, 0, 0);
        }
    }

    fn report(name: &str, mut times: Vec<Duration>) {
        times.sort_unstable();
        let at = |share: usize| times[times.len() * share / 100].as_nanos() as f64 / 1e3;
        println!("{name:<36} p50 {:8.1} µs   p99 {:8.1} µs", at(50), at(99));
    }

    fn attach(tracer: &Tracer, n: usize) -> Result<Probe, Error> {
        if n.is_multiple_of(2) {
            tracer.tracepoint::<Same>().attach(|_| {})
        } else {
            tracer.tracepoint::<Other>().attach(|_| {})
        }
    }

    pub(super) fn run() -> Result<(), Error> {
        let tracer = Tracer::new("teardown");
        let _storm = tracer.tracepoint::<Storm>().attach(|_| {})?;
        let _sleeper = tracer.tracepoint::<Same>().name("sleeper").attach(|same| {
            while same.sleeps && !AWAKE.load(Relaxed) {
                std::thread::sleep(Duration::from_millis(10));
            }
        })?;
        let reader = std::thread::spawn(|| gracepoint::trace!(Same { sleeps: true }));
        for _ in 0..4 {
            std::thread::spawn(|| {
                for n in 0.. {
                    gracepoint::trace!(Same { sleeps: false });
                    gracepoint::trace!(Other { n });
                }
            });
        }
        begin_storm();
        // SAFETY: a new mapping at an address of the kernel's choice.
        let page = unsafe {
            let (protection, flags) =
                (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0)
        };
        let (mut other, mut same, mut calls) = (Vec::new(), Vec::new(), Vec::new());
        for n in 0..CYCLES {
            let probe = attach(&tracer, n)?;
            let begun = Instant::now();
            probe.detach();
            if n.is_multiple_of(2) { &mut same } else { &mut other }.push(begun.elapsed());
            let begun = Instant::now();
            bare(page);
            calls.push(begun.elapsed());
        }
        report("detach, the tracepoint stays on", same);
        report("detach, the last of its tracepoint", other);
        report("the system calls of that alone", calls);
        let kept = tracer.statistics();
        println!(
            "{} bytes are kept for each of {} probes",
            kept.waiting_bytes / CYCLES,
            kept.leaving
        );
        tracer.stalls().iter().for_each(|stall| println!("{stall}"));
        AWAKE.store(true, Relaxed);
        let begun = Instant::now();
        let _ = reader.join();
        while tracer.statistics().leaving != 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        println!("all freed {:?} after the reader was told to wake up", begun.elapsed());
        OVER.store(true, Relaxed);
        Ok(())
    }
}
