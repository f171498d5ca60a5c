//! A program that tests build with sleds (`-Z instrument-xray`) and run: each mode does something to the function
//! tracer and says how it went. Without sleds it says that it has none.
//!
//! | mode | what |
//! |---|---|
//! | `blind-spot CALLS` | the scenario: operations come and go while functions are called from everywhere |
//! | `stepped` | operations go after every single instruction of a call |
//! | `registers` | arguments and results survive callbacks that use every register |
//! | `frames` | depth, with panics, other stacks, deep recursion, threads that end inside |
//! | `recursion` | callbacks that call traced functions, and that panic |
//! | `ways` | tail calls, `longjmp`, coroutines |
//! | `loaded PATH` | a shared object with sleds, opened while it runs |
//! | `foreign` | functions of C and C++ |
//! | `serve` | works until standard input ends, with an agent |
#![allow(clippy::print_stdout, reason = "what it prints is what its test looks at")]

mod blind_spot;
mod frames;
mod poison;
mod registers;
mod serve;
mod stepped;
mod traced;
mod ways;

/// What is freed is written over at once, so that whoever uses it then is found out.
#[global_allocator]
static ALLOCATOR: poison::Poisoned = poison::Poisoned;

/// Runs the mode that the first argument names.
///
/// # Panics
/// Where the mode finds what is wrong, or there is none of this name.
pub fn main() {
    let mut args = std::env::args().skip(1);
    let mode = args.next().unwrap_or_default();
    let argument = args.next().unwrap_or_default();
    if let Err(error) = traced::all().find() {
        println!("nothing to trace: {error}");
        return;
    }
    match mode.as_str() {
        "blind-spot" => blind_spot::run(argument.parse().unwrap_or(100_000)),
        "stepped" => stepped::run(),
        "registers" => registers::run(),
        "frames" => frames::run(),
        "recursion" => frames::recursion(),
        "ways" => ways::run(),
        "loaded" => ways::loaded(&argument),
        "foreign" => ways::foreign(),
        "serve" => serve::run(),
        _ => panic!("no mode {mode:?}"),
    }
}
