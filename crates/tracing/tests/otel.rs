//! With `tracing-opentelemetry` in the same registry, events and begins of spans have the ids of the
//! OpenTelemetry span that they are in.
#![cfg(target_os = "linux")]

use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::sync::{Arc, Mutex};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::prelude::*;

/// Trace and span, as text.
type Ids = Option<(String, String)>;

/// What tracing-opentelemetry itself says of the current span.
fn ids() -> Ids {
    let context = tracing::Span::current().context();
    let span = context.span();
    let ids = span.span_context();
    ids.is_valid().then(|| (ids.trace_id().to_string(), ids.span_id().to_string()))
}

/// Events outside of spans, in one, in one inside of it, in the outer again. What each should have.
fn work() -> Vec<(&'static str, Ids)> {
    let mut want = Vec::new();
    tracing::info!(name: "outside", target: "otel", n = 1);
    want.push(("otel:outside", None));
    {
        let _outer = tracing::info_span!(target: "otel", "outer", user = 7).entered();
        want.push(("otel:outer", None)); // it begins outside of itself
        tracing::info!(name: "in_outer", target: "otel", "first");
        want.push(("otel:in_outer", ids()));
        let around = ids();
        {
            let _inner = tracing::info_span!(target: "otel", "inner").entered();
            want.push(("otel:inner", around.clone()));
            tracing::info!(name: "in_inner", target: "otel", "second");
            want.push(("otel:in_inner", ids()));
        }
        tracing::info!(name: "in_outer_again", target: "otel", "third");
        want.push(("otel:in_outer_again", around));
    }
    tracing::info!(name: "outside_again", target: "otel", n = 2);
    want.push(("otel:outside_again", None));
    want
}

#[test]
fn the_ids_of_the_span_around_are_recorded() {
    let provider = SdkTracerProvider::builder().build();
    let theirs = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    tracing_subscriber::registry().with(gracepoint_tracing::layer()).with(theirs).init();
    work(); // call sites are known from their first hit on

    let seen: Arc<Mutex<Vec<(String, Ids)>>> = Arc::default();
    let into = Arc::clone(&seen);
    let probe = gracepoint::Tracer::global().tracepoints("otel:*").attach(move |view| {
        if view.kind() == gracepoint::HitKind::End {
            return;
        }
        let text = |field| view.get(field).and_then(|v| v.as_str().map(str::to_owned));
        let ids = text("otel_trace").zip(text("otel_span"));
        into.lock().expect("no panic").push((view.name().to_owned(), ids));
    });
    let probe = probe.expect("the sites are known");
    let want = work();
    drop(probe);

    let seen = seen.lock().expect("no panic");
    let seen: Vec<(&str, &Ids)> = seen.iter().map(|(name, ids)| (name.as_str(), ids)).collect();
    let expected: Vec<(&str, &Ids)> = want.iter().map(|(name, ids)| (*name, ids)).collect();
    assert_eq!(seen, expected);
    let inside: Vec<_> = want.iter().filter_map(|(_, ids)| ids.as_ref()).collect();
    assert_eq!(inside.len(), 4, "four are in a span");
    assert!(inside.iter().all(|(trace, span)| trace.len() == 32 && span.len() == 16), "{inside:?}");
    assert!(inside.iter().all(|(trace, _)| *trace == inside[0].0), "one trace");
    assert_ne!(inside[0].1, inside[2].1, "two spans");
}
