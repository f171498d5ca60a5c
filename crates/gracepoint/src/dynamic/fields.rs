//! The values of a hit, encoded on its stack before space in a ring is reserved: each a tag and the value
//! (`gracepoint_wire::schema::Type::Any`).
//!
//! Invariant **FILLED**: the first `at` bytes of the room are initialised and are the values of the fields
//! `0..next`, one after the other; `at + (count - next) <= SIZE`, so there is always room to say of each
//! field left that it is nothing. A value for a field that comes before `next` replaces what is there.

use crate::field::{Field, Text};
use gracepoint_wire::schema::Tag;
use std::fmt;
use std::mem::MaybeUninit;

/// Bytes of all values of a hit; texts are cut so that they fit.
const SIZE: usize = 2048;
/// Longest text.
const LONGEST: usize = Text::CAPACITY;
/// Shortest text that is worth recording: `…` alone has three bytes.
const SHORTEST: usize = 4;

/// Memory for the values of a hit.
pub(super) struct Room([MaybeUninit<u8>; SIZE]);

/// Takes the values of a hit, by the position of their fields in the declaration; see
/// [`Point::event`](super::Point::event). Positions beyond the last field are ignored. Texts are cut at
/// 1 KiB, and all values of a hit together at 2 KiB.
pub struct Fields<'r> {
    room: &'r mut [MaybeUninit<u8>; SIZE],
    at: usize,
    next: usize,
    count: usize,
}

impl fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fields").field("next", &self.next).finish_non_exhaustive()
    }
}

impl Room {
    #[inline(always)]
    pub(super) fn new() -> Room {
        Room([const { MaybeUninit::uninit() }; SIZE])
    }

    /// The encoded values of `count` fields that `fill` gives.
    #[inline(always)]
    pub(super) fn fill(&mut self, count: usize, fill: impl FnOnce(&mut Fields<'_>)) -> &[u8] {
        debug_assert!(count <= super::MOST_FIELDS);
        let mut fields = Fields { room: &mut self.0, at: 0, next: 0, count };
        fill(&mut fields);
        fields.skip_to(count);
        let at = fields.at;
        // SAFETY: FILLED.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), at) }
    }
}

impl Fields<'_> {
    /// An unsigned integer.
    #[inline]
    pub fn u64(&mut self, field: usize, value: u64) {
        self.number(field, Tag::U64, value.to_le_bytes());
    }

    /// A signed integer.
    #[inline]
    pub fn i64(&mut self, field: usize, value: i64) {
        self.number(field, Tag::I64, value.to_le_bytes());
    }

    /// A float.
    #[inline]
    pub fn f64(&mut self, field: usize, value: f64) {
        self.number(field, Tag::F64, value.to_bits().to_le_bytes());
    }

    /// A truth value.
    #[inline]
    pub fn bool(&mut self, field: usize, value: bool) {
        self.number(field, Tag::Bool, [u8::from(value)]);
    }

    /// A wide unsigned integer.
    #[inline]
    pub fn u128(&mut self, field: usize, value: u128) {
        self.number(field, Tag::U128, value.to_le_bytes());
    }

    /// A wide signed integer.
    #[inline]
    pub fn i128(&mut self, field: usize, value: i128) {
        self.number(field, Tag::I128, value.to_le_bytes());
    }

    /// Text.
    #[inline]
    pub fn str(&mut self, field: usize, value: &str) {
        self.text(field, value);
    }

    /// Bytes that are mostly text.
    #[inline]
    pub fn bytes(&mut self, field: usize, value: &[u8]) {
        match std::str::from_utf8(value) {
            Ok(text) => self.text(field, text),
            Err(_) => self.text(field, &Text::debug(value, LONGEST)),
        }
    }

    /// What `Display` makes of it. A panic of the program's own code ends in the text.
    #[inline]
    pub fn display(&mut self, field: usize, value: &(impl fmt::Display + ?Sized)) {
        self.text(field, &Text::display(value, LONGEST));
    }

    /// What `Debug` makes of it.
    #[inline]
    pub fn debug(&mut self, field: usize, value: &(impl fmt::Debug + ?Sized)) {
        self.text(field, &Text::debug(value, LONGEST));
    }

    /// Makes `field` the next one, those before it nothing. False if it is none, or came already.
    #[inline(always)]
    fn skip_to(&mut self, field: usize) -> bool {
        if field == self.next {
            return true;
        }
        self.skip_far(field)
    }

    #[inline(never)]
    fn skip_far(&mut self, field: usize) -> bool {
        if field < self.next || field > self.count {
            return false;
        }
        while self.next < field {
            self.put(&[Tag::None as u8]); // FILLED keeps a byte for each
            self.next += 1;
        }
        true
    }

    /// Bytes that the value of the next field may take.
    #[inline(always)]
    fn room_left(&self) -> usize {
        SIZE - self.at - (self.count - self.next).saturating_sub(1)
    }

    /// Appends bytes, for which there is room.
    #[inline(always)]
    fn put<const N: usize>(&mut self, bytes: &[u8; N]) {
        assert!(self.at + N <= SIZE, "FILLED leaves room");
        // SAFETY: within the room, as just asserted.
        unsafe {
            self.room.as_mut_ptr().add(self.at).cast::<[u8; N]>().write_unaligned(*bytes);
        }
        self.at += N;
    }

