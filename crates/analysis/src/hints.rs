//! What a trace cannot tell though one would expect it to, and what to do about that: a line each, for whoever shows it.

use crate::{EventType, Result, Trace, escape};
use gracepoint_wire::SIDECAR;

/// The field of a context with a stack.
pub(crate) const STACK: &str = "callstack";

/// Why stacks are hollow, where they are.
///
/// ```
/// use gracepoint_analysis::hints;
/// let line = hints::of_stacks("kv", Some(false)).unwrap();
/// assert!(line.starts_with("kv keeps no frame pointers") && line.contains("-C force-frame-pointers=yes"));
/// assert_eq!(hints::of_stacks("kv", None), None); // it does not say
/// ```
pub fn of_stacks(program: &str, frame_pointers: Option<bool>) -> Option<String> {
    (frame_pointers == Some(false)).then(|| {
        format!(
            "{} keeps no frame pointers, so its stacks are empty or end early: build it with \
             `-C force-frame-pointers=yes` (in RUSTFLAGS, or as build.rustflags in .cargo/config.toml)",
            escape::name(program)
        )
    })
}

/// Why the stacks of the events that `globs` name (of all where there are none) are hollow, if they have any.
///
/// # Errors
/// When a glob matches no event.
pub fn stacks(trace: &Trace, globs: &[String]) -> Result<Option<String>> {
    let Some(about) = trace.sidecar() else { return Ok(None) };
    let has_stack = |event: &EventType| {
        event.field(STACK).is_some() && (event.is_function() || !event.is_own())
    };
    let wanted = trace.select(globs)?;
    let hint = of_stacks(&about.program.name, about.program.frame_pointers);
    Ok(hint.filter(|_| any(trace, &wanted, has_stack)))
}

/// Why functions have no names, if there are any among the events that `globs` name (all where there are none).
///
/// # Errors
/// When a glob matches no event.
pub fn names(trace: &Trace, globs: &[String]) -> Result<Option<String>> {
    let wanted = trace.select(globs)?;
    if trace.sidecar().is_some() || !any(trace, &wanted, EventType::is_function) {
        return Ok(None);
    }
    Ok(Some(format!("functions have numbers for names: {}", without_sidecar(trace, "names them"))))
}

/// Why there are no samples to be had, where that is not because there are none.
pub fn samples(trace: &Trace) -> Option<String> {
    let missing = || format!("samples are not found: {}", without_sidecar(trace, "tells of them"));
    trace.sidecar().is_none().then(missing)
}

fn without_sidecar(trace: &Trace, what: &str) -> String {
    format!(
        "{SIDECAR}, which {what}, is not in {}; copy it there from where the trace was recorded (`cp -r DIR` takes it \
         along, `cp DIR/*` leaves hidden files behind)",
        escape::name(&trace.dir().display().to_string())
    )
}

fn any(trace: &Trace, wanted: &[bool], is_it: impl Fn(&EventType) -> bool) -> bool {
    trace.events().iter().zip(wanted).any(|(event, wanted)| *wanted && is_it(event))
}
