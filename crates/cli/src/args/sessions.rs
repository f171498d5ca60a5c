//! Arguments of the verbs on kept sessions.

use super::functions::{ChooseFunctions, Plugin};
use super::hits::HitArgs;
use super::parse_glob;
use super::targets::{StartTargets, Targets};
use crate::quantity::parse_size;
use crate::record::DEFAULT_DIR;
use clap::Args;
use gracepoint_wire::schema::Level;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    pub(crate) targets: StartTargets,
    /// Switch on events that match this pattern, or `all`; may be given more than once. Default: all, or
    /// none with functions
    #[arg(short, long = "event", value_name = "GLOB", value_parser = parse_glob)]
    pub(crate) events: Vec<String>,
    /// Of events that have a level, only those up to this one: error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL")]
    pub(crate) level: Option<Level>,
    #[command(flatten)]
    pub(crate) functions: ChooseFunctions,
    /// What to call the session, so that several can be told apart
    #[arg(short, long, value_name = "NAME", default_value = "main")]
    pub(crate) session: String,
    /// Memory for events in each program: 16M, 64MiB; default: the program's choice
    #[arg(short, long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) buffer: Option<u64>,
    /// When the buffer is full, write over the oldest events instead of losing new ones
    #[arg(long)]
    pub(crate) flight_recorder: bool,
    #[command(flatten)]
    pub(crate) hits: HitArgs,
    /// Print one JSON object per session that is made
    #[arg(long)]
    pub(crate) json: bool,
}

impl StartArgs {
    /// The events that are meant, and the functions: a tracer that is asked for without any means all.
    ///
    /// # Errors
    /// When the tracer is `nop` and functions are asked for, or what is about functions is given without any.
    pub(crate) fn wanted(&self) -> Result<(Vec<String>, ChooseFunctions), String> {
        let mut functions = self.functions.clone();
        if self.targets.is_contradiction() {
            return Err(
                "nop is without functions, and function records them: give one of the two".into()
            );
        }
        match self.targets.plugin() {
            Some(Plugin::Nop) if functions.is_any() => {
                return Err("-p nop is without functions: leave it or --functions out".into());
            }
            Some(Plugin::Function | Plugin::FunctionGraph) if !functions.is_any() => {
                functions.functions = vec!["*".into()];
            }
            _ => {}
        }
        if let Some(idle) = functions.idle().filter(|_| !functions.is_any()) {
            return Err(format!("{idle} is about functions: say which with --functions GLOB"));
        }
        let all = self.events.is_empty() && !functions.is_any();
        Ok((if all { vec!["*".into()] } else { self.events.clone() }, functions))
    }

    /// Whether nothing is to be on: `-p nop` without events.
    pub(crate) fn is_nothing(&self) -> bool {
        self.targets.plugin() == Some(Plugin::Nop) && self.events.is_empty()
    }
}

/// Which kept sessions.
#[derive(Debug, Args)]
pub(crate) struct SessionArgs {
    #[command(flatten)]
    pub(crate) targets: Targets,
    /// Only sessions of this name
    #[arg(short, long, value_name = "NAME")]
    pub(crate) session: Option<String>,
    /// Print one JSON object per session: what was done, and to which
    #[arg(long)]
    pub(crate) json: bool,
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
    /// Print one JSON object per program
    #[arg(long)]
    pub(crate) json: bool,
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
