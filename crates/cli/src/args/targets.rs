//! Which programs a command is about.

use super::functions::Plugin;
use crate::console::Console;
use crate::discover::{self, Found, Which};
use crate::failure;
use clap::{Args, ValueEnum};

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

/// Which programs, and as with `trace-cmd start -p` which tracer.
#[derive(Debug, Args)]
pub(crate) struct StartTargets {
    /// The program with this process id; may be given more than once. Default: all programs. Or a
    /// tracer, as with trace-cmd: function or function_graph record functions (all, or those of
    /// --functions), nop does not
    #[arg(short, long, value_name = "PID|PLUGIN", value_parser = parse_pid_or_plugin)]
    pid: Vec<PidOrPlugin>,
    /// The tracer: function, function_graph or nop
    #[arg(long, value_enum, hide_possible_values = true)]
    plugin: Option<Plugin>,
    /// The programs whose name matches this pattern
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PidOrPlugin {
    Pid(u32),
    Plugin(Plugin),
}

fn parse_pid_or_plugin(text: &str) -> Result<PidOrPlugin, String> {
    if let Ok(plugin) = Plugin::from_str(text, false) {
        return Ok(PidOrPlugin::Plugin(plugin));
    }
    let pid = text.parse().ok().filter(|&pid| pid > 0);
    pid.map(PidOrPlugin::Pid).ok_or_else(|| {
        format!("`{text}` is neither a process id nor a tracer (function, function_graph, nop)")
    })
}

impl StartTargets {
    /// The tracer that is asked for: the last one, of several.
    pub(crate) fn plugin(&self) -> Option<Plugin> {
        self.plugins().last()
    }

    /// Whether functions are asked for, and that there are none.
    pub(crate) fn is_contradiction(&self) -> bool {
        let is_nop = |plugin| plugin == Plugin::Nop;
        self.plugins().any(is_nop) && !self.plugins().all(is_nop)
    }

    fn plugins(&self) -> impl Iterator<Item = Plugin> {
        let of = |target: &PidOrPlugin| match target {
            PidOrPlugin::Plugin(plugin) => Some(*plugin),
            PidOrPlugin::Pid(_) => None,
        };
        self.pid.iter().filter_map(of).chain(self.plugin)
    }

    pub(crate) fn find(&self, console: &mut Console) -> failure::Result<Found> {
        let of = |target: &PidOrPlugin| match target {
            PidOrPlugin::Pid(pid) => Some(*pid),
            PidOrPlugin::Plugin(_) => None,
        };
        let pids: Vec<u32> = self.pid.iter().filter_map(of).collect();
        if !pids.is_empty() && self.name.is_some() {
            return Err(failure::Failure::new("give -p PID or --name NAME, not both"));
        }
        discover::find_all(&pids, self.name.as_deref(), console)
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
