//! Programs that nobody here wrote, recorded from outside as a user does it: an axum server with hyper and
//! h2 under HTTP/1 and HTTP/2 load, and what else must come through whole.
//!
//! This file is three programs: the tests, the command line (`cli …`), and what is traced (`run NAME`).
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the programs speak to the tests")]

#[cfg(target_os = "linux")]
mod checks;
#[cfg(target_os = "linux")]
mod following;
#[cfg(target_os = "linux")]
mod programs;
#[cfg(target_os = "linux")]
mod stuck;
#[cfg(target_os = "linux")]
mod trace;

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("0 passed, 0 failed");
}

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("cli") => gracepoint_cli::main_with(args[1..].iter().map(Into::into)),
        Some("run") => {
            programs::run(&args[2], args.get(3).and_then(|n| n.parse().ok()).unwrap_or(0));
            std::process::ExitCode::SUCCESS
        }
        _ => libtest_mimic::run(&libtest_mimic::Arguments::from_args(), checks::all()).exit_code(),
    }
}
