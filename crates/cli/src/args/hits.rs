//! What a session adds to each hit, and which hits it leaves out: the same for `record`, `start` and `stream`.

use clap::Args;
use gracepoint_wire::control::Limits;
use gracepoint_wire::schema::Context;

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct HitArgs {
    /// Add to each event where it happened: cpu, tid, pid, thread, stack (the calls that led there, of programs built
    /// with -C force-frame-pointers=yes); may be given more than once
    #[arg(long, value_name = "WHAT", value_delimiter = ',', value_parser = parse_context)]
    context: Vec<Context>,
    /// Record at most so many events of each kind per second
    #[arg(long, value_name = "N", value_parser = parse_rate)]
    max_rate: Option<u64>,
    /// Record one event of N of each kind: 1/10
    #[arg(long, value_name = "1/N", value_parser = parse_sample)]
    sample: Option<u64>,
    /// Record only so many events that it takes at most this part of a CPU: 1%
    #[arg(long, value_name = "PERCENT", value_parser = super::record::parse_percent)]
    max_overhead: Option<u32>,
}

impl HitArgs {
    /// What is added to each.
    pub(crate) fn context(&self) -> Context {
        self.context.iter().fold(Context::default(), |all, one| all.with(*one))
    }

    /// What is left out.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            max_rate: self.max_rate.unwrap_or(0),
            sample: self.sample.unwrap_or(0),
            max_overhead_ppm: self.max_overhead.unwrap_or(0),
        }
    }
}

fn parse_context(text: &str) -> Result<Context, String> {
    let found = Context::ALL.iter().find(|(name, _)| *name == text);
    found.map(|(_, context)| *context).ok_or_else(|| {
        let names = Context::ALL.map(|(name, _)| name).join(", ");
        format!("`{text}` is no context; there are {names}")
    })
}

/// `1000` or `1000/s`
fn parse_rate(text: &str) -> Result<u64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).parse().ok().filter(|&n| n > 0);
    number.ok_or_else(|| format!("`{text}` is no rate; write 1000 or 1000/s"))
}

/// `1/10`
fn parse_sample(text: &str) -> Result<u64, String> {
    let number = text.strip_prefix("1/").and_then(|n| n.parse().ok()).filter(|&n| n > 0);
    number.ok_or_else(|| format!("`{text}` is no part of the events; write 1/10"))
}
