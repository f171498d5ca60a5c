//! What is known of the kernel's functions, as data: in which function a task waits, for what, and
//! who ends the wait. Each row carries a stack that it must recognise; the tests read it from a log, and a
//! stack for each of its functions.
//!
//! A pattern ending in `*` is the beginning of a name. To teach the program something, add a row.

mod tables;

pub(super) use tables::*;

use std::sync::OnceLock;

/// What a task waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// A lock that one or more tasks have: mutex, semaphore, reader-writer lock.
    Lock,
    /// A lock that is waited for on the CPU, without sleep.
    Spin,
    /// A grace period of this flavour.
    Gp(&'static str),
    /// A grace period of an SRCU domain; the caller tells which ([`SRCU_NAMES`]).
    Srcu,
    /// That the readers of an SRCU domain leave: only its worker waits so.
    SrcuReaders,
    /// A work or a workqueue.
    Work,
    /// I/O of a block device.
    Io,
    /// The lock of a page or buffer, which its I/O holds as a rule.
    Page,
    /// A commit of the journal: `jbd2`, `btrfs`, `xfs-log`.
    Commit(&'static str),
    /// That the file system thaws.
    Freeze,
    /// That other CPUs answer an interrupt.
    Ipi,
    /// Something with this name.
    Event(&'static str),
    /// It waits because it has nothing to do: it is no victim.
    Idle,
}

/// A row of the table.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) id: &'static str,
    pub(super) symbols: &'static [&'static str],
    pub(super) what: What,
    /// Rows of a higher rank win over others near the top of a stack.
    pub(super) rank: u8,
    /// Who ends the wait, in words.
    pub(super) by: &'static str,
    /// A stack, the innermost function first.
    #[cfg_attr(not(test), expect(dead_code, reason = "the row's test"))]
    pub(super) sample: &'static [&'static str],
}

macro_rules! rules {
    ($($id:literal, $rank:literal, $what:expr, [$($symbol:literal),+ $(,)?], $by:literal,
       [$($sample:literal),+ $(,)?];)+) => {
        &[$(Rule {
            id: $id, symbols: &[$($symbol),+], what: $what, rank: $rank, by: $by,
            sample: &[$($sample),+],
        }),+]
    };
}

