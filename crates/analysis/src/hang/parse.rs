//! From lines to [`Incident`]s. One pass; what a line means depends on what its caller printed
//! before, so there is one small state per caller ([`Tag`]).
//!
//! A line that was lost must not put a stack on the wrong task: a section ends where its stack has
//! come to an entry of the kernel, where a second stack begins, or where the numbers of a list do
//! not go on. What follows then belongs to nobody.

use super::banner::{self, Banner};
use super::frame::{self, Frame, StackLine};
use super::line::{Line, Tag, after, between, find, leading_number, number, trim, trim_start};
use super::model::{
    Cpu, FRAMES, Held, InFlight, Incident, LOCKS, Owner, Stall, Symptom, SymptomKind, THINGS, Work,
};
use super::order::LockOrder;
use std::collections::HashMap;

/// A pause of so many microseconds without a line about a hang separates incidents.
const PAUSE: u64 = 900 * 1_000_000;
/// Callers whose state is remembered.
const CALLERS: usize = 128;

/// What the lines of one caller belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Nobody,
    Task(u32),
    Cpu(u32),
    /// The next line names the task that runs on this CPU.
    Dump(u32),
    Locks(u32),
    Stall(usize),
    Order(usize),
    Pools,
}

#[derive(Debug, Clone, Copy)]
struct Section {
    of: Of,
    /// The task that `Workqueue:` lines and stacks are about.
    started: bool,
    /// Nothing more belongs to the stack.
    ended: bool,
    interrupt: bool,
    /// Frames before `<IRQ>` that were taken for the interrupt's.
    moved: usize,
    deep: bool,
}

impl Section {
    fn new(of: Of) -> Section {
        Section { of, started: false, ended: false, interrupt: false, moved: 0, deep: false }
    }
}

/// Reads lines, gives incidents.
#[derive(Debug, Default)]
pub(super) struct Parser {
    pub(super) incident: Incident,
    /// Those that are over.
    pub(super) finished: Vec<Incident>,
    sections: HashMap<Tag, Section>,
    last_hang: Option<u64>,
    last_date: Option<u64>,
    queue: String,
    /// `cpus=0`, of the last pool of `queue`.
    pool: String,
}

impl Parser {
    /// Takes the next line, which begins at this line of the file.
    pub(super) fn line(&mut self, number: u32, raw: &[u8]) {
        let mut line = Line::new(number, raw);
        line.body = line.body.strip_prefix(b"rcu: ").unwrap_or(line.body);
        if line.body.is_empty() {
            return;
        }
        self.incident.last_line = line.number;
        let first = line.body[0];
        if first == b' ' || first == b'\t' || first == b'[' || first == b'(' {
            self.indented(&line);
        } else {
            self.at_margin(&line);
        }
    }

    /// The last incident is over.
    pub(super) fn finish(mut self) -> Vec<Incident> {
        self.cut();
        self.finished
    }

    fn cut(&mut self) {
        let mut incident = std::mem::take(&mut self.incident);
        incident.use_stale_stacks(is_entry);
        if !incident.is_empty() {
            self.finished.push(incident);
        }
        self.sections.clear();
    }

    fn section(&mut self, tag: Tag) -> &mut Section {
        if self.sections.len() >= CALLERS && !self.sections.contains_key(&tag) {
            self.sections.clear();
        }
        self.sections.entry(tag).or_insert(Section::new(Of::Nobody))
    }

    fn begin(&mut self, tag: Tag, of: Of) {
        *self.section(tag) = Section::new(of);
    }

    /// Lines that begin with a blank or an address: frames, locks, parts of stall reports.
    fn indented(&mut self, line: &Line<'_>) {
        let body = trim_start(line.body);
        match body.first() {
            Some(b'#') => return self.held(line, body),
            Some(b'<') => return self.marker(line, body),
            Some(b'(') if body.starts_with(b"(detected by") => return,
            Some(b'0'..=b'9') => return self.stall_line(line, body),
            _ => {}
        }
        if body.starts_with(b"in-flight:") || body.starts_with(b"pwq ") {
            return self.in_flight(line, body);
        }
        match frame::parse(line.body, line.number) {
            StackLine::Frame(frame) => self.frame(line.tag, frame),
            StackLine::Stale(frame) => self.stale(line.tag, frame),
            StackLine::Other => self.at_margin(&Line { body, ..*line }),
        }
    }

