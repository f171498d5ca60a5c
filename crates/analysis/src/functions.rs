//! Calls of functions: what is in a trace of `gp:function_entry`, `gp:function_exit` and `gp:function`.
//!
//! | module | what it does |
//! |---|---|
//! | `stack` | pairs entries and exits |
//! | `whole` | brings calls that are told at their end into order |
//! | [`graph`] | who called whom, indented, with durations |
//! | [`table`] | calls, time and its distribution, per function |
//! | `near` | which functions are called like one that is not there |
//! | [`symbols`] | names and places of functions, from an object's file |
//!
//! Here is what they share: which records these are, and what the functions are called. Records of one stream are
//! one thread's, until its slot is given to another one.

pub mod graph;
mod near;
pub(crate) mod stack;
pub mod symbols;
pub mod table;
pub(crate) mod whole;

pub use near::near;

use crate::filter::{Choice, Filter};
use crate::read::Event;
use crate::sidecar::FunctionEntry;
use crate::trace::ToNs;
use crate::{Error, EventType, Result, Trace, Value, escape, hints};
use gracepoint_wire::control::{ENTRY_ID, ENTRY_NAME, EXIT_ID, EXIT_NAME, WHOLE_ID, WHOLE_NAME};
use gracepoint_wire::glob;
use stack::Point;
use std::collections::HashMap;

/// Streams that are told apart.
const MOST_STREAMS: usize = 1 << 16;

/// What a record of a function says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hit {
    Entry(Point),
    Exit(Point),
    /// It ends, and began at this time.
    Whole(Point, u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Entry,
    Exit,
    Whole,
}

/// The functions of a trace.
#[derive(Debug)]
pub(crate) struct Functions {
    /// By position among the trace's events.
    kinds: Vec<Option<Kind>>,
    entries: Vec<FunctionEntry>,
    by_id: HashMap<u32, usize>,
    /// Which functions' arguments, or results, an event tells; by its position.
    args: HashMap<u32, Vec<u32>>,
    returns: HashMap<u32, Vec<u32>>,
    to_ns: ToNs,
}

impl EventType {
    /// Whether it tells of a function that begins or ends.
    pub fn is_function(&self) -> bool {
        kind(self).is_some()
    }
}

fn kind(event: &EventType) -> Option<Kind> {
    let kinds = [
        (ENTRY_ID, ENTRY_NAME, Kind::Entry),
        (EXIT_ID, EXIT_NAME, Kind::Exit),
        (WHOLE_ID, WHOLE_NAME, Kind::Whole),
    ];
    let it = |&&(id, name, _): &&(u32, &str, Kind)| event.declared.id == id && event.name == name;
    kinds.iter().find(it).map(|(.., kind)| *kind)
}

impl Functions {
    pub(crate) fn of(trace: &Trace) -> Functions {
        let entries = trace.sidecar().map_or_else(Vec::new, |sidecar| sidecar.functions.clone());
        let mut told: HashMap<&str, u32> = HashMap::new();
        for (event, at) in trace.events().iter().zip(0..) {
            told.insert(&event.name, at);
        }
        let (mut args, mut returns) = (HashMap::new(), HashMap::new());
        for entry in &entries {
            for (event, map) in [(&entry.args, &mut args), (&entry.returns, &mut returns)] {
                if let Some(&at) = told.get(event.as_str()).filter(|_| !event.is_empty()) {
                    map.entry(at).or_insert_with(Vec::new).push(entry.id);
                }
            }
        }
        Functions {
            kinds: trace.events().iter().map(kind).collect(),
            by_id: entries.iter().enumerate().map(|(at, entry)| (entry.id, at)).collect(),
            entries,
            args,
            returns,
            to_ns: ToNs::new(trace.clock()),
        }
    }

