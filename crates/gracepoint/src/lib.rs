//! Tracepoints for Rust programs that cost a NOP until somebody switches them on
