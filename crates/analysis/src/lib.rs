//! Reads traces: decode, merge, report
