//! Benchmarks, each beside its floor and its peers
