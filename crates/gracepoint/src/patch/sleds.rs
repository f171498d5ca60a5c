//! Switching sleds: functions that the compiler has prepared (`arch/trampoline_x86_64.rs` says how they look).
//!
//! A sled is 11 bytes, so no store changes it whole. But off and on differ in the first byte alone, once
//! the bytes behind it are written, and those are dead while the sled is off: the first instruction jumps over
//! them, or returns. So:
//!
//! 1. The dead bytes of sleds that are on for the first time are written. Barrier: whoever executes them after
//!    this fetches them as they are now.
//! 2. The first byte is written. One byte is the old one or the new one, for every processor and for every way of
//!    writing. Barrier.
//!
//! Off is step 2 alone. *The dead bytes are never written again*: a thread may be preempted between the push and the
//! call for as long as it likes, and when it goes on, the call must be there, and lead to the trampoline with the
//! number that was pushed. Both are constants of the sled: the function's id and one trampoline for all, whatever is to
//! happen there. (A runtime that writes another target into a sled that was on has this fault: the thread executes
//! the rest of one instruction and the beginning of another.)
//!
//! The barriers and the ways (`text`, `mem`) are those of sites; see `code.rs`. So is who writes: the holder of the
//! tracer's lock.

use super::code;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::{Relaxed, Release};

/// Bytes to be written.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    /// The object that they lie in.
    pub(crate) module: usize,
    pub(crate) at: usize,
    pub(crate) bytes: [u8; 9],
    pub(crate) len: usize,
}

impl Write {
    pub(crate) fn one(module: usize, at: usize, byte: u8) -> Write {
        Write { module, at, bytes: [byte, 0, 0, 0, 0, 0, 0, 0, 0], len: 1 }
    }

    fn wanted(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The two steps of a batch, each in order of address.
pub(crate) struct Batch {
    pub(crate) dead: Vec<Write>,
    pub(crate) first: Vec<Write>,
}

/// With stores, while the pages are writable.
///
/// # Errors
/// When pages may not become writable; then nothing has changed.
pub(super) fn through_text(batch: &Batch) -> io::Result<()> {
    // Both ends: dead bytes may cross into the next page.
    let ends = |write: &Write| [write.at, write.at + write.len - 1].map(|at| (at, write.module));
    let mut places: Vec<_> = batch.dead.iter().chain(&batch.first).flat_map(ends).collect();
    places.sort_unstable();
    let pages = code::pages(places.into_iter().map(|(at, module)| (module, at)));
    code::while_writable(&pages, || {
        store(&batch.dead);
        if !batch.dead.is_empty() {
            code::barrier().map_err(|error| io::Error::other(error.0))?;
        }
        store(&batch.first);
        Ok(())
    })
}

fn store(writes: &[Write]) {
    for write in writes {
        for (i, byte) in write.wanted().iter().enumerate() {
            // SAFETY: a byte of a sled, in text that the caller made writable and that stays mapped under the tracer's
            // lock; processors that execute it meanwhile are the top's concern.
            let place = unsafe { AtomicU8::from_ptr((write.at + i) as *mut u8) };
            // Release: operations that were published before are seen by who takes the call (x86 keeps stores in
            // order anyhow).
            place.store(*byte, Release);
        }
    }
}

/// With the kernel's writes.
///
/// # Errors
/// When the kernel does not write; then some sleds may have changed, each whole.
pub(super) fn through_mem(batch: &Batch) -> io::Result<()> {
    let memory = code::memory()?;
    write(&memory, &batch.dead)?;
    if !batch.dead.is_empty() {
        code::barrier().map_err(|error| io::Error::other(error.0))?;
    }
    write(&memory, &batch.first)
}

/// Bytes between sleds that are written again as they are, to save system calls.
const NEAR: usize = 64;

fn write(memory: &std::fs::File, writes: &[Write]) -> io::Result<()> {
    for run in writes.chunk_by(|a, b| b.at - a.at < NEAR) {
        let (first, last) = (run[0].at, &run[run.len() - 1]);
        // SAFETY: text of one object between two of its sleds, which is mapped and readable.
        let now = |at: usize| unsafe { AtomicU8::from_ptr(at as *mut u8) }.load(Relaxed);
        let mut bytes: Vec<u8> = (first..last.at + last.len).map(now).collect();
        for write in run {
            bytes[write.at - first..][..write.len].copy_from_slice(write.wanted());
        }
        memory.write_all_at(&bytes, first as u64)?;
    }
    Ok(())
}
