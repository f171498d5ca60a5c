//! From a stack to what its task waits for.

use super::frame::Frame;
use super::model::{Cpu, Held, Incident, Task};
use super::rules::{self, LOCK_WRAPPERS, RULES, Rule, SCHEDULER, What, fits_any};

/// What a stack says.
#[derive(Debug, Clone)]
pub(super) struct Wait {
    pub(super) rule: &'static Rule,
    /// The frame that the rule knows.
    pub(super) at: usize,
    /// For locks: the first frame that is not about locking as such.
    pub(super) site: Option<usize>,
}

/// How many functions that no rule knows may stand before one that a rule knows.
const STRANGERS: usize = 2;

/// What the innermost functions of a stack wait for. `on_cpu`: the stack is of a CPU that runs.
pub(super) fn classify(stack: &[Frame], on_cpu: bool) -> Option<Wait> {
    let mut best: Option<(usize, &'static Rule)> = None;
    let mut strangers = 0;
    for (at, frame) in stack.iter().enumerate().take(24) {
        let name = frame.function.as_str();
        if fits_any(SCHEDULER, name) {
            continue;
        }
        let Some(rule) = rule_for(name, on_cpu) else {
            strangers += 1;
            if strangers > STRANGERS {
                break;
            }
            continue;
        };
        let decides = rule.rank == 9;
        if decides && best.is_none() {
            if strangers > usize::from(rule.what != What::Idle) {
                break;
            }
            let site = site(stack, at);
            // Who begins to write waits for a thaw, whatever lock that is made of.
            let rule = frozen(stack, at).filter(|_| rule.what == What::Lock).unwrap_or(rule);
            return Some(Wait { rule, at, site });
        }
        if decides {
            break;
        }
        if best.is_none_or(|(_, known)| rule.rank > known.rank) {
            best = Some((at, rule));
        }
    }
    let (at, rule) = best?;
    let site = if rule.what == What::Lock { site(stack, at) } else { None };
    Some(Wait { rule, at, site })
}

fn frozen(stack: &[Frame], at: usize) -> Option<&'static Rule> {
    let rule = RULES.iter().find(|rule| rule.what == What::Freeze)?;
    let mut near = stack.iter().skip(at).take(5);
    near.any(|f| fits_any(rule.symbols, &f.function)).then_some(rule)
}

fn rule_for(name: &str, on_cpu: bool) -> Option<&'static Rule> {
    // Who runs does not sleep, and who sleeps does not spin.
    let possible = rules::rules_for(name).filter(|rule| {
        if on_cpu {
            matches!(rule.what, What::Spin | What::Ipi | What::Gp(_) | What::Srcu)
        } else {
            rule.what != What::Spin
        }
    });
    possible.max_by_key(|rule| rule.rank)
}

fn site(stack: &[Frame], at: usize) -> Option<usize> {
    let outside = |frame: &Frame| {
        let name = frame.function.as_str();
        !fits_any(LOCK_WRAPPERS, name) && !fits_any(SCHEDULER, name)
    };
    (at..stack.len()).find(|&i| outside(&stack[i]))
}

/// What a task waits for: sleeping, or on the CPU where it was seen.
pub(super) fn of_task(incident: &Incident, task: &Task) -> Option<(Wait, Vec<Frame>)> {
    if let Some(cpu) = incident.cpu_of(task.pid) {
        let stack = work_of(cpu);
        return classify(stack, true).map(|wait| (wait, stack.to_vec()));
    }
    if task.state == Some(b'R') {
        return None;
    }
    let stack = incident.stack(task.pid);
    let wait = classify(stack, false)?;
    // Kernel threads that wait for work sleep in `I` or `S`; a task in `D` waits for something.
    if wait.rule.what == What::Idle && task.state != Some(b'D') {
        return None;
    }
    Some((wait, stack.to_vec()))
}

