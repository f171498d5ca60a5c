//! The machine: a state, the moves that it has, and what each does.

use crate::context::{Context, Op, Stop};
use crate::failure::{Blocked, Cause};
use crate::program::{End, Object, Program, Word};
use crate::schedule::Move;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

/// Where a thread is.
#[derive(Debug)]
enum Next {
    Access(Op),
    Done(u64),
}

#[derive(Debug)]
struct Thread {
    /// The results of its accesses so far, which is all that its future depends on.
    log: Rc<Vec<u64>>,
    /// Of the log.
    digest: Digest,
    next: Next,
    calls: Vec<&'static str>,
    /// In `membarrier`: a bit for each thread whose buffer was not seen empty since the call.
    barrier: Option<u64>,
}

/// A state of a program.
#[derive(Clone, Debug)]
pub(crate) struct State {
    memory: Vec<u64>,
    buffers: Vec<Vec<(Word, u64)>>,
    freed: u64,
    threads: Vec<Rc<Thread>>,
}

impl State {
    pub(crate) fn first(program: &Program) -> Result<Self, Cause> {
        let count = program.threads.len();
        let mut threads = Vec::with_capacity(count);
        for thread in 0..count {
            threads.push(Rc::new(run(program, thread, Rc::default(), Digest::EMPTY)?));
        }
        Ok(Self {
            memory: program.words.iter().map(|(_, value)| *value).collect(),
            buffers: vec![Vec::new(); count],
            freed: 0,
            threads,
        })
    }

    /// Everything that the future depends on, as a number. Two states with the same number
    /// are taken for the same: 128 bits, so among a billion states that happens to
    /// different ones with a probability of about 10⁻²¹.
    pub(crate) fn digest(&self) -> Digest {
        let mut digest = Digest::EMPTY;
        self.memory.iter().for_each(|value| digest.add(*value));
        for buffer in &self.buffers {
            digest.add(buffer.len() as u64);
            for (word, value) in buffer {
                digest.add(word.0 as u64);
                digest.add(*value);
            }
        }
        digest.add(self.freed);
        for thread in &self.threads {
            digest.add(thread.digest.0);
            digest.add(thread.digest.1);
            digest.add(thread.barrier.map_or(u64::MAX, |mask| mask));
        }
        digest
    }

    /// What can happen next. The moves of thread `first` come first, drains last.
    pub(crate) fn moves(&self, first: usize) -> Vec<Move> {
        let mut moves = Vec::new();
        let count = self.threads.len();
        for thread in (0..count).map(|i| (i + first) % count.max(1)) {
            match &self.threads[thread].next {
                Next::Access(Op::Choose(choices)) => {
                    moves.extend((0..*choices).map(|choice| Move::Choose(thread, choice)));
                }
                Next::Access(op) if self.can(thread, op) => moves.push(Move::Step(thread)),
                _ => {}
            }
        }
        let drains = (0..count).filter(|thread| !self.buffers[*thread].is_empty());
        moves.extend(drains.map(Move::Drain));
        moves
    }

    /// Whether the thread could make its next access now.
    pub(crate) fn is_ready(&self, thread: usize) -> bool {
        match &self.threads[thread].next {
            Next::Access(op) => self.can(thread, op),
            Next::Done(_) => false,
        }
    }

    fn can(&self, thread: usize, op: &Op) -> bool {
        match op {
            Op::Wait(word, until) => until.holds(self.visible(thread, *word)),
            Op::WaitForChange(known) => {
                known.iter().any(|(word, value)| self.visible(thread, *word) != *value)
            }
            Op::Membarrier => self.threads[thread].barrier.is_none_or(|mask| mask == 0),
            Op::Stall => false,
            _ => true,
        }
    }

    /// What the thread reads.
    fn visible(&self, thread: usize, word: Word) -> u64 {
        let own = self.buffers[thread].iter().rev().find(|(stored, _)| *stored == word);
        own.map_or(self.memory[word.0], |(_, value)| *value)
    }

    /// Makes a move that `moves` offered. An error is where the execution goes wrong.
    pub(crate) fn make(&mut self, program: &Program, made: Move) -> Result<(), Cause> {
        match made {
            Move::Drain(thread) => {
                let (word, value) = self.buffers[thread].remove(0);
                self.memory[word.0] = value;
                self.seen_empty(thread);
                Ok(())
            }
            Move::Choose(thread, choice) => self.answer(program, thread, choice),
            Move::Step(thread) => {
                let now = Rc::clone(&self.threads[thread]);
                let Next::Access(op) = &now.next else { return Ok(()) };
                match self.access(program, thread, op, now.barrier)? {
                    Some(result) => self.answer(program, thread, result),
                    None => Ok(()),
                }
            }
        }
    }

