//! The same as a layer, for programs that have another subscriber beside.
//!
//! It is filtered per layer, so that a call site that is off for us is on for the others, and the other
//! way round. What has to be remembered of a span lies in its extensions in the registry, and only of those
//! that were recorded.

use crate::visit::{Values, extra};
use crate::{Error, sites, spans, start, tasks};
use gracepoint::dynamic::{Fields, Point};
use std::sync::Arc;
use tracing_core::span::{Attributes, Id, Record};
use tracing_core::{Dispatch, Event, Interest, LevelFilter, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Filtered;
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::registry::LookupSpan;

/// What [`layer`] returns, in a subscriber of type `S`.
pub type LayerOf<S> = Filtered<Installed, OnSites, S>;

/// The layer.
#[derive(Debug, Clone)]
pub struct Installed {
    started: Arc<Result<gracepoint::Status, Error>>,
}

/// Lets through what somebody records.
#[derive(Debug, Clone, Copy)]
pub struct OnSites {
    _private: (),
}

/// What is remembered of a span that is recorded or noted.
struct Recorded {
    point: &'static Point,
    id: u64,
    /// Its begin was recorded.
    begun: bool,
}

impl Recorded {
    /// The point, if more of the span is worth recording.
    fn recorded(&self) -> Option<&'static Point> {
        Some(self.point).filter(|_| self.begun)
    }
}

/// A layer that makes the program traceable, beside whatever else the subscriber does, and starts the agent,
/// as [`gracepoint::init`] does. Whether that went well, its inner layer tells:
///
/// ```
/// use tracing_subscriber::{Registry, prelude::*};
/// let layer = gracepoint_tracing::layer::<Registry>();
/// if let Err(error) = layer.inner().started() {
///     eprintln!("{error}"); // the program goes on, untraced
/// }
/// let subscriber = Registry::default().with(layer);
/// # drop(subscriber);
/// ```
///
/// Records of `log` come through the bridge that `tracing-subscriber` installs (`tracing-log`).
pub fn layer<S>() -> LayerOf<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    if !crate::is_off() {
        sites::announce();
    }
    let started = Arc::new(start(gracepoint::Builder::new()));
    Installed { started }.with_filter(OnSites { _private: () })
}

impl Installed {
    /// Whether the agent was started.
    ///
    /// # Errors
    /// Why it was not.
    pub fn started(&self) -> Result<&gracepoint::Status, &Error> {
        (*self.started).as_ref()
    }
}

impl<S> Filter<S> for OnSites {
    fn callsite_enabled(&self, meta: &'static Metadata<'static>) -> Interest {
        sites::interest(meta)
    }

    fn enabled(&self, meta: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        sites::is_enabled(meta)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        None
    }
}

impl<S> Layer<S> for Installed
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        sites::registered(dispatch);
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let site = sites::of(attributes.metadata());
        let Some(point) = site.point.filter(|_| site.is_on()) else { return };
        let Some(span) = context.span(id) else { return };
        let of = |id: &Id| {
            let parent = context.span(id)?;
            let extensions = parent.extensions();
            extensions.get::<Recorded>().map(|recorded| recorded.id)
        };
        let parent = match attributes.parent() {
            Some(parent) => of(parent),
            None if attributes.is_root() => None,
            None => context.current_span().id().and_then(of),
        };
        let (parent, mut begun) = (parent.unwrap_or(0), false);
        let note = site.is_noted();
        let noting = note
            .then_some(|note: &tasks::Note| note.begin(parent, |visit| attributes.record(visit)));
        let mut begin = |own| {
            begun = point.begin(own, parent, |fields| {
                attributes.record(&mut Values(fields));
                extra(fields, point);
            });
            begun
        };
        let mut own = match note {
            true => spans::open(site, noting, &mut begin),
            false => spans::NOWHERE,
        };
        // Without a note, or a slot for one.
        if own == spans::NOWHERE {
            own = gracepoint::dynamic::span_id();
            begin(own);
        }
        if begun || note {
            span.extensions_mut().insert(Recorded { point, id: own, begun });
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        with(id, &context, |recorded| {
            let record = |fields: &mut Fields<'_>| values.record(&mut Values(fields));
            if let Some(point) = recorded.recorded() {
                point.record(recorded.id, record);
            }
        });
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, context: Context<'_, S>) {
        let mut other = 0;
        with(follows, &context, |recorded| other = recorded.id);
        if other != 0 {
            with(id, &context, |recorded| {
                if let Some(point) = recorded.recorded() {
                    point.follows(recorded.id, other);
                }
            });
        }
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let site = sites::of(event.metadata());
        if crate::records::is_bridged(site.meta) {
            return crate::records::unwrap(event);
        }
        let Some(point) = site.point else { return };
        point.event(|fields| {
            event.record(&mut Values(fields));
            extra(fields, point);
        });
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        with(id, &context, |recorded| {
            if let Some(open) = spans::get(recorded.id) {
                open.enters(recorded.id);
            }
            if let Some(point) = recorded.recorded() {
                point.enter(recorded.id);
            }
        });
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        with(id, &context, |recorded| {
            if let Some(open) = spans::get(recorded.id) {
                open.leaves(recorded.id);
            }
            if let Some(point) = recorded.recorded() {
                point.exit(recorded.id);
            }
        });
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        with(&id, &context, |recorded| {
            spans::drop(recorded.id, |_| {});
            if let Some(point) = recorded.recorded() {
                point.end(recorded.id);
            }
        });
    }
}

/// Runs `tell` with what is remembered of a span, if anything is.
fn with<S>(id: &Id, context: &Context<'_, S>, tell: impl FnOnce(&Recorded))
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    if let Some(span) = context.span(id)
        && let Some(recorded) = span.extensions().get::<Recorded>()
    {
        tell(recorded);
    }
}
