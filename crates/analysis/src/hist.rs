//! Histogram of a numeric field of one event, or of the length of a span.
//!
//! Buckets are log-linear: 32 to each power of two, taken straight from the bits of the value as an
//! `f64` (exponent and the five highest bits of the mantissa). So a percentile is at most 1/32 (3.2 %)
//! too high, integers below 64 are exact, and one scheme serves integers, floats and negatives.

mod buckets;
mod text;

pub use buckets::{Counts, Scalar};

use crate::filter::Choice;
use crate::read::{Event, Reader};
use crate::report::spell::push_value;
use crate::spans::Pairing;
use crate::trace::{EventType, ToNs};
use crate::{Damage, Error, Result, Trace, Value, escape};
use gracepoint_wire::glob;
use gracepoint_wire::schema::{Role, Type};
use serde::Serialize;
use std::collections::HashMap;

/// Groups that are told apart; values of further ones are counted under [`OTHER`].
const MOST_GROUPS: usize = 1000;
/// Longest name of a group, in bytes.
const LONGEST_KEY: usize = 200;
/// Name of the group of what belongs to no other.
pub const OTHER: &str = "(other)";

/// What to draw.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// Name of the event, `kv:get`; for a span without its suffix, `db:query`.
    pub event: String,
    /// Name of the field. `duration` of a span is its length; a field of that name is reached
    /// through the event's full name, `db:query:begin`.
    pub field: String,
    /// Name of a field by whose value to group; of a span, a field of its begin.
    pub by: Option<String>,
}

/// What was counted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hist {
    /// Name of the event, as asked for.
    pub event: String,
    /// Name of the field, as asked for.
    pub field: String,
    /// `ns` where the values are lengths of time, else empty.
    pub unit: &'static str,
    /// Name of the field that groups.
    pub by: Option<String>,
    /// Most values first; one without a key where nothing groups.
    pub groups: Vec<Group>,
    /// Values that are none: an option that is `None`, a float that is NaN.
    pub skipped: u64,
    /// Spans whose end, or begin, is not in the trace.
    pub unpaired: u64,
    /// What could not be read.
    pub damage: Vec<Damage>,
}

/// Values of one group.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Group {
    /// The group's value as a report spells it, escaped.
    pub key: Option<String>,
    /// Its values.
    #[serde(flatten)]
    pub counts: Counts,
}

/// Counts the values of a field.
///
/// ```
/// use gracepoint_analysis::hist::{Options, hist};
/// let trace = gracepoint_analysis::Trace::open("tests/kv.trace")?;
/// let options = Options {
///     event: "db:query".into(),
///     field: "duration".into(),
///     by: Some("table".into()),
/// };
/// let hist = hist(&trace, &options)?;
/// assert!(hist.to_text(80).contains("count 60  min 5ns"));
/// # Ok::<(), gracepoint_analysis::Error>(())
/// ```
///
/// # Errors
/// When the trace has no such event or field, or the field is not a number.
pub fn hist(trace: &Trace, options: &Options) -> Result<Hist> {
    let plan = plan(trace, options)?;
    let mut wanted = vec![false; trace.events().len()];
    let mut groups = Groups::default();
    let (mut skipped, mut unpaired) = (0, 0);
    let damage = match plan {
        Plan::Field { event, field, by } => {
            wanted[event] = true;
            let mut reader = trace.reader_of(&Choice::of(wanted));
            while let Some(event) = reader.next_event() {
                match event.value(field).and_then(Scalar::of) {
                    Some(value) => groups.counts(&event, by).add(value),
                    None => skipped += 1,
                }
            }
            reader.into_damage()
        }
        Plan::Span { begin, end, by } => {
            (wanted[begin], wanted[end]) = (true, true);
            let mut reader = trace.reader_of(&Choice::of(wanted));
            unpaired = pair(&mut reader, ToNs::new(trace.clock()), by, &mut groups);
            reader.into_damage()
        }
    };
    Ok(Hist {
        event: options.event.clone(),
        field: options.field.clone(),
        unit: if is_time(trace, &plan) { "ns" } else { "" },
        by: options.by.clone(),
        groups: groups.finish(),
        skipped,
        unpaired,
        damage,
    })
}

/// Counts the lengths of spans; says how many begins and ends stayed alone.
fn pair(reader: &mut Reader<'_>, to_ns: ToNs, by: Option<usize>, groups: &mut Groups) -> u64 {
    let mut pairing = Pairing::default();
    while let Some(event) = reader.next_event() {
        let span = event.kind.field("span").and_then(|index| event.value(index));
        let Some(Value::Uint(span)) = span else { continue };
        if event.kind.declared.role == Role::Begin {
            pairing.begin(span, (event.ticks, groups.index(&event, by)));
        } else if let Some((begin, group)) = pairing.end(span) {
            let ns = to_ns.length(event.ticks.saturating_sub(begin));
            groups.list[group].counts.add(Scalar::Whole(i128::from(ns)));
        }
    }
    pairing.open() + pairing.ends_alone()
}