    fn at_margin(&mut self, line: &Line<'_>) {
        let body = line.body;
        if let Some(banner) = banner::read(body) {
            return self.banner(line, banner);
        }
        match body[0] {
            b'C' | b'R' | b'E' | b'P' | b'p' | b'N' | b'e' | b'K' | b'S' | b'B' | b'b'
                if self.stack_start(line) => {}
            b'0'..=b'9' if self.lock_list(line) => {}
            b'T' if body.starts_with(b"Tasks blocked on level") => self.stall_tasks(line, body),
            b'W' if body.starts_with(b"Workqueue: ") => self.workqueue(line),
            b'<' => self.marker(line, body),
            b'#' => self.held(line, body),
            _ if find(body, b" locks held by ").is_some()
                || find(body, b" lock held by ").is_some() =>
            {
                self.lock_list(line);
            }
            _ if self.order_line(line) => {}
            _ => self.task_line(line),
        }
    }

    /// A line of a report of lockdep. Whether it was one.
    fn order_line(&mut self, line: &Line<'_>) -> bool {
        let Of::Order(place) = self.section(line.tag).of else { return false };
        self.incident.orders.get_mut(place).is_some_and(|order| order.line(line.body, line.number))
    }

    fn banner(&mut self, line: &Line<'_>, banner: Banner) {
        self.pause(line);
        match banner {
            Banner::Symptom(mut symptom) => {
                symptom.line = line.number;
                self.symptom(line, symptom);
            }
            Banner::Stall(flavour) => self.stall(line, flavour),
            Banner::Owner { pid, comm, owner } => self.owner(line, pid, &comm, owner),
            Banner::Nmi { cpu, idle } => {
                let of = self.cpu(cpu, line.number);
                if let (Of::Cpu(_), Some(entry)) = (of, self.incident.cpus.get_mut(&cpu)) {
                    *entry =
                        Cpu { number: cpu, shown: true, idle, line: line.number, ..Cpu::default() };
                }
                self.begin(line.tag, of);
            }
            Banner::TaskDump(cpu) => self.begin(line.tag, Of::Dump(cpu)),
            Banner::AllLocks => {
                self.incident.all_locks_shown = true;
                self.begin(line.tag, Of::Nobody);
            }
            Banner::AllTasks => self.incident.all_tasks_shown = true,
            Banner::LockdepOff => self.incident.lockdep_off = true,
            Banner::Starved => {
                if let Some(stall) = self.incident.stalls.last_mut() {
                    stall.starved = Some(line.number);
                }
            }
            Banner::Beside(name) => self.beside(line, name),
            Banner::Boot => {
                self.cut();
                (self.last_hang, self.last_date) = (None, None);
            }
            Banner::Queue(name) => {
                self.queue = name;
                self.begin(line.tag, Of::Pools);
            }
            Banner::Rule => {
                self.incident.locks_end_shown |= self.incident.all_locks_shown;
                self.begin(line.tag, Of::Nobody);
            }
            Banner::Ends => self.begin(line.tag, Of::Nobody),
        }
        if self.incident.first_line == 0 {
            self.incident.first_line = line.number;
        }
    }

    /// A long pause before this line ends the incident.
    fn pause(&mut self, line: &Line<'_>) {
        // Dates and times since boot may come in turn, and are not compared with each other.
        let (now, last) = match (line.time, line.date) {
            (Some(now), _) => (now, &mut self.last_hang),
            (None, Some(seconds)) => (seconds.saturating_mul(1_000_000), &mut self.last_date),
            (None, None) => return,
        };
        let pause = last.replace(now).is_some_and(|last| now.saturating_sub(last) > PAUSE);
        if pause {
            self.cut();
        }
    }

