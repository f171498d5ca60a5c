//! Text: the bytes and a NUL. A NUL inside becomes `C0 80`, which UTF-8 never contains.
//!
//! Text longer than the limit loses its end, at a character's boundary, and gets `…` instead, so
//! that the reader sees the cut; what is kept, with the `…`, is within the limit. Bytes that are
//! not UTF-8 pass unchanged.
//!
//! AGREE: [`kept`] decides how much is kept, for both steps, and the number of NULs in it decides
//! the rest. `size` looks for NULs; `write` looks again while it copies, because nothing is handed
//! from one step to the other. Text of up to [`SHORT`] bytes does both a word at a time, in line.

use super::{Field, TypeDesc, delegate};
use std::borrow::Cow;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::path::{Path, PathBuf};

/// What stands for the part that was cut off.
pub(super) const ELLIPSIS: &[u8] = "…".as_bytes();

/// Text of at most this many bytes is copied in line.
const SHORT: usize = 32;

/// Where to cut `bytes` so that `…` after it ends within `limit`: at the last character boundary.
/// Needs `bytes.len() > limit`.
pub(super) fn cut(bytes: &[u8], limit: usize) -> usize {
    let end = limit.saturating_sub(ELLIPSIS.len());
    // A character has at most three continuation bytes; where there are more, it is not UTF-8 and
    // has no boundaries.
    (end.saturating_sub(3)..=end)
        .rev()
        .find(|&at| bytes.get(at).is_some_and(|b| b & 0xc0 != 0x80))
        .unwrap_or(end)
}

/// What of `bytes` is kept, and whether `…` follows.
#[inline(always)]
fn kept(bytes: &[u8], limit: usize) -> (&[u8], bool) {
    if bytes.len() <= limit { (bytes, false) } else { kept_of_long(bytes, limit) }
}

#[cold]
fn kept_of_long(bytes: &[u8], limit: usize) -> (&[u8], bool) {
    (&bytes[..cut(bytes, limit)], true)
}

/// Bytes that [`write`] will write.
#[inline(always)]
pub(super) fn size(bytes: &[u8], limit: usize) -> usize {
    let (kept, was_cut) = kept(bytes, limit);
    let ellipsis = if was_cut { ELLIPSIS.len() } else { 0 };
    let nuls = if has_nul(kept) { count_nuls(kept) } else { 0 };
    kept.len() + nuls + ellipsis + 1
}

/// Writes text and returns its end.
///
/// # Safety
///
/// `size(bytes, limit)` bytes from `at` may be written.
#[inline(always)]
pub(super) unsafe fn write(bytes: &[u8], limit: usize, at: *mut u8) -> *mut u8 {
    let (kept, was_cut) = kept(bytes, limit);
    // SAFETY: `size` counts the kept bytes, one more for each NUL among them, the ellipsis and the
    // last NUL; this is the order in which they are written.
    unsafe {
        let at = write_kept(kept, at);
        let at = if was_cut { append(ELLIPSIS, at) } else { at };
        at.write(0);
        at.add(1)
    }
}

/// Writes `bytes`, NULs escaped.
///
/// # Safety
///
/// `bytes.len()` plus the number of NULs in it may be written from `at`.
#[inline(always)]
unsafe fn write_kept(bytes: &[u8], at: *mut u8) -> *mut u8 {
    let clean = if bytes.len() <= SHORT {
        // SAFETY: there is room for at least `bytes.len()` bytes.
        unsafe { copy_short(bytes, at) }
    } else {
        // SAFETY: as above.
        unsafe { append(bytes, at) };
        !has_nul_long(bytes)
    };
    if clean {
        // SAFETY: within the room that the caller gave.
        unsafe { at.add(bytes.len()) }
    } else {
        // SAFETY: the caller gave room for the NULs too; what was copied is written over.
        unsafe { write_escaped(bytes, at) }
    }
}

/// Copies `bytes` as they are.
///
/// # Safety
///
/// `bytes.len()` bytes from `at` may be written.
unsafe fn append(bytes: &[u8], at: *mut u8) -> *mut u8 {
    // SAFETY: the caller's promise; a record never overlaps the program's data.
    unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len());
        at.add(bytes.len())
    }
}

/// Copies `bytes` with each NUL as `C0 80`.
///
/// # Safety
///
/// As [`write_kept`].
#[cold]
unsafe fn write_escaped(bytes: &[u8], mut at: *mut u8) -> *mut u8 {
    for &byte in bytes {
        // SAFETY: one byte each, two for a NUL: what the caller gave room for.
        unsafe {
            if byte == 0 {
                at.write(0xc0);
                at.add(1).write(0x80);
                at = at.add(2);
            } else {
                at.write(byte);
                at = at.add(1);
            }
        }
    }
    at
}

/// Non-zero exactly if a byte of `word` is zero.
#[inline(always)]
fn zero_byte(word: u64) -> u64 {
    const LOW: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    word.wrapping_sub(LOW) & !word & HIGH
}

