//! Kernel logs, explained: chains, cycles, the kernel's own words, and logs that are damaged.
//!
//! The logs in `hang/` were written for these tests, in the layouts of different kernels.

use gracepoint_analysis::hang::{Confidence, Explanation, Node, Verdict, explain};

#[path = "hang/journals.rs"]
mod journals;
#[path = "hang/kinds.rs"]
mod kinds;
#[path = "hang/memory.rs"]
mod memory;

const TEARDOWN: &[u8] = include_bytes!("hang/teardown-stall.log");
const OWNER: &[u8] = include_bytes!("hang/owner.log");
const TWO_LOCKS: &[u8] = include_bytes!("hang/two-locks.log");
const LOCK_ORDER: &[u8] = include_bytes!("hang/lock-order.log");
const POOL: &[u8] = include_bytes!("hang/worker-pool.log");

const ARM64: &[u8] = include_bytes!("hang/arm64.log");
const PPC: &[u8] = include_bytes!("hang/ppc.log");

fn read(log: &[u8]) -> Explanation {
    explain(log).expect("a slice can be read")
}

/// The first chain as its nodes, and the verdict.
fn chain(explanation: &Explanation) -> (Vec<String>, Verdict) {
    let chain = &explanation.accounts[0].chains[0];
    let mut nodes: Vec<String> = chain.hops.iter().map(|hop| hop.from.to_string()).collect();
    nodes.extend(chain.hops.last().map(|hop| hop.to.to_string()));
    (nodes, chain.verdict)
}

#[test]
fn teardown_waits_for_srcu_that_waits_for_rcu_that_a_storm_starves() {
    let explanation = read(TEARDOWN);
    let (nodes, verdict) = chain(&explanation);
    let want = [
        "task:4086",
        "gp:srcu:tracepoint_srcu",
        "task:9",
        "gp:rcu",
        "task:4093",
        "wait:interrupt storm (perf)",
    ];
    assert_eq!(nodes, want);
    assert_eq!(verdict, Verdict::Culprit);
    let account = &explanation.accounts[0];
    assert_eq!(account.chains[0].end, Node::Task(4093));
    assert_eq!(account.chains[0].explains, 3, "both hung tasks and the stall");
    assert_eq!(account.besides[0].name, "interrupt storm (perf)");
    assert_eq!(account.besides[0].count, 3);
    assert!(account.unexplained.is_empty());
    let text = explanation.to_text();
    assert!(text.contains("perf_trace_event_unreg"), "{text}");
    assert!(text.contains("repro2/4093 is ready to run and starved"), "{text}");
    assert!(!text.contains("commit"), "nobody is blamed: {text}");
}

#[test]
fn the_kernels_word_on_an_owner_is_taken() {
    let explanation = read(OWNER);
    let account = &explanation.accounts[0];
    let held = account.edges.iter().find(|e| e.to == Node::Task(5300)).expect("an owner");
    assert_eq!(held.confidence, Confidence::Printed);
    let (nodes, verdict) = chain(&explanation);
    assert_eq!(nodes.last().map(String::as_str), Some("wait:queue freeze"));
    assert_eq!(verdict, Verdict::Unknown);
}

#[test]
fn two_locks_in_two_orders_are_a_cycle() {
    let explanation = read(TWO_LOCKS);
    let (nodes, verdict) = chain(&explanation);
    assert_eq!(verdict, Verdict::Cycle, "{nodes:?}");
    assert_eq!(nodes.first(), nodes.last());
    for name in ["task:701", "task:702", "lock:first_mutex", "lock:second_rwsem"] {
        assert!(nodes.iter().any(|n| n == name), "{name} is not in {nodes:?}");
    }
    assert_eq!(explanation.title.as_deref(), Some("INFO: task hung in first_then_second"));
}

