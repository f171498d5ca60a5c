//! Derive macros of gracepoint
