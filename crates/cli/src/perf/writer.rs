//! What the kernel told, as packets: a stream for each thread, so that a reader sees whose it is.

use super::rings::{Told, What};
use crate::record::streams::Streams;
use gracepoint_wire::clock::{Clock, Source, scale};
use gracepoint_wire::packet::{
    HEADER, NAME, PacketHeader, compact_header, extended_header, needs_extended, round_up,
};
use gracepoint_wire::profile::{RATE_ID, SAMPLE_ID, STACK_ID, SWITCH_ID};
use gracepoint_wire::schema::{Context, LOSS_ID};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;

/// Bytes of records after which a packet is written.
const PACKET: usize = 32 << 10;
/// Streams of one writer at most.
pub(crate) const MOST_STREAMS: u64 = 1 << 16;
/// Threads of which something is told; one stream more stands for the rest.
const MOST_THREADS: usize = MOST_STREAMS as usize - 1;

/// A thread's stream.
struct Lane {
    stream: u64,
    packets: u64,
    name: [u8; NAME],
    /// Records that are not written yet, and the times of the first and the last.
    records: Vec<u8>,
    begin: u64,
    last: u64,
}

/// All of them.
pub(crate) struct Writer {
    pid: u32,
    lanes: HashMap<u32, Lane>,
    next: u64,
    /// Bytes of an empty context, which every record has in front.
    context: usize,
    /// What it wrote.
    pub(crate) samples: u64,
    pub(crate) lost: u64,
    /// The losses by event.
    pub(crate) losses: BTreeMap<u32, u64>,
}

/// Turns `CLOCK_MONOTONIC` into ticks of the trace, by the latest comparison of the two.
pub(crate) fn ticks(clock: &Clock, at_ns: u64) -> u64 {
    let Some(last) = clock.triples.last().filter(|_| clock.source == Source::Tsc) else {
        return at_ns;
    };
    match at_ns.checked_sub(last.mono_ns) {
        Some(later) => last.ticks.saturating_add(scale(later, clock.freq_hz, 1_000_000_000)),
        None => {
            let earlier = last.mono_ns - at_ns;
            last.ticks.saturating_sub(scale(earlier, clock.freq_hz, 1_000_000_000))
        }
    }
}

fn seq(payload: &mut Vec<u8>, numbers: &[u64]) {
    let kept = numbers.len().min(usize::from(u16::MAX));
    payload.extend((numbers.len() as u32).to_le_bytes());
    payload.extend((kept as u16).to_le_bytes());
    payload.extend(numbers[..kept].iter().flat_map(|number| number.to_le_bytes()));
}

impl Writer {
    /// Streams from the number `first` on, which nobody else uses.
    pub(crate) fn new(pid: u32, first: u64, context: Context) -> Writer {
        let (context, lanes) = (context.empty_len(), HashMap::new());
        Writer { pid, lanes, next: first, context, samples: 0, lost: 0, losses: BTreeMap::new() }
    }

    /// Takes what was told, in order of time.
    ///
    /// # Errors
    /// When the disk is full or the directory is gone.
    pub(crate) fn take(&mut self, told: &Told, clock: &Clock, out: &mut Streams) -> io::Result<()> {
        let mut payload = Vec::new();
        let id = match &told.what {
            What::Sample { weight_ns, kernel, stack } => {
                self.samples += 1;
                payload.extend(weight_ns.to_le_bytes());
                payload.extend(told.cpu.to_le_bytes());
                payload.push(u8::from(*kernel));
                seq(&mut payload, stack);
                SAMPLE_ID
            }
            What::Stack { weight_ns, kernel, registers, memory } => {
                self.samples += 1;
                payload.extend(weight_ns.to_le_bytes());
                payload.extend(told.cpu.to_le_bytes());
                payload.push(u8::from(*kernel));
                registers.iter().for_each(|register| payload.extend(register.to_le_bytes()));
                seq(&mut payload, memory);
                STACK_ID
            }
            What::Switch { out, preempted } => {
                payload.extend([u8::from(*out), u8::from(*preempted)]);
                payload.extend(told.cpu.to_le_bytes());
                SWITCH_ID
            }
            What::Lost { id, count } => {
                self.lost += count;
                *self.losses.entry(*id).or_default() += count;
                payload.extend(id.to_le_bytes());
                payload.extend(count.to_le_bytes());
                LOSS_ID
            }
            What::Throttled(begins) => {
                let why = if *begins { "throttled by the kernel" } else { "as before" };
                payload.extend(0u32.to_le_bytes());
                payload.extend(why.as_bytes());
                payload.push(0);
                RATE_ID
            }
            What::Raw { id, bytes } => {
                payload.extend_from_slice(bytes);
                *id
            }
        };
        self.push(told.tid, ticks(clock, told.at_ns), id, &payload, out)
    }