    fn symptom(&mut self, line: &Line<'_>, mut symptom: Symptom) {
        let (pid, cpu) = (symptom.pid, symptom.cpu);
        if let Some(task) = pid.and_then(|pid| self.incident.task(pid, line.number)) {
            let (comm, seconds) = banner::who_and_how_long(line.body);
            if task.comm.is_empty() {
                task.comm = comm;
            }
            task.blocked = task.blocked.max(seconds);
        }
        let of = match symptom.kind {
            SymptomKind::HungTask => pid.map_or(Of::Nobody, Of::Task),
            SymptomKind::SoftLockup | SymptomKind::HardLockup => {
                let of = cpu.map_or(Of::Nobody, |cpu| self.cpu(cpu, line.number));
                if let Some(cpu) = cpu.and_then(|cpu| self.incident.cpus.get_mut(&cpu)) {
                    cpu.pid = pid.or(cpu.pid);
                }
                of
            }
            SymptomKind::Lockdep if self.incident.orders.len() < THINGS => {
                symptom.order = Some(self.incident.orders.len());
                self.incident.orders.push(LockOrder::default());
                Of::Order(self.incident.orders.len() - 1)
            }
            _ => Of::Nobody,
        };
        self.begin(line.tag, of);
        if self.incident.symptoms.len() < THINGS {
            self.incident.symptoms.push(symptom);
        } else {
            self.incident.dropped += 1;
        }
    }

    fn stall(&mut self, line: &Line<'_>, flavour: String) {
        if self.incident.stalls.len() >= THINGS {
            self.incident.dropped += 1;
            return;
        }
        let place = self.incident.stalls.len();
        self.incident.stalls.push(Stall { flavour, line: line.number, ..Stall::default() });
        self.begin(line.tag, Of::Stall(place));
        let text = banner::words(line.body);
        let kind = SymptomKind::Stall;
        let symptom = Symptom {
            kind,
            line: line.number,
            stall: Some(place),
            order: None,
            pid: None,
            cpu: None,
            text,
        };
        if self.incident.symptoms.len() < THINGS {
            self.incident.symptoms.push(symptom);
        }
        if let Some(inside) = between(line.body, b"{", b"}") {
            self.stall_members(place, line.number, inside);
        }
    }

    /// `0-... 1-..P P123`: CPUs and tasks in one line.
    fn stall_members(&mut self, place: usize, at: u32, text: &[u8]) {
        let Some(stall) = self.incident.stalls.get_mut(place) else { return };
        for word in text.split(|b| b.is_ascii_whitespace()).filter(|w| !w.is_empty()) {
            if let Some(rest) = word.strip_prefix(b"P") {
                if let Some((pid, _)) = leading_number(rest) {
                    push_new(&mut stall.tasks, small(pid), at);
                }
            } else if let Some((cpu, rest)) = leading_number(word)
                && (rest.is_empty() || rest.starts_with(b"-"))
            {
                push_new(&mut stall.cpus, small(cpu), at);
            }
        }
    }

    /// `\t0-...!: (10500 ticks this GP) idle=…` below a stall, or a list of locks.
    fn stall_line(&mut self, line: &Line<'_>, body: &[u8]) {
        let stall = match self.section(line.tag).of {
            Of::Stall(place) => Some(place),
            // The first line of the report may have come from another caller.
            _ => self.incident.stalls.len().checked_sub(1),
        };
        if let (Some(place), Some((cpu, rest))) = (stall, leading_number(body)) {
            let flags = rest.starts_with(b"-") || rest.starts_with(b": (");
            if flags && find(rest, b"(").is_some() && find(rest, b" GP").is_some() {
                if let Some(stall) = self.incident.stalls.get_mut(place) {
                    push_new(&mut stall.cpus, small(cpu), line.number);
                }
                return;
            }
        }
        self.at_margin(&Line { body, ..*line });
    }

    /// `Tasks blocked on level-0 rcu_node (CPUs 0-1): P4093 P12/3:b..l`.
    fn stall_tasks(&mut self, line: &Line<'_>, body: &[u8]) {
        if let (Some(place), Some(rest)) =
            (self.incident.stalls.len().checked_sub(1), after(body, b"):"))
        {
            let members: Vec<u8> = rest
                .split(|&b| b == b' ')
                .filter(|w| w.starts_with(b"P"))
                .collect::<Vec<_>>()
                .join(&b' ');
            self.stall_members(place, line.number, &members);
        }
    }

