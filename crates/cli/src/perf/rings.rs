//! Perf events of a program's threads, and their rings.
//!
//! One event for each thread and each CPU, which threads made later inherit: the kernel gives rings to
//! inherited events of one CPU only. Samples are taken by the kernel on its own timer: it follows frame pointers
//! itself, by reads that may fail, and no code runs in the program, so nothing there can be
//! interrupted at a bad moment, whatever it does with signals, `fork` or `dlopen`.
//!
//! The kernel tells of a loss when there is room again and something more to tell; what it has not told when a program
//! sleeps, or ends, it tells who asks (`PERF_FORMAT_LOST`, from Linux 6.0 on).
//!
//! Rings are read one after the other while they are written, so what is read is held back until nothing
//! earlier can come, and then told in order of time.

use gracepoint_wire::profile::{SAMPLE_ID, STACK_ID, SWITCH_ID};
use perf_event::events::{Software, Tracepoint};
use perf_event::{Builder, Clock, ReadFormat, SampleFlag, Sampler};
use rustix::process::{Resource, getrlimit, setrlimit};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::sync::OnceLock;

/// Nanoseconds after which a record of an interrupt is surely in its ring.
pub(super) const LATE_NS: u64 = 5_000_000;
/// Bytes of a ring at first where there are many, and the least that is tried where memory may not be locked.
const RING: (usize, usize) = (128 << 10, 4 << 10);
/// Bytes of all rings together, at first: where there are few each has more. And the most that they grow to when they
/// ran over.
const TOGETHER: (usize, usize) = (8 << 20, 64 << 20);
/// Bytes of one that copied stacks go through.
const RING_OF_STACKS: usize = 1 << 20;
/// Most return addresses of a stack that are believed.
const DEEPEST: usize = 512;
/// Tries to list the threads while none is made.
const TRIES: usize = 10;
/// Numbers from here on mark what follows in a chain of calls, and are no addresses.
const FIRST_MARK: u64 = u64::MAX - 4094;

/// What to ask the kernel for.
#[derive(Debug, Clone)]
pub(crate) enum Wanted {
    /// Stacks, so many per second of a thread's CPU time, and when threads leave their CPUs. With `copied` bytes of
    /// the stack and registers, instead of return addresses.
    Profile { hz: u64, copied: u32 },
    /// When threads leave their CPUs, alone.
    Switches,
    /// One of its tracepoints, by its number.
    Tracepoint { number: u64, id: u32 },
}

impl Wanted {
    /// What it is in the trace.
    fn id(&self) -> u32 {
        match self {
            Wanted::Profile { copied: 0, .. } => SAMPLE_ID,
            Wanted::Profile { .. } => STACK_ID,
            Wanted::Switches => SWITCH_ID,
            Wanted::Tracepoint { id, .. } => *id,
        }
    }
}

/// What it told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    Sample {
        weight_ns: u64,
        kernel: bool,
        stack: Vec<u64>,
    },
    /// Registers as the event names them, and words from the stack pointer upwards.
    Stack {
        weight_ns: u64,
        kernel: bool,
        registers: [u64; 4],
        memory: Vec<u64>,
    },
    Switch {
        out: bool,
        preempted: bool,
    },
    /// The kernel itself takes fewer samples for a while, or again as many.
    Throttled(bool),
    /// A tracepoint's record as the kernel wrote it; which was asked for.
    Raw {
        id: u32,
        bytes: Vec<u8>,
    },
    /// Records of an event for which there was no room.
    Lost {
        id: u32,
        count: u64,
    },
}

/// Something that it told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) at_ns: u64,
    pub(crate) tid: u32,
    pub(crate) cpu: u32,
    pub(crate) what: What,
}

/// An event's ring.
struct Ring {
    sampler: Sampler,
    wanted: Wanted,
    losses: Losses,
}

impl Ring {
    /// How many were lost and not told yet. They are now.
    fn ask(&mut self) -> u64 {
        let all = self.sampler.as_counter_mut().read_full().ok().and_then(|data| data.lost());
        self.losses.asked(all.unwrap_or(0))
    }
}

/// Losses of a ring, each of which is told once: those that the kernel counted when it was asked come by records, too,
/// later.
#[derive(Debug, Default)]
struct Losses {
    by_records: u64,
    told: u64,
}

