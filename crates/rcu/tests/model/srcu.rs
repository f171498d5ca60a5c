//! The kernel's SRCU-fast, after `kernel/rcu/srcutree.c` of Linux 7.0, and the RCU that it leans on.
//!
//! Function names are the kernel's, and a report of a hang shows them as a stack. What matters here is
//! that `srcu_readers_active_idx_check` calls `synchronize_rcu()` where SRCU with full barriers has an
//! `smp_mb()`: readers need no barrier, and the worker *blocks* until every CPU has passed through a
//! quiescent state of a different mechanism.

use gracepoint_model::{Context, Object, Program, Step, Until, Word};

const SRCU_STATE_IDLE: u64 = 0;
const SRCU_STATE_SCAN1: u64 = 1;
const SRCU_STATE_SCAN2: u64 = 2;
const RCU_SEQ_STATE_MASK: u64 = 3;

/// Normal RCU: a grace period is over when no CPU is inside a section that was open.
#[derive(Clone, Debug)]
pub(crate) struct Rcu {
    /// `rcu_read_lock` nesting, by CPU.
    pub(crate) nesting: Vec<Word>,
    requested: Word,
    completed: Word,
}

impl Rcu {
    pub(crate) fn new(program: &mut Program, cpus: usize) -> Self {
        let nesting = (0..cpus).map(|cpu| program.word(format!("rcu_nesting[{cpu}]"), 0)).collect();
        let requested = program.word("rcu_requested", 0);
        let completed = program.word("rcu_completed", 0);
        let rcu = Self { nesting, requested, completed };
        let kthread = rcu.clone();
        program.server("rcu_preempt", move |cx| kthread.gp_kthread(cx));
        rcu
    }

    /// The grace-period kthread: the one thing that the real one and this have in common is
    /// that it waits for every CPU, and that each executes a full barrier meanwhile.
    fn gp_kthread(&self, cx: &Context) -> Step {
        for number in 1.. {
            cx.wait(self.requested, Until::AtLeast(number))?;
            cx.call("rcu_gp_fqs_loop", |cx| {
                cx.membarrier()?;
                for nesting in &self.nesting {
                    cx.wait(*nesting, Until::Is(0))?;
                }
                cx.membarrier()
            })?;
            cx.store(self.completed, number)?;
        }
        Ok(())
    }

    pub(crate) fn synchronize_rcu(&self, cx: &Context) -> Step {
        cx.call("synchronize_rcu", |cx| {
            let number = cx.fetch_add(self.requested, 1)? + 1;
            cx.wait(self.completed, Until::AtLeast(number)).map(drop)
        })
    }
}

/// What stands between the two halves of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlowGp {
    /// As in SRCU-fast.
    SynchronizeRcu,
    /// Nothing but the updater's own `smp_mb`: right for readers with barriers only.
    SmpMb,
}

/// A `struct srcu_struct`.
#[derive(Clone, Debug)]
pub(crate) struct SrcuStruct {
    rcu: Rcu,
    slow_gp: SlowGp,
    srcu_idx: Word,
    srcu_gp_seq: Word,
    pub(crate) srcu_gp_seq_needed: Word,
    /// By CPU, by index.
    srcu_locks: Vec<[Word; 2]>,
    srcu_unlocks: Vec<[Word; 2]>,
}

impl SrcuStruct {
    pub(crate) fn new(program: &mut Program, name: &str, rcu: &Rcu, slow_gp: SlowGp) -> Self {
        let mut word = |field: &str| program.word(format!("{name}.{field}"), 0);
        let cpus = 0..rcu.nesting.len();
        Self {
            srcu_idx: word("srcu_idx"),
            srcu_gp_seq: word("srcu_gp_seq"),
            srcu_gp_seq_needed: word("srcu_gp_seq_needed"),
            srcu_locks: cpus
                .clone()
                .map(|cpu| [0, 1].map(|idx| word(&format!("srcu_locks[{cpu}][{idx}]"))))
                .collect(),
            srcu_unlocks: cpus
                .map(|cpu| [0, 1].map(|idx| word(&format!("srcu_unlocks[{cpu}][{idx}]"))))
                .collect(),
            rcu: rcu.clone(),
            slow_gp,
        }
    }

    /// No barrier: a compiler fence follows.
    pub(crate) fn srcu_read_lock_fast(&self, cx: &Context, cpu: usize) -> Step<usize> {
        let idx = cx.load(self.srcu_idx)? as usize & 1;
        cx.increment(self.srcu_locks[cpu][idx])?;
        Ok(idx)
    }

    pub(crate) fn srcu_read_unlock_fast(&self, cx: &Context, cpu: usize, idx: usize) -> Step {
        cx.increment(self.srcu_unlocks[cpu][idx])
    }

