//! `gracepoint explain`: why a kernel is stuck, from the text of its log.

use crate::args::{ExplainArgs, Form};
use crate::console::Console;
use crate::escape::shown;
use crate::failure::{Failure, Result};
use gracepoint_analysis::hang::{self, Verdict};
use std::fs::File;
use std::io::{BufReader, Read, stdin};
use std::path::Path;

/// Bytes that are read at a time.
const CHUNK: usize = 64 << 10;

/// Runs `explain`: 0 when a culprit or cycle was found, 1 when the log does not say.
pub(crate) fn explain(args: &ExplainArgs, console: &mut Console) -> Result<u8> {
    let failed = |error: std::io::Error| {
        let path = args.file.display().to_string();
        Failure::new(format!("cannot read {}: {error}", shown(&path)))
    };
    let input: Box<dyn Read> = if args.file == Path::new("-") {
        Box::new(stdin().lock())
    } else {
        Box::new(File::open(&args.file).map_err(failed)?)
    };
    let mut explanation = hang::explain(BufReader::with_capacity(CHUNK, input)).map_err(failed)?;
    if let Some(vmlinux) = &args.vmlinux {
        let path = vmlinux.display().to_string();
        let located = explanation.locate(vmlinux).map_err(|error| {
            Failure::new(format!(
                "cannot take lines from {}: {error}; it must be the vmlinux of the kernel that \
                 printed the log, with debug information",
                shown(&path)
            ))
        })?;
        let stacks = explanation.accounts.iter().any(|account| !account.stacks.is_empty());
        if located == 0 && stacks {
            console.note(format!("{} knows none of the functions in the stacks", shown(&path)));
        }
    }
    let text = match args.form() {
        Form::Text => explanation.to_text(),
        Form::Report => explanation.to_report(),
        Form::Json => explanation.to_json(),
        Form::Dot => explanation.to_dot(),
        Form::Html => explanation.to_html(),
    };
    console.line(text.trim_end())?;
    let found = matches!(explanation.verdict(), Some(Verdict::Culprit | Verdict::Cycle));
    Ok(u8::from(!found))
}