#[test]
fn the_switch_of_stacks_that_other_architectures_print_hides_nothing() {
    let (nodes, _) = chain(&read(ARM64));
    assert_eq!(nodes, ["task:77", "lock:mutex in qx_put_super", "task:90", "gp:rcu"]);
    let (nodes, _) = chain(&read(PPC));
    assert_eq!(nodes, ["task:701", "wait:thread to stop", "task:612", "gp:rcu-barrier"]);
    // As kernels for big-endian ppc64 print it, and mips.
    let dots = String::from_utf8_lossy(PPC).replace("] __switch_to", "] ._switch");
    let dots = dots.replace("] schedule", "] .schedule").replace("] wait_for", "] .wait_for");
    let resume = String::from_utf8_lossy(ARM64).replace("__switch_to", "resume");
    assert_eq!(chain(&read(dots.as_bytes())).0, nodes);
    assert_eq!(chain(&read(resume.as_bytes())), chain(&read(ARM64)));
}

const TASK_DUMP: &[u8] = include_bytes!("hang/task-dump.log");

#[test]
fn the_dump_of_a_task_says_what_runs_on_a_cpu() {
    let explanation = read(TASK_DUMP);
    let (nodes, verdict) = chain(&explanation);
    assert_eq!(nodes, ["task:977", "gp:rcu", "cpu:3", "task:233"]);
    assert_eq!(verdict, Verdict::Culprit);
    let chain_told = &explanation.accounts[0].chains[0];
    assert_eq!(chain_told.words, "kworker/3:2/233 runs on CPU 3 in qx_refill_ring");
    assert_eq!(chain_told.hops[2].confidence, Confidence::Printed);
    assert_eq!(explanation.accounts[0].stacks[1].work.as_deref(), Some("events qx_refill_work"));

    let text = String::from_utf8_lossy(TASK_DUMP);
    // A CPU that is idle when it is asked has nobody to blame on it.
    let idle = text.replace("kworker/3:2 ", "swapper/3 ").replace("pid:  233", "pid:    0");
    let idle = read(idle.as_bytes());
    assert_eq!(chain(&idle).1, Verdict::Unknown);
    assert!(idle.to_text().contains("CPU 3 was idle when it was looked at"), "{}", idle.to_text());
    // The head of the dump belongs to the task in the next line, and to no other.
    let lost: String = text
        .lines()
        .map(|line| if line.contains("kworker/3:2") { "[  511.2][    C1] lost" } else { line })
        .map(|line| line.to_owned() + "\n")
        .collect();
    let lost = read(lost.as_bytes());
    assert_eq!(chain(&lost).0.last().map(String::as_str), Some("cpu:3"));
    assert!(lost.to_text().contains("does not show what CPU 3 does"), "{}", lost.to_text());
}

/// Who waits for an expedited grace period prints the report about it, and may be the task that runs
/// on the CPU that is reported.
#[test]
fn who_prints_a_report_does_not_hold_up_what_it_waits_for() {
    let log = b"rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 2-... } 10886 jiffies s: 25\n\
        Task dump for CPU 2:\n\
        qx_init         R  running task    28272     1      0 0x00004000\n\
        Call Trace:\n sched_show_task.cold+0x2da/0x33e\n rcu_exp_wait_wake.cold+0x4a0/0x7ef\n \
        synchronize_rcu_expedited+0x502/0x5f0\n qx_init_tables+0x17b/0x67d\n kernel_init+0xd/0x1c0\n";
    let explanation = read(log);
    let (nodes, verdict) = chain(&explanation);
    assert_eq!((nodes.last().map(String::as_str), verdict), (Some("cpu:2"), Verdict::Unknown));
    assert!(
        explanation.to_text().contains("CPU 2 printed the report"),
        "{}",
        explanation.to_text()
    );
}