    /// `Call Trace:`, program counters, `CPU: 1 PID: 2 Comm: x`. Whether it was one.
    fn stack_start(&mut self, line: &Line<'_>) -> bool {
        let body = line.body;
        if body.starts_with(b"CPU: ") && find(body, b" PID: ").is_some() {
            self.cpu_line(line);
            return true;
        }
        let starts: [&[u8]; 6] = [
            b"Call Trace:",
            b"Call trace:",
            b"Backtrace:",
            b"backtrace:",
            b"Stack:",
            b"Stack from",
        ];
        if starts.iter().any(|s| body.starts_with(s)) {
            let section = self.section(line.tag);
            if section.started && matches!(section.of, Of::Task(_)) && !body.starts_with(b"Stack") {
                // The line that named the next task is lost.
                *section = Section::new(Of::Nobody);
            }
            section.started |= !body.starts_with(b"Stack");
            return true;
        }
        if let Some(frame) = frame::parse_program_counter(body, line.number) {
            match self.section(line.tag).of {
                Of::Cpu(_) => {
                    self.section(line.tag).ended = false;
                    self.frame(line.tag, frame);
                }
                // Where an interrupt found a task that was preempted on the way out of it.
                Of::Task(_) => self.frame(line.tag, frame),
                _ => {}
            }
            return true;
        }
        if body.starts_with(b"RIP: 0033") || body.starts_with(b"RIP: 0023") {
            self.section(line.tag).ended = true;
            return true;
        }
        false
    }

    /// `<IRQ>`, `</IRQ>`, `<TASK>`, `<Same stack as pid 12>`.
    fn marker(&mut self, line: &Line<'_>, body: &[u8]) {
        if let Some(rest) = after(body, b"<Same stack as pid ") {
            if let (Some((pid, _)), Of::Task(of)) =
                (leading_number(rest), self.section(line.tag).of)
                && let Some(task) = self.incident.tasks.get_mut(&of)
            {
                task.same_as = Some(small(pid));
            }
            return;
        }
        let section = self.section(line.tag);
        match body.get(1..4) {
            Some(b"IRQ" | b"NMI" | b"SOF" | b"ENT") => {
                section.interrupt = true;
                // The program counter, which comes before the trace, was in the interrupt too.
                let of = section.of;
                if let Of::Cpu(cpu) = of
                    && let Some(cpu) = self.incident.cpus.get_mut(&cpu)
                    && cpu.interrupts.is_empty()
                    && cpu.stack.len() <= 4
                {
                    cpu.interrupts = std::mem::take(&mut cpu.stack);
                    let moved = cpu.interrupts.len();
                    self.section(line.tag).moved = moved;
                }
            }
            Some(b"/IR" | b"/NM" | b"/SO" | b"/EN" | b"EOI" | b"EOE" | b"TAS") => {
                section.interrupt = false;
                let (of, moved) = (section.of, std::mem::take(&mut section.moved));
                // Nothing but stale words lay in the interrupt: it came to the task, and did the printing.
                if let Of::Cpu(cpu) = of
                    && let Some(cpu) = self.incident.cpus.get_mut(&cpu)
                    && cpu.interrupts.len() == moved
                    && cpu.stack.is_empty()
                {
                    cpu.stack = std::mem::take(&mut cpu.interrupts);
                }
            }
            Some(b"/TA") => section.ended = true,
            _ => {}
        }
        // Old kernels print the first frame behind the marker.
        if let Some(at) = find(body, b"> ")
            && let StackLine::Frame(frame) = frame::parse(&body[at + 1..], line.number)
        {
            self.frame(line.tag, frame);
        }
    }

    fn frame(&mut self, tag: Tag, frame: Frame) {
        let section = *self.section(tag);
        if section.ended {
            return;
        }
        if let Of::Order(place) = section.of {
            if let Some(order) = self.incident.orders.get_mut(place) {
                order.frame(&frame);
            }
            return;
        }
        let scheduler = is_switch(&frame.function);
        if scheduler && section.deep {
            // A stack begins anew: the line between was lost.
            self.section(tag).ended = true;
            return;
        }
        let entry = is_entry(&frame.function);
        let target =
            match section.of {
                Of::Task(pid) => {
                    let task = self.incident.tasks.get_mut(&pid);
                    task.filter(|_| !section.interrupt).map(|task| &mut task.stack)
                }
                Of::Cpu(cpu) => self.incident.cpus.get_mut(&cpu).map(|cpu| {
                    if section.interrupt { &mut cpu.interrupts } else { &mut cpu.stack }
                }),
                _ => None,
            };
        if let Some(stack) = target
            && stack.len() < FRAMES
        {
            stack.push(frame);
        }
        let section = self.section(tag);
        section.deep |= !scheduler;
        section.ended |= entry && !section.interrupt;
    }

