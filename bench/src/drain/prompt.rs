//! How long it takes from an event to its line in the output of `gracepoint stream`.

use std::error::Error;
use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::recorder::gracepoint;
use crate::sections::Samples;
use crate::{NAME, Sample};

/// What is promised of a stream: an event is shown within this.
pub(super) const PROMISED: Duration = Duration::from_millis(100);
/// Events that are waited for.
const EVENTS: u64 = 300;
/// How long a line may take until the stream counts as broken.
const PATIENCE: Duration = Duration::from_secs(10);

/// Milliseconds from an event to its line.
pub(super) struct Prompt {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) most: f64,
}

/// A stream of this process's events, and when each of its lines came.
struct Stream {
    process: Child,
    lines: Receiver<(Instant, String)>,
}

impl Stream {
    fn start() -> Result<Stream, Box<dyn Error>> {
        let pid = std::process::id().to_string();
        let mut command = gracepoint()?;
        command.args(["stream", "--json", "-e", "bench:sample", "-p", &pid]);
        let mut process = command.stdout(Stdio::piped()).spawn()?;
        let out = process.stdout.take().ok_or("the stream has no output")?;
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if send.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        Ok(Stream { process, lines })
    }

    /// When event `number` was shown.
    fn shown(&self, number: u64) -> Result<Instant, Box<dyn Error>> {
        loop {
            let (at, line) = self.lines.recv_timeout(PATIENCE)?;
            let event: serde_json::Value = serde_json::from_str(&line)?;
            if event["fields"]["number"] == number {
                return Ok(at);
            }
        }
    }

    /// Fires until the stream has begun.
    fn begun(&self) -> Result<(), Box<dyn Error>> {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            fire(u64::MAX);
            match self.lines.recv_timeout(Duration::from_millis(20)) {
                Ok(_) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err("gracepoint stream ended".into()),
            }
        }
        Err("gracepoint stream shows nothing".into())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Fails only where there is nothing left to end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn fire(number: u64) {
    gracepoint::trace!(Sample { number, size: number, name: black_box(NAME) });
}

/// An event at a time, at moments that have nothing to do with when the stream looks.
pub(super) fn measure() -> Result<Prompt, Box<dyn Error>> {
    let stream = Stream::start()?;
    stream.begun()?;
    let mut lags = Vec::new();
    let mut random = 1u64;
    for number in 0..EVENTS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        std::thread::sleep(Duration::from_micros(random >> 50)); // up to 16 ms
        let fired = Instant::now();
        fire(number);
        lags.push(stream.shown(number)?.saturating_duration_since(fired).as_secs_f64() * 1e3);
    }
    let lags = Samples::of(lags);
    let [p50, p99, most] = [0.5, 0.99, 1.0].map(|q| lags.quantile(q));
    Ok(Prompt { p50, p99, most })
}