    /// Whether the trace can have calls in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.kinds.iter().all(Option::is_none)
    }

    /// Whether calls are told at their end.
    pub(crate) fn are_whole(&self) -> bool {
        self.kinds.contains(&Some(Kind::Whole))
    }

    /// # Errors
    /// When the trace is one without functions: how to make one that has some.
    pub(crate) fn check(&self, trace: &Trace) -> Result<()> {
        if !self.is_empty() {
            return Ok(());
        }
        Err(Error::new(format!(
            "no function was recorded in {}: record with --functions GLOB (`gracepoint functions` lists \
             what there is)",
            escape::name(&trace.dir().display().to_string())
        )))
    }

    /// What a record says, if it is one of a function.
    pub(crate) fn hit(&self, event: &Event<'_>) -> Option<Hit> {
        let kind = (*self.kinds.get(event.index as usize)?)?;
        let own = if kind == Kind::Whole { 3 } else { 2 };
        let mut values = event.values().map(|(_, value)| value);
        let mut next = values.nth(event.kind.fields.len().checked_sub(own)?);
        let mut number = || {
            let value = next.take();
            next = values.next();
            match value {
                Some(Value::Uint(n)) => Some(n),
                _ => None,
            }
        };
        let (function, frame) = (number()? as u32, number()? as u32);
        let point = Point { function, frame, guard: self.is_guard(function), ns: event.ns };
        Some(match kind {
            Kind::Entry => Hit::Entry(point),
            Kind::Exit => Hit::Exit(point),
            // Through ticks, so that what began inside of another call did not begin before it.
            Kind::Whole => {
                Hit::Whole(point, self.to_ns.real(event.ticks.saturating_sub(number()?)))
            }
        })
    }

    fn is_guard(&self, function: u32) -> bool {
        self.entry(function).is_some_and(|entry| entry.object.is_empty())
    }

    pub(crate) fn entry(&self, function: u32) -> Option<&FunctionEntry> {
        self.by_id.get(&function).map(|&at| &self.entries[at])
    }

    /// Its path; may hold any character, so escape it.
    pub(crate) fn name(&self, function: u32) -> String {
        match self.entry(function) {
            Some(entry) if !entry.name.is_empty() => entry.name.clone(),
            _ => format!("function {function}"),
        }
    }

    /// Whether this event tells the arguments of a function.
    pub(crate) fn is_args_of(&self, event: u32, function: u32) -> bool {
        self.args.get(&event).is_some_and(|functions| functions.contains(&function))
    }

    /// Whether this event tells what a function returned.
    pub(crate) fn is_result_of(&self, event: u32, function: u32) -> bool {
        self.returns.get(&event).is_some_and(|functions| functions.contains(&function))
    }

    /// What `filter` chooses, and all records of functions.
    pub(crate) fn choose(&self, trace: &Trace, filter: &Filter) -> Result<Choice> {
        let mut choice = trace.choose(filter)?;
        for (wanted, kind) in choice.wanted.iter_mut().zip(&self.kinds) {
            *wanted |= kind.is_some();
        }
        Ok(choice)
    }

    /// Which functions match one of `globs`; all where there are none.
    ///
    /// # Errors
    /// When a glob matches none; the message suggests names.
    pub(crate) fn wanted(&self, trace: &Trace, globs: &[String]) -> Result<Option<Vec<u32>>> {
        if globs.is_empty() {
            return Ok(None);
        }
        for pattern in globs {
            if !self.entries.iter().any(|entry| matches(pattern, &entry.name)) {
                if let Some(hint) = hints::names(trace, &[])? {
                    return Err(Error::new(hint));
                }
                let near = near(pattern, self.entries.iter().map(|e| e.name.as_str()), 3);
                let near: Vec<String> = near.iter().map(|path| escape::name(path)).collect();
                let hint = match near.is_empty() {
                    true => "`gracepoint report --functions` lists its functions".to_owned(),
                    false => format!("did you mean {}?", near.join(", ")),
                };
                return Err(Error::new(format!(
                    "no function of {} matches `{}`: {hint}",
                    escape::name(&trace.dir().display().to_string()),
                    escape::name(pattern)
                )));
            }
        }
        let any = |entry: &&FunctionEntry| globs.iter().any(|glob| matches(glob, &entry.name));
        let mut wanted: Vec<u32> = self.entries.iter().filter(any).map(|entry| entry.id).collect();
        wanted.sort_unstable();
        Ok(Some(wanted))
    }
}

/// Does `pattern` match a function's path? Compared are the path as it is spelled and without what is generic
/// about it: `<kv::Store>::get::<u8>` is `kv::Store::get`, `<kv::Store as Drop>::drop` is `kv::Store::drop`.
///
/// ```
/// use gracepoint_analysis::functions::matches;
/// assert!(matches("kv::Store::get", "<kv::Store>::get::<u8>"));
/// assert!(matches("kv::*", "<kv::Store<u8> as core::ops::Drop>::drop"));
/// assert!(!matches("core::*", "<kv::Store as core::ops::Drop>::drop"));
/// ```
pub fn matches(pattern: &str, name: &str) -> bool {
    glob::matches(pattern, name)
        || name.contains('<') && glob::matches(pattern, &without_generics(name))
}

