//! Arguments of `profile`, and what `record --profile` shares with it.

use super::record::parse_percent;
use crate::perf::beside::Rate;
use crate::quantity::{parse_duration, parse_size};
use crate::record::DEFAULT_DIR;
use clap::Args;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// How often to sample.
#[derive(Debug, Args)]
pub(crate) struct RateArgs {
    /// Samples for each second that a thread is on a CPU
    #[arg(long, value_name = "HZ", default_value_t = 199, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) freq: u32,
    /// Halve the rate when reading the samples takes more than this part of a CPU, or taking them more than this part of
    /// the CPU time of a program that samples itself
    #[arg(long, value_name = "PERCENT", default_value = "25%", value_parser = parse_percent)]
    pub(crate) max_cpu: u32,
    /// Copy so much of the stack into each sample, and find callers by the objects' unwind tables when reading: for
    /// code that was built without frame pointers. From 512 bytes to 63K
    #[arg(long, value_name = "SIZE", value_parser = parse_stack_copy)]
    pub(crate) stack_copy: Option<u32>,
}

/// `16K`, in whole words.
fn parse_stack_copy(text: &str) -> Result<u32, String> {
    let bytes = parse_size(text)?;
    let fits = (512..=63 << 10).contains(&bytes);
    let bytes = u32::try_from(bytes & !7).ok().filter(|_| fits);
    bytes.ok_or_else(|| format!("`{text}` is no part of a stack; write 16K, at most 63K"))
}

impl RateArgs {
    pub(crate) fn rate(&self) -> Rate {
        Rate {
            hz: self.freq.into(),
            max_cpu_ppm: self.max_cpu.into(),
            copied: self.stack_copy.unwrap_or(0),
        }
    }
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["pid", "command"]))]
pub(crate) struct ProfileArgs {
    /// The process with this id; it needs no agent
    #[arg(short, long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pid: Option<u32>,
    #[command(flatten)]
    pub(crate) rate: RateArgs,
    /// Directory of the trace; made by this command
    #[arg(short, long, value_name = "DIR", default_value = DEFAULT_DIR)]
    pub(crate) output: PathBuf,
    /// Replace the trace in DIR
    #[arg(long)]
    pub(crate) force: bool,
    /// End after this time: 500ms, 2s, 1m
    #[arg(short, long, value_name = "T", value_parser = parse_duration)]
    pub(crate) duration: Option<Duration>,
    /// Say nothing but errors
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print a JSON object about the profile when it has ended
    #[arg(long)]
    pub(crate) json: bool,
    /// Start this command and profile it
    #[arg(last = true, value_name = "CMD", num_args = 1..)]
    pub(crate) command: Vec<OsString>,
}
