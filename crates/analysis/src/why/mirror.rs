//! The state of a program's domains from its memory, when it does not answer: its page is found, believed only
//! where it is consistent, and followed. The layout is that of `docs/abi.md`.
//!
//! The program may be running meanwhile, or have stopped in the middle of anything. Of a slot the sections
//! entered are read before those left, so a section that is told was open all the time in between; records are
//! read with their version before and after. Whatever the memory holds, reading ends, and takes bounded memory.

use super::memory::{Mapping, Memory};
use gracepoint_wire::control::{
    DomainState, OpenReader, RunningCall, RunningPeriod, RunningProbe, Stuck, WaitingThread,
};
use std::collections::BTreeMap;

/// The first two words of a page.
const MAGIC: [u8; 16] = *b"gracepoint-why\x01\xa9";
const PAGE: u64 = 4096;
const WORDS: usize = 512;
/// The name of the page's mapping, where the kernel has names.
const NAME: &str = "[anon:gracepoint-why]";
/// Words that version 1 has at least.
const OWN: u64 = 62;
/// The word that says where a record has the call that waits, and the calls, from number 1 on.
const CALL: usize = 62;
const CALLS: [&str; 7] = [
    "synchronize",
    "synchronize_timeout",
    "cond_synchronize",
    "barrier",
    "detach_wait",
    "detach_timeout",
    "unregister_wait",
];
/// Most domains, threads, waiters and bytes of a name that are followed.
const DOMAINS: usize = 4096;
const THREADS: u64 = 1 << 16;
const TEXT: u64 = 256;
/// Most bytes of nameless memory that are looked through for pages.
const SEARCHED: u64 = 1 << 32;
/// Larger than any structure that is described.
const LARGE: u64 = 1 << 20;

/// A page that is consistent.
struct Page {
    words: Vec<u64>,
}

/// A thread of the program's table.
struct Record {
    tid: u32,
    name: String,
    ended: bool,
    wait: [u64; 4],
    call: &'static str,
}

/// What the pages of a process say; one for each runtime in it.
///
/// # Errors
/// Why there is nothing, as a part of a sentence.
pub fn read(memory: &impl Memory, pid: Option<u32>) -> Result<Stuck, String> {
    let mut all = Stuck::default();
    let mut found = 0;
    let mut reason = "it has no page of gracepoint's, or one that we may not read".to_owned();
    for address in candidates(memory) {
        match Page::at(memory, address, pid) {
            Ok(page) => {
                found += 1;
                page.follow(memory, &mut all);
            }
            Err(why) => reason = why,
        }
    }
    if found == 0 { Err(reason) } else { Ok(all) }
}

/// Addresses where a page may be.
fn candidates(memory: &impl Memory) -> Vec<u64> {
    let pages = |mapping: &Mapping| (mapping.start..mapping.end).step_by(PAGE as usize).take(64);
    let named: Vec<u64> =
        memory.mappings().iter().filter(|mapping| mapping.path == NAME).flat_map(pages).collect();
    if !named.is_empty() {
        return named;
    }
    let mut found = Vec::new();
    let mut left = SEARCHED;
    for mapping in memory.mappings() {
        let nameless = mapping.path.is_empty() || mapping.path.starts_with("[anon");
        if !mapping.writable || mapping.executable || !nameless {
            continue;
        }
        search(memory, mapping, &mut left, &mut found);
    }
    found
}

fn search(memory: &impl Memory, mapping: &Mapping, left: &mut u64, found: &mut Vec<u64>) {
    let mut bytes = vec![0; 256 << 10];
    let mut at = mapping.start;
    while at < mapping.end && *left > 0 && found.len() < 64 {
        let want = (mapping.end - at).min(bytes.len() as u64) as usize;
        let got = memory.read_some(at, &mut bytes[..want]);
        for (page, start) in bytes[..got].chunks(PAGE as usize).zip((at..).step_by(PAGE as usize)) {
            if page.starts_with(&MAGIC) {
                found.push(start);
            }
        }
        *left = left.saturating_sub(want as u64);
        at += want as u64;
    }
}

