//! The `metadata` file and the sidecar: see `gracepoint_fuzz::metadata`.
#![forbid(unsafe_code)]
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gracepoint_fuzz::metadata(data));
