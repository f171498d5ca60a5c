//! Arguments of the verbs on kept sessions.

use super::parse_glob;
use super::targets::Targets;
use crate::quantity::parse_size;
use crate::record::DEFAULT_DIR;
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    pub(crate) targets: Targets,
    /// Switch on events that match this pattern, or `all`; may be given more than once
    #[arg(short, long = "event", value_name = "GLOB", default_value = "*", value_parser = parse_glob)]
    pub(crate) events: Vec<String>,
    /// What to call the session, so that several can be told apart
    #[arg(short, long, value_name = "NAME", default_value = "main")]
    pub(crate) session: String,
    /// Memory for events in each program: 16M, 64MiB; default: the program's choice
    #[arg(short, long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) buffer: Option<u64>,
    /// When the buffer is full, write over the oldest events instead of losing new ones
    #[arg(long)]
    pub(crate) flight_recorder: bool,
}

/// Which kept sessions.
#[derive(Debug, Args)]
pub(crate) struct SessionArgs {
    #[command(flatten)]
    pub(crate) targets: Targets,
    /// Only sessions of this name
    #[arg(short, long, value_name = "NAME")]
    pub(crate) session: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    pub(crate) targets: Targets,
    /// Also what happened to sessions lately: who made, took over and ended them
    #[arg(long)]
    pub(crate) log: bool,
    /// Print one JSON object per session
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ResetArgs {
    #[command(flatten)]
    pub(crate) targets: Targets,
}

#[derive(Debug, Args)]
pub(crate) struct ExtractArgs {
    #[command(flatten)]
    pub(crate) which: SessionArgs,
    /// Directory of the trace; with several sessions, of their traces
    #[arg(short, long, value_name = "DIR", default_value = DEFAULT_DIR)]
    pub(crate) output: PathBuf,
    /// Replace the trace in DIR
    #[arg(long)]
    pub(crate) force: bool,
}
