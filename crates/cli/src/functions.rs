//! `gracepoint functions`, and what `record` and `start` need to know of a program's functions.
//!
//! The program numbers its functions and says where those with sleds lie; what they are called is in the
//! files of its objects. Those are opened as the program sees them (its own executable also when it was
//! replaced since), and their build ids compared with those that the program has in memory. Names are needed to choose,
//! at once; lines of the source take longer, so a recording looks them up on a thread of its own while it runs.

mod graph;

pub(crate) use graph::{graph, table};

use crate::args::{ChooseFunctions, FunctionsArgs};
use crate::console::Console;
use crate::discover::{self, Live};
use crate::escape::shown;
use crate::failure::{Failure, Result};
use crate::quantity::plural;
use crate::record::session::{ask_for, unexpected};
use gracepoint_analysis::functions::symbols::Symbols;
use gracepoint_analysis::functions::{matches, near};
use gracepoint_analysis::sidecar::FunctionEntry;
use gracepoint_wire::control::{
    Function, FunctionKind, FunctionObject, Functions, FunctionsWanted, Message, Program,
};
use serde_json::json;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

/// An object of the program, and its file where that is the right one.
struct Object {
    /// File name for people.
    name: String,
    file: Option<File>,
    symbols: Option<Symbols>,
}

/// Functions of one file: where they stand in a table, and their addresses.
type Addresses = Vec<(usize, u64)>;

/// The functions of a program, with their names.
pub(crate) struct Listing {
    functions: Vec<Function>,
    /// By position among `functions`.
    names: Vec<String>,
    objects: Vec<Object>,
    /// What kept functions, or their names, out.
    pub(crate) notes: Vec<String>,
}

/// What a recording's sidecar tells of functions; their lines may be on their way.
#[derive(Debug, Default)]
pub(crate) struct Table {
    entries: Vec<FunctionEntry>,
    lines: Option<JoinHandle<Vec<FunctionEntry>>>,
}

impl Table {
    /// With lines where they are known by now, or with `wait` where they can be known.
    pub(crate) fn entries(&mut self, wait: bool) -> Vec<FunctionEntry> {
        if let Some(lines) = self.lines.take_if(|lines| wait || lines.is_finished()) {
            // Without them where the thread failed: they are not worth a trace.
            self.entries = lines.join().unwrap_or_else(|_| std::mem::take(&mut self.entries));
        }
        self.entries.clone()
    }
}

/// Asks a program for its functions, and finds out what they are called.
///
/// # Errors
/// When it cannot trace functions, or does not answer.
pub(crate) fn listing(live: &mut Live) -> Result<Listing> {
    let reply = ask_for(&mut live.link, &Message::ListFunctions)?.map_err(|failure| {
        let old = failure.code == "unsupported";
        Failure::new(match old {
            true => format!(
                "{} cannot trace functions: its gracepoint is too old, build it with a newer one",
                shown(&live.program.name)
            ),
            false => format!("the program refuses: {}", shown(&failure.text)),
        })
    })?;
    let Message::Functions(all) = reply else { return Err(unexpected()) };
    let Functions { objects, functions, mut notes } = all;
    let used = |at: usize| {
        functions.iter().any(|f| f.kind == FunctionKind::Sleds && f.object as usize == at)
    };
    let objects: Vec<Object> = objects
        .iter()
        .enumerate()
        .map(|(at, object)| open(object, live, used(at), &mut notes))
        .collect();
    let name = |function: &Function| match function.kind {
        FunctionKind::Attribute => function.name.clone(),
        FunctionKind::Sleds => {
            let symbols = objects.get(function.object as usize).and_then(|o| o.symbols.as_ref());
            let known = symbols.and_then(|symbols| symbols.name(function.address));
            known.unwrap_or_else(|| format!("{:#x}", function.address))
        }
    };
    let names = functions.iter().map(name).collect();
    Ok(Listing { functions, names, objects, notes })
}