    /// The result of an access; `None` if it goes on.
    fn access(
        &mut self,
        program: &Program,
        thread: usize,
        op: &Op,
        barrier: Option<u64>,
    ) -> Result<Option<u64>, Cause> {
        let who = || program.threads[thread].name.clone();
        let result = match op {
            Op::Load(word) | Op::Wait(word, _) => self.visible(thread, *word),
            Op::Store(word, value) => {
                self.buffers[thread].push((*word, *value));
                0
            }
            Op::Increment(word) => {
                let value = self.visible(thread, *word);
                self.buffers[thread].push((*word, value.wrapping_add(1)));
                value
            }
            Op::Locked(word, change) => {
                self.drain_all(thread);
                let old = self.memory[word.0];
                self.memory[word.0] = change.of(old);
                old
            }
            Op::Fence => {
                self.drain_all(thread);
                0
            }
            Op::Membarrier if barrier.is_some() => 0,
            Op::Membarrier => {
                self.drain_all(thread);
                let full = self.buffers.iter().enumerate().filter(|(_, buffer)| !buffer.is_empty());
                let mask = full.fold(0, |mask, (other, _)| mask | 1 << other);
                if mask != 0 {
                    self.set_barrier(thread, mask);
                    return Ok(None);
                }
                0
            }
            Op::WaitForChange(_) | Op::Choose(_) | Op::Stall => 0,
            Op::Touch(object) => {
                if self.is_freed(*object) {
                    let object = program.object_name(*object).to_owned();
                    return Err(Cause::UseAfterFree { thread: who(), object });
                }
                0
            }
            Op::Free(object) => {
                if self.is_freed(*object) {
                    let object = program.object_name(*object).to_owned();
                    return Err(Cause::FreedTwice { thread: who(), object });
                }
                self.freed |= 1 << object.0;
                0
            }
        };
        Ok(Some(result))
    }

    fn is_freed(&self, object: Object) -> bool {
        self.freed & (1 << object.0) != 0
    }

    fn drain_all(&mut self, thread: usize) {
        for (word, value) in std::mem::take(&mut self.buffers[thread]) {
            self.memory[word.0] = value;
        }
        self.seen_empty(thread);
    }

    /// Tells those in `membarrier` if this thread's buffer is empty.
    fn seen_empty(&mut self, thread: usize) {
        if !self.buffers[thread].is_empty() {
            return;
        }
        for caller in 0..self.threads.len() {
            let mask = self.threads[caller].barrier.unwrap_or(0);
            if mask & (1 << thread) != 0 {
                self.set_barrier(caller, mask & !(1 << thread));
            }
        }
    }

    fn set_barrier(&mut self, thread: usize, mask: u64) {
        let now = &self.threads[thread];
        let Next::Access(op) = &now.next else { return };
        self.threads[thread] = Rc::new(Thread {
            log: Rc::clone(&now.log),
            digest: now.digest,
            next: Next::Access(op.clone()),
            calls: now.calls.clone(),
            barrier: Some(mask),
        });
    }

    /// Gives the thread the result of its access, and finds its next one.
    fn answer(&mut self, program: &Program, thread: usize, result: u64) -> Result<(), Cause> {
        let now = &self.threads[thread];
        let mut log = Vec::with_capacity(now.log.len() + 1);
        log.extend_from_slice(&now.log);
        log.push(result);
        let mut digest = now.digest;
        digest.add(result);
        self.threads[thread] = Rc::new(run(program, thread, Rc::new(log), digest)?);
        Ok(())
    }

