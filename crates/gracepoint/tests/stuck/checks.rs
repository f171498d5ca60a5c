//! What `gracepoint why` must say of each program.

use crate::scene::{DEADLINE, Program};
use serde_json::Value;

type Check = (&'static str, fn());

pub(crate) const ALL: &[Check] = &[
    ("a_sleeping_reader", sleeping),
    ("a_reader_in_a_signal_handler", handler),
    ("nested_readers", nested),
    ("a_thread_that_has_ended_inside", ended),
    ("a_forgotten_guard", forgotten),
    ("an_owned_guard_across_an_await", owned),
    ("a_callback_that_waits_for_itself", callback_itself),
    ("a_callback_that_blocks", callback_blocks),
    ("an_executor_that_stops", executor),
    ("a_stopped_program_is_read_from_its_memory", stopped),
    ("a_probe_that_blocks_on_io", probe),
    ("a_storm_of_interrupts", storm),
    ("callbacks_that_nobody_drives", driver),
    ("an_agent_that_is_stuck", agent),
    ("memory_and_agent_say_the_same", memory),
    ("the_owner_of_a_pthread_mutex", mutex),
    ("the_owner_of_a_mutex_with_priority_inheritance", pi_mutex),
    ("threads_in_each_others_mutexes", deadlock),
    ("threads_in_each_others_mutexes_with_inheritance", deadlock_of_pi),
    ("threads_in_each_others_mutexes_without_owners", deadlock_of_std),
    ("a_reader_that_spins_has_no_stack_and_that_is_told", spinning),
    ("a_child_is_not_its_parent", child),
    ("a_core_file", core),
    ("a_core_file_that_the_kernel_wrote", core_of_the_kernel),
    ("a_recorder_that_does_not_drain", recorder),
    ("watching_tells_what_is_new", watching),
    ("the_log_has_one_report", watch),
    ("a_program_that_is_not_stuck", fine),
];

/// The chain that explains most.
fn chain(value: &Value) -> &Value {
    let chain = &value["accounts"][0]["chains"][0];
    assert!(chain.is_object(), "{value:#}");
    chain
}

fn words(value: &Value) -> &str {
    chain(value)["words"].as_str().expect("words")
}

/// A culprit, and it is this one; what the chain goes through before.
#[track_caller]
fn assert_culprit(said: &(String, Value), node: &str, through: &[&str]) {
    let (text, value) = said;
    let chain = chain(value);
    assert_eq!(
        (&chain["end"], &chain["verdict"]),
        (&node.into(), &"culprit".into()),
        "{text}\n{value:#}"
    );
    let hops = chain["hops"].as_array().expect("hops");
    let nodes: Vec<&str> = hops.iter().filter_map(|hop| hop["from"].as_str()).collect();
    for part in through {
        assert!(nodes.iter().any(|node| node.starts_with(part)), "{part}: {text}");
    }
    for hop in hops {
        assert!(hop["reading"].is_string() && hop["confidence"] != "guess", "{hop}");
    }
    assert!(text.contains("culprit: "), "{text}");
}

fn task(tid: u32) -> String {
    format!("task:{tid}")
}

/// A reader is to blame; what is said of it.
#[track_caller]
fn reader(kind: &str, parts: &[&str]) -> (Program, (String, Value)) {
    let program = Program::start(kind);
    let culprit = program.culprit();
    let said = program.why(&[]);
    assert_culprit(&said, &task(culprit), &["task:", "gp:routes #"]);
    for part in parts {
        assert!(words(&said.1).contains(part), "{part}: {}", said.0);
    }
    (program, said)
}

fn sleeping() {
    let (program, (text, value)) =
        reader("sleeping", &["sleeper/", "is inside a read section", "sleeps"]);
    assert!(text.contains("in synchronize"), "{text}");
    // Its stack has names, though the program made none.
    if cfg!(target_arch = "x86_64") {
        let stacks = value["accounts"][0]["stacks"].to_string();
        assert!(stacks.contains("sleeps_inside"), "{value:#}");
    }
    let pid = program.pid().to_string();
    let dot = program.tool(&["why", "-p", &pid, "--older-than", "0ms", "--dot"]);
    assert!(dot.text.starts_with("digraph stuck {"), "{}", dot.text);
    let html = program.tool(&["why", "-p", &pid, "--older-than", "0ms", "--html"]);
    assert!(html.text.contains("<svg"), "{}", html.text);
    let named = program.tool(&["why", "--name", "stuck-program", "--older-than", "0ms"]);
    assert_eq!(named.status, 0, "{}", named.errors);
}

fn handler() {
    let parts: &[&str] = if cfg!(target_arch = "x86_64") { &["in a signal handler"] } else { &[] };
    reader("handler", parts);
}

fn nested() {
    reader("nested", &["is inside 2 read sections"]);
}

fn ended() {
    reader("ended", &["has ended inside a read section"]);
}

fn forgotten() {
    let (_, (text, _)) = reader("forgotten", &["entered at", "elsewhere.rs"]);
    if cfg!(target_arch = "x86_64") {
        assert!(text.contains("is not on its stack any more"), "{text}");
    }
}

fn owned() {
    let program = Program::start("owned");
    let said = program.why(&[]);
    assert_culprit(&said, "wait:owned read section `checkout` of domain routes", &["gp:routes #"]);
}

fn callback_itself() {
    let program = Program::start("callback-itself");
    let culprit = program.culprit();
    let (text, value) = program.why(&[]);
    let chain = chain(&value);
    assert_eq!(chain["verdict"], "cycle", "{text}\n{value:#}");
    let hops = chain["hops"].as_array().expect("hops");
    let on_it = |node: &str| hops.iter().any(|hop| hop["from"] == node);
    assert!(on_it(&task(culprit)) && on_it("work:callbacks of routes"), "{text}");
}

fn callback_blocks() {
    let program = Program::start("callback-blocks");
    let culprit = program.culprit();
    for more in [&[][..], &["--from-memory"]] {
        let said = program.why(more);
        assert!(said.0.contains("in barrier"), "{more:?}: {}", said.0);
        assert_culprit(&said, &task(culprit), &["work:callbacks of routes"]);
        // The memory has no names of callbacks; the stack has.
        let named = if more.is_empty() { words(&said.1) } else { &said.0 };
        assert!(named.contains("reads_for_ever"), "{}", said.0);
        assert!(words(&said.1).contains("read of pipe:["), "{}", said.0);
    }
}

fn executor() {
    let program = Program::start("executor");
    let said = program.why(&[]);
    assert_culprit(&said, "queue:the executor of domain routes", &["work:callbacks of routes"]);
}

fn driver() {
    let program = Program::start("driver");
    let said = program.why(&[]);
    assert_culprit(&said, "queue:nobody drives domain routes", &["work:callbacks of routes"]);
}

fn stopped() {
    let program = Program::start("spinning");
    let culprit = program.culprit();
    program.signal(libc::SIGSTOP);
    // The signal is on its way to each thread.
    let state = || std::fs::read_to_string(format!("/proc/{0}/task/{culprit}/stat", program.pid()));
    while !state().expect("it lives").contains(") T ") {
        std::thread::yield_now();
    }
    let said = program.why(&[]);
    assert_culprit(&said, &task(culprit), &["gp:routes #"]);
    assert!(words(&said.1).contains("is stopped"), "{}", said.0);
    assert_eq!(said.1["read_from"], "its memory");
    assert!(said.0.contains("does not answer"), "{}", said.0);
}

fn probe() {
    let program = Program::start("probe");
    let culprit = program.culprit();
    for more in [&[][..], &["--from-memory"]] {
        let said = program.why(more);
        assert!(said.0.contains("in detach_wait"), "{more:?}: {}", said.0);
        assert_culprit(&said, &task(culprit), &["task:", "gp:gracepoint #"]);
        for part in ["worker/", "runs probe `slow` on stuck:hit", "read of pipe:["] {
            assert!(words(&said.1).contains(part), "{part}: {}", said.0);
        }
    }
}

/// Between two of the signals none is pending for a moment: whoever looks just then sees a thread that runs, and looks
/// again. A storm that is never seen runs into the deadline of the harness.
fn storm() {
    let (program, mut said) = reader("storm", &[]);
    let hops = |value: &Value| chain(value)["hops"].as_array().expect("hops").clone();
    let begun = std::time::Instant::now();
    while hops(&said.1).iter().all(|hop| hop["kind"] != "starved-by") {
        assert!(begun.elapsed() < DEADLINE, "no storm was ever seen: {}", said.0);
        said = program.why(&[]);
    }
    let starved = hops(&said.1).into_iter().find(|hop| hop["kind"] == "starved-by");
    assert_eq!(starved.expect("it is there")["to"], "wait:a storm of signal 12");
    assert!(words(&said.1).contains("a storm of signal 12"), "{:#}", said.1);
}

fn agent() {
    let program = Program::start("agent");
    let culprit = program.culprit();
    // Whoever asks for a session makes the agent write to the log, which never returns.
    let pid = program.pid().to_string();
    let record = std::thread::scope(|scope| {
        let record = scope.spawn(|| program.tool(&["start", "-p", &pid, "-e", "all"]));
        program.expect("agent-stuck");
        let (text, value) = program.why(&[]);
        let chains = value["accounts"][0]["chains"].as_array().expect("chains").clone();
        let ends: Vec<&Value> = chains.iter().map(|chain| &chain["end"]).collect();
        assert!(ends.contains(&&task(culprit).into()), "{text}");
        let words = chains.iter().filter_map(|chain| chain["words"].as_str());
        let of_agent = words.into_iter().find(|words| words.contains("is the agent's thread"));
        let of_agent = of_agent.unwrap_or_else(|| panic!("{text}"));
        assert!(of_agent.starts_with("gracepoint/") && of_agent.contains("sleeps"), "{of_agent}");
        program.signal(libc::SIGKILL);
        record.join().expect("it does not panic")
    });
    assert_ne!(record.status, 0);
}

fn memory() {
    for kind in ["sleeping", "nested", "ended", "forgotten", "owned", "callback-blocks", "executor"]
    {
        let program = Program::start(kind);
        let [told, read] = [&[][..], &["--from-memory"]].map(|more| program.why(more));
        assert_eq!(
            (&told.1["read_from"], &read.1["read_from"]),
            (&"agent".into(), &"its memory".into())
        );
        for part in ["end", "verdict"] {
            assert_eq!(
                chain(&told.1)[part],
                chain(&read.1)[part],
                "{kind}: {}\n{}",
                told.0,
                read.0
            );
        }
        let nodes = |value: &Value| -> Vec<String> {
            let hops = chain(value)["hops"].as_array().expect("hops").clone();
            hops.iter().map(|hop| format!("{} {}", hop["from"], hop["kind"])).collect()
        };
        assert_eq!(nodes(&told.1), nodes(&read.1), "{kind}");
    }
}

fn mutex() {
    let program = Program::start("mutex");
    let culprit = program.culprit();
    let (text, value) = program.why(&[]);
    let chain = chain(&value);
    if cfg!(target_arch = "x86_64") {
        assert_eq!(chain["end"], task(culprit), "{text}\n{value:#}");
        assert!(text.contains("pthread mutex at 0x") && text.contains("held by"), "{text}");
    }
}

/// The kernel keeps the owner in the futex: no stack is needed to know what it is.
fn pi_mutex() {
    let program = Program::start("pi-mutex");
    let culprit = program.culprit();
    for more in [&[][..], &["--from-memory"]] {
        let said = program.why(more);
        assert_culprit(
            &said,
            &task(culprit),
            &["gp:routes #", "lock:priority-inheritance mutex at 0x"],
        );
        assert!(words(&said.1).contains("owner/"), "{}", said.0);
    }
}

/// No grace period, callback or task is stuck: two threads wait for each other, with locks that say who has them.
fn deadlock() {
    if !cfg!(target_arch = "x86_64") {
        println!("skipped, needs stacks: what an ordinary mutex is, nothing else tells");
        return;
    }
    for kind in ["deadlock-mixed", "deadlock-pthread"] {
        let program = Program::start(kind);
        let (text, value) = program.why(&["--older-than", "100000s"]);
        let chain = chain(&value);
        assert_eq!(chain["verdict"], "cycle", "{text}\n{value:#}");
        let hops = chain["hops"].as_array().expect("hops");
        assert_eq!(hops.len(), 4, "two threads and two locks: {text}");
        for name in ["left/", "right/"] {
            assert!(text.contains(name), "{name}: {text}");
        }
        assert!(text.contains("wait for each other"), "{text}");
        let held = |hop: &&Value| hop["kind"] == "held-by";
        assert_eq!(hops.iter().filter(held).count(), 2, "{text}");
        let threads = value["threads"].as_array().expect("threads");
        let owned = |thread: &&Value| thread["futex"]["owner"].is_u64();
        assert_eq!(threads.iter().filter(owned).count(), 2, "{value:#}");
        let pid = program.pid().to_string();
        assert_eq!(program.tool(&["why", "-p", &pid]).status, 0, "a culprit was found");
    }
}

/// Of two such mutexes the kernel refuses the one that would close the circle, and the C library sleeps where nobody
/// can wake it. Who has the other is read all the same.
fn deadlock_of_pi() {
    let program = Program::start("deadlock-pi");
    let (text, value) = program.why(&[]);
    let last = chain(&value);
    let hops = last["hops"].as_array().expect("hops");
    assert_eq!(hops.len(), 2, "a thread waits for a lock that the other has: {text}");
    assert_eq!(hops[1]["kind"], "held-by", "{text}");
    assert_eq!(last["verdict"], "culprit", "{text}");
    assert!(text.contains("has waited for a priority-inheritance mutex"), "{text}");
    assert!(text.contains("left/") && text.contains("right/"), "{text}");
    assert!(words(&value).contains("the kernel has found a deadlock"), "{text}");
}

/// Mutexes of std and of parking_lot do not say who has them. That both threads wait is told, and that nobody knows.
fn deadlock_of_std() {
    if !cfg!(target_arch = "x86_64") {
        println!("skipped, needs stacks: without them they are futexes like any other");
        return;
    }
    for (kind, name) in [("deadlock-std", "Mutex of std"), ("deadlock-lot", "Mutex of parking_lot")]
    {
        let program = Program::start(kind);
        let (text, value) = program.why(&[]);
        let chains = value["accounts"][0]["chains"].as_array().expect("chains");
        assert_eq!(chains.len(), 2, "{text}");
        for chain in chains {
            assert_eq!(chain["verdict"], "unknown", "{text}");
            assert!(chain["words"].as_str().is_some_and(|words| words.contains(name)), "{text}");
        }
        for thread in ["left/", "right/"] {
            assert!(text.contains(thread), "{thread}: {text}");
        }
        assert!(text.contains("who has the lock"), "what would tell: {text}");
        let old = program.why(&["--older-than", "100000s"]);
        assert!(
            old.0.contains("lock or agent is stuck"),
            "they have not waited for that long: {}",
            old.0
        );
    }
}

fn spinning() {
    let (_, (text, value)) = reader("spinning", &["runs, or is ready to run"]);
    assert!(text.contains("there is no user stack of a thread that runs"), "{text}");
    assert!(!text.contains("not explained: nothing"), "{text}");
    let collect = value["accounts"][0]["collect"].to_string();
    assert!(collect.contains("gdb -p") && collect.contains("perf record"), "{collect}");
}

fn child() {
    let program = Program::start("fork");
    let child = program.culprit().to_string();
    let said = program.tool(&["why", "-p", &child, "--from-memory"]);
    assert_ne!(said.status, 0, "{}", said.text);
    // Zeros; found by its name where the kernel has names, and else not found.
    let reasons = ["behind the library's back", "it has no page of gracepoint's"];
    assert!(reasons.iter().any(|reason| said.errors.contains(reason)), "{}", said.errors);
}

fn core() {
    for (kind, end) in
        [("nested", None), ("owned", Some("wait:owned read section `checkout` of domain routes"))]
    {
        let program = Program::start(kind);
        let culprit = program.culprit();
        program.signal(libc::SIGSTOP);
        let file = crate::core_file::write(program.pid(), &program.dir);
        let said = program.tool(&["why", "--core", file.to_str().expect("UTF-8"), "--json"]);
        let value: Value = serde_json::from_str(&said.text)
            .unwrap_or_else(|error| panic!("{error}: {}{}", said.text, said.errors));
        assert_eq!(value["read_from"], "core file");
        let end = end.map_or_else(|| task(culprit), str::to_owned);
        assert_eq!((&chain(&value)["end"], said.status), (&end.into(), 0), "{value:#}");
        // Cut in the middle it is an error or says less, and no panic.
        let bytes = std::fs::read(&file).expect("it was written");
        std::fs::write(&file, &bytes[..bytes.len() / 2]).expect("our directory");
        let said = program.tool(&["why", "--core", file.to_str().expect("UTF-8")]);
        assert!((0..=2).contains(&said.status), "{}{}", said.text, said.errors);
    }
}

fn core_of_the_kernel() {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    let mut program = Program::start("dumps-core");
    let culprit = program.culprit();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", program.pid()));
    let limits = limits.expect("it lives");
    let limit = limits.lines().find(|line| line.starts_with("Max core file size"));
    let none = limit.is_none_or(|line| line.split_ascii_whitespace().nth(4) == Some("0"));
    if pattern.contains(['|', '/']) || none {
        println!(
            "skipped, needs core files in the directory of the program: kernel.core_pattern is {pattern:?}, {limit:?}"
        );
        return;
    }
    program.signal(libc::SIGABRT);
    let status = program.child.wait().expect("ours");
    assert!(std::os::unix::process::ExitStatusExt::core_dumped(&status), "{status}");
    let files = std::fs::read_dir(&program.dir).expect("our directory").flatten();
    // The name is the machine's choice: what begins as an ELF file does.
    let file = files
        .map(|entry| entry.path())
        .find(|path| std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF")))
        .expect("a core file");
    let file = file.to_str().expect("UTF-8");
    let said = program.tool(&["why", "--core", file, "--json"]);
    let value: Value = serde_json::from_str(&said.text)
        .unwrap_or_else(|error| panic!("{error}: {}{}", said.text, said.errors));
    assert_eq!(value["read_from"], "core file");
    assert_eq!((&chain(&value)["end"], said.status), (&task(culprit).into(), 0), "{value:#}");
    let text = program.tool(&["why", "--core", file]).text;
    assert!(text.contains("is inside 2 read sections"), "{text}");
    if cfg!(target_arch = "x86_64") {
        assert!(text.contains("programs.rs:"), "its stack has lines: {text}");
    }
}

fn recorder() {
    let program = Program::start("busy");
    let pid = program.pid().to_string();
    let trace = program.dir.join("t.trace");
    let trace = trace.to_str().expect("UTF-8");
    let args = ["record", "-p", &pid, "-e", "all", "--buffer", "64K", "-o", trace];
    let recorder = program.tool_that_goes_on(&args, "recording");
    recorder.stop();
    // The program goes on until there is no room.
    let (text, value) = loop {
        let said = program.why(&[]);
        if said.0.contains("is full and has lost") {
            break said;
        }
    };
    assert_culprit(&(text, value.clone()), &task(recorder.pid()), &["wait:session "]);
    for part in ["does not drain session", "is stopped"] {
        assert!(words(&value).contains(part), "{part}: {value:#}");
    }
}

fn watching() {
    let program = Program::start("sleeping");
    let culprit = program.culprit();
    let pid = program.pid().to_string();
    let args = ["why", "-p", &pid, "--older-than", "0ms", "--watch", "--interval", "10ms"];
    let tool = program.tool_that_goes_on(&args, "culprit: sleeper/");
    assert!(tool.line.contains(&format!("/{culprit} ")), "{}", tool.line);
    program.signal(libc::SIGKILL);
    assert_eq!(tool.end(), 0);
}

fn watch() {
    let program = Program::start("watch");
    let report = program.expect("log stuck:");
    assert!(report.contains("grace period") && report.contains("\"routes\""), "{report}");
    assert!(report.contains("(sleeper)"), "{report}");
}

fn fine() {
    let program = Program::start("driver");
    let pid = program.pid().to_string();
    let said = program.tool(&["why", "-p", &pid, "--older-than", "100000s"]);
    assert_eq!(said.status, 1, "{}", said.errors);
    assert!(said.text.contains("lock or agent is stuck"), "{}", said.text);
    let said = program.tool(&["why"]);
    assert_eq!(said.status, 2);
}