impl Losses {
    /// What is new, where there are `all` in all.
    fn asked(&mut self, all: u64) -> u64 {
        let new = all.saturating_sub(self.told);
        self.told += new;
        new
    }

    /// What is new in a record of so many.
    fn recorded(&mut self, count: u64) -> u64 {
        self.by_records += count;
        self.asked(self.by_records)
    }
}

/// Whether the kernel counts losses for those who ask.
fn tells_losses() -> bool {
    static TELLS: OnceLock<bool> = OnceLock::new();
    *TELLS.get_or_init(|| {
        let mut builder = Builder::new(Software::DUMMY);
        builder.exclude_kernel(true).exclude_hv(true).read_format(ReadFormat::LOST);
        builder.build().is_ok()
    })
}

/// All of them.
pub(crate) struct Rings {
    rings: Vec<Ring>,
    pid: u32,
    /// Not told yet.
    held: Vec<Told>,
    /// Bytes of each, but for those that may not be locked.
    size: usize,
    /// The kernel allows samples of its own code.
    pub(crate) with_kernel: bool,
}

impl Rings {
    /// Opens perf events of all threads of `pid`, and begins.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn open(pid: u32, wanted: &[Wanted]) -> io::Result<Rings> {
        let mut with_kernel = true;
        let opened = open_all(pid, wanted, true, None).or_else(|e| {
            // What a user may not see of the kernel is left out of a profile.
            let profile = wanted.iter().all(|wanted| matches!(wanted, Wanted::Profile { .. }));
            if !profile || !is_permission(&e) {
                return Err(e);
            }
            with_kernel = false;
            open_all(pid, wanted, false, None)
        })?;
        let (rings, size) = opened;
        Ok(Rings { rings, pid, held: Vec::new(), size, with_kernel })
    }

    /// Whether the kernel opens a perf event of `pid`'s at all.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn probe(pid: u32) -> io::Result<()> {
        let wanted = Wanted::Profile { hz: 1, copied: 0 };
        let cpu = cpus()?.first().copied().unwrap_or(0);
        builder(&wanted, false, pid, cpu).enabled(false).build().map(drop)
    }

    /// What has been told up to shortly before `now_ns` (`CLOCK_MONOTONIC`), in order of time; at the
    /// end all of it.
    pub(crate) fn drain(&mut self, now_ns: u64, end: bool) -> Vec<Told> {
        for ring in &mut self.rings {
            while let Some(record) = ring.sampler.next_record() {
                let (kind, misc) = (record.ty(), record.misc());
                let mut told = parse(kind, misc, &record.to_contiguous(), &ring.wanted);
                if let Some((_, Told { what: What::Lost { count, .. }, .. })) = &mut told {
                    *count = ring.losses.recorded(*count);
                    if *count == 0 {
                        continue;
                    }
                }
                // Children of the program are not asked for, and not told of.
                self.held.extend(told.filter(|(pid, _)| *pid == self.pid).map(|(_, told)| told));
            }
        }
        if end {
            self.ask_for_losses(now_ns);
        }
        self.held.sort_by_key(|told| told.at_ns);
        let ready = match end {
            true => self.held.len(),
            false => self.held.partition_point(|told| told.at_ns < now_ns.saturating_sub(LATE_NS)),
        };
        self.held.drain(..ready).collect()
    }

    /// Has the next [`drain`](Self::drain) tell what was lost and not told of.
    pub(crate) fn ask_for_losses(&mut self, now_ns: u64) {
        for ring in &mut self.rings {
            let count = ring.ask();
            if count > 0 {
                let what = What::Lost { id: ring.wanted.id(), count };
                self.held.push(Told { at_ns: now_ns, tid: self.pid, cpu: 0, what });
            }
        }
    }

    /// Takes another rate.
    ///
    /// # Errors
    /// What the kernel says; then it has stopped.
    pub(crate) fn reopen(&mut self, wanted: &[Wanted]) -> io::Result<()> {
        // What is in the old rings is lost with them.
        self.drain(0, false);
        let size = Some(self.size);
        (self.rings, self.size) = open_all(self.pid, wanted, self.with_kernel, size)?;
        Ok(())
    }

    /// Takes rings of twice the size. False where that would be too much memory, or more than may be locked.
    ///
    /// # Errors
    /// As [`reopen`](Self::reopen).
    pub(crate) fn grow(&mut self, wanted: &[Wanted]) -> io::Result<bool> {
        let larger = self.size * 2;
        if larger * self.rings.len() > TOGETHER.1 {
            return Ok(false);
        }
        self.size = larger;
        self.reopen(wanted)?;
        Ok(self.size == larger)
    }
}

