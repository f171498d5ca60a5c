//! `gracepoint explain`: why a kernel is stuck, from the text of its log.

use crate::args::ExplainArgs;
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
    let explanation = hang::explain(BufReader::with_capacity(CHUNK, input)).map_err(failed)?;
    let text = if args.json {
        explanation.to_json()
    } else if args.dot {
        explanation.to_dot()
    } else {
        explanation.to_text()
    };
    console.line(text.trim_end())?;
    let found = matches!(explanation.verdict(), Some(Verdict::Culprit | Verdict::Cycle));
    Ok(u8::from(!found))
}
