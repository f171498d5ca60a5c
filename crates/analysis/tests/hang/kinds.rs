//! Kinds of wait that logs show in layouts of their own, each with a log in which it occurs, and logs that differ
//! from it in one thing and must not be read the same.

use super::{chain, read};
use gracepoint_analysis::hang::{Confidence, Explanation, Verdict};

const STALE: &[u8] = include_bytes!("stale.log");

/// Whether the log has this hop, and how sure it is.
fn hop(explanation: &Explanation, from: &str, to: &str) -> Option<Confidence> {
    let mut edges = explanation.accounts.iter().flat_map(|account| &account.edges);
    let found = edges.find(|e| e.from.to_string() == from && e.to.to_string() == to)?;
    Some(found.confidence)
}

#[test]
fn frames_that_the_kernel_does_not_trust_are_better_than_no_stack() {
    let explanation = read(STALE);
    assert_eq!(explanation.title.as_deref(), Some("INFO: task hung in qx_commit_table"));
    let (nodes, verdict) = chain(&explanation);
    assert_eq!(nodes, ["task:2711", "lock:mutex in qx_commit_table", "task:2702", "gp:rcu-sched"]);
    assert_eq!(verdict, Verdict::Unknown);
    for edge in &explanation.accounts[0].edges {
        assert_eq!(edge.confidence, Confidence::Guess, "{edge:?}");
    }
    // One that is trusted is enough to leave the others out.
    let text = String::from_utf8_lossy(STALE).replace("] ? schedule_timeout", "] schedule_timeout");
    let mixed = read(text.replace("] ? wait_for_common", "] wait_for_common").as_bytes());
    assert_eq!(hop(&mixed, "task:2702", "gp:rcu-sched"), None);
    assert_eq!(hop(&mixed, "task:2702", "wait:wait_for_common"), Some(Confidence::Derived));
    assert_eq!(
        hop(&mixed, "task:2711", "lock:mutex in qx_commit_table"),
        Some(Confidence::Guess),
        "each stack by itself"
    );
}

/// A task that is reported as blocked, in the layout of 6.12; the innermost function comes first.
fn blocked(comm: &str, pid: u32, work: &str, stack: &[&str]) -> String {
    let mut log = format!(
        "INFO: task {comm}:{pid} blocked for more than 122 seconds.\n      Not tainted 6.12.9 #1\n\
         task:{comm} state:D stack:0     pid:{pid}   tgid:{pid}   ppid:2      flags:0x00004000\n"
    );
    if !work.is_empty() {
        log += &format!("Workqueue: {work}\n");
    }
    log += "Call Trace:\n <TASK>\n __schedule+0x3c0/0xb98\n schedule+0x34/0x118\n";
    for (at, function) in stack.iter().enumerate() {
        log += &match function.contains('+') {
            true => format!(" {function}\n"),
            false => format!(" {function}+{:#x}/0x1c0\n", 0x21 + at),
        };
    }
    log + " </TASK>\n"
}

/// Who is in a function that takes a lock has given it back where that function calls one that waits without it.
#[test]
fn a_lock_that_was_given_back_has_no_holder() {
    let waiter = blocked("qx_conf", 900, "", &["__mutex_lock", "rtnl_lock", "devinet_ioctl"]);
    let net = "netns cleanup_net";
    let leaves = |inner: &[&str]| {
        let mut stack = inner.to_vec();
        stack.extend(["default_device_exit_batch", "cleanup_net", "process_one_work"]);
        read((waiter.clone() + &blocked("kworker/u8:1", 33, net, &stack)).as_bytes())
    };
    let inside = leaves(&["synchronize_rcu", "unregister_netdevice_many"]);
    assert!(hop(&inside, "lock:rtnl_mutex", "task:33").is_some(), "{}", inside.to_text());
    let outside =
        leaves(&["schedule_timeout", "msleep", "netdev_wait_allrefs_any", "netdev_run_todo"]);
    assert_eq!(hop(&outside, "lock:rtnl_mutex", "task:33"), None, "{}", outside.to_text());
    assert_eq!(outside.accounts[0].chains[0].verdict, Verdict::Unknown);
    // A module is loaded without the lock by who adds a link, and with it by what the link's driver does.
    let loads = |caller: &str| {
        let stack = ["__request_module", caller, "rtnl_newlink", "netlink_rcv_skb"];
        read((waiter.clone() + &blocked("ip", 34, "", &stack)).as_bytes())
    };
    assert!(hop(&loads("qx_newlink"), "lock:rtnl_mutex", "task:34").is_some());
    assert_eq!(hop(&loads("__rtnl_newlink"), "lock:rtnl_mutex", "task:34"), None);
}

