//! `gracepoint profile`: where the threads of any process are on their CPUs, as a trace. The process needs
//! neither our runtime nor an agent; of one that has them, `record --profile` has the events beside.

use crate::args::ProfileArgs;
use crate::connection::wait_for;
use crate::console::Console;
use crate::escape::shown;
use crate::failure::{Failure, Result};
use crate::interrupt::{Interrupts, STATUS};
use crate::perf::beside::{Beside, monotonic_ns, real_ns};
use crate::perf::{launch as watched, modules};
use crate::quantity;
use crate::record::launch;
use crate::record::own::{packet, records};
use crate::record::session::{is_ready, process};
use crate::record::streams::Streams;
use crate::record::trace_dir::{Description, TraceDir};
use gracepoint_analysis::sidecar::{ProgramEntry, Sidecar};
use gracepoint_wire::clock::{Clock, Source, Triple};
use gracepoint_wire::control::{Module, Program};
use gracepoint_wire::profile::{profile_events, stack_event};
use gracepoint_wire::schema::{Context, Declared, loss_event, module_event};
use rustix::event::PollFlags;
use rustix::fd::AsFd;
use serde_json::json;
use std::process::Child;
use std::time::{Duration, Instant};

/// Between two looks at the rings and at what may end it.
const LOOK: Duration = Duration::from_millis(10);
/// Between two looks at which objects are loaded: the first, and the longest after doubling.
const LOOK_AT_OBJECTS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// A profile under way.
struct Profile {
    pid: u32,
    program: Program,
    dir: TraceDir,
    clock: Clock,
    events: Vec<Declared>,
    sidecar: Sidecar,
    streams: Streams,
    modules: Vec<Module>,
    packets: u64,
    beside: Beside,
    /// We have started it.
    launched: bool,
}

/// Runs the command; returns its exit status.
pub(crate) fn run(args: &ProfileArgs, console: &mut Console) -> Result<u8> {
    crate::record::trace_dir::check(&args.output, args.force)?;
    let mut interrupts = Interrupts::catch(args.command.is_empty())?;
    let waiting = match args.command.is_empty() {
        true => None,
        false => Some(watched::spawn(&args.command, None)?),
    };
    let pid = waiting.as_ref().map_or_else(|| args.pid.unwrap_or_default(), watched::Waiting::pid);
    let mut profile = match (Profile::begin(pid, args), waiting.is_some()) {
        (Ok(profile), _) => profile,
        (Err(failure), false) => return Err(failure),
        (Err(failure), true) => {
            waiting.into_iter().for_each(watched::Waiting::cancel);
            return Err(failure.with_status(125));
        }
    };
    let mut child = waiting.map(watched::Waiting::go);
    if !args.quiet {
        let name = match args.command.first() {
            Some(command) => shown(&command.to_string_lossy()).into_owned(),
            None => shown(&profile.program.name).into_owned(),
        };
        let kernel = if profile.beside.with_kernel() { "" } else { ", without time in the kernel" };
        console.note(format_args!(
            "profiling {} (pid {pid}) {} times per second of CPU time to {}{kernel}{}",
            name,
            args.rate.freq,
            shown(&args.output.to_string_lossy()),
            if args.command.is_empty() { "; Ctrl-C ends it" } else { "" },
        ));
    }
    let began = Instant::now();
    let (ended, failure) = profile.run(args, &mut interrupts, &mut child);
    profile.finish(ended, failure, began.elapsed(), args, console)?;
    let Some(mut child) = child else { return Ok(0) };
    let status =
        child.wait().map_err(|e| Failure::new(format!("cannot wait for the command: {e}")))?;
    Ok(launch::status(status))
}

impl Profile {
    fn begin(pid: u32, args: &ProfileArgs) -> Result<Profile> {
        let program = program(pid);
        let triple = triple();
        let clock = Clock {
            source: Source::Monotonic,
            freq_hz: 1_000_000_000,
            boot_id: boot_id(),
            triples: vec![triple],
        };
        let mut events = vec![loss_event(), module_event()];
        events.extend(profile_events());
        events.extend(args.rate.stack_copy.map(|_| stack_event()));
        let about = ProgramEntry {
            name: program.name.clone(),
            pid,
            exe: program.exe.clone(),
            args: Vec::new(),
        };
        // The stream 0 has the objects.
        let beside = Beside::begin(pid, args.rate.rate(), 1, Context::default())?;
        let dir = TraceDir::create(&args.output, args.force)?;
        let sidecar = Sidecar::new(about, &clock, &events);
        let streams = Streams::new(&dir.path);
        let (modules, packets) = (Vec::new(), 0);
        let launched = !args.command.is_empty();
        let profile = Profile {
            pid,
            program,
            dir,
            clock,
            events,
            sidecar,
            streams,
            modules,
            packets,
            beside,
            launched,
        };
        profile.describe()?;
        Ok(profile)
    }

    fn describe(&self) -> Result<()> {
        self.dir.describe(&Description {
            program: &self.program,
            clock: &self.clock,
            events: &self.events,
            context: Context::default(),
            sidecar: &self.sidecar,
        })
    }

