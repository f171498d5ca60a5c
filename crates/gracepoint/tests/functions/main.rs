//! The function tracer in a program that is built with sleds: the scenario `blind_spot`, what trampolines keep, how
//! frames end, and a recording of the engine that frees its own callbacks.
//!
//! The program is `crates/gracepoint/tests/sleds`, built here once, in `target/sleds`, with `-Z instrument-xray` and a stable compiler that is told
//! to allow it. `GRACEPOINT_BLIND_SPOT=50000000` makes the scenario as long as that many calls.
#![cfg(all(target_os = "linux", target_arch = "x86_64", not(gp_branch)))]
#![allow(
    clippy::print_stdout,
    reason = "what the program says is for those who look, with --nocapture"
)]

mod own;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds a program of this name, and with what else is given, with sleds; where it is.
fn build(name: &str, more: &[&str]) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the workspace");
    let folder = root.join("target/sleds");
    // With a target of its own the flags are for the program alone, and not for what the compiler runs.
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", "gracepoint-sleds", "--bin", name])
        .args(["--target", TARGET, "--target-dir"])
        .arg(&folder)
        .args(more)
        .current_dir(root)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", "-Z instrument-xray=always -C force-frame-pointers=yes")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("GRACEPOINT_PATCH")
        .output()
        .expect("cargo runs");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    folder.join(TARGET).join("debug").join(name)
}

fn program() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("gracepoint-sleds", &[]))
}

fn command(mode: &str) -> Command {
    let mut command = Command::new(program());
    command.arg(mode).env_remove("GRACEPOINT_RECORDER").stdin(Stdio::null());
    command
}

/// Runs the program in this mode, which must end well and say so.
#[track_caller]
fn says(mut command: Command, words: &str) {
    let output: Output = command.output().expect("the program runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && text.contains(words), "{}\n{text}\n{errors}", output.status);
    println!("{text}");
}

fn calls() -> String {
    std::env::var("GRACEPOINT_BLIND_SPOT").unwrap_or_else(|_| "200000".into())
}

#[test]
fn blind_spot() {
    let mut command = command("blind-spot");
    command.arg(calls());
    says(command, "blind_spot: none");
}

#[test]
fn blind_spot_where_readers_fence() {
    let mut command = command("blind-spot");
    command.arg(calls()).env("GRACEPOINT_RCU", "fence");
    says(command, "blind_spot: none");
}

#[test]
fn blind_spot_where_code_is_written_through_the_kernel() {
    let mut command = command("blind-spot");
    command.arg(calls()).env("GRACEPOINT_PATCH", "mem");
    says(command, "blind_spot: none");
}

#[test]
fn no_instruction_of_a_call_is_a_blind_spot() {
    for rcu in ["", "fence"] {
        let mut command = command("stepped");
        command.env("GRACEPOINT_RCU", rcu);
        says(command, "no instruction is a blind spot");
    }
}

/// Its twin: a trampoline that finds its operations some instructions before its section is counted. Only a thread that stands
/// still in just that window is hurt by it, and there the test above must look.
#[test]
fn an_instruction_that_is_a_blind_spot_is_found() {
    use std::os::unix::process::ExitStatusExt;
    let program = build("gracepoint-sleds-canary", &["--features", "canary"]);
    let command = |mode: &str| {
        let mut command = Command::new(&program);
        command.arg(mode).env_remove("GRACEPOINT_RECORDER").stdin(Stdio::null());
        command
    };
    // It is wrong in that alone.
    says(command("registers"), "all registers are kept");
    says(command("ways"), "every way is right");
    let mut command = command("stepped");
    let output = command.output().expect("the program runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    // What it found was freed, and poisoned: it is called all the same, or not even that can be done any more.
    let called =
        errors.contains("calls after the end") || errors.contains("used after it was freed");
    let crashed = output.status.signal() == Some(libc::SIGSEGV);
    assert!(called || crashed, "{}\n{text}\n{errors}", output.status);
    assert!(!text.contains("no instruction is a blind spot"), "{text}");
}

#[test]
fn trampolines_keep_arguments_and_results() {
    says(command("registers"), "all registers are kept");
}

#[test]
fn frames_end_by_panics_and_on_other_stacks() {
    says(command("frames"), "frames are right");
}

#[test]
fn tail_calls_jumps_and_coroutines_are_followed() {
    says(command("ways"), "every way is right");
}

#[test]
fn functions_of_c_and_cpp_are_traced() {
    let clang =
        Command::new("clang").arg("--version").output().is_ok_and(|out| out.status.success());
    if clang {
        says(command("foreign"), "functions of C and C++ are traced");
    } else {
        says(command("foreign"), "skipped, needs clang");
    }
}

/// One that lies too far away for a call, as the loader has it, once with each way of patching.
#[test]
fn a_library_that_is_loaded_later_is_traced() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sleds/foreign/library.rs");
    let library = program().with_file_name("libsleds_library.so");
    let built = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition=2024", "--crate-type=cdylib", "-O", "-Z", "instrument-xray=always", "-o"])
        .args([&library, &source])
        .env("RUSTC_BOOTSTRAP", "1")
        .output()
        .expect("the compiler runs");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    for way in ["text", "mem"] {
        let mut command = command("loaded");
        command.arg(&library).env("GRACEPOINT_PATCH", way);
        says(command, "the library is traced");
    }
}

/// Without its symbols, which `strip` takes away.
#[test]
fn a_stripped_program_says_what_to_do() {
    let mut file = std::fs::read(program()).expect("the program's file");
    let number = |file: &[u8], at: usize, len: usize| {
        let mut bytes = [0; 8];
        bytes[..len].copy_from_slice(&file[at..at + len]);
        u64::from_le_bytes(bytes) as usize
    };
    let (sections, size, count) =
        (number(&file, 40, 8), number(&file, 58, 2), number(&file, 60, 2));
    const SYMTAB: usize = 2;
    for kind in (0..count).map(|section| sections + section * size + 4) {
        if number(&file, kind, 4) == SYMTAB {
            file[kind..kind + 4].fill(0);
        }
    }
    let stripped = program().with_file_name("gracepoint-sleds-stripped");
    std::fs::write(&stripped, file).expect("room for a copy");
    std::fs::set_permissions(
        &stripped,
        std::fs::metadata(program()).expect("it is there").permissions(),
    )
    .expect("it is ours");
    let mut command = Command::new(&stripped);
    command.arg("registers").stdin(Stdio::null());
    says(
        command,
        "nothing to trace: the names of functions are stripped from this program: build it with `strip = false`",
    );
    let _ = std::fs::remove_file(stripped);
}

#[test]
fn callbacks_are_kept_from_themselves() {
    says(command("recursion"), "the guard holds");
}