    #[inline(always)]
    fn number<const N: usize>(&mut self, field: usize, tag: Tag, value: [u8; N]) {
        if field >= self.count {
            return;
        }
        if !self.skip_to(field) {
            return self.replace(field, |fields, field| fields.number(field, tag, value));
        }
        if self.room_left() < N + 1 {
            return;
        }
        self.put(&[tag as u8]);
        self.put(&value);
        self.next += 1;
    }

    #[inline(always)]
    fn text<T: Field + ?Sized>(&mut self, field: usize, value: &T) {
        if field >= self.count {
            return;
        }
        if !self.skip_to(field) {
            return self.replace(field, |fields, field| fields.text(field, value));
        }
        // A tag, a NUL, and a NUL in the text takes two bytes: the plan says how many it needs.
        let left = self.room_left();
        let mut limit = left.saturating_sub(2).min(LONGEST);
        let mut plan = value.plan(limit);
        if value.size(plan) + 1 > left {
            limit /= 2;
            plan = value.plan(limit);
        }
        let size = value.size(plan);
        if limit < SHORTEST || size + 1 > left {
            return;
        }
        self.put(&[Tag::Text as u8]);
        // SAFETY: `size + 1` bytes were left before the tag, so `size` are now; `write` fills them.
        unsafe { value.write(plan, self.room.as_mut_ptr().add(self.at).cast()) };
        self.at += size;
        self.next += 1;
    }

    /// Puts a value where a field came already: it is written behind the others, as that of a field which
    /// is not there, and moved.
    #[cold]
    #[inline(never)]
    fn replace(&mut self, field: usize, write: impl FnOnce(&mut Self, usize)) {
        let (end, next, count) = (self.at, self.next, self.count);
        // One more field, and FILLED holds for it as long as a byte is left.
        if self.room_left() < 2 {
            return;
        }
        self.count += 1;
        write(self, next);
        let written = self.at - end;
        (self.next, self.count) = (next, count);
        if written == 0 {
            return;
        }
        // SAFETY: FILLED.
        let bytes: &mut [u8] =
            unsafe { std::slice::from_raw_parts_mut(self.room.as_mut_ptr().cast(), self.at) };
        let start = (0..field).try_fold(0, |at, _| value_end(bytes, at)).unwrap_or(end);
        let old = value_end(bytes, start).unwrap_or(end);
        bytes[old..].rotate_right(written);
        bytes.copy_within(old.., start);
        self.at -= old - start;
    }
}

/// Where the value at `at` ends.
fn value_end(bytes: &[u8], at: usize) -> Option<usize> {
    match Tag::from_u8(*bytes.get(at)?)?.value_size() {
        Some(size) => Some(at + 1 + size),
        None => bytes[at..].iter().position(|&byte| byte == 0).map(|nul| at + nul + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(count: usize, fill: impl FnOnce(&mut Fields<'_>)) -> Vec<u8> {
        Room::new().fill(count, fill).to_vec()
    }

    #[test]
    fn values_are_a_tag_and_what_they_are() {
        let bytes = filled(4, |fields| {
            fields.u64(0, 7);
            fields.str(2, "a\0b");
            fields.bool(3, true);
            fields.u64(4, 1); // there is no such field
        });
        let expected = [&[1, 7, 0, 0, 0, 0, 0, 0, 0][..], &[0], b"\x05a\xC0\x80b\0", &[4, 1]];
        assert_eq!(bytes, expected.concat());
    }

    #[test]
    fn whatever_the_order_the_record_is_the_same() {
        let set = |fields: &mut Fields<'_>, field: usize| match field {
            0 => fields.str(0, "first"),
            1 => fields.i64(1, -1),
            _ => fields.debug(2, "third"),
        };
        let all = |order: [usize; 3]| {
            filled(3, |fields| order.map(|f| set(fields, f)).map(drop).into_iter().collect())
        };
        let sorted = all([0, 1, 2]);
        for order in [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            assert_eq!(all(order), sorted, "{order:?}");
        }
        let twice = filled(2, |fields| {
            fields.str(0, "a longer one");
            fields.u64(1, 1);
            fields.u64(0, 9);
        });
        assert_eq!(
            twice,
            filled(2, |fields| {
                fields.u64(0, 9);
                fields.u64(1, 1);
            })
        );
    }

    #[test]
    fn what_is_too_much_is_cut_and_never_runs_over() {
        let long = "x".repeat(5000);
        let nuls = "\0".repeat(5000);
        for count in [1, 3, 64] {
            for text in [&long, &nuls] {
                let bytes = filled(count, |fields| (0..count).for_each(|f| fields.str(f, text)));
                let mut at = 0;
                for field in 0..count {
                    at = value_end(&bytes, at).unwrap_or_else(|| panic!("{field} of {count}"));
                }
                assert_eq!(at, bytes.len(), "all of {count} are there, and no more");
                assert!(bytes.len() <= SIZE);
            }
        }
        let one = filled(1, |fields| fields.str(0, &long));
        assert!(one.len() > 1000 && one.ends_with("…\0".as_bytes()), "the cut is visible");
        let late = filled(64, |fields| {
            (0..63).for_each(|f| fields.str(f, &long));
            (0..64).rev().for_each(|f| fields.i128(f, -1));
        });
        assert!(late.len() <= SIZE);
    }
}
