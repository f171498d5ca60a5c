//! `cargo gracepoint build`, `run`, `test` and so on: cargo, told to give every function its sleds.
//!
//! The compiler's flag is unstable, and `RUSTC_BOOTSTRAP=1` makes a stable one take it. The target is named, also
//! where it is the host: so the flag is for the program and not for build scripts and macros, and what comes out lies
//! in a folder of its own (`target/x86_64-unknown-linux-gnu`) beside the ordinary build. What is in `RUSTFLAGS`, or else in
//! `target.….rustflags` of cargo's configuration, stays. Everything else is passed on as it is.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program speaks to its user")]

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

const HELP: &str = "\
Build, run or test a program with sleds, so that gracepoint can trace all of its functions

Usage: cargo gracepoint [--instructions N] <build|run|test|bench|install|…> [CARGO'S OPTIONS]

  --instructions N  only functions of at least N instructions, or with a loop; default: all
  -h, --help        this

Examples:
  cargo gracepoint build --release
  cargo gracepoint run --bin kv -- --port 0
  gracepoint record --name kv --functions 'kv::*' --duration 2s && gracepoint graph

Adds `-Z instrument-xray` for the program and its dependencies, with RUSTC_BOOTSTRAP=1 for compilers that are not
nightly, and keeps symbols. The program lies in target/x86_64-unknown-linux-gnu/. Flags in RUSTFLAGS or in
target.….rustflags of cargo's configuration stay; those in build.rustflags are replaced, as cargo does.";

/// What to run.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    args: Vec<OsString>,
    env: Vec<(&'static str, OsString)>,
}

/// What of the environment counts.
#[derive(Debug, Default)]
struct Around {
    encoded: Option<String>,
    rustflags: Option<String>,
    /// The compiler's own target.
    host: String,
}

fn main() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().skip(1).collect();
    // Cargo names the subcommand again.
    if args.first().is_some_and(|arg| arg == "gracepoint") {
        args.remove(0);
    }
    if args.first().is_none_or(|arg| arg == "--help" || arg == "-h" || arg == "help") {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let around = Around {
        encoded: set("CARGO_ENCODED_RUSTFLAGS"),
        rustflags: set("RUSTFLAGS"),
        host: host().unwrap_or_default(),
    };
    let plan = match plan(&args, &around) {
        Ok(plan) => plan,
        Err(why) => {
            eprintln!("cargo-gracepoint: {why}");
            return ExitCode::from(2);
        }
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let error = Command::new(&cargo).args(plan.args).envs(plan.env).exec();
    eprintln!("cargo-gracepoint: cannot run {}: {error}", cargo.to_string_lossy());
    ExitCode::from(2)
}

/// `host: x86_64-unknown-linux-gnu` of `rustc -vV`.
fn host() -> Option<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("-vV").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned)
}

/// Turns the command line into cargo's.
fn plan(args: &[OsString], around: &Around) -> Result<Plan, String> {
    let mut args = args.to_vec();
    let mut flag = "-Zinstrument-xray=always".to_owned();
    if args[0] == "--instructions" {
        let number = args.get(1).and_then(|arg| arg.to_str()?.parse::<u32>().ok());
        let number = number.ok_or("--instructions needs a number")?;
        flag = format!("-Zinstrument-xray=instruction-threshold={number}");
        args.drain(..2);
    }
    if args.first().is_none_or(|arg| arg.to_string_lossy().starts_with('-')) {
        return Err("what should cargo do? `cargo gracepoint build`, or see --help".into());
    }
    let ours = args.iter().take_while(|arg| *arg != "--").cloned().collect::<Vec<_>>();
    let given = target(&ours);
    let target = given.clone().unwrap_or_else(|| around.host.clone());
    if !(target.starts_with("x86_64") && target.contains("linux")) {
        let target =
            if target.is_empty() { "rustc's host, which it does not tell," } else { &target };
        return Err(format!(
            "sleds work on x86_64 Linux, and not on {target}: put #[gracepoint::function] on functions instead"
        ));
    }
    let mut all: Vec<OsString> = Vec::new();
    let mut env = vec![("RUSTC_BOOTSTRAP", OsString::from("1"))];
    for profile in ["CARGO_PROFILE_DEV_STRIP", "CARGO_PROFILE_RELEASE_STRIP"] {
        env.push((profile, "none".into()));
    }
    match (&around.encoded, &around.rustflags) {
        (Some(flags), _) => {
            env.push(("CARGO_ENCODED_RUSTFLAGS", format!("{flags}\x1f{flag}").into()))
        }
        (None, Some(flags)) => env.push(("RUSTFLAGS", format!("{flags} {flag}").into())),
        (None, None) => {
            all.push("--config".into());
            all.push(format!("target.{target}.rustflags=[\"{flag}\"]").into());
        }
    }
    all.push(args[0].clone());
    if given.is_none() {
        all.extend(["--target".into(), OsString::from(&target)]);
    }
    all.extend_from_slice(&args[1..]);
    Ok(Plan { args: all, env })
}

