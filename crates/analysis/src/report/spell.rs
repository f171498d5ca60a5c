//! Spells one event as a line. Names are escaped once per kind of event; a line allocates nothing
//! but what the buffer grows by.

use super::{Format, Time};
use crate::escape::{self, push_hex, push_json, push_name, push_text};
use crate::hints::STACK;
use crate::profile::Sampler;
use crate::read::Event;
use crate::sidecar::FunctionEntry;
use crate::trace::tells_of_event;
use crate::value::{Numbers, Text};
use crate::{Trace, Value};
use std::collections::HashMap;
use std::io::Write;

/// Spells events of one trace.
///
/// ```
/// use gracepoint_analysis::report::{Format, Lines, Time};
/// let trace = gracepoint_analysis::Trace::open("tests/kv.trace")?;
/// let mut lines = Lines::new(&trace, Format::Text, Time::Relative);
/// let mut reader = trace.reader();
/// let mut text = Vec::new();
/// while let Some(event) = reader.next_event() {
///     lines.push(&event, &mut text);
/// }
/// assert!(text.starts_with(b"0.000000000 (+?.?????????) t0/100 kv:get: { key = "));
/// # Ok::<(), gracepoint_analysis::Error>(())
/// ```
#[derive(Debug)]
pub struct Lines {
    format: Format,
    time: Time,
    labels: Vec<Label>,
    /// Names of functions, and of events, by the numbers that records have for them.
    functions: HashMap<u64, String>,
    events: HashMap<u64, String>,
    /// Names for return addresses, if they are asked for.
    symbols: Option<Sampler>,
    first_ns: Option<u64>,
    previous_ns: u64,
    /// The second that `clock` spells, and what it spells, up to the point.
    second: u64,
    clock: Vec<u8>,
}

/// What is always the same in the lines of one kind of event, in as few pieces as there can be.
#[derive(Debug)]
struct Label {
    /// Before the first value, or all where there is none: `name: {` or `,"name":"name","tid":`.
    head: Vec<u8>,
    /// Before each value: ` key = ` and `, key = `, or `"key":` and `,"key":`.
    keys: Vec<Vec<u8>>,
    /// Which fields are masked where they are nothing.
    sensitive: Vec<bool>,
    /// Which field is a number that has a name.
    named: Option<(usize, Named)>,
    /// Which field is a stack.
    stack: Option<usize>,
}

#[derive(Debug, Clone, Copy)]
enum Named {
    Function,
    /// An event of the trace, in a record of the tracer's own about it.
    Event,
}

impl Lines {
    /// Prepares for the events of `trace`.
    pub fn new(trace: &Trace, format: Format, time: Time) -> Lines {
        let label = |event: &crate::EventType| {
            let spell = |before: &str, name: &str, after: &str| {
                let mut out = before.as_bytes().to_vec();
                match format {
                    Format::Text => push_name(&mut out, name),
                    Format::JsonLines => push_json(&mut out, name),
                }
                out.extend_from_slice(after.as_bytes());
                out
            };
            let (first, next, after) = match format {
                Format::Text => (" ", ", ", " = "),
                Format::JsonLines => ("", ",", ":"),
            };
            let before = std::iter::once(first).chain(std::iter::repeat(next));
            let fields = event.fields.iter().zip(before);
            Label {
                head: match format {
                    Format::Text => spell(" ", &event.name, ": {"),
                    Format::JsonLines => spell(",\"name\":", &event.name, ",\"tid\":"),
                },
                named: match event.is_function() {
                    true => event.field("function").map(|at| (at, Named::Function)),
                    false if tells_of_event(event) => {
                        event.field("id").map(|at| (at, Named::Event))
                    }
                    false => None,
                },
                stack: event.field(STACK),
                sensitive: event.fields.iter().map(|f| f.is_sensitive()).collect(),
                keys: fields.map(|(f, before)| spell(before, &f.name, after)).collect(),
            }
        };
        let labels = trace.events().iter().map(label).collect();
        let told = trace.sidecar().map_or(&[][..], |sidecar| &sidecar.functions);
        let named = |entry: &FunctionEntry| (u64::from(entry.id), entry.name.clone());
        let functions = told.iter().map(named).collect();
        let kinds = trace.events().iter();
        let events = kinds.map(|kind| (u64::from(kind.declared.id), kind.name.clone())).collect();
        Lines {
            format,
            time,
            labels,
            functions,
            events,
            symbols: None,
            first_ns: None,
            previous_ns: 0,
            second: u64::MAX,
            clock: Vec::new(),
        }
    }

