//! What a session adds to its events: written before the event's own fields, as
//! `gracepoint_wire::schema::Context` says. Gathered before space is reserved; no allocation, no lock.
//!
//! # The stack
//! Frame pointers are followed from the frame of the event's probe outwards: each frame begins with
//! the address of the next one and the return address. The chain may be rubbish (code built without
//! frame pointers uses the register for something else), so nothing is read through it: the kernel
//! copies ([`sys::peek`]), and says so where there is nothing to copy. A frame must lie above the one
//! before, on 8 bytes; the chain ends where it does not, or after [`DEEPEST`] frames. Build with
//! `-C force-frame-pointers=yes`; without there is nothing to follow, and as a rule not one address.

use crate::arch::local;
use crate::{ring, sys};
use gracepoint_wire::schema::Context;

/// Most return addresses.
pub(crate) const DEEPEST: usize = 32;
/// Bytes of a chunk of stack that is copied at once.
const CHUNK: usize = 512;
/// Bytes of the longest context: three numbers, a name of 15 bytes and a NUL, a sequence.
const LONGEST: usize = 12 + 16 + 6 + DEEPEST * 8;

/// A context as bytes.
pub(crate) struct Gathered {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Gathered {
    /// What `wanted` asks for, in its order.
    pub(crate) fn now(wanted: Context, pid: u32) -> Gathered {
        let mut gathered = Gathered { bytes: [0; LONGEST], len: 0 };
        if wanted.has(Context::CPU) {
            gathered.push(&sys::cpu().to_le_bytes());
        }
        if wanted.has(Context::TID) || wanted.has(Context::NAME) {
            let owner = ring::owner(gracepoint_rcu::thread_index());
            if wanted.has(Context::TID) {
                gathered.push(&owner.tid.to_le_bytes());
            }
            gathered.push_later(wanted, pid, &owner.name);
        } else {
            gathered.push_later(wanted, pid, &[]);
        }
        gathered
    }

    fn push_later(&mut self, wanted: Context, pid: u32, name: &[u8]) {
        if wanted.has(Context::PID) {
            self.push(&pid.to_le_bytes());
        }
        if wanted.has(Context::NAME) {
            let end = name.iter().position(|&b| b == 0).unwrap_or(name.len()).min(15);
            self.push(&name[..end]);
            self.push(&[0]);
        }
        if wanted.has(Context::STACK) {
            let mut frames = [0; DEEPEST];
            let mut copied = Copied::new([0; CHUNK], sys::peek);
            let depth = walk(local::frame_pointer(), &mut frames, |at| copied.pair(at));
            self.push(&(depth as u32).to_le_bytes());
            self.push(&(depth as u16).to_le_bytes());
            for frame in &frames[..depth] {
                self.push(&frame.to_le_bytes());
            }
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Return addresses from the frame at `frame` outwards; `pair` reads two words at an address, if they are there.
#[inline]
pub(crate) fn walk(
    mut frame: u64,
    into: &mut [u64],
    mut pair: impl FnMut(u64) -> Option<[u64; 2]>,
) -> usize {
    let most = into.len();
    for (depth, place) in into.iter_mut().enumerate() {
        if frame == 0 || !frame.is_multiple_of(8) {
            return depth;
        }
        let Some([next, address]) = pair(frame) else { return depth };
        if address == 0 {
            return depth;
        }
        *place = address;
        if next <= frame {
            return depth + 1;
        }
        frame = next;
    }
    most
}

/// Memory that may not be there, read in chunks by somebody who knows: `peek` copies what is at an address and says how much of it
/// there was.
pub(crate) struct Copied<Chunk, Peek> {
    chunk: Chunk,
    start: u64,
    length: u64,
    peek: Peek,
}

impl<Chunk: AsMut<[u8]>, Peek: Fn(u64, &mut [u8]) -> usize> Copied<Chunk, Peek> {
    pub(crate) fn new(chunk: Chunk, peek: Peek) -> Copied<Chunk, Peek> {
        Copied { chunk, start: 0, length: 0, peek }
    }

    /// Two words, if both are there.
    pub(crate) fn pair(&mut self, at: u64) -> Option<[u64; 2]> {
        let chunk = self.chunk.as_mut();
        if at > u64::MAX - 2 * chunk.len() as u64 {
            return None;
        }
        if at < self.start || at + 16 > self.start + self.length {
            (self.start, self.length) = (at, (self.peek)(at, chunk) as u64);
            if self.length < 16 {
                return None;
            }
        }
        let words = &chunk[(at - self.start) as usize..];
        let word =
            |at: usize| words[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        Some([word(0), word(8)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory from `base` on.
    fn memory(base: u64, words: &[u64]) -> impl Fn(u64, &mut [u8]) -> usize {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        move |at, into| {
            let Some(from) = at.checked_sub(base).map(|n| n as usize) else { return 0 };
            let n = bytes.len().saturating_sub(from).min(into.len());
            into[..n].copy_from_slice(&bytes[from.min(bytes.len())..][..n]);
            n
        }
    }

    fn walked(frame: u64, words: &[u64]) -> Vec<u64> {
        let mut frames = [0; DEEPEST];
        let mut copied = Copied::new([0; CHUNK], memory(0x1000, words));
        let depth = walk(frame, &mut frames, |at| copied.pair(at));
        frames[..depth].to_vec()
    }

    #[test]
    fn chains_are_followed_and_rubbish_ends_them() {
        assert_eq!(walked(0x1000, &[0x1010, 11, 0x1020, 22, 0, 33]), [11, 22, 33]);
        assert_eq!(walked(0x1000, &[0x1000, 11]), [11], "a circle");
        assert_eq!(walked(0x1010, &[0, 0, 0x1000, 11]), [11], "downwards");
        assert_eq!(walked(0x1000, &[0x1009, 11]), [11], "between words");
        assert_eq!(walked(0x1000, &[0x9000, 11]), [11], "where nothing is");
        assert_eq!(walked(0x1000, &[u64::MAX - 7, 11]), [11], "at the end of everything");
        assert!(walked(0, &[1, 1]).is_empty(), "no frame");
        let deep: Vec<u64> = (0..100).flat_map(|n| [0x1000 + (n + 1) * 16, n + 1]).collect();
        assert_eq!(walked(0x1000, &deep), (1..=DEEPEST as u64).collect::<Vec<_>>());
    }

    #[test]
    fn the_kernel_copies_what_there_is_and_no_more() {
        let here = 0x1234_5678_u64;
        let mut bytes = [0; 8];
        assert_eq!(sys::peek((&raw const here).addr() as u64, &mut bytes), 8);
        assert_eq!(u64::from_le_bytes(bytes), here);
        assert_eq!(sys::peek(8, &mut bytes), 0);
        assert_eq!(sys::peek(u64::MAX - 100, &mut bytes), 0);
    }
}
