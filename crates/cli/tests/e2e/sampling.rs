//! Programs that sample themselves, copied stacks, and rates that are lowered when samples cost too much.

use crate::profile::{is_allowed, part, profile};
use crate::real::{assert_ok, go, start};
use crate::scene::{Running, Scene};
use crate::verbs::until;
use libtest_mimic::Trial;
use serde_json::Value;
use std::process::Command;

pub(crate) fn trials() -> Vec<Trial> {
    let tests: [(&str, fn()); 9] = [
        ("a_program_samples_itself", samples_itself),
        ("a_program_that_samples_itself_tells_the_cost", cost_is_told),
        ("a_program_samples_itself_where_the_kernel_does_not", refused_by_the_kernel),
        ("without_the_kernel_a_stranger_has_no_profile", refused_stranger),
        ("a_program_that_samples_itself_too_much_does_so_less", storm_in_program),
        ("a_profile_that_costs_too_much_is_taken_less_often", storm_beside),
        ("rings_that_run_over_become_larger", rings_run_over),
        ("callers_without_frame_pointers_are_found_in_a_copied_stack", copied_by_the_kernel),
        ("a_program_copies_its_stacks_itself", copied_by_itself),
    ];
    tests.into_iter().map(crate::trial).collect()
}

/// Records the burning program, to its end, by a recorder that begins with these words.
fn record(scene: &Scene, mut recorder: Command, more: &[&str], rounds: &str) -> String {
    let mut program = start(scene, &["burn", rounds]);
    let pid = program.pid().to_string();
    recorder.args(["record", "-p", &pid, "--profile", "--freq", "1999", "-o", "t.trace"]);
    recorder.args(more);
    let mut recorder = Running::start(recorder);
    recorder.expect_error("gracepoint: recording ");
    go(&mut program);
    program.expect("done");
    drop(program);
    let said = recorder.end();
    assert_ok(&said);
    said.err
}

/// The parts of the burning program come out, in its spans.
fn assert_parts(scene: &Scene) {
    let profile = profile(scene);
    let samples = profile["samples"].as_u64().unwrap();
    assert!(samples > 30, "{profile:#}");
    // Of n samples a part p is off by at most 5 standard deviations.
    let bound = |p: f64| 500.0 * (p * (1.0 - p) / samples as f64).sqrt() + 2.0;
    for (function, percent) in [("burn_sixty", 60.0), ("burn_thirty", 30.0), ("burn_ten", 10.0)] {
        let found = part(&profile, function);
        let near = (found - percent).abs() < bound(percent / 100.0);
        assert!(near, "{function}: {found} %, {profile:#}");
    }
    let spans = profile["spans"].as_array().unwrap();
    let round = spans.iter().find(|span| span["span"] == "burn:round").unwrap();
    let cpu = profile["cpu_ns"].as_u64().unwrap();
    assert!(round["cpu_ns"].as_u64().unwrap() * 10 > cpu * 8, "{profile:#}");
    assert_eq!(profile["knows_off_cpu"], false);
    let text = scene.run(&["report", "--profile", "t.trace"]);
    let note =
        text.out.lines().find(|line| line.starts_with("the program sampled itself")).unwrap();
    assert!(note.contains("perf_event_paranoid"), "{note}");
    // What is not known is not told as none.
    let is_off =
        |line: &&str| line.contains("/") && line.split_ascii_whitespace().nth(2) == Some("-");
    assert!(text.out.lines().any(|line| is_off(&line)), "{}", text.out);
}

fn samples_itself() {
    let scene = Scene::new();
    record(&scene, scene.gracepoint::<&str>(&[]), &["--in-program"], "400");
    assert_parts(&scene);
}

/// The program's log tells what its samples have cost.
fn cost_is_told() {
    let scene = Scene::new();
    let mut program = start(&scene, &["burn", "1000000"]);
    let pid = program.pid().to_string();
    let more = ["--profile", "--in-program"];
    let recorder = scene.recorder(program.pid(), &more);
    go(&mut program);
    until("there are samples", || {
        let said = scene.run(&["report", "--json", "-e", "gp:sample", "t.trace"]);
        said.out.lines().count() > 10
    });
    recorder.signal(rustix::process::Signal::INT);
    assert_ok(&recorder.end());
    let said = scene.run(&["show", "--log", "-p", &pid]);
    assert!(said.out.contains("samples of itself, the quickest in "), "{}", said.out);
    assert!(said.out.contains(" µs, half of them in at most "), "{}", said.out);
}

