//! A hash table that is read without a lock and only ever grows: of call sites, of which there are as
//! many as the program has, and which stay.
//!
//! Readers look into the newest of a row of tables, each twice as large as the one before. An entry is
//! written once, by whoever holds the writers' lock, and a table is made whole before it is the newest. A
//! reader that finds nothing may have looked too early, and asks under the lock.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Entries of the first table.
const FIRST: usize = 1024;
/// Tables; the last one has 2³¹ entries.
const TABLES: usize = 22;

type Entries<T> = Box<[OnceLock<(u64, &'static T)>]>;

pub(crate) struct Table<T: 'static> {
    tables: [OnceLock<Entries<T>>; TABLES],
    newest: AtomicUsize,
    /// Entries so far. Its holder alone writes.
    count: Mutex<usize>,
}

impl<T: Sync> Table<T> {
    pub(crate) const fn new() -> Table<T> {
        Table {
            tables: [const { OnceLock::new() }; TABLES],
            newest: AtomicUsize::new(0),
            count: Mutex::new(0),
        }
    }

    /// The entry with this hash that `is` accepts.
    #[inline]
    pub(crate) fn find(&self, hash: u64, is: impl Fn(&'static T) -> bool) -> Option<&'static T> {
        // Acquire pairs with the release in `grow`: the newest table is whole.
        let entries = self.tables[self.newest.load(Acquire)].get()?;
        let mask = entries.len() - 1;
        let mut at = spread(hash) as usize & mask;
        loop {
            let (known, entry) = *entries[at].get()?;
            if known == hash && is(entry) {
                return Some(entry);
            }
            at = (at + 1) & mask;
        }
    }

    /// The entry with this hash that `is` accepts, or what `make` makes, from now on. `make` runs under the
    /// lock, once for each entry.
    pub(crate) fn find_or_make(
        &self,
        hash: u64,
        is: impl Fn(&'static T) -> bool + Copy,
        make: impl FnOnce() -> &'static T,
    ) -> &'static T {
        if let Some(entry) = self.find(hash, is) {
            return entry;
        }
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = self.find(hash, is) {
            return entry;
        }
        let mut newest = self.newest.load(Acquire);
        let entries = self.tables[newest].get_or_init(|| empty(FIRST << newest));
        if *count * 2 >= entries.len() && newest + 1 < TABLES {
            newest += 1;
            self.grow(newest);
        }
        let entry = make();
        let entries = self.tables[newest].get_or_init(|| empty(FIRST << newest));
        put(entries, hash, entry);
        *count += 1;
        entry
    }

    /// Makes the next table.
    fn grow(&self, newest: usize) {
        let larger = empty(FIRST << newest);
        let old = self.tables[newest - 1].get().into_iter().flatten();
        for (hash, entry) in old.filter_map(OnceLock::get) {
            put(&larger, *hash, *entry);
        }
        let _first = self.tables[newest].set(larger);
        self.newest.store(newest, Release); // pairs with the load in `find`
    }
}

fn empty<T>(entries: usize) -> Entries<T> {
    (0..entries).map(|_| OnceLock::new()).collect()
}

/// There is room: at most half of the entries are used.
fn put<T: Sync>(entries: &[OnceLock<(u64, &'static T)>], hash: u64, entry: &'static T) {
    let mask = entries.len() - 1;
    let mut at = spread(hash) as usize & mask;
    while entries[at].set((hash, entry)).is_err() {
        at = (at + 1) & mask;
    }
}

/// Makes addresses differ in their low bits.
fn spread(hash: u64) -> u64 {
    hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_gets_the_same_entry_while_it_grows() {
        static TABLE: Table<u64> = Table::new();
        let get = |n: u64| {
            // Few hashes, so that entries collide.
            TABLE.find_or_make(n % 1000, |known| *known == n, || Box::leak(Box::new(n)))
        };
        let addresses = || (0..4000).map(|n| std::ptr::from_ref(get(n)).addr()).collect::<Vec<_>>();
        let all: Vec<Vec<usize>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(addresses)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
        assert_eq!(TABLE.find(7, |known| *known == 1007).copied(), Some(1007));
        assert_eq!(TABLE.find(7, |known| *known == 8), None);
    }
}
