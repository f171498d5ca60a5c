//! From `tracing`'s values to those of a tracepoint.

use gracepoint::dynamic::Fields;
use std::error::Error;
use std::fmt::Debug;
use tracing_core::field::{Field, Visit};

/// Fields that each call site has beside its own: the ids of OpenTelemetry.
#[cfg(feature = "opentelemetry")]
pub(crate) const EXTRA: [&str; 2] = ["otel_trace", "otel_span"];
#[cfg(not(feature = "opentelemetry"))]
pub(crate) const EXTRA: [&str; 0] = [];

/// Fills them.
#[cfg(not(feature = "opentelemetry"))]
#[inline(always)]
pub(crate) fn extra(_: &mut Fields<'_>, _: &gracepoint::dynamic::Point) {}

#[cfg(feature = "opentelemetry")]
pub(crate) use crate::otel::extra;

/// Puts values where the call site's fields are.
pub(crate) struct Values<'f, 'r>(pub(crate) &'f mut Fields<'r>);

impl Visit for Values<'_, '_> {
    #[inline]
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.f64(field.index(), value);
    }

    #[inline]
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.i64(field.index(), value);
    }

    #[inline]
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.u64(field.index(), value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.0.i128(field.index(), value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.0.u128(field.index(), value);
    }

    #[inline]
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.bool(field.index(), value);
    }

    #[inline]
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.str(field.index(), value);
    }

    fn record_bytes(&mut self, field: &Field, value: &[u8]) {
        self.0.bytes(field.index(), value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.0.display(field.index(), value);
    }

    #[inline]
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.debug(field.index(), value);
    }
}
