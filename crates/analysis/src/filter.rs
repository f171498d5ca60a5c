//! Which events of a trace are wanted: by name, by thread, by time, and the last so many.
//!
//! Time and thread are looked up in the headers of packets first, so what lies outside is stepped
//! over and not read. The last so many are found from the trace's end backwards: ever longer parts of
//! it are counted until one holds enough of them. So memory does not depend on how many are wanted,
//! and a trace of which the end is wanted is not read from its beginning.

use crate::Result;
use crate::damage::DamageLog;
use crate::stream::{Budget, StreamFile};
use crate::trace::{ToNs, Trace};
use crate::when::When;
use gracepoint_wire::glob;
use gracepoint_wire::packet::PacketHeader;

/// What is wanted of a trace; everything where all is empty. What is given must all be met.
///
/// ```
/// use gracepoint_analysis::filter::Filter;
/// let trace = gracepoint_analysis::Trace::open("tests/kv.trace")?;
/// let filter = Filter { events: vec!["kv:*".into()], last: Some(3), ..Filter::default() };
/// let mut reader = trace.reader_of(&trace.choose(&filter)?);
/// let mut count = 0;
/// while reader.next_event().is_some() {
///     count += 1;
/// }
/// assert_eq!(count, 3);
/// # Ok::<(), gracepoint_analysis::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Which events, as globs on the full name or the name without a role's suffix.
    pub events: Vec<String>,
    /// Which threads: ids, or globs on names.
    pub threads: Vec<String>,
    /// Not before this moment.
    pub since: Option<When>,
    /// Before this moment.
    pub until: Option<When>,
    /// Of all that, the last so many in order of time.
    pub last: Option<u64>,
}

impl Filter {
    /// Whether everything is wanted.
    pub fn is_empty(&self) -> bool {
        *self == Filter::default()
    }
}

/// A [`Filter`] as one trace understands it; made by [`Trace::choose`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub(crate) wanted: Vec<bool>,
    threads: Vec<String>,
    /// First and last tick; none where no tick is in.
    pub(crate) span: Option<(u64, u64)>,
    /// Events to leave out at the beginning.
    pub(crate) skip: u64,
}

/// What to do with a packet, by its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packets {
    Read,
    Skip,
    /// This one and all after it in its stream are too late.
    End,
}

impl Choice {
    pub(crate) fn of(wanted: Vec<bool>) -> Choice {
        Choice { wanted, threads: Vec::new(), span: Some((0, u64::MAX)), skip: 0 }
    }

    /// Whether packets may be stepped over.
    pub(crate) fn is_sparse(&self) -> bool {
        !self.threads.is_empty() || self.span != Some((0, u64::MAX))
    }

    pub(crate) fn packet(&self, header: &PacketHeader) -> Packets {
        let Some((first, last)) = self.span else { return Packets::End };
        if header.begin > last {
            return Packets::End;
        }
        // An open packet's end is not known.
        let over = header.packet_bits != 0 && header.end < first;
        if over || !self.has_thread(header) { Packets::Skip } else { Packets::Read }
    }

    fn has_thread(&self, header: &PacketHeader) -> bool {
        self.threads.is_empty() || {
            let (tid, name) = (header.tid.to_string(), header.thread_name());
            self.threads.iter().any(|t| *t == tid || glob::matches(t, &name))
        }
    }

    /// Whether an event is in, whose packet is.
    #[inline]
    pub(crate) fn has(&self, event: u32, ticks: u64) -> bool {
        let (first, last) = self.span.unwrap_or((1, 0));
        self.wanted[event as usize] && first <= ticks && ticks <= last
    }
}

impl Trace {
    /// Turns `filter` into what a reader needs.
    ///
    /// For a moment relative to the trace, and for the last so many, parts of the trace are read.
    ///
    /// # Errors
    /// When a glob matches no event of the trace; the message suggests names.
    pub fn choose(&self, filter: &Filter) -> Result<Choice> {
        let wanted = self.select(&filter.events)?;
        let mut choice = Choice { threads: filter.threads.clone(), ..Choice::of(wanted) };
        if filter.since.is_some() || filter.until.is_some() {
            choice.span = self.span(filter);
        }
        match filter.last {
            Some(0) => choice.span = None,
            Some(n) => self.keep_last(&mut choice, n),
            None => {}
        }
        Ok(choice)
    }