    /// Whether the process has not become the command yet, but is this program still. Its words tell, since the
    /// command may be this program, too.
    fn is_launcher(&self) -> bool {
        self.launched && watched::is_waiting(self.pid)
    }

    /// Tells of objects that were not there before. A command has become what it is only after it was begun
    /// with, so its name is looked at too.
    fn look_at_objects(&mut self) -> std::io::Result<()> {
        let now = program(self.pid);
        if self.is_launcher() {
            return Ok(());
        }
        if !now.exe.is_empty() {
            (self.sidecar.program.name, self.sidecar.program.exe) =
                (now.name.clone(), now.exe.clone());
            self.program = now;
        }
        let at = monotonic_ns();
        let mut fresh = modules::of(self.pid, at);
        fresh.retain(|new| {
            !self.modules.iter().any(|old| (old.base, &old.path) == (new.base, &new.path))
        });
        if fresh.is_empty() {
            return Ok(());
        }
        self.streams.append(0, &packet(0, self.packets, at, &records(&fresh, at, 0)))?;
        self.packets += 1;
        self.modules.extend(fresh);
        Ok(())
    }

    fn run(
        &mut self,
        args: &ProfileArgs,
        interrupts: &mut Interrupts,
        child: &mut Option<Child>,
    ) -> (&'static str, Option<String>) {
        let began = Instant::now();
        let (mut looked, mut pause) = (began, LOOK_AT_OBJECTS.0);
        let process = process(self.pid);
        loop {
            if let Err(e) = self.beside.tend(&self.clock, &mut self.streams) {
                return ("write-failed", Some(e.to_string()));
            }
            if looked.elapsed() >= pause {
                (looked, pause) = (Instant::now(), (pause * 2).min(LOOK_AT_OBJECTS.1));
                if let Err(e) = self.look_at_objects() {
                    return ("write-failed", Some(e.to_string()));
                }
            }
            let signal = interrupts.take();
            if signal.is_some() && child.is_none() {
                return ("interrupted", None);
            }
            if args.duration.is_some_and(|most| began.elapsed() >= most) {
                return ("duration", None);
            }
            let child_ended =
                child.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|s| s.is_some()));
            if child_ended || process.as_ref().is_none_or(is_ready) {
                return ("program-exit", None);
            }
            let mut fds = interrupts.interest().to_vec();
            fds.extend(process.iter().map(|fd| (fd.as_fd(), PollFlags::IN)));
            wait_for(&fds, LOOK.min(pause));
        }
    }

    fn finish(
        mut self,
        ended: &'static str,
        mut failure: Option<String>,
        length: Duration,
        args: &ProfileArgs,
        console: &mut Console,
    ) -> Result<()> {
        if failure.is_none() {
            failure =
                self.beside.finish(&self.clock, &mut self.streams).err().map(|e| e.to_string());
        }
        self.clock.triples.push(triple());
        self.sidecar.clock = (&self.clock).into();
        self.sidecar.complete = failure.is_none();
        self.sidecar.lost = self.beside.losses().clone();
        self.sidecar.ended = ended.into();
        self.sidecar.streams = self.streams.lengths().iter().map(|(&n, &len)| (n, len)).collect();
        self.describe()?;
        let (samples, lost) = (self.beside.samples(), self.beside.lost());
        let dir = &args.output;
        if args.json {
            console.line(json!({
                "dir": self.dir.path.to_string_lossy(),
                "ended": ended,
                "samples": samples,
                "lost": lost,
                "bytes": self.streams.bytes,
                "seconds": length.as_secs_f64(),
            }))?;
        }
        if let Some(why) = failure {
            return Err(Failure::new(format!("the profile is not whole: {}", shown(&why))));
        }
        if ended == "interrupted" && samples == 0 {
            return Err(Failure::new("interrupted before anything was sampled").with_status(STATUS));
        }
        if !args.quiet {
            console.words(format_args!(
                "profiled {} ({}, {} lost) in {} to {}",
                quantity::plural(samples, "sample", "samples"),
                quantity::bytes(self.streams.bytes),
                quantity::count(lost),
                quantity::length(length),
                shown(&dir.to_string_lossy()),
            ));
            let argument = crate::record::report_argument(dir);
            console.words(format_args!("see: gracepoint report --profile{argument}"));
        }
        Ok(())
    }
}

fn triple() -> Triple {
    let ticks = monotonic_ns();
    Triple { ticks, mono_ns: ticks, real_ns: real_ns() }
}

fn boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).unwrap_or_default().to_be_bytes()
}

/// What `/proc` tells of a process.
fn program(pid: u32) -> Program {
    let text =
        |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let exe = std::fs::read_link(format!("/proc/{pid}/exe"));
    let exe = exe.map_or_else(|_| String::new(), |exe| exe.to_string_lossy().into_owned());
    Program { name: text("comm").trim_end().to_owned(), pid, exe, ..Program::default() }
}
