//! What stands beside the events of a recording: a profile, tracepoints of the kernel, both or none.

use super::beside::{Beside, Rate, is_refused};
use super::kernel::{self, Kernel};
use super::writer::MOST_STREAMS;
use crate::failure::{Failure, Result};
use crate::record::streams::Streams;
use gracepoint_wire::clock::Clock;
use gracepoint_wire::control::{Message, SamplesWanted};
use gracepoint_wire::profile::{SAMPLE_ID, STACK_ID, profile_events, stack_event};
use gracepoint_wire::schema::{Context, Declared};
use std::io;

/// What is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Asked<'a> {
    /// Sample where its threads are.
    pub(crate) profile: Option<Rate>,
    /// Let the program do that itself, though the kernel would.
    pub(crate) in_program: bool,
    /// Tracepoints of the kernel, as patterns.
    pub(crate) kernel: &'a [String],
}

impl Asked<'_> {
    /// The samples that the program is to take of itself, since the kernel does not or since it was asked for, and
    /// why; these are nobody else's to take then.
    pub(crate) fn take_from(&mut self, pid: u32) -> Option<(SamplesWanted, Option<Failure>)> {
        let rate = self.profile?;
        let why = if self.in_program { None } else { Some(is_refused(pid)?) };
        self.profile = None;
        Some((rate.in_program(), why))
    }
}

/// See the top.
#[derive(Default)]
pub(crate) struct Sides {
    profile: Option<Beside>,
    kernel: Option<Kernel>,
    /// Why there is none of the kernel's events, which is no failure of the recording.
    pub(crate) without_kernel: Option<String>,
    /// What is to be told of how the kernel's events are taken.
    pub(crate) note: Option<String>,
    /// The process that goes on to give tracepoints back to the kernel.
    pub(crate) taking_down: Option<u32>,
}

impl Sides {
    /// Begins what is asked for, into streams from the number `first` on, and says which events that adds.
    ///
    /// # Errors
    /// When the kernel gives no profile, or what is asked of it makes no sense.
    pub(crate) fn begin(
        pid: u32,
        asked: Asked<'_>,
        first: u64,
        context: Context,
    ) -> Result<(Sides, Vec<Declared>)> {
        let mut sides = Sides::default();
        if asked.profile.is_none() && asked.kernel.is_empty() {
            return Ok((sides, Vec::new()));
        }
        let mut events = profile_events().to_vec();
        if let Some(rate) = asked.profile {
            events.extend((rate.copied > 0).then(stack_event));
            sides.profile = Some(Beside::begin(pid, rate, first, context)?);
        }
        if !asked.kernel.is_empty() {
            let first = first + MOST_STREAMS;
            let begun = kernel::choose(asked.kernel)?
                .and_then(|formats| Kernel::begin(pid, formats, first, context));
            match begun {
                Ok(mut kernel) => {
                    sides.note = kernel.note.take();
                    events.extend(kernel.declared());
                    sides.kernel = Some(kernel);
                }
                Err(why) => sides.without_kernel = Some(why),
            }
        }
        Ok((sides, events))
    }

    /// Writes what has come.
    ///
    /// # Errors
    /// When the trace cannot be written.
    pub(crate) fn tend(&mut self, clock: &Clock, out: &mut Streams) -> io::Result<()> {
        if let Some(profile) = &mut self.profile {
            profile.tend(clock, out)?;
        }
        if let Some(kernel) = &mut self.kernel {
            kernel.tend(clock, out)?;
        }
        Ok(())
    }

    /// What was lost of it, by event, as the trace tells.
    pub(crate) fn losses(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        let profile = self.profile.iter().flat_map(Beside::losses);
        let kernel = self.kernel.iter().flat_map(Kernel::losses);
        profile.chain(kernel).map(|(&id, &count)| (id, count))
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// As [`tend`](Self::tend).
    pub(crate) fn finish(&mut self, clock: &Clock, out: &mut Streams) -> io::Result<()> {
        let sampled = self.profile.as_mut().map_or(Ok(()), |profile| profile.finish(clock, out));
        let taken = self.kernel.as_mut().map_or(Ok(None), |kernel| kernel.finish(clock, out));
        self.taking_down = taken.as_ref().ok().copied().flatten();
        sampled.and(taken.map(drop))
    }
}

/// What to say of a program that was asked to sample itself, because the kernel `refused` or because that was
/// wanted.
///
/// # Errors
/// When it does not know how.
pub(crate) fn samples_itself(
    created: &Message,
    refused: Option<Failure>,
) -> Result<Option<String>> {
    let is_sample = |event: &Declared| [SAMPLE_ID, STACK_ID].contains(&event.id);
    let knows =
        matches!(created, Message::Created(created) if created.events.iter().any(is_sample));
    match (knows, refused) {
        (true, None) => Ok(None),
        (true, Some(why)) => Ok(Some(format!(
            "{why}; so the program samples itself, and times off the CPUs are not recorded"
        ))),
        (false, why) => {
            let why = why.map_or_else(String::new, |why| format!("{why}; and "));
            let text = format!("{why}the program's gracepoint is too old to sample itself");
            Err(Failure::new(text))
        }
    }
}

/// What to say where pages are so small that the program cannot copy as much of its stacks as is wanted: it copies no more
/// than half a page.
pub(crate) fn stacks_are_cut(samples: Option<SamplesWanted>, page_bytes: u32) -> Option<String> {
    let most = page_bytes / 2;
    samples.filter(|samples| samples.stack_bytes > most).map(|_| {
        format!("the program copies at most {most} bytes of each stack: a larger --buffer makes its pages larger")
    })
}