    /// From now on tells the functions of stacks, where the objects that the trace tells of are still there. In text they
    /// stand for the addresses, in JSON as `frames` beside the fields.
    ///
    /// Reads where objects lay, and their symbol tables when they are first needed.
    pub fn with_symbols(mut self, trace: &Trace) -> Lines {
        if self.labels.iter().any(|label| label.stack.is_some()) {
            self.symbols = Some(Sampler::new(trace));
        }
        self
    }

    /// Goes on where `before` has come to: times are told since its first event, and since its last one.
    ///
    /// ```
    /// use gracepoint_analysis::report::{Format, Lines, Time};
    /// let trace = gracepoint_analysis::Trace::open("tests/kv.trace")?;
    /// let mut reader = trace.reader();
    /// let new = || Lines::new(&trace, Format::Text, Time::Relative);
    /// let (mut lines, mut text) = (new(), Vec::new());
    /// while let Some(event) = reader.next_event() {
    ///     lines.push(&event, &mut text);
    ///     lines = new().after(&lines);
    /// }
    /// let text = String::from_utf8_lossy(&text);
    /// assert_eq!(text.lines().filter(|line| line.contains("(+?")).count(), 1);
    /// # Ok::<(), gracepoint_analysis::Error>(())
    /// ```
    #[must_use]
    pub fn after(mut self, before: &Lines) -> Lines {
        (self.first_ns, self.previous_ns) = (before.first_ns, before.previous_ns);
        self
    }

    /// The name of what this field's number stands for.
    fn name_of(&self, label: &Label, field: usize, value: &Value<'_>) -> Option<&str> {
        let (_, of) = label.named.filter(|(at, _)| *at == field)?;
        let Value::Uint(number) = value else { return None };
        let names = match of {
            Named::Function => &self.functions,
            Named::Event => &self.events,
        };
        names.get(number).map(String::as_str)
    }

    /// Appends the line of `event`, line feed included. The event must be of the trace that this
    /// was made for.
    pub fn push(&mut self, event: &Event<'_>, out: &mut Vec<u8>) {
        match self.format {
            Format::Text => self.push_text_line(event, out),
            Format::JsonLines => self.push_json_line(event, out),
        }
    }

    fn push_text_line(&mut self, event: &Event<'_>, out: &mut Vec<u8>) {
        self.push_time(event.ns, out);
        match self.first_ns.is_some() {
            true if event.ns < self.previous_ns => {
                out.extend_from_slice(b" (-");
                push_seconds(self.previous_ns - event.ns, out);
            }
            true if event.ns - self.previous_ns < 1_000_000_000 => {
                out.extend_from_slice(b" (+0.");
                push_nanos(event.ns - self.previous_ns, out);
            }
            true => {
                out.extend_from_slice(b" (+");
                push_seconds(event.ns - self.previous_ns, out);
            }
            false => out.extend_from_slice(b" (+?.?????????"),
        }
        self.first_ns.get_or_insert(event.ns);
        self.previous_ns = event.ns;
        out.extend_from_slice(event.who);
        self.push_told(event, out);
        out.push(b'\n');
    }

    /// Appends what a line of text tells of an event beside its time and thread, with a space before: ` name: { a = 1 }`.
    pub(crate) fn push_told(&mut self, event: &Event<'_>, out: &mut Vec<u8>) {
        let mut symbols = self.symbols.take();
        self.push_text_fields(event, &mut symbols, out);
        self.symbols = symbols;
    }

