//! Tracepoints of the kernel where it opens no perf events for them: by an instance of tracefs that is ours alone, so
//! that what others trace there is not touched.
//!
//! It goes with the value. What a helper process leaves that was killed, the next one takes away, and
//! `gracepoint reset` ([`remove_leftovers`]): an instance is named after the process that made it.
//!
//! The kernel notes the events of the threads that are there and of those that they make (`event-fork`), children of the
//! program too, which are left out here. A thread that lives shorter than the time between two readings cannot
//! be told from a child's, and is left out as well. Threads go by the machine's own numbers, so in a pid namespace none of this
//! is to be had.

use super::format::Format;
use super::rings::{LATE_NS, Told, What, threads};
use super::tracefs;
use crate::record::session::arguments;
use gracepoint_wire::profile::FIRST_KERNEL_ID;
use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What the names of our instances begin with; the pid of their process follows.
const PREFIX: &str = "gracepoint-";
/// The pid namespace of the machine itself.
const MACHINES_PIDS: u64 = 0xeffffffc;
/// Kilobytes of memory for each CPU.
const BUFFER_KB: &str = "4096";
/// Bytes of a page's head: time, and how much follows.
const HEAD: usize = 16;
/// Flags above the length of a page: events before it are missing, and how many is told behind it.
const MISSED: u64 = 1 << 31;
const MISSED_COUNT: u64 = 1 << 30;
/// `prev_state` of a thread that could have gone on: 0, or this bit alone.
const PREEMPTED: u64 = 0x100;
/// The event that tells who leaves a CPU, and who comes.
const SWITCH: &str = "sched:sched_switch";

/// See the top.
pub(crate) struct Instance {
    path: PathBuf,
    pid: u32,
    /// By CPU.
    pipes: Vec<(u32, File)>,
    /// By the kernel's number: as which event it was asked for.
    wanted: HashMap<u64, u32>,
    switch: Format,
    /// The program's threads, those that have ended too.
    mine: BTreeSet<u32>,
    held: Vec<Told>,
}