pub(crate) fn is_permission(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// Opens for the threads that there are. One that is made meanwhile would be told of twice or not at all, so
/// it begins again until there was none.
/// Says how large the rings are; without a `size` that goes by how many there are.
fn open_all(
    pid: u32,
    wanted: &[Wanted],
    kernel: bool,
    size: Option<usize>,
) -> io::Result<(Vec<Ring>, usize)> {
    more_descriptors();
    let mut before = threads(pid)?;
    for attempt in 1.. {
        let opened = open_for(&before, wanted, kernel, size);
        let after = threads(pid)?;
        // A thread that has ended meanwhile is no failure of the others.
        let fewer = after.is_subset(&before);
        match opened {
            Ok(opened) if fewer || attempt >= TRIES => return Ok(opened),
            Err(error) if after == before || attempt >= TRIES => return Err(error),
            _ => before = after,
        }
    }
    unreachable!("the last attempt returns")
}

/// Bytes of a ring, where so many are opened.
fn first_size(wanted: &[Wanted], rings: usize) -> usize {
    let copies = wanted.iter().any(|wanted| matches!(wanted, Wanted::Profile { copied: 1.., .. }));
    let least = if copies { RING_OF_STACKS } else { RING.0 };
    let part = TOGETHER.0 / rings.max(1);
    let most = TOGETHER.1 / rings.max(1);
    least.max(1 << part.max(1).ilog2()).min(1 << most.max(RING.1).ilog2())
}

/// What tracepoints of the kernel take of memory, with a ring for each thread, CPU and tracepoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// Rings as large as they should be.
    Enough,
    /// So many rings, each of so many bytes.
    Small(usize, usize),
    /// So many rings, which are too many.
    None(usize),
}

/// Whether there is room for these of the threads of `pid`.
///
/// # Errors
/// When there is no such process.
pub(crate) fn room(pid: u32, wanted: &[Wanted]) -> io::Result<Room> {
    Ok(room_for(wanted, threads(pid)?.len() * wanted.len() * cpus()?.len()))
}

fn room_for(wanted: &[Wanted], rings: usize) -> Room {
    let size = first_size(wanted, rings);
    match size {
        // Each has a page beside its bytes.
        _ if rings * (size + RING.1) > TOGETHER.1 + TOGETHER.1 / 2 => Room::None(rings),
        _ if size < RING.0 => Room::Small(rings, size),
        _ => Room::Enough,
    }
}

fn open_for(
    threads: &BTreeSet<u32>,
    wanted: &[Wanted],
    kernel: bool,
    size: Option<usize>,
) -> io::Result<(Vec<Ring>, usize)> {
    let cpus = cpus()?;
    let mut rings = Vec::new();
    let many = threads.len() * wanted.len() * cpus.len();
    let mut size = size.unwrap_or_else(|| first_size(wanted, many));
    for &tid in threads {
        for wanted in wanted {
            for &cpu in &cpus {
                let sampler = loop {
                    let counter = match builder(wanted, kernel, tid, cpu).build() {
                        Err(e) if e.raw_os_error() == Some(19) => break None, // no such CPU now
                        counter => counter?,
                    };
                    match counter.sampled(size) {
                        Ok(sampler) => break Some(sampler),
                        // So much may not be locked.
                        Err(e) if is_permission(&e) && size > RING.1 => size /= 2,
                        Err(e) => return Err(e),
                    }
                };
                let wanted = wanted.clone();
                rings.extend(sampler.map(|sampler| Ring {
                    sampler,
                    wanted,
                    losses: Losses::default(),
                }));
            }
        }
    }
    Ok((rings, size))
}

