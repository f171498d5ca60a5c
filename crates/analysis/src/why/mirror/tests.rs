//! Pages that are consistent are followed; whatever else memory holds, reading ends and says little.

use super::*;

/// Memory from address 0x1000 on.
struct Bytes(Vec<u8>, Vec<Mapping>);

const START: u64 = 0x1000;
const GLOBALS: u64 = START + PAGE;
const REGION: u64 = START + 2 * PAGE;
const RECORDS: u64 = START + 3 * PAGE;
const SLOTS: u64 = START + 4 * PAGE;
const TEXTS: u64 = START + 5 * PAGE;

impl Memory for Bytes {
    fn read_some(&self, address: u64, into: &mut [u8]) -> usize {
        let at = usize::try_from(address.wrapping_sub(START)).unwrap_or(usize::MAX);
        let from = self.0.get(at..).unwrap_or_default();
        let len = from.len().min(into.len());
        into[..len].copy_from_slice(&from[..len]);
        len
    }

    fn mappings(&self) -> &[Mapping] {
        &self.1
    }

    fn now(&self) -> Option<u64> {
        Some(5_000_000_000)
    }
}

impl Bytes {
    fn new() -> Bytes {
        let size = 6 * PAGE;
        let mapping =
            Mapping { start: START, end: START + size, writable: true, ..Mapping::default() };
        Bytes(vec![0; size as usize], vec![mapping])
    }