#[test]
fn who_is_ready_to_run_is_told_with_what_it_does() {
    let told = |explanation: &Explanation| explanation.accounts[0].chains[0].words.clone();
    assert_eq!(told(&read(POOL)), "kworker/1:2/77 is ready to run, or runs in bus_read_slow");
    let ready = b"BUG: workqueue lockup - pool cpus=1 node=0 flags=0x0 nice=0 stuck for 43s!\n\
        Showing busy workqueues and worker pools:\n\
        workqueue events: flags=0x0\n\
        \x20 pwq 6: cpus=1 node=0 flags=0x0 nice=0 active=2/256 refcnt=3\n\
        \x20   in-flight: 45:spin_work\n\
        task:kworker/1:1     state:R  running task     stack:0 pid:45 ppid:2 flags:0x00004000\n\
        Workqueue: events spin_work\n\
        Call Trace:\n <TASK>\n ";
    let bare = read(&[ready.as_slice(), b"</TASK>\n"].concat());
    assert_eq!(told(&bare), "kworker/1:1/45 is ready to run, or runs in the work spin_work");
    let stack = b"__schedule+0x1/0x9\n preempt_schedule_irq+0x1/0x9\n asm_sysvec_apic_timer_interrupt+0x1/0x9\n \
        spin_work+0x1/0x9\n process_one_work+0x1/0x9\n </TASK>\n";
    let full = read(&[ready.as_slice(), stack].concat());
    assert_eq!(told(&full), "kworker/1:1/45 is ready to run, or runs in spin_work");
}

#[test]
fn every_transport_tells_the_same() {
    type Prefix = fn(usize) -> String;
    let prefixes: &[Prefix] = &[
        |_| "[Thu Nov 27 10:00:00 2026] ".to_owned(),
        |_| "kern  :err   : [Thu Nov 27 10:00:00 2026] ".to_owned(),
        |at| format!("kern  :info  : [  100.{at:06}] "),
        |at| format!("2026-11-27T10:00:00,{at:06}+00:00 "),
        |at| format!("kern  :crit  : 2026-11-27T10:00:00,{at:06}+00:00 "),
        |at| if at == 0 { "[Nov27 10:00] ".to_owned() } else { format!("[  +0.{at:06}] ") },
        |at| format!("[  100.{at:06} <    0.000001>] "),
        |_| "Nov 27 10:00:00 box kernel[0]: ".to_owned(),
        |_| "Nov 27 10:00:00 box kernel: ".to_owned(),
        |at| format!("[2026-11-27 10:00:00]  [  100.{at:06}] "),
        |at| format!("[2026-11-27 10:00:00.123] <3>[  100.{at:06}][   T41] "),
        |at| format!("\x1b[32m[  100.{at:06}] \x1b[0m"),
    ];
    for log in [OWNER, TWO_LOCKS, TEARDOWN] {
        let bare: Vec<String> = String::from_utf8_lossy(log)
            .lines()
            .map(|line| line.get(3..).filter(|rest| rest.starts_with("[  ")).unwrap_or(line))
            .map(|line| match line.split_once("] ") {
                Some((time, rest)) if line.starts_with("[ ") && time.contains('.') => rest,
                _ => line,
            })
            .map(str::to_owned)
            .collect();
        for prefix in prefixes {
            let lines = bare.iter().enumerate().map(|(at, line)| prefix(at) + line + "\n");
            let text: String = lines.collect();
            let explanation = read(text.as_bytes());
            assert_eq!(chain(&explanation), chain(&read(log)), "{text}");
            assert_eq!(explanation.title, read(log).title, "{text}");
        }
    }
}

#[test]
fn names_from_a_log_do_not_reach_a_terminal_alive() {
    let log = b"INFO: task a\x1b[2J\xff\xe2\x80\xae:12 blocked for more than 120 seconds.\n\
        task:a\x1b[2J\xff state:D stack:0 pid:12 ppid:1 flags:0x0\n\
        Call Trace:\n schedule+0x1/0x2\n synchronize_rcu+0x1/0x2\n";
    let explanation = read(log);
    for text in [explanation.to_text(), explanation.to_json(), explanation.to_dot()] {
        assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text:?}");
    }
    assert!(serde_json::from_str::<serde_json::Value>(&explanation.to_json()).is_ok());
}

#[test]
fn a_log_without_a_hang_says_so() {
    let explanation = read(b"[    0.000000] nothing to see\n");
    assert!(explanation.accounts.is_empty());
    assert_eq!(explanation.verdict(), None);
    assert!(explanation.to_text().contains("no hang"));
}

#[test]
fn a_pause_separates_incidents() {
    let later = String::from_utf8_lossy(TWO_LOCKS).replace("[  410.", "[ 9410.");
    let both = [TWO_LOCKS, later.as_bytes()].concat();
    assert_eq!(read(&both).accounts.len(), 2);
}