/// The table. Rank 9: seen first, it decides. 5: a named wait. 3: a wait of a general kind.
/// 1: anything may be behind it.
#[rustfmt::skip]
pub(super) const RULES: &[Rule] = rules![
    // Locks.
    "mutex", 9, What::Lock, ["__mutex_lock*", "mutex_lock*", "__ww_mutex_lock*", "ww_mutex_lock*", "schedule_preempt_disabled"],
        "the task that has it", ["schedule_preempt_disabled", "__mutex_lock", "tty_open"];
    "rt-mutex", 9, What::Lock, ["rt_mutex_slowlock*", "__rt_mutex_*", "rt_mutex_lock*", "rtlock_slowlock*",
        "rt_spin_lock*", "rwbase_*", "__rwbase_*", "rt_mutex_wait_proxy_lock", "task_blocks_on_rt_mutex"],
        "the task that has it", ["rt_mutex_slowlock_block", "rt_mutex_slowlock", "i2c_transfer"];
    "rwsem", 9, What::Lock, ["rwsem_down_*", "down_read*", "down_write*", "__down_read*", "__down_write*",
        "call_rwsem_*"], "its writer or its readers", ["rwsem_down_write_slowpath", "down_write", "chmod_common"];
    "semaphore", 9, What::Lock, ["down", "__down", "__down_common", "___down_common", "__down_interruptible",
        "down_interruptible", "down_timeout", "__down_timeout", "__down_killable", "down_killable"],
        "the task that has it", ["schedule_timeout", "__down", "down", "console_lock"];
    "percpu-rwsem", 9, What::Lock, ["percpu_down_*", "__percpu_down_*", "percpu_rwsem_wait", "__percpu_rwsem_*"],
        "its writer or its readers", ["percpu_rwsem_wait", "__percpu_down_read", "cgroup_attach_lock"];
    "ldsem", 9, What::Lock, ["ldsem_down_*", "__ldsem_down_*", "down_read_failed", "down_write_failed"],
        "the task that has it", ["schedule_timeout", "ldsem_down_write", "__tty_ldisc_lock"];
    "socket-lock", 9, What::Lock, ["__lock_sock", "lock_sock_nested"],
        "the task that owns the socket", ["__lock_sock", "lock_sock_nested", "tcp_sendmsg"];
    "xfs-buffer-lock", 5, What::Lock, ["xfs_buf_lock"],
        "the task or I/O that has the buffer", ["schedule_timeout", "xfs_buf_lock", "xfs_buf_find"];
    "btrfs-tree-lock", 5, What::Lock, ["btrfs_tree_lock*", "__btrfs_tree_*", "btrfs_tree_read_lock*"],
        "the task that has the tree block", ["schedule", "btrfs_tree_lock", "btrfs_search_slot"];
    "extent-lock", 5, What::Lock, ["lock_extent*", "btrfs_lock_extent*", "wait_extent_bit*", "wait_on_extent_bit", "__lock_extent"],
        "the task that has the range", ["schedule", "wait_extent_bit", "lock_extent_bits", "btrfs_page_mkwrite"];
    "inode-flags", 5, What::Lock, ["__wait_on_freeing_inode", "find_inode", "wait_on_new_inode", "wait_on_inode", "iget_locked", "__inode_wait_*"],
        "the task that makes or removes the inode", ["schedule", "__wait_on_freeing_inode", "find_inode_fast"];
    "lookup", 5, What::Lock, ["d_wait_lookup", "d_alloc_parallel"],
        "the task that looks the name up", ["schedule", "d_alloc_parallel", "lookup_open"];
    "posix-lock", 5, What::Event("file lock"), ["posix_lock_inode_wait", "flock_lock_inode_wait", "locks_lock_inode_wait", "fcntl_setlk*", "__break_lease"],
        "the task that has the file lock", ["schedule", "posix_lock_inode_wait", "fcntl_setlk"];
    "spin", 9, What::Spin, ["native_queued_spin_lock_slowpath", "queued_spin_lock_slowpath", "__pv_queued_spin_lock_slowpath",
        "do_raw_spin_lock", "_raw_spin_lock*", "__raw_spin_lock*", "queued_read_lock_slowpath",
        "queued_write_lock_slowpath", "_raw_read_lock*", "_raw_write_lock*", "osq_lock", "mutex_spin_on_owner",
        "rwsem_spin_on_owner", "kvm_wait", "virt_spin_lock", "arch_spin_lock*", "do_raw_write_lock", "do_raw_read_lock"],
        "the CPU that has it", ["native_queued_spin_lock_slowpath", "do_raw_spin_lock", "_raw_spin_lock_bh", "hhf_change"];
    // Grace periods.
    "rcu-exp", 5, What::Gp("rcu-exp"), ["synchronize_rcu_expedited*", "_synchronize_rcu_expedited*", "synchronize_sched_expedited",
        "rcu_exp_wait_wake", "rcu_exp_sel_wait_wake", "synchronize_rcu_expedited_wait*", "sync_rcu_exp_*"],
        "its readers", ["schedule", "synchronize_rcu_expedited", "synchronize_net", "__tun_detach"];
    "rcu-sched", 5, What::Gp("rcu-sched"), ["synchronize_sched"],
        "CPUs that pass the scheduler", ["wait_for_completion", "__wait_rcu_gp", "synchronize_sched", "kern_unmount"];
    "rcu-bh", 5, What::Gp("rcu-bh"), ["synchronize_rcu_bh"],
        "its readers", ["wait_for_completion", "__wait_rcu_gp", "synchronize_rcu_bh", "addrconf_dad_kick"];
    "rcu-tasks", 6, What::Gp("rcu-tasks"), ["synchronize_rcu_tasks*", "rcu_tasks_wait_gp", "rcu_barrier_tasks*", "synchronize_rcu_mult"],
        "every task that has to pass the scheduler", ["wait_for_completion", "__wait_rcu_gp", "synchronize_rcu_tasks_generic", "ftrace_shutdown"];
    "rcu", 4, What::Gp("rcu"), ["synchronize_rcu*", "__wait_rcu_gp", "wait_rcu_gp", "cond_synchronize_rcu*", "rcu_sync_enter", "kvfree_rcu_barrier"],
        "its readers", ["wait_for_completion", "__wait_rcu_gp", "synchronize_rcu", "namespace_unlock"];
    "rcu-barrier", 5, What::Gp("rcu-barrier"), ["rcu_barrier*", "_rcu_barrier*"],
        "the callbacks that are queued on all CPUs", ["wait_for_completion", "rcu_barrier", "netdev_run_todo"];
    "srcu", 6, What::Srcu, ["__synchronize_srcu", "synchronize_srcu*", "srcu_barrier", "tracepoint_synchronize_unregister"],
        "its worker, process_srcu", ["wait_for_completion", "__synchronize_srcu", "synchronize_srcu", "fsnotify_mark_destroy_workfn"];
    "srcu-readers", 2, What::SrcuReaders, ["try_check_zero", "srcu_advance_state"],
        "readers, whom the kernel cannot name", ["schedule_timeout", "try_check_zero", "process_srcu"];
    // Works.
    "work", 3, What::Work, ["__flush_work*", "flush_work*", "__cancel_work*", "cancel_work_sync", "cancel_delayed_work_sync",
        "flush_delayed_work", "kthread_flush_work*", "kthread_cancel_work_sync", "__kthread_cancel_work_sync", "work_on_cpu*", "start_flush_work"],
        "the worker that runs it", ["wait_for_completion", "__flush_work", "__cancel_work_timer", "p9_fd_close"];
    "workqueue", 3, What::Work, ["flush_workqueue", "__flush_workqueue", "drain_workqueue", "destroy_workqueue", "flush_scheduled_work", "kthread_flush_worker"],
        "all works of the queue", ["wait_for_completion", "__flush_workqueue", "drain_workqueue", "destroy_workqueue", "ext4_put_super"];
    "writeback", 3, What::Work, ["wb_wait_for_completion", "__writeback_inodes_sb_nr", "wb_wait_completion", "cgroup_writeback_umount", "inode_sleep_on_writeback"],
        "the writeback worker", ["wb_wait_for_completion", "sync_inodes_sb", "sync_filesystem"];
    // Block I/O and pages.
    "io", 1, What::Io, ["io_schedule*", "bit_wait_io*", "blk_wait_io", "wait_on_buffer", "__wait_on_buffer", "bio_await*",
        "__blkdev_direct_IO*", "__iomap_dio_rw", "iomap_dio_rw", "blk_mq_get_tag",
        "__filemap_fdatawait_range", "filemap_fdatawait*", "filemap_write_and_wait*", "file_write_and_wait_range", "filemap_read_folio", "filemap_update_page", "filemap_get_pages", "folio_wait_writeback", "wait_on_page_writeback", "wait_on_page_bit*", "folio_wait_bit*", "dio_await_*",
        "get_request", "__get_request", "blk_queue_enter", "bio_queue_enter", "__bio_queue_enter", "__blk_throtl*", "folio_wait_stable", "wait_for_stable_page", "swap_read_folio"],
        "the device", ["io_schedule", "bit_wait_io", "__wait_on_bit", "out_of_line_wait_on_bit", "__wait_on_buffer", "jbd2_journal_commit_transaction"];
    // The same, made of completions: what is further in says less.
    "io-completion", 2, What::Io, ["submit_bio_wait", "blk_execute_rq", "blkdev_issue_*", "xfs_buf_iowait", "xfs_buf_submit_wait", "xfs_buf_delwri_submit*",
        "write_dev_flush", "wait_dev_flush", "barrier_all_devices", "wait_dev_supers", "closure_sync*", "__closure_sync*"],
        "the device", ["schedule_timeout", "wait_for_completion", "xfs_buf_iowait", "xfs_buf_read_map"];
    "io-throttle", 2, What::Io, ["rq_qos_wait", "wbt_wait", "__rq_qos_throttle", "balance_dirty_pages*", "blk_mq_sched_get_tag", "ioc_rqos_throttle", "blkcg_maybe_throttle_blkg", "blkcg_maybe_throttle_current"],
        "the requests that are under way", ["io_schedule", "rq_qos_wait", "wbt_wait", "__rq_qos_throttle", "blk_mq_submit_bio"];
    // A request may be of a socket or a timer as well as of a block device.
    "aio", 4, What::Event("asynchronous requests"), ["exit_aio", "io_uring_cancel*", "io_ring_exit_work", "io_wq_put_and_exit", "wait_for_kiocb*", "io_wq_exit_workers", "io_uring_files_cancel",
        "io_ring_ctx_wait_and_kill", "io_rsrc_ref_quiesce", "io_uring_clean_tctx", "io_ring_ctx_free", "io_sqe_buffers_unregister", "io_sqe_files_unregister", "io_uring_try_cancel_requests"],
        "requests that are under way", ["schedule_timeout", "wait_for_completion", "exit_aio", "mmput"];
    "sq-thread", 4, What::Event("thread of an io_uring"), ["io_sq_thread_park", "io_sq_thread_stop", "io_sq_thread_finish", "io_sqpoll_wait_sq"],
        "that thread", ["wait_for_completion", "io_sq_thread_stop", "io_sq_thread_finish"];
    "page-lock", 5, What::Page, ["__lock_page*", "__folio_lock*", "folio_lock*", "__lock_buffer", "__bread_gfp", "lock_page*", "truncate_inode_pages_range", "do_read_cache_folio"],
        "the task or I/O that has the page", ["io_schedule", "folio_wait_bit_common", "__folio_lock", "mpage_prepare_extent_to_map"];
    "queue-freeze", 4, What::Event("queue freeze"), ["blk_mq_freeze_queue_wait*", "blk_mq_freeze_queue*", "blk_freeze_queue*", "blk_mq_quiesce_*", "percpu_ref_switch_to_atomic_sync", "blk_cleanup_queue", "blk_mq_destroy_queue", "blk_mq_hctx_notify_offline", "blk_pre_runtime_suspend"],
        "requests that are under way in the queue", ["schedule", "blk_mq_freeze_queue_wait", "elevator_switch"];
    "raid", 4, What::Io, ["md_write_start", "md_flush_request", "raid5_get_active_stripe", "raid5_make_request", "wait_barrier", "raid10_write_request", "raid1_write_request",
        "md_handle_request", "mddev_suspend", "stop_sync_thread", "raise_barrier", "_wait_barrier", "freeze_array", "md_do_sync", "md_super_wait", "md_wait_for_blocked_rdev", "md_reap_sync_thread", "md_bitmap_startwrite", "raid5_quiesce", "wait_for_serialization", "md_allow_write", "bitmap_wait_behind_writes", "md_bitmap_wait_behind_writes", "r5l_wait_*", "md_bitmap_wait_writes", "regular_request_wait", "raid10_sync_request", "raid1_sync_request", "wait_read_barrier", "idle_sync_thread", "frozen_sync_thread"],
        "the thread of the array", ["schedule", "raid5_get_active_stripe", "raid5_make_request", "md_handle_request"];
    "dm-use", 4, What::Event("users of the device"), ["__dm_destroy", "dm_wait_event"],
        "who has it open, or uses its table", ["msleep", "__dm_destroy", "dm_hash_remove_all"];
    "device-mapper", 4, What::Io, ["dm_wait_for_completion", "dm_suspend", "__dm_suspend", "dm_wait_for_bios_completion", "dm_bufio_*", "dm_kcopyd_*", "sync_io", "dm_io", "new_read", "wait_for_in_progress", "wait_for_migrations", "writecache_wait_for_ios", "writecache_wait_for_writeback", "wait_and_add_new_range", "sync_rw_sb", "dmz_get_zone_for_reclaim", "account_start_copy", "perform_admin_operation"],
        "bios that are under way in the device", ["io_schedule", "dm_wait_for_completion", "__dm_suspend", "dm_suspend"];
    // Journals and logs.
    "jbd2-commit", 5, What::Commit("jbd2"), ["jbd2_log_wait_commit", "jbd2_complete_transaction", "wait_transaction_locked", "wait_transaction_switching",
        "add_transaction_credits", "start_this_handle", "jbd2_journal_lock_updates", "do_get_write_access", "jbd2_log_do_checkpoint", "__jbd2_log_wait_for_space", "jbd2_journal_flush", "jbd2_journal_destroy", "jbd2_journal_force_commit*"],
        "the journal's thread", ["schedule", "jbd2_log_wait_commit", "jbd2_complete_transaction", "ext4_sync_file"];
    "jbd2-updates", 5, What::Event("handles of the transaction"), ["jbd2_journal_wait_updates"],
        "tasks with a handle", ["schedule", "jbd2_journal_wait_updates", "jbd2_journal_commit_transaction", "kjournald2"];
    // Where the compiler has put that one into its caller, which sleeps of itself for nothing else that lasts.
    "jbd2-committer", 1, What::Event("handles of the transaction"), ["jbd2_journal_commit_transaction"],
        "tasks with a handle", ["schedule", "jbd2_journal_commit_transaction", "kjournald2"];
    "btrfs-commit", 5, What::Commit("btrfs"), ["wait_current_trans*", "btrfs_wait_for_commit", "wait_for_commit", "btrfs_commit_transaction_async", "btrfs_attach_transaction_barrier"],
        "the task that commits", ["schedule", "wait_current_trans", "start_transaction", "btrfs_create"];
    "btrfs-committer", 1, What::Event("writers of the transaction"), ["btrfs_commit_transaction"],
        "tasks with a handle", ["schedule", "btrfs_commit_transaction", "btrfs_sync_file"];
    "btrfs-space", 4, What::Event("space reservation"), ["btrfs_reserve_*", "handle_reserve_ticket", "wait_reserve_ticket", "__reserve_bytes", "wait_ordered_extents", "btrfs_wait_ordered*", "btrfs_start_ordered_extent*", "btrfs_wait_block_group_reservations", "btrfs_wait_nocow_writers", "btrfs_delalloc_reserve_*"],
        "the worker that makes space", ["schedule", "wait_reserve_ticket", "__reserve_bytes", "btrfs_reserve_data_bytes"];
    "xfs-log", 5, What::Commit("xfs-log"), ["xlog_grant_head_wait", "xlog_grant_head_check", "xfs_log_reserve", "xfs_log_regrant"],
        "xfsaild, which makes space in the log", ["schedule", "xlog_grant_head_wait", "xlog_grant_head_check", "xfs_log_reserve"];
    "xfs-checkpoint", 5, What::Commit("xfs-cil"), ["xlog_cil_force*", "xlog_cil_push_now", "xlog_cil_order_write"],
        "the worker that writes the checkpoint", ["schedule", "xlog_cil_force_seq", "xfs_log_force", "xfsaild"];
    "xfs-log-buffer", 5, What::Commit("xfs-iclog"), ["xfs_log_force*", "_xfs_log_force*", "__xfs_log_force*", "xlog_force_iclog", "xlog_force_lsn",
        "xlog_wait*", "xlog_state_get_iclog_space", "xlog_state_switch_iclogs", "xlog_verify_*"],
        "I/O of the log", ["schedule", "xlog_wait_on_iclog", "xfs_log_force_seq", "xfs_file_fsync"];
    "xfs-push", 4, What::Commit("xfs-log"), ["xfs_ail_push_all_sync"],
        "xfsaild", ["schedule", "xfs_ail_push_all_sync", "xfs_unmount_flush_inodes"];
    "xfs-pin", 4, What::Commit("xfs-cil"), ["xfs_iunpin_wait", "__xfs_iunpin_wait", "xfs_qm_dqunpin_wait", "xfs_buf_wait_unpin", "xfs_extent_busy_flush", "xfs_extent_busy_wait_all"],
        "the checkpoint in which it is pinned", ["io_schedule", "__xfs_iunpin_wait", "xfs_iflush", "xfs_reclaim_inode"];
    "xfs-buffers", 4, What::Event("references to buffers"), ["xfs_buftarg_drain", "xfs_buftarg_wait", "xfs_wait_buftarg"],
        "I/O of the buffers, or who has them", ["schedule_timeout", "xfs_buftarg_wait", "xfs_unmountfs"];
    "f2fs-commit", 4, What::Commit("f2fs"), ["f2fs_issue_checkpoint", "f2fs_wait_on_all_pages*", "f2fs_issue_flush", "f2fs_wait_discard_bios", "f2fs_flush_ckpt_thread"],
        "the checkpoint thread", ["wait_for_completion", "f2fs_issue_checkpoint", "f2fs_sync_fs"];
    "freeze", 9, What::Freeze, ["__sb_start_write", "sb_start_write*", "mnt_want_write*", "file_start_write"],
        "the task that thaws", ["percpu_rwsem_wait", "__percpu_down_read", "__sb_start_write", "mnt_want_write"];
    "inode-sync", 5, What::Event("writeback of an inode"), ["inode_wait_for_writeback", "__inode_wait_for_writeback"],
        "the worker that writes it", ["schedule", "bit_wait", "__wait_on_bit", "__inode_wait_for_writeback", "inode_wait_for_writeback", "evict"];
    "inode-dio", 4, What::Io, ["inode_dio_wait", "__inode_dio_wait", "inode_dio_wait_interruptible"],
        "direct I/O that is under way", ["schedule", "__inode_dio_wait", "inode_dio_wait", "ext4_setattr"];
    "ext4-fast-commit", 5, What::Event("fast commit"), ["ext4_fc_start_update", "ext4_fc_del", "ext4_fc_wait_committing_inode", "jbd2_fc_begin_commit"],
        "the task in ext4_fc_commit", ["schedule", "ext4_fc_del", "ext4_evict_inode"];
    "xattr-cache", 4, What::Event("entry of the cache of attributes"), ["mb_cache_entry_wait_unused"],
        "the task that uses it", ["schedule", "mb_cache_entry_wait_unused", "ext4_evict_ea_inode"];
    "btrfs-log", 5, What::Commit("btrfs"), ["wait_log_commit", "btrfs_wait_log_commit", "wait_for_writer"],
        "the task that writes the log", ["schedule", "wait_log_commit", "btrfs_sync_log", "btrfs_sync_file"];
    "btrfs-maintenance", 4, What::Event("maintenance of btrfs"), ["btrfs_scrub_pause", "btrfs_scrub_cancel*", "scrub_pause_*", "scrub_blocked_if_needed", "btrfs_pause_balance",
        "btrfs_cancel_balance", "btrfs_qgroup_wait_for_completion", "btrfs_bio_counter_inc_blocked", "btrfs_rm_dev_replace_blocked", "btrfs_wait_on_delayed_iputs", "btrfs_async_run_delayed_root", "btrfs_wait_for_no_snapshotting_writes", "btrfs_start_write_no_snapshotting", "btrfs_wait_for_snapshot_creation"],
        "scrub, balance, quota or the cleaner", ["schedule", "btrfs_scrub_pause", "btrfs_commit_transaction"];
    "btrfs-drew", 9, What::Lock, ["btrfs_drew_write_lock", "btrfs_drew_read_lock"],
        "writers or snapshots", ["schedule", "btrfs_drew_read_lock", "btrfs_mksnapshot"];
    "btrfs-caching", 4, What::Event("free space of a block group"), ["btrfs_caching_ctl_wait_done", "btrfs_cache_block_group", "btrfs_wait_block_group_cache_progress", "btrfs_wait_block_group_cache_done"],
        "the worker that reads it", ["schedule", "btrfs_cache_block_group", "find_free_extent"];
    "mempool", 2, What::Io, ["mempool_alloc*", "bio_alloc_bioset"],
        "requests that have the pool's elements", ["io_schedule_timeout", "mempool_alloc", "bio_alloc_bioset", "crypt_alloc_buffer"];
    "ublk", 4, What::Event("server of the block device"), ["ublk_ctrl_start_dev", "ublk_ctrl_del_dev", "ublk_stop_dev", "tcmu_wait_genl_cmd_reply", "rbd_wait_state_locked"],
        "the server in user space", ["schedule", "tcmu_wait_genl_cmd_reply", "tcmu_netlink_event_send"];
    "ufs", 4, What::Event("UFS device"), ["ufshcd_exec_dev_cmd", "ufshcd_wait_for_dev_cmd", "ufshcd_wait_for_doorbell_clr", "ufshcd_hold", "ufshcd_wait_for_uic_cmd", "ufshcd_uic_pwr_ctrl", "ufshcd_err_handling_prepare"],
        "the device or its error handler", ["schedule_timeout", "wait_for_completion_timeout", "ufshcd_wait_for_dev_cmd", "ufshcd_exec_dev_cmd"];
    "channel-device", 4, What::Event("channel device"), ["_dasd_sleep_on", "dasd_sleep_on*", "ccw_device_set_offline", "ccw_device_set_online", "zfcp_erp_wait", "qdio_shutdown", "qeth_send_control_data"],
        "the channel subsystem", ["schedule", "_dasd_sleep_on", "dasd_sleep_on", "dasd_eckd_read_conf"];
    "thaw-tasks", 5, What::Event("thaw of tasks"), ["__refrigerator", "refrigerator", "cgroup_enter_frozen"],
        "who froze them", ["schedule", "__refrigerator", "get_signal"];
    "freeze-tasks", 4, What::Event("tasks to freeze"), ["try_to_freeze_tasks", "freeze_processes", "freeze_kernel_threads"],
        "the tasks that do not freeze", ["schedule_hrtimeout_range", "usleep_range_state", "try_to_freeze_tasks", "freeze_processes"];
    "device-suspend", 4, What::Event("suspend or resume of a device"), ["dpm_wait", "dpm_wait_fn", "dpm_wait_for_*", "device_pm_wait_for_dev"],
        "that device's driver", ["wait_for_completion", "dpm_wait", "dpm_wait_for_superior", "device_resume"];
    "pci", 4, What::Event("PCI device"), ["pci_wait_cfg", "pcie_wait_cmd", "pcie_wait_for_link*", "pci_dev_wait", "pci_wait_for_pending*"],
        "the device, or who resets it", ["schedule", "pci_wait_cfg", "pci_user_read_config_dword"];
    "firmware-call", 4, What::Event("firmware"), ["scmi_wait_for_message_response", "optee_do_call_with_arg", "optee_cq_wait*", "qcom_scm_wait_*", "mbox_send_message", "rpmh_write", "__efi_queue_work"],
        "the firmware", ["wait_for_completion", "__efi_queue_work", "virt_efi_get_variable"];
    "audit", 4, What::Event("audit daemon"), ["audit_log_start"],
        "auditd, which reads too slowly or not at all", ["schedule_timeout", "audit_log_start", "audit_log_exit"];
    "netlink-table", 9, What::Lock, ["netlink_table_grab"],
        "users of the table of sockets", ["schedule", "netlink_table_grab", "netlink_release"];
    "netlink-room", 4, What::Event("receiver of netlink"), ["netlink_attachskb"],
        "the program that does not receive", ["schedule_timeout", "netlink_attachskb", "netlink_unicast"];
    "send-room", 3, What::Event("room to send"), ["sk_stream_wait_memory", "sock_alloc_send_pskb", "sock_wait_for_wmem", "unix_wait_for_peer", "sctp_wait_for_sndbuf"],
        "the receiver", ["schedule_timeout", "sk_stream_wait_memory", "tcp_sendmsg_locked"];
    "connect", 3, What::Event("peer that answers"), ["inet_wait_for_connect", "sctp_wait_for_connect", "sctp_wait_for_accept", "vsock_connect", "llc_ui_wait_for_*", "x25_wait_for_*"],
        "the peer", ["schedule_timeout", "inet_wait_for_connect", "__inet_stream_connect"];
    "socket-release", 4, What::Event("references to a socket"), ["rxrpc_wait_to_be_connected", "rxrpc_destroy_all_calls", "rxrpc_destroy_all_locals", "smc_lgr_wait*", "smc_wr_free_link", "smc_wr_tx_wait_*"],
        "who has a reference", ["schedule", "rxrpc_destroy_all_calls", "rxrpc_exit_net"];
    "kvm", 4, What::Event("virtual machine"), ["kvm_swap_active_memslots", "install_new_memslots", "kvm_async_pf_task_wait*", "sev_wait_cmd_ioc"],
        "its threads, or the host", ["schedule", "kvm_async_pf_task_wait_schedule", "__kvm_handle_async_pf"];
    "module-use", 4, What::Event("uses of a module or object"), ["rdma_restrack_del", "wait_for_owner_exiting"],
        "who uses it", ["wait_for_completion", "rdma_restrack_del", "rdma_destroy_id"];
    "quota", 4, What::Event("quota"), ["dquot_drop", "dqput", "quota_release_workfn", "dqget_wait"],
        "the task that releases the quota", ["schedule", "dqput", "dquot_drop"];
    // CPUs.
    "ipi", 4, What::Ipi, ["smp_call_function*", "csd_lock_wait*", "on_each_cpu*", "text_poke_bp*", "text_poke_sync*", "native_flush_tlb_*", "flush_tlb_*", "generic_exec_single", "__csd_lock_wait", "smp_text_poke*"],
        "CPUs that take the interrupt", ["smp_call_function_many_cond", "on_each_cpu", "clock_was_set"];
    "stop-machine", 4, What::Ipi, ["stop_machine*", "multi_cpu_stop", "stop_one_cpu", "stop_two_cpus", "__stop_cpus", "migration_cpu_stop", "affine_move_task", "stop_core_cpuslocked"],
        "CPUs whose stopper thread runs", ["wait_for_completion", "__stop_cpus", "stop_machine", "clock_change"];
    "timer-callback", 4, What::Event("timer callback"), ["del_timer_sync", "timer_delete_sync", "hrtimer_cancel*", "__timer_delete_sync", "del_singleshot_timer_sync", "hrtimer_cancel_wait_running"],
        "the CPU in the callback", ["hrtimer_cancel_wait_running", "hrtimer_cancel", "do_nanosleep_cleanup"];
    "irq", 4, What::Event("interrupt handler"), ["synchronize_irq*", "__synchronize_irq", "synchronize_hardirq", "free_irq", "__free_irq"],
        "the handler", ["schedule", "synchronize_irq", "free_irq"];
    "tasklet", 4, What::Event("tasklet"), ["tasklet_kill*", "tasklet_unlock_wait", "tasklet_unlock_spin_wait"],
        "the CPU in the tasklet", ["msleep", "tasklet_unlock_wait", "tasklet_kill", "my_driver_stop"];
    "napi", 4, What::Event("poll function of a network device"), ["napi_disable*"],
        "the CPU in the poll function", ["msleep", "napi_disable", "virtnet_close"];
    "cpu-hotplug", 4, What::Event("CPU hotplug"), ["cpuhp_kick_ap*", "cpuhp_invoke_ap_callback", "__cpuhp_kick_ap", "bringup_cpu", "takedown_cpu", "cpuhp_bringup_ap", "cpuhp_bringup_mask", "wait_for_ap_thread", "smpboot_park_threads", "cpuhp_ap_sync_alive"],
        "the hotplug thread", ["wait_for_completion", "__cpuhp_kick_ap", "cpuhp_kick_ap", "_cpu_down"];
    "kthread-stop", 4, What::Event("thread to stop"), ["kthread_stop*", "kthread_park", "__kthread_create_on_node", "kthread_create_on_node", "kthread_destroy_worker", "vhost_task_stop", "md_unregister_thread", "kthread_stop_put", "kthread_create_worker*", "__kthread_create_worker*"],
        "that thread", ["wait_for_completion", "kthread_stop", "nilfs_detach_log_writer"];
    // Devices, network, other machines.
    "usb", 4, What::Event("USB transfer"), ["usb_start_wait_urb", "usb_kill_urb", "usb_kill_anchored_urbs", "usb_wait_anchor_empty_timeout", "usb_poison_urb", "usb_sg_wait", "usb_unlink_urb", "usb_hcd_flush_endpoint", "usb_control_msg*", "usb_internal_control_msg*", "usb_reset_device", "usb_reset_and_verify_device", "hub_port_reset", "xhci_alloc_dev", "xhci_setup_device", "xhci_stop_device", "usb_stor_msg_common", "usb_stor_bulk_transfer_buf", "wdm_flush", "usblp_wwait", "ehci_endpoint_disable", "usb_hcd_*endpoint*", "usb_poison_anchored_urbs", "usb_disable_endpoint", "usb_set_interface", "usb_clear_halt", "usb_get_descriptor", "xhci_configure_endpoint", "xhci_address_device", "uhci_hcd_endpoint_disable", "ohci_endpoint_disable", "usb_stor_control_msg", "quiesce_and_remove_host", "usbip_stop_eh", "hub_port_wait_reset", "hub_port_debounce", "usbnet_terminate_urbs", "usbnet_stop", "uas_eh_*"],
        "the USB host controller", ["schedule", "usb_kill_urb", "usb_start_wait_urb", "usb_bulk_msg"];
    "scsi", 4, What::Event("SCSI command"), ["scsi_execute*", "scsi_error_handler", "scsi_block_when_processing_errors", "sd_sync_cache", "sg_common_write", "scsi_flush_work", "ata_port_wait_eh", "ata_exec_internal*", "__scsi_execute", "sas_drain_work", "smp_execute_task*", "fc_block_rport", "fc_block_scsi_eh", "qla2x00_wait_for_*", "megasas_issue_blocked_cmd", "iscsi_block_scsi_eh", "st_do_scsi", "sr_do_ioctl"],
        "the device or its error handler", ["schedule", "scsi_block_when_processing_errors", "sd_open"];
    "nvme", 4, What::Event("NVMe command"), ["nvme_submit_sync_cmd*", "__nvme_submit_sync_cmd", "nvme_wait_freeze*", "nvme_disable_ctrl", "nvme_wait_reset", "nvme_execute_*", "nvme_wait_ready", "nvmf_connect_*"],
        "the NVMe device", ["wait_for_completion", "nvme_wait_freeze", "nvme_reset_work"];
    "mmc", 4, What::Event("MMC host"), ["__mmc_claim_host", "mmc_wait_for_req*", "mmc_wait_for_cmd", "mmc_blk_rw_wait"],
        "the task or request that has the host", ["schedule", "__mmc_claim_host", "mmc_get_card"];
    "runtime-pm", 4, What::Event("runtime power management"), ["rpm_resume", "rpm_suspend", "__pm_runtime_barrier", "pm_runtime_barrier", "rpm_idle", "pm_runtime_force_*"],
        "the task that suspends or resumes the device", ["schedule", "rpm_resume", "__pm_runtime_resume"];
    "device-use", 4, What::Event("references to a device"), ["i2c_del_adapter", "remove_client_context", "ib_unregister_client", "ib_unregister_device*", "__ib_unregister_device", "vfio_unregister_group_dev",
        "vfio_del_group_dev", "tee_device_unregister", "snd_card_free", "iommufd_object_dec_wait_shortterm"],
        "who has it open", ["wait_for_completion", "i2c_del_adapter", "i2c_dev_remove"];
    "probe", 4, What::Event("device probe"), ["wait_for_device_probe", "device_block_probing", "wait_for_init_devices*", "deferred_probe_*"],
        "the probe that does not end", ["schedule", "wait_for_device_probe", "prepare_namespace"];
    "async", 4, What::Event("asynchronous calls"), ["async_synchronize_*"],
        "the workers in async_run_entry_fn", ["schedule", "async_synchronize_cookie_domain", "async_synchronize_full", "do_init_module"];
    "firmware", 4, What::Event("firmware from user space"), ["fw_load_sysfs_fallback", "_request_firmware", "firmware_fallback_sysfs", "call_usermodehelper_exec", "usermodehelper_read_lock_wait"],
        "a program in user space", ["wait_for_completion", "call_usermodehelper_exec", "kobject_uevent_env"];
    "fuse", 5, What::Event("FUSE server"), ["request_wait_answer", "__fuse_request_send", "fuse_simple_request", "fuse_wait_aborted", "fuse_get_req*", "__fuse_simple_request", "fuse_set_nowrite", "fuse_wait_on_page_writeback", "fuse_wait_on_folio_writeback", "virtio_fs_enqueue_req", "fuse_sync_fs_writes", "fuse_wait_dax_page", "fuse_uring_stop_queues", "fuse_uring_wait_stopped_queues", "virtio_fs_drain_*"],
        "the server in user space", ["schedule", "request_wait_answer", "fuse_simple_request", "fuse_lookup_name"];
    "userfault", 5, What::Event("page from user space"), ["handle_userfault"],
        "the program that handles the faults", ["schedule", "handle_userfault", "do_anonymous_page"];
    "sunrpc", 5, What::Event("RPC server"), ["rpc_wait_bit_killable", "__rpc_execute", "rpc_wait_for_completion_task", "__rpc_wait_for_completion_task", "nfs_wait_client_init_complete", "nfs_wait_bit_killable",
        "nfs4_wait_clnt_recover", "rpc_shutdown_client", "nfs_wait_on_request", "nlmclnt_block", "nfs4_drain_slot_tbl", "nfs_commit_inode", "nfs_iocounter_wait", "nfs4_wait_on_layoutreturn", "pnfs_wait_on_layoutreturn", "nfs_direct_wait", "nfs_inode_dio_wait", "nfs_file_block_o_direct", "nfs_clear_invalid_mapping", "nfs_revalidate_mapping*", "nfs4_delay", "nfs4_handle_exception", "nfs_lock_and_join_requests", "gss_create_upcall", "gss_cred_init", "cache_wait_req"],
        "the server", ["schedule", "rpc_wait_bit_killable", "__wait_on_bit", "__rpc_execute"];
    "9p", 5, What::Event("9P server"), ["p9_client_rpc", "p9_virtio_zc_request", "p9_client_zc_rpc", "netfs_wait_for_*", "netfs_unbuffered_*", "netfs_writepages_end"],
        "the server", ["schedule", "p9_client_rpc", "p9_client_flush"];
    "cifs", 5, What::Event("SMB server"), ["wait_for_response", "compound_send_recv", "cifs_send_recv", "wait_for_free_request", "cifs_wait_mtu_credits", "cifs_reconnect*", "SendReceive*", "wait_for_compound_request", "cifs_lock_wait"],
        "the server", ["schedule", "wait_for_response", "compound_send_recv", "cifs_send_recv"];
    "ceph", 5, What::Event("Ceph cluster"), ["ceph_mdsc_wait_request", "ceph_osdc_wait_request", "ceph_osdc_sync", "wait_request_timeout", "ceph_mdsc_do_request", "rbd_img_*", "ceph_get_caps*", "ceph_mdsc_sync", "ceph_mdsc_close_sessions", "wait_caps_flush", "__ceph_get_caps", "ceph_monc_wait_osdmap", "ceph_wait_for_latest_osdmap", "__ceph_open_session", "rbd_acquire_lock", "linger_reg_commit_wait", "wait_unsafe_requests", "flush_mdlog_and_wait_*"],
        "the cluster", ["wait_for_completion", "ceph_mdsc_wait_request", "ceph_mdsc_do_request"];
    "dlm", 5, What::Event("distributed lock"), ["gfs2_glock_wait*", "gfs2_glock_async_wait", "gfs2_glock_nq*", "dlm_lock_sync*", "__ocfs2_cluster_lock*", "wait_for_recovery", "dlm_wait_*", "ocfs2_wait_for_mask", "gfs2_gl_hash_clear", "gdlm_lock", "lock_resource", "ocfs2_wait_for_recovery", "ocfs2_wait_on_*", "ocfs2_mark_lockres_freeing", "ocfs2_recovery_exit", "o2net_send_message*", "dlm_new_lockspace", "dlm_user_request"],
        "the holder in the cluster", ["schedule", "gfs2_glock_wait", "gfs2_glock_nq", "gfs2_lookupi"];
    "queue-discipline", 4, What::Event("packets under way"), ["dev_deactivate_many", "dev_deactivate"],
        "the CPU that sends them", ["msleep", "dev_deactivate_many", "__dev_close_many"];
    "protocol-exit", 4, What::Event("sockets and works of a protocol"), ["rds_conn_shutdown", "tipc_exit_net", "tipc_net_stop", "tipc_topsrv_stop", "kcm_done"],
        "its sockets and works", ["schedule", "rds_conn_shutdown", "rds_conn_destroy"];
    "crypto", 4, What::Event("crypto operation"), ["crypto_larval_wait", "crypto_wait_for_test", "crypto_alg_mod_lookup", "tls_encrypt_async_wait", "tls_decrypt_async_wait", "af_alg_wait_for_data", "af_alg_wait_for_wmem"],
        "the algorithm or its device", ["schedule_timeout", "wait_for_completion_killable_timeout", "crypto_larval_wait", "crypto_alg_mod_lookup"];
    "network-device", 4, What::Event("references to a network device"), ["netdev_wait_allrefs*"],
        "who has a reference", ["msleep", "netdev_wait_allrefs", "netdev_run_todo"];
    "bluetooth", 4, What::Event("Bluetooth controller"), ["__hci_cmd_sync*", "hci_req_sync", "__hci_req_sync", "l2cap_sock_shutdown", "bt_sock_wait_*", "hci_cmd_sync_*", "__hci_cmd_sync_status"],
        "the controller", ["schedule_timeout", "__hci_cmd_sync_sk", "hci_dev_open_sync"];
    "drm", 4, What::Event("GPU fence"), ["dma_fence_default_wait", "dma_fence_wait*", "dma_resv_wait_timeout*", "drm_atomic_helper_wait_*", "drm_sched_entity_flush", "i915_request_wait*", "intel_wait_*", "ttm_bo_wait*", "drm_sched_stop", "drm_vblank_*wait*", "amdgpu_fence_wait*", "drm_crtc_commit_wait", "ttm_resource_manager_evict_all", "nouveau_fence_wait"],
        "the GPU", ["schedule_timeout", "dma_fence_default_wait", "dma_fence_wait_timeout", "drm_atomic_helper_wait_for_fences"];
    "virtio", 3, What::Event("virtio device"), ["virtio_gpu_*wait*", "virtnet_send_command*", "vhost_net_flush", "virtblk_get_id", "vp_del_vqs", "virtcrypto_*", "virtio_fs_*"],
        "the hypervisor", ["schedule", "virtnet_send_command", "virtnet_set_rx_mode"];
    "hwrng", 3, What::Event("random numbers of a device"), ["virtio_read", "rng_get_data", "hwrng_fillfn"],
        "the device", ["wait_for_completion_killable", "virtio_read", "rng_dev_read"];
    "loop", 4, What::Io, ["loop_flush", "lo_rw_aio", "loop_clr_fd_wait", "nbd_disconnect_and_put", "nbd_start_device_ioctl", "nbd_send_cmd_wait", "blkdev_put_whole_wait"],
        "the server of the block device", ["schedule", "nbd_start_device_ioctl", "nbd_ioctl"];
    "tty-drain", 4, What::Event("serial output"), ["tty_wait_until_sent", "wait_for_xmitr", "n_tty_write_wait", "uart_wait_until_sent", "tty_ldisc_hangup_wait"],
        "the serial device", ["schedule_timeout", "tty_wait_until_sent", "tty_port_close_start"];
    // File systems of their own kind.
    "bcachefs", 4, What::Commit("bcachefs"), ["bch2_journal_flush*", "bch2_journal_res_get_slowpath", "bch2_journal_meta", "bch2_journal_quiesce", "bch2_journal_flush_pins", "__bch2_journal_flush*"],
        "the journal's reclaim thread", ["schedule", "bch2_journal_res_get_slowpath", "bch2_trans_commit_error"];
    "six-lock", 9, What::Lock, ["six_lock_slowpath", "six_lock_ip_waiter", "bch2_six_check_for_deadlock"],
        "the task that has the node", ["schedule", "six_lock_slowpath", "six_lock_ip_waiter", "bch2_btree_path_traverse_one"];
    "nilfs-commit", 4, What::Commit("nilfs2"), ["nilfs_segctor_sync", "nilfs_construct_segment", "nilfs_construct_dsync_segment"],
        "the segment constructor", ["schedule", "nilfs_segctor_sync", "nilfs_construct_segment", "nilfs_sync_fs"];
    "jfs-commit", 4, What::Commit("jfs"), ["jfs_flush_journal", "lmGroupCommit", "txBegin", "txLockAlloc", "lmLogSync", "txBeginAnon", "lmLogShutdown", "txQuiesce", "lbmIOWait", "lbmAllocate"],
        "the log's thread", ["io_schedule", "txBegin", "jfs_create"];
    "reiserfs-commit", 4, What::Commit("reiserfs"), ["queue_log_writer", "do_journal_begin_r", "flush_commit_list", "reiserfs_wait_on_write_block", "let_transaction_grow", "flush_journal_list"],
        "the task that commits, and the holders of handles", ["schedule", "queue_log_writer", "do_journal_begin_r", "reiserfs_create"];
    "gfs2-log", 4, What::Commit("gfs2"), ["gfs2_log_reserve", "__gfs2_log_reserve", "gfs2_log_empty_wait", "log_flush_wait", "gfs2_ail_empty_*", "gfs2_ail1_wait"],
        "gfs2_logd", ["io_schedule", "gfs2_log_reserve", "gfs2_trans_begin"];
    "jffs2-space", 4, What::Event("garbage collection of the flash"), ["jffs2_reserve_space*", "jffs2_do_reserve_space", "jffs2_stop_garbage_collect_thread"],
        "the garbage collector", ["schedule", "jffs2_reserve_space", "jffs2_write_inode_range"];
    "metapage", 5, What::Page, ["__lock_metapage", "lock_metapage", "__get_metapage", "grab_metapage"],
        "the task or I/O that has the page", ["io_schedule", "__lock_metapage", "__get_metapage", "diRead"];
    "super-block", 4, What::Event("mount or unmount of a file system"), ["super_lock*", "grab_super*", "__super_lock*", "bdev_super_lock*"],
        "the task that mounts or unmounts it", ["schedule", "super_lock", "grab_super", "sget_fc"];
    "marks", 4, What::Event("watchers of files"), ["fsnotify_destroy_group", "fsnotify_sb_delete", "fsnotify_unmount_inodes"],
        "who watches", ["schedule", "fsnotify_sb_delete", "generic_shutdown_super"];
    "fscache", 5, What::Event("cache of a network file system"), ["fscache_wait_*", "fscache_begin_operation", "__fscache_relinquish_cookie", "__fscache_use_cookie", "__fscache_acquire_volume",
        "fscache_relinquish_cache", "cachefiles_ondemand_send_req"],
        "cachefiles and its daemon", ["schedule", "fscache_wait_on_volume_collision", "__fscache_acquire_volume"];
    "squashfs", 4, What::Event("entry of the cache of blocks"), ["squashfs_cache_get", "get_decomp_stream"],
        "the task that reads it", ["schedule", "squashfs_cache_get", "squashfs_read_metadata"];
    "upcall", 5, What::Event("file system's server in user space"), ["service_operation", "wait_for_matching_downcall", "coda_upcall", "coda_waitfor_upcall", "ecryptfs_wait_for_response"],
        "the server in user space", ["schedule_timeout", "wait_for_matching_downcall", "service_operation", "orangefs_inode_getattr"];
    "ubifs-commit", 6, What::Commit("ubifs"), ["ubifs_run_commit", "make_reservation"],
        "the task that commits", ["schedule", "wait_for_commit", "ubifs_run_commit"];
    "dax-entry", 4, What::Event("DAX entry"), ["wait_entry_unlocked", "get_unlocked_entry", "get_next_unlocked_entry", "dax_lock_folio", "dax_lock_mapping_entry", "dax_break_layout*"],
        "the task that has the entry", ["schedule", "get_unlocked_entry", "grab_mapping_entry"];
    "afs", 5, What::Event("AFS server"), ["afs_wait_for_call_to_complete", "afs_wait_for_operation", "afs_do_sync_operation", "afs_make_call"],
        "the server", ["schedule", "afs_wait_for_call_to_complete", "afs_wait_for_operation"];
    "autofs", 5, What::Event("automount daemon"), ["autofs_wait", "autofs4_wait"],
        "the daemon in user space", ["schedule", "autofs_wait", "autofs_mount_wait"];
    "fanotify", 5, What::Event("fanotify listener"), ["fanotify_get_response", "fanotify_handle_event"],
        "the listener in user space", ["schedule", "fanotify_handle_event", "fsnotify"];
    "nfsd", 4, What::Event("threads of the NFS server"), ["nfsd_shutdown_threads", "svc_stop_kthreads", "svc_start_kthreads", "svc_set_num_threads", "svc_exit_thread_wait"],
        "those threads", ["schedule", "svc_stop_kthreads", "svc_set_num_threads", "nfsd_svc"];
    // Block devices made of others.
    "bcache", 4, What::Io, ["bch_bucket_alloc", "bch_btree_cache_alloc_wait", "bch_cached_dev_detach_finish", "cached_dev_cache_miss_wait"],
        "the cache device", ["schedule", "bch_bucket_alloc", "__bch_bucket_alloc_set"];
    "drbd", 4, What::Io, ["wait_until_done_or_force_detached", "drbd_md_sync_page_io", "drbd_al_begin_io", "drbd_suspend_io_wait"],
        "the device or the peer", ["schedule", "wait_until_done_or_force_detached", "drbd_md_sync_page_io"];
    "claim", 4, What::Event("claim of a block device"), ["bd_prepare_to_claim", "bd_start_claiming", "blkdev_get_claim_wait"],
        "the task that opens it", ["schedule", "bd_prepare_to_claim", "blkdev_get_by_dev"];
    "iscsi", 4, What::Event("iSCSI session"), ["transport_wait_for_tasks", "target_wait_for_sess_cmds", "target_wait_for_cmds", "iscsit_wait_*", "iscsi_conn_failure_wait", "iscsi_session_teardown_wait"],
        "the initiator or target", ["wait_for_completion", "target_wait_for_sess_cmds", "iscsit_close_session"];
    // Devices.
    "hid", 4, What::Event("HID device"), ["__uhid_report_queue_and_wait", "uhid_hid_get_report", "uhid_hid_set_report", "hid_hw_wait", "usbhid_wait_io", "picolcd_send_and_wait", "wiimote_cmd_wait", "hidpp_send_message_sync"],
        "the device, or its program in user space", ["schedule_timeout", "__uhid_report_queue_and_wait", "uhid_hid_set_report"];
    "usb-gadget", 4, What::Event("USB host"), ["raw_process_ep0_io", "raw_process_ep_io", "ffs_ep0_queue_wait*", "__ffs_ep0_queue_wait", "ffs_epfile_io"],
        "the host at the other end", ["wait_for_completion_interruptible", "raw_process_ep0_io", "raw_ioctl"];
    "nfc", 4, What::Event("NFC controller"), ["__nci_request", "nci_request", "nci_core_reset", "pn533_send_cmd_sync", "digital_send_cmd_wait"],
        "the controller", ["schedule_timeout", "wait_for_completion_interruptible_timeout", "__nci_request", "nci_dev_up"];
    "wireless", 4, What::Event("wireless device"), ["ath9k_wmi_cmd", "ath6kl_wmi_*wait*", "carl9170_exec_cmd", "rsi_send_*_wait", "brcmf_*_wait_*", "iwl_trans_send_cmd_sync*", "mt76_mcu_send_and_get_msg", "ieee80211_flush_wait", "ath10k_wmi_cmd_send", "ath10k_wmi_wait_for_*", "ath11k_wmi_wait_for_*", "ath9k_htc_wait_for_target", "mwifiex_wait_queue_complete"],
        "the device's firmware", ["schedule_timeout", "wait_for_completion_timeout", "ath9k_wmi_cmd", "ath9k_regread"];
    "rdma", 4, What::Event("RDMA connection"), ["cm_destroy_id*", "ib_drain_*", "__ib_drain_*", "__rxe_cleanup", "rxe_pool_cleanup_wait", "disable_device", "rdma_destroy_id_wait", "iw_destroy_cm_id", "ucma_destroy_id_wait"],
        "who uses it", ["wait_for_completion", "cm_destroy_id", "rdma_destroy_id"];
    "sound", 4, What::Event("sound card"), ["snd_pcm_drain", "snd_use_lock_sync_helper", "snd_power_ref_and_wait", "snd_usb_endpoint_sync_pending_stop", "wait_clear_urbs", "snd_card_disconnect_sync", "snd_rawmidi_drain*"],
        "who uses it, or the device", ["schedule_timeout", "wait_clear_urbs", "snd_usb_endpoint_sync_pending_stop"];
    "media", 4, What::Event("media device"), ["__vb2_wait_for_done_vb", "vb2_wait_for_all_buffers", "v4l2_m2m_cancel_job", "dvb_frontend_stop", "dvb_usb_generic_rw"],
        "the device", ["schedule", "vb2_wait_for_all_buffers", "vivid_stop_streaming"];
    "flash", 4, What::Event("flash chip"), ["nand_get_device", "nand_wait_ready", "mtd_get_chip", "cfi_get_chip"],
        "the chip, or the task that has it", ["schedule", "nand_get_device", "nand_read_oob"];
    "bus-transfer", 4, What::Event("bus transfer"), ["__spi_sync", "spi_sync", "spi_transfer_wait", "i2c_smbus_wait", "i3c_master_send_*"],
        "the bus controller", ["wait_for_completion", "__spi_sync", "spi_sync"];
    "tpm", 4, What::Event("TPM"), ["tpm_transmit*", "wait_for_tpm_stat*", "tpm_try_transmit", "tpm_tis_send_main"],
        "the TPM", ["schedule_timeout", "wait_for_tpm_stat", "tpm_tis_send_main"];
    "acpi", 4, What::Event("ACPI firmware"), ["acpi_ec_transaction*", "acpi_ec_guard", "acpi_os_wait_events_complete", "acpi_ex_system_wait_*"],
        "the firmware", ["schedule_timeout", "acpi_ec_guard", "acpi_ec_transaction"];
    "devtmpfs", 4, What::Event("devtmpfs"), ["devtmpfs_submit_req", "devtmpfs_create_node", "devtmpfs_delete_node"],
        "kdevtmpfs", ["wait_for_completion", "devtmpfs_submit_req", "devtmpfs_delete_node"];
    "vhost", 3, What::Work, ["vhost_dev_flush", "vhost_work_dev_flush", "__vhost_worker_flush", "vhost_poll_flush"],
        "the vhost worker", ["wait_for_completion", "__vhost_worker_flush", "vhost_dev_flush"];
    "hypervisor", 4, What::Event("hypervisor's answer"), ["xs_talkv", "read_reply", "xenbus_dev_*wait*", "vmbus_teardown_gpadl", "vmbus_establish_gpadl", "storvsc_wait_to_drain", "hv_pci_*wait*"],
        "the host", ["schedule", "read_reply", "xs_talkv"];
    "ipmi", 4, What::Event("management controller"), ["__get_guid", "__get_device_id", "ipmi_request_wait", "i_ipmi_req_wait"],
        "the controller", ["schedule", "__get_guid", "ipmi_register_smi"];
    // Sockets that close, keys, modules.
    "socket-close", 4, What::Event("end of a connection"), ["sk_stream_wait_close", "smc_close_stream_wait", "virtio_transport_wait_close", "sctp_wait_for_close", "tipc_wait_for_cond"],
        "the other end", ["schedule_timeout", "sk_stream_wait_close", "tcp_close"];
    "key", 4, What::Event("key from user space"), ["wait_for_key_construction", "call_sbin_request_key"],
        "the program that makes the key", ["schedule", "wait_for_key_construction", "request_key"];
    "module", 4, What::Event("module to load"), ["__request_module", "idempotent_wait_for_completion", "idempotent_init_module", "add_unformed_module", "finished_loading"],
        "the task or program that loads it", ["schedule", "add_unformed_module", "load_module"];
    // Tasks.
    "vfork", 4, What::Event("child of vfork"), ["wait_for_vfork_done"],
        "the child", ["wait_for_completion", "wait_for_vfork_done", "kernel_clone"];
    "coredump", 4, What::Event("core dump"), ["coredump_wait", "exit_mm_wait", "wait_for_dump_helpers", "coredump_task_exit", "dump_interrupted"],
        "the threads that have to stop", ["schedule", "coredump_task_exit", "do_exit"];
    "zap-namespace", 4, What::Event("tasks of a namespace"), ["zap_pid_ns_processes", "de_thread", "zap_other_threads_wait"],
        "the tasks that have to end", ["schedule", "zap_pid_ns_processes", "do_exit"];
    "ptrace", 4, What::Event("tracer"), ["ptrace_stop", "ptrace_notify", "do_jobctl_trap", "utrace_stop", "wait_task_inactive", "ptrace_freeze_traced"],
        "the tracer", ["schedule", "ptrace_stop", "ptrace_notify"];
    "seccomp", 4, What::Event("seccomp supervisor"), ["seccomp_do_user_notification"],
        "the supervisor", ["wait_for_completion_interruptible", "seccomp_do_user_notification", "__seccomp_filter"];
    "cgroup-drain", 4, What::Event("control group to drain"), ["cgroup_lock_and_drain_offline", "cgroup_drain_*", "css_killed_wait", "mem_cgroup_css_offline_wait", "blkcg_wait_*", "cgroup_freeze_wait"],
        "the worker that removes it", ["schedule", "cgroup_lock_and_drain_offline", "cgroup_apply_control"];
    "vma-lock", 9, What::Lock, ["__vma_start_write", "__vma_enter_locked", "__vma_start_exclude_readers", "__vma_mark_detached", "vma_mark_detached"],
        "the tasks that read the mapping", ["schedule", "__vma_enter_locked", "__vma_start_write", "vms_gather_munmap_vmas"];
    "throttled", 4, What::Event("memory"), ["mem_cgroup_handle_over_high", "__alloc_pages_slowpath", "throttle_direct_reclaim", "mem_cgroup_oom_synchronize", "congestion_wait", "reclaim_throttle", "shrink_inactive_list", "mem_cgroup_out_of_memory", "swap_readpage_wait", "too_many_isolated", "isolate_migratepages_block"],
        "reclaim", ["schedule_timeout", "reclaim_throttle", "shrink_inactive_list", "shrink_lruvec"];
    "migration", 4, What::Event("page under migration"), ["migration_entry_wait*", "__migration_entry_wait*", "migration_entry_wait_on_locked", "lru_add_drain_all_wait"],
        "the task that moves the page", ["io_schedule", "migration_entry_wait_on_locked", "__handle_mm_fault"];
    "pipe", 2, What::Event("pipe"), ["pipe_wait*", "pipe_read", "pipe_write", "wait_for_partner", "wait_for_space"],
        "the other end", ["schedule", "pipe_write", "vfs_write"];
    "unix-gc", 4, What::Event("garbage collector of sockets"), ["wait_for_unix_gc"],
        "the collector", ["schedule", "wait_for_unix_gc", "unix_dgram_sendmsg"];
    "close-wait", 3, What::Event("references to drop"), ["kobject_wait_*", "device_link_wait_removal", "proc_entry_rundown", "unuse_pde", "kernfs_drain", "sysfs_deactivate", "debugfs_file_wait", "__debugfs_file_removed", "remove_proc_entry", "remove_proc_subtree", "kernfs_drain_open_files"],
        "users of the file", ["wait_for_completion", "proc_entry_rundown", "remove_proc_subtree"];
    // Who waits like this is not stuck.
    "idle", 9, What::Idle, ["worker_thread", "rescuer_thread", "do_wait", "do_epoll_wait", "ep_poll", "do_sys_poll", "do_select", "futex_wait*", "hrtimer_nanosleep", "do_nanosleep", "kthread_worker_fn",
        "kswapd", "smpboot_thread_fn", "do_sigtimedwait", "n_tty_read", "do_sys_pause", "sigsuspend", "inet_csk_accept", "unix_stream_read_generic", "skb_wait_for_more_packets", "__skb_wait_for_more_packets", "rcu_gp_kthread",
        "rcu_gp_fqs_loop", "kauditd_thread", "kjournald2", "loop_thread", "syslog_read", "do_syslog", "devtmpfsd", "irq_thread", "watchdog", "oom_reaper", "ksm_scan_thread", "khugepaged", "do_poll", "sock_def_wait", "svc_recv", "nfsd", "lockd", "io_wq_worker", "io_wqe_worker", "io_sq_thread", "io_cqring_wait", "kcompactd", "kthreadd", "psi_rstat_worker", "rcu_tasks_kthread", "rcu_nocb_gp_kthread", "rcu_nocb_cb_kthread", "kdamond_fn", "xfsaild", "md_thread", "futex_do_wait", "do_accept", "binder_wait_for_work", "binder_thread_read", "sctp_skb_recv_datagram", "f2fs_discard_thread", "khungtaskd"],
        "new work", ["schedule", "worker_thread", "kthread"];
    // Anything may be behind these.
    "completion", 1, What::Event("completion"), ["wait_for_completion*", "wait_for_common*", "__wait_for_common"],
        "whoever completes it", ["schedule_timeout", "wait_for_completion", "my_driver_wait"];
    "wait-bit", 1, What::Event("bit"), ["out_of_line_wait_on_bit*", "__wait_on_bit*", "wait_on_bit*", "bit_wait", "bit_wait_timeout"],
        "whoever clears it", ["schedule", "bit_wait", "__wait_on_bit", "my_driver_wait"];
];