/// Opens an object's file as the program sees it.
fn open(object: &FunctionObject, live: &Live, used: bool, notes: &mut Vec<String>) -> Object {
    let path = Path::new(&object.path);
    let name =
        path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let none = Object { name, file: None, symbols: None };
    if !used {
        return none;
    }
    let pid = live.pid;
    let exe = object.path.is_empty() || object.path == live.program.exe;
    let seen = match exe {
        true => PathBuf::from(format!("/proc/{pid}/exe")),
        false => {
            Path::new(&format!("/proc/{pid}/root")).join(path.strip_prefix("/").unwrap_or(path))
        }
    };
    let label = if object.path.is_empty() { &live.program.exe } else { &object.path };
    let opened = File::open(&seen)
        .map_err(|e| format!("cannot open {label}: {e}"))
        // Through the descriptor, which stays the same file.
        .and_then(|file| {
            Symbols::open(&by_descriptor(&file)).map(|s| (file, s)).map_err(|e| e.to_string())
        });
    let (file, symbols) = match opened {
        Ok(opened) => opened,
        Err(why) => {
            notes.push(format!("{why}; its functions have addresses for names"));
            return none;
        }
    };
    if !object.build_id.is_empty() && symbols.build_id() != object.build_id {
        notes.push(format!(
            "{label} is not what runs (its build id is another one): restart the program to see names instead of \
             addresses"
        ));
        return none;
    }
    if !symbols.has_names() {
        notes.push(format!(
            "{label} is stripped, so its functions have addresses for names: build it with `strip = false`, or \
             install its debug symbols"
        ));
    }
    Object { file: Some(file), symbols: Some(symbols), ..none }
}