impl Page {
    /// The page there, if it is consistent.
    fn at(memory: &impl Memory, address: u64, pid: Option<u32>) -> Result<Page, String> {
        let mut bytes = vec![0; PAGE as usize];
        if !memory.read(address, &mut bytes) {
            return Err("its page cannot be read".into());
        }
        let word = |c: &[u8]| u64::from_le_bytes(c.try_into().unwrap_or([0; 8]));
        let words: Vec<u64> = bytes.chunks_exact(8).map(word).collect();
        debug_assert_eq!(words.len(), WORDS);
        let page = Page { words };
        if !bytes.starts_with(&MAGIC) {
            return Err(
                "its page is empty: it is a child that was made behind the library's back".into()
            );
        }
        if page.words[3] != address {
            return Err("what looks like its page is a copy".into());
        }
        if page.words[2] != 1 || page.words[5] < OWN {
            return Err(format!(
                "its page has version {}, which this tool does not know",
                page.words[2]
            ));
        }
        if pid.is_some_and(|pid| page.words[4] != u64::from(pid)) {
            return Err("its page is that of its parent".into());
        }
        page.check()?;
        Ok(page)
    }

    /// Sizes, counts and offsets that can be.
    fn check(&self) -> Result<(), String> {
        let w = &self.words;
        let addresses = [6, 7, 8, 9].iter().all(|at| w[*at] != 0 && w[*at].is_multiple_of(4));
        let region = w[61];
        let inside = (19..44).chain([58]).all(|at| w[at] < region);
        let record = (12..19).all(|at| w[at] < w[11]) && (w[5] <= CALL as u64 || w[CALL] < w[11]);
        let sizes = region <= LARGE
            && (32..=4096).contains(&w[11])
            && (48..=4096).contains(&w[44])
            && w[45] <= w[44] / 2
            && w[46] < w[45]
            && w[47] < w[45]
            && w[48] < w[44];
        let owners = w[50] < LARGE
            && w[51] < LARGE
            && w[52] <= 4096
            && w[53] <= 64
            && w[57] <= 64
            && (54..57).all(|at| w[at] < w[52])
            && w[57].saturating_mul(w[44]).saturating_add(w[56]) <= w[52];
        let sites = w[59] <= 4096 && w[60].saturating_add(16) <= w[59];
        let threads = (1..=THREADS).contains(&w[10]) && w[49] < LARGE;
        match addresses && inside && record && sizes && owners && sites && threads {
            true => Ok(()),
            false => Err("its page does not make sense".into()),
        }
    }

    fn follow(&self, memory: &impl Memory, all: &mut Stuck) {
        let w = &self.words;
        let highest = memory.half(w[9]).map_or(0, u64::from).min(w[10]);
        let records = self.records(memory, highest);
        let now = memory.now();
        let mut region = memory.word(w[6]).unwrap_or(0);
        let mut seen = 0;
        while region != 0 && seen < DOMAINS {
            all.domains.extend(self.domain(memory, region, highest, &records, now));
            region = memory.word(region.wrapping_add(w[19])).unwrap_or(0);
            seen += 1;
        }
        let ours = u32::try_from(w[88]).unwrap_or(0);
        if ours != 0 {
            all.agent = ours;
            let busy = Some(w[89]).filter(|since| *since != 0);
            all.agent_busy_ns =
                busy.zip(now).map_or(0, |(since, now)| now.saturating_sub(since).max(1));
        }
    }

    /// All threads of the table, by index.
    fn records(&self, memory: &impl Memory, highest: u64) -> BTreeMap<u64, Record> {
        let w = &self.words;
        let mut records = BTreeMap::new();
        let Some(table) = memory.word(w[8]).filter(|table| *table != 0) else { return records };
        let mut bytes = vec![0; w[11] as usize];
        for index in 0..highest {
            let at = table.wrapping_add(index * w[11]);
            if !memory.read(at, &mut bytes) {
                break;
            }
            let half = |at: u64| half_in(&bytes, at);
            let (version, tid) = (half(w[12]), half(w[13]));
            // 1 alive, 2 ended inside a section; 0 free, 3 being written.
            let state = version & 3;
            if !(1..=2).contains(&state) || memory.half(at.wrapping_add(w[12])) != Some(version) {
                continue;
            }
            let name: Vec<u8> = bytes
                .iter()
                .skip(w[14] as usize)
                .take(15)
                .copied()
                .take_while(|b| *b != 0)
                .collect();
            let wait = [15, 16, 17, 18].map(|place| word_in(&bytes, w[place]));
            let name = String::from_utf8_lossy(&name).into_owned();
            let call = self.call(&bytes);
            records.insert(index, Record { tid, name, ended: state == 2, wait, call });
        }
        records
    }

