//! The kernel's tracepoints beside a recording. A helper process takes them ([`take`]) and hands them on
//! through a pipe, because giving one back to the kernel waits for grace periods there, tens of milliseconds
//! for each: the helper does that on its own when the recorder has long ended. It ends with the recorder,
//! whatever ended that, and with it goes all that it had opened. Where no perf events are to be had it takes an instance
//! of tracefs ([`instance`](super::instance)), which is left only where the helper itself was killed.

use super::beside::is_for_good;
use super::format::Format;
use super::instance::Instance;
use super::rings::{self, Rings, Room, Told, Wanted, What};
use super::tracefs;
use super::writer::Writer;
use crate::args::KernelSideArgs;
use crate::connection::wait_for;
use crate::console::Console;
use crate::failure::{Failure, Result};
use crate::record::streams::Streams;
use gracepoint_wire::clock::Clock;
use gracepoint_wire::glob;
use gracepoint_wire::profile::FIRST_KERNEL_ID;
use gracepoint_wire::schema::{Context, Declared};
use rustix::event::PollFlags;
use rustix::fd::AsFd;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Most tracepoints of one recording.
const MOST: usize = 1024;
/// Between two readings of the rings.
const READ_EVERY: Duration = Duration::from_millis(10);
/// How long the helper may take to begin: the kernel may take its time to open many.
const BEGINS_WITHIN: Duration = Duration::from_secs(60);
/// How long it may take to hand on what is left.
const ENDS_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of a record's head in the pipe: time, thread, CPU, kind, length.
const HEAD: usize = 24;
/// What its first line begins with; a note may follow.
const READY: &str = "ready ";
/// Kinds other than ids of events.
const SWITCH: u32 = 1;
const LOST: u32 = 2;
/// Nothing more comes.
const END: u32 = 3;

/// Kernel tracepoints that are being recorded.
pub(crate) struct Kernel {
    helper: Child,
    from: ChildStdout,
    read: Vec<u8>,
    formats: Vec<Format>,
    writer: Writer,
    /// What is to be told about how they are taken.
    pub(crate) note: Option<String>,
}

/// The tracepoints that the patterns match, in the order of their names; or why the kernel's cannot be had.
///
/// # Errors
/// When a pattern matches none, or all together too many.
pub(crate) fn choose(patterns: &[String]) -> Result<std::result::Result<Vec<Format>, String>> {
    let names = match tracefs::names() {
        Ok(names) => names,
        Err(why) => return Ok(Err(why)),
    };
    for pattern in patterns {
        if !names.iter().any(|name| glob::matches(pattern, name)) {
            let near = glob::near(pattern, names.iter().map(String::as_str), 3);
            let hint = match near.is_empty() {
                true => "`gracepoint record -k list` shows what there is".to_owned(),
                false => format!("did you mean {}?", near.join(", ")),
            };
            return Err(Failure::new(format!(
                "no tracepoint of the kernel matches `{pattern}`: {hint}"
            )));
        }
    }
    let wanted: Vec<&String> =
        names.iter().filter(|name| patterns.iter().any(|p| glob::matches(p, name))).collect();
    if wanted.len() > MOST {
        let many = wanted.len();
        let text = format!("{many} tracepoints of the kernel are too many: choose at most {MOST}");
        return Err(Failure::new(text));
    }
    Ok(wanted.into_iter().map(|name| tracefs::format(name)).collect())
}

/// `record -k list` needs no program, which the parser would ask for.
pub(crate) fn asks_for_list(args: &[OsString]) -> bool {
    let ours = args.split(|arg| arg == "--").next().unwrap_or_default();
    let is_list =
        |pair: &[OsString]| (pair[0] == "-k" || pair[0] == "--kernel") && pair[1] == "list";
    ours.get(1).is_some_and(|command| command == "record") && ours.windows(2).any(is_list)
}

/// Prints the names of the kernel's tracepoints.
pub(crate) fn list(console: &mut Console) -> Result<u8> {
    for name in tracefs::names().map_err(Failure::new)? {
        console.line(name)?;
    }
    Ok(0)
}

