//! Switching sites in the running process, and the ways that a system leaves to do it.
//!
//! | way | how a site changes | where |
//! |---|---|---|
//! | `text` | its pages become writable for a moment; one aligned 8-byte store | x86-64, the first choice |
//! | `mem` | `/proc/self/mem`, first byte, rest, first byte | x86-64, where W^X policy refuses `text` |
//! | `branch` | a store to the word that the site loads | other architectures, or a build that asks for it |
//!
//! `branch` is a choice of the build, since a patched site is one NOP and has nothing to load. Of
//! `text` and `mem`, the first that works is taken when the program starts, and a batch that `text`
//! is refused (a policy that came later) goes through `mem`. `GRACEPOINT_PATCH` in the environment
//! insists on one. Both need `membarrier(SYNC_CORE)`: without it nobody could say when the last
//! thread has seen a change, so where it is refused sites stay as they are, and whoever wanted them
//! switched is told so.
//!
//! The argument why other threads may go on executing what is changed is in `patch/code.rs`.
//!
//! The caller holds the tracer's lock: batches would undo each other's protection changes, and
//! write each other's bytes.

use std::fmt;

#[cfg(not(gp_branch))]
mod code;
#[cfg(not(gp_branch))]
pub(crate) mod island;
#[cfg(not(gp_branch))]
mod sleds;

/// Why sites could not be switched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PatchError(pub(crate) String);

impl fmt::Display for PatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(not(gp_branch))]
pub(crate) use ladder::{check, switch, switch_sleds, way};
#[cfg(not(gp_branch))]
pub(crate) use sleds::{Batch, Write};

#[cfg(gp_branch)]
pub(crate) fn switch(
    records: impl Iterator<Item = (crate::module::Found, bool)>,
) -> Result<(), PatchError> {
    for (found, on) in records {
        found.record.site().key.switch(on);
    }
    Ok(())
}

/// How sites are switched. The caller holds the tracer's lock.
#[cfg(gp_branch)]
pub(crate) fn way() -> &'static str {
    "branch"
}

/// What `GRACEPOINT_PATCH` asks for, if this build has it.
///
/// # Errors
/// When it has not, in words for the user.
#[cfg(gp_branch)]
pub(crate) fn check() -> Result<(), PatchError> {
    match wish().as_deref() {
        None | Some("branch") => Ok(()),
        Some(other) => Err(impossible(other)),
    }
}

/// The value of `GRACEPOINT_PATCH`, unless the program runs with more rights than its caller.
fn wish() -> Option<String> {
    let value = if crate::sys::privileged() { None } else { std::env::var_os("GRACEPOINT_PATCH") };
    value.filter(|value| !value.is_empty()).map(|value| value.to_string_lossy().into_owned())
}

fn impossible(wish: &str) -> PatchError {
    let has = if cfg!(gp_branch) { "branch" } else { "text and mem" };
    PatchError(match wish {
        "branch" | "text" | "mem" | "patch" => format!(
            "GRACEPOINT_PATCH={wish}: this program was built for {has}; build it again with the \
             variable set, or run it without"
        ),
        _ => format!(
            "GRACEPOINT_PATCH={wish} is no way to switch sites; this program has {has}: choose \
             one of them, or unset the variable"
        ),
    })
}

#[cfg(not(gp_branch))]
mod ladder {
    use super::{PatchError, code, impossible, sleds, wish};
    use crate::module::{self, Found};
    use std::io;
    use std::sync::atomic::AtomicU8;
    use std::sync::atomic::Ordering::Relaxed;

    /// A way to change code.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Way {
        Text,
        Mem,
    }

    const LADDER: [Way; 2] = [Way::Text, Way::Mem];

    const UNDECIDED: u8 = 0;
    const TEXT: u8 = 1;
    const MEM: u8 = 2;
    const REFUSED: u8 = 3;

    /// The way that was found to work. Only ever changed under the tracer's lock.
    static CHOSEN: AtomicU8 = AtomicU8::new(UNDECIDED);

    /// The ways that this process may try, in order.
    fn allowed() -> Result<&'static [Way], PatchError> {
        match wish().as_deref() {
            None | Some("patch") => Ok(&LADDER),
            Some("text") => Ok(&LADDER[..1]),
            Some("mem") => Ok(&LADDER[1..]),
            Some(other) => Err(impossible(other)),
        }
    }

    /// What `GRACEPOINT_PATCH` asks for, if this build has it.
    ///
    /// # Errors
    /// When it has not, in words for the user.
    pub(crate) fn check() -> Result<(), PatchError> {
        allowed().map(drop)
    }

    /// How sites are switched: `text`, `mem`, or `refused` where neither is allowed. Tried on a
    /// site, which it leaves as it was, when it is first asked. The caller holds the tracer's lock.
    pub(crate) fn way() -> &'static str {
        if CHOSEN.load(Relaxed) == UNDECIDED {
            let mut sites = module::records().filter_map(|found| found.record.code());
            let Some(site) = sites.find(|&site| code::is_site(site)) else {
                return "text"; // no site yet; nothing is decided
            };
            let works = |way: &&Way| match way {
                Way::Text => code::text_works(site),
                Way::Mem => code::mem_works(site),
            };
            let found = allowed().ok().and_then(|ways| ways.iter().find(works));
            choose(found.filter(|_| code::barrier().is_ok()).copied());
        }
        match CHOSEN.load(Relaxed) {
            TEXT => "text",
            MEM => "mem",
            _ => "refused",
        }
    }

    fn choose(way: Option<Way>) {
        let chosen = match way {
            Some(Way::Text) => TEXT,
            Some(Way::Mem) => MEM,
            None => REFUSED,
        };
        CHOSEN.store(chosen, Relaxed);
    }

    /// Switches each record's site on or off, as one batch. When it returns, every later hit on any
    /// thread sees the change.
    ///
    /// # Errors
    /// When the system refuses every way. Then each site is as it was, or off.
    pub(crate) fn switch(records: impl Iterator<Item = (Found, bool)>) -> Result<(), PatchError> {
        let changes = code::changes(records);
        if changes.is_empty() {
            return Ok(());
        }
        through(|way| match way {
            Way::Text => code::through_text(&changes),
            Way::Mem => code::through_mem(&changes),
        })
    }

    /// The same for sleds.
    ///
    /// # Errors
    /// When the system refuses every way. Then sleds may have changed in part of the batch; each is on or off.
    pub(crate) fn switch_sleds(batch: &sleds::Batch) -> Result<(), PatchError> {
        if batch.first.is_empty() {
            return Ok(());
        }
        through(|way| match way {
            Way::Text => sleds::through_text(batch),
            Way::Mem => sleds::through_mem(batch),
        })
    }

    /// The first way that works.
    fn through(write: impl Fn(Way) -> io::Result<()>) -> Result<(), PatchError> {
        code::barrier()?;
        let chosen = CHOSEN.load(Relaxed);
        let mut refusals = Vec::new();
        let ways = allowed()?;
        for &way in ways {
            if way == Way::Text && chosen == MEM && ways.len() > 1 {
                continue; // refused before
            }
            match write(way) {
                Ok(()) => {
                    choose(Some(way));
                    return code::barrier();
                }
                Err(error) => refusals.push(error.to_string()),
            }
        }
        let what = match ways.len() < LADDER.len() {
            true => {
                "unset GRACEPOINT_PATCH, which insists on this way, or build the program with it as `branch`"
            }
            false => "build the program with GRACEPOINT_PATCH=branch",
        };
        Err(PatchError(format!(
            "this system refuses to change code ({}); {what}",
            refusals.join("; ")
        )))
    }
}
