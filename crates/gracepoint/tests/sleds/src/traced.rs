//! The functions that are traced. Nothing else of this program has sleds switched on.

use gracepoint::FunctionFilter;
use std::hint::black_box;

/// All of this file's.
pub(crate) fn all() -> FunctionFilter {
    FunctionFilter::new("gracepoint_sleds::traced::*").notrace("*::traced::all")
}

#[inline(never)]
pub(crate) fn leaf(x: u64) -> u64 {
    black_box(x) + 1
}

#[inline(never)]
pub(crate) fn outer(x: u64) -> u64 {
    leaf(x) + leaf(x + 1)
}

/// Goes over into the leaf.
#[inline(never)]
pub(crate) fn tail(x: u64) -> u64 {
    leaf(x.wrapping_add(10))
}

#[inline(never)]
pub(crate) fn deep(levels: u64) -> u64 {
    if levels == 0 { 0 } else { black_box(deep(levels - 1)) + 1 }
}

#[inline(never)]
pub(crate) fn panics(x: u64) -> u64 {
    if black_box(x) > 0 {
        std::panic::resume_unwind(Box::new(x));
    }
    x
}

#[inline(never)]
pub(crate) fn calls(f: &dyn Fn() -> u64) -> u64 {
    black_box(f()) + 1
}

#[inline(never)]
#[expect(clippy::too_many_arguments, reason = "more than registers hold")]
pub(crate) fn integers(a: u64, b: u64, c: u64, d: u64, e: u64, f: u64, g: u64, h: u64) -> [u64; 2] {
    [a + 3 * b + 5 * c + 7 * d, 11 * e + 13 * f + 17 * g + 19 * h]
}

#[inline(never)]
#[expect(clippy::too_many_arguments, reason = "more than registers hold")]
pub(crate) fn floats(a: f64, b: f64, c: f64, d: f64, e: f64, f: f64, g: f64, h: f64) -> (f64, f64) {
    (a + 3.0 * b + 5.0 * c + 7.0 * d, 11.0 * e + 13.0 * f + 17.0 * g + 19.0 * h)
}

#[inline(never)]
pub(crate) fn wide(a: u128, b: u128, c: f32) -> u128 {
    a.wrapping_mul(b).wrapping_add(c as u128)
}

#[inline(never)]
pub(crate) fn three(a: u64) -> (u64, u64, f64) {
    (a + 1, a + 2, a as f64)
}

#[allow(improper_ctypes_definitions, reason = "nobody but this program calls them")]
pub(crate) mod vectors {
    //! Arguments and results in whole vectors: only functions of the C ABI have them.
    use std::arch::x86_64::{__m128, __m256, __m512, _mm_add_ps, _mm256_add_ps, _mm512_add_ps};

    #[inline(never)]
    pub(crate) extern "C" fn narrow(a: __m128, b: __m128) -> __m128 {
        // SAFETY: every x86-64 processor has these.
        unsafe { _mm_add_ps(a, b) }
    }

    #[inline(never)]
    #[target_feature(enable = "avx")]
    pub(crate) extern "C" fn double(a: __m256, b: __m256) -> __m256 {
        _mm256_add_ps(a, b)
    }

    #[inline(never)]
    #[target_feature(enable = "avx512f")]
    pub(crate) extern "C" fn fourfold(a: __m512, b: __m512) -> __m512 {
        _mm512_add_ps(a, b)
    }
}
