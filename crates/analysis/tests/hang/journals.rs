//! Who makes a commit, who has a lock of an object, who is the thread to stop: logs made of stacks.

use super::{chain, read};
use gracepoint_analysis::hang::{Confidence, Explanation, Verdict};

/// A task of a log: number, name, work if it is a worker, functions that it sleeps in.
type Sleeper<'a> = (u32, &'a str, &'a str, &'a str);

/// A log in which the first of these tasks complains.
fn log(tasks: &[Sleeper<'_>]) -> Explanation {
    let mut log =
        format!("INFO: task {}:{} blocked for more than 122 seconds.\n", tasks[0].1, tasks[0].0);
    for (pid, comm, work, stack) in tasks {
        log +=
            &format!("task:{comm} state:D stack:0 pid:{pid} tgid:{pid} ppid:2 flags:0x00004000\n");
        if !work.is_empty() {
            log += &format!("Workqueue: {work}\n");
        }
        log += "Call Trace:\n <TASK>\n __schedule+0x48b/0x1a30\n schedule+0x27/0xf0\n";
        for function in stack.split_whitespace() {
            let (function, offset) = function.split_once('+').unwrap_or((function, "12"));
            log += &format!(" {function}+0x{offset}/0x900\n");
        }
        log += " </TASK>\n";
    }
    read(log.as_bytes())
}

fn edge(explanation: &Explanation, from: &str, to: &str) -> bool {
    let edges = || explanation.accounts.iter().flat_map(|account| &account.edges);
    edges().any(|edge| edge.from.to_string() == from && edge.to.to_string() == to)
}

const COMMITTER: Sleeper<'_> =
    (20, "sync", "", "btrfs_commit_transaction btrfs_sync_fs sync_filesystem __x64_sys_sync");
const JOINER: Sleeper<'_> =
    (21, "touch", "", "wait_current_trans start_transaction btrfs_create lookup_open path_openat");
const WRITER: Sleeper<'_> = (
    22,
    "rm",
    "",
    "io_schedule folio_wait_bit_common btrfs_search_slot btrfs_del_items btrfs_unlink_inode btrfs_unlink",
);

#[test]
fn who_sleeps_in_a_commit_of_btrfs_makes_it() {
    let told = log(&[JOINER, COMMITTER]);
    let (nodes, verdict) = chain(&told);
    assert_eq!(nodes, ["task:21", "commit:btrfs", "task:20", "wait:writers of the transaction"]);
    assert_eq!(verdict, Verdict::Unknown);
    // A task that writes in the transaction, and waits for something else, holds it up.
    let told = log(&[JOINER, COMMITTER, WRITER]);
    assert_eq!(chain(&told).0[3..5], ["wait:writers of the transaction", "task:22"]);
    // Of two, nobody can say which of them it is.
    let other = (23, "mv", WRITER.2, WRITER.3);
    let told = log(&[JOINER, COMMITTER, WRITER, other]);
    assert!(!edge(&told, "wait:writers of the transaction", "task:22"));
    // And of two that commit, the one may wait for the other.
    let told = log(&[JOINER, COMMITTER, (24, "sync", "", COMMITTER.3)]);
    assert!(!edge(&told, "commit:btrfs", "task:20") && !edge(&told, "commit:btrfs", "task:24"));
}

/// I/O in a commit is I/O, wherever in the commit it is.
#[test]
fn a_commit_of_btrfs_that_waits_for_io_says_so() {
    let told = log(&[
        JOINER,
        (
            20,
            "sync",
            "",
            "io_schedule folio_wait_bit_common folio_wait_writeback __filemap_fdatawait_range \
             btrfs_wait_tree_log_extents btrfs_commit_transaction btrfs_sync_fs",
        ),
    ]);
    assert_eq!(chain(&told).0, ["task:21", "commit:btrfs", "task:20", "io:block device"]);
}

const SPACE: Sleeper<'_> =
    (30, "cp", "", "xlog_grant_head_wait xlog_grant_head_check xfs_log_reserve xfs_trans_reserve");
const AIL: Sleeper<'_> =
    (31, "xfsaild/dm-0", "", "xlog_cil_force_seq xfs_log_force xfsaild kthread");
const CIL: Sleeper<'_> = (
    32,
    "kworker/u8:3",
    "xfs-cil/dm-0 xlog_cil_push_work",
    "xlog_wait_on_iclog xlog_cil_push_work process_one_work worker_thread kthread",
);

#[test]
fn space_in_the_log_of_xfs_waits_for_xfsaild_and_that_for_the_checkpoint() {
    let told = log(&[SPACE, AIL, CIL]);
    let (nodes, verdict) = chain(&told);
    let want =
        ["task:30", "commit:xfs-log", "task:31", "commit:xfs-cil", "task:32", "commit:xfs-iclog"];
    assert_eq!((&nodes[..], verdict), (&want.map(str::to_owned)[..], Verdict::Unknown));
    // The worker of another file system has nothing to do with it.
    let told = log(&[SPACE, AIL, (32, CIL.1, "xfs-cil/dm-7 xlog_cil_push_work", CIL.3)]);
    assert!(edge(&told, "task:31", "commit:xfs-cil") && !edge(&told, "commit:xfs-cil", "task:32"));
}

