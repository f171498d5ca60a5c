//! What must not compile, and in which words: a reference that outlives its guard, a guard that leaves its thread, the
//! guard of another domain. (The same as doctests are documentation: outside of nightly those pass with any error.) The
//! words of the compiler itself change with its version; those in `ui/*.stderr` are from Rust 1.95, without which the test
//! says that it was skipped. `TRYBUILD=overwrite` writes them anew.
#![cfg(not(miri))]

/// Whether the compiler is the one whose words are in `ui/*.stderr`.
fn has_the_words() -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = std::process::Command::new(rustc).arg("--version").output().expect("a compiler");
    said.stdout.starts_with(b"rustc 1.95.")
}

#[test]
#[allow(clippy::print_stdout, reason = "who runs the tests shall know what was not run")]
fn guards_and_references() {
    if !has_the_words() {
        println!("skipped, needs Rust 1.95: the compiler's words are compared");
        return;
    }
    let tests = trybuild::TestCases::new();
    tests.pass("tests/ui/pass_*.rs");
    tests.compile_fail("tests/ui/fail_*.rs");
}
