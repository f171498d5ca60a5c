//! What the derives accept and refuse, and in which words. The words of the compiler itself change
//! with its version; those in `ui/*.stderr` are from Rust 1.95, and `TRYBUILD=overwrite` writes
//! them anew.

#[test]
fn messages() {
    let tests = trybuild::TestCases::new();
    tests.pass("tests/ui/pass_*.rs");
    tests.compile_fail("tests/ui/fail_*.rs");
}
