//! What a session adds to its events: written before the event's own fields, as
//! `gracepoint_wire::schema::Context` says. Gathered before space is reserved; no allocation, no lock.
//!
//! # The stack
//! Frame pointers are followed from the frame of the event's probe outwards: each frame begins with
//! the address of the next one and the return address. The chain may be rubbish (code built without
//! frame pointers uses the register for something else), so nothing is read through it: the kernel
//! copies ([`sys::peek`]), and says so where there is nothing to copy. A frame must lie above the one
//! before, on 8 bytes; the chain ends where it does not, or after [`DEEPEST`] frames. Build with
//! `-C force-frame-pointers=yes`; without there is nothing to follow, and as a rule not one address
//! ([`has_frame_pointers`] tells).
//!
//! A function that begins or ends is at the top of its own stack ([`Top::Call`]): what lies below its place on the stack is
//! ours, and is left out. With a sled it has no frame at these moments, or not any more, so its address is
//! taken from the table, and its caller's from where its return address lies. With the attribute it is who called
//! the last frame of ours.

use crate::arch::local;
use crate::function::FunctionCall;
use crate::{ring, sys};
use gracepoint_wire::schema::Context;

/// Most return addresses.
pub(crate) const DEEPEST: usize = 32;
/// Bytes of a chunk of stack that is copied at once.
const CHUNK: usize = 512;
/// Bytes of the longest context: three numbers, a name of 15 bytes and a NUL, a sequence.
const LONGEST: usize = 12 + 16 + 6 + DEEPEST * 8;

/// What a stack begins with.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Top<'c> {
    /// With what leads from the event to here.
    Here,
    /// With a function that begins or ends. It lies at this address; 0 for one with the attribute.
    Call(&'c FunctionCall, u64),
}

/// A context as bytes.
pub(crate) struct Gathered {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Gathered {
    /// What `wanted` asks for, in its order.
    pub(crate) fn now(wanted: Context, pid: u32, top: Top<'_>) -> Gathered {
        let mut gathered = Gathered { bytes: [0; LONGEST], len: 0 };
        if wanted.has(Context::CPU) {
            gathered.push(&sys::cpu().to_le_bytes());
        }
        if wanted.has(Context::TID) || wanted.has(Context::NAME) {
            let owner = ring::owner(gracepoint_rcu::thread_index());
            if wanted.has(Context::TID) {
                gathered.push(&owner.tid.to_le_bytes());
            }
            gathered.push_later(wanted, pid, &owner.name, top);
        } else {
            gathered.push_later(wanted, pid, &[], top);
        }
        gathered
    }