/// The same of a task that is further in the function that asks: it may have come to the unlock.
#[test]
fn who_unlocks_has_the_lock_no_more() {
    let waiter = blocked("qx_a", 900, "", &["__mutex_lock", "qx_update+0x40/0x200"]);
    let other = |called: &[&str]| {
        let mut stack = vec!["wait_for_completion", "__wait_rcu_gp", "synchronize_rcu"];
        stack.extend(called);
        stack.push("qx_update+0x180/0x200");
        let explanation = read((waiter.clone() + &blocked("qx_b", 901, "", &stack)).as_bytes());
        hop(&explanation, "lock:mutex in qx_update", "task:901")
    };
    assert!(other(&[]).is_some() && other(&["qx_flush"]).is_some());
    for called in ["qx_unlock", "up_write", "percpu_up_write"] {
        assert_eq!(other(&[called]), None, "{called}");
    }
}

#[test]
fn a_loop_device_is_served_by_a_worker_of_its_queue() {
    let io = ["io_schedule", "folio_wait_bit_common", "folio_wait_writeback", "ext4_sync_file"];
    let log = |work: &str| {
        let journal = ["io_schedule", "__wait_on_buffer", "jbd2_journal_commit_transaction"];
        let worker = ["__down_read", "down_read", "xfs_file_write_iter", "lo_rw_aio"];
        let log = blocked("fsync", 70, "", &io) + &blocked("jbd2/loop0-8", 71, "", &journal);
        read((log + &blocked("kworker/u8:3", 72, work, &worker)).as_bytes())
    };
    for work in ["loop0 loop_workfn", "loop0 loop_rootcg_workfn"] {
        assert!(hop(&log(work), "io:loop0", "task:72").is_some(), "{}", log(work).to_text());
        let (nodes, _) = chain(&log(work));
        assert_eq!(nodes.last().map(String::as_str), Some("lock:rwsem in xfs_file_write_iter"));
    }
    for work in ["loop1 loop_workfn", "loop0 qx_workfn"] {
        assert_eq!(hop(&log(work), "io:loop0", "task:72"), None, "{work}");
    }
    // Its own I/O is that of what the device is made of.
    let own = ["io_schedule", "folio_wait_bit_common", "xfs_file_fsync", "lo_rw_aio"];
    let log = blocked("fsync", 70, "", &io)
        + &blocked("jbd2/loop0-8", 71, "", &["io_schedule", "__wait_on_buffer", "kjournald2"])
        + &blocked("kworker/u8:3", 72, "loop0 loop_workfn", &own);
    let explanation = read(log.as_bytes());
    assert!(hop(&explanation, "task:72", "io:what is below loop0").is_some());
}

/// Where the compiler has no function for the wait for handles.
#[test]
fn a_commit_waits_for_handles_also_where_that_is_inlined() {
    let waits = |inner: &[&str]| {
        let mut journal = inner.to_vec();
        journal.extend(["jbd2_journal_commit_transaction", "kjournald2", "kthread"]);
        let sync = ["jbd2_log_wait_commit", "jbd2_complete_transaction", "ext4_sync_file"];
        let handle = ["__mutex_lock", "qx_quota", "ext4_mb_new_blocks", "ext4_map_create_blocks"];
        let log = blocked("database", 80, "", &sync) + &blocked("jbd2/sda1-8", 81, "", &journal);
        read((log + &blocked("writer", 82, "", &handle)).as_bytes())
    };
    let inlined = waits(&[]);
    let (nodes, _) = chain(&inlined);
    let want = [
        "task:80",
        "commit:jbd2 sda1-8",
        "task:81",
        "wait:handles of the transaction",
        "task:82",
        "lock:mutex in qx_quota",
    ];
    assert_eq!(nodes, want);
    let sure = hop(&inlined, "task:81", "wait:handles of the transaction");
    assert_eq!(sure, Some(Confidence::Guess), "no function says so");
    let io = waits(&["io_schedule", "bit_wait_io", "__wait_on_buffer"]);
    assert!(hop(&io, "task:81", "io:sda1").is_some(), "{}", io.to_text());
}

