//! Arguments of `explain`.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The log; - for stdin
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Print a JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Print the graph for Graphviz
    #[arg(long, conflicts_with = "json")]
    pub(crate) dot: bool,
    /// Print a page with the graph drawn, which loads nothing
    #[arg(long, conflicts_with_all = ["json", "dot"])]
    pub(crate) html: bool,
    /// Print as: text, report (the sections of a bug report), json, dot, html
    #[arg(long, value_name = "FORM", conflicts_with_all = ["json", "dot", "html"])]
    pub(crate) format: Option<Form>,
    /// The kernel that printed the log, with debug information, for lines of the source
    #[arg(long, value_name = "FILE")]
    pub(crate) vmlinux: Option<PathBuf>,
}

/// What an explanation is printed as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    Text,
    Report,
    Json,
    Dot,
    Html,
}

impl ExplainArgs {
    pub(crate) fn form(&self) -> Form {
        match (self.format, self.json, self.dot, self.html) {
            (Some(form), ..) => form,
            (_, true, ..) => Form::Json,
            (_, _, true, _) => Form::Dot,
            (_, _, _, true) => Form::Html,
            _ => Form::Text,
        }
    }
}
