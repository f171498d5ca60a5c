//! What a session is made of: which events, with which ids, in how many pages.

use super::points::Rules;
use super::{failure, functions};
use crate::dynamic::registry;
use crate::key::Call;
use crate::ring::arena::{Shape, counts_bytes};
use crate::tracer::{self, KeyId};
use gracepoint_wire::control::{Create, Failure, Limits, Mode};
use gracepoint_wire::schema::{Declared, FIRST_USER_ID, Role, Schema, loss_event};

/// Buffer of a session that does not ask for a size.
const DEFAULT_BUFFER: u64 = 16 << 20;

/// Smallest buffer: less would be a page or two.
const LEAST_BUFFER: u64 = 64 << 10;

/// Fewest pages, however many kinds of event are counted for each.
const LEAST_PAGES: u32 = 4;

/// The events of a session.
pub(super) struct Chosen {
    /// Of each event: its id, its span's begin and its span's end; 0 where it is not used so.
    pub(super) ids: Vec<[u32; 3]>,
    /// Keys, the session writer made for each, and its place in `ids`.
    pub(super) keys: Vec<(KeyId, Call, usize)>,
    pub(super) declared: Vec<Declared>,
    /// The first id that nobody has.
    pub(super) next: u32,
}

impl Chosen {
    /// The events that are wanted, and those that belong to functions.
    ///
    /// # Errors
    /// `no-match`, if events are asked for and there is none, and none may come.
    pub(super) fn of(
        rules: &Rules,
        functions: Option<&functions::Chosen>,
        samples: bool,
    ) -> Result<Chosen, Failure> {
        let mut events: Vec<_> = tracer::catalogue();
        let theirs = functions.map(functions::Chosen::events).unwrap_or_default();
        events.retain(|known| rules.want(&known.schema) || theirs.contains(&known.schema.name));
        let asked = functions.is_none() && !samples || rules.name_events();
        if events.is_empty() && asked && !registry::is_used() {
            return Err(failure("no-match", "no event matches"));
        }
        let mut numbers = Numbers { next: FIRST_USER_ID, declared: vec![loss_event()] };
        let mut ids = Vec::new();
        let mut keys = Vec::new();
        for known in events {
            keys.extend(known.keys.iter().map(|&(key, call)| (key, call, ids.len())));
            let (events, spans) = (known.sites > 0, known.spans > 0);
            ids.push(match known.at_run_time {
                true => numbers.declare_point(&known.schema, events, spans),
                false => numbers.declare(&known.schema, events, spans),
            });
        }
        Ok(Chosen { ids, keys, declared: numbers.declared, next: numbers.next })
    }
}

/// Hands out ids.
pub(super) struct Numbers {
    pub(super) next: u32,
    pub(super) declared: Vec<Declared>,
}

impl Numbers {
    /// Ids of an event, its span's begin and its span's end; unused ones are 0.
    fn declare(&mut self, schema: &Schema, event: bool, span: bool) -> [u32; 3] {
        let mut give = |used: bool, role: Role| if used { self.give(schema, role) } else { 0 };
        [give(event, Role::Event), give(span, Role::Begin), give(span, Role::End)]
    }

    /// The same, with the moments that spans of points have beside: their ids follow that of the end.
    pub(super) fn declare_point(&mut self, schema: &Schema, event: bool, span: bool) -> [u32; 3] {
        let ids = self.declare(schema, event, span);
        if span {
            for role in [Role::Enter, Role::Exit, Role::Record, Role::Follows] {
                self.give(schema, role);
            }
        }
        ids
    }

    fn give(&mut self, schema: &Schema, role: Role) -> u32 {
        let id = self.next;
        self.next += 1;
        self.declared.push(Declared { id, role, schema: schema.clone() });
        id
    }
}

/// May events be left out?
pub(super) fn is_limited(limits: Limits) -> bool {
    let Limits { max_rate, sample, max_overhead_ppm } = limits;
    max_rate > 0 || sample > 1 || max_overhead_ppm > 0
}

/// Pages for a buffer, and their size.
pub(super) fn shape(wanted: &Create, ids: u32, most: u64) -> Result<Shape, Failure> {
    let (bytes, mode) = (wanted.buffer_bytes, wanted.mode);
    let bytes = if bytes == 0 { DEFAULT_BUFFER.min(most) } else { bytes.max(LEAST_BUFFER) };
    if bytes > most {
        return Err(failure(
            "memory",
            format!(
                "a buffer of {bytes} bytes is more than the program allows ({most}): ask for less with \
                 --buffer"
            ),
        ));
    }
    // Many pages rather than large ones: each thread that records holds one.
    let page = 1u64 << (bytes / 1024).clamp(4096, 65536).ilog2();
    // What is counted for each page is part of the buffer.
    let counts = if mode == Mode::Overwrite { counts_bytes(ids) as u64 } else { 0 };
    let pages = u32::try_from(bytes / (page + counts)).unwrap_or(u32::MAX).max(LEAST_PAGES);
    let context = wanted.context.empty_len() as u32;
    Ok(Shape { page_bytes: page as u32, pages, ids, mode, context })
}
