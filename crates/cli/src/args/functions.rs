//! Arguments about functions: `functions`, and what `record` and `start` want of them.

use super::targets::Target;
use crate::quantity::parse_duration;
use clap::{Args, ValueEnum};
use std::time::Duration;

#[derive(Debug, Args)]
pub(crate) struct FunctionsArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Only functions whose path matches one of these patterns; all is every one
    #[arg(value_name = "GLOB", value_parser = super::parse_glob)]
    pub(crate) globs: Vec<String>,
    /// Print one JSON object per function
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which functions to record.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ChooseFunctions {
    /// Record calls of functions whose path matches, or `all`; may be given more than once. Events are
    /// then only recorded where -e asks for some
    #[arg(short = 'l', long, value_name = "GLOB", value_parser = super::parse_glob)]
    pub(crate) functions: Vec<String>,
    /// But not of those that match this; may be given more than once
    #[arg(short = 'n', long, value_name = "GLOB", value_parser = super::parse_glob)]
    pub(crate) notrace: Vec<String>,
    /// Only so many levels of recorded functions
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) depth: Option<u32>,
    /// Only calls that take at least this long: 10us, 1ms
    #[arg(long, value_name = "T", value_parser = parse_duration)]
    pub(crate) threshold: Option<Duration>,
    /// Only calls on the thread with this id, as the program sees it; may be given more than once
    #[arg(long, value_name = "TID", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) tid: Vec<u32>,
}

impl ChooseFunctions {
    /// Whether functions are asked for.
    pub(crate) fn is_any(&self) -> bool {
        !self.functions.is_empty()
    }

    /// What else is given that means nothing without functions.
    pub(crate) fn idle(&self) -> Option<&'static str> {
        let given = [
            (!self.notrace.is_empty(), "--notrace"),
            (self.depth.is_some(), "--depth"),
            (self.threshold.is_some(), "--threshold"),
            (!self.tid.is_empty(), "--tid"),
        ];
        given.into_iter().find(|(given, _)| *given).map(|(_, what)| what)
    }
}

/// What `trace-cmd start -p` calls tracers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Plugin {
    /// Functions
    #[value(name = "function")]
    Function,
    /// The same: entries and exits, of which `gracepoint graph` makes a graph
    #[value(name = "function_graph")]
    FunctionGraph,
    /// No functions; without -e, nothing: what the session recorded is freed
    #[value(name = "nop")]
    Nop,
}
