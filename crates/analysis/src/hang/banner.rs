//! Lines that begin something: complaints, lists, and what is worth knowing beside.

use super::line::{after, between, find, leading_number, number, trim};
use super::model::{Owner, Symptom, SymptomKind};
use super::parse::text;

/// What a line begins.
pub(super) enum Banner {
    Symptom(Symptom),
    /// Flavour of the grace period.
    Stall(String),
    Owner {
        pid: u32,
        comm: String,
        owner: Owner,
    },
    Nmi {
        cpu: u32,
        idle: bool,
    },
    /// `Task dump for CPU 1:`: the task that runs there follows.
    TaskDump(u32),
    AllLocks,
    AllTasks,
    LockdepOff,
    Starved,
    /// A possible cause; see [`BESIDES`].
    Beside(&'static str),
    Boot,
    /// `workqueue events: flags=0x0`.
    Queue(String),
    /// A line of `=`, which ends the list of all locks among others.
    Rule,
    /// Whatever came before has ended.
    Ends,
}

/// Messages that point at causes: any of the words, and what they mean.
const BESIDES: &[(&[u8], &str)] = &[
    (b"perf: interrupt took too long", "interrupt storm (perf)"),
    (b"hrtimer: interrupt took", "interrupt storm (timer)"),
    (b"INFO: NMI handler", "slow NMI handler"),
    (b"RT throttling activated", "real-time tasks use all CPU time"),
    (b"I/O error", "I/O errors"),
    (b"I/O timeout", "I/O timeouts"),
    (b"timeout, aborting", "I/O timeouts"),
    (b"QID", "I/O timeouts"),
    (b"rejecting I/O to offline device", "device is offline"),
    (b"not responding", "a server or device does not respond"),
    (b"Connection timed out", "a server or device does not respond"),
    (b"USB disconnect", "USB device was disconnected"),
    (b"invoked oom-killer", "out of memory"),
    (b"Out of memory", "out of memory"),
    (b"page allocation failure", "out of memory"),
    (b"clocksource: timekeeping watchdog", "unstable clock"),
    (b"Aborting journal", "file system shut down"),
    (b"Filesystem has been shut down", "file system shut down"),
    (b"FAULT_INJECTION: forcing a failure", "fault injection"),
    (b"unregister_netdevice: waiting for", "a network device is still in use"),
];

/// Recognises a banner.
pub(super) fn read(body: &[u8]) -> Option<Banner> {
    if (find(body, b"INFO: ").is_some() || find(body, b" stall").is_some())
        && let Some(banner) = information(body)
    {
        return Some(banner);
    }
    if (find(body, b"ockup").is_some() || find(body, b"LOCKUP").is_some())
        && let Some(banner) = lockup(body)
    {
        return Some(banner);
    }
    if let Some(rest) = after(body, b"NMI backtrace for cpu ") {
        let (cpu, rest) = leading_number(rest)?;
        let idle = find(rest, b"idling").is_some();
        return Some(Banner::Nmi { cpu: small(cpu), idle });
    }
    if let Some(banner) = simple(body) {
        return Some(banner);
    }
    if is_lockdep(body) {
        return Some(Banner::Symptom(symptom(SymptomKind::Lockdep, body)));
    }
    if find(body, b"kthread starved for").is_some() {
        return Some(Banner::Starved);
    }
    let beside = BESIDES.iter().find(|(words, _)| find(body, words).is_some())?;
    Some(Banner::Beside(beside.1))
}

fn simple(body: &[u8]) -> Option<Banner> {
    match body.first()? {
        b'T' => {
            let rest = body.strip_prefix(b"Task dump for CPU ")?;
            leading_number(rest).map(|(cpu, _)| Banner::TaskDump(small(cpu)))
        }
        b'S' if body.starts_with(b"Showing all locks held in the system") => Some(Banner::AllLocks),
        b'S' if body.starts_with(b"Sending NMI") => Some(Banner::Ends),
        b's' if body.starts_with(b"sysrq: Show Blocked State")
            || body.starts_with(b"sysrq: Show State") =>
        {
            Some(Banner::AllTasks)
        }
        b'S' if body.starts_with(b"SysRq : Show") => Some(Banner::AllTasks),
        b'L' if body.starts_with(b"Linux version ") => Some(Banner::Boot),
        b'K' if body.starts_with(b"Kernel panic") => Some(Banner::Ends),
        b'=' if body.starts_with(b"=====") => Some(Banner::Rule),
        b'-' if body.starts_with(b"------------[ cut here") => Some(Banner::Ends),
        b'w' => {
            let name = body.strip_prefix(b"workqueue ")?;
            let end = find(name, b": flags=")?;
            Some(Banner::Queue(text(&name[..end])))
        }
        _ => None,
    }
}

fn information(body: &[u8]) -> Option<Banner> {
    if find(body, b"lockdep is turned off").is_some() {
        return Some(Banner::LockdepOff);
    }
    if let Some(rest) = after(body, b"INFO: task ") {
        return hung_task(rest, body);
    }
    stall(body)
}

/// `x:12 blocked for more than 143 seconds.` and its relatives.
fn hung_task(rest: &[u8], body: &[u8]) -> Option<Banner> {
    let ends: [&[u8]; 5] =
        [b" blocked for more", b" blocked in ", b" can't die for", b" is blocked on", b" <"];
    let end = ends.iter().filter_map(|e| find(rest, e)).min().unwrap_or(rest.len());
    let (comm, pid) = comm_and_pid(rest.get(..end)?)?;
    let said: [(&[u8], bool); 2] =
        [(b"likely owned by task ", false), (b"likely last held by task ", true)];
    for (words, last) in said {
        let Some(owner) = after(rest, words) else { continue };
        let end = [find(owner, b" <"), find(owner, b".")]
            .into_iter()
            .flatten()
            .filter(|&at| comm_and_pid(&owner[..at]).is_some());
        let end = end.min().unwrap_or(owner.len());
        let (owner_comm, owner_pid) = comm_and_pid(&owner[..end])?;
        let owner = Owner { comm: owner_comm, pid: owner_pid, last, line: 0 };
        return Some(Banner::Owner { pid, comm, owner });
    }
    if find(rest, b" is blocked on").is_some() || find(rest, b"> blocked on").is_some() {
        return None;
    }
    let mut symptom = symptom(SymptomKind::HungTask, body);
    symptom.pid = Some(pid);
    Some(Banner::Symptom(symptom))
}

/// `kworker/u4:2:24` is a name and a number.
fn comm_and_pid(text_of: &[u8]) -> Option<(String, u32)> {
    let text_of = trim(text_of);
    let colon = text_of.iter().rposition(|&b| b == b':')?;
    Some((text(&text_of[..colon]), number(&text_of[colon + 1..]).map(small)?))
}

/// Name of the task of a complaint, and its seconds.
pub(super) fn who_and_how_long(body: &[u8]) -> (String, Option<u64>) {
    let seconds = after(body, b"more than ").and_then(leading_number).map(|n| n.0);
    if let Some(rest) = after(body, b"INFO: task ") {
        let ends: [&[u8]; 3] = [b" blocked", b" can't die", b" is blocked"];
        let end = ends.iter().filter_map(|e| find(rest, e)).min().unwrap_or(rest.len());
        return (comm_and_pid(&rest[..end]).map(|c| c.0).unwrap_or_default(), seconds);
    }
    let inside = between(body, b"[", b"]").and_then(comm_and_pid);
    let seconds = after(body, b"stuck for ").and_then(leading_number).map(|n| n.0);
    (inside.map(|c| c.0).unwrap_or_default(), seconds)
}

/// `rcu_preempt self-detected stall on CPU`, `rcu_sched detected expedited stalls on CPUs/tasks`.
fn stall(body: &[u8]) -> Option<Banner> {
    let marks: [&[u8]; 5] = [
        b" self-detected stall",
        b" detected stalls on",
        b" detected expedited stalls",
        b" self-detected expedited stall",
        b" detected stall",
    ];
    let at = marks.iter().filter_map(|m| find(body, m)).min()?;
    let name = body[..at].rsplit(|&b| b == b' ').next()?;
    let expedited = find(&body[at..], b"expedited").is_some();
    let flavour = match name {
        _ if expedited => "rcu-exp",
        b"rcu_sched" => "rcu-sched",
        b"rcu_bh" => "rcu-bh",
        name if name.starts_with(b"rcu_tasks") => "rcu-tasks",
        name if name.starts_with(b"rcu") => "rcu",
        _ => return None,
    };
    Some(Banner::Stall(flavour.to_owned()))
}

fn lockup(body: &[u8]) -> Option<Banner> {
    let soft = after(body, b"BUG: soft lockup - CPU#");
    if let Some((cpu, _)) = soft.and_then(leading_number) {
        let mut symptom = symptom(SymptomKind::SoftLockup, body);
        symptom.cpu = Some(small(cpu));
        symptom.pid = between(body, b"[", b"]").and_then(comm_and_pid).map(|c| c.1);
        return Some(Banner::Symptom(symptom));
    }
    let hard = after(body, b"hard LOCKUP on cpu ").or_else(|| after(body, b"hard LOCKUP on CPU "));
    if let Some((cpu, _)) = hard.and_then(leading_number) {
        let mut symptom = symptom(SymptomKind::HardLockup, body);
        symptom.cpu = Some(small(cpu));
        return Some(Banner::Symptom(symptom));
    }
    if find(body, b"BUG: workqueue lockup").is_some() {
        return Some(Banner::Symptom(symptom(SymptomKind::WorkqueueLockup, body)));
    }
    if find(body, b"spinlock lockup suspected").is_some() {
        let mut symptom = symptom(SymptomKind::SoftLockup, body);
        let cpu = after(body, b"on CPU#").and_then(leading_number);
        symptom.cpu = cpu.map(|c| small(c.0));
        symptom.pid = body.rsplit(|&b| b == b'/').next().and_then(number).map(small);
        return Some(Banner::Symptom(symptom));
    }
    None
}

fn is_lockdep(body: &[u8]) -> bool {
    const WORDS: [&[u8]; 11] = [
        b"possible circular locking dependency detected",
        b"possible recursive locking detected",
        b"possible irq lock inversion dependency detected",
        b"SOFTIRQ-safe -> SOFTIRQ-unsafe lock order detected",
        b"HARDIRQ-safe -> HARDIRQ-unsafe lock order detected",
        b"inconsistent lock state",
        b"bad unlock balance detected",
        b"held lock freed!",
        b"nested lock was not taken",
        b"still has locks held!",
        b"spinlock recursion",
    ];
    let marked = body.starts_with(b"WARNING: ")
        || body.starts_with(b"BUG: ")
        || body.starts_with(b"[ ")
        || body.starts_with(b"INFO: ");
    marked && WORDS.iter().any(|w| find(body, w).is_some())
}

fn symptom(kind: SymptomKind, body: &[u8]) -> Symptom {
    Symptom { kind, line: 0, stall: None, order: None, pid: None, cpu: None, text: words(body) }
}

/// A line for people, of a sane length.
pub(super) fn words(body: &[u8]) -> String {
    let body = trim(body);
    String::from_utf8_lossy(&body[..body.len().min(160)]).into_owned()
}

/// The head of a task in a list of tasks.
pub(super) struct TaskLine {
    pub(super) comm: String,
    pub(super) pid: u32,
    pub(super) parent: Option<u32>,
    pub(super) state: u8,
}

const STATES: &[u8] = b"RSDTtXZPIWKN";

/// Reads one of the layouts:
/// `task:x state:D stack:0 pid:1 ppid:2`, `x D ffff8800 27144 1 2 0x0`, `x D27616 1 2 0x0`,
/// `x R  running task 24104 1 2 0x0`.
pub(super) fn task_line(body: &[u8]) -> Option<TaskLine> {
    if let Some(rest) = body.strip_prefix(b"task:") {
        let at = find(rest, b" state:").or_else(|| find(rest, b"state:"))?;
        let state = *after(&rest[at..], b"state:")?.first()?;
        let field = |name: &[u8]| {
            let rest = after(&rest[at..], name)?;
            leading_number(super::line::trim_start(rest)).map(|n| small(n.0))
        };
        let pid = field(b" pid:")?;
        return Some(TaskLine { comm: text(&rest[..at]), pid, parent: field(b"ppid:"), state });
    }
    // The old layouts: from the end, flags, parent and pid are numbers.
    if !body.first()?.is_ascii_graphic() {
        return None;
    }
    let words: Vec<&[u8]> = body.split(|&b| b == b' ').filter(|w| !w.is_empty()).take(20).collect();
    let flags = words.iter().rposition(|w| w.starts_with(b"0x") && w.len() >= 8)?;
    if flags < 4 {
        return None;
    }
    let (parent, pid) = (number(words[flags - 1])?, number(words[flags - 2])?);
    let is_state = |w: &[u8]| {
        STATES.contains(&w[0]) && (w.len() == 1 || w[1..].iter().all(u8::is_ascii_digit))
    };
    let at = (1..flags - 2).find(|&i| is_state(words[i]))?;
    Some(TaskLine {
        comm: text(&words[..at].join(&b' ')),
        pid: small(pid),
        parent: Some(small(parent)),
        state: words[at][0],
    })
}

fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