    fn put(&mut self, address: u64, value: u64) {
        let at = (address - START) as usize;
        self.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    fn set(&mut self, number: u64, value: u64) {
        self.put(START + 8 * number, value);
    }
}

/// The page: which word, and what it says.
#[rustfmt::skip]
const LAYOUT: &[(u64, u64)] = &[
    (2, 1), (3, START), (4, 12), (5, OWN), (6, GLOBALS), (7, GLOBALS + 8), (8, GLOBALS + 16),
    (9, GLOBALS + 24), (10, 64), (11, 128), (13, 4), (14, 8), (15, 24), (16, 32), (17, 40),
    (18, 48), (20, 8), (21, 16), (22, 24), (23, 512), (24, 576), (25, 32), (26, 40), (27, 48),
    (28, 56), (29, 64), (30, 72), (31, 80), (32, 88), (33, 96), (34, 104), (35, 112), (36, 120),
    (37, 128), (38, 136), (39, 144), (40, 152), (41, 160), (42, 168), (43, 176), (44, 64),
    (45, 16), (47, 8), (48, 32), (50, 0), (51, 64), (52, 512), (53, 64), (55, 8), (56, 64),
    (57, 4), (58, 184), (59, 64), (60, 16), (61, 1024),
];

/// A program with one domain, in whose grace period 7 thread 42 has a section open.
fn program() -> Bytes {
    let mut memory = Bytes::new();
    memory.0[..16].copy_from_slice(&MAGIC);
    LAYOUT.iter().for_each(|(number, value)| memory.set(*number, *value));
    memory.put(GLOBALS, REGION);
    memory.put(GLOBALS + 16, RECORDS);
    memory.put(GLOBALS + 24, 2);
    for (offset, value) in [
        (8, 1),
        (16, SLOTS),
        (32, 6 * 4 + 1),
        (40, 7),
        (48, 16),
        (56, TEXTS),
        (64, 6),
        (72, 7),
        (80, 2_000_000_000),
    ] {
        memory.put(REGION + offset, value);
    }
    let name = (TEXTS - START) as usize;
    memory.0[name..name + 6].copy_from_slice(b"routes");
    // Version 1: alive. Thread 42 reads, thread 43 waits.
    memory.put(RECORDS, 1 | 42 << 32);
    memory.put(RECORDS + 8, u64::from_le_bytes(*b"worker\0\0"));
    memory.put(RECORDS + 128, 1 | 43 << 32);
    memory.put(RECORDS + 128 + 24, REGION);
    memory.put(RECORDS + 128 + 32, 7 * 4);
    memory.put(RECORDS + 128 + 40, 3_000_000_000);
    memory.put(SLOTS, 9);
    memory.put(SLOTS + 8, 7);
    memory
}

#[test]
fn a_consistent_page_is_followed() {
    let stuck = read(&program(), Some(12)).expect("it is consistent");
    let [domain] = &stuck.domains[..] else { panic!("{stuck:?}") };
    assert_eq!((domain.name.as_str(), domain.ended), ("routes", 6));
    let running = domain.running.expect("it runs");
    assert_eq!((running.number, running.phase, running.age_ns), (7, 2, 3_000_000_000));
    assert_eq!((domain.readers.len(), domain.waiters.len()), (1, 1));
    let reader = &domain.readers[0];
    assert_eq!((reader.tid, reader.name.as_str(), reader.sections), (42, "worker", 2));
    let waiter = &domain.waiters[0];
    assert_eq!((waiter.tid, waiter.number, waiter.waited_ns), (43, 7, 2_000_000_000));
}

#[test]
fn copies_parents_and_other_versions_are_not_believed() {
    let refused = |change: fn(&mut Bytes)| {
        let mut memory = program();
        change(&mut memory);
        read(&memory, Some(12)).expect_err("it is not this program's page")
    };
    assert!(refused(|memory| memory.set(3, 0x9000)).contains("a copy"));
    assert!(refused(|memory| memory.set(4, 11)).contains("its parent"));
    assert!(refused(|memory| memory.set(2, 2)).contains("version 2"));
    assert!(refused(|memory| memory.set(61, 1 << 40)).contains("does not make sense"));
    assert!(refused(|memory| memory.set(52, 16)).contains("does not make sense"));
    assert!(refused(|memory| memory.0.fill(0)).contains("no page"));
}

/// The call in which a thread waits: a page of the version before has no word for it, and a later one may have calls
/// that nobody here knows.
#[test]
fn the_call_that_waits_is_told_where_the_page_says_so() {
    let told = |words: u64, number: u64| {
        let mut memory = program();
        memory.set(5, words);
        memory.set(62, 56);
        memory.put(RECORDS + 128 + 56, number);
        let stuck = read(&memory, Some(12)).expect("it is consistent");
        (stuck.domains[0].waiters[0].call.clone(), stuck.domains[0].waiters[0].for_callbacks)
    };
    assert_eq!(told(OWN + 1, 5), ("detach_wait".to_owned(), false));
    assert_eq!(told(OWN + 1, 1).0, "synchronize");
    for (words, number) in [(OWN, 5), (OWN + 1, 0), (OWN + 1, 8), (OWN + 1, u64::MAX)] {
        assert_eq!(told(words, number).0, "", "{words} words, call {number}");
    }
    let mut memory = program();
    memory.set(5, OWN + 1);
    memory.set(62, 128);
    assert!(read(&memory, Some(12)).expect_err("outside of the record").contains("make sense"));
}

/// Each word of the page, and each word that it leads to, made impossible in several ways: reading ends, and
/// what it takes is bounded.
#[test]
fn whatever_the_memory_holds_reading_ends() {
    let good = program().0;
    let words = (0..).zip(good.chunks_exact(8));
    // What is 0 behind the page leads nowhere.
    let words = words.filter(|(number, word)| *number < 96 || word.iter().any(|byte| *byte != 0));
    for (number, _) in words {
        for value in [0, 1, 7, 63, 4096, u64::MAX, 1 << 63, START, REGION, u64::MAX - 7] {
            let mut memory = program();
            memory.set(number, value);
            if let Ok(stuck) = read(&memory, None) {
                assert!(stuck.domains.len() <= DOMAINS);
                let readers =
                    stuck.domains.iter().map(|domain| domain.readers.len()).sum::<usize>();
                assert!(readers <= 2 * DOMAINS * (64 + 66), "word {number}, value {value:#x}");
            }
        }
    }
}

/// A list of regions that goes round is left after a while.
#[test]
fn a_list_that_goes_round_ends() {
    let mut memory = program();
    memory.put(REGION, REGION);
    let stuck = read(&memory, None).expect("it is consistent");
    assert_eq!(stuck.domains.len(), DOMAINS);
}