    /// A frame that the kernel does not trust. It is kept as long as the stack has no other.
    fn stale(&mut self, tag: Tag, frame: Frame) {
        let section = *self.section(tag);
        if section.ended || section.interrupt {
            return;
        }
        let stale = match section.of {
            Of::Task(pid) => {
                let task = self.incident.tasks.get_mut(&pid).filter(|task| task.stack.is_empty());
                task.map(|task| &mut task.stale)
            }
            Of::Cpu(cpu) => {
                let cpu = self.incident.cpus.get_mut(&cpu);
                let empty = cpu.filter(|cpu| cpu.stack.is_empty() && cpu.interrupts.is_empty());
                empty.map(|cpu| &mut cpu.stale)
            }
            _ => None,
        };
        if let Some(stale) = stale.filter(|stale| stale.len() < FRAMES) {
            stale.push(frame);
        }
    }

    fn cpu(&mut self, cpu: u32, line: u32) -> Of {
        if self.incident.cpus.len() >= THINGS * 4 && !self.incident.cpus.contains_key(&cpu) {
            return Of::Nobody;
        }
        let new = || Cpu { number: cpu, line, ..Cpu::default() };
        self.incident.cpus.entry(cpu).or_insert_with(new);
        Of::Cpu(cpu)
    }

    /// `CPU: 0 PID: 2285 Comm: syz Not tainted 4.4.132+ #53`.
    fn cpu_line(&mut self, line: &Line<'_>) {
        let cpu = after(line.body, b"CPU: ").and_then(leading_number).map(|n| small(n.0));
        let pid = after(line.body, b" PID: ").and_then(leading_number).map(|n| small(n.0));
        let (Some(cpu), Some(pid)) = (cpu, pid) else { return };
        let comm = after(line.body, b" Comm: ").unwrap_or_default();
        let ends: [&[u8]; 4] = [b" Not tainted", b" Tainted:", b" Kdump:", b" Compressed"];
        let end = ends.iter().filter_map(|e| find(comm, e)).min().unwrap_or(comm.len());
        let comm = text(&comm[..end]);
        if let Some(task) = self.incident.task(pid, line.number)
            && task.comm.is_empty()
        {
            task.comm.clone_from(&comm);
        }
        let known = self.incident.cpus.get(&cpu);
        let same = known.is_none_or(|c| c.pid.is_none_or(|p| p == pid) && c.stack.is_empty());
        let expected = self.section(line.tag).of == Of::Cpu(cpu);
        if !same && !expected {
            // A report of its own (a warning, the panic) about a CPU that has spoken already.
            return self.begin(line.tag, Of::Nobody);
        }
        let of = self.cpu(cpu, line.number);
        if let Some(entry) = self.incident.cpus.get_mut(&cpu) {
            entry.pid = Some(pid);
            entry.comm = comm;
        }
        self.begin(line.tag, of);
    }

    /// `Workqueue: writeback wb_workfn (flush-8:0)`.
    fn workqueue(&mut self, line: &Line<'_>) {
        let rest = &line.body[11..];
        let mut words = rest.split(|&b| b == b' ').filter(|w| !w.is_empty());
        let work = Work {
            queue: text(words.next().unwrap_or_default()),
            function: base(&text(words.next().unwrap_or_default())),
            about: text(words.next().unwrap_or_default()).trim_matches(['(', ')']).to_owned(),
            line: line.number,
        };
        let section = *self.section(line.tag);
        match section.of {
            // It stands before the stack: the line that named the next task is lost.
            Of::Task(_) if section.started => self.begin(line.tag, Of::Nobody),
            Of::Task(pid) => {
                if let Some(task) = self.incident.tasks.get_mut(&pid) {
                    task.work = Some(work);
                }
            }
            Of::Cpu(cpu) => {
                if let Some(cpu) = self.incident.cpus.get_mut(&cpu) {
                    cpu.work = Some(work);
                }
            }
            _ => {}
        }
    }