#[test]
fn asynchronous_calls_end_by_the_workers_that_run_them() {
    let waiter = ["async_synchronize_cookie_domain", "async_synchronize_full", "dpm_suspend"];
    let call = |inner: &[&'static str]| {
        let mut stack = inner.to_vec();
        stack.extend(["async_suspend", "async_run_entry_fn", "process_one_work"]);
        stack
    };
    let driver = call(&["schedule_timeout", "wait_for_completion", "qx_suspend"]);
    let parent = call(&["wait_for_completion", "dpm_wait", "dpm_wait_for_subordinate"]);
    let queue = "events_unbound async_run_entry_fn";
    let log = blocked("systemd-sleep", 90, "", &waiter)
        + &blocked("kworker/u8:1", 91, queue, &driver)
        + &blocked("kworker/u8:2", 92, queue, &parent);
    let explanation = read(log.as_bytes());
    let node = "wait:asynchronous calls";
    assert!(hop(&explanation, "task:90", node).is_some(), "{}", explanation.to_text());
    assert!(hop(&explanation, node, "task:91").is_some());
    assert_eq!(hop(&explanation, node, "task:92"), None, "it waits for another device");
    assert!(!explanation.to_text().contains("device probe"), "{}", explanation.to_text());
}

#[test]
fn who_freezes_waits_for_writers_or_for_the_super_block() {
    let freezes = |inner: &[&str]| {
        let mut stack = inner.to_vec();
        stack.extend(["freeze_super", "ioctl_fsfreeze", "do_vfs_ioctl"]);
        chain(&read(blocked("fsfreeze", 60, "", &stack).as_bytes())).0
    };
    let writers = freezes(&["percpu_rwsem_wait", "percpu_down_write"]);
    assert_eq!(writers, ["task:60", "lock:sb_writers"]);
    let mounts = freezes(&["rwsem_down_write_slowpath", "down_write"]);
    assert_eq!(mounts, ["task:60", "lock:&type->s_umount_key"]);
}

#[test]
fn waits_for_io_that_are_made_of_completions() {
    let stacks: [&[&str]; 5] = [
        &["schedule_timeout", "wait_for_completion", "xfs_buf_iowait", "xfs_buf_read_map"],
        &["wait_for_completion_io", "write_dev_flush", "barrier_all_devices", "btrfs_sync_log"],
        &["wait_for_completion_io_timeout", "submit_bio_wait", "blkdev_issue_flush"],
        &["wait_for_completion_io", "blk_execute_rq", "qx_ioctl"],
        &["closure_sync", "bch_btree_node_read", "bch_btree_node_get"],
    ];
    for stack in stacks {
        let (nodes, verdict) = chain(&read(blocked("qx", 50, "", stack).as_bytes()));
        assert_eq!(nodes, ["task:50", "io:block device"], "{stack:?}");
        assert_eq!(verdict, Verdict::Unknown);
    }
    let inode = ["bit_wait", "__wait_on_bit", "wait_on_inode", "iget_qx"];
    let (nodes, _) = chain(&read(blocked("qx", 50, "", &inode).as_bytes()));
    assert_eq!(nodes, ["task:50", "lock:inode-flags in wait_on_inode"]);
}