/// What a CPU does, without the interrupt that looked at it.
pub(super) fn work_of(cpu: &Cpu) -> &[Frame] {
    const DETECTORS: &[&str] = &[
        "dump_stack*",
        "nmi_cpu_backtrace",
        "rcu_dump_cpu_stacks*",
        "rcu_check_callbacks",
        "rcu_sched_clock_irq",
        "watchdog_timer_fn",
        "sched_show_task",
        "show_stack",
        "print_cpu_stall*",
        "check_cpu_stall",
        "print_other_cpu_stall",
    ];
    let looks = |frames: &[Frame]| frames.iter().any(|f| fits_any(DETECTORS, &f.function));
    if !cpu.interrupts.is_empty() && !looks(&cpu.interrupts) {
        return &cpu.interrupts;
    }
    if !looks(&cpu.stack) {
        return &cpu.stack;
    }
    // Some architectures do not mark where the interrupt ends.
    const ENTRIES: &[&str] = &[
        "*apic_timer_interrupt*",
        "gic_handle_irq",
        "__irq_svc",
        "el1_irq",
        "el1_interrupt",
        "el1h_64_irq*",
        "handle_riscv_irq",
        "do_irq",
        "timer_interrupt",
        "hardware_interrupt_common_virt",
        "decrementer_common_virt",
        "do_ext_irq",
        "ext_int_handler",
    ];
    let end = cpu.stack.iter().rposition(|f| fits_any(ENTRIES, &f.function));
    &cpu.stack[end.map_or(0, |at| at + 1)..]
}

/// The function that a running task is in, without the way to where it is stopped or switched.
pub(super) fn inside(stack: &[Frame]) -> Option<&Frame> {
    const WAYS_IN: &[&str] = &[
        "asm_*",
        "sysvec_*",
        "irqentry_exit*",
        "raw_irqentry_exit*",
        "el1_*",
        "el1h_*",
        "arm64_preempt_schedule*",
        "apic_timer_interrupt",
        "reschedule_interrupt",
        "retint_kernel",
        "ret_from_intr",
        "__irq_svc",
        "svc_preempt",
        "should_resched",
    ];
    stack.iter().find(|f| !fits_any(SCHEDULER, &f.function) && !fits_any(WAYS_IN, &f.function))
}

/// Whether a stack is of the task that prints the report about others, which it waits for.
pub(super) fn reports(stack: &[Frame]) -> bool {
    const PRINTERS: &[&str] =
        &["synchronize_rcu_expedited_*", "rcu_exp_wait_wake", "rcu_exp_sel_wait_wake"];
    let stops = |f: &Frame| {
        fits_any(&["sched_show_task", "_sched_show_task", "dump_cpu_task", "nmi_*"], &f.function)
    };
    let waits = |f: &Frame| fits_any(PRINTERS, &f.function);
    let prints = stack.iter().position(stops);
    prints.is_some_and(|at| stack.iter().skip(at + 1).take(8).any(waits))
}

/// Whether an entry of a list of locks was asked for where this stack waits.
pub(super) fn asked_here(held: &Held, stack: &[Frame], wait: &Wait) -> bool {
    let Some(at) = &held.at else { return true };
    let from = wait.at.min(stack.len());
    let to = (wait.site.unwrap_or(wait.at) + 6).min(stack.len());
    stack[from..to].iter().any(|f| same_place(at, f))
}

/// Whether two frames are the same place in the kernel.
pub(super) fn same_place(a: &Frame, b: &Frame) -> bool {
    a.function == b.function
        && if a.size > 0 && b.size > 0 {
            (a.offset, a.size) == (b.offset, b.size)
        } else {
            a.source.is_none() || b.source.is_none() || a.source == b.source
        }
}

/// Functions near the wait, for people: `namespace_unlock > synchronize_rcu`.
pub(super) fn why(stack: &[Frame], wait: &Wait) -> String {
    let inner = wait.at;
    let from = stack.get(inner).map(|f| f.function.as_str()).unwrap_or_default();
    let site = wait.site.or_else(|| (inner + 1..stack.len()).find(|&i| !stack[i].inlined));
    match site.and_then(|i| stack.get(i)) {
        Some(caller) if caller.function != from => format!("{} > {from}", caller.function),
        _ => from.to_owned(),
    }
}

/// The word of a table about the functions around a wait.
pub(super) fn named(
    table: &[(&str, &'static str)],
    stack: &[Frame],
    from: usize,
    most: usize,
) -> Option<&'static str> {
    stack.iter().skip(from).take(most).find_map(|f| rules::beside(table, &f.function))
}
