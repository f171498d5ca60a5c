//! Grace periods of the program's own domains as events.
//!
//! The engine of grace periods cannot use tracepoints: it would wait for itself. It tells an observer, and the
//! one here hits a tracepoint for each thing it is told. They are declared when somebody asks for the observer, so
//! programs without domains of their own do not list them. The tracer's own domain is not observed: a probe on its
//! grace periods would begin further ones by its own end. `gracepoint why` tells of that domain.

use crate::dynamic::{Declaration, Point, declare};
use gracepoint_rcu::{Event, Observer};
use std::sync::LazyLock;
use std::time::Duration;

struct Events {
    began: &'static Point,
    ended: &'static Point,
    callbacks: &'static Point,
    panicked: &'static Point,
    stalled: &'static Point,
    callback_stalled: &'static Point,
}

static EVENTS: LazyLock<Events> = LazyLock::new(|| Events {
    began: point("rcu:grace_period_begin", &["number"]),
    ended: point("rcu:grace_period_end", &["number", "duration_ns", "heavy_barriers"]),
    callbacks: point("rcu:callbacks", &["count", "duration_ns"]),
    panicked: point("rcu:callback_panic", &["message"]),
    stalled: point("rcu:stall", &["number", "age_ns", "waiters", "callbacks", "what"]),
    callback_stalled: point("rcu:callback_stall", &["name", "age_ns", "behind", "what"]),
});

fn point(name: &str, fields: &[&str]) -> &'static Point {
    let fields = [&["domain"], fields].concat();
    declare(Declaration {
        name: name.into(),
        file: file!().into(),
        line: line!(),
        fields: fields.into_iter().map(String::from).collect(),
        ..Declaration::default()
    })
}

/// What to give to [`gracepoint_rcu::Domain::observe`], so that the domain's grace periods are events of this
/// program: `rcu:grace_period_begin` and `_end`, `rcu:callbacks`, `rcu:callback_panic`, `rcu:stall` and
/// `rcu:callback_stall`, each with the `domain`'s name. Numbers and lengths are [`gracepoint_rcu::Event`]'s, lengths in
/// nanoseconds; `what` is the stall in words: who waits, and who holds it up.
///
/// They are hit on the thread that drives or waits. While they are off, each costs a load, once for a grace period or
/// a turn of callbacks, and nothing for a read section. A probe of yours on them must not wait for the
/// domain that they tell of.
///
/// ```
/// use gracepoint_rcu::Domain;
///
/// static ROUTES: Domain = Domain::new("routes");
/// ROUTES.observe(gracepoint::rcu_events()); // then: gracepoint record -e 'rcu:*'
/// ROUTES.synchronize().expect("not inside a section");
/// ```
pub fn rcu_events() -> &'static dyn Observer {
    &*EVENTS
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Observer for Events {
    fn event(&self, domain: &str, event: &Event<'_>) {
        let _ = match event {
            Event::GracePeriodBegan { number, .. } => self.began.event(|fields| {
                fields.str(0, domain);
                fields.u64(1, *number);
            }),
            Event::GracePeriodEnded { number, duration, heavy_barriers, .. } => {
                self.ended.event(|fields| {
                    fields.str(0, domain);
                    fields.u64(1, *number);
                    fields.u64(2, ns(*duration));
                    fields.u64(3, *heavy_barriers);
                })
            }
            Event::CallbacksRan { count, duration, .. } => self.callbacks.event(|fields| {
                fields.str(0, domain);
                fields.u64(1, *count as u64);
                fields.u64(2, ns(*duration));
            }),
            Event::CallbackPanicked { message, .. } => self.panicked.event(|fields| {
                fields.str(0, domain);
                fields.str(1, message);
            }),
            Event::GracePeriodStalled { stall, .. } => self.stalled.event(|fields| {
                fields.str(0, domain);
                fields.u64(1, stall.grace_period.number);
                fields.u64(2, ns(stall.age));
                fields.u64(3, (stall.waiters.len() + stall.async_waiters) as u64);
                fields.u64(4, stall.callbacks.number as u64);
                fields.display(5, stall);
            }),
            Event::CallbackStalled { running, .. } => self.callback_stalled.event(|fields| {
                fields.str(0, domain);
                fields.str(1, running.name);
                fields.u64(2, ns(running.ran_for));
                fields.u64(3, running.behind.number as u64);
                fields.display(4, running);
            }),
            _ => false,
        };
    }
}