/// Reads 8 bytes of `bytes` at `index`.
///
/// # Safety
///
/// `index + 8 <= bytes.len()`.
#[inline(always)]
unsafe fn word(bytes: &[u8], index: usize) -> u64 {
    // SAFETY: within the slice by the caller's promise; the read needs no alignment.
    unsafe { bytes.as_ptr().add(index).cast::<u64>().read_unaligned() }
}

#[inline(always)]
fn has_nul(bytes: &[u8]) -> bool {
    let len = bytes.len();
    if len > SHORT {
        return has_nul_long(bytes);
    }
    if len < 8 {
        // Seven bytes at most: the loop is shorter than what a word would need.
        return zero_byte(small(bytes)) != 0;
    }
    // SAFETY: 8 <= len, and in the second block 16 <= len: each word lies within the slice.
    unsafe {
        let mut found = zero_byte(word(bytes, 0)) | zero_byte(word(bytes, len - 8));
        if len > 16 {
            found |= zero_byte(word(bytes, 8)) | zero_byte(word(bytes, len - 16));
        }
        found != 0
    }
}

/// The bytes of a text shorter than 8 in a word, some perhaps twice, the rest of it not zero.
#[inline(always)]
fn small(bytes: &[u8]) -> u64 {
    const FILL: u64 = u64::MAX;
    let len = bytes.len();
    if len >= 4 {
        // SAFETY: both halves are four bytes within the slice; the reads need no alignment.
        unsafe {
            let low = bytes.as_ptr().cast::<u32>().read_unaligned();
            let high = bytes.as_ptr().add(len - 4).cast::<u32>().read_unaligned();
            u64::from(low) | u64::from(high) << 32
        }
    } else if len > 0 {
        let [a, b, c] = [bytes[0], bytes[len / 2], bytes[len - 1]];
        u64::from_le_bytes([a, b, c, 1, 1, 1, 1, 1])
    } else {
        FILL
    }
}

/// Copies at most [`SHORT`] bytes and says whether none was NUL.
///
/// # Safety
///
/// `bytes.len() <= SHORT`, and as many bytes from `at` may be written.
#[inline(always)]
unsafe fn copy_short(bytes: &[u8], at: *mut u8) -> bool {
    let len = bytes.len();
    // SAFETY: by the branches, every word read lies within the slice, and it is written at the
    // same index, within the room that the caller gave; nothing needs alignment.
    unsafe {
        let put = |index: usize, word: u64| at.add(index).cast::<u64>().write_unaligned(word);
        if len >= 8 {
            let (first, last) = (word(bytes, 0), word(bytes, len - 8));
            let mut found = zero_byte(first) | zero_byte(last);
            put(0, first);
            if len > 16 {
                let (second, third) = (word(bytes, 8), word(bytes, len - 16));
                found |= zero_byte(second) | zero_byte(third);
                put(8, second);
                put(len - 16, third);
            }
            put(len - 8, last);
            found == 0
        } else {
            let small = small(bytes);
            if len >= 4 {
                at.cast::<u32>().write_unaligned(small as u32);
                at.add(len - 4).cast::<u32>().write_unaligned((small >> 32) as u32);
            } else if len > 0 {
                let [a, b, c, ..] = small.to_le_bytes();
                at.write(a);
                at.add(len / 2).write(b);
                at.add(len - 1).write(c);
            }
            zero_byte(small) == 0
        }
    }
}

/// Looks for a NUL with byte-wise minimums, which compile to one vector instruction per 16 bytes.
#[inline(never)]
fn has_nul_long(bytes: &[u8]) -> bool {
    let mut least = [u8::MAX; 32];
    let chunks = bytes.chunks_exact(32);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (least, &byte) in least.iter_mut().zip(chunk) {
            *least = (*least).min(byte);
        }
    }
    least.contains(&0) || rest.contains(&0)
}

#[cold]
fn count_nuls(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte == 0).count()
}

/// Implements [`Field`] for what has bytes.
macro_rules! texts {
    ($($ty:ty, |$value:ident| $bytes:expr;)*) => {$(
        // SAFETY: size and write encode the same bytes in the same way.
        unsafe impl Field for $ty {
            const TYPE: TypeDesc = TypeDesc::Str;

            #[inline(always)]
            fn size(&self, limit: usize) -> usize {
                let $value = self;
                size($bytes, limit)
            }

            #[inline(always)]
            unsafe fn write(&self, limit: usize, at: *mut u8) -> *mut u8 {
                let $value = self;
                // SAFETY: the caller gave room for `size` bytes.
                unsafe { write($bytes, limit, at) }
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
    fn size(&self, _limit: usize) -> usize {
        if *self == '\0' { 1 } else { self.len_utf8() + 1 }
    }

    #[inline(always)]
    unsafe fn write(&self, limit: usize, at: *mut u8) -> *mut u8 {
        let mut buf = [0; 4];
        let utf8: &str = if *self == '\0' { "" } else { self.encode_utf8(&mut buf) };
        // SAFETY: the caller gave room for the UTF-8 bytes and the NUL.
        unsafe {
            let at = append(utf8.as_bytes(), at);
            0_u8.write(limit, at)
        }
    }
}