    /// Says that the rate is another from here on.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub(crate) fn rate(
        &mut self,
        at: u64,
        hz: u32,
        why: &str,
        out: &mut Streams,
    ) -> io::Result<()> {
        let mut payload = hz.to_le_bytes().to_vec();
        payload.extend(why.as_bytes());
        payload.push(0);
        self.push(self.pid, at, RATE_ID, &payload, out)
    }

    fn push(
        &mut self,
        tid: u32,
        at: u64,
        id: u32,
        payload: &[u8],
        out: &mut Streams,
    ) -> io::Result<()> {
        // Of more threads than that, one stands for the rest.
        let tid = if self.lanes.len() >= MOST_THREADS && !self.lanes.contains_key(&tid) {
            0
        } else {
            tid
        };
        let (pid, next) = (self.pid, &mut self.next);
        let lane = self.lanes.entry(tid).or_insert_with(|| {
            *next += 1;
            Lane {
                stream: *next - 1,
                packets: 0,
                name: name(pid, tid),
                records: Vec::new(),
                begin: 0,
                last: 0,
            }
        });
        let at = at.max(lane.last);
        if lane.records.is_empty() {
            (lane.begin, lane.last) = (at, at);
        }
        if needs_extended(id, at - lane.last) {
            lane.records.extend(extended_header(id, at));
        } else {
            lane.records.extend(&compact_header(id, at).to_le_bytes()[..5]);
        }
        lane.last = at;
        lane.records.resize(lane.records.len() + self.context, 0);
        lane.records.extend_from_slice(payload);
        if lane.records.len() >= PACKET { lane.write(tid, out) } else { Ok(()) }
    }

    /// Writes what is there.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub(crate) fn flush(&mut self, out: &mut Streams) -> io::Result<()> {
        self.lanes.iter_mut().try_for_each(|(&tid, lane)| lane.write(tid, out))
    }
}

impl Lane {
    fn write(&mut self, tid: u32, out: &mut Streams) -> io::Result<()> {
        if self.records.is_empty() {
            return Ok(());
        }
        let content = (HEADER + self.records.len()) as u64;
        let header = PacketHeader {
            stream: self.stream,
            begin: self.begin,
            end: self.last,
            content_bits: content * 8,
            packet_bits: round_up(content) * 8,
            seq: self.packets,
            discarded: 0,
            tid,
            thread: self.name,
        };
        let mut packet = header.to_bytes().to_vec();
        packet.append(&mut self.records);
        packet.resize(round_up(content) as usize, 0);
        out.append(self.stream, &packet)?;
        self.packets += 1;
        Ok(())
    }
}

/// A thread's name, NUL-padded; the program's where the thread has ended.
fn name(pid: u32, tid: u32) -> [u8; NAME] {
    let read = |path: String| fs::read(path).ok();
    let text =
        read(format!("/proc/{pid}/task/{tid}/comm")).or_else(|| read(format!("/proc/{pid}/comm")));
    let text = text.unwrap_or_default();
    let text = text.strip_suffix(b"\n").unwrap_or(&text);
    let mut name = [0; NAME];
    let kept = text.len().min(NAME - 1);
    name[..kept].copy_from_slice(&text[..kept]);
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use gracepoint_wire::clock::Triple;

    #[test]
    fn nanoseconds_become_ticks_on_both_sides_of_a_triple() {
        let triple = Triple { ticks: 1_000_000, mono_ns: 500, real_ns: 0 };
        let mut clock = Clock {
            source: Source::Tsc,
            freq_hz: 2_000_000_000,
            boot_id: [0; 16],
            triples: vec![triple],
        };
        assert_eq!(ticks(&clock, 500), 1_000_000);
        assert_eq!(ticks(&clock, 600), 1_000_200);
        assert_eq!(ticks(&clock, 400), 999_800);
        clock.source = Source::Monotonic;
        assert_eq!(ticks(&clock, 400), 400);
    }
}