impl Instance {
    /// Begins to take these events of the threads of `pid`.
    ///
    /// # Errors
    /// What is missing, in words.
    pub(crate) fn open(pid: u32, names: &[String]) -> Result<Instance, String> {
        let root = tracefs::root()?;
        if fs::metadata("/proc/self/ns/pid").map_or(0, |about| about.ino()) != MACHINES_PIDS {
            return Err(
                "tracefs knows threads by the machine's numbers, which a pid namespace does not"
                    .into(),
            );
        }
        remove_leftovers();
        let path = root.join("instances").join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&path)
            .map_err(|e| format!("no instance can be made in {}: {e}", root.display()))?;
        let mut instance = Instance {
            path,
            pid,
            pipes: Vec::new(),
            wanted: HashMap::new(),
            switch: tracefs::format(SWITCH)?,
            mine: BTreeSet::new(),
            held: Vec::new(),
        };
        // What was made goes with the value, also if this fails.
        instance.begin(names).map_err(|e| format!("tracefs does not let it be set up: {e}"))?;
        Ok(instance)
    }

    fn begin(&mut self, names: &[String]) -> io::Result<()> {
        self.write("trace_clock", "mono")?;
        self.write("buffer_size_kb", BUFFER_KB)?;
        self.write("options/event-fork", "1")?;
        self.write("set_event_pid", "")?;
        // Threads that are made meanwhile are taken in by those that make them, if these were in.
        loop {
            let now = threads(self.pid)?;
            let fresh: Vec<u32> = now.difference(&self.mine).copied().collect();
            if fresh.is_empty() {
                break;
            }
            let list: Vec<String> = fresh.iter().map(u32::to_string).collect();
            self.append("set_event_pid", &list.join(" "))?;
            self.mine.extend(fresh);
        }
        for cpu in fs::read_dir(self.path.join("per_cpu"))?.flatten() {
            let name = cpu.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("cpu")?.parse().ok());
            let Some(number) = number else { continue };
            let mut options = OpenOptions::new();
            options.read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
            self.pipes.push((number, options.open(cpu.path().join("trace_pipe_raw"))?));
        }
        for (name, id) in names.iter().zip(FIRST_KERNEL_ID..) {
            let number = tracefs::number(name).map_err(io::Error::other)?;
            self.wanted.insert(number, id);
        }
        for name in names.iter().map(String::as_str).chain([SWITCH]) {
            self.write(&format!("events/{}/enable", name.replace(':', "/")), "1")?;
        }
        Ok(())
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        fs::write(self.path.join(file), text)
    }

    fn append(&self, file: &str, text: &str) -> io::Result<()> {
        OpenOptions::new().append(true).open(self.path.join(file))?.write_all(text.as_bytes())
    }

    /// As of [`Rings`](super::rings::Rings::drain).
    pub(crate) fn drain(&mut self, now_ns: u64, end: bool) -> Vec<Told> {
        // A program that has ended has no more threads than those that we know.
        self.mine.extend(threads(self.pid).unwrap_or_default());
        let mut page = vec![0; 1 << 16];
        let pipes = std::mem::take(&mut self.pipes);
        for (cpu, pipe) in &pipes {
            let mut pipe = pipe;
            loop {
                match pipe.read(&mut page) {
                    Ok(0) => break,
                    Ok(n) => self.take(*cpu, &page[..n]),
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
        }
        self.pipes = pipes;
        self.held.sort_by_key(|told| told.at_ns);
        let ready = match end {
            true => self.held.len(),
            false => self.held.partition_point(|told| told.at_ns < now_ns.saturating_sub(LATE_NS)),
        };
        self.held.drain(..ready).collect()
    }

    fn take(&mut self, cpu: u32, page: &[u8]) {
        let Instance { wanted, switch, mine, held, pid, .. } = self;
        let at_begin = page.first_chunk().map_or(0, |word| u64::from_ne_bytes(*word));
        let missed = each_record(page, |at_ns, bytes| {
            let word = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
            let (Some(first), Some(tid)) = (word(0), word(4)) else { return };
            let number = u64::from(first & 0xffff);
            let mut push = |tid: u32, what| {
                if mine.contains(&tid) {
                    held.push(Told { at_ns, tid, cpu, what });
                }
            };
            if number == switch.number {
                let number_at = |name: &str| switch.offset(name).and_then(word);
                let state = number_at("prev_state").unwrap_or(0);
                let preempted = state == 0 || u64::from(state) & PREEMPTED != 0;
                push(tid, What::Switch { out: true, preempted });
                if let Some(next) = number_at("next_pid") {
                    push(next, What::Switch { out: false, preempted: false });
                }
            }
            if let Some(&id) = wanted.get(&number) {
                push(tid, What::Raw { id, bytes: bytes.to_vec() });
            }
        });
        if missed > 0 {
            let what = What::Lost { id: FIRST_KERNEL_ID, count: missed };
            held.push(Told { at_ns: at_begin, tid: *pid, cpu, what });
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.write("tracing_on", "0");
        self.pipes.clear();
        // What cannot be removed now is left to `reset`.
        let _ = fs::remove_dir(&self.path);
    }
}

/// The records of a page as `trace_pipe_raw` gives it, each with its time; how many are missing before it, 1 if
/// that is not known.
fn each_record(page: &[u8], mut each: impl FnMut(u64, &[u8])) -> u64 {
    let word64 = |at: usize| page.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes);
    let (Some(mut at_ns), Some(commit)) = (word64(0), word64(8)) else { return 0 };
    let len = (commit & (MISSED_COUNT - 1)) as usize;
    let Some(data) = page.get(HEAD..HEAD.saturating_add(len)) else { return 0 };
    let word = |at: usize| data.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    let mut at = 0;
    while let Some(head) = word(at) {
        let (kind, delta) = (head & 31, u64::from(head >> 5));
        let next = word(at + 4);
        let (from, len) = match (kind, next) {
            // Longer than the head can say: its length, with that word, follows.
            (0, Some(len)) => (at + 8, (len as usize).saturating_sub(4)),
            (1..=28, _) => (at + 4, kind as usize * 4),
            // The rest of the page is empty; or a record was taken back.
            (29, _) if delta == 0 => break,
            (29, Some(len)) => {
                at_ns += delta;
                at = at.saturating_add(4).saturating_add(len as usize);
                continue;
            }
            (30, Some(more)) => {
                at_ns += delta | u64::from(more) << 27;
                at += 8;
                continue;
            }
            (31, Some(more)) => {
                const LOW: u64 = (1 << 59) - 1;
                at_ns = at_ns & !LOW | delta | u64::from(more) << 27;
                at += 8;
                continue;
            }
            _ => break,
        };
        at_ns += delta;
        let Some(record) = from.checked_add(len).and_then(|end| data.get(from..end)) else { break };
        each(at_ns, record);
        at = from + len;
    }
    match (commit & MISSED != 0, commit & MISSED_COUNT != 0) {
        (false, _) => 0,
        (true, true) => word64((HEAD + len).next_multiple_of(8)).unwrap_or(1),
        (true, false) => 1,
    }
}

/// Instances of processes that have been killed, and how many could be removed.
pub(crate) fn remove_leftovers() -> usize {
    let Ok(root) = tracefs::root() else { return 0 };
    let entries = fs::read_dir(root.join("instances")).into_iter().flatten().flatten();
    let left = entries.filter(|entry| {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse().ok());
        pid.is_some_and(|pid| !is_helper(pid))
    });
    left.filter(|entry| remove(&entry.path())).count()
}

