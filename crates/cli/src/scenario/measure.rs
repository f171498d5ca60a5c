//! The kernel of this machine: how long it takes to close its perf events, and to switch its tracepoints off.
//! Nothing stays behind, and nobody else's tracing is touched.

use crate::perf::tracefs;
use perf_event::Builder;
use perf_event::events::Tracepoint;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

/// Perf events that are closed.
const CLOSED: usize = 5;

/// What was measured, in milliseconds, or why not.
#[derive(Debug, Default)]
pub(super) struct Measured {
    pub(super) rows: Vec<(String, f64)>,
    pub(super) missing: Option<String>,
}

impl Measured {
    fn missing(why: impl Into<String>) -> Measured {
        Measured { missing: Some(why.into()), ..Measured::default() }
    }

    fn timed<T>(&mut self, what: impl Into<String>, body: impl FnOnce() -> T) -> T {
        let begin = Instant::now();
        let done = body();
        self.rows.push((what.into(), begin.elapsed().as_nanos() as f64 / 1e6));
        done
    }
}

/// Closes perf events on different tracepoints, on this process.
pub(super) fn closing() -> Measured {
    let names = match tracefs::names() {
        Ok(names) => names,
        Err(why) => return Measured::missing(why),
    };
    let mut measured = Measured::default();
    let signals =
        names.iter().filter(|name| name.starts_with("signal:") || name.starts_with("timer:"));
    for name in signals.take(CLOSED) {
        let opened = tracefs::number(name)
            .map(|number| Builder::new(Tracepoint::with_id(number)).exclude_kernel(false).build());
        match opened {
            Ok(Ok(counter)) => {
                measured.timed(format!("to close a perf event on {name}"), || drop(counter))
            }
            Ok(Err(error)) => {
                let why = format!(
                    "the kernel opens no perf event on {name} ({error}): it takes CAP_PERFMON, or sysctl \
                     kernel.perf_event_paranoid=-1"
                );
                measured.missing = Some(why);
                break;
            }
            Err(why) => {
                measured.missing = Some(why);
                break;
            }
        }
    }
    measured
}

/// What a function tracer does is not to be had from outside.
pub(super) fn nothing() -> Measured {
    Measured::missing(
        "the kernel has had its answer since 2013, and what it costs shows only while its function tracer is \
         switched, which would slow this whole machine down",
    )
}

/// An instance of tracefs of our own, which goes when it is dropped.
struct Instance(PathBuf);

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Switches all tracepoints of a private instance on and off.
pub(super) fn switching() -> Measured {
    let root = match tracefs::root() {
        Ok(root) => root,
        Err(why) => return Measured::missing(why),
    };
    let place = root.join("instances").join(format!("gracepoint-{}", std::process::id()));
    if let Err(error) = fs::create_dir(&place) {
        return Measured::missing(format!(
            "{} cannot be made ({error}): that takes root",
            place.display()
        ));
    }
    let instance = Instance(place);
    // A small buffer will do: nobody reads it.
    let _ = fs::write(instance.0.join("buffer_size_kb"), "16");
    let enable = instance.0.join("events/enable");
    let mut measured = Measured::default();
    for (value, what) in [("1", "on"), ("0", "off")] {
        let what =
            format!("to switch all of its tracepoints {what} (events/enable of an instance)");
        if let Err(error) = measured.timed(what, || fs::write(&enable, value)) {
            measured.rows.pop();
            measured.missing = Some(format!("{}: {error}", enable.display()));
            break;
        }
    }
    measured
}
