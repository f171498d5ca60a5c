//! Time in a trace. Records carry raw ticks; triples of (ticks, monotonic, realtime), taken at the
//! start, every second and at the end, turn them into time when the trace is read. The boot id
//! says which traces share a clock.

/// Where ticks come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Source {
    /// The time-stamp counter, where the kernel's own clocksource is `tsc`.
    Tsc = 1,
    /// `CLOCK_MONOTONIC`; a tick is a nanosecond.
    Monotonic = 2,
}

impl Source {
    /// The source with this number.
    pub fn from_u8(n: u8) -> Option<Source> {
        [Source::Tsc, Source::Monotonic].into_iter().find(|s| *s as u8 == n)
    }

    /// The clock's name in the trace.
    pub fn name(self) -> &'static str {
        match self {
            Source::Tsc => "tsc",
            Source::Monotonic => "monotonic",
        }
    }
}

/// One moment on three clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Triple {
    /// Raw ticks of the trace's clock.
    pub ticks: u64,
    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub mono_ns: u64,
    /// `CLOCK_REALTIME` in nanoseconds since 1970.
    pub real_ns: u64,
}

/// A trace's clock: what ticks mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clock {
    /// Where ticks come from.
    pub source: Source,
    /// Ticks per second, measured; replaced by [`Clock::refine`] once triples lie far apart.
    pub freq_hz: u64,
    /// The machine's boot id (16 bytes); traces with the same one share their clocks.
    pub boot_id: [u8; 16],
    /// At least one; in order of time.
    pub triples: Vec<Triple>,
}

impl Clock {
    /// Measures the frequency anew from the outermost triples, where they lie further apart than
    /// 10 ms. A monotonic clock has 10⁹ ticks per second by definition.
    pub fn refine(&mut self) {
        if self.source == Source::Monotonic {
            self.freq_hz = 1_000_000_000;
            return;
        }
        if let (Some(first), Some(last)) = (self.triples.first(), self.triples.last()) {
            let ns = last.mono_ns.saturating_sub(first.mono_ns);
            let ticks = last.ticks.saturating_sub(first.ticks);
            if ns >= 10_000_000 && ticks > 0 {
                let hz = u128::from(ticks) * 1_000_000_000 / u128::from(ns);
                self.freq_hz = u64::try_from(hz).unwrap_or(self.freq_hz).max(1);
            }
        }
    }

    /// Nanoseconds since 1970 at tick 0, from the first triple. May be negative in theory only;
    /// clamped to 0.
    pub fn epoch_ns(&self) -> u64 {
        let t = self.triples.first().copied().unwrap_or_default();
        t.real_ns.saturating_sub(scale(t.ticks, 1_000_000_000, self.freq_hz))
    }

    /// The moment `ticks`, in nanoseconds since 1970.
    pub fn real_ns(&self, ticks: u64) -> u64 {
        self.epoch_ns().saturating_add(scale(ticks, 1_000_000_000, self.freq_hz))
    }
}

/// `n * mul / div` without overflow on the way; saturates.
pub fn scale(n: u64, mul: u64, div: u64) -> u64 {
    let wide = u128::from(n) * u128::from(mul) / u128::from(div.max(1));
    u64::try_from(wide).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refining_uses_the_longest_baseline() {
        let t = |ticks, mono_ns| Triple { ticks, mono_ns, real_ns: 5_000_000_000 + mono_ns };
        let mut clock = Clock {
            source: Source::Tsc,
            freq_hz: 1_900_000_000,
            boot_id: [0; 16],
            triples: vec![t(2_000, 1_000), t(2_000_002_000, 1_000_001_000)],
        };
        clock.refine();
        assert_eq!(clock.freq_hz, 2_000_000_000);
        assert_eq!(clock.real_ns(2_000), 5_000_001_000);
        assert_eq!(clock.real_ns(4_000), 5_000_002_000);
    }
}
