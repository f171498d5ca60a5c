//! Tracepoints of a program's own that `perf stat` counts, and the program that a command is expected to become.
//!
//! The program counts in memory that we have as well, so what was counted by its end is told whatever ended it.

use crate::connection::Connection;
use crate::console::Console;
use crate::discover::Directory;
use crate::escape::shown;
use crate::failure::Result;
use crate::record::launch::{Watch, token};
use crate::record::session::{ask, unexpected};
use gracepoint_wire::control::{Create, Message};
use gracepoint_wire::schema::{FIRST_USER_ID, Role};
use gracepoint_wire::{counters, glob};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of counts that are believed: of sixty thousand events.
const MOST: u64 = 64 << 20;
/// How long a program is looked for every millisecond; it waits for us for a second.
const EAGER_FOR: Duration = Duration::from_secs(3);

/// A tracepoint that is being counted.
pub(super) struct Counted {
    memory: Arc<File>,
    ids: Vec<u32>,
}

impl Counted {
    /// Begins to count these, all at one moment: a program that waits for us goes on from there. Or says of one why not, in
    /// words.
    ///
    /// # Errors
    /// When the program does not answer as it should.
    pub(super) fn begin(
        link: &mut Connection,
        names: &[&str],
    ) -> Result<Vec<std::result::Result<Counted, String>>> {
        let Message::Events(events) = ask(link, &Message::List)? else { return Err(unexpected()) };
        let known = || events.iter().map(|event| event.schema.name.as_str());
        let are_there = names.iter().filter(|name| known().any(|known| known == **name));
        let globs: Vec<String> = are_there.map(|name| (*name).to_owned()).collect();
        if globs.is_empty() {
            return Ok(names.iter().map(|name| Err(unknown(name, known()))).collect());
        }
        let tool = "gracepoint perf stat".into();
        let create = Create { globs: globs.clone(), tool, ..Create::default() };
        let Message::Created(created) = ask(link, &Message::Count(create))? else {
            return Err(unexpected());
        };
        let Some(memory) = link.take_descriptor() else { return Err(unexpected()) };
        let memory = Arc::new(File::from(memory));
        let Message::Started(_) = ask(link, &Message::Start(created.session))? else {
            return Err(unexpected());
        };
        let counted = |name: &&str| {
            if !globs.iter().any(|glob| glob == name) {
                return Err(unknown(name, known()));
            }
            let told = created.events.iter().filter(|event| event.schema.name == **name);
            let told = told.filter(|event| event.id >= FIRST_USER_ID && event.role != Role::End);
            Ok(Counted { memory: Arc::clone(&memory), ids: told.map(|event| event.id).collect() })
        };
        Ok(names.iter().map(counted).collect())
    }

    /// Hits so far.
    pub(super) fn read(&self) -> Option<u64> {
        // The size is the program's word, and not trusted.
        let len = self.memory.metadata().ok()?.len().min(MOST);
        let mut bytes = vec![0; len as usize];
        self.memory.read_exact_at(&mut bytes, 0).ok()?;
        let counts = counters::sum(&bytes);
        let of = counts.iter().filter(|count| self.ids.contains(&count.id));
        Some(of.fold(0, |sum, count| sum.wrapping_add(count.hits)))
    }
}

fn unknown<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> String {
    let near = glob::near(name, known, 3);
    match near.is_empty() {
        true => "the program has no such tracepoint".to_owned(),
        false => format!("the program has no such tracepoint; did you mean {}?", near.join(", ")),
    }
}

/// The first traceable program that comes of a command.
pub(super) struct Awaited {
    watch: Watch,
    pub(super) token: String,
    since: Instant,
    found: bool,
}

impl Awaited {
    /// Before the command is started, which gets the token.
    pub(super) fn new() -> Awaited {
        let token = token();
        let watch = Watch::new(Directory::from_env(), token.clone());
        Awaited { watch, token, since: Instant::now(), found: false }
    }

    /// The program, once. It waits until it is told to go on; those that come later are told so here.
    pub(super) fn look(&mut self, console: &mut Console) -> Option<Connection> {
        let mut first = None;
        for live in self.watch.look() {
            if std::mem::replace(&mut self.found, true) {
                console.note(format_args!(
                    "{} (pid {}) is not counted: one program's own tracepoints are",
                    shown(&live.program.name),
                    live.pid
                ));
                self.watch.wave_on(live.link);
            } else {
                first = Some(live.link);
            }
        }
        first
    }

    /// Until the next look.
    pub(super) fn pause(&self, most: Duration) -> Duration {
        let eager = if self.since.elapsed() < EAGER_FOR { 1 } else { 10 };
        if self.found { most } else { most.min(Duration::from_millis(eager)) }
    }
}
