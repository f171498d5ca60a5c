//! What a sample says: where it was, who called that, and which functions these are.

use super::symbols::{Lies, Symbols};
use super::unwind::{Copied, Tables};
use crate::filter::Choice;
use crate::read::{Event, Reader};
use crate::{EventType, Trace, Value};
use gracepoint_wire::profile::STACK_ID;
use gracepoint_wire::schema::MODULE_ID;
use std::collections::BTreeMap;
use std::fmt;

/// `gp:sample`, or `gp:stack` whose callers were found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sample {
    /// CPU time that it stands for, in nanoseconds.
    pub(crate) weight: u64,
    pub(crate) cpu: u32,
    /// It was in the kernel, called from the innermost function.
    pub(crate) kernel: bool,
    /// Places in functions, innermost first: of a caller the byte before the return address, since the call may have
    /// been the function's last instruction.
    pub(crate) places: Vec<u64>,
}

/// Reads samples and knows the objects that they were in.
pub(crate) struct Sampler {
    symbols: Symbols,
    objects: Vec<Lies>,
    /// Read when the first copied stack comes.
    tables: Option<Tables>,
}

impl fmt::Debug for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sampler").finish_non_exhaustive()
    }
}

impl Sampler {
    /// Reads from the trace where its objects lay.
    pub(crate) fn new(trace: &Trace) -> Sampler {
        let objects = objects(trace);
        Sampler { symbols: Symbols::new(objects.clone()), objects, tables: None }
    }

    /// None where the event is no sample.
    pub(crate) fn read(&mut self, event: &Event<'_>) -> Option<Sample> {
        let Some(Value::Duration(weight)) = field(event, "weight") else { return None };
        let kernel = field(event, "kernel") == Some(Value::Bool(true));
        let mut places = match event.kind.declared.id {
            STACK_ID => self.unwind(event),
            _ => words(event, "stack"),
        };
        for (depth, place) in places.iter_mut().enumerate() {
            *place = place.saturating_sub(u64::from(depth > 0 || kernel));
        }
        Some(Sample { weight, cpu: number(event, "cpu") as u32, kernel, places })
    }

    fn unwind(&mut self, event: &Event<'_>) -> Vec<u64> {
        let [pc, sp, fp] = ["pc", "sp", "fp"].map(|name| number(event, name));
        let memory = words(event, "memory");
        let tables = self.tables.get_or_insert_with(|| Tables::new(&self.objects));
        tables.unwind(&Copied { pc, sp, fp, memory: &memory })
    }

    /// The function that a return address leads back into, or its object in brackets; `None` if that is not known.
    pub(crate) fn caller(&mut self, address: u64) -> Option<&str> {
        // The call is what lies before: it may be the last instruction of a function that never returns.
        let place = address.saturating_sub(1);
        self.symbols.object(place).is_some().then(|| self.symbols.name(place))
    }

    /// The function at a place, or its object in brackets.
    pub(crate) fn name(&mut self, place: u64) -> &str {
        self.symbols.name(place)
    }

    /// The object at a place, with its position among all.
    pub(crate) fn object(&self, place: u64) -> Option<(usize, &Lies)> {
        self.symbols.object(place)
    }

    /// Objects that were needed and have no names, and why.
    pub(super) fn unnamed(&self) -> BTreeMap<String, String> {
        self.symbols.unnamed()
    }
}

/// Where objects lay: base, size, build id, path.
fn objects(trace: &Trace) -> Vec<Lies> {
    let is_module = |event: &EventType| event.is_own() && event.declared.id == MODULE_ID;
    let choice = Choice::of(trace.events().iter().map(is_module).collect());
    let mut reader: Reader<'_> = trace.reader_of(&choice);
    let mut found = Vec::new();
    while let Some(event) = reader.next_event() {
        let text = |name: &str| match field(&event, name) {
            Some(Value::Text(text)) => text.to_string_lossy().into_owned(),
            _ => String::new(),
        };
        let (base, size) = (number(&event, "base"), number(&event, "size"));
        found.push(Lies { base, size, build_id: text("build_id"), path: text("path") });
    }
    found
}

fn field<'e>(event: &'e Event<'_>, name: &str) -> Option<Value<'e>> {
    event.kind.field(name).and_then(|at| event.value(at))
}

fn number(event: &Event<'_>, name: &str) -> u64 {
    match field(event, name) {
        Some(Value::Uint(n)) => n,
        _ => 0,
    }
}

/// The numbers of a sequence.
fn words(event: &Event<'_>, name: &str) -> Vec<u64> {
    let Some(Value::Seq { kept, .. }) = field(event, name) else { return Vec::new() };
    let word = |value| match value {
        Value::Uint(word) => Some(word),
        _ => None,
    };
    kept.iter().filter_map(word).collect()
}
