//! Programs without readers: a domain that nobody reads, and the blocks of callbacks alone.

use crate::blocks;
use crate::counters::RANKS;
use crate::door::sync;
use crate::grace::Readers;
use loom::thread;

/// Nobody reads.
pub(crate) struct Nobody;

impl Readers for Nobody {
    fn unlocks(&self) -> [u64; RANKS] {
        [0; RANKS]
    }

    fn locks(&self) -> [u64; RANKS] {
        [0; RANKS]
    }

    fn heavy_barrier(&self) -> bool {
        loom::sync::atomic::fence(loom::sync::atomic::Ordering::SeqCst);
        true
    }
}

/// The places of one block, run by two runners, while the thread that gave them out ends.
pub(crate) fn block_against_runners() {
    sync::ENDED.set(0);
    let memory: sync::Places = Default::default();
    sync::PLACES.set(Some(std::sync::Arc::clone(&memory)));
    let shelf = blocks::Shelf::new(std::ptr::null_mut());
    let runners = [0, 1].map(|_| {
        let (_, block) = blocks::give(&shelf).expect("memory");
        let (block, memory) = (block.as_ptr().expose_provenance(), memory.clone());
        thread::spawn(move || {
            let mut spent = blocks::Spent::NONE;
            memory.with(|_| ());
            let block = std::ptr::with_exposed_provenance_mut(block);
            // SAFETY: the place was given to this thread, which has used it and will not again.
            unsafe { spent.add(std::ptr::NonNull::new(block).expect("a block")) };
        })
    });
    blocks::clear(&shelf);
    for runner in runners {
        runner.join().expect("a runner");
    }
    assert_eq!(sync::ENDED.get(), 1, "freed once");
    sync::PLACES.set(None);
}