fn builder(wanted: &Wanted, kernel: bool, tid: u32, cpu: usize) -> Builder<'static> {
    let mut builder = match wanted {
        Wanted::Profile { .. } => Builder::new(Software::CPU_CLOCK),
        Wanted::Switches => Builder::new(Software::DUMMY),
        Wanted::Tracepoint { number, .. } => Builder::new(Tracepoint::with_id(*number)),
    };
    builder
        .observe_pid(tid.cast_signed())
        .one_cpu(cpu)
        .inherit(true)
        .inherit_thread(true)
        .enabled(true)
        .exclude_kernel(!kernel)
        .clockid(Clock::MONOTONIC)
        .sample_id_all(true)
        .sample(SampleFlag::TID | SampleFlag::TIME | SampleFlag::CPU);
    if tells_losses() {
        builder.read_format(ReadFormat::LOST);
    }
    match wanted {
        Wanted::Profile { hz, copied: 0 } => builder
            .sample_frequency(*hz)
            .sample(SampleFlag::IP | SampleFlag::PERIOD | SampleFlag::CALLCHAIN)
            .exclude_callchain_kernel(true)
            .context_switch(true),
        Wanted::Profile { hz, copied } => builder
            .sample_frequency(*hz)
            .sample(SampleFlag::IP | SampleFlag::PERIOD)
            .sample(SampleFlag::REGS_USER | SampleFlag::STACK_USER)
            .sample_regs_user(REGISTERS.iter().map(|register| 1 << register).sum())
            .sample_stack_user(*copied & !7)
            .context_switch(true),
        Wanted::Switches => builder.context_switch(true),
        Wanted::Tracepoint { .. } => builder.sample_period(1).sample(SampleFlag::RAW),
    };
    builder
}

/// The kernel's numbers of the registers that a stack is unwound by, in its order: frame pointer, link register
/// (AArch64), stack pointer, instruction.
#[cfg(target_arch = "aarch64")]
const REGISTERS: [u32; 4] = [29, 30, 31, 32];
#[cfg(not(target_arch = "aarch64"))]
const REGISTERS: [u32; 3] = [6, 7, 8];

/// One for each thread and CPU are many.
fn more_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

pub(super) fn threads(pid: u32) -> io::Result<BTreeSet<u32>> {
    let tid = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    Ok(fs::read_dir(format!("/proc/{pid}/task"))?.flatten().filter_map(tid).collect())
}

/// The CPUs that are there: `0-3,6`
fn cpus() -> io::Result<Vec<usize>> {
    let text =
        fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_else(|_| "0-0".to_owned());
    Ok(parse_cpus(&text))
}

fn parse_cpus(text: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().take(1 << 14).collect()
}

/// Little-endian words, one after the other.
struct Words<'a>(&'a [u8]);

impl<'a> Words<'a> {
    fn u32(&mut self) -> Option<u32> {
        let (word, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_ne_bytes(*word))
    }

    fn u64(&mut self) -> Option<u64> {
        let (word, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_ne_bytes(*word))
    }

    fn bytes(&mut self, n: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(bytes)
    }
}

const LOST: u32 = 2;
const THROTTLE: u32 = 5;
const UNTHROTTLE: u32 = 6;
const SAMPLE: u32 = 9;
const LOST_SAMPLES: u32 = 13;
const SWITCH: u32 = 14;
/// In `misc`: whether a sample was taken in the kernel or outside, and which way a switch goes.
const MODE: u16 = 7;
const IN_KERNEL: u16 = 1;
const OUT: u16 = 1 << 13;
const PREEMPTED: u16 = 1 << 14;

/// A record behind its header: whose it is and what it tells.
fn parse(kind: u32, misc: u16, bytes: &[u8], wanted: &Wanted) -> Option<(u32, Told)> {
    if kind == SAMPLE {
        return parse_sample(misc, bytes, wanted);
    }
    // All others end with whom, when and where.
    let (body, id) = bytes.split_at_checked(bytes.len().checked_sub(24)?)?;
    let (mut id, mut body) = (Words(id), Words(body));
    let (pid, tid, at_ns, cpu) = (id.u32()?, id.u32()?, id.u64()?, id.u32()?);
    let what = match kind {
        SWITCH => What::Switch { out: misc & OUT != 0, preempted: misc & PREEMPTED != 0 },
        THROTTLE => What::Throttled(true),
        UNTHROTTLE => What::Throttled(false),
        LOST => {
            body.u64()?; // the kernel's number of the event
            What::Lost { id: wanted.id(), count: body.u64()? }
        }
        LOST_SAMPLES => What::Lost { id: wanted.id(), count: body.u64()? },
        _ => return None,
    };
    Some((pid, Told { at_ns, tid, cpu, what }))
}

