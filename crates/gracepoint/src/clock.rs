//! Where ticks come from: the time-stamp counter where the kernel itself trusts it (its
//! clocksource is `tsc`), else `CLOCK_MONOTONIC`. Decided once; records carry raw ticks.

use crate::arch::local;
use gracepoint_wire::clock::{Clock, Source, Triple};
use std::sync::OnceLock;

/// The process's source of ticks. Reads one file of sysfs on its first call.
pub(crate) fn source() -> Source {
    static SOURCE: OnceLock<Source> = OnceLock::new();
    *SOURCE.get_or_init(|| {
        let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
        let kernel = std::fs::read_to_string(path).unwrap_or_default();
        let tsc = cfg!(target_arch = "x86_64") && kernel.trim() == "tsc";
        if tsc { Source::Tsc } else { Source::Monotonic }
    })
}

/// Ticks now.
#[inline(always)]
pub(crate) fn ticks(source: Source) -> u64 {
    match source {
        Source::Tsc => local::counter(),
        Source::Monotonic => nanoseconds(libc::CLOCK_MONOTONIC),
    }
}

/// Ticks per second, by the time since the first triple that the program took: its agent's start.
pub(crate) fn frequency() -> u64 {
    let source = source();
    let now = triple(source);
    let triples = vec![*FIRST.get_or_init(|| now), now];
    let mut clock = Clock { source, freq_hz: 1_000_000_000, boot_id: [0; 16], triples };
    clock.refine();
    clock.freq_hz
}

/// Nanoseconds of a cheap clock, some milliseconds fine.
pub(crate) fn coarse_ns() -> u64 {
    nanoseconds(libc::CLOCK_MONOTONIC_COARSE)
}

fn nanoseconds(clock: libc::clockid_t) -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is a timespec to write to; both clocks exist on every Linux, so this cannot fail.
    unsafe { libc::clock_gettime(clock, &raw mut t) };
    t.tv_sec.cast_unsigned() * 1_000_000_000 + t.tv_nsec.cast_unsigned()
}

static FIRST: OnceLock<Triple> = OnceLock::new();

/// This moment on three clocks: of a few tries, the one that took the fewest ticks.
pub(crate) fn triple(source: Source) -> Triple {
    let once = || {
        let before = ticks(source);
        let mono_ns = nanoseconds(libc::CLOCK_MONOTONIC);
        let after = ticks(source);
        let real_ns = nanoseconds(libc::CLOCK_REALTIME);
        let took = after.saturating_sub(before);
        (took, Triple { ticks: before + took / 2, mono_ns, real_ns })
    };
    let mut tries: [_; 8] = std::array::from_fn(|_| once());
    tries.sort_by_key(|(took, _)| *took);
    FIRST.get_or_init(|| tries[0].1);
    tries[0].1
}

/// The machine's boot id; zeros where it cannot be read.
pub(crate) fn boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: Vec<u8> =
        text.bytes().filter_map(|b| char::from(b).to_digit(16)).map(|d| d as u8).collect();
    let mut id = [0; 16];
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_and_triples_advance_together() {
        let source = source();
        let a = triple(source);
        let t = ticks(source);
        let b = triple(source);
        assert!(a.ticks <= t && t <= b.ticks, "{a:?} {t} {b:?}");
        assert!(a.mono_ns <= b.mono_ns);
    }
}
