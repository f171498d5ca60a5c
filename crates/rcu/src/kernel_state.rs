//! What the kernel says of a thread of this process, where it says anything.
//!
//! From `/proc/self/task/TID`. Each part may be missing: the thread ended meanwhile, the system has no `/proc`, or it
//! does not let everybody read `wchan` and `syscall`.

use std::fmt;
use std::fs;

/// What a thread is doing, as the kernel sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KernelState {
    /// Its name now.
    pub name: Option<String>,
    /// `R` running, `S` asleep, `D` asleep and not to be disturbed, `T` stopped, `Z` ended, …: as in `ps`.
    pub state: Option<char>,
    /// The kernel's function that it sleeps in.
    pub sleeps_in: Option<String>,
    /// The system call that it is in.
    pub call: Option<SystemCall>,
    /// Time that it has run in user space and in the kernel, in ticks (usually of 10 ms).
    pub ticks: Option<[u64; 2]>,
}

/// Where a thread is with respect to system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SystemCall {
    /// It runs, or is ready to.
    Running,
    /// It sleeps, but not in a system call: in a page fault, for instance.
    None,
    /// It sleeps in this system call.
    In {
        /// The call's number, which depends on the processor.
        number: u64,
        /// Its arguments.
        arguments: [u64; 6],
        /// The address that it was called from.
        from: u64,
    },
}

impl KernelState {
    /// Asks the kernel. Opens a few files and allocates. `None` if it tells nothing: there is no such thread, or no
    /// `/proc`.
    ///
    /// ```
    /// let me = gracepoint_rcu::thread_index().and_then(gracepoint_rcu::thread_info);
    /// if let Some(state) = me.and_then(|me| gracepoint_rcu::KernelState::of_thread(me.tid)) {
    ///     println!("this thread is {state}");
    /// }
    /// ```
    #[must_use]
    pub fn of_thread(tid: u32) -> Option<Self> {
        let read = |file: &str| fs::read_to_string(format!("/proc/self/task/{tid}/{file}")).ok();
        let stat = read("stat")?;
        let (state, ticks) = parse_stat(&stat).unzip();
        Some(Self {
            name: read("comm").map(|name| name.trim_end_matches('\n').to_owned()),
            state,
            sleeps_in: read("wchan").filter(|name| !name.is_empty() && name != "0"),
            call: read("syscall").and_then(|text| parse_call(&text)),
            ticks,
        })
    }
}

/// State and ticks. The name, which comes first in parentheses, may hold anything.
fn parse_stat(text: &str) -> Option<(char, [u64; 2])> {
    let (_, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let ticks = [fields.get(11)?.parse().ok()?, fields.get(12)?.parse().ok()?];
    Some((fields.first()?.chars().next()?, ticks))
}

fn parse_call(text: &str) -> Option<SystemCall> {
    let fields: Vec<&str> = text.split_ascii_whitespace().collect();
    match *fields.first()? {
        "running" => Some(SystemCall::Running),
        "-1" => Some(SystemCall::None),
        number => {
            let hex = |at: usize| {
                let digits = fields.get(at)?.strip_prefix("0x")?;
                u64::from_str_radix(digits, 16).ok()
            };
            let mut arguments = [0; 6];
            for (at, argument) in (1..).zip(&mut arguments) {
                *argument = hex(at)?;
            }
            Some(SystemCall::In { number: number.parse().ok()?, arguments, from: hex(8)? })
        }
    }
}

/// For people: `asleep (S) in futex_wait_queue, system call 202`.
impl fmt::Display for KernelState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.state {
            Some('R') => f.write_str("running (R)")?,
            Some('S') => f.write_str("asleep (S)")?,
            Some('D') => f.write_str("asleep and not to be disturbed (D)")?,
            Some(state @ ('T' | 't')) => write!(f, "stopped ({state})")?,
            Some(state) => write!(f, "in state {state}")?,
            None => f.write_str("in a state that is not known")?,
        }
        if let Some(function) = &self.sleeps_in {
            write!(f, " in {function}")?;
        }
        if let Some(SystemCall::In { number, .. }) = self.call {
            write!(f, ", system call {number}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{SystemCall, parse_call, parse_stat};

    #[test]
    fn the_kernels_lines_are_read() {
        let stat = "12 (a) b) S 1 2 3 4 5 6 7 8 9 10 77 88 0 0";
        assert_eq!(parse_stat(stat), Some(('S', [77, 88])));
        assert_eq!(parse_stat("12 (a"), None);
        assert_eq!(parse_call("running\n"), Some(SystemCall::Running));
        assert_eq!(parse_call("-1 0x7ffc 0x7f\n"), Some(SystemCall::None));
        let futex = "202 0x1 0x2 0x3 0x4 0x5 0x6 0x7ffe 0x7f10\n";
        let arguments = [1, 2, 3, 4, 5, 6];
        let expected = SystemCall::In { number: 202, arguments, from: 0x7f10 };
        assert_eq!(parse_call(futex), Some(expected));
        assert_eq!(parse_call("202 0x1"), None);
    }
}
