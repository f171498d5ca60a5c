//! Traces made with the encoders of `gracepoint-wire`, read back; whole, cut and damaged.
#![forbid(unsafe_code)]

mod babeltrace;
mod choosing;
mod corruption;
mod counting;
mod drawing;
mod exporting;
mod functions;
mod perfetto;
mod profiling;
mod reading;
mod recording;
mod sample;
mod scheduling;
mod sidecar;