/// Whether a name fits a pattern.
pub(super) fn fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        // In the middle too: `tracing_*_open`.
        Some(start) if !start.contains('*') => name.starts_with(start),
        _ => match pattern.split_once('*') {
            Some((start, end)) => {
                let end = end.trim_end_matches('*');
                name.strip_prefix(start).is_some_and(|rest| rest.contains(end))
            }
            None => pattern == name,
        },
    }
}

/// The rows of the table that know a function, in the table's order. By the name's first byte, since every
/// frame of a log is looked up.
pub(super) fn rules_for(name: &str) -> impl Iterator<Item = &'static Rule> {
    type Rows = Vec<(&'static str, &'static Rule)>;
    static ROWS: OnceLock<Vec<Rows>> = OnceLock::new();
    let rows = ROWS.get_or_init(|| {
        let mut rows = vec![Rows::new(); 256];
        for rule in RULES {
            for symbol in rule.symbols {
                rows[usize::from(symbol.as_bytes()[0])].push((symbol, rule));
            }
        }
        rows
    });
    let near = name.as_bytes().first().map(|first| &rows[usize::from(*first)]);
    near.into_iter().flatten().filter(|(symbol, _)| fits(symbol, name)).map(|(_, rule)| *rule)
}

/// Whether a name fits one of the patterns.
pub(super) fn fits_any(patterns: &[&str], name: &str) -> bool {
    patterns.iter().any(|pattern| fits(pattern, name))
}

