//! `#[gracepoint::function]`: what is listed, what operations see of it, and what it leaves as it was.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]

use gracepoint::testing::capture;
use gracepoint::{ErrorKind, FunctionFilter, FunctionOps, StaticFunctionOps};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

mod store {
    #[derive(Debug)]
    pub(crate) struct Store<T>(pub(crate) Vec<T>);

    #[gracepoint::functions]
    impl<T: Clone> Store<T> {
        pub(crate) const fn new() -> Self {
            Store(Vec::new())
        }

        pub(crate) fn put(&mut self, value: T) -> usize {
            self.0.push(value);
            self.len()
        }

        #[function(skip)]
        pub(crate) fn len(&self) -> usize {
            self.0.len()
        }

        #[gracepoint::function(ret = debug)]
        pub(crate) fn first(&self) -> Option<&'static str>
        where
            T: Into<u64>,
        {
            let first = self.0.first()?.clone().into();
            if first > 1 {
                return Some("large");
            }
            Some("small")
        }
    }

    #[gracepoint::function(args(id, name, rest = debug), err)]
    pub(crate) fn find<'a>(
        id: u64,
        name: &'a str,
        rest: &[u8],
    ) -> Result<&'a str, std::num::ParseIntError> {
        let number: u64 = name.parse()?;
        Ok(if number == id + rest.len() as u64 { name } else { "" })
    }

    #[gracepoint::function]
    pub(crate) fn generic<T: Default>() -> T {
        T::default()
    }

    #[gracepoint::function]
    pub(crate) fn panics() {
        panic!("as it should");
    }

    #[gracepoint::functions]
    pub(crate) mod inner {
        pub(crate) fn one() -> u32 {
            1
        }
        pub(crate) mod deeper {
            pub(crate) fn two() -> u32 {
                2
            }
        }
    }
}

/// What operations saw.
fn seen(filter: &str, body: impl FnOnce()) -> Vec<String> {
    let log = Arc::new(Mutex::new(Vec::new()));
    let [entries, exits] = [Arc::clone(&log), Arc::clone(&log)];
    let ops = FunctionOps::new(filter)
        .with_depth()
        .on_entry(move |call| entries.lock().unwrap().push((call.id(), call.depth(), "begins")))
        .on_exit(move |call| exits.lock().unwrap().push((call.id(), call.depth(), "ends")))
        .register()
        .expect("sites can be switched here");
    body();
    drop(ops);
    let log = log.lock().unwrap().clone();
    let name = |id| gracepoint::function_name(id).expect("it has the attribute");
    let word = |(id, depth, what): (u32, Option<u32>, &str)| {
        format!("{} {} {what}", depth.expect("noted"), name(id))
    };
    log.into_iter().map(word).collect()
}

#[test]
fn calls_are_seen_with_their_depth_and_values_are_as_they_were() {
    let seen = seen("attribute::store::*", || {
        let mut store = store::Store::new();
        assert_eq!(store.put(3_u32), 1);
        assert_eq!(store.first(), Some("large"));
        assert_eq!(store::find(3, "4", &[9]).unwrap(), "4");
        assert!(store::find(3, "x", &[]).is_err());
        assert_eq!((store::generic::<u8>(), store::generic::<String>()), (0, String::new()));
        assert_eq!(store::inner::one() + store::inner::deeper::two(), 3);
        assert!(std::panic::catch_unwind(store::panics).is_err());
        assert_eq!(store.0, [3]);
    });
    let expected = [
        "attribute::store::Store<_>::put",
        "attribute::store::Store<_>::first",
        "attribute::store::find",
        "attribute::store::find",
        "attribute::store::generic",
        "attribute::store::generic",
        "attribute::store::inner::one",
        "attribute::store::inner::deeper::two",
        "attribute::store::panics",
    ];
    let expected: Vec<String> = expected
        .iter()
        .flat_map(|name| ["begins", "ends"].map(|what| format!("0 {name} {what}")))
        .collect();
    assert_eq!(seen, expected);
}