    /// What is wrong with a state that has no moves.
    pub(crate) fn end(&self, program: &Program) -> Result<End<'_>, Cause> {
        let mut blocked = Vec::new();
        let mut hangs = false;
        for (thread, spec) in self.threads.iter().zip(&program.threads) {
            let Next::Access(op) = &thread.next else { continue };
            hangs |= !spec.serves && !matches!(op, Op::Stall);
            blocked.push(Blocked {
                thread: spec.name.clone(),
                calls: thread.calls.clone(),
                waits_for: explain(program, op),
            });
        }
        if hangs {
            return Err(Cause::Hang(blocked));
        }
        let result = |thread: &Rc<Thread>| match thread.next {
            Next::Done(result) => Some(result),
            Next::Access(_) => None,
        };
        let results = self.threads.iter().map(result).collect();
        let end = End { memory: &self.memory, freed: self.freed, results };
        program.end_checks.iter().try_for_each(|check| check(&end)).map_err(Cause::End)?;
        Ok(end)
    }

    /// One line about a move that is about to be made, and after it what it read.
    pub(crate) fn tell(&self, program: &Program, made: Move) -> String {
        let thread = match made {
            Move::Drain(thread) => {
                let (word, value) = self.buffers[thread][0];
                let name = &program.threads[thread].name;
                return format!(
                    "{name:>12}  ~ {} = {value} gets to memory",
                    program.word_name(word)
                );
            }
            Move::Step(thread) | Move::Choose(thread, _) => thread,
        };
        let name = &program.threads[thread].name;
        let now = &self.threads[thread];
        let function = now.calls.last().map_or(String::new(), |call| format!("{call}: "));
        let Next::Access(op) = &now.next else { return format!("{name:>12}  is done") };
        let mut line = format!("{name:>12}  {function}{}", explain(program, op));
        match (op, made) {
            (Op::Load(word), _) => line += &format!(" -> {}", self.visible(thread, *word)),
            (Op::Locked(word, _), _) => line += &format!(" (was {})", self.visible(thread, *word)),
            (Op::Membarrier, _) if now.barrier.is_some() => line += " returns",
            (_, Move::Choose(_, choice)) => line += &format!(" -> {choice}"),
            _ => {}
        }
        line
    }
}

/// An access in words.
fn explain(program: &Program, op: &Op) -> String {
    let word = |word: &Word| program.word_name(*word);
    match op {
        Op::Load(from) => format!("load {}", word(from)),
        Op::Store(to, value) => format!("store {} = {value}", word(to)),
        Op::Increment(to) => format!("inc {}", word(to)),
        Op::Locked(to, change) => format!("lock {change:?} {}", word(to)),
        Op::Fence => "fence".to_owned(),
        Op::Membarrier => "membarrier".to_owned(),
        Op::Wait(on, until) => format!("wait until {} {until}", word(on)),
        Op::WaitForChange(known) => {
            let known: Vec<String> =
                known.iter().map(|(on, value)| format!("{} != {value}", word(on))).collect();
            format!("wait until {}", known.join(" or "))
        }
        Op::Touch(object) => format!("use {}", program.object_name(*object)),
        Op::Free(object) => format!("free {}", program.object_name(*object)),
        Op::Choose(count) => format!("choose below {count}"),
        Op::Stall => "is stalled".to_owned(),
    }
}

/// Runs a thread's closure with the results that it has got, to its next access.
fn run(
    program: &Program,
    thread: usize,
    log: Rc<Vec<u64>>,
    digest: Digest,
) -> Result<Thread, Cause> {
    let spec = &program.threads[thread];
    let cx = Context::new(Rc::clone(&log));
    let outcome = catch_unwind(AssertUnwindSafe(|| (spec.body)(&cx)));
    let (access, failed, calls) = cx.into_stopped();
    if let Some(claim) = failed {
        return Err(Cause::Check { thread: spec.name.clone(), claim });
    }
    let outcome = match outcome {
        Ok(outcome) => outcome,
        // Stopped in code that unwinds.
        Err(payload) => match payload.downcast::<Stop>() {
            Ok(stop) => Err(*stop),
            Err(payload) => {
                let text = payload.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
                let message = text.unwrap_or("something that is not text").to_owned();
                return Err(Cause::Panic { thread: spec.name.clone(), message });
            }
        },
    };
    let next = match (outcome, access) {
        (_, Some(access)) => Next::Access(access),
        (Ok(result), None) => Next::Done(result),
        (Err(_), None) => {
            let message = "it returned a Stop that no access gave it in this run".to_owned();
            return Err(Cause::Panic { thread: spec.name.clone(), message });
        }
    };
    Ok(Thread { log, digest, next, calls, barrier: None })
}

/// 128 bits that stand for a list of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Digest(u64, u64);

impl Digest {
    const EMPTY: Self = Self(0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03);

    fn add(&mut self, value: u64) {
        /// The finaliser of MurmurHash3, which spreads each bit over all.
        fn mix(mut x: u64) -> u64 {
            x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
            x = (x ^ (x >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
            x ^ (x >> 33)
        }
        self.0 = mix(self.0.rotate_left(5) ^ value);
        self.1 = mix(self.1.wrapping_add(value).wrapping_mul(0x2545_f491_4f6c_dd1d));
    }
}