/// The registers (instruction, stack pointer, frame pointer, link register) and the part of the stack that was
/// there. A thread of the kernel's has neither.
fn parse_stack(words: &mut Words<'_>) -> Option<([u64; 4], Vec<u64>)> {
    let mut found = [0; 4];
    if words.u64()? != 0 {
        let mut values = [0; REGISTERS.len()];
        for value in &mut values {
            *value = words.u64()?;
        }
        found = match *values.as_slice() {
            [fp, lr, sp, pc] => [pc, sp, fp, lr],
            [fp, sp, pc] => [pc, sp, fp, 0],
            _ => found,
        };
    }
    let size = usize::try_from(words.u64()?).ok()?;
    if size == 0 {
        return Some((found, Vec::new()));
    }
    let bytes = words.bytes(size)?;
    let valid = usize::try_from(words.u64()?).ok()?;
    let memory = bytes.get(..valid)?.chunks_exact(8);
    Some((found, memory.map(|word| word.try_into().map_or(0, u64::from_ne_bytes)).collect()))
}

fn parse_sample(misc: u16, bytes: &[u8], wanted: &Wanted) -> Option<(u32, Told)> {
    let mut words = Words(bytes);
    let profile = matches!(wanted, Wanted::Profile { .. });
    let ip = if profile { words.u64()? } else { 0 };
    let (pid, tid, at_ns) = (words.u32()?, words.u32()?, words.u64()?);
    let (cpu, _) = (words.u32()?, words.u32()?);
    let what = match wanted {
        Wanted::Profile { copied: 1.., .. } => {
            let weight_ns = words.u64()?;
            let kernel = misc & MODE == IN_KERNEL;
            let (registers, memory) = parse_stack(&mut words)?;
            What::Stack { weight_ns, kernel, registers, memory }
        }
        Wanted::Profile { .. } => {
            let weight_ns = words.u64()?;
            let depth = usize::try_from(words.u64()?).ok()?.min(DEEPEST);
            let kernel = misc & MODE == IN_KERNEL;
            let mut stack = Vec::with_capacity(depth);
            for _ in 0..depth {
                stack.push(words.u64()?);
            }
            stack.retain(|&address| address < FIRST_MARK);
            if stack.is_empty() && !kernel {
                stack.push(ip);
            }
            What::Sample { weight_ns, kernel, stack }
        }
        Wanted::Switches => return None,
        Wanted::Tracepoint { id, .. } => {
            let size = words.u32()? as usize;
            What::Raw { id: *id, bytes: words.bytes(size)?.to_vec() }
        }
    };
    Some((pid, Told { at_ns, tid, cpu, what }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[u64]) -> Vec<u8> {
        list.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn pair(low: u32, high: u32) -> u64 {
        u64::from(low) | u64::from(high) << 32
    }

    #[test]
    fn records_are_taken_apart() {
        let profile = Wanted::Profile { hz: 100, copied: 0 };
        let user = u64::MAX - 511;
        let bytes = words(&[7, pair(1, 2), 33, pair(4, 0), 1000, 3, user, 7, 9]);
        let (pid, told) = parse(SAMPLE, 2, &bytes, &profile).unwrap();
        let what = What::Sample { weight_ns: 1000, kernel: false, stack: vec![7, 9] };
        assert_eq!((pid, told), (1, Told { at_ns: 33, tid: 2, cpu: 4, what }));
        for cut in 0..bytes.len() {
            assert_eq!(parse(SAMPLE, 2, &bytes[..cut], &profile), None);
        }
        let (_, told) = parse(SAMPLE, 1, &words(&[7, pair(1, 2), 33, 4, 9, 0]), &profile).unwrap();
        let what = What::Sample { weight_ns: 9, kernel: true, stack: vec![] };
        assert_eq!(told.what, what, "nothing of the user's is known");

        let bytes = words(&[pair(1, 2), 33, pair(4, 0)]);
        let switch = |misc| parse(SWITCH, misc, &bytes, &profile).unwrap().1.what;
        assert_eq!(switch(0), What::Switch { out: false, preempted: false });
        assert_eq!(switch(OUT | PREEMPTED), What::Switch { out: true, preempted: true });
        let bytes = words(&[5, 17, pair(1, 2), 33, pair(4, 0)]);
        assert_eq!(
            parse(LOST, 0, &bytes, &profile).unwrap().1.what,
            What::Lost { id: SAMPLE_ID, count: 17 }
        );

        let stacks = Wanted::Profile { hz: 100, copied: 16 };
        let head = [7, pair(1, 2), 33, pair(4, 0), 1000];
        let registers: Vec<u64> = (0..REGISTERS.len() as u64).collect();
        let copied = [&head[..], &[1], &registers, &[24, 5, 6, 7, 16]].concat();
        let (_, told) = parse(SAMPLE, 2, &words(&copied), &stacks).unwrap();
        let What::Stack { registers: found, memory, .. } = told.what else { panic!("{told:?}") };
        let last = REGISTERS.len() as u64 - 1;
        assert_eq!((&found[..3], memory), (&[last, last - 1, 0][..], vec![5, 6]));
        for cut in 0..copied.len() {
            assert_eq!(parse(SAMPLE, 2, &words(&copied[..cut]), &stacks), None);
        }
        let none = [&head[..], &[0, 0]].concat();
        let (_, told) = parse(SAMPLE, 2, &words(&none), &stacks).unwrap();
        assert!(matches!(told.what, What::Stack { memory, .. } if memory.is_empty()));

        let raw = Wanted::Tracepoint { number: 3, id: 70_000 };
        let mut bytes = words(&[pair(1, 2), 33, pair(4, 0)]);
        bytes.extend(4u32.to_ne_bytes());
        bytes.extend([1, 2, 3, 4]);
        let (_, told) = parse(SAMPLE, 0, &bytes, &raw).unwrap();
        assert_eq!(told.what, What::Raw { id: 70_000, bytes: vec![1, 2, 3, 4] });
        assert_eq!(parse(SAMPLE, 0, &bytes[..bytes.len() - 1], &raw), None);
    }

    #[test]
    fn a_loss_is_told_once() {
        let mut losses = Losses::default();
        assert_eq!(losses.recorded(5), 5);
        assert_eq!(losses.asked(12), 7);
        assert_eq!(losses.asked(12), 0);
        assert_eq!(losses.recorded(7), 0, "that was asked for");
        assert_eq!(losses.recorded(3), 3);
        assert_eq!(losses.asked(0), 0, "a kernel that counts none");
    }

    #[test]
    fn few_rings_are_large_and_many_small() {
        let sizes =
            |wanted: &[Wanted]| [0, 1, 3, 60, 64, 65, 100_000].map(|n| first_size(wanted, n));
        let (small, least) = RING;
        let switches = sizes(&[Wanted::Switches]);
        assert_eq!(switches, [8 << 20, 8 << 20, 2 << 20, small, small, small, least]);
        let stacks = sizes(&[Wanted::Switches, Wanted::Profile { hz: 1, copied: 8 }]);
        assert_eq!(stacks[2..], [2 << 20, 1 << 20, 1 << 20, 512 << 10, least]);
        // Never more than is allowed together, and never a ring that the kernel does not give.
        for rings in 1..20_000 {
            let size = first_size(&[Wanted::Switches], rings);
            assert!(size.is_power_of_two() && size >= least, "{size}");
            assert!(size == least || rings * size <= TOGETHER.1, "{rings} of {size}");
        }
    }

    #[test]
    fn rings_that_would_take_too_much_memory_are_not_opened() {
        let rooms = [10, 512, 513, 2_000, 12_000, 13_000, 1_000_000]
            .map(|rings| room_for(&[Wanted::Switches], rings));
        let small = |rings, kib: usize| Room::Small(rings, kib << 10);
        let none = [13_000, 1_000_000].map(Room::None);
        let first =
            [Room::Enough, Room::Enough, small(513, 64), small(2_000, 32), small(12_000, 4)];
        assert_eq!(rooms, [&first[..], &none].concat()[..]);
    }

    #[test]
    fn lists_of_cpus_are_read() {
        assert_eq!(parse_cpus("0-3,6\n"), [0, 1, 2, 3, 6]);
        assert_eq!(parse_cpus("0"), [0]);
        assert!(parse_cpus("").is_empty());
    }
}
