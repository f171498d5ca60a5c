//! The subscriber that needs no other: no registry, and no allocation for an event or a span.

use crate::visit::{Values, extra};
use crate::{current, sites, spans, tasks};
use tracing_core::span::{Attributes, Current, Id, Record};
use tracing_core::{Dispatch, Event, Interest, LevelFilter, Metadata, Subscriber};

/// Hands everything to Gracepoint; installed by [`init`](crate::init).
///
/// ```
/// let dispatch = tracing_core::Dispatch::new(gracepoint_tracing::Bridge::new());
/// # drop(dispatch);
/// ```
#[derive(Debug)]
pub struct Bridge {
    _private: (),
}

impl Default for Bridge {
    fn default() -> Bridge {
        Bridge::new()
    }
}

impl Bridge {
    /// The agent is the caller's to start, with [`gracepoint::init`].
    #[must_use]
    pub fn new() -> Bridge {
        sites::announce();
        Bridge { _private: () }
    }
}

impl Subscriber for Bridge {
    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        sites::registered(dispatch);
    }

    fn register_callsite(&self, meta: &'static Metadata<'static>) -> Interest {
        sites::interest(meta)
    }

    fn enabled(&self, meta: &Metadata<'_>) -> bool {
        sites::is_enabled(meta)
    }

    /// Whatever its level, a site has to be known to be listed.
    fn max_level_hint(&self) -> Option<LevelFilter> {
        None
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let site = sites::of(attributes.metadata());
        let Some(point) = site.point else { return Id::from_u64(spans::NOWHERE) };
        let parent = match attributes.parent() {
            Some(parent) => parent.into_u64(),
            None if attributes.is_root() => 0,
            None => current::innermost().unwrap_or(0),
        };
        let parent = if parent == spans::NOWHERE { 0 } else { parent };
        let note = site
            .is_noted()
            .then_some(|note: &tasks::Note| note.begin(parent, |visit| attributes.record(visit)));
        Id::from_u64(spans::open(site, note, |id| {
            point.begin(id, parent, |fields| {
                attributes.record(&mut Values(fields));
                extra(fields, point);
            })
        }))
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        let Some(open) = spans::get(id.into_u64()) else { return };
        with(&open, |point| {
            point.record(id.into_u64(), |fields| values.record(&mut Values(fields)));
        });
    }

    fn record_follows_from(&self, id: &Id, follows: &Id) {
        let Some(open) = spans::get(id.into_u64()) else { return };
        with(&open, |point| point.follows(id.into_u64(), follows.into_u64()));
    }

    #[inline]
    fn event(&self, event: &Event<'_>) {
        let site = sites::of(event.metadata());
        if crate::records::is_bridged(site.meta) {
            return crate::records::unwrap(event);
        }
        if let Some(point) = site.point {
            point.event(|fields| {
                event.record(&mut Values(fields));
                extra(fields, point);
            });
        }
    }

    #[inline]
    fn enter(&self, id: &Id) {
        let id = id.into_u64();
        current::enter(id);
        let Some(open) = spans::get(id) else { return };
        open.enters(id);
        with(&open, |point| point.enter(id));
    }

    #[inline]
    fn exit(&self, id: &Id) {
        let id = id.into_u64();
        current::exit(id);
        let Some(open) = spans::get(id) else { return };
        open.leaves(id);
        with(&open, |point| point.exit(id));
    }

    fn clone_span(&self, id: &Id) -> Id {
        spans::clone(id.into_u64());
        id.clone()
    }

    fn try_close(&self, id: Id) -> bool {
        let id = id.into_u64();
        spans::drop(id, |open| {
            if let Some(point) = open.point {
                point.end(id);
            }
        })
    }

    fn current_span(&self) -> Current {
        let innermost = current::innermost();
        match innermost.and_then(|id| Some((id, spans::get(id)?.site()?))) {
            Some((id, site)) => Current::new(Id::from_u64(id), site.meta),
            None => Current::none(),
        }
    }
}

/// Runs `tell` with the tracepoint of an open span whose begin was recorded.
#[inline]
fn with(open: &spans::Open, tell: impl FnOnce(&gracepoint::dynamic::Point)) {
    if let Some(point) = open.point {
        tell(point);
    }
}