/// What `perf`'s watchdog says of a CPU is as good as an interrupt for the purpose.
#[test]
fn a_cpu_that_takes_no_interrupts_is_who_others_wait_for() {
    let hard = "watchdog: Watchdog detected hard LOCKUP on cpu 3\n\
        CPU: 3 UID: 0 PID: 233 Comm: kworker/3:2 Not tainted 6.12.9 #1\n\
        RIP: 0010:qx_refill+0x6e/0x2c0\n\
        Call Trace:\n <TASK>\n qx_refill_work+0x1c/0x30\n process_one_work+0x18c/0x350\n \
        worker_thread+0x250/0x360\n kthread+0xf4/0x130\n ret_from_fork+0x31/0x50\n </TASK>\n";
    let soft = "watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [qx_map:512]\n\
        CPU: 1 UID: 0 PID: 512 Comm: qx_map Not tainted 6.12.9 #1\n\
        RIP: 0010:smp_call_function_many_cond+0x12f/0x570\n\
        Call Trace:\n <TASK>\n on_each_cpu_cond_mask+0x24/0x40\n flush_tlb_kernel_range+0x85/0xb0\n \
        qx_unmap+0x61/0xd0\n do_syscall_64+0x82/0x190\n \
        entry_SYSCALL_64_after_hwframe+0x76/0x7e\n </TASK>\n";
    for log in [format!("{hard}{soft}"), format!("{soft}{hard}")] {
        let explanation = read(log.as_bytes());
        assert!(hop(&explanation, "task:512", "cpu:3").is_some(), "{}", explanation.to_text());
        let told = &explanation.accounts[0].chains;
        assert_eq!((told.len(), told[0].explains), (1, 2), "{}", explanation.to_text());
        assert_eq!(told[0].verdict, Verdict::Culprit);
        assert!(told[0].words.contains("kworker/3:2/233 runs on CPU 3"), "{}", told[0].words);
    }
    // A CPU whose tasks get no turn takes interrupts all the same.
    let other = hard.replace(
        "Watchdog detected hard LOCKUP on cpu 3",
        "BUG: soft lockup - CPU#3 stuck for 26s! [kworker/3:2:233]",
    );
    let explanation = read((other + soft).as_bytes());
    assert_eq!(hop(&explanation, "task:512", "cpu:3"), None);
}

/// Logs that have dates and no time since boot: a long pause parts incidents there as well.
#[test]
fn dates_part_incidents() {
    let at = |dates: [&str; 2], end: &str| {
        let mut log = String::new();
        for (pid, date) in (40..).zip(dates) {
            for line in blocked("umount", pid, "", &["synchronize_rcu", "qx_umount"]).lines() {
                log += &format!("{date}{end}{line}\n");
            }
        }
        read(log.as_bytes()).accounts.len()
    };
    let kernel = " host kernel: ";
    for (dates, end, want) in [
        (["Nov 27 10:00:00", "Nov 27 11:00:00"], kernel, 2),
        (["Nov 27 10:00:00", "Nov 27 10:05:00"], kernel, 1),
        (["Nov 30 23:58:00", "Dec  1 00:02:00"], kernel, 1),
        (["Feb 28 23:58:00", "Mar  1 00:02:00"], kernel, 1),
        (["Nov 30 23:58:00", "Dec  2 00:02:00"], kernel, 2),
        (["2026-11-27T10:00:00.123456+00:00", "2026-11-27T11:00:00.123456+00:00"], kernel, 2),
        (["2024-02-29T23:58:00+00:00", "2024-03-01T00:02:00+00:00"], kernel, 1),
        (["2025-12-31T23:58:00+00:00", "2026-01-01T00:02:00+00:00"], kernel, 1),
        (["2026-11-27 10:00:00", "2026-11-27 11:00:00"], " ", 2),
        (["[Fri Nov 27 10:00:00 2026", "[Fri Nov 27 11:00:00 2026"], "] ", 2),
        (["[Fri Nov 27 10:00:00 2026", "[Fri Nov 27 10:10:00 2026"], "] ", 1),
        // The time since boot counts where there is one: the clock may have been set.
        (
            ["Nov 27 10:00:00 host kernel: [  700.1", "Nov 27 19:00:00 host kernel: [  720.1"],
            "] ",
            1,
        ),
        // A clock that goes back is no pause.
        (["Nov 27 11:00:00", "Nov 27 10:00:00"], kernel, 1),
    ] {
        assert_eq!(at(dates, end), want, "{dates:?}");
    }
}
