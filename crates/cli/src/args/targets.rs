//! Which programs a command is about.

use crate::console::Console;
use crate::discover::{self, Found, Which};
use crate::failure;
use clap::Args;

/// Which programs.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct Targets {
    /// The program with this process id; may be given more than once. Default: all programs
    #[arg(short, long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pid: Vec<u32>,
    /// The programs whose name matches this pattern
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

impl Targets {
    pub(crate) fn find(&self, console: &mut Console) -> failure::Result<Found> {
        discover::find_all(&self.pid, self.name.as_deref(), console)
    }
}

/// Which program.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Target {
    /// The program with this process id
    #[arg(short, long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pid: Option<u32>,
    /// The only program whose name matches this pattern
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

impl Target {
    pub(crate) fn which(&self) -> Which {
        which(self.pid, self.name.as_deref())
    }
}

/// Which program to record; none with a command.
#[derive(Debug, Args)]
#[group(required = true, multiple = false, args = ["pid", "name", "command"])]
pub(crate) struct RecordTarget {
    /// The program with this process id
    #[arg(short, long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pid: Option<u32>,
    /// The only program whose name matches this pattern
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

impl RecordTarget {
    pub(crate) fn which(&self) -> Which {
        which(self.pid, self.name.as_deref())
    }
}

fn which(pid: Option<u32>, name: Option<&str>) -> Which {
    match (pid, name) {
        (Some(pid), _) => Which::Pid(pid),
        (None, name) => Which::Name(name.unwrap_or("*").to_owned()),
    }
}