/// Where the values come from: positions in the trace's events and in an event's fields.
#[derive(Debug, Clone, Copy)]
enum Plan {
    Field { event: usize, field: usize, by: Option<usize> },
    Span { begin: usize, end: usize, by: Option<usize> },
}

fn plan(trace: &Trace, options: &Options) -> Result<Plan> {
    let events = trace.events();
    let role = |role| {
        let fits =
            |e: &EventType| e.declared.role == role && e.declared.schema.name == options.event;
        events.iter().position(fits)
    };
    let named = events.iter().position(|e| e.name == options.event);
    if let Some(event) = named
        && let Some(field) = events[event].field(&options.field)
    {
        return field_plan(events, event, field, options);
    }
    if let (Some(begin), Some(end)) = (role(Role::Begin), role(Role::End)) {
        if options.field == "duration" {
            let by = group_field(&events[begin], options)?;
            return Ok(Plan::Span { begin, end, by });
        }
        if let Some(field) = events[begin].field(&options.field) {
            return field_plan(events, begin, field, options);
        }
    }
    match named.or(role(Role::Begin)) {
        Some(event) => Err(no_such_field(&events[event], &options.field)),
        None => Err(trace.no_such_event(&options.event)),
    }
}

fn field_plan(events: &[EventType], event: usize, field: usize, options: &Options) -> Result<Plan> {
    let ty = &events[event].fields[field].ty;
    if !is_number(ty) {
        return Err(Error::new(format!(
            "field `{}` of {} is of type {ty}, and a histogram needs numbers; to count its values, draw \
             another field by it",
            escape::name(&options.field),
            escape::name(&options.event)
        )));
    }
    Ok(Plan::Field { event, field, by: group_field(&events[event], options)? })
}

fn group_field(event: &EventType, options: &Options) -> Result<Option<usize>> {
    let find = |by: &String| event.field(by).ok_or_else(|| no_such_field(event, by));
    options.by.as_ref().map(find).transpose()
}

pub(crate) fn no_such_field(event: &EventType, field: &str) -> Error {
    let names: Vec<&str> = event.fields.iter().map(|f| f.name.as_str()).collect();
    let hint = match glob::near(field, names.iter().copied(), 1).first() {
        Some(near) => format!("did you mean {}?", escape::name(near)),
        None if names.is_empty() => "it has none".to_owned(),
        None => format!("it has {}", escape::name(&names.join(", "))),
    };
    let (event, field) = (escape::name(&event.name), escape::name(field));
    Error::new(format!("event {event} has no field `{field}`: {hint}"))
}

pub(crate) fn is_number(ty: &Type) -> bool {
    match ty {
        Type::Option(of) => is_number(of),
        Type::Duration | Type::Any => true,
        ty => ty.number_size().is_some(),
    }
}

fn is_time(trace: &Trace, plan: &Plan) -> bool {
    match *plan {
        Plan::Span { .. } => true,
        Plan::Field { event, field, .. } => match &trace.events()[event].fields[field].ty {
            Type::Option(of) => **of == Type::Duration,
            ty => *ty == Type::Duration,
        },
    }
}

/// Groups in the order in which they were met.
#[derive(Debug, Default)]
struct Groups {
    list: Vec<Group>,
    by_key: HashMap<String, usize>,
    /// For the key of the event at hand.
    text: Vec<u8>,
}

impl Groups {
    fn counts(&mut self, event: &Event<'_>, by: Option<usize>) -> &mut Counts {
        let index = self.index(event, by);
        &mut self.list[index].counts
    }

    /// Position of the group of `event`.
    fn index(&mut self, event: &Event<'_>, by: Option<usize>) -> usize {
        let Some(by) = by else {
            if self.list.is_empty() {
                self.list.push(Group { key: None, counts: Counts::default() });
            }
            return 0;
        };
        self.text.clear();
        match event.value(by) {
            Some(value) => push_value(&value, &mut self.text),
            None => self.text.extend_from_slice(OTHER.as_bytes()),
        }
        self.text.truncate(LONGEST_KEY);
        let mut key = String::from_utf8_lossy(&self.text);
        if let Some(&index) = self.by_key.get(&*key) {
            return index;
        }
        if self.by_key.len() >= MOST_GROUPS {
            key = OTHER.into();
            if let Some(&index) = self.by_key.get(OTHER) {
                return index;
            }
        }
        let index = self.list.len();
        self.list.push(Group { key: Some(key.to_string()), counts: Counts::default() });
        self.by_key.insert(key.into_owned(), index);
        index
    }

    fn finish(mut self) -> Vec<Group> {
        self.list.retain(|g| g.counts.count() > 0);
        self.list.sort_by_key(|g| std::cmp::Reverse(g.counts.count()));
        self.list
    }
}

impl Hist {
    /// One JSON object, indented.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// Bars and percentiles for people; `width` is the width of the terminal in columns.
    pub fn to_text(&self, width: usize) -> String {
        text::spell(self, width)
    }
}