    /// `2 locks held by init/1:`. Whether it was one.
    fn lock_list(&mut self, line: &Line<'_>) -> bool {
        let body = line.body;
        let rest = after(body, b" locks held by ").or_else(|| after(body, b" lock held by "));
        let (Some(rest), Some((count, _))) = (rest, leading_number(body)) else {
            if body.starts_with(b"no locks held by ") {
                self.begin(line.tag, Of::Nobody);
                return true;
            }
            return false;
        };
        let name = trim(rest);
        let name = name.strip_suffix(b":").unwrap_or(name);
        let Some(slash) = name.iter().rposition(|&b| b == b'/') else { return false };
        let Some(pid) = number(&name[slash + 1..]).map(small) else { return false };
        self.begin(line.tag, Of::Locks(pid));
        if let Some(task) = self.incident.task(pid, line.number) {
            if task.comm.is_empty() {
                task.comm = text(&name[..slash]);
            }
            task.held.clear();
            task.held_count = Some(small(count));
            task.held_line = line.number;
        }
        true
    }

    /// `#1: ffff8880 (&tty->ldisc_sem){++++}-{0:0}, at: ldsem_down_read+0x33/0x40`.
    fn held(&mut self, line: &Line<'_>, body: &[u8]) {
        let Of::Locks(pid) = self.section(line.tag).of else { return };
        let lost = {
            let Some(task) = self.incident.tasks.get_mut(&pid) else { return };
            let Some((index, rest)) = leading_number(&body[1..]) else { return };
            let index = small(index);
            let (Some(open), Some(close)) = (find(rest, b"("), find(rest, b"){")) else { return };
            if open >= close {
                return;
            }
            let address = rest[..open].split(|b| b": ".contains(b)).rfind(|w| w.len() >= 8);
            let address = address
                .and_then(|w| std::str::from_utf8(w).ok())
                .and_then(|w| u64::from_str_radix(w, 16).ok());
            let at = after(rest, b", at: ").map(trim_start);
            let at = at.and_then(|at| match at.strip_prefix(b"[") {
                Some(inside) => after(inside, b"] "),
                None => Some(at),
            });
            let at = at.and_then(|at| frame::parse_function(at, line.number));
            let class = lock_class(&rest[open + 1..close]);
            let same =
                task.held.last().is_some_and(|last| last.index == index && last.class == class);
            let follows = task.held.last().is_none_or(|last| index > last.index);
            let counted = task.held_count.is_none_or(|count| index < count);
            if same {
                // One line per inlined frame.
                return;
            }
            if follows && counted && task.held.len() < LOCKS {
                task.held.push(Held { index, class, address, at, line: line.number });
            }
            !(follows && counted)
        };
        if lost {
            self.begin(line.tag, Of::Nobody);
        }
    }

    fn owner(&mut self, line: &Line<'_>, pid: u32, comm: &str, mut owner: Owner) {
        owner.line = line.number;
        if let Some(task) = self.incident.task(owner.pid, line.number)
            && task.comm.is_empty()
        {
            task.comm.clone_from(&owner.comm);
        }
        if let Some(task) = self.incident.task(pid, line.number) {
            if task.comm.is_empty() {
                comm.clone_into(&mut task.comm);
            }
            if task.owners.len() < 4 {
                task.owners.push(owner);
            }
        }
    }

    fn beside(&mut self, line: &Line<'_>, name: &'static str) {
        let at = line.number;
        let words = || banner::words(line.body);
        let entry = self.incident.besides.entry(name).or_insert_with(|| super::model::Beside {
            count: 0,
            first: at,
            last: at,
            text: words(),
        });
        entry.count += 1;
        entry.last = at;
    }

