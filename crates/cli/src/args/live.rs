//! Arguments of the commands that look at running programs: `ps`, `list`, `stat`, `stream`.

use super::parse_glob;
use super::reading::TimeFormat;
use super::targets::{Target, Targets};
use crate::quantity::{parse_duration, parse_size};
use clap::Args;
use gracepoint_wire::schema::Level;
use std::time::Duration;

#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// Print one JSON object per program
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Only events that match one of these patterns; all is every one
    #[arg(value_name = "GLOB", value_parser = parse_glob)]
    pub(crate) globs: Vec<String>,
    /// Of events that have a level, only those up to this one: error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL")]
    pub(crate) level: Option<Level>,
    /// Print one JSON object per event
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StatArgs {
    #[command(flatten)]
    pub(crate) targets: Targets,
    /// Count events that match this pattern; may be given more than once
    #[arg(short, long = "event", value_name = "GLOB", default_value = "*", value_parser = parse_glob)]
    pub(crate) events: Vec<String>,
    /// Of events that have a level, only those up to this one: error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL")]
    pub(crate) level: Option<Level>,
    /// Show what was counted each time that this has passed: 500ms, 1s; default: once, at the end
    #[arg(short, long, value_name = "T", value_parser = parse_duration)]
    pub(crate) interval: Option<Duration>,
    /// End after this time: 500ms, 2s, 1m
    #[arg(short, long, value_name = "T", value_parser = parse_duration)]
    pub(crate) duration: Option<Duration>,
    /// Print one JSON object per event
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StreamArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Show events that match this pattern; may be given more than once
    #[arg(short, long = "event", value_name = "GLOB", default_value = "*", value_parser = parse_glob)]
    pub(crate) events: Vec<String>,
    /// Of events that have a level, only those up to this one: error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL")]
    pub(crate) level: Option<Level>,
    /// End after this time: 500ms, 2s, 1m
    #[arg(short, long, value_name = "T", value_parser = parse_duration)]
    pub(crate) duration: Option<Duration>,
    /// Stop after so many events
    #[arg(short, long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Memory for events on their way: 16M, 64MiB; default: the program's choice
    #[arg(short, long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) buffer: Option<u64>,
    /// How to tell time
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) time: TimeFormat,
    /// Print one JSON object per event
    #[arg(long)]
    pub(crate) json: bool,
}
