//! What must not compile, and in which words: a reference that outlives its guard, a guard that leaves its thread, the
//! guard of another domain. (The same as doctests are documentation: outside of nightly those pass with any error.) The
//! words of the compiler itself change with its version; those in `ui/*.stderr` are from Rust 1.95, and
//! `TRYBUILD=overwrite` writes them anew.
#![cfg(not(miri))]

#[test]
fn guards_and_references() {
    let tests = trybuild::TestCases::new();
    tests.pass("tests/ui/pass_*.rs");
    tests.compile_fail("tests/ui/fail_*.rs");
}
