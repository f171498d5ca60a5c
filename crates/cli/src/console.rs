//! Where a command writes: data to `out`, words to `err`, and a progress line that is rewritten in
//! place when a person is watching. Tests put their own sinks here and read the text.

use crate::failure::{Failure, Result};
use std::fmt;
use std::io::{self, BufWriter, IsTerminal, Write};

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Color {
    /// When stdout is a terminal and `NO_COLOR` is not set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The two sinks of a command.
pub(crate) struct Console {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
    color: bool,
    /// Whether `err` is a terminal, on which a line can be rewritten.
    live: bool,
    progress_shown: bool,
}

impl Console {
    /// The process's own stdout and stderr.
    pub(crate) fn standard() -> Console {
        Console {
            out: Box::new(BufWriter::new(io::stdout())),
            err: Box::new(io::stderr()),
            color: false,
            live: io::stderr().is_terminal(),
            progress_shown: false,
        }
    }

    /// One for tests: `live` says whether its stderr is as if a person were watching.
    #[cfg(test)]
    pub(crate) fn of(out: Box<dyn Write>, err: Box<dyn Write>, live: bool) -> Console {
        Console { out, err, color: false, live, progress_shown: false }
    }

    /// Decides about colour.
    pub(crate) fn set_color(&mut self, color: Color) {
        self.color = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                io::stdout().is_terminal()
                    && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
                    && std::env::var_os("TERM").is_none_or(|v| v != "dumb")
            }
        };
    }

    /// `text` in bold, where colour is on.
    pub(crate) fn bold(&self, text: &str) -> String {
        if self.color { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// `text` in green, where colour is on.
    pub(crate) fn green(&self, text: &str) -> String {
        if self.color { format!("\x1b[32m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// `text` faint, where colour is on.
    pub(crate) fn faint(&self, text: &str) -> String {
        if self.color { format!("\x1b[2m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// One line of data.
    pub(crate) fn line(&mut self, line: impl fmt::Display) -> Result<()> {
        writeln!(self.out, "{line}").map_err(|e| output_error(&e))
    }

    /// Lines of data that are ready.
    pub(crate) fn bytes(&mut self, lines: &[u8]) -> Result<()> {
        self.out.write_all(lines).map_err(|e| output_error(&e))
    }

    /// The sink for data, for those who write much.
    pub(crate) fn out(&mut self) -> &mut dyn Write {
        &mut *self.out
    }

    /// Everything written so far reaches its reader.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.out.flush().map_err(|e| output_error(&e))
    }

    /// One sentence on stderr, with the program's name before it. Nobody listening is no error.
    pub(crate) fn note(&mut self, text: impl fmt::Display) {
        self.words(format_args!("gracepoint: {text}"));
    }

    /// One line on stderr as it is.
    pub(crate) fn words(&mut self, text: impl fmt::Display) {
        self.clear_progress();
        let _ = writeln!(self.err, "{text}");
        let _ = self.err.flush();
    }

    /// Whether [`Console::progress`] shows anything.
    pub(crate) fn is_live(&self) -> bool {
        self.live
    }

    /// Rewrites the progress line; nothing where stderr is not a terminal.
    pub(crate) fn progress(&mut self, text: impl fmt::Display) {
        if self.live {
            let _ = write!(self.err, "\r\x1b[K{text}");
            let _ = self.err.flush();
            self.progress_shown = true;
        }
    }

    /// Removes the progress line.
    pub(crate) fn clear_progress(&mut self) {
        if std::mem::take(&mut self.progress_shown) {
            let _ = write!(self.err, "\r\x1b[K");
        }
    }
}

fn output_error(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Failure::ClosedPipe
    } else {
        Failure::new(format!("cannot write the output: {error}"))
    }
}