#[test]
fn incidents_that_are_left_out_are_counted() {
    let many = |incidents: u32| {
        let mut log = String::new();
        for at in 0..incidents {
            log += &String::from_utf8_lossy(TWO_LOCKS).replace("[  410.", &format!("[ {at}9410."));
        }
        read(log.as_bytes())
    };
    let all = many(32);
    assert_eq!((all.accounts.len(), all.incidents_left_out), (32, 0));
    assert!(!all.to_text().contains("left out") && !all.to_report().contains("left out"));
    let more = many(35);
    assert_eq!((more.accounts.len(), more.incidents_left_out), (32, 3));
    assert!(more.to_text().ends_with("\n3 more incidents were left out: the first 32 are told\n"));
    assert!(more.to_report().contains("3 more incidents were left out"));
    assert!(more.to_html().contains("3 more incidents were left out"));
    assert!(more.to_json().contains("\"incidents_left_out\":3"));
    assert!(many(33).to_text().contains("1 more incident was left out"));
}

#[test]
fn a_title_without_a_place_is_told_to_people_in_words() {
    let torn = read(b"INFO: task x:12 blocked for more than 120 seconds.\n");
    assert_eq!(torn.title.as_deref(), Some("INFO: task hung in corrupted"), "as a tracker has it");
    assert!(torn.to_json().contains("hung in corrupted"));
    for text in [torn.to_text(), torn.to_html(), torn.to_report()] {
        assert!(text.contains("INFO: task hung in an unknown place"), "{text}");
        assert!(!text.contains("corrupted"), "{text}");
    }
}

#[test]
fn a_log_of_any_length_fits() {
    let mut log = Vec::new();
    for pid in 1..20_000 {
        log.extend_from_slice(
            format!(
                "INFO: task x:{pid} blocked for more than 120 seconds.\n\
                 task:x state:D stack:0 pid:{pid} ppid:1 flags:0x0\nCall Trace:\n \
                 schedule+0x1/0x2\n __mutex_lock+0x1/0x2\n rtnl_lock+0x1/0x2\n"
            )
            .as_bytes(),
        );
    }
    let explanation = read(&log);
    assert!(explanation.accounts[0].dropped > 0);
    assert!(!explanation.to_text().is_empty());
}

const JOURNAL: &[u8] = include_bytes!("hang/journal.log");
const ARRAY: &[u8] = include_bytes!("hang/array.log");
const RTNL: &[u8] = include_bytes!("hang/rtnl.log");
const INTERRUPTED: &[u8] = include_bytes!("hang/interrupted.log");
const PREEMPTED: &[u8] = include_bytes!("hang/preempted.log");

fn first_stack(log: &[u8]) -> Vec<String> {
    let explanation = read(log);
    let frames = &explanation.accounts[0].stacks[0].frames;
    frames.iter().map(|frame| frame.function.clone()).collect()
}

#[test]
fn an_interrupt_that_only_prints_hides_nothing_of_the_task_below_it() {
    let stack = first_stack(INTERRUPTED);
    let want = ["native_queued_spin_lock_slowpath", "_raw_spin_lock", "qx_flush", "qx_ioctl"];
    assert_eq!(stack[..4], want);
}

#[test]
fn where_a_task_was_preempted_is_part_of_its_stack() {
    let stack = first_stack(PREEMPTED);
    assert_eq!(stack[3..6], ["asm_sysvec_reschedule_ipi", "qx_scan_table", "qx_ioctl"]);
}

#[test]
fn a_commit_waits_for_the_handle_of_a_task_that_waits_elsewhere() {
    let explanation = read(JOURNAL);
    let (nodes, verdict) = chain(&explanation);
    let want = [
        "task:2210",
        "commit:jbd2 dm-3-8",
        "task:412",
        "wait:handles of the transaction",
        "task:2377",
        "io:dm-3",
    ];
    assert_eq!((nodes, verdict), (want.map(str::to_owned).to_vec(), Verdict::Culprit));
    assert_eq!(explanation.accounts[0].chains[0].same_root, [2300]);
}

