//! The store: a few locked shards, each bounded, oldest value out first.
//!
//! It has one flaw on purpose, of the kind that tracepoints are for: tidying a shard up holds its
//! lock, so that now and then a lookup takes a thousand times longer than the others.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use hyper::body::Bytes;

use crate::events::{Compact, Delete, Evict, Get, Put};

const SHARDS: usize = 4;
/// Values in a shard.
const CAPACITY: usize = 2_000;

/// Keys and values, for any number of threads.
pub(crate) struct Store {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
}

#[derive(Default)]
struct Shard {
    entries: HashMap<String, Entry>,
    /// Keys in the order of their arrival. A removed key stays here until the shard is tidied up
    /// or the key's turn comes.
    arrivals: VecDeque<String>,
}

struct Entry {
    value: Bytes,
    checksum: u32,
    since: Instant,
}

impl Store {
    pub(crate) fn new() -> Store {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Store { shards, hasher: RandomState::new() }
    }

    pub(crate) fn get(&self, key: &str) -> Option<Bytes> {
        let begin = Instant::now();
        let value = self.lock(self.shard_of(key)).entries.get(key).map(|e| e.value.clone());
        gracepoint::trace!(Get { key, hit: value.is_some(), latency: begin.elapsed() });
        value
    }

    pub(crate) fn put(&self, key: &str, value: Bytes) {
        let begin = Instant::now();
        let bytes = value.len() as u32;
        let number = self.shard_of(key);
        let entry = Entry { checksum: checksum(&value), value, since: begin };
        let mut shard = self.lock(number);
        let replaced = shard.entries.insert(key.to_owned(), entry).is_some();
        if !replaced {
            shard.arrivals.push_back(key.to_owned());
        }
        while shard.entries.len() > CAPACITY {
            let Some(oldest) = shard.arrivals.pop_front() else { break };
            if let Some(entry) = shard.entries.remove(&oldest) {
                let (key, age) = (oldest.as_str(), entry.since.elapsed());
                gracepoint::trace!(Evict { key, shard: number as u16, age });
            }
        }
        drop(shard);
        gracepoint::trace!(Put { key, bytes, replaced, latency: begin.elapsed() });
    }

    pub(crate) fn delete(&self, key: &str) -> bool {
        let found = self.lock(self.shard_of(key)).entries.remove(key).is_some();
        gracepoint::trace!(Delete { key, found });
        found
    }

    /// Tidies one shard up: forgets the arrivals of removed keys, and verifies every value.
    /// Returns how many values are damaged.
    pub(crate) fn compact(&self, turn: usize) -> usize {
        let number = turn % SHARDS;
        let mut guard = self.lock(number);
        let shard = &mut *guard;
        let entries = shard.entries.len() as u32;
        let _span = gracepoint::span!(Compact { shard: number as u16, entries });
        shard.arrivals.retain(|key| shard.entries.contains_key(key));
        shard.entries.values().filter(|e| checksum(&e.value) != e.checksum).count()
    }

    fn shard_of(&self, key: &str) -> usize {
        self.hasher.hash_one(key) as usize % SHARDS
    }

    /// A thread that panicked left the shard as usable as before: each change is one insertion or
    /// removal.
    fn lock(&self, shard: usize) -> MutexGuard<'_, Shard> {
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// FNV-1a: slow enough to be seen, which is what it is here for.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum, &b| (sum ^ u32::from(b)).wrapping_mul(0x0100_0193))
}

#[test]
fn the_oldest_value_goes_first() {
    let store = Store::new();
    for i in 0..SHARDS * CAPACITY * 2 {
        store.put(&i.to_string(), Bytes::from_static(b"v"));
    }
    let last = (SHARDS * CAPACITY * 2 - 1).to_string();
    assert_eq!(store.get("0"), None);
    assert_eq!(store.get(&last).as_deref(), Some(b"v".as_slice()));
    assert!(store.delete(&last) && !store.delete(&last));
    assert_eq!(store.compact(0), 0);
}
