//! The macros in the places where people put them, in a crate that forbids unsafe code.
#![forbid(unsafe_code)]
#![deny(missing_docs, unused)]

use std::cell::Cell;
use std::time::Duration;

/// A look-up.
#[derive(gracepoint::Event)]
#[event(name = "test:get")]
pub struct Get<'a> {
    /// The key.
    pub key: &'a str,
    /// Found.
    pub hit: bool,
}

/// Nothing but a moment.
#[derive(gracepoint::Event)]
pub struct Tick;

mod inner {
    /// In a module.
    #[derive(gracepoint::Event)]
    pub(crate) struct Deep {
        /// A number.
        pub(crate) n: u8,
    }
}

/// Nothing in this program has the attribute, and it has no sleds.
#[test]
#[cfg(target_os = "linux")]
fn a_program_without_functions_to_trace_says_what_to_do() {
    let error = gracepoint::FunctionOps::new("*").register().expect_err("none");
    assert_eq!(error.kind(), gracepoint::ErrorKind::NoMatch);
    let text = "this program has no functions that can be traced: build it with `-Z instrument-xray`, or put \
                #[gracepoint::function] on them";
    assert_eq!(error.to_string(), text);
}

fn generic<T: AsRef<str>, const N: usize>(key: T) -> usize {
    gracepoint::trace!(Get { key: key.as_ref(), hit: N > 1 });
    key.as_ref().len() + N
}

thread_local!(static EVALUATED: Cell<u32> = const { Cell::new(0) });

fn evaluated(n: u8) -> u8 {
    EVALUATED.set(EVALUATED.get() + 1);
    n
}

#[test]
fn fields_are_not_evaluated_while_off() {
    for n in 0..100 {
        gracepoint::trace!(inner::Deep { n: evaluated(n) });
        gracepoint::trace!(self::inner::Deep { n: evaluated(n) });
        let _span = gracepoint::span!(inner::Deep { n: evaluated(n) });
    }
    assert_eq!(EVALUATED.get(), 0);
}

#[test]
fn they_work_in_generics_closures_and_where_control_flow_leaves() {
    assert_eq!(generic::<_, 2>("abc") + generic::<_, 1>(String::from("d")), 7);
    let close = |key: &str| {
        gracepoint::trace!(Get { key, hit: true });
        gracepoint::trace!(Tick);
        gracepoint::trace!(Tick {});
        key.len()
    };
    assert_eq!(close("four"), 4);
    fn fallible(input: &str) -> Result<u8, std::num::ParseIntError> {
        gracepoint::trace!(inner::Deep { n: input.parse()? });
        Ok(1)
    }
    // Off, the expression is not evaluated, so its error does not occur.
    assert_eq!(fallible("not a number"), Ok(1));
    match close("four") {
        4 => gracepoint::trace!(Tick),
        _ => unreachable!(),
    }
}

#[test]
fn a_span_that_is_off_has_no_id_and_may_change_threads() {
    let span = gracepoint::span!(Get { key: "k", hit: false });
    assert_eq!(span.id(), None);
    std::thread::spawn(move || drop(span)).join().expect("joined");
    fn is_send<T: Send + Sync>() {}
    is_send::<gracepoint::Span>();
}

#[test]
fn durations_and_names_are_described() {
    let desc = <Get<'_> as gracepoint::Event>::DESC;
    assert_eq!(desc.name(), "test:get");
    assert_eq!(desc.docs, "A look-up.");
    assert_eq!(<Tick as gracepoint::Event>::DESC.name(), "macros:tick");
    let ty = <Duration as gracepoint::Field>::TYPE;
    assert_eq!(ty.to_wire().to_string(), "ns");
}