    fn push_text_fields(
        &self,
        event: &Event<'_>,
        symbols: &mut Option<Sampler>,
        out: &mut Vec<u8>,
    ) {
        let Some(label) = self.labels.get(event.index as usize) else { return };
        out.extend_from_slice(&label.head);
        let mut rest = event.payload;
        for (i, key) in label.keys.iter().enumerate() {
            let Some((value, n)) = event.kind.plan.decode(i, rest) else { break };
            rest = rest.get(n..).unwrap_or_default();
            out.extend_from_slice(key);
            match (&value, self.name_of(label, i, &value)) {
                (Value::None, _) if label.sensitive[i] => out.extend_from_slice(b"***"),
                (_, Some(name)) => push_name(out, name),
                (Value::Seq { kept, .. }, _) if label.stack == Some(i) => {
                    // That of a function begins with it, which may be one of ours.
                    let whole = matches!(label.named, Some((_, Named::Function)));
                    push_stack(*kept, whole, symbols, out)
                }
                (value, None) => push_value(value, out),
            }
        }
        out.extend_from_slice(if label.keys.is_empty() { b"}" } else { b" }" });
    }

    fn push_time(&mut self, ns: u64, out: &mut Vec<u8>) {
        if self.time == Time::Relative {
            let first = self.first_ns.unwrap_or(ns);
            if ns < first {
                out.push(b'-');
            }
            return push_seconds(ns.abs_diff(first), out);
        }
        let second = ns / 1_000_000_000;
        if second != self.second {
            self.second = second;
            self.clock.clear();
            if self.time == Time::UtcDate {
                push_date(second / 86_400, &mut self.clock);
                self.clock.push(b' ');
            }
            let (h, m, s) = (second / 3600 % 24, second / 60 % 60, second % 60);
            let _ = write!(self.clock, "{h:02}:{m:02}:{s:02}.");
        }
        out.extend_from_slice(&self.clock);
        push_nanos(ns % 1_000_000_000, out);
    }

    fn push_json_line(&mut self, event: &Event<'_>, out: &mut Vec<u8>) {
        let mut symbols = self.symbols.take();
        self.push_json_fields(event, &mut symbols, out);
        self.symbols = symbols;
    }

    fn push_json_fields(
        &self,
        event: &Event<'_>,
        symbols: &mut Option<Sampler>,
        out: &mut Vec<u8>,
    ) {
        let Some(label) = self.labels.get(event.index as usize) else { return };
        let mut stack = None;
        out.extend_from_slice(b"{\"ts_ns\":");
        push_int(event.ns, out);
        out.extend_from_slice(&label.head);
        push_int(event.tid, out);
        out.extend_from_slice(b",\"thread\":");
        push_json(out, event.thread);
        out.extend_from_slice(b",\"fields\":{");
        let mut rest = event.payload;
        for (i, key) in label.keys.iter().enumerate() {
            let Some((value, n)) = event.kind.plan.decode(i, rest) else { break };
            rest = rest.get(n..).unwrap_or_default();
            out.extend_from_slice(key);
            match self.name_of(label, i, &value) {
                Some(name) => push_json(out, name),
                None => push_json_value(&value, out),
            }
            if let (Value::Seq { kept, .. }, true) = (value, label.stack == Some(i)) {
                stack = Some(kept);
            }
        }
        out.push(b'}');
        if let (Some(stack), Some(symbols)) = (stack, symbols) {
            out.extend_from_slice(b",\"frames\":[");
            for (i, value) in stack.iter().enumerate() {
                out.extend_from_slice(if i > 0 { b"," } else { b"" });
                match value {
                    Value::Uint(address) => match symbols.caller(address) {
                        Some(name) => push_json(out, name),
                        None => out.extend_from_slice(b"null"),
                    },
                    _ => out.extend_from_slice(b"null"),
                }
            }
            out.push(b']');
        }
        out.extend_from_slice(b"}\n");
    }
}

