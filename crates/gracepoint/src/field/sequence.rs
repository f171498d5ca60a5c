//! Sequences of numbers: slices and vectors, cut at the field's limit, and arrays, never cut.
//!
//! A sequence is its original length (u32, saturating), the number of elements kept (u16) and the
//! elements; an array is its elements. The plan of a sequence is
//! how many elements are kept.

use super::{Field, Number, Plan, TypeDesc, delegate};
use std::borrow::Cow;

/// Largest array that may be a field, in bytes: as much as `#[event(limit)]` allows elsewhere.
///
/// ```compile_fail,E0080
/// const TOO_LARGE: gracepoint::field::TypeDesc = <[u64; 2049] as gracepoint::field::Field>::TYPE;
/// ```
const MAX_ARRAY: usize = 16384;

/// Largest array that is copied in line, in bytes.
const QUICK_ARRAY: usize = 64;

/// Bytes of the two counts before the elements of a sequence.
const COUNTS: usize = 4 + 2;

/// Writes all of `items`.
///
/// # Safety
///
/// `items.len() * T::SIZE` bytes from `at` may be written.
#[inline(always)]
unsafe fn write_items<T: Number>(items: &[T], mut at: *mut u8) -> *mut u8 {
    if T::PLAIN {
        let bytes = size_of_val(items);
        // SAFETY: by PLAIN the elements in memory, `size_of_val` initialized bytes, are what is to
        // be written, and SIZE is the size of one; the caller gave room for all. A record never
        // overlaps the program's data.
        unsafe {
            std::ptr::copy_nonoverlapping(items.as_ptr().cast::<u8>(), at, bytes);
            at.add(bytes)
        }
    } else {
        for item in items {
            // SAFETY: each element takes SIZE bytes and the caller gave room for all.
            at = unsafe { item.write(Plan::NOTHING, at) };
        }
        at
    }
}

/// Type of an element; a type of its own so that a reference to it lives forever.
struct Element<T>(T);

impl<T: Number> Element<T> {
    const TYPE: &'static TypeDesc = &T::TYPE;
}

// SAFETY: the planned number of elements of SIZE bytes, after the counts, in both steps.
unsafe impl<T: Number> Field for [T] {
    const TYPE: TypeDesc = TypeDesc::Seq(Element::<T>::TYPE);

    #[inline(always)]
    fn plan(&self, limit: usize) -> Plan {
        let kept = self.len().min(limit / T::SIZE).min(usize::from(u16::MAX));
        Plan { kept, ..Plan::NOTHING }
    }

    #[inline(always)]
    fn size(&self, plan: Plan) -> usize {
        COUNTS + plan.kept * T::SIZE
    }

    #[inline(always)]
    unsafe fn write(&self, plan: Plan, at: *mut u8) -> *mut u8 {
        let kept = plan.kept;
        let total = u32::try_from(self.len()).unwrap_or(u32::MAX);
        // SAFETY: the caller gave room for COUNTS bytes and `kept` elements; by its promise `kept`
        // is from `plan`, so it is at most the slice's length and fits 16 bits.
        unsafe {
            let at = total.write(Plan::NOTHING, at);
            let at = (kept as u16).write(Plan::NOTHING, at);
            write_items(self.get_unchecked(..kept), at)
        }
    }
}

/// Type of an array; a type of its own so that the check happens at compile time.
struct Elements<T, const N: usize>(T);

impl<T: Number, const N: usize> Elements<T, N> {
    const CHECK: () = assert!(
        N <= MAX_ARRAY && N * T::SIZE <= MAX_ARRAY,
        "an array of more than 16384 bytes cannot be recorded: use a slice and #[event(limit = …)]",
    );
}

// SAFETY: N elements of SIZE bytes in both steps.
unsafe impl<T: Number, const N: usize> Field for [T; N] {
    const TYPE: TypeDesc = {
        let () = Elements::<T, N>::CHECK;
        TypeDesc::Array(Element::<T>::TYPE, N as u32)
    };

    #[inline(always)]
    fn plan(&self, _limit: usize) -> Plan {
        Plan::NOTHING
    }

    #[inline(always)]
    fn size(&self, _plan: Plan) -> usize {
        N * T::SIZE
    }

    #[inline(always)]
    unsafe fn write(&self, _plan: Plan, at: *mut u8) -> *mut u8 {
        // SAFETY: the caller gave room for N elements.
        unsafe { write_items(self, at) }
    }

    #[inline(always)]
    fn quick_size(&self, _limit: usize) -> usize {
        if N * T::SIZE <= QUICK_ARRAY { N * T::SIZE } else { super::NOT_QUICK }
    }

    #[inline(always)]
    unsafe fn write_quick(&self, at: *mut u8) -> *mut u8 {
        // SAFETY: as in `write`.
        unsafe { write_items(self, at) }
    }
}

delegate! {
    [T: Number] Vec<T> => [T], |v| v.as_slice();
    [T: Number] Cow<'_, [T]> => [T], |v| v;
}
