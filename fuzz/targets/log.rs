//! Kernel logs: see `gracepoint_fuzz::log`.
#![forbid(unsafe_code)]
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gracepoint_fuzz::log(data));
