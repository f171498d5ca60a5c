//! Checks its own sites, in each way that this program has to switch them: what `scripts/matrix` builds
//! in many ways. Sites that are inlined, generic, in closures and in loops; each must be off, then on,
//! then off, on every way, and the disabled ones must not evaluate their fields.
#![allow(clippy::print_stdout, reason = "it says what it found")]

use gracepoint::__private::switch_sites;
use std::cell::Cell;
use std::hint::black_box;
use std::process::{Command, ExitCode};

/// Something happened.
#[derive(gracepoint::Event)]
#[event(name = "matrix:event")]
struct Happened<'a> {
    n: u64,
    name: &'a str,
}

/// Something took a while.
#[derive(gracepoint::Event)]
#[event(name = "matrix:span")]
struct Lasted {
    n: u64,
}

thread_local! {
    static HITS: Cell<u64> = const { Cell::new(0) };
}

/// Evaluated only where a site is on.
fn counted(n: u64) -> u64 {
    HITS.set(HITS.get() + 1);
    n
}

#[inline(always)]
fn always(n: u64) {
    gracepoint::trace!(Happened { n: counted(n), name: "always" });
}

#[inline(never)]
fn never(n: u64) {
    gracepoint::trace!(Happened { n: counted(n), name: "never" });
}

fn generic<T: Into<u64> + Copy, const N: u64>(n: T) {
    gracepoint::trace!(Happened { n: counted(n.into() + N), name: "generic" });
}

fn span(n: u64) -> u64 {
    let _span = gracepoint::span!(Lasted { n: counted(n) });
    n.wrapping_mul(3)
}

/// Hits each site; returns how many hits there were, and how many of them a site that was on.
fn work() -> (u64, u64) {
    HITS.set(0);
    let n = black_box(5);
    always(n);
    always(n + 1);
    never(n);
    generic::<u64, 1>(n);
    generic::<u32, 2>(6);
    generic::<u8, 3>(7);
    span(n);
    let closure = |n: u64| {
        gracepoint::trace!(Happened { n: counted(n), name: "closure" });
    };
    (0..black_box(9)).for_each(closure);
    (7 + 9, HITS.get())
}

fn check() -> Result<(), String> {
    let expect = |on: bool| match work() {
        (all, hits) if hits == if on { all } else { 0 } => Ok(()),
        (all, hits) => Err(format!("{hits} of {all} hits while {on}")),
    };
    expect(false)?;
    for _ in 0..100 {
        switch_sites("matrix:*", true)?;
        expect(true)?;
        switch_sites("matrix:*", false)?;
        expect(false)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some() {
        return match check() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                println!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    let ways: &[&str] = match gracepoint::patching() {
        "branch" => &["branch"],
        "none" => &[],
        _ => &["text", "mem"],
    };
    let program = std::env::current_exe().expect("a program has a file");
    let mut worked = Vec::new();
    for way in ways {
        let mut again = Command::new(&program);
        let output = again.arg("check").env("GRACEPOINT_PATCH", way).output();
        match output {
            Ok(output) if output.status.success() => worked.push(*way),
            other => {
                println!("{way}: {other:?}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!("ok: {}", worked.join(", "));
    ExitCode::SUCCESS
}