/// A process that cannot open perf events, and becomes the command.
pub(crate) fn refusing(scene: &Scene) -> Command {
    let mut command = scene.command(std::env::current_exe().unwrap());
    command.args(["--program", "refuse-perf", env!("CARGO_BIN_EXE_gracepoint")]);
    command
}

fn refused_by_the_kernel() {
    let scene = Scene::new();
    let mut program = start(&scene, &["burn", "400"]);
    let pid = program.pid().to_string();
    let mut recorder = refusing(&scene);
    recorder.args(["record", "-p", &pid, "--profile", "--freq", "1999", "-o", "t.trace"]);
    let mut recorder = Running::start(recorder);
    let note = recorder.expect_error("gracepoint: ");
    assert!(note.contains("seccomp") && note.contains("the program samples itself"), "{note}");
    recorder.expect_error("gracepoint: recording ");
    go(&mut program);
    program.expect("done");
    drop(program);
    assert_ok(&recorder.end());
    assert_parts(&scene);
}

fn refused_stranger() {
    let scene = Scene::new();
    let mut command = refusing(&scene);
    command.args(["profile", "--", "true"]);
    let said = Running::start(command).end();
    assert_eq!(said.status, 125, "{}", said.err);
    assert!(said.err.contains("seccomp") && said.err.contains("record --profile"), "{}", said.err);
}

/// Waits for two records that say that the rate was halved, for this reason.
fn assert_halved(scene: &Scene, why: &str) {
    let mut rates = Vec::new();
    until("the rate is halved twice", || {
        let said = scene.run(&["report", "--json", "-e", "gp:rate", "t.trace"]);
        let events = said.out.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let ours = events.filter(|event| event["fields"]["why"].as_str().unwrap().contains(why));
        rates = ours.map(|event| event["fields"]["hz"].as_u64().unwrap()).collect();
        rates.len() >= 2
    });
    assert_eq!(rates[..2], [500, 250]);
}

fn storm_in_program() {
    let scene = Scene::new();
    let mut program = start(&scene, &["burn", "1000000"]);
    let more = ["--profile", "--in-program", "--freq", "1000", "--max-cpu", "0.0001%"];
    let _recorder = scene.recorder(program.pid(), &more);
    // One recording at a time.
    let pid = program.pid().to_string();
    let said =
        scene.run(&["record", "-p", &pid, "--profile", "--in-program", "-o", "second.trace"]);
    assert!(said.status == 2 && said.err.contains("another recording"), "{}", said.err);
    assert!(!scene.dir.join("second.trace").exists());
    go(&mut program);
    assert_halved(&scene, "of the CPU time");
}

fn storm_beside() {
    let scene = Scene::new();
    let mut program = start(&scene, &["burn", "1000000"]);
    let pid = program.pid().to_string();
    let mut command = scene.gracepoint(&["profile", "-p", &pid, "--freq", "1000", "-o"]);
    command.arg(scene.trace()).args(["--max-cpu", "0.0001%"]);
    let mut profiler = Running::start(command);
    if profiler.expect_error_or_end("gracepoint: profiling ").is_none() {
        assert!(!is_allowed(&profiler.end()));
        return;
    }
    go(&mut program);
    assert_halved(&scene, "of a CPU");
}

