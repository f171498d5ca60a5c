//! Text: the bytes and a NUL. A NUL inside becomes `C0 80`, which UTF-8 never contains.
//!
//! Text longer than the limit loses its end, at a character's boundary, and gets `…` instead, so
//! that the reader sees the cut; what is kept, with the `…`, is within the limit. Bytes that are
//! not UTF-8 pass unchanged.
//!
//! The plan is how much is kept and how many bytes that becomes. Nearly all text has no NUL and is
//! within the limit, which shows in the plan as `size == kept + 1`; then writing is a copy. Text of
//! up to [`SHORT`] bytes is looked at and copied in line, in overlapping blocks.

use super::{Field, Plan, TypeDesc, delegate};
use std::borrow::Cow;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::path::{Path, PathBuf};

/// What stands for the part that was cut off.
pub(super) const ELLIPSIS: &[u8] = "…".as_bytes();

/// Text of at most this many bytes is copied in line.
const SHORT: usize = 32;

/// Where to cut `bytes` so that `…` after it ends within `limit`: at the last character boundary.
/// Needs `bytes.len() >= limit`.
pub(super) fn cut(bytes: &[u8], limit: usize) -> usize {
    let end = limit.saturating_sub(ELLIPSIS.len());
    // A character has at most three continuation bytes; where there are more, it is not UTF-8 and
    // has no boundaries.
    (end.saturating_sub(3)..=end)
        .rev()
        .find(|&at| bytes.get(at).is_some_and(|b| b & 0xc0 != 0x80))
        .unwrap_or(end)
}

/// How text will be written: `size` is the bytes that are kept, one more for each NUL among them,
/// `…` if that is not all, and the last NUL.
#[inline(always)]
pub(super) fn plan(bytes: &[u8], limit: usize) -> Plan {
    let len = bytes.len();
    if len <= limit && !has_nul(bytes) {
        Plan { kept: len, size: len + 1 }
    } else {
        plan_altered(bytes, limit)
    }
}

/// The plan for text that is cut, or has NULs, or both.
#[cold]
#[inline(never)]
fn plan_altered(bytes: &[u8], limit: usize) -> Plan {
    let was_cut = bytes.len() > limit;
    let kept = if was_cut { cut(bytes, limit) } else { bytes.len() };
    let nuls = bytes[..kept].iter().filter(|&&byte| byte == 0).count();
    let ellipsis = if was_cut { ELLIPSIS.len() } else { 0 };
    Plan { kept, size: kept + nuls + ellipsis + 1 }
}

/// Writes text and returns its end.
///
/// # Safety
///
/// `plan` was made from `bytes`, and `plan.size` bytes from `at` may be written.
#[inline(always)]
pub(super) unsafe fn write(bytes: &[u8], plan: Plan, at: *mut u8) -> *mut u8 {
    if plan.size != plan.kept + 1 {
        // SAFETY: the caller's promise, passed on.
        return unsafe { write_altered(bytes, plan, at) };
    }
    // SAFETY: all bytes are kept (a cut adds `…` to the size), there is no NUL among them, and there
    // is room for one more byte.
    unsafe {
        let at = copy(bytes, at);
        at.write(0);
        at.add(1)
    }
}

/// Bytes of text that is short and kept as it is.
#[inline(always)]
fn quick_size(bytes: &[u8], limit: usize) -> usize {
    let len = bytes.len();
    if len <= limit.min(SHORT) && !has_nul(bytes) { len + 1 } else { super::NOT_QUICK }
}

/// Writes such text.
///
/// # Safety
///
/// `bytes` has no NUL and at most [`SHORT`] bytes, and one more may be written from `at`.
#[inline(always)]
unsafe fn write_quick(bytes: &[u8], at: *mut u8) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe {
        std::hint::assert_unchecked(bytes.len() <= SHORT);
        let at = copy(bytes, at);
        at.write(0);
        at.add(1)
    }
}

