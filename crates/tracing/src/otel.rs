//! The ids of the OpenTelemetry span that an event is in, or a span begins in: those of the thread's current
//! context, which `tracing-opentelemetry` sets as long as a span is entered. As text, as people look for
//! them elsewhere: 32 and 16 hexadecimal digits.

use gracepoint::dynamic::{Fields, Point};
use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt;

/// Puts them into a call site's last two fields; where there is no such span, nothing.
pub(crate) fn extra(fields: &mut Fields<'_>, point: &Point) {
    Context::map_current(|context| {
        let span = context.span();
        let ids = span.span_context();
        if ids.is_valid() {
            fields.display(point.fields() - 2, &ids.trace_id());
            fields.display(point.fields() - 1, &ids.span_id());
        }
    });
}
