//! Samples of a profile as `PerfSample`: their stacks, frames, functions and objects are interned in the sequence of
//! their packets, each with the first sample that needs it. Where too many have been interned ([`Stacks`]) the
//! sequence's state is cleared, and what comes again is interned again, under new numbers.

use super::super::proto::{bytes, message, uint};
use super::super::stacks::{KERNEL, MOST, New, Stacks, UNKNOWN};
use super::{NEEDS_STATE, REALTIME, SAMPLES_SEQUENCE, STATE_CLEARED};
use crate::profile::{Lies, Sample, Sampler};
use std::collections::{HashMap, HashSet};

/// `Profiling.CpuMode`.
const MODE_KERNEL: u64 = 1;
const MODE_USER: u64 = 2;
/// The mapping of what is in no object; those of objects are their positions and this and one more.
const NOWHERE: u64 = 1;

/// Whose sample it is, and when.
pub(super) struct Ids {
    pub(super) pid: Option<u32>,
    pub(super) tid: u32,
    pub(super) ns: u64,
}

/// What the sequence knows.
pub(super) struct Samples {
    stacks: Stacks,
    /// By stack: the one that it was called from, and its innermost frame.
    links: HashMap<u32, (Option<u32>, u32)>,
    /// Stacks that are interned as a whole.
    whole: HashSet<u32>,
    /// Names of functions; their numbers never come again.
    functions: HashMap<String, u64>,
    last_function: u64,
    mappings: HashSet<u64>,
    begun: bool,
}

impl Samples {
    pub(super) fn new() -> Samples {
        Samples {
            stacks: Stacks::new(MOST),
            links: HashMap::new(),
            whole: HashSet::new(),
            functions: HashMap::new(),
            last_function: 0,
            mappings: HashSet::new(),
            begun: false,
        }
    }

    /// Appends a sample's packet.
    pub(super) fn take(
        &mut self,
        out: &mut Vec<u8>,
        ids: &Ids,
        sample: &Sample,
        sampler: &mut Sampler,
    ) {
        if self.stacks.make_room(sample) || !self.begun {
            self.begin(out);
        }
        let mut interned = Vec::new();
        let stack = self.intern(&mut interned, sample, sampler);
        message(out, 1, |packet| {
            uint(packet, 8, ids.ns);
            uint(packet, 10, SAMPLES_SEQUENCE);
            uint(packet, 13, NEEDS_STATE);
            if !interned.is_empty() {
                message(packet, 12, |data| data.extend_from_slice(&interned));
            }
            message(packet, 66, |it| {
                uint(it, 1, u64::from(sample.cpu));
                uint(it, 2, u64::from(ids.pid.unwrap_or(ids.tid)));
                uint(it, 3, u64::from(ids.tid));
                uint(it, 4, u64::from(stack));
                uint(it, 5, if sample.kernel { MODE_KERNEL } else { MODE_USER });
            });
        });
    }

    /// The sequence begins, or begins anew.
    fn begin(&mut self, out: &mut Vec<u8>) {
        self.links.clear();
        self.whole.clear();
        self.functions.clear();
        self.mappings.clear();
        let first = !std::mem::replace(&mut self.begun, true);
        message(out, 1, |packet| {
            uint(packet, 10, SAMPLES_SEQUENCE);
            uint(packet, 13, STATE_CLEARED);
            if first {
                uint(packet, 87, 1);
            }
            message(packet, 59, |defaults| uint(defaults, 58, REALTIME));
        });
    }

    /// The number of a sample's stack; what is new of it is appended as `InternedData`.
    fn intern(&mut self, data: &mut Vec<u8>, sample: &Sample, sampler: &mut Sampler) -> u32 {
        let (links, functions) = (&mut self.links, &mut self.functions);
        let (last_function, mappings) = (&mut self.last_function, &mut self.mappings);
        let stack = self.stacks.take(None, sample, |new| match new {
            New::Stack { number, caller, frame, .. } => {
                links.insert(number, (caller, frame));
            }
            New::Frame(number, place) => {
                let object = match place {
                    KERNEL | UNKNOWN => None,
                    place => sampler.object(place),
                };
                let mapping = object.map_or(NOWHERE, |(at, _)| NOWHERE + 1 + at as u64);
                let relative = object.map_or(0, |(_, object)| place - object.base);
                if mappings.insert(mapping) {
                    push_mapping(data, mapping, object.map(|(_, object)| object));
                }
                let name = match place {
                    KERNEL => "[kernel]",
                    UNKNOWN => "[unknown]",
                    place => sampler.name(place),
                };
                let function = match functions.get(name) {
                    Some(&function) => function,
                    None => {
                        *last_function += 1;
                        functions.insert(name.to_owned(), *last_function);
                        push_text(data, 5, *last_function, name.as_bytes());
                        *last_function
                    }
                };
                message(data, 6, |it| {
                    uint(it, 1, u64::from(number));
                    uint(it, 2, function);
                    uint(it, 3, mapping);
                    uint(it, 4, relative);
                });
            }
        });
        if self.whole.insert(stack) {
            let mut frames = Vec::new();
            let mut at = Some(stack);
            while let Some((caller, frame)) = at.and_then(|at| self.links.get(&at)) {
                frames.push(u64::from(*frame));
                at = *caller;
            }
            message(data, 7, |it| {
                uint(it, 1, u64::from(stack));
                // The outermost first.
                frames.iter().rev().for_each(|frame| uint(it, 2, *frame));
            });
        }
        stack
    }
}

/// An `InternedString`.
fn push_text(data: &mut Vec<u8>, field: u64, iid: u64, text: &[u8]) {
    message(data, field, |it| {
        uint(it, 1, iid);
        bytes(it, 2, text);
    });
}

/// A `Mapping`, with the strings that it needs.
fn push_mapping(data: &mut Vec<u8>, iid: u64, object: Option<&Lies>) {
    let path = object.map_or("[nowhere]", |object| object.path.as_str());
    push_text(data, 17, iid, path.as_bytes());
    let build_id = object.map(|object| unhexed(&object.build_id)).filter(|id| !id.is_empty());
    if let Some(build_id) = &build_id {
        push_text(data, 16, iid, build_id);
    }
    message(data, 19, |it| {
        uint(it, 1, iid);
        if build_id.is_some() {
            uint(it, 2, iid);
        }
        if let Some(object) = object {
            uint(it, 4, object.base);
            uint(it, 5, object.base.saturating_add(object.size));
        }
        uint(it, 7, iid);
    });
}

/// The bytes of hexadecimal digits; none where these are something else.
fn unhexed(digits: &str) -> Vec<u8> {
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.as_bytes().chunks(2).map(pair).collect::<Option<_>>().unwrap_or_default()
}