/// Writes text that is cut, or has NULs, or both.
///
/// # Safety
///
/// As [`write`].
#[cold]
#[inline(never)]
unsafe fn write_altered(bytes: &[u8], plan: Plan, mut at: *mut u8) -> *mut u8 {
    // SAFETY: `size` counts the kept bytes, one more for each NUL among them, `…` exactly if not
    // all are kept, and the last NUL; this is the order in which they are written.
    unsafe {
        for &byte in &bytes[..plan.kept] {
            if byte == 0 {
                at.write(0xc0);
                at.add(1).write(0x80);
                at = at.add(2);
            } else {
                at.write(byte);
                at = at.add(1);
            }
        }
        if plan.kept < bytes.len() {
            at = copy(ELLIPSIS, at);
        }
        at.write(0);
        at.add(1)
    }
}

/// 16 bytes. Loops over them compile to one vector instruction each.
type Block = [u8; 16];

/// Reads `T`, an integer or an array of bytes, at `index`.
///
/// # Safety
///
/// `index + size_of::<T>() <= bytes.len()`.
#[inline(always)]
unsafe fn read<T: Copy>(bytes: &[u8], index: usize) -> T {
    // SAFETY: within the slice by the caller's promise; the read needs no alignment.
    unsafe { bytes.as_ptr().add(index).cast::<T>().read_unaligned() }
}

/// The smaller of each pair of bytes.
#[inline(always)]
fn least(mut a: Block, b: Block) -> Block {
    for (a, b) in a.iter_mut().zip(b) {
        *a = (*a).min(b);
    }
    a
}

#[inline(always)]
fn block_has_nul(block: Block) -> bool {
    // No early exit, or it would not be one instruction.
    block.iter().fold(false, |found, &byte| found | (byte == 0))
}

/// Not zero exactly if a byte of `word` is zero.
#[inline(always)]
fn zero_byte(word: u64) -> u64 {
    const LOW: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    word.wrapping_sub(LOW) & !word & HIGH
}

#[inline(always)]
fn has_nul(bytes: &[u8]) -> bool {
    let len = bytes.len();
    // SAFETY: by the branches, everything read lies within the slice.
    unsafe {
        if len > SHORT {
            has_nul_long(bytes)
        } else if len >= 16 {
            block_has_nul(least(read(bytes, 0), read(bytes, len - 16)))
        } else if len >= 8 {
            let (first, last) = (read(bytes, 0), read(bytes, len - 8));
            zero_byte(first) | zero_byte(last) != 0
        } else if len >= 4 {
            let (first, last): (u32, u32) = (read(bytes, 0), read(bytes, len - 4));
            zero_byte(u64::from(first) | u64::from(last) << 32) != 0
        } else {
            len > 0 && (bytes[0] == 0 || bytes[len / 2] == 0 || bytes[len - 1] == 0)
        }
    }
}

/// [`has_nul`] for more than [`SHORT`] bytes.
#[inline(never)]
fn has_nul_long(bytes: &[u8]) -> bool {
    let len = bytes.len();
    assert!(len > SHORT);
    // SAFETY: the last two blocks begin at `len - 32`, which is above zero; a pair in the loop ends
    // at `index + 32`, which is below `len`.
    unsafe {
        let (mut a, mut b): (Block, Block) = (read(bytes, len - 32), read(bytes, len - 16));
        let mut index = 0;
        while index + 32 < len {
            a = least(a, read(bytes, index));
            b = least(b, read(bytes, index + 16));
            index += 32;
        }
        block_has_nul(least(a, b))
    }
}

/// Copies `bytes` as they are and returns the end.
///
/// # Safety
///
/// `bytes.len()` bytes from `at` may be written.
#[inline(always)]
unsafe fn copy(bytes: &[u8], at: *mut u8) -> *mut u8 {
    let len = bytes.len();
    // SAFETY: by the branches, everything read lies within the slice, and it is written at the same
    // index, within the room that the caller gave; a record never overlaps the program's data.
    unsafe {
        if len > SHORT {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), at, len);
        } else if len >= 16 {
            copy_ends::<u128>(bytes, at);
        } else if len >= 8 {
            copy_ends::<u64>(bytes, at);
        } else if len >= 4 {
            copy_ends::<u32>(bytes, at);
        } else if len > 0 {
            at.write(bytes[0]);
            at.add(len / 2).write(bytes[len / 2]);
            at.add(len - 1).write(bytes[len - 1]);
        }
        at.add(len)
    }
}