/// While nobody reads, switches fill the rings. Samples do not come less often for that.
fn rings_run_over() {
    let scene = Scene::new();
    // Two records for each thread that goes to sleep, of 32 bytes, in rings of 8 MiB together.
    let mut program = start(&scene, &["handoffs", "200000"]);
    let pid = program.pid().to_string();
    let mut command = scene.gracepoint(&["profile", "-p", &pid, "--freq", "97", "-o"]);
    command.arg(scene.trace()).args(["--max-cpu", "100%"]);
    let mut profiler = Running::start(command);
    if profiler.expect_error_or_end("gracepoint: profiling ").is_none() {
        assert!(!is_allowed(&profiler.end()));
        return;
    }
    profiler.signal(rustix::process::Signal::STOP);
    go(&mut program);
    program.expect("done");
    profiler.signal(rustix::process::Signal::CONT);
    // Kernels before 6.0 tell of a loss when there is room again and something more to tell; others when asked.
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    if release.split('.').next().unwrap().parse::<u32>().unwrap() < 6 {
        go(&mut program);
        program.expect("done");
    }
    until("the trace says so", || {
        let said = scene.run(&["report", "--json", "-e", "gp:rate", "t.trace"]);
        let first =
            said.out.lines().next().and_then(|line| serde_json::from_str::<Value>(line).ok());
        first.is_some_and(|event| {
            let fields = &event["fields"];
            assert!(
                fields["why"].as_str().unwrap().ends_with("there is twice as much"),
                "{event:#}"
            );
            assert_eq!(fields["hz"], 97);
            true
        })
    });
    let said = scene.run(&["report", "--profile", "t.trace"]);
    assert!(said.out.contains("records (samples, switches) lost"), "{}", said.out);
}

/// Stacks, as folded lines: `thread;main;outer;inner 12`.
fn folded(scene: &Scene) -> String {
    let said = scene.run(&[
        "export",
        "--profile",
        "--to",
        "folded",
        "--force",
        "-o",
        "a.folded",
        "t.trace",
    ]);
    assert_ok(&said);
    std::fs::read_to_string(scene.dir.join("a.folded")).unwrap()
}

/// Its functions use the frame pointer's register for something else, so that nobody can follow it.
const FRAMELESS: &str = r#"
#define KEEP __attribute__((noinline, noclone))
static volatile unsigned long sink;
KEEP unsigned long inner(unsigned long n) {
    register unsigned long x asm("rbp") = n;
    for (unsigned long i = 0; i < 200000; i++) asm volatile("imul $31, %0\n inc %0" : "+r"(x));
    return x;
}
KEEP unsigned long middle(unsigned long n) {
    unsigned long room[40];
    for (int i = 0; i < 40; i++) room[i] = n + i;
    unsigned long x = inner(n);
    for (int i = 0; i < 40; i++) x += ((volatile unsigned long *)room)[i];
    return x + 1;
}
KEEP unsigned long outer(unsigned long n) { return middle(n + 1) + 2; }
int main(void) { for (int i = 0; i < 3000; i++) sink += outer(i); return 0; }
"#;

fn copied_by_the_kernel() {
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    let scene = Scene::new();
    std::fs::write(scene.dir.join("frameless.c"), FRAMELESS).unwrap();
    let mut compiler = scene.command("cc");
    compiler.args(["-O2", "-fomit-frame-pointer", "-o", "frameless", "frameless.c"]);
    assert!(compiler.status().unwrap().success(), "the compiler that links Rust compiles C");
    let line = "main;outer;middle;inner ";
    let take = |more: &[&str]| {
        let head = ["profile", "--quiet", "--force", "--freq", "999", "-o", "t.trace"];
        let said = scene.run(&[&head, more, &["--", "./frameless"]].concat());
        is_allowed(&said).then(|| {
            assert_ok(&said);
            folded(&scene)
        })
    };
    let Some(found) = take(&["--stack-copy", "8K"]) else { return };
    assert!(found.lines().any(|stack| stack.contains(line)), "{found}");
    // Without the copy nothing leads there: the register is in use.
    let found = take(&[]).unwrap();
    assert!(found.contains("inner ") && !found.contains(line), "{found}");
}

fn copied_by_itself() {
    let scene = Scene::new();
    record(&scene, scene.gracepoint::<&str>(&[]), &["--in-program", "--stack-copy", "4K"], "400");
    assert_parts(&scene);
    let found = folded(&scene);
    let whole = |line: &str| line.contains("burn::burn;") && line.contains("burn_sixty ");
    assert!(found.lines().any(whole), "{found}");
}
