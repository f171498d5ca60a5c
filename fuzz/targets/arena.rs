//! An arena that a hostile program fills: see `gracepoint_fuzz::arena`.
#![forbid(unsafe_code)]
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gracepoint_fuzz::arena(data));