fn by_descriptor(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

impl Listing {
    fn program_has_none(&self, program: &Program) -> String {
        format!(
            "{} has no functions that can be traced: put #[gracepoint::function] on some, or build it with \
             `cargo gracepoint build`",
            shown(&program.name)
        )
    }

    /// Positions of the functions that match one of `globs`; all where there are none.
    ///
    /// # Errors
    /// When there are no functions, or a glob matches none; exit status `status`.
    fn matching(&self, globs: &[String], program: &Program, status: u8) -> Result<Vec<usize>> {
        if self.functions.is_empty() {
            return Err(Failure::new(self.program_has_none(program)).with_status(status));
        }
        for pattern in globs {
            if !self.names.iter().any(|name| matches(pattern, name)) {
                return Err(Failure::new(self.no_such(pattern, program)).with_status(status));
            }
        }
        let wanted = |at: &usize| {
            globs.is_empty() || globs.iter().any(|glob| matches(glob, &self.names[*at]))
        };
        Ok((0..self.functions.len()).filter(wanted).collect())
    }

    /// What `choice` leaves out and is not there: no error, but hardly what was meant.
    pub(crate) fn idle(&self, choice: &ChooseFunctions, program: &Program) -> Vec<String> {
        let idle = |glob: &&String| !self.names.iter().any(|name| matches(glob, name));
        let tell = |glob: &String| {
            format!("--notrace leaves out nothing: {}", self.no_such(glob, program))
        };
        choice.notrace.iter().filter(idle).map(tell).collect()
    }

    fn no_such(&self, pattern: &str, program: &Program) -> String {
        let found = near(pattern, self.names.iter().map(String::as_str), 3);
        let near: Vec<_> = found.iter().map(|path| shown(path)).collect();
        let hint = match near.as_slice() {
            [] => "`gracepoint functions` shows what there is".to_owned(),
            near => format!("did you mean {}?", near.join(", ")),
        };
        let name = shown(&program.name);
        format!("no function of {name} matches `{}`: {hint}", shown(pattern))
    }

    /// Whether `choice` would take any of these.
    pub(crate) fn has_some(&self, choice: &ChooseFunctions) -> bool {
        let wanted = |name: &String| choice.functions.iter().any(|glob| matches(glob, name));
        self.names.iter().any(wanted)
    }

    /// What to ask the program for, and what it will mean.
    ///
    /// # Errors
    /// When a glob matches nothing, or nothing is left.
    pub(crate) fn choose(
        &self,
        choice: &ChooseFunctions,
        program: &Program,
    ) -> Result<(FunctionsWanted, Table)> {
        let mut chosen = self.matching(&choice.functions, program, 2)?;
        let out = |at: &usize| choice.notrace.iter().any(|glob| matches(glob, &self.names[*at]));
        chosen.retain(|at| !out(at));
        if chosen.is_empty() {
            return Err(Failure::new(
                "--notrace leaves no function that --functions names: narrow it",
            ));
        }
        let threshold = choice.threshold.map_or(0, |t| u64::try_from(t.as_nanos()).unwrap_or(0));
        let wanted = FunctionsWanted {
            ids: ranges(chosen.iter().map(|&at| self.functions[at].id)),
            depth: choice.depth.unwrap_or(0),
            threshold_ns: threshold,
            threads: choice.tid.clone(),
        };
        Ok((wanted, self.table(&chosen)))
    }

    /// What a sidecar tells of these functions.
    fn table(&self, chosen: &[usize]) -> Table {
        let entries: Vec<FunctionEntry> = chosen.iter().map(|&at| self.entry(at)).collect();
        let mut of_file: Vec<(Option<File>, Addresses)> = self
            .objects
            .iter()
            .map(|o| (o.file.as_ref().and_then(|f| f.try_clone().ok()), Vec::new()))
            .collect();
        for (place, &at) in chosen.iter().enumerate() {
            let function = &self.functions[at];
            if function.kind == FunctionKind::Sleds {
                of_file[function.object as usize].1.push((place, function.address));
            }
        }
        let mut located = entries.clone();
        let find = move || {
            for (file, functions) in of_file.iter().filter(|(_, functions)| !functions.is_empty()) {
                let symbols = file.as_ref().and_then(|f| Symbols::open(&by_descriptor(f)).ok());
                let Some(symbols) = symbols else { continue };
                for &(place, address) in functions {
                    if let Some((file, line)) = symbols.line(address) {
                        (located[place].file, located[place].line) = (file, line);
                    }
                }
            }
            located
        };
        let lines = std::thread::Builder::new().name("lines".into()).spawn(find).ok();
        Table { entries, lines }
    }

    /// All of them, for a session of which it is not known which it wanted.
    pub(crate) fn whole_table(&self) -> Table {
        self.table(&(0..self.functions.len()).collect::<Vec<_>>())
    }

    fn entry(&self, at: usize) -> FunctionEntry {
        let function = &self.functions[at];
        FunctionEntry {
            id: function.id,
            name: self.names[at].clone(),
            file: function.file.clone(),
            line: function.line,
            object: match function.kind {
                FunctionKind::Attribute => String::new(),
                FunctionKind::Sleds => self.objects[function.object as usize].name.clone(),
            },
            args: function.args.clone(),
            returns: function.returns.clone(),
        }
    }
}

/// Ids in order, as ranges with both ends.
fn ranges(ids: impl Iterator<Item = u32>) -> Vec<(u32, u32)> {
    let mut ids: Vec<u32> = ids.collect();
    ids.sort_unstable();
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for id in ids {
        match ranges.last_mut() {
            Some((_, last)) if id <= last.saturating_add(1) => *last = id,
            _ => ranges.push((id, id)),
        }
    }
    ranges
}

/// Runs `functions`.
pub(crate) fn functions(args: &FunctionsArgs, console: &mut Console) -> Result<u8> {
    let mut live = discover::find(&args.target.which())?;
    let listing = listing(&mut live)?;
    for note in &listing.notes {
        console.note(shown(note));
    }
    let chosen = listing.matching(&args.globs, &live.program, 1)?;
    let mut table = listing.table(&chosen);
    let mut entries = table.entries(true);
    entries.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
    for entry in &entries {
        let kind = if entry.object.is_empty() { "attribute" } else { "sleds" };
        if args.json {
            console.line(json!({
                "id": entry.id,
                "name": entry.name,
                "kind": kind,
                "object": (!entry.object.is_empty()).then_some(&entry.object),
                "file": (!entry.file.is_empty()).then_some(&entry.file),
                "line": (entry.line != 0).then_some(entry.line),
                "args": (!entry.args.is_empty()).then_some(&entry.args),
                "returns": (!entry.returns.is_empty()).then_some(&entry.returns),
            }))?;
            continue;
        }
        let place = match (entry.file.as_str(), entry.line) {
            ("", _) => String::new(),
            (file, 0) => format!("  {}", console.faint(&shown(file))),
            (file, line) => format!("  {}", console.faint(&format!("{}:{line}", shown(file)))),
        };
        console.line(format_args!("{}{place}", console.bold(&shown(&entry.name))))?;
    }
    if !args.json && args.globs.is_empty() {
        console.note(plural(entries.len() as u64, "function", "functions"));
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_become_ranges() {
        assert_eq!(ranges([5, 1, 2, 3, 9, 10, 2].into_iter()), [(1, 3), (5, 5), (9, 10)]);
        assert_eq!(ranges([u32::MAX - 1, u32::MAX].into_iter()), [(u32::MAX - 1, u32::MAX)]);
        assert_eq!(ranges(std::iter::empty()), []);
    }
}