/// The function that takes the lock of a tree block names nothing: the caller does, and that another task is
/// further in the caller says nothing of the block.
#[test]
fn a_lock_of_a_tree_block_is_told_by_who_asks_for_it() {
    let lock =
        "rwsem_down_read_slowpath __down_read_nested btrfs_tree_read_lock_nested btrfs_search_slot";
    let asks = format!("{lock}+20 btrfs_lookup_inode btrfs_iget");
    let further = "io_schedule bit_wait_io some_read btrfs_search_slot+90 btrfs_lookup_xattr";
    let told = log(&[(40, "ls", "", &asks), (41, "cp", "", further)]);
    assert_eq!(chain(&told).0, ["task:40", "lock:rwsem in btrfs_search_slot"]);
    // Where the lock is the function's own, it does.
    let own = "schedule_preempt_disabled __mutex_lock qx_search+20 qx_ioctl";
    let further = "io_schedule bit_wait_io some_read qx_search+90 qx_read";
    let told = log(&[(40, "ls", "", own), (41, "cp", "", further)]);
    assert_eq!(chain(&told).0[..3], ["task:40", "lock:mutex in qx_search", "task:41"]);
}

/// A lock is not named by a function that is further out than who asks for it.
#[test]
fn a_lock_has_no_name_of_a_caller_further_out() {
    let told =
        log(&[(50, "sh", "", "schedule_preempt_disabled __mutex_lock qx_init_task copy_process")]);
    assert_eq!(chain(&told).0, ["task:50", "lock:mutex in qx_init_task"]);
    let told =
        log(&[(50, "sh", "", "percpu_rwsem_wait __percpu_down_read cgroup_can_fork copy_process")]);
    assert_eq!(chain(&told).0, ["task:50", "lock:cgroup_threadgroup_rwsem"]);
}

#[test]
fn a_thread_to_stop_is_found_whatever_it_does() {
    let stops = (
        60,
        "umount",
        "",
        "schedule_timeout wait_for_completion kthread_stop qx_shutdown qx_umount",
    );
    let thread = (61, "qx_flushd", "", "some_wait qx_flush qx_flush_thread kthread ret_from_fork");
    let told = log(&[stops, thread]);
    assert_eq!(chain(&told).0, ["task:60", "wait:thread to stop", "task:61"]);
    assert_eq!(chain(&told).1, Verdict::Unknown, "nothing says what some_wait waits for");
    assert_eq!(told.accounts[0].chains[0].confidence, Confidence::Guess);
    let told = log(&[stops, thread, (62, "qx_scand", "", thread.3)]);
    assert_eq!(chain(&told).0, ["task:60", "wait:thread to stop"], "one of two");
}

#[test]
fn requests_of_io_uring_are_of_no_block_device() {
    let told = log(&[
        (
            70,
            "kworker/u8:1",
            "events_unbound io_ring_exit_work",
            "schedule_timeout __wait_for_common io_ring_exit_work",
        ),
        (
            71,
            "jbd2/sda1-8",
            "",
            "io_schedule bit_wait_io __wait_on_bit __wait_on_buffer jbd2_journal_commit_transaction",
        ),
    ]);
    assert!(edge(&told, "task:70", "wait:asynchronous requests"));
    assert!(!edge(&told, "task:70", "io:sda1") && edge(&told, "task:71", "io:sda1"));
}

#[test]
fn a_control_group_that_drains_waits_for_the_worker_that_removes_it() {
    let drains = (
        80,
        "sh",
        "",
        "cgroup_lock_and_drain_offline cgroup_kn_lock_live cgroup_subtree_control_write",
    );
    let worker = (
        81,
        "kworker/0:2",
        "cgroup_destroy css_killed_work_fn",
        "io_schedule bit_wait_io qx_css_offline css_killed_work_fn process_one_work",
    );
    let told = log(&[drains, worker]);
    assert_eq!(chain(&told).0[..3], ["task:80", "wait:control group to drain", "task:81"]);
    // Since 7.0 it waits for tasks that die, which no worker removes.
    let dying = (80, "sh", "", "cgroup_drain_dying cgroup_rmdir kernfs_iop_rmdir vfs_rmdir");
    assert_eq!(chain(&log(&[dying, worker])).0, ["task:80", "wait:control group to drain"]);
}

/// A function in which a task has a lock is also the one that asks for it.
#[test]
fn who_asks_for_a_lock_is_not_said_to_have_it() {
    let asks = "schedule_preempt_disabled rwsem_down_write_slowpath down_write cleanup_net process_one_work";
    let copies =
        "schedule_preempt_disabled rwsem_down_read_slowpath down_read_killable copy_net_ns unshare";
    let has = "schedule_timeout wait_for_completion rcu_barrier ops_undo_list cleanup_net process_one_work";
    let told = log(&[(90, "unshare", "", copies), (91, "kworker/u8:1", "netns cleanup_net", asks)]);
    assert_eq!(chain(&told).0, ["task:90", "lock:pernet_ops_rwsem"]);
    let told = log(&[(90, "unshare", "", copies), (91, "kworker/u8:1", "netns cleanup_net", has)]);
    assert!(edge(&told, "lock:pernet_ops_rwsem", "task:91"));
}

/// One device is named, and by the thread of a journal: what is on it is of that kind of file system.
#[test]
fn io_of_another_file_system_is_of_another_device() {
    let journal = (
        100,
        "jbd2/sda1-8",
        "",
        "io_schedule bit_wait_io __wait_on_bit __wait_on_buffer jbd2_journal_commit_transaction",
    );
    let sync = |write: &str| {
        let stack = format!(
            "io_schedule folio_wait_bit_common folio_wait_writeback {write} vfs_fsync_range"
        );
        log(&[(101, "sync", "", &stack), journal])
    };
    assert!(edge(&sync("ext4_sync_file"), "task:101", "io:sda1"));
    assert!(edge(&sync("blkdev_fsync"), "task:101", "io:sda1"), "which is as good as any");
    assert!(edge(&sync("nilfs_sync_file"), "task:101", "io:block device"));
}