    /// The call that a record's thread waits in; empty where the page does not say, or says what is not known here.
    fn call(&self, record: &[u8]) -> &'static str {
        if self.words[5] <= CALL as u64 {
            return "";
        }
        let number = usize::try_from(word_in(record, self.words[CALL])).unwrap_or(0);
        number.checked_sub(1).and_then(|at| CALLS.get(at)).copied().unwrap_or_default()
    }

    fn domain(
        &self,
        memory: &impl Memory,
        region: u64,
        highest: u64,
        records: &BTreeMap<u64, Record>,
        now: Option<u64>,
    ) -> Option<DomainState> {
        let w = &self.words;
        let mut bytes = vec![0; w[61] as usize];
        if !memory.read(region, &mut bytes) {
            return None;
        }
        let word = |place: usize| word_in(&bytes, w[place]);
        if bytes.get(w[20] as usize) != Some(&1) {
            return None;
        }
        let slots = self.slots(memory, word(21), highest);
        let sequence = word(25);
        let number = sequence / 4 + 1;
        let runs = sequence & 3 != 0;
        let age =
            |since: u64| now.filter(|_| since != 0).map_or(0, |now| now.saturating_sub(since));
        let running = runs.then(|| RunningPeriod {
            number,
            phase: if word(26) == number { 2 } else { 1 },
            age_ns: if word(30) == number { age(word(31)) } else { 0 },
        });
        // As the driver does: the inactive rank while it is awaited, else the other.
        let awaited = sequence & 3;
        let inactive = 1 << (1 - (word(27) / w[45].max(1)).min(1));
        let ranks = if awaited & inactive != 0 { inactive } else { awaited };
        let mut readers = Vec::new();
        if runs {
            for rank in (0..2).filter(|rank| ranks & (1 << rank) != 0) {
                self.readers(memory, &bytes, &slots, rank, records, now, &mut readers);
            }
        }
        let waiters = self.waiters(region, records, number, now);
        let called: u64 = slots
            .iter()
            .map(|slot| slot.called)
            .fold(word_in(&bytes, w[23] + w[48]), u64::wrapping_add);
        // A count that grows while it is read may come out a little wrong, and never this large.
        let pending = called.wrapping_sub(word(32));
        let pending = if pending > 1 << 40 { 0 } else { pending };
        let incoming = word(33) > 1;
        let oldest = [word(37), word(35), if incoming { word(34) } else { 0 }];
        let oldest = oldest.into_iter().find(|since| *since != 0).unwrap_or(0);
        let ready = bytes.get(w[41] as usize) == Some(&1) || word(36) != 0;
        Some(DomainState {
            name: self.text(memory, word(28), word(29)),
            ended: sequence / 4,
            running,
            waiters,
            futures: 0,
            readers,
            callback: self.callback(&bytes, records, now),
            pending,
            oldest_ns: if pending == 0 { 0 } else { age(oldest) },
            ready,
            drives: u8::try_from(word(42)).unwrap_or(u8::MAX),
            job_waits: bytes.get(w[43] as usize) == Some(&1),
        })
    }

    fn callback(
        &self,
        bytes: &[u8],
        records: &BTreeMap<u64, Record>,
        now: Option<u64>,
    ) -> Option<RunningCall> {
        let w = &self.words;
        let word = |place: usize| word_in(bytes, w[place]);
        if word(38) == 0 {
            return None;
        }
        // The runner's word is where its slot is in a region, plus one.
        let slot = word(40).checked_sub(1 + w[49]);
        let record = slot.and_then(|offset| records.get(&(offset / w[44])));
        Some(RunningCall {
            number: word(32).wrapping_add(1),
            ran_ns: now.map_or(0, |now| now.saturating_sub(word(39))),
            tid: record.map_or(0, |record| record.tid),
            thread: record.map_or_else(String::new, |record| record.name.clone()),
            ..RunningCall::default()
        })
    }

    fn waiters(
        &self,
        region: u64,
        records: &BTreeMap<u64, Record>,
        running: u64,
        now: Option<u64>,
    ) -> Vec<WaitingThread> {
        let waits = records.values().filter(|record| record.wait[0] == region && !record.ended);
        waits
            .map(|record| WaitingThread {
                tid: record.tid,
                name: record.name.clone(),
                for_callbacks: record.wait[3] != 0,
                waited_ns: now.map_or(0, |now| now.saturating_sub(record.wait[2])),
                number: (record.wait[1] / 4).clamp(running, running.saturating_add(1)),
                call: record.call.to_owned(),
            })
            .collect()
    }

    /// The slots of all threads: entered, then left.
    fn slots(&self, memory: &impl Memory, start: u64, highest: u64) -> Vec<Slot> {
        let w = &self.words;
        if start == 0 {
            return Vec::new();
        }
        let size = w[44] as usize;
        let mut slots = Vec::new();
        // Page by page: what is beyond the last thread was never touched.
        let mut chunk = vec![0; size * 64];
        let mut again = vec![0; size * 64];
        for first in (0..highest).step_by(64) {
            let at = start.wrapping_add(first * w[44]);
            let got = memory.read_some(at, &mut chunk);
            let twice = memory.read_some(at, &mut again[..got]);
            for (entered, left) in
                chunk[..got.min(twice)].chunks_exact(size).zip(again.chunks_exact(size))
            {
                slots.push(self.slot(entered, left));
            }
        }
        slots.truncate(highest as usize);
        slots
    }

    fn slot(&self, entered: &[u8], left: &[u8]) -> Slot {
        let w = &self.words;
        let open = [0, 1].map(|rank| {
            let pair = rank * w[45];
            let open = word_in(entered, pair + w[46]).wrapping_sub(word_in(left, pair + w[47]));
            if open.cast_signed() > 0 { open } else { 0 }
        });
        Slot { open, called: word_in(entered, w[48]) }
    }

    #[allow(clippy::too_many_arguments, reason = "all that is known of a region")]
    fn readers(
        &self,
        memory: &impl Memory,
        region: &[u8],
        slots: &[Slot],
        rank: usize,
        records: &BTreeMap<u64, Record>,
        now: Option<u64>,
        readers: &mut Vec<OpenReader>,
    ) {
        let w = &self.words;
        let sites = word_in(region, w[58]);
        for (index, slot) in (0..).zip(slots).filter(|(_, slot)| slot.open[rank] != 0) {
            let record = records.get(&index);
            let entered = sites
                .checked_add(index * w[59] + w[60] + 8 * rank as u64)
                .filter(|_| sites != 0)
                .and_then(|at| memory.word(at))
                .filter(|since| *since != 0);
            readers.push(OpenReader {
                tid: record.map_or(0, |record| record.tid),
                name: record.map_or_else(String::new, |record| record.name.clone()),
                ended: record.is_some_and(|record| record.ended),
                sections: slot.open[rank],
                entered_ns: entered.zip(now).map_or(0, |(since, now)| now.saturating_sub(since)),
                probes: self.probes(memory, index),
                ..OpenReader::default()
            });
        }
        let of = |at: u64| {
            let end = at.saturating_add(w[44]).min(region.len() as u64);
            let slot = &region[(at.min(end) as usize)..(end as usize)];
            self.slot(slot, slot).open[rank]
        };
        for (at, owner) in [(w[23], None), (w[24], Some("(no name)".to_owned()))] {
            let sections = of(at);
            if sections != 0 {
                readers.push(OpenReader { owner, sections, ..OpenReader::default() });
            }
        }
        self.owners(memory, word_in(region, w[22]), rank, readers);
    }

    fn owners(&self, memory: &impl Memory, table: u64, rank: usize, readers: &mut Vec<OpenReader>) {
        let w = &self.words;
        let used = memory.word(table.wrapping_add(w[50])).filter(|_| table != 0).unwrap_or(0);
        for number in (0..w[53]).filter(|number| used & (1 << number) != 0) {
            let at = table.wrapping_add(w[51] + number * w[52]);
            let mut entry = vec![0; w[52] as usize];
            if !memory.read(at, &mut entry) {
                continue;
            }
            let shards = (0..w[57]).map(|shard| {
                let start = (w[56] + shard * w[44]) as usize;
                entry.get(start..start + w[44] as usize).unwrap_or_default()
            });
            // One may be entered on one shard and left on another.
            let sum = |place: u64| {
                let at = rank as u64 * w[45] + place;
                shards.clone().map(|shard| word_in(shard, at)).fold(0, u64::wrapping_add)
            };
            let open = sum(w[46]).wrapping_sub(sum(w[47]));
            if open.cast_signed() > 0 {
                let length = word_in(&entry, w[55]).saturating_sub(1);
                let name = self.text(memory, word_in(&entry, w[54]), length);
                let owner = Some(name);
                readers.push(OpenReader { owner, sections: open, ..OpenReader::default() });
            }
        }
    }

    /// Probes that a thread runs, where the program has told where that is.
    fn probes(&self, memory: &impl Memory, index: u64) -> Vec<RunningProbe> {
        let w = &self.words;
        let [slots, stride, ids, depth] = [w[80], w[81], w[82], w[83]];
        if slots == 0 || stride > 4096 || depth > 16 || ids > 4096 {
            return Vec::new();
        }
        let slot = slots.wrapping_add(index * stride + ids);
        let id = |place: u64| memory.word(slot.wrapping_add(8 * place)).filter(|id| *id != 0);
        (0..depth).rev().filter_map(id).map(|id| self.probe(memory, id)).collect()
    }

    fn probe(&self, memory: &impl Memory, id: u64) -> RunningProbe {
        let w = &self.words;
        let [table, size, count, text] = [w[84], w[85], w[86], w[87]];
        let mut entry = vec![0; size.min(4096) as usize];
        for number in 0..count.min(4096) {
            if table == 0 || !memory.read(table.wrapping_add(number.wrapping_mul(size)), &mut entry)
            {
                break;
            }
            let first = word_in(&entry, 0);
            if first != 0 && (first..first.saturating_add(word_in(&entry, 8))).contains(&id) {
                let text_at = |at: u64| {
                    let bytes = entry.iter().skip(at as usize).take(text.min(TEXT) as usize);
                    let bytes: Vec<u8> = bytes.copied().take_while(|b| *b != 0).collect();
                    String::from_utf8_lossy(&bytes).into_owned()
                };
                return RunningProbe {
                    name: text_at(16),
                    tracepoint: text_at(16 + text.min(TEXT)),
                };
            }
        }
        RunningProbe { name: format!("number {id}"), tracepoint: String::new() }
    }

    fn text(&self, memory: &impl Memory, at: u64, len: u64) -> String {
        let mut bytes = vec![0; len.min(TEXT) as usize];
        match at != 0 && memory.read(at, &mut bytes) {
            true => String::from_utf8_lossy(&bytes).into_owned(),
            false => String::new(),
        }
    }
}

/// Sections that one thread has open, per rank, and callbacks that it has queued, ever.
struct Slot {
    open: [u64; 2],
    called: u64,
}

fn word_in(bytes: &[u8], at: u64) -> u64 {
    let at = usize::try_from(at).unwrap_or(usize::MAX);
    let word = at.checked_add(8).and_then(|end| bytes.get(at..end));
    word.map_or(0, |word| u64::from_le_bytes(word.try_into().unwrap_or([0; 8])))
}

fn half_in(bytes: &[u8], at: u64) -> u32 {
    let at = usize::try_from(at).unwrap_or(usize::MAX);
    let half = at.checked_add(4).and_then(|end| bytes.get(at..end));
    half.map_or(0, |half| u32::from_le_bytes(half.try_into().unwrap_or([0; 4])))
}

#[cfg(test)]
mod tests;
