//! 2,000 call sites, switched on and off together: by the tracer, and by `reload` of a level.

use std::error::Error;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Instant;

use tracing::field::FieldSet;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Metadata, callsite};
use tracing_subscriber::prelude::*;

use super::{OFF_TOGGLE, ON_TOGGLE, RELOAD};
use crate::measure::{Cost, pin, summary};

const SITES: usize = 2000;

/// A call site as the macros make one.
struct Site {
    meta: OnceLock<Metadata<'static>>,
    interest: AtomicU8,
}

impl callsite::Callsite for Site {
    fn set_interest(&self, interest: Interest) {
        let interest = 1 + u8::from(interest.is_sometimes()) + 2 * u8::from(interest.is_always());
        self.interest.store(interest, SeqCst);
    }

    fn metadata(&self) -> &Metadata<'_> {
        self.meta.get().expect("set before it is registered")
    }
}

fn register() -> Vec<&'static Site> {
    let make = |n: usize| {
        let site: &'static Site =
            Box::leak(Box::new(Site { meta: OnceLock::new(), interest: AtomicU8::new(0) }));
        let name: &'static str = Box::leak(format!("site {n}").into());
        let fields = FieldSet::new(&["message"], callsite::Identifier(site));
        let (level, kind) = (tracing::Level::INFO, tracing::metadata::Kind::EVENT);
        let meta = Metadata::new(name, "toggle", level, None, None, None, fields, kind);
        let _first = site.meta.set(meta);
        callsite::register(site);
        site
    };
    (0..SITES).map(make).collect()
}

/// Measures `on` and `off`, and checks after each that all sites are what they should be.
fn measure(
    rounds: usize,
    sites: &[&Site],
    mut turn: impl FnMut(bool),
) -> Result<[Vec<f64>; 2], Box<dyn Error>> {
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for on in [true, false] {
            let begin = Instant::now();
            turn(on);
            times[usize::from(!on)].push(begin.elapsed().as_nanos() as f64);
            let want = if on { 3 } else { 1 };
            let wrong = sites.iter().filter(|site| site.interest.load(SeqCst) != want).count();
            if wrong > 0 {
                return Err(format!("{wrong} of {SITES} sites are not {on}").into());
            }
        }
    }
    Ok(times)
}

pub(super) fn ours(rounds: usize) -> Result<Vec<Cost>, Box<dyn Error>> {
    gracepoint_tracing::init()?;
    let sites = register();
    pin()?;
    let mut probe = None;
    let [on, off] = measure(rounds, &sites, |on| {
        probe = None;
        if on {
            probe = gracepoint::Tracer::global().tracepoints("toggle:*").attach(|_| {}).ok();
        }
    })?;
    Ok(vec![summary(ON_TOGGLE, on), summary(OFF_TOGGLE, off)])
}

pub(super) fn reload(rounds: usize) -> Result<Vec<Cost>, Box<dyn Error>> {
    let (filter, handle) = tracing_subscriber::reload::Layer::new(LevelFilter::OFF);
    tracing_subscriber::registry().with(filter).init();
    let sites = register();
    pin()?;
    let level = |on: bool| if on { LevelFilter::TRACE } else { LevelFilter::OFF };
    let [mut on, off] = measure(rounds, &sites, |on| drop(handle.reload(level(on))))?;
    on.extend(off);
    Ok(vec![summary(RELOAD, on)])
}