fn without_generics(name: &str) -> String {
    // `<T as Trait>::f` and `<T>::f`: what stands in place of the path's beginning.
    if let Some(rest) = name.strip_prefix('<')
        && let Some(end) = closing(rest)
    {
        let (inner, after) = (&rest[..end], &rest[end + 1..]);
        let ty = &inner[..before_as(inner)];
        let ty = ty.trim_start_matches(['&', '*']);
        let ty = ty.strip_prefix("mut ").or(ty.strip_prefix("const ")).unwrap_or(ty);
        return without_generics(ty) + &without_generics(after);
    }
    let mut out = String::with_capacity(name.len());
    let mut depth = 0usize;
    let mut before = ' ';
    for c in name.chars() {
        match c {
            '<' => depth += 1,
            '>' if before != '-' => depth = depth.saturating_sub(1),
            _ if depth == 0 => out.push(c),
            _ => {}
        }
        before = c;
    }
    out.replace("::::", "::").trim_end_matches("::").to_owned()
}

/// Where ` as ` is that belongs to no inner `<`, or the end.
fn before_as(text: &str) -> usize {
    let whole = |at: &usize| {
        let (opened, closed) = (text[..*at].matches('<').count(), text[..*at].matches('>').count());
        opened == closed - text[..*at].matches("->").count()
    };
    text.match_indices(" as ").map(|(at, _)| at).find(whole).unwrap_or(text.len())
}

/// Where the `>` is that belongs to a `<` before `text`.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        match c {
            '<' => depth += 1,
            '>' if before == '-' => {}
            '>' if depth == 0 => return Some(at),
            '>' => depth -= 1,
            _ => {}
        }
        before = c;
    }
    None
}

/// What is kept of each thread; a stream is one thread's until its slot goes to another.
#[derive(Debug)]
pub(crate) struct Lanes<T> {
    lanes: HashMap<u64, (u32, T)>,
}

impl<T: Default> Lanes<T> {
    pub(crate) fn new() -> Lanes<T> {
        Lanes { lanes: HashMap::new() }
    }

    /// What is kept of the thread of `event`. What was kept of another one that had its slot goes to `gone`; where
    /// there are too many, what is kept of any of them.
    pub(crate) fn of(&mut self, event: &Event<'_>, mut gone: impl FnMut(T)) -> &mut T {
        let (stream, tid) = (event.stream, event.tid);
        if self.lanes.get(&stream).is_some_and(|(owner, _)| *owner != tid) {
            self.lanes.remove(&stream).into_iter().for_each(|(_, lane)| gone(lane));
        }
        if self.lanes.len() >= MOST_STREAMS && !self.lanes.contains_key(&stream) {
            self.rest().into_iter().for_each(gone);
        }
        &mut self.lanes.entry(stream).or_insert_with(|| (tid, T::default())).1
    }

    /// All that is kept, in order of the streams.
    pub(crate) fn rest(&mut self) -> Vec<T> {
        let mut rest: Vec<(u64, T)> =
            self.lanes.drain().map(|(stream, (_, lane))| (stream, lane)).collect();
        rest.sort_by_key(|(stream, _)| *stream);
        rest.into_iter().map(|(_, lane)| lane).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_without_what_is_generic() {
        for (name, want) in [
            ("kv::get", "kv::get"),
            ("<kv::Store>::get::<u8>", "kv::Store::get"),
            ("<kv::Store<u8, fn() -> u8>>::get", "kv::Store::get"),
            ("<&mut kv::Store as core::fmt::Debug>::fmt", "kv::Store::fmt"),
            ("kv::Store<T>::get", "kv::Store::get"),
            ("<<kv::A as kv::B>::C as kv::D>::e", "kv::A::C::e"),
            ("core::ptr::drop_in_place::<kv::X>", "core::ptr::drop_in_place"),
            ("kv::get::{closure#0}", "kv::get::{closure#0}"),
            ("<unclosed", ""),
        ] {
            assert_eq!(without_generics(name), want, "{name}");
        }
    }
}