#[test]
fn an_array_waits_for_what_it_is_made_of_and_not_for_itself() {
    let explanation = read(ARRAY);
    let (nodes, verdict) = chain(&explanation);
    let want = ["task:3120", "lock:&md->suspend_lock", "task:3100", "io:md127", "task:880"];
    assert_eq!(nodes[..5], want);
    assert_eq!(nodes.last().map(String::as_str), Some("io:what is below md127"));
    assert_eq!(verdict, Verdict::Unknown, "nothing says which member, or why");
}

#[test]
fn a_work_that_needs_the_lock_of_who_waits_for_it_is_found_through_both() {
    let explanation = read(RTNL);
    let (nodes, verdict) = chain(&explanation);
    assert_eq!(verdict, Verdict::Cycle, "{nodes:?}");
    for name in ["task:880", "task:33", "lock:rtnl_mutex"] {
        assert!(nodes.iter().any(|node| node == name), "{name} is not in {nodes:?}");
    }
}

#[test]
fn a_server_that_does_not_answer_is_no_culprit() {
    let log = b"INFO: task cp:71 blocked for more than 122 seconds.\n\
        task:cp state:D stack:0 pid:71 tgid:71 ppid:1 flags:0x0\n\
        Call Trace:\n schedule+0x1/0x2\n io_schedule+0x1/0x2\n folio_wait_bit_common+0x1/0x2\n \
        folio_wait_writeback+0x1/0x2\n filemap_write_and_wait_range+0x1/0x2\n nfs_wb_all+0x1/0x2\n \
        nfs4_file_flush+0x1/0x2\n filp_close+0x1/0x2\n";
    let explanation = read(log);
    let (nodes, verdict) = chain(&explanation);
    assert_eq!((nodes[1].as_str(), verdict), ("io:the NFS server", Verdict::Unknown));
}

#[test]
fn lockups_that_interrupts_do_not_reach_have_a_title() {
    let log = b"watchdog: Watchdog detected hard LOCKUP on cpu 3\n\
        CPU: 3 UID: 0 PID: 233 Comm: kworker/3:2 Not tainted 6.12.9 #1\n\
        RIP: 0010:native_queued_spin_lock_slowpath+0x6e/0x2c0\n\
        Call Trace:\n <TASK>\n _raw_spin_lock_irqsave+0x3d/0x50\n drain_fifo+0x2c/0xa0\n \
        drain_fifo_work+0x1c/0x30\n process_one_work+0x18c/0x350\n kthread+0xf4/0x130\n </TASK>\n";
    assert_eq!(read(log).title.as_deref(), Some("BUG: hard lockup in drain_fifo_work"));
}

/// Numbers that a run can repeat.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap_or(0) % most.max(1)
    }
}

/// Bytes changed, removed, repeated, lines swapped and mixed.
fn corrupt(dice: &mut Dice) -> Vec<u8> {
    let logs = [TEARDOWN, OWNER, TWO_LOCKS];
    let mut log = logs[dice.below(3)].to_vec();
    for _ in 0..dice.below(40) {
        let at = dice.below(log.len());
        let to = (at + dice.below(200)).min(log.len());
        match dice.below(6) {
            0 => log[at] = u8::try_from(dice.below(256)).unwrap_or(0),
            1 => drop(log.drain(at..to)),
            2 => {
                let piece = log[at..to].to_vec();
                let place = dice.below(log.len());
                log.splice(place..place, piece);
            }
            3 => log.truncate(at.max(1)),
            4 => {
                let other = logs[dice.below(3)];
                let from = dice.below(other.len());
                let end = (from + dice.below(400)).min(other.len());
                log.splice(at..at, other[from..end].iter().copied());
            }
            _ => log
                .splice(
                    at..at,
                    [0, b'\n', 0xff, b'[', b'#', b'<', b'-'][..dice.below(8).min(7)].to_vec(),
                )
                .for_each(drop),
        }
        if log.is_empty() {
            log.push(b'\n');
        }
    }
    log
}

