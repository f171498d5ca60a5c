//! The `gracepoint` command; everything is in the library, so that a demo can be its own tool.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    gracepoint_cli::main_with(std::env::args_os())
}