fn remove(path: &Path) -> bool {
    let _ = fs::write(path.join("tracing_on"), "0");
    fs::remove_dir(path).is_ok()
}

/// Whether a process is one that has an instance.
fn is_helper(pid: u32) -> bool {
    arguments(pid).first().is_some_and(|word| word == "kernel-side")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(at: u64, commit: u64, words: &[u32]) -> Vec<u8> {
        let mut page = at.to_ne_bytes().to_vec();
        page.extend(commit.to_ne_bytes());
        page.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        page
    }

    fn records(page: &[u8]) -> (u64, Vec<(u64, Vec<u8>)>) {
        let mut found = Vec::new();
        let missed = each_record(page, |at, bytes| found.push((at, bytes.to_vec())));
        (missed, found)
    }

    fn bytes(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    #[test]
    fn pages_of_the_ring_are_read() {
        let words = [
            2 | 5 << 5,
            11,
            12, // two words, 5 ns later
            30 | 1 << 5,
            2, // much later
            3 << 5,
            12,
            21,
            22, // a long one of two words
            29 | 1 << 5,
            4, // taken back
            1 | 1 << 5,
            31,
            29, // the rest is empty
            7,
            7,
        ];
        let len = 4 * words.len() as u64;
        let late = 105 + 1 + (2 << 27) + 3;
        let want =
            vec![(105, bytes(&[11, 12])), (late, bytes(&[21, 22])), (late + 2, bytes(&[31]))];
        assert_eq!(records(&page(100, len, &words)), (0, want.clone()));
        assert_eq!(records(&page(100, len | MISSED, &words)), (1, want.clone()));
        let mut counted = words.to_vec();
        counted.extend([17, 0]); // behind it, on 8 bytes: how many
        assert_eq!(len % 8, 0);
        assert_eq!(records(&page(100, len | MISSED | MISSED_COUNT, &counted)), (17, want));
        // Cut anywhere or full of rubbish it is no panic.
        let whole = page(100, len, &words);
        (0..whole.len()).for_each(|cut| drop(records(&whole[..cut])));
        for seed in 0..2000u32 {
            let rubbish: Vec<u32> = (0..16)
                .map(|n| (seed + 1).wrapping_mul(2_654_435_761).rotate_left(n * 2))
                .collect();
            records(&page(0, u64::from(seed % 80), &rubbish));
        }
    }
}