#[test]
fn no_damage_makes_it_panic() {
    let seed = std::env::var("HANG_SEED").ok().and_then(|s| s.parse().ok());
    let rounds = std::env::var("HANG_ROUNDS").ok().and_then(|s| s.parse().ok()).unwrap_or(800);
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let first = clock.map_or(1, |d| d.as_nanos() as u64) | 1;
    for round in 0..rounds {
        let seed = seed.unwrap_or(first.wrapping_add(round * 2));
        let log = corrupt(&mut Dice(seed | 1));
        let told = std::panic::catch_unwind(|| {
            let explanation = read(&log);
            (explanation.to_text(), explanation.to_json(), explanation.to_dot())
        });
        assert!(told.is_ok(), "HANG_SEED={seed} makes it panic");
    }
}

#[test]
fn locks_in_a_circle_are_told_as_a_warning() {
    let explanation = read(LOCK_ORDER);
    let (nodes, verdict) = chain(&explanation);
    let want =
        ["lock:&inner->lock [order]", "lock:&outer->sem [order]", "lock:&inner->lock [order]"];
    assert_eq!(nodes, want);
    assert_eq!(verdict, Verdict::Cycle);
    let chain = &explanation.accounts[0].chains[0];
    assert_eq!(chain.hops[0].why, "outer_lookup", "the stack below #1");
    assert_eq!(chain.hops[1].why, "inner_update, by writer/812");
    assert_eq!(chain.hops[1].lines, [23], "where #0 is named");
    assert!(chain.words.contains("need not stop anybody"), "{}", chain.words);
    assert!(explanation.accounts[0].unexplained.is_empty());
}

#[test]
fn who_works_in_a_pool_holds_it_up() {
    let explanation = read(POOL);
    let (nodes, verdict) = chain(&explanation);
    assert_eq!(nodes, ["queue:pool cpus=1", "task:77"], "and not the worker of the other pool");
    assert_eq!(verdict, Verdict::Culprit);
    // Without the list there is nobody to name.
    let lines: Vec<&str> = std::str::from_utf8(POOL).expect("text").lines().collect();
    let alone = read(lines[0].as_bytes());
    assert_eq!(alone.verdict(), Some(Verdict::Unknown));
    assert!(alone.to_text().contains("does not show the worker"), "{}", alone.to_text());
}

/// `log` as a mail program sends it: broken into lines of at most 72 columns.
fn mailed(log: &[u8], quote: &str) -> String {
    let mut out = String::new();
    for line in String::from_utf8_lossy(log).lines() {
        let mut column = 0;
        for (at, word) in line.split(' ').enumerate() {
            // It breaks between words, and never within what is in brackets.
            if at > 0 && column + 1 + word.len() > 72 && column > 40 && !word.is_empty() {
                out.push('\n');
                column = 0;
            } else if at > 0 {
                out.push(' ');
                column += 1;
            }
            if column == 0 {
                out.push_str(quote);
                column = quote.len();
            }
            out.push_str(word);
            column += word.len();
        }
        out.push('\n');
    }
    out
}

#[test]
fn mails_break_lines() {
    for log in [TEARDOWN, OWNER, TWO_LOCKS, LOCK_ORDER, POOL] {
        let want = chain(&read(log));
        for quote in ["", "> "] {
            let mail = mailed(log, quote);
            assert!(mail.lines().count() > String::from_utf8_lossy(log).lines().count());
            assert_eq!(chain(&read(mail.as_bytes())), want, "{mail}");
        }
    }
}

#[test]
fn mails_quote_what_is_not_ascii_and_break_anywhere() {
    for log in [TEARDOWN, TWO_LOCKS] {
        let mut mail = b"Content-Transfer-Encoding: quoted-printable\r\n\r\n".to_vec();
        for line in log.split(|&b| b == b'\n') {
            let mut column = 0;
            for &byte in line {
                let piece = match byte {
                    b'=' => b"=3D".to_vec(),
                    byte => vec![byte],
                };
                if column + piece.len() > 75 {
                    mail.extend_from_slice(b"=\r\n");
                    column = 0;
                }
                column += piece.len();
                mail.extend(piece);
            }
            mail.extend_from_slice(b"\r\n");
        }
        assert_eq!(chain(&read(&mail)), chain(&read(log)));
    }
}

