//! Stream files of a trace: see `gracepoint_fuzz::packets`.
#![forbid(unsafe_code)]
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gracepoint_fuzz::packets(data));
