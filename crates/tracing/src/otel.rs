//! The ids of the OpenTelemetry span that an event or a span is in, where its layer is in the registry.
