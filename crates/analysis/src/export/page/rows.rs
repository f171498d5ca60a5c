//! What lies on one row of the page, and its levels of detail.
//!
//! A viewer that draws a million items on a thousand pixels must look at a thousand things. So each row
//! comes in levels: level 0 is its items as they are; in a level of width `w` those shorter than `w` that
//! begin within `w` of each other are one block, which says how many there are and of which kind most is.
//! A row has at most two blocks per `w` of its length. A page takes the coarsest level whose width is not
//! more than a pixel.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Length of what has no end.
pub(super) const OPEN: u64 = u64::MAX;
/// Width of level 1, in nanoseconds; each further one is four times as wide.
pub(super) const FINEST: u64 = 1 << 10;
/// Rows on which what has tracks of its own is packed.
const MOST_ROWS: usize = 64;
/// Rows of one inside the other on a thread.
const MOST_DEPTH: usize = 128;
/// A row of so few items has no levels.
pub(super) const FEW: usize = 256;

/// A slice, or with a length of 0 a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Item {
    /// Nanoseconds since the beginning of the page.
    pub(super) begin: u64,
    /// Nanoseconds, or [`OPEN`].
    pub(super) len: u64,
    /// Position among the kinds.
    pub(super) kind: u32,
    /// Which of the written details are its own.
    pub(super) detail: u32,
}

impl Item {
    fn end(&self) -> u64 {
        self.begin.saturating_add(self.len)
    }
}

/// What is drawn as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block {
    item: Item,
    /// How many it stands for.
    count: u64,
    /// Nanoseconds (of moments: how many) that the item's kind has in it.
    weight: u64,
}

/// Distributes what is well nested over rows, the outermost first.
pub(super) fn nest(mut items: Vec<Item>) -> Vec<Vec<Item>> {
    items.sort_unstable_by_key(|item| (item.begin, Reverse(item.len), item.detail));
    let mut rows: Vec<Vec<Item>> = Vec::new();
    let mut ends: Vec<u64> = Vec::new();
    for item in items {
        while ends.last().is_some_and(|&end| end <= item.begin) {
            ends.pop();
        }
        put(&mut rows, ends.len().min(MOST_DEPTH - 1), item);
        ends.push(item.end());
    }
    rows
}

/// Distributes what overlaps anyhow over as few rows as it takes; where those are too many, what is
/// left lies on the last one.
pub(super) fn pack(mut items: Vec<Item>) -> Vec<Vec<Item>> {
    items.sort_unstable_by_key(|item| (item.begin, item.detail));
    let mut rows: Vec<Vec<Item>> = Vec::new();
    let mut free: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    for item in items {
        let row = match free.peek() {
            Some(&Reverse((end, row))) if end <= item.begin || rows.len() == MOST_ROWS => {
                free.pop();
                row
            }
            _ => rows.len(),
        };
        put(&mut rows, row, item);
        free.push(Reverse((item.end(), row)));
    }
    rows
}

fn put(rows: &mut Vec<Vec<Item>>, row: usize, item: Item) {
    if rows.len() <= row {
        rows.resize_with(row + 1, Vec::new);
    }
    rows[row].push(item);
}

/// A row at one width, as the page reads it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Level {
    /// Nanoseconds; 0 for the items as they are.
    pub(super) width: u64,
    /// How many blocks.
    pub(super) blocks: usize,
    pub(super) bytes: Vec<u8>,
}

/// All levels of a row, the finest first; a level that does not halve the one before is left out.
pub(super) fn levels(items: &[Item], total_ns: u64) -> Vec<Level> {
    let weight = |item: &Item| if item.len == 0 { 1 } else { item.len };
    let mut blocks: Vec<Block> =
        items.iter().map(|item| Block { item: *item, count: 1, weight: weight(item) }).collect();
    let mut levels = vec![encode(&blocks, 0)];
    let mut width = FINEST;
    while blocks.len() > FEW && width < total_ns {
        let wider = merge(&blocks, width);
        if wider.len() <= levels.last().map_or(0, |level| level.blocks) / 2 {
            levels.push(encode(&wider, width));
        }
        blocks = wider;
        width *= 4;
    }
    levels
}

/// The blocks of the next wider level.
fn merge(blocks: &[Block], width: u64) -> Vec<Block> {
    let mut out: Vec<Block> = Vec::with_capacity(blocks.len() / 2);
    // By kind, what is in the last block of `out`.
    let mut weights: Vec<(u32, u64)> = Vec::new();
    for block in blocks {
        let small = block.item.len < width;
        match out.last_mut() {
            Some(last)
                if small && last.item.len < width && block.item.begin - last.item.begin < width =>
            {
                last.count += block.count;
                last.item.len = last.item.len.max(block.item.end() - last.item.begin);
                add(&mut weights, block);
                let most = weights.iter().max_by_key(|(_, weight)| *weight);
                (last.item.kind, last.weight) = most.copied().unwrap_or((block.item.kind, 0));
            }
            _ => {
                weights.clear();
                add(&mut weights, block);
                out.push(*block);
            }
        }
    }
    out
}