    /// `pwq 0: cpus=0 … ` and `in-flight: 12:cleanup_net, 34(RESCUER):x`.
    fn in_flight(&mut self, line: &Line<'_>, body: &[u8]) {
        if let Some(pool) = between(body, b": cpus=", b" ") {
            self.pool = format!("cpus={}", text(pool));
        }
        let Some(rest) = after(body, b"in-flight:") else { return };
        for word in rest.split(|b| b", ".contains(b)).filter(|w| !w.is_empty()) {
            let Some((pid, rest)) = leading_number(word) else { continue };
            let Some(colon) = rest.iter().position(|&b| b == b':') else { continue };
            if self.incident.in_flight.len() < THINGS {
                self.incident.in_flight.push(InFlight {
                    queue: self.queue.clone(),
                    pool: self.pool.clone(),
                    function: base(&text(&rest[colon + 1..])),
                    pid: small(pid),
                    line: line.number,
                });
            }
        }
    }

    /// The line that begins a task in a list of tasks, in one of four layouts.
    fn task_line(&mut self, line: &Line<'_>) {
        let section = *self.section(line.tag);
        let Some(found) = banner::task_line(line.body) else {
            if matches!(section.of, Of::Dump(_)) {
                self.begin(line.tag, Of::Nobody);
            }
            return;
        };
        self.pause(line);
        let of = match section.of {
            Of::Dump(cpu) if !section.started && found.state == b'R' => {
                self.dumped(cpu, &found, line)
            }
            _ => Of::Task(found.pid),
        };
        self.begin(line.tag, of);
        if self.incident.first_line == 0 {
            self.incident.first_line = line.number;
        }
        let Some(task) = self.incident.task(found.pid, line.number) else { return };
        task.comm = found.comm;
        task.state = Some(found.state);
        task.parent = found.parent;
        task.stack.clear();
        task.stale = Vec::new();
        task.same_as = None;
        task.work = None;
    }

    /// The task that runs on a CPU, whose stack follows. An interrupt for the purpose has said more.
    fn dumped(&mut self, cpu: u32, found: &banner::TaskLine, line: &Line<'_>) -> Of {
        let of = self.cpu(cpu, line.number);
        let (Of::Cpu(_), Some(entry)) = (of, self.incident.cpus.get_mut(&cpu)) else { return of };
        let empty = entry.stack.is_empty() && entry.interrupts.is_empty();
        if !empty && entry.pid == Some(found.pid) {
            return Of::Nobody;
        }
        *entry = Cpu {
            number: cpu,
            pid: Some(found.pid),
            comm: found.comm.clone(),
            shown: true,
            line: line.number,
            ..Cpu::default()
        };
        of
    }
}

/// The innermost functions of a task that sleeps. Most architectures print also the function that
/// changes stacks: arm64, ppc and riscv as `__switch_to`, ppc as `_switch`, mips as `resume`.
fn is_switch(function: &str) -> bool {
    function.starts_with("__switch_to")
        || matches!(
            function,
            "__schedule" | "schedule" | "context_switch" | "_switch" | "switch_to" | "resume"
        )
}

/// Where a stack comes to its end.
fn is_entry(function: &str) -> bool {
    function.starts_with("ret_from_")
        || function.starts_with("entry_SYSCALL")
        || function.starts_with("entry_SYSENTER")
        || function.starts_with("system_call")
        || function.starts_with("ret_fast_syscall")
        || function.starts_with("entry_INT80")
        || matches!(function, "el0_svc_naked" | "el0t_64_sync" | "el0_sync" | "el0t_32_sync")
        || matches!(function, "int_ret_from_sys_call" | "sysenter_past_esp" | "handle_syscall")
}

fn push_new(list: &mut Vec<(u32, u32)>, id: u32, line: u32) {
    if list.len() < THINGS && !list.iter().any(|(known, _)| *known == id) {
        list.push((id, line));
    }
}

fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A name as text, of a sane length.
pub(super) fn text(bytes: &[u8]) -> String {
    let bytes = trim(bytes);
    String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned()
}

/// A function's name without the compiler's suffixes.
fn base(name: &str) -> String {
    name.split('.').next().unwrap_or(name).trim_end_matches(',').to_owned()
}

/// `&type->s_umount_key#30/1` is `&type->s_umount_key`.
pub(super) fn lock_class(name: &[u8]) -> String {
    let mut name = text(name);
    for mark in ['/', '#'] {
        if let Some(at) = name.rfind(mark) {
            let digits = &name[at + 1..];
            if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
                name.truncate(at);
            }
        }
    }
    name
}