    fn push_later(&mut self, wanted: Context, pid: u32, name: &[u8], top: Top<'_>) {
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
            let depth = stack(top, local::frame_pointer(), &mut frames, |at| copied.pair(at));
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

/// A stack with this top, as [`walk`] finds it from `frame` on.
fn stack(
    top: Top<'_>,
    frame: u64,
    into: &mut [u64],
    pair: impl FnMut(u64) -> Option<[u64; 2]>,
) -> usize {
    let mut chain = Chain { frame, pair };
    let Top::Call(call, address) = top else { return chain.collect(into, 0) };
    let place = call.frame() as u64;
    // Ours, up to the one that was called by the function, or by its trampoline.
    let mut called_from = 0;
    while chain.frame < place {
        let Some(address) = chain.next() else { break };
        called_from = address;
    }
    if chain.frame < place {
        chain.frame = 0; // the chain is rubbish: it does not lead to the call
        called_from = 0;
    }
    let mut depth = 0;
    let mut push = |address: u64| {
        into[depth] = address;
        depth += 1;
    };
    if address != 0 {
        // A place behind the first byte, as return addresses are.
        push(address + 1);
        if let Some([_, caller]) = (chain.pair)(place.wrapping_sub(8)) {
            push(caller);
        }
    } else if called_from != 0 {
        push(called_from);
    }
    chain.collect(into, depth)
}

/// Return addresses from the frame at `frame` outwards; `pair` reads two words at an address, if they are there.
#[inline]
pub(crate) fn walk(
    frame: u64,
    into: &mut [u64],
    pair: impl FnMut(u64) -> Option<[u64; 2]>,
) -> usize {
    Chain { frame, pair }.collect(into, 0)
}

/// Frames, as they lead from one to the next.
struct Chain<P> {
    /// The next one; 0 for none.
    frame: u64,
    pair: P,
}

impl<P: FnMut(u64) -> Option<[u64; 2]>> Chain<P> {
    /// The rest of them behind the first `depth` of `into`; how many there are then.
    #[inline]
    fn collect(mut self, into: &mut [u64], depth: usize) -> usize {
        for (at, place) in into.iter_mut().enumerate().skip(depth) {
            let Some(address) = self.next() else { return at };
            *place = address;
        }
        into.len()
    }

    /// The return address of the next frame.
    #[inline]
    fn next(&mut self) -> Option<u64> {
        let frame = self.frame;
        if frame == 0 || !frame.is_multiple_of(8) {
            return None;
        }
        let [next, address] = (self.pair)(frame)?;
        self.frame = if next > frame { next } else { 0 };
        (address != 0).then_some(address)
    }
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

/// Is this code built with frame pointers, and so, with the same flags, the program's? `None` where they are not followed.
pub(crate) fn has_frame_pointers() -> Option<bool> {
    #[inline(never)]
    fn inner(outer: *const u64) -> bool {
        let here = std::hint::black_box(0u64);
        let frame = local::frame_pointer();
        // Where it has a frame of its own, that lies between what it has on the stack and what its caller has.
        (&raw const here).addr() as u64 <= frame && frame < outer.addr() as u64
    }
    #[inline(never)]
    fn outer() -> bool {
        let here = std::hint::black_box(0u64);
        // Not the last thing it does, or `inner` would have its frame.
        std::hint::black_box(inner(&raw const here))
    }
    cfg!(target_arch = "x86_64").then(outer)
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

    /// What is told of a call at `place`, with frames of ours below.
    fn told(guard: usize, place: usize, address: u64, words: &[u64]) -> Vec<u64> {
        let call = FunctionCall { frame: place | guard, id: 1, depth: crate::function::NO_DEPTH };
        let mut frames = [0; DEEPEST];
        let mut copied = Copied::new([0; CHUNK], memory(0x1000, words));
        let top = Top::Call(&call, address);
        let depth = stack(top, 0x1000, &mut frames, |at| copied.pair(at));
        frames[..depth].to_vec()
    }

    #[test]
    fn a_function_is_the_top_of_its_stack() {
        // Two frames of ours, the function's return address (77) at 0x1028, and its caller's frame.
        let words = [0x1010, 1, 0x1030, 2, 0, 77, 0x1040, 33, 0, 44];
        assert_eq!(told(0, 0x1028, 500, &words), [501, 77, 33, 44]);
        // With the attribute the second one was called by the function, which has a frame.
        let words = [0x1010, 1, 0x1030, 22, 0, 0, 0x1040, 33, 0, 44];
        assert_eq!(told(crate::function::GUARD, 0x1028, 0, &words), [22, 33, 44]);
        // Without frame pointers it is all that is known, with its caller; or nothing.
        assert_eq!(told(0, 0x1028, 500, &[0, 1, 0, 0, 0, 77]), [501, 77]);
        assert_eq!(told(0, 0x1028, 500, &[0x1010, 1, 7, 0, 0, 77]), [501, 77]);
        assert!(told(crate::function::GUARD, 0x1028, 0, &[0x1010, 1, 0, 1, 0, 77]).is_empty());
        // As deep as it gets.
        let deep: Vec<u64> = (0..100).flat_map(|n| [0x1000 + (n + 1) * 16, n + 1]).collect();
        assert_eq!(told(0, 0x1018, 500, &deep).len(), DEEPEST);
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
