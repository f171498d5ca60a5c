//! The command against programs: each test is a world of its own (see `scene`), in which this very
//! binary is also the traced program.

#![forbid(unsafe_code)]

mod browser;
mod burn;
mod explain;
mod export;
mod fake;
mod fakes;
mod flight;
mod functions;
mod hardship;
mod instance;
mod kernel;
mod profile;
mod programs;
mod reading;
mod real;
mod ring;
mod sampling;
mod scene;
mod sessions;
mod strangers;
mod trace;
mod verbs;
mod view;
mod words;

use libtest_mimic::{Arguments, Trial};

/// A test that fails by panicking.
fn trial((name, test): (&str, fn())) -> Trial {
    Trial::test(name, move || {
        test();
        Ok(())
    })
}

/// Tests that need a program. Without it they are shown as such and not passed over in silence.
fn with(program: &str, kind: &str, tests: Vec<(&'static str, fn())>) -> Vec<Trial> {
    let here = scene::is_installed(program);
    let one = |test| match here {
        true => trial(test),
        false => trial(test).with_kind(kind).with_ignored_flag(true),
    };
    tests.into_iter().map(one).collect()
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|arg| arg == "--program") {
        match args[2].as_str() {
            "fake" => fake::main(&args[3..]),
            _ => return programs::main(&args[2..]),
        }
    }
    let mut trials = fakes::trials();
    trials.extend(reading::trials());
    trials.extend(real::trials());
    trials.extend(explain::trials());
    trials.extend(export::trials());
    trials.extend(flight::trials());
    trials.extend(functions::trials());
    trials.extend(hardship::trials());
    trials.extend(sessions::trials());
    trials.extend(verbs::trials());
    trials.extend(strangers::trials());
    trials.extend(profile::trials());
    trials.extend(sampling::trials());
    trials.extend(kernel::trials());
    trials.extend(instance::trials());
    trials.extend(view::trials());
    trials.extend(words::trials());
    let with_babeltrace = [
        fakes::with_babeltrace(),
        real::with_babeltrace(),
        flight::with_babeltrace(),
        sessions::with_babeltrace(),
        verbs::with_babeltrace(),
    ];
    trials.extend(with("babeltrace2", "skipped, needs babeltrace2", with_babeltrace.concat()));
    trials.extend(with("clang", "skipped, needs clang", functions::with_clang()));
    trials.extend(with(browser::NAME, "skipped, needs chromium", view::with_browser()));
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}