/// Copies the first and the last `T` of `bytes`, which overlap or meet.
///
/// # Safety
///
/// `T` is an integer, `size_of::<T>() <= bytes.len()`, and `bytes.len()` bytes from `at` may be
/// written.
#[inline(always)]
unsafe fn copy_ends<T: Copy>(bytes: &[u8], at: *mut u8) {
    let last = bytes.len() - size_of::<T>();
    // SAFETY: both lie within the slice and within the room; neither needs alignment.
    unsafe {
        let ends: (T, T) = (read(bytes, 0), read(bytes, last));
        at.cast::<T>().write_unaligned(ends.0);
        at.add(last).cast::<T>().write_unaligned(ends.1);
    }
}

/// Implements [`Field`] for what has bytes.
macro_rules! texts {
    ($($ty:ty, |$value:ident| $bytes:expr;)*) => {$(
        // SAFETY: all steps take the same bytes, as planned.
        unsafe impl Field for $ty {
            const TYPE: TypeDesc = TypeDesc::Str;

            #[inline(always)]
            fn plan(&self, limit: usize) -> Plan {
                let $value = self;
                plan($bytes, limit)
            }

            #[inline(always)]
            fn size(&self, plan: Plan) -> usize {
                plan.size
            }

            #[inline(always)]
            unsafe fn write(&self, plan: Plan, at: *mut u8) -> *mut u8 {
                let $value = self;
                // SAFETY: the caller's promise, passed on.
                unsafe { write($bytes, plan, at) }
            }

            #[inline(always)]
            fn quick_size(&self, limit: usize) -> usize {
                let $value = self;
                quick_size($bytes, limit)
            }

            #[inline(always)]
            unsafe fn write_quick(&self, at: *mut u8) -> *mut u8 {
                let $value = self;
                // SAFETY: the caller's promise, passed on.
                unsafe { write_quick($bytes, at) }
            }
        }
    )*};
}

texts! {
    str, |v| v.as_bytes();
    CStr, |v| v.to_bytes();
    // On Unix the bytes as they are; elsewhere a superset of UTF-8.
    OsStr, |v| v.as_encoded_bytes();
    Path, |v| v.as_os_str().as_encoded_bytes();
}

delegate! {
    [] String => str, |v| v.as_str();
    [] CString => CStr, |v| v.as_c_str();
    [] OsString => OsStr, |v| v.as_os_str();
    [] PathBuf => Path, |v| v.as_path();
    [] Cow<'_, str> => str, |v| v;
    [] Cow<'_, CStr> => CStr, |v| v;
    [] Cow<'_, OsStr> => OsStr, |v| v;
    [] Cow<'_, Path> => Path, |v| v;
}

// SAFETY: both steps take the UTF-8 length, 0 for U+0000, and the last NUL.
unsafe impl Field for char {
    const TYPE: TypeDesc = TypeDesc::Char;

    #[inline(always)]
    fn plan(&self, _limit: usize) -> Plan {
        Plan::NOTHING
    }

    #[inline(always)]
    fn size(&self, _plan: Plan) -> usize {
        if *self == '\0' { 1 } else { self.len_utf8() + 1 }
    }

    #[inline(always)]
    unsafe fn write(&self, _plan: Plan, at: *mut u8) -> *mut u8 {
        let mut buf = [0; 4];
        let utf8: &str = if *self == '\0' { "" } else { self.encode_utf8(&mut buf) };
        // SAFETY: the caller gave room for the UTF-8 bytes and the NUL.
        unsafe {
            let at = copy(utf8.as_bytes(), at);
            at.write(0);
            at.add(1)
        }
    }

    #[inline(always)]
    fn quick_size(&self, _limit: usize) -> usize {
        self.size(Plan::NOTHING)
    }

    #[inline(always)]
    unsafe fn write_quick(&self, at: *mut u8) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { self.write(Plan::NOTHING, at) }
    }
}
