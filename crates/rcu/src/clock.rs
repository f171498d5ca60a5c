//! Time in nanoseconds since a start that is the same for the whole process: as exact as the system
//! has it, or cheap. Never 0, which means *no time*.

/// Now. About 20 ns.
#[cfg(unix)]
pub(crate) fn now() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// A time of the last few milliseconds, on the scale of `now`. About 5 ns.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn coarse() -> u64 {
    read(libc::CLOCK_MONOTONIC_COARSE)
}

/// There is no cheaper one.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn coarse() -> u64 {
    now()
}

#[cfg(unix)]
fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time goes to a variable of ours. It cannot fail with a clock that every such
    // system has; if it did, the time would be 1.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    let nanoseconds = i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
    u64::try_from(nanoseconds).unwrap_or(0).max(1)
}

/// Now.
#[cfg(not(unix))]
pub(crate) fn now() -> u64 {
    use std::sync::OnceLock;
    use std::time::Instant;

    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed().as_nanos();
    u64::try_from(elapsed).unwrap_or(u64::MAX).saturating_add(1)
}
