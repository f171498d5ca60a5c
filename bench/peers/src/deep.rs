//! A stack of a known depth, to be sampled: built with frame pointers, which this program is not.

unsafe extern "C" {
    fn gp_deep(depth: u32, until: u64, least: u64, gaps: *mut [u64; 2], most: u64) -> u64;
}

/// At the end of `depth` calls, reads `CLOCK_MONOTONIC` again and again until it is `until` nanoseconds. The pairs of
/// readings that are at least `least` apart, at most `most` of them.
#[must_use]
pub fn deep(depth: u32, until: u64, least: u64, most: usize) -> Vec<[u64; 2]> {
    let mut gaps = vec![[0; 2]; most];
    // SAFETY: writes at most `most` pairs to `gaps`, which has as many; reads the clock, and calls itself.
    let found = unsafe { gp_deep(depth, until, least, gaps.as_mut_ptr(), most as u64) };
    gaps.truncate(found as usize);
    gaps
}