/// What stands beside the first pattern that the name fits.
pub(super) fn beside(table: &[(&str, &'static str)], name: &str) -> Option<&'static str> {
    table.iter().find(|(pattern, _)| fits(pattern, name)).map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hang::parse::Parser;
    use crate::hang::waits;

    /// A log in which one task has this stack.
    fn log(stack: &[&str], running: bool) -> String {
        let mut log = String::new();
        if running {
            log += "NMI backtrace for cpu 1\nCPU: 1 PID: 7 Comm: sample Not tainted 6.9.0 #1\n";
        } else {
            log += "task:sample state:D stack:0 pid:7 ppid:2 flags:0x4000\n";
        }
        log += "Call Trace:\n <TASK>\n";
        for function in stack {
            log += &format!(" {function}+0x12/0x340\n ? left_over+0x1/0x2\n");
        }
        log + " </TASK>\n"
    }

    #[test]
    fn every_row_recognises_its_stack_in_a_log() {
        for rule in RULES {
            let found = explained_by(rule.sample, rule.what == What::Spin);
            assert_eq!(found, Some(rule.id), "{:?}", rule.sample);
        }
    }

    /// A name that the pattern was written for.
    fn name_of(pattern: &str) -> String {
        pattern.replace('*', "x")
    }

    /// The nodes that a task waits for which has these functions, and the pattern's, on its stack.
    fn waited_for(inner: &[&str], pattern: &str) -> Vec<String> {
        let name = name_of(pattern);
        let mut stack = inner.to_vec();
        stack.extend([name.as_str(), "do_syscall_64"]);
        let text = format!(
            "INFO: task sample:7 blocked for more than 143 seconds.\n{}",
            log(&stack, false)
        );
        let explanation = crate::hang::explain(text.as_bytes()).expect("bytes in memory");
        let edges = explanation.accounts.iter().flat_map(|account| &account.edges);
        edges.map(|edge| edge.to.to_string()).collect()
    }

    /// No row of the names is shadowed by another, or by a rule.
    #[test]
    fn every_name_is_found_in_a_log() {
        let mut dead = Vec::new();
        let mut check = |inner: &[&str], pattern: &str, node: String| {
            let found = waited_for(inner, pattern);
            if !found.contains(&node) {
                dead.push(format!("{pattern}: {node}, found {found:?}"));
            }
        };
        for (pattern, lock) in LOCK_NAMES {
            let inner = ["schedule_preempt_disabled", "__mutex_lock"];
            check(&inner, pattern, format!("lock:{lock}"));
        }
        for (pattern, work) in WORK_NAMES {
            let inner = ["schedule_timeout", "wait_for_completion", "__flush_work"];
            check(&inner, pattern, format!("work:{work}"));
        }
        for (pattern, domain) in SRCU_NAMES {
            let inner = ["schedule_timeout", "wait_for_completion", "__synchronize_srcu"];
            check(&inner, pattern, format!("gp:srcu:{domain}"));
        }
        assert!(dead.is_empty(), "{}", dead.join("\n"));
    }

    /// Whether a task that sleeps in these functions is said to have the lock that another asks for.
    fn holds(lock: &str, stack: &[&str]) -> bool {
        let Some((pattern, _)) = LOCK_NAMES.iter().find(|(_, name)| *name == lock) else {
            panic!("nobody is known to ask for {lock}");
        };
        let asks = name_of(pattern);
        let waiter = log(&["schedule", "__mutex_lock", &asks, "asker"], false);
        let holder = log(stack, false).replace("sample", "holder").replace("pid:7", "pid:8");
        let text =
            format!("INFO: task sample:7 blocked for more than 143 seconds.\n{waiter}{holder}");
        let explanation = crate::hang::explain(text.as_bytes()).expect("bytes in memory");
        explanation.accounts[0].edges.iter().any(|edge| {
            edge.from.to_string() == format!("lock:{lock}") && edge.to.to_string() == "task:8"
        })
    }

    /// Who is in a function of the table, and waits for something else, has the lock.
    #[test]
    fn every_holder_is_found_in_a_log() {
        for (lock, function) in LOCK_HOLDERS {
            let stack = ["schedule", "my_wait", "my_driver", function, "taker"];
            assert!(holds(lock, &stack), "{lock}, {function}");
        }
    }

    /// Who is in such a function further in has given it back.
    #[test]
    fn every_function_that_gives_a_lock_back_is_found_in_a_log() {
        for (lock, function, caller) in LOCK_DROPS {
            let holder = LOCK_HOLDERS.iter().find(|(known, _)| known == lock);
            let (_, holder) = holder.expect("somebody who has it otherwise");
            let (function, caller) = (name_of(function), name_of(caller));
            let mut stack = vec!["schedule", "my_wait", function.as_str(), caller.as_str(), holder];
            stack.retain(|name| !name.is_empty());
            assert!(!holds(lock, &stack), "{lock}, {function}");
            stack.retain(|name| *name != function);
            assert!(holds(lock, &stack), "{lock}, without {function}");
        }
    }

    #[test]
    fn every_lock_that_is_named_by_its_kind_is_found_in_a_log() {
        for (rule, function, lock) in LOCK_NAMES_BY_KIND {
            let rule = RULES.iter().find(|known| known.id == *rule).expect("a rule");
            let found = waited_for(&["schedule", &name_of(rule.symbols[0])], function);
            assert!(found.contains(&format!("lock:{lock}")), "{function}: {found:?}");
        }
    }

    /// Which row explains a task that sleeps, or runs, in these functions.
    fn explained_by(stack: &[&str], running: bool) -> Option<&'static str> {
        let text = log(stack, running);
        let mut parser = Parser::default();
        (1..).zip(text.lines()).for_each(|(at, line)| parser.line(at, line.as_bytes()));
        let incident = &parser.incident;
        waits::of_task(incident, &incident.tasks[&7]).map(|(wait, _)| wait.rule.id)
    }

    /// No function of a row is dead: for each, a log in which a task sleeps there is explained by that row.
    #[test]
    fn every_function_of_every_row_is_found_in_a_log() {
        let mut dead = Vec::new();
        for rule in RULES {
            for pattern in rule.symbols {
                let name = name_of(pattern);
                // Who takes a lock that a thaw is waited for with sleeps further in.
                let inner: &[&str] = match rule.what {
                    What::Spin => &[],
                    What::Freeze => &["schedule", "percpu_rwsem_wait", "__percpu_down_read"],
                    _ => &["__schedule", "schedule"],
                };
                let mut stack = inner.to_vec();
                stack.extend([name.as_str(), "some_driver_does", "do_syscall_64"]);
                let found = explained_by(&stack, rule.what == What::Spin);
                if found != Some(rule.id) {
                    dead.push(format!("{}: {pattern} is explained by {found:?}", rule.id));
                }
            }
        }
        assert!(dead.is_empty(), "{}", dead.join("\n"));
    }

    #[test]
    fn every_row_has_its_own_name() {
        let mut names: Vec<&str> = RULES.iter().map(|rule| rule.id).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), RULES.len());
    }

    #[test]
    fn patterns() {
        assert!(fits("down", "down") && !fits("down", "down_read"));
        assert!(fits("down*", "down_read") && !fits("down*", "__down"));
        assert!(
            fits("tracing_*_open", "tracing_buffers_open")
                && !fits("tracing_*_open", "tracing_open")
        );
    }
}
