//! `gracepoint why` against programs of ours that are stuck: twelve kinds of injected stall, and programs that cannot
//! answer. This very binary is the program and the tool; a stall is complete before the tool looks, so nothing
//! depends on how long anything takes.

#![allow(clippy::print_stdout, reason = "the programs tell the test where they are")]

mod checks;
mod core_file;
mod elsewhere;
mod programs;
mod scene;

use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("--program") => programs::main(&args[2]),
        Some("--cli") => {
            let args = std::iter::once("gracepoint".into()).chain(std::env::args_os().skip(2));
            return gracepoint_cli::main_with(args);
        }
        _ => {}
    }
    let trials = checks::ALL.iter().map(|(name, test)| {
        Trial::test(*name, move || {
            test();
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}
