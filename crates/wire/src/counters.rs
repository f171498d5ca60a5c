//! The memory of a session that counts: what a tool reads of it, also when the program has ended.
//!
//! For each event a head of 64 bytes, the event's id and that of its span's begin (u32 each, 0 where there is
//! none), and 16 lines of 64 bytes, between which threads spread their hits: of the first id and of the second (u64
//! each). A count is the sum of its lines.

use crate::control::Count;

/// Lines of each event. A power of two.
pub const LINES: usize = 16;
/// Bytes of a line, and of the head.
pub const LINE: usize = 64;
/// Bytes of an event.
pub const BLOCK: usize = LINE * (1 + LINES);

/// What has been counted so far: one for each id with hits. Any bytes are counts; a block that is cut is none.
///
/// ```
/// use gracepoint_wire::counters::{BLOCK, LINE, sum};
///
/// let mut memory = [0; BLOCK];
/// memory[0] = 16;
/// memory[LINE] = 3;
/// memory[5 * LINE] = 4;
/// let [count] = sum(&memory)[..] else { unreachable!("one has hits") };
/// assert_eq!((count.id, count.hits), (16, 7));
/// ```
#[must_use]
pub fn sum(memory: &[u8]) -> Vec<Count> {
    let (blocks, _) = memory.as_chunks::<BLOCK>();
    let of = |block: &[u8; BLOCK], nth: usize| {
        let id = block[nth * 4..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let lines = block[LINE..].chunks_exact(LINE);
        let hits = lines.filter_map(|line| line[nth * 8..].first_chunk());
        let hits = hits.map(|bytes| u64::from_le_bytes(*bytes)).fold(0, u64::wrapping_add);
        Count { id, hits }
    };
    let both = blocks.iter().flat_map(|block| [of(block, 0), of(block, 1)]);
    both.filter(|count| count.id != 0 && count.hits > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_id_has_the_sum_of_its_lines() {
        let mut memory = vec![0; 2 * BLOCK + LINE];
        memory[BLOCK..][..8].copy_from_slice(&[20, 0, 0, 0, 21, 0, 0, 0]);
        for line in 1..=LINES {
            memory[BLOCK + line * LINE] = 1;
            memory[BLOCK + line * LINE + 8] = 2;
        }
        // Of no id, and of a block that is not whole.
        memory[LINE] = 5;
        memory[2 * BLOCK] = 22;
        let lines = LINES as u64;
        let [first, second] = [(20, lines), (21, 2 * lines)].map(|(id, hits)| Count { id, hits });
        assert_eq!(sum(&memory), [first, second]);
        assert!(sum(&[0xff; BLOCK - 1]).is_empty());
    }
}