impl Kernel {
    /// Begins to take these of the threads of `pid`, into streams from the number `first` on.
    ///
    /// # Errors
    /// In words, when the kernel refuses.
    pub(crate) fn begin(
        pid: u32,
        formats: Vec<Format>,
        first: u64,
        context: Context,
    ) -> std::result::Result<Kernel, String> {
        let failed =
            |e: io::Error| format!("cannot start the process that takes kernel events: {e}");
        let exe = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(exe);
        command.arg0("gracepoint").args(["kernel-side", "-p", &pid.to_string()]);
        command.args(formats.iter().map(Format::name));
        // Ctrl-C is the recorder's alone.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut helper = command.spawn().map_err(failed)?;
        let mut from = helper.stdout.take().ok_or("no pipe")?;
        let deadline = Instant::now() + BEGINS_WITHIN;
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let left = deadline.saturating_duration_since(Instant::now());
            wait_for(&[(from.as_fd(), PollFlags::IN)], left);
            let mut byte = [0];
            if left.is_zero() || !matches!(from.read(&mut byte), Ok(1)) {
                let _ = helper.kill();
                let _ = helper.wait();
                return Err("the process that takes kernel events did not begin".into());
            }
            line.push(byte[0]);
        }
        let line = String::from_utf8_lossy(&line);
        let Some(note) = line.strip_prefix(READY).map(str::trim) else {
            let _ = helper.wait();
            return Err(line.trim().to_owned());
        };
        let note = (!note.is_empty()).then(|| note.to_owned());
        let flags = fcntl_getfl(&from).map_err(|e| failed(e.into()))?;
        fcntl_setfl(&from, flags | OFlags::NONBLOCK).map_err(|e| failed(e.into()))?;
        let (read, writer) = (Vec::new(), Writer::new(pid, first, context));
        Ok(Kernel { helper, from, read, formats, writer, note })
    }

    /// What the kernel had no room for, by event.
    pub(crate) fn losses(&self) -> &BTreeMap<u32, u64> {
        &self.writer.losses
    }

    /// The events that it adds to the trace.
    pub(crate) fn declared(&self) -> impl Iterator<Item = Declared> + '_ {
        self.formats.iter().enumerate().map(|(at, format)| format.declared(at))
    }

    /// Writes what has come. True at its end.
    ///
    /// # Errors
    /// When the trace cannot be written.
    pub(crate) fn tend(&mut self, clock: &Clock, out: &mut Streams) -> io::Result<bool> {
        let mut chunk = vec![0; 64 << 10];
        let ended = loop {
            match self.from.read(&mut chunk) {
                Ok(0) => break true,
                Ok(n) => self.read.extend_from_slice(&chunk[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break false,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => break true,
            }
        };
        let (mut taken, mut ended) = (0, ended);
        while let Some((mut told, kind, len)) = unpack(&self.read[taken..]) {
            taken += len;
            if kind == END {
                ended = true;
                continue;
            }
            if let What::Raw { id, bytes } = &mut told.what {
                let Some(format) = self.formats.get((*id - FIRST_KERNEL_ID) as usize) else {
                    continue;
                };
                *bytes = format.encode(bytes);
            }
            self.writer.take(&told, clock, out)?;
        }
        self.read.drain(..taken);
        Ok(ended)
    }

    /// Takes what is left. The helper goes on to give the tracepoints back; its pid, if it still does.
    ///
    /// # Errors
    /// As [`tend`](Self::tend).
    pub(crate) fn finish(&mut self, clock: &Clock, out: &mut Streams) -> io::Result<Option<u32>> {
        drop(self.helper.stdin.take());
        let deadline = Instant::now() + ENDS_WITHIN;
        while !self.tend(clock, out)? && Instant::now() < deadline {
            wait_for(&[(self.from.as_fd(), PollFlags::IN)], Duration::from_millis(100));
        }
        self.writer.flush(out)?;
        let gone = self.helper.try_wait().is_ok_and(|status| status.is_some());
        Ok((!gone).then(|| self.helper.id()))
    }
}

fn pack(told: &Told, out: &mut Vec<u8>) {
    let switch;
    let lost;
    let (kind, body): (u32, &[u8]) = match &told.what {
        What::Raw { id, bytes } => (*id, bytes),
        What::Switch { out, preempted } => {
            switch = [u8::from(*out), u8::from(*preempted)];
            (SWITCH, &switch)
        }
        What::Lost { id, count } => {
            lost = [&id.to_le_bytes()[..], &count.to_le_bytes()].concat();
            (LOST, &lost)
        }
        What::Sample { .. } | What::Stack { .. } | What::Throttled(_) => return,
    };
    out.extend(told.at_ns.to_le_bytes());
    for word in [told.tid, told.cpu, kind, body.len() as u32] {
        out.extend(word.to_le_bytes());
    }
    out.extend_from_slice(body);
}

/// The record at the front, its kind, and how long it is.
fn unpack(bytes: &[u8]) -> Option<(Told, u32, usize)> {
    let word = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let at_ns = u64::from(word(0)?) | u64::from(word(4)?) << 32;
    let (tid, cpu, kind, len) = (word(8)?, word(12)?, word(16)?, word(20)? as usize);
    let body = bytes.get(HEAD..HEAD + len)?;
    let what = match kind {
        SWITCH => {
            What::Switch { out: body.first() == Some(&1), preempted: body.get(1) == Some(&1) }
        }
        LOST => {
            let (id, count) = body.split_at_checked(4)?;
            let id = u32::from_le_bytes(id.try_into().ok()?);
            What::Lost { id, count: u64::from_le_bytes(count.try_into().ok()?) }
        }
        id => What::Raw { id: id.max(FIRST_KERNEL_ID), bytes: body.to_vec() },
    };
    Some((Told { at_ns, tid, cpu, what }, kind, HEAD + len))
}

/// Where the helper has them from.
enum Source {
    Perf(Rings),
    Tracefs(Instance),
}

impl Source {
    /// And what is to be told about it.
    ///
    /// # Errors
    /// What is missing, in words.
    fn open(args: &KernelSideArgs) -> std::result::Result<(Source, Option<String>), String> {
        let mut wanted = vec![Wanted::Switches];
        for (name, id) in args.events.iter().zip(FIRST_KERNEL_ID..) {
            wanted.push(Wanted::Tracepoint { number: tracefs::number(name)?, id });
        }
        let by_tracefs = || Instance::open(args.pid, &args.events).map(Source::Tracefs);
        let note = match rings::room(args.pid, &wanted).map_err(|e| refused(&e))? {
            Room::Enough => None,
            // An instance has one buffer for each CPU, whatever the number of events.
            Room::Small(many, bytes) => match by_tracefs() {
                Ok(source) => return Ok((source, None)),
                Err(_) => Some(format!(
                    "the kernel's events have {many} rings (one for each tracepoint, thread and CPU) of {} KiB each, and \
                     what comes faster than they are read is lost: choose fewer",
                    bytes >> 10
                )),
            },
            Room::None(many) => {
                return by_tracefs().map(|source| (source, None)).map_err(|why| {
                    format!(
                        "the kernel's events are not recorded: {many} rings (one for each tracepoint, thread and CPU) \
                         are too much memory, choose fewer; nor by tracefs: {why}"
                    )
                });
            }
        };
        let error = match Rings::open(args.pid, &wanted) {
            Ok(rings) => return Ok((Source::Perf(rings), note)),
            Err(error) => error,
        };
        if !is_for_good(&error) {
            return Err(refused(&error));
        }
        by_tracefs()
            .map(|source| (source, None))
            .map_err(|why| format!("{}; nor by tracefs: {why}", refused(&error)))
    }

    fn drain(&mut self, now_ns: u64, end: bool) -> Vec<Told> {
        match self {
            Source::Perf(rings) => rings.drain(now_ns, end),
            Source::Tracefs(instance) => instance.drain(now_ns, end),
        }
    }
}

/// The helper itself: takes events and hands them on until its input ends, then gives them back.
///
/// # Errors
/// When what it reads from or writes to fails; the recorder has gone then.
pub(crate) fn take(args: &KernelSideArgs) -> Result<u8> {
    let mut out = io::stdout().lock();
    let gone = |e: io::Error| Failure::new(format!("the recorder has gone: {e}"));
    let (mut source, note) = match Source::open(args) {
        Ok(opened) => opened,
        Err(why) => {
            writeln!(out, "{why}").and_then(|()| out.flush()).map_err(gone)?;
            return Ok(2);
        }
    };
    let note = note.unwrap_or_default();
    writeln!(out, "{READY}{note}").and_then(|()| out.flush()).map_err(gone)?;
    let mut input = io::stdin();
    let flags = fcntl_getfl(&input).map_err(|e| gone(e.into()))?;
    fcntl_setfl(&input, flags | OFlags::NONBLOCK).map_err(|e| gone(e.into()))?;
    let mut packed = Vec::new();
    loop {
        wait_for(&[(input.as_fd(), PollFlags::IN)], READ_EVERY);
        // The recorder says nothing: what can be read is that it has closed its end.
        let over = !matches!(input.read(&mut [0; 16]), Err(e) if e.kind() == ErrorKind::WouldBlock);
        for told in source.drain(super::beside::monotonic_ns(), over) {
            pack(&told, &mut packed);
        }
        if over {
            packed.extend([0; 16]);
            packed.extend(END.to_le_bytes());
            packed.extend([0; 4]);
        }
        out.write_all(&packed).and_then(|()| out.flush()).map_err(gone)?;
        packed.clear();
        if over {
            // Here it waits, and nobody for it.
            drop(source);
            return Ok(0);
        }
    }
}

fn refused(error: &io::Error) -> String {
    match error.raw_os_error() {
        _ if is_for_good(error) => {
            "the kernel's events are not recorded: it takes CAP_PERFMON, or sysctl \
             kernel.perf_event_paranoid=-1, and a seccomp filter that allows perf_event_open"
                .into()
        }
        Some(24) => {
            "the kernel's events are not recorded: one for each thread, CPU and event are more \
                     than may be open; choose fewer, or raise `ulimit -n`"
                .into()
        }
        _ => format!("the kernel's events are not recorded: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked() {
        let whats = [
            What::Raw { id: FIRST_KERNEL_ID + 3, bytes: vec![1, 2, 3] },
            What::Switch { out: true, preempted: false },
            What::Lost { id: FIRST_KERNEL_ID, count: u64::MAX },
        ];
        let told = |what| Told { at_ns: 1 << 40, tid: 7, cpu: 1, what };
        let mut bytes = Vec::new();
        whats.iter().for_each(|what| pack(&told(what.clone()), &mut bytes));
        let mut at = 0;
        for what in whats {
            let (found, _, len) = unpack(&bytes[at..]).unwrap();
            assert_eq!(found, told(what));
            assert_eq!(unpack(&bytes[at..at + len - 1]), None);
            at += len;
        }
        assert_eq!(at, bytes.len());
    }
}
