//! "Why is it stuck?", from the text of a Linux kernel log.
//!
//! A log goes through in one pass ([`explain`]): lines to tasks, CPUs, locks and stalls; stacks to
//! waits, by a table of what the kernel's functions wait for; waits to a graph of who waits for
//! whom, each edge with its lines and how sure it is; the graph to chains from each complaint to
//! where it ends. The end is a culprit, a cycle, or unknown: where the log ends, nothing is made up,
//! and no commit is ever blamed. What was merely seen beside is kept apart from the mechanism.
//!
//! | module | what it does |
//! |---|---|
//! | `mail`, `line` | undo what mail programs and transports do to a line |
//! | `frame` | reads stack frames |
//! | `banner` | recognises lines that begin something |
//! | `parse`, `model` | lines to what was seen |
//! | `rules` | what is known of the kernel, as data |
//! | `waits` | stacks to waits |
//! | `links`, `locks`, `order` | waits to edges |
//! | `account` | complaints, ends, what to collect |
//! | `title` | the name under which such a hang is filed |
//! | `source` | lines of the source, from a kernel's debug information |
//! | `bug` | the account as the report of a bug |
//!
//! Graph, chains and how they are told are the model that this shares with programs of ours:
//! [`stuck`](crate::stuck).
//!
//! ```
//! let log = b"\
//! INFO: task umount:12 blocked for more than 143 seconds.
//! task:umount state:D stack:0 pid:12 ppid:1 flags:0x4000
//! Call Trace:
//!  __schedule+0x1/0x20
//!  schedule+0x1/0x20
//!  schedule_timeout+0x1/0x20
//!  wait_for_completion+0x1/0x20
//!  __wait_rcu_gp+0x1/0x20
//!  synchronize_rcu+0x1/0x20
//!  namespace_unlock+0x1/0x20
//! ";
//! let explanation = gracepoint_analysis::hang::explain(&log[..])?;
//! assert_eq!(explanation.title.as_deref(), Some("INFO: task hung in synchronize_rcu"));
//! let chain = &explanation.accounts[0].chains[0];
//! assert_eq!(chain.end.to_string(), "gp:rcu");
//! assert!(chain.words.starts_with("unknown"));
//! # Ok::<(), std::io::Error>(())
//! ```

mod account;
mod banner;
mod bug;
pub mod frame;
mod line;
mod links;
mod locks;
mod mail;
mod model;
mod order;
mod parse;
mod rules;
mod source;
mod title;
mod waits;

pub use crate::stuck::Explanation;
pub use crate::stuck::account::{Account, Chain, Verdict};
pub use crate::stuck::graph::{Confidence, Edge, EdgeKind, Node};

use std::io::{self, BufRead};
use std::path::Path;

/// Longest line that is looked at; what is beyond is skipped.
const LINE: usize = 4096;
/// Most incidents that are kept: the first ones, since what follows is often their consequence.
const INCIDENTS: usize = 32;

impl Explanation {
    /// Looks up the frames of the stacks in `vmlinux`, the kernel that printed the log, with its debug
    /// information. How many frames have got a line of the source that the log did not have.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or has no debug information.
    pub fn locate(&mut self, vmlinux: &Path) -> io::Result<usize> {
        let source = source::Source::open(vmlinux)?;
        let stacks = self.accounts.iter_mut().flat_map(|account| &mut account.stacks);
        Ok(stacks.map(|stack| source.locate(stack)).sum())
    }

    /// The sections of a bug report, in Markdown: summary and severity, chain, contexts with their
    /// stacks, what is affected, a workaround if the mechanism has one, what to collect.
    pub fn to_report(&self) -> String {
        bug::text(self)
    }
}

/// Reads a log to its end and explains it. Memory is bounded, whatever the log's length.
///
/// # Errors
///
/// Those of the reader. No content is an error.
pub fn explain(mut log: impl BufRead) -> io::Result<Explanation> {
    let mut parser = parse::Parser::default();
    let mut titles = title::Titles::default();
    let mut unwrapped = mail::Unwrapped::default();
    let mut told = Told::default();
    let mut line = Vec::with_capacity(256);
    let mut lines = 0u32;
    let mut take = |number, line: &[u8], parser: &mut parse::Parser| {
        titles.line(number, line);
        parser.line(number, line);
        parser.finished.drain(..).for_each(|incident| told.add(&incident));
    };
    while read_line(&mut log, &mut line)? {
        lines = lines.saturating_add(1);
        line::take_out_colours(&mut line);
        unwrapped.line(lines, &line, |number, line| take(number, line, &mut parser));
    }
    unwrapped.finish(|number, line| take(number, line, &mut parser));
    parser.finish().iter().for_each(|incident| told.add(incident));
    let Told { accounts, left_out } = told;
    Ok(Explanation { title: titles.finish(), accounts, incidents_left_out: left_out, lines })
}

/// The accounts of the first incidents, and how many came after them.
#[derive(Default)]
struct Told {
    accounts: Vec<Account>,
    left_out: usize,
}

impl Told {
    fn add(&mut self, incident: &model::Incident) {
        if self.accounts.len() < INCIDENTS {
            self.accounts.push(account::account(incident));
        } else {
            self.left_out += 1;
        }
    }
}

/// The next line without its end; of a long one the beginning. `false` at the end of the log.
fn read_line(log: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut any = false;
    loop {
        let chunk = match log.fill_buf() {
            Ok(chunk) => chunk,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if chunk.is_empty() {
            return Ok(any);
        }
        any = true;
        let end = memchr::memchr(b'\n', chunk);
        let part = &chunk[..end.unwrap_or(chunk.len())];
        let room = LINE.saturating_sub(line.len()).min(part.len());
        line.extend_from_slice(&part[..room]);
        let used = part.len() + usize::from(end.is_some());
        log.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}