#[gracepoint::function]
async fn slow(turns: u32) -> u32 {
    let mut left = turns;
    std::future::poll_fn(|_| {
        left = left.saturating_sub(1);
        if left == 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    turns
}

#[test]
fn each_poll_of_a_future_is_a_slice() {
    let mut future = std::pin::pin!(slow(3));
    let seen = seen("attribute::slow", || {
        let mut context = Context::from_waker(Waker::noop());
        while future.as_mut().poll(&mut context).is_pending() {}
    });
    let slice = ["0 attribute::slow begins", "0 attribute::slow ends"];
    assert_eq!(seen, [slice; 3].concat());
}

#[gracepoint::function(args(id, name = display, rest = debug), ret)]
fn load(id: u32, name: &str, rest: Option<&[u8]>) -> u64 {
    u64::from(id) + name.len() as u64 + rest.map_or(0, |rest| rest.len() as u64)
}

#[gracepoint::function(args(limit), err = debug)]
async fn fetch(limit: u32) -> Result<u32, String> {
    std::future::ready(()).await;
    if limit > 9 { Err(format!("{limit} is too much")) } else { Ok(limit) }
}

#[gracepoint::function(ret = debug)]
fn early(n: u32) -> Option<u32> {
    if n == 0 {
        return None;
    }
    Some(n - 1)
}

fn polled<F: Future>(future: F) -> F::Output {
    let mut context = Context::from_waker(Waker::noop());
    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}

#[test]
fn arguments_and_results_are_events() {
    let captured = capture();
    assert_eq!(load(7, "ab", Some(&[1, 2, 3])), 12);
    assert_eq!((early(0), early(5)), (None, Some(4)));
    assert!(store::find(1, "x", &[]).is_err());
    assert_eq!(store::find(3, "4", &[9]), Ok("4"));
    let args = captured.one("attribute:load_args");
    assert_eq!((args.get::<u32>("id"), args.get::<String>("name")), (7, "ab".into()));
    assert_eq!(args.get::<String>("rest"), "Some([1, 2, 3])");
    assert_eq!(captured.one("attribute:load_return").get::<u64>("value"), 12);
    let values: Vec<String> = captured
        .matching("attribute:early_return")
        .iter()
        .map(|event| event.get("value"))
        .collect();
    assert_eq!(values, ["None", "Some(4)"]);
    assert_eq!(captured.count("attribute.store:find_args"), 2);
    let error = captured.one("attribute.store:find_return");
    assert_eq!(error.get::<String>("error"), "invalid digit found in string");
}

#[test]
fn an_async_function_has_a_span_and_arguments() {
    let captured = capture();
    assert_eq!(polled(fetch(3)), Ok(3));
    assert_eq!(captured.count("attribute:fetch_return"), 0, "there was no error");
    captured.clear();
    assert!(polled(fetch(10)).is_err());
    let names: Vec<String> = captured.events().iter().map(|event| event.name.to_string()).collect();
    assert_eq!(
        names,
        ["attribute:fetch_args", "attribute:fetch", "attribute:fetch_return", "attribute:fetch"]
    );
    assert_eq!(captured.one("attribute:fetch_args").get::<u32>("limit"), 10);
    let error = captured.one("attribute:fetch_return").get::<String>("error");
    assert_eq!(error, "\"10 is too much\"");
    let [begin, end] = captured.matching("attribute:fetch").try_into().unwrap();
    assert!(begin.span.is_some() && begin.span == end.span);
    // One that is dropped before its end ends there.
    captured.clear();
    {
        let mut future = std::pin::pin!(slow(3));
        assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(captured.count("attribute:slow"), 1);
    }
    assert_eq!(captured.count("attribute:slow"), 2);
}

/// Closures, and parts of functions.
fn blocks(numbers: &[&str]) -> Result<u32, std::num::ParseIntError> {
    let parse = |text: &&str| gracepoint::function_block!("parse", { text.parse::<u32>() });
    let mut sum = 0;
    for number in numbers {
        sum += gracepoint::function_block!("each", {
            if number.is_empty() {
                continue;
            }
            parse(number)?
        });
    }
    Ok(sum)
}

#[test]
fn blocks_are_traced_as_functions_are() {
    let seen = seen("attribute::blocks::*", || {
        assert_eq!(blocks(&["1", "", "2"]), Ok(3));
        assert!(blocks(&["x", "1"]).is_err());
    });
    let each = |inner: bool| {
        let [each, parse] = ["each", "parse"].map(|name| format!("attribute::blocks::{name}"));
        let parse = [format!("1 {parse} begins"), format!("1 {parse} ends")];
        let mut all = vec![format!("0 {each} begins")];
        all.extend(parse.into_iter().filter(|_| inner));
        all.push(format!("0 {each} ends"));
        all
    };
    assert_eq!(seen, [each(true), each(false), each(true), each(true)].concat());
}

/// What macros that rewrite a body get wrong.
mod shapes {
    use std::fmt::Debug;
    use std::panic::Location;
    use std::pin::Pin;

    pub(crate) struct Shape {
        pub(crate) x: u32,
        pub(crate) text: String,
    }

    pub(crate) trait Area {
        #[gracepoint::function]
        fn doubled(&self) -> u32 {
            self.area() * 2
        }
        fn area(&self) -> u32;
        fn named<T: Debug>(&self, name: T) -> String;
    }

    #[gracepoint::functions]
    impl Area for Shape {
        fn area(&self) -> u32 {
            self.x
        }
        fn named<T: Debug>(&self, name: T) -> String {
            format!("{name:?} {}", self.x)
        }
    }

    impl Shape {
        #[gracepoint::function(ret = debug)]
        pub(crate) fn longer<'a>(&'a mut self, other: &'a mut u32, own: bool) -> &'a mut u32 {
            if own {
                return &mut self.x;
            }
            other
        }

        #[gracepoint::function(err)]
        pub(crate) fn text_mut(&mut self) -> Result<&mut String, std::fmt::Error> {
            Ok(&mut self.text)
        }

        #[gracepoint::function(ret = debug)]
        pub(crate) fn letters(&self) -> impl Iterator<Item = char> + Debug {
            self.text.chars()
        }

        #[gracepoint::function(args(n), ret = debug)]
        pub(crate) async fn grown(&mut self, n: u32) -> &mut u32 {
            std::future::ready(()).await;
            self.x += n;
            &mut self.x
        }

        #[gracepoint::function(ret = debug)]
        pub(crate) fn pinned(self: Pin<&mut Self>) -> u32 {
            self.x
        }

        #[gracepoint::function(err = debug)]
        pub(crate) fn sum(self, text: &str) -> Result<u32, Box<dyn std::error::Error>> {
            let y: u32 = text.parse()?;
            Ok(self.x + y)
        }
    }

    #[gracepoint::function(args(x = debug, n), ret)]
    pub(crate) fn patterns(x: impl Debug, (a, b): (u32, u32), mut n: u32) -> u32 {
        n += a + b;
        let _ = x;
        n
    }

    #[gracepoint::function(ret = debug)]
    pub(crate) fn same<const N: usize>(numbers: [u8; N]) -> [u8; N] {
        numbers
    }

    #[gracepoint::function(ret = debug)]
    pub(crate) async fn asked<F: AsyncFn(u32) -> u32>(f: F) -> u32 {
        f(3).await
    }

    #[gracepoint::function(ret)]
    pub(crate) fn deep(n: u32) -> u32 {
        if n == 0 { 0 } else { deep(n - 1) + 1 }
    }

    #[gracepoint::function]
    pub(crate) fn never() -> ! {
        std::panic::resume_unwind(Box::new(7_u32))
    }

    #[gracepoint::function]
    #[track_caller]
    pub(crate) fn line() -> u32 {
        Location::caller().line()
    }
}

/// Once off and once on.
#[test]
fn functions_of_every_shape_do_what_they_did() {
    use shapes::{Area, Shape};
    let all = || {
        let mut shape = Shape { x: 1, text: "ab".into() };
        let mut other = 5;
        *shape.longer(&mut other, true) += 1;
        *shape.longer(&mut other, false) += 1;
        shape.text_mut().unwrap().push('c');
        assert_eq!((shape.x, other, shape.letters().collect::<String>()), (2, 6, "abc".into()));
        assert_eq!(*polled(shape.grown(3)), 5);
        assert_eq!((shape.doubled(), shape.named("n")), (10, "\"n\" 5".into()));
        assert_eq!(std::pin::Pin::new(&mut shape).pinned(), 5);
        assert_eq!(shape.sum("7").unwrap(), 12);
        assert_eq!(shapes::patterns("x", (1, 2), 3), 6);
        assert_eq!(shapes::same([1, 2, 3]), [1, 2, 3]);
        assert_eq!(polled(shapes::asked(async |n| n + 1)), 4);
        assert_eq!((shapes::deep(5), shapes::line()), (5, line!()));
        assert!(std::panic::catch_unwind(|| -> () { shapes::never() }).is_err());
    };
    all();
    let captured = capture();
    // 21 calls are made: one of them twice in `all`, one by another, five by itself.
    assert_eq!(seen("*attribute::shapes::*", all).len(), 2 * 21);
    assert_eq!(captured.count("attribute.shapes:deep_return"), 6);
    assert_eq!(captured.matching("attribute.shapes:longer_return").len(), 2);
}

#[gracepoint::function]
fn changes(change: impl FnOnce()) {
    change();
}

/// At each end the code itself says whether it is on.
#[test]
fn a_call_under_way_ends_when_it_is_switched_on_and_does_not_when_off() {
    let [entries, exits] = [(); 2].map(|()| Arc::new(AtomicU32::new(0)));
    let [begun, ended] = [&entries, &exits].map(Arc::clone);
    let ops = FunctionOps::new("attribute::changes")
        .with_depth()
        .on_entry(move |_| _ = begun.fetch_add(1, Relaxed))
        .on_exit(move |call| {
            assert_eq!(call.depth(), None, "its entry was not seen");
            ended.fetch_add(1, Relaxed);
        });
    let mut registered = None;
    changes(|| registered = Some(ops.register().unwrap()));
    assert_eq!((entries.load(Relaxed), exits.load(Relaxed)), (0, 1));
    let registered = registered.expect("just now");
    assert!(registered.is_called(), "no callback has panicked");
    changes(|| registered.unregister());
    assert_eq!((entries.load(Relaxed), exits.load(Relaxed)), (1, 1));
}

static ENTERED: AtomicU32 = AtomicU32::new(0);
static LEFT: AtomicU32 = AtomicU32::new(0);
static OPS: StaticFunctionOps = StaticFunctionOps::new(
    |_| _ = ENTERED.fetch_add(1, Relaxed),
    |_| _ = LEFT.fetch_add(1, Relaxed),
);

#[gracepoint::function]
fn counted() {}

#[test]
fn static_operations_come_and_go() {
    for round in 1..=3 {
        OPS.register("*::counted").unwrap();
        counted();
        OPS.unregister();
        counted();
        assert_eq!((ENTERED.load(Relaxed), LEFT.load(Relaxed)), (round, round));
    }
}

#[gracepoint::function]
fn blocks_inside() {}

/// A callback that is in a system call is waited for by nobody, and what it captured lives as long as it is there.
#[test]
fn taking_off_does_not_wait_for_a_callback_that_is_blocked() {
    use std::io::{Read, Write};
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    let reader = Mutex::new(move || reader.read_exact(&mut [0]).unwrap());
    let (inside, captured) = (Arc::new(AtomicU32::new(0)), Arc::new(()));
    let (entered, held) = (Arc::clone(&inside), Arc::clone(&captured));
    let ops = FunctionOps::new("attribute::blocks_inside").on_entry(move |_| {
        entered.store(1, Relaxed);
        (reader.lock().unwrap())();
        entered.store(1 + Arc::strong_count(&held) as u32, Relaxed);
    });
    let ops = ops.register().unwrap();
    let blocked = std::thread::spawn(blocks_inside);
    while inside.load(Relaxed) == 0 {
        std::thread::yield_now();
    }
    ops.unregister(); // returns, or the next line would never be reached
    blocks_inside(); // and nobody calls the callback
    assert_eq!(Arc::strong_count(&captured), 2);
    writer.write_all(&[1]).unwrap();
    blocked.join().unwrap();
    assert_eq!(inside.load(Relaxed), 3, "what it captured was there to its end");
    while Arc::strong_count(&captured) > 1 {
        std::thread::yield_now();
    }
}

#[gracepoint::function]
fn controlled() {}

#[test]
fn operations_may_be_for_some_threads_alone() {
    let calls = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&calls);
    let ops = FunctionOps::new("*::controlled").per_thread();
    let ops = ops.on_entry(move |_| _ = counter.fetch_add(1, Relaxed)).register().unwrap();
    controlled();
    assert_eq!(calls.load(Relaxed), 0);
    assert!(ops.enable_here());
    controlled();
    std::thread::scope(|scope| scope.spawn(controlled).join().unwrap());
    assert_eq!(calls.load(Relaxed), 1);
    assert!(ops.disable_here());
    controlled();
    assert_eq!(calls.load(Relaxed), 1);
    assert!(ops.unregister_wait(std::time::Duration::from_secs(60)).unwrap());
    // What it captured is dropped, on another thread.
    while Arc::strong_count(&calls) > 1 {
        std::thread::yield_now();
    }
}

#[test]
fn what_matches_nothing_says_what_to_do() {
    let error = FunctionFilter::new("nobody::*").find().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoMatch);
    assert_eq!(error.to_string(), "no function matches nobody::*");
    let all = FunctionFilter::new("attribute::store::*").find().unwrap();
    let some = FunctionFilter::new("attribute::store::*").notrace("*::inner::*").find().unwrap();
    assert_eq!(all.len() - some.len(), 2);
}