fn push_int(n: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

/// `12.000000034`
fn push_seconds(ns: u64, out: &mut Vec<u8>) {
    push_int(ns / 1_000_000_000, out);
    out.push(b'.');
    push_nanos(ns % 1_000_000_000, out);
}

/// Nine digits: those of a number with a one before them, without the one.
fn push_nanos(ns: u64, out: &mut Vec<u8>) {
    let mut buffer = itoa::Buffer::new();
    out.extend_from_slice(&buffer.format(1_000_000_000 + ns as u32).as_bytes()[1..]);
}

/// `2026-02-28`; the Gregorian calendar from 1970 on, in eras of 400 years that begin in March.
pub(crate) fn push_date(days: u64, out: &mut Vec<u8>) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let _ = write!(out, "{:04}-{month:02}-{day:02}", era * 400 + year + next);
}

/// A length of time in the unit that suits it, exact: `1.2us`.
pub(crate) fn push_duration(ns: u64, out: &mut Vec<u8>) {
    // Divisors that are constants cost a tenth of others.
    let (whole, rest, unit): (u64, u64, &[u8]) = match ns {
        0..1_000 => (ns, 0, b"ns"),
        1_000..1_000_000 => (ns / 1_000, ns % 1_000 * 1_000_000, b"us"),
        1_000_000..1_000_000_000 => (ns / 1_000_000, ns % 1_000_000 * 1_000, b"ms"),
        _ => (ns / 1_000_000_000, ns % 1_000_000_000, b"s"),
    };
    push_int(whole, out);
    if rest > 0 {
        out.push(b'.');
        push_nanos(rest, out);
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
    out.extend_from_slice(unit);
}

/// A value for people. By reference: a value that is moved right after it was made waits for the
/// narrow stores that made it, a fifth of the time of a report.
#[inline]
pub(crate) fn push_value(value: &Value<'_>, out: &mut Vec<u8>) {
    match *value {
        Value::Uint(n) => push_int(n, out),
        Value::Int(n) => push_int(n, out),
        Value::Wide(n) => push_int(n, out),
        Value::WideInt(n) => push_int(n, out),
        Value::Float32(n) => drop(write!(out, "{n:?}")),
        Value::Float(n) => drop(write!(out, "{n:?}")),
        Value::Bool(b) => out.extend_from_slice(if b { b"true" } else { b"false" }),
        Value::Char(c) => {
            out.push(b'\'');
            match c {
                '\'' => out.extend_from_slice(b"\\'"),
                '"' => out.push(b'"'),
                c => push_text(out, c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
            out.push(b'\'');
        }
        Value::Text(text) => {
            out.push(b'"');
            match escape::is_plain_text(text.0) {
                true => out.extend_from_slice(text.0),
                false => push_text(out, &text.bytes()),
            }
            out.push(b'"');
        }
        Value::Duration(ns) => push_duration(ns, out),
        Value::Seq { total, kept } => {
            let beyond = (total as usize).saturating_sub(kept.len());
            push_list(kept, beyond, out);
        }
        Value::Array(numbers) => push_list(numbers, 0, out),
        Value::None => out.extend_from_slice(b"none"),
        Value::Enum(Some(name), _) => push_name(out, name),
        Value::Enum(None, n) => push_int(n, out),
    }
}

/// `[kv::get, main, 0x7f12]`; without what leads from an event to its record, unless `whole`.
fn push_stack(
    addresses: Numbers<'_>,
    whole: bool,
    symbols: &mut Option<Sampler>,
    out: &mut Vec<u8>,
) {
    let ours = |value: &Value<'_>| match (value, symbols.as_mut()) {
        (Value::Uint(address), Some(symbols)) => symbols.caller(*address).is_some_and(is_ours),
        _ => false,
    };
    let left_out = if whole { 0 } else { addresses.iter().take_while(ours).count() };
    out.push(b'[');
    for (i, value) in addresses.iter().skip(left_out).enumerate() {
        out.extend_from_slice(if i > 0 { b", " } else { b"" });
        let Value::Uint(address) = value else { continue };
        match symbols.as_mut().and_then(|symbols| symbols.caller(address)) {
            Some(name) => out.extend_from_slice(name.as_bytes()),
            None => drop(write!(out, "{address:#x}")),
        }
    }
    out.push(b']');
}

/// Is a function with this name one of those that lead from an event to its record?
fn is_ours(name: &str) -> bool {
    let plain = name.trim_start_matches('<');
    plain.starts_with("gracepoint::")
        || plain.starts_with("gracepoint_tracing::")
        || name.contains(" as gracepoint::event::Event>::emit")
}

/// `[1, 2, … 3 more]`
fn push_list(numbers: Numbers<'_>, beyond: usize, out: &mut Vec<u8>) {
    out.push(b'[');
    for (i, value) in numbers.iter().enumerate() {
        if i > 0 {
            out.extend_from_slice(b", ");
        }
        push_value(&value, out);
    }
    if beyond > 0 {
        let comma = if numbers.is_empty() { "" } else { ", " };
        let _ = write!(out, "{comma}... {beyond} more");
    }
    out.push(b']');
}

#[inline]
pub(crate) fn push_json_value(value: &Value<'_>, out: &mut Vec<u8>) {
    match *value {
        Value::Float32(n) if !n.is_finite() => drop(write!(out, "\"{n}\"")),
        Value::Float(n) if !n.is_finite() => drop(write!(out, "\"{n}\"")),
        Value::Char(c) => push_json(out, c.encode_utf8(&mut [0; 4])),
        Value::Text(text) => push_json_text(text, out),
        Value::Duration(ns) => push_int(ns, out),
        Value::Seq { total, kept } if total as usize > kept.len() => {
            let _ = write!(out, "{{\"total\":{total},\"kept\":");
            push_json_list(kept, out);
            out.push(b'}');
        }
        Value::Seq { kept: numbers, .. } | Value::Array(numbers) => push_json_list(numbers, out),
        Value::None => out.extend_from_slice(b"null"),
        Value::Enum(Some(name), _) => push_json(out, name),
        // Numbers and truth values are spelled alike.
        _ => push_value(value, out),
    }
}

fn push_json_list(numbers: Numbers<'_>, out: &mut Vec<u8>) {
    out.push(b'[');
    for (i, value) in numbers.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        push_json_value(&value, out);
    }
    out.push(b']');
}

fn push_json_text(text: Text<'_>, out: &mut Vec<u8>) {
    if escape::is_plain_text(text.0) {
        out.push(b'"');
        out.extend_from_slice(text.0);
        return out.push(b'"');
    }
    let bytes = text.bytes();
    if let Ok(text) = std::str::from_utf8(&bytes) {
        return push_json(out, text);
    }
    out.extend_from_slice(b"{\"lossy\":");
    push_json(out, &String::from_utf8_lossy(&bytes));
    out.extend_from_slice(b",\"hex\":\"");
    push_hex(out, &bytes);
    out.extend_from_slice(b"\"}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(push: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        push(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn durations_are_exact() {
        for (ns, want) in [
            (0, "0ns"),
            (999, "999ns"),
            (1_000, "1us"),
            (1_200, "1.2us"),
            (1_000_001, "1.000001ms"),
            (90_000_000_000, "90s"),
            (u64::MAX, "18446744073.709551615s"),
        ] {
            assert_eq!(spelled(|out| push_duration(ns, out)), want);
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (days, want) in [
            (0, "1970-01-01"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (20_512, "2026-02-28"),
            (213_503, "2554-07-21"),
        ] {
            assert_eq!(spelled(|out| push_date(days, out)), want);
        }
    }

    #[test]
    fn json_of_odd_values() {
        for (value, want) in [
            (Value::Float(f64::NAN), "\"NaN\""),
            (Value::Float(f64::NEG_INFINITY), "\"-inf\""),
            (Value::Float(1e300), "1e300"),
            (Value::Float32(0.1), "0.1"),
            (Value::Wide(u128::MAX), "340282366920938463463374607431768211455"),
            (Value::Text(Text(b"a\xC0\x80b")), "\"a\\u0000b\""),
            (Value::Text(Text(b"a\xff")), "{\"lossy\":\"a\u{fffd}\",\"hex\":\"61ff\"}"),
            (Value::Char('"'), "\"\\\"\""),
            (Value::Enum(None, 7), "7"),
        ] {
            assert_eq!(spelled(|out| push_json_value(&value, out)), want);
        }
    }
}
