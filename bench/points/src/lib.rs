//! Two thousand tracepoints, `points:p0` and so on, and as many callsites of `tracing`. The build
//! script writes them.
#![forbid(unsafe_code)]

include!(concat!(env!("OUT_DIR"), "/points.rs"));
