//! What a session is made of: which events, with which ids, in how many pages.

use super::{failure, functions};
use crate::glob_any;
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
    /// The events that any of `globs` matches, and those that belong to functions.
    ///
    /// # Errors
    /// `no-match`, if none does and there are no functions.
    pub(super) fn of(
        globs: &[String],
        functions: Option<&functions::Chosen>,
    ) -> Result<Chosen, Failure> {
        let mut events: Vec<_> = tracer::catalogue();
        let theirs = functions.map(functions::Chosen::events).unwrap_or_default();
        let name = |known: &tracer::Known| known.schema.name.clone();
        events.retain(|known| glob_any(globs, &name(known)) || theirs.contains(&name(known)));
        if events.is_empty() && (functions.is_none() || !globs.is_empty()) {
            return Err(failure("no-match", "no event matches"));
        }
        let mut numbers = Numbers { next: FIRST_USER_ID, declared: vec![loss_event()] };
        let mut ids = Vec::new();
        let mut keys = Vec::new();
        for known in events {
            keys.extend(known.keys.iter().map(|&(key, call)| (key, call, ids.len())));
            ids.push(numbers.declare(&known.schema, known.sites > 0, known.spans > 0));
        }
        Ok(Chosen { ids, keys, declared: numbers.declared, next: numbers.next })
    }
}

/// Hands out ids.
struct Numbers {
    next: u32,
    declared: Vec<Declared>,
}

impl Numbers {
    /// Ids of an event, its span's begin and its span's end; unused ones are 0.
    fn declare(&mut self, schema: &Schema, event: bool, span: bool) -> [u32; 3] {
        let mut give = |used: bool, role: Role| {
            if !used {
                return 0;
            }
            let id = self.next;
            self.next += 1;
            self.declared.push(Declared { id, role, schema: schema.clone() });
            id
        };
        [give(event, Role::Event), give(span, Role::Begin), give(span, Role::End)]
    }
}

/// May events be left out?
pub(super) fn is_limited(wanted: &Create) -> bool {
    let Limits { max_rate, sample, max_overhead_ppm } = wanted.limits;
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
