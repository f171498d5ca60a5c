//! Frames on the agent's socket: see `gracepoint_fuzz::control`.
#![forbid(unsafe_code)]
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gracepoint_fuzz::control(data));