fn add(weights: &mut Vec<(u32, u64)>, block: &Block) {
    match weights.iter_mut().find(|(kind, _)| *kind == block.item.kind) {
        Some((_, weight)) => *weight = weight.saturating_add(block.weight),
        None => weights.push((block.item.kind, block.weight)),
    }
}

/// For each block: begin since the one before, length and one (0: it has no end), kind; in levels above
/// 0 how many there are; which details, if it is one item, since those of the one before.
fn encode(blocks: &[Block], width: u64) -> Level {
    let mut bytes = Vec::with_capacity(blocks.len() * 6);
    let (mut begin, mut detail) = (0, 0);
    for block in blocks {
        let item = &block.item;
        push(item.begin - begin, &mut bytes);
        push(item.len.wrapping_add(1), &mut bytes);
        push(u64::from(item.kind), &mut bytes);
        if width > 0 {
            push(block.count, &mut bytes);
        }
        if block.count == 1 {
            push_signed(i64::from(item.detail) - detail, &mut bytes);
            detail = i64::from(item.detail);
        }
        begin = item.begin;
    }
    Level { width, blocks: blocks.len(), bytes }
}

/// Seven bits a byte, the lowest first; all but the last have the highest bit set.
pub(super) fn push(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn push_signed(n: i64, out: &mut Vec<u8>) {
    push(((n << 1) ^ (n >> 63)) as u64, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(begin: u64, len: u64, kind: u32) -> Item {
        Item { begin, len, kind, detail: begin as u32 }
    }

    #[test]
    fn nested_items_lie_below_what_is_around_them() {
        let rows = nest(vec![item(5, 2, 1), item(0, 10, 0), item(5, 5, 2), item(10, OPEN, 3)]);
        assert_eq!(
            rows,
            [vec![item(0, 10, 0), item(10, OPEN, 3)], vec![item(5, 5, 2)], vec![item(5, 2, 1)]]
        );
    }

    #[test]
    fn overlapping_items_take_as_many_rows_as_overlap() {
        let rows = pack(vec![item(0, 10, 0), item(5, 10, 0), item(10, 10, 0), item(15, OPEN, 0)]);
        assert_eq!(
            rows,
            [vec![item(0, 10, 0), item(10, 10, 0)], vec![item(5, 10, 0), item(15, OPEN, 0)]]
        );
        let many = pack((0..100).map(|at| item(at, OPEN, 0)).collect());
        assert_eq!((many.len(), many.iter().map(Vec::len).sum::<usize>()), (MOST_ROWS, 100));
    }

    #[test]
    fn each_level_holds_everything_in_a_bounded_number_of_blocks() {
        // 20,000 items of some microseconds, one in a hundred of some milliseconds.
        let len = |at: u64| if at.is_multiple_of(100) { 3_000_000 } else { 1 + at % 7000 };
        let mut begin = 0;
        let items: Vec<Item> = (0..20_000)
            .map(|at| {
                let item = item(begin, len(at), (at % 3) as u32);
                begin = item.end() + at % 11;
                item
            })
            .collect();
        let levels = levels(&items, begin);
        assert_eq!((levels[0].width, levels[0].blocks), (0, items.len()));
        assert!(levels.len() > 4, "{}", levels.len());
        for level in &levels[1..] {
            assert!(level.blocks as u64 <= 2 * (begin / level.width + 1), "width {}", level.width);
        }
        let mut blocks: Vec<Block> =
            items.iter().map(|i| Block { item: *i, count: 1, weight: i.len }).collect();
        for width in [1 << 10, 1 << 12, 1 << 14] {
            blocks = merge(&blocks, width);
            assert_eq!(blocks.iter().map(|block| block.count).sum::<u64>(), 20_000);
            assert!(blocks.is_sorted_by_key(|block| block.item.begin));
            let long = blocks.iter().filter(|b| b.item.len >= 3_000_000 && b.count == 1);
            assert_eq!(long.count(), 200, "what is longer than a block stays as it is");
        }
    }

    #[test]
    fn a_block_is_of_the_kind_that_takes_most_of_it() {
        let one = |begin, len, kind| Block { item: item(begin, len, kind), count: 1, weight: len };
        let merged = merge(&[one(0, 10, 1), one(20, 300, 2), one(400, 20, 1)], 1000);
        assert_eq!((merged.len(), merged[0].item.kind, merged[0].count), (1, 2, 3));
        assert_eq!((merged[0].item.begin, merged[0].item.len), (0, 420));
    }
}