    /// First and last tick between the moments.
    fn span(&self, filter: &Filter) -> Option<(u64, u64)> {
        let to_ns = ToNs::new(self.clock());
        let moments = [filter.since, filter.until].into_iter().flatten();
        let (mut begin, mut end) = (0, 0);
        if moments.into_iter().any(|when| !matches!(when, When::Real(_))) {
            let ticks = self.bounds();
            begin = self.first_ns().unwrap_or(to_ns.real(ticks.0));
            end = to_ns.real(ticks.1);
        }
        let real = |when: When| when.real(begin, end);
        let first = filter.since.map_or(Some(0), |when| to_ns.first_at(real(when)))?;
        let last = match filter.until {
            Some(when) => {
                to_ns.first_at(real(when)).map_or(Some(u64::MAX), |t| t.checked_sub(1))?
            }
            None => u64::MAX,
        };
        (first <= last).then_some((first, last))
    }

    /// When the program's first event happened, nanoseconds since 1970.
    fn first_ns(&self) -> Option<u64> {
        let wanted = self.events().iter().map(|e| !e.is_own()).collect();
        self.reader_of(&Choice::of(wanted)).next_event().map(|event| event.ns)
    }

    /// Earliest begin and latest end of a packet, in ticks, from the packets' headers alone.
    fn bounds(&self) -> (u64, u64) {
        let (mut begin, mut end) = (u64::MAX, 0);
        // What is damaged is said when it is read.
        let mut damage = DamageLog::default();
        for source in &self.streams {
            let mut file = StreamFile::new(source);
            let mut budget = Budget::new(1, true);
            while let Some(packet) = file.next_header(&mut budget, &mut damage) {
                begin = begin.min(packet.header.begin);
                end = end.max(packet.header.end).max(packet.header.begin);
            }
        }
        (begin.min(end), end)
    }

    /// Narrows `choice` to the last `n` events of it.
    fn keep_last(&self, choice: &mut Choice, n: u64) {
        let Some((first, last)) = choice.span else { return };
        let (begin, end) = self.bounds();
        let (begin, end) = (begin.max(first), end.min(last));
        let length = end.saturating_sub(begin);
        // From a millionth of the trace on, eight times as much each time, then all of it.
        let starts =
            [20, 17, 14, 11, 8, 5, 2].map(|shift| end.saturating_sub(length >> shift).max(first));
        for start in starts.into_iter().chain([first]) {
            choice.span = Some((start, last));
            let mut reader = self.reader_of(choice);
            let mut count = 0;
            while reader.next_event().is_some() {
                count += 1;
            }
            choice.skip = u64::saturating_sub(count, n);
            if count >= n {
                return;
            }
        }
    }
}

impl ToNs {
    /// The first tick at or after a moment; none where even the last is before it.
    fn first_at(self, ns: u64) -> Option<u64> {
        if self.real(u64::MAX) < ns {
            return None;
        }
        let (mut low, mut high) = (0, u64::MAX);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.real(middle) < ns { low = middle + 1 } else { high = middle }
        }
        Some(low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gracepoint_wire::clock::{Clock, Source, Triple};

    #[test]
    fn moments_become_ticks_exactly() {
        for freq_hz in [1, 7, 1_000_000_000, 2_894_560_000, 1 << 40] {
            let real_ns = 1_700_000_000_000_000_000;
            let triples = vec![Triple { ticks: 0, mono_ns: 0, real_ns }];
            let clock = Clock { source: Source::Tsc, freq_hz, boot_id: [0; 16], triples };
            let to_ns = ToNs::new(&clock);
            assert_eq!(to_ns.first_at(0), Some(0));
            for ns in [real_ns, real_ns + 1, real_ns + 123_456_789] {
                let tick = to_ns.first_at(ns).expect("the clock goes on for long");
                assert!(to_ns.real(tick) >= ns && (tick == 0 || to_ns.real(tick - 1) < ns));
            }
        }
    }
}