/// The target that the user names.
fn target(args: &[OsString]) -> Option<String> {
    let texts: Vec<&str> = args.iter().map(|arg| OsStr::to_str(arg).unwrap_or_default()).collect();
    let after = texts.iter().position(|arg| *arg == "--target").and_then(|at| texts.get(at + 1));
    let joined = texts.iter().find_map(|arg| arg.strip_prefix("--target="));
    after.copied().or(joined).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "x86_64-unknown-linux-gnu";

    fn of(line: &str, around: Around) -> Result<(String, Vec<String>), String> {
        let args: Vec<OsString> = line.split(' ').map(Into::into).collect();
        let plan = plan(&args, &Around { host: HOST.into(), ..around })?;
        let args: Vec<String> =
            plan.args.iter().map(|a| a.to_string_lossy().into_owned()).collect();
        let flags = plan.env.iter().filter(|(name, _)| name.ends_with("RUSTFLAGS"));
        let flags = flags.map(|(name, value)| format!("{name}={}", value.to_string_lossy()));
        Ok((args.join(" "), flags.collect()))
    }

    #[test]
    fn what_is_given_is_passed_on() {
        let (line, flags) = of("run --release --bin kv -- --target x", Around::default()).unwrap();
        let config = format!("--config target.{HOST}.rustflags=[\"-Zinstrument-xray=always\"]");
        assert_eq!(line, format!("{config} run --target {HOST} --release --bin kv -- --target x"));
        assert_eq!(flags, [""; 0]);
        let (line, _) = of("--instructions 40 test -p a", Around::default()).unwrap();
        assert!(line.contains("[\"-Zinstrument-xray=instruction-threshold=40\"]"), "{line}");
    }

    #[test]
    fn flags_and_targets_of_the_user_stay() {
        let around =
            || Around { rustflags: Some("-Ctarget-cpu=native".into()), ..Around::default() };
        let musl = "x86_64-unknown-linux-musl";
        let (line, flags) = of(&format!("build --target={musl}"), around()).unwrap();
        assert_eq!(line, format!("build --target={musl}"));
        assert_eq!(flags, ["RUSTFLAGS=-Ctarget-cpu=native -Zinstrument-xray=always"]);
        let encoded = Around { encoded: Some("-Ca\x1f-Cb".into()), ..around() };
        let (_, flags) = of("build", encoded).unwrap();
        assert_eq!(flags, ["CARGO_ENCODED_RUSTFLAGS=-Ca\x1f-Cb\x1f-Zinstrument-xray=always"]);
    }

    #[test]
    fn what_cannot_work_is_said() {
        let error = |line: &str| of(line, Around::default()).unwrap_err();
        assert!(
            error("build --target aarch64-unknown-linux-gnu").contains("#[gracepoint::function]")
        );
        assert!(error("--release").starts_with("what should cargo do?"));
        assert!(error("--instructions many build").contains("a number"));
        assert!(error("--instructions 4").starts_with("what should cargo do?"));
    }
}