#[test]
fn a_bug_report_has_its_sections_and_blames_nobody() {
    let report = read(TEARDOWN).to_report();
    for part in [
        "# INFO: rcu detected stall",
        "Severity: tasks are stuck as long as the one at the end of the chain does not go on (3 comp",
        "\n## Chain\n\n1. repro2/4086 waits for SRCU grace period (tracepoint_srcu)",
        "perf_trace_event_unreg",
        "\n## Contexts\n",
        "\n## Affected\n",
        "kernel.perf_event_max_sample_rate",
    ] {
        assert!(report.contains(part), "{part:?} is not in\n{report}");
    }
    assert!(!report.contains("commit"), "{report}");
    assert!(read(TWO_LOCKS).to_report().contains("a deadlock, which does not end by itself"));
    assert!(read(LOCK_ORDER).to_report().contains("a warning; nobody is stuck by it"));
    assert!(read(b"nothing\n").to_report().contains("no hang in 1 lines"));
}

/// Every `<tag` of a page that is opened, and whether all are closed in order.
fn well_formed(page: &str) -> bool {
    const EMPTY: [&str; 4] = ["!doctype", "meta", "rect", "path"];
    let mut open: Vec<&str> = Vec::new();
    for piece in page.split('<').skip(1) {
        let name = piece.split(|c: char| c.is_whitespace() || c == '>' || c == '/').next();
        match (piece.strip_prefix('/'), name) {
            (Some(rest), _) if open.pop() != rest.split('>').next() => return false,
            (Some(_), _) => {}
            (None, Some(name)) if !EMPTY.contains(&name) => open.push(name),
            _ => {}
        }
    }
    open.is_empty()
}

#[test]
fn a_page_is_whole_and_loads_nothing() {
    for log in [TEARDOWN, OWNER, TWO_LOCKS, LOCK_ORDER, POOL] {
        let page = read(log).to_html();
        assert!(well_formed(&page), "{page}");
        assert!(!page.contains("http") && !page.contains("<script") && !page.contains("url(h"));
        assert!(page.contains("<rect class=\"end\""), "{page}");
    }
    let hostile = b"INFO: task <script>&\"x\":12 blocked for more than 120 seconds.\n\
        task:<script>&\"x\" state:D stack:0 pid:12 ppid:1 flags:0x0\n\
        Call Trace:\n schedule+0x1/0x2\n synchronize_rcu+0x1/0x2\n";
    let page = read(hostile).to_html();
    assert!(well_formed(&page) && !page.contains("<script"), "{page}");
    assert!(page.contains("&lt;script&gt;&amp;&quot;x&quot;/12"), "{page}");
}

/// This very program stands for a kernel: the standard library in it has a function whose name is not
/// mangled, and lines.
#[test]
fn a_kernel_with_debug_information_gives_lines() {
    let log = b"INFO: task x:12 blocked for more than 120 seconds.\n\
        task:x state:D stack:0 pid:12 ppid:1 flags:0x0\n\
        Call Trace:\n schedule+0x1/0x2\n synchronize_rcu+0x1/0x2\n \
        rust_eh_personality+0x4/0x10\n unheard_of+0x4/0x10\n";
    let mut explanation = read(log);
    let program = std::env::current_exe().expect("this program");
    assert_eq!(explanation.locate(&program).expect("it has debug information"), 1);
    let frames = &explanation.accounts[0].stacks[0].frames;
    let place =
        frames.iter().position(|f| f.function == "rust_eh_personality").expect("it is there");
    let source = frames[place].source.clone().expect("a line");
    let (file, line) = source.rsplit_once(':').expect("file:line");
    assert!(file.ends_with(".rs") && file.contains("std"), "{file}");
    assert!(line.parse::<u32>().expect("a number") > 0);
    assert_eq!(frames.last().expect("a frame").source, None, "nobody has heard of it");
    assert!(explanation.to_report().contains(&format!("rust_eh_personality  [{source}]")));
    let error = explanation.locate(std::path::Path::new("/dev/null")).expect_err("not a kernel");
    assert!(!error.to_string().is_empty());
}
