//! Arguments of `why`.

use crate::discover::Which;
use crate::quantity::parse_duration;
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("whom").required(true).multiple(false))]
pub(crate) struct WhyArgs {
    /// The program with this process id
    #[arg(short, long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..), group = "whom")]
    pid: Option<u32>,
    /// The only program whose name matches this pattern
    #[arg(long, value_name = "NAME", group = "whom")]
    name: Option<String>,
    /// What a program left when it was killed or asked for: its core file
    #[arg(long, value_name = "FILE", group = "whom")]
    pub(crate) core: Option<PathBuf>,
    /// Look again and again, and tell what is new, until Ctrl-C or the program's end
    #[arg(long, conflicts_with = "core")]
    pub(crate) watch: bool,
    /// How often to look with --watch
    #[arg(long, value_name = "T", default_value = "1s", value_parser = parse_duration)]
    pub(crate) interval: Duration,
    /// What counts as stuck: grace periods, callbacks and queues that are older
    #[arg(long, value_name = "T", default_value = "100ms", value_parser = parse_duration)]
    pub(crate) older_than: Duration,
    /// Do not ask the program: read its memory
    #[arg(long, conflicts_with = "core")]
    pub(crate) from_memory: bool,
    /// Print a JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Print the graph for Graphviz
    #[arg(long, conflicts_with = "json")]
    pub(crate) dot: bool,
    /// Print a page with the graph drawn, which loads nothing
    #[arg(long, conflicts_with_all = ["json", "dot"])]
    pub(crate) html: bool,
    /// Print as: text, json, dot, html
    #[arg(long, value_name = "FORM", conflicts_with_all = ["json", "dot", "html"])]
    pub(crate) format: Option<WhyForm>,
}

/// What is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WhyForm {
    Text,
    Json,
    Dot,
    Html,
}

impl WhyArgs {
    pub(crate) fn form(&self) -> WhyForm {
        match (self.format, self.json, self.dot, self.html) {
            (Some(form), ..) => form,
            (_, true, ..) => WhyForm::Json,
            (_, _, true, _) => WhyForm::Dot,
            (_, _, _, true) => WhyForm::Html,
            _ => WhyForm::Text,
        }
    }

    /// The program; not with a core file.
    pub(crate) fn which(&self) -> Which {
        match (self.pid, &self.name) {
            (Some(pid), _) => Which::Pid(pid),
            (None, name) => Which::Name(name.clone().unwrap_or_else(|| "*".to_owned())),
        }
    }
}