    /// A tracepoint that is hit: the probes that are found are used.
    pub(crate) fn do_trace(&self, cx: &Context, cpu: usize, probes: Word) -> Step {
        let idx = self.srcu_read_lock_fast(cx, cpu)?;
        if let Some(probe) = Object::at(cx.load(probes)?) {
            cx.touch(probe)?;
        }
        self.srcu_read_unlock_fast(cx, cpu, idx)
    }

    pub(crate) fn synchronize_srcu(&self, cx: &Context) -> Step {
        cx.call("synchronize_srcu", |cx| {
            cx.fence()?;
            let seq = cx.load(self.srcu_gp_seq)?;
            let snap = (seq + 2 * RCU_SEQ_STATE_MASK + 1) & !RCU_SEQ_STATE_MASK;
            cx.fetch_max(self.srcu_gp_seq_needed, snap)?;
            cx.call("wait_for_completion", |cx| {
                cx.wait(self.srcu_gp_seq, Until::AtLeast(snap)).map(drop)
            })
        })
    }

    /// The work that the workqueue runs. It requeues itself; here it sleeps until a counter changes.
    pub(crate) fn process_srcu(&self, cx: &Context) -> Step {
        loop {
            let done = cx.call("process_srcu", |cx| {
                self.srcu_advance_state(cx)?;
                let needed = cx.load(self.srcu_gp_seq_needed)?;
                Ok(cx.load(self.srcu_gp_seq)? >= needed)
            })?;
            if done {
                return Ok(());
            }
            self.srcu_reschedule(cx)?;
        }
    }

    fn srcu_reschedule(&self, cx: &Context) -> Step {
        let seq = cx.load(self.srcu_gp_seq)?;
        if seq & RCU_SEQ_STATE_MASK == SRCU_STATE_IDLE {
            return Ok(());
        }
        let idx = 1 - (cx.load(self.srcu_idx)? as usize & 1);
        let mut known = Vec::new();
        let (mut locks, mut unlocks) = (0, 0);
        for (lock, unlock) in self.srcu_locks.iter().zip(&self.srcu_unlocks) {
            for (word, sum) in [(unlock[idx], &mut unlocks), (lock[idx], &mut locks)] {
                let value = cx.load(word)?;
                *sum += value;
                known.push((word, value));
            }
        }
        if locks == unlocks { Ok(()) } else { cx.wait_for_change(&known) }
    }

    fn srcu_advance_state(&self, cx: &Context) -> Step {
        cx.call("srcu_advance_state", |cx| {
            let seq = cx.load(self.srcu_gp_seq)?;
            if seq & RCU_SEQ_STATE_MASK == SRCU_STATE_IDLE {
                if seq >= cx.load(self.srcu_gp_seq_needed)? {
                    return Ok(());
                }
                cx.store(self.srcu_gp_seq, seq + SRCU_STATE_SCAN1)?;
                cx.fence()?; // srcu_gp_start: smp_mb
            }
            if cx.load(self.srcu_gp_seq)? & RCU_SEQ_STATE_MASK == SRCU_STATE_SCAN1 {
                let idx = 1 - (cx.load(self.srcu_idx)? as usize & 1);
                if !self.try_check_zero(cx, idx, 1)? {
                    return Ok(());
                }
                self.srcu_flip(cx)?;
                let seq = cx.load(self.srcu_gp_seq)?;
                cx.store(self.srcu_gp_seq, (seq & !RCU_SEQ_STATE_MASK) + SRCU_STATE_SCAN2)?;
            }
            let idx = 1 - (cx.load(self.srcu_idx)? as usize & 1);
            if !self.try_check_zero(cx, idx, 2)? {
                return Ok(());
            }
            let seq = cx.load(self.srcu_gp_seq)?;
            cx.store(self.srcu_gp_seq, (seq & !RCU_SEQ_STATE_MASK) + RCU_SEQ_STATE_MASK + 1)
        })
    }

    fn srcu_flip(&self, cx: &Context) -> Step {
        cx.fence()?;
        let idx = cx.load(self.srcu_idx)?;
        cx.store(self.srcu_idx, idx + 1)?;
        cx.fence()
    }

    fn try_check_zero(&self, cx: &Context, idx: usize, trycount: u32) -> Step<bool> {
        cx.call("try_check_zero", |cx| {
            for _ in 0..trycount {
                if self.srcu_readers_active_idx_check(cx, idx)? {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }

    fn srcu_readers_active_idx_check(&self, cx: &Context, idx: usize) -> Step<bool> {
        cx.call("srcu_readers_active_idx_check", |cx| {
            let mut unlocks = 0;
            for unlock in &self.srcu_unlocks {
                unlocks += cx.load(unlock[idx])?;
            }
            match self.slow_gp {
                SlowGp::SynchronizeRcu => self.rcu.synchronize_rcu(cx)?,
                SlowGp::SmpMb => cx.fence()?,
            }
            let mut locks = 0;
            for lock in &self.srcu_locks {
                locks += cx.load(lock[idx])?;
            }
            Ok(locks == unlocks)
        })
    }
}
