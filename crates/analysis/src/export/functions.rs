//! Stacks of functions of a profile: folded, drawn, or for `pprof`.

use super::folded::{draw, frame};
use super::proto::{int, message, text, uint};
use super::{Exported, Format, Options};
use crate::profile::{Profile, profile};
use crate::{Error, Result, Trace};
use std::io::Write;

/// Writes the profile's stacks.
pub(super) fn export(trace: &Trace, options: &Options, out: &mut dyn Write) -> Result<Exported> {
    let profile = profile(trace, &options.filter)?;
    let bytes = match options.format {
        Format::Folded => {
            lines(&profile).into_iter().map(|line| line + "\n").collect::<String>().into_bytes()
        }
        Format::Flamegraph => {
            let program = crate::info::program(trace).name;
            let title = match program.is_empty() {
                true => "CPU time".to_owned(),
                false => format!("CPU time of {}", crate::escape::name(&program)),
            };
            let lines = lines(&profile);
            if lines.is_empty() {
                return Err(Error::new(
                    "there is no flame graph to draw: no sample among what was chosen",
                ));
            }
            draw(&lines, title)?
        }
        Format::Pprof => pprof(&profile),
        Format::Perfetto | Format::Chrome | Format::Page => {
            return Err(Error::new(
                "stacks of a profile go to folded, flamegraph or pprof; give one of these by --to",
            ));
        }
    };
    out.write_all(&bytes).and_then(|()| out.flush()).map_err(|e| Error::output(&e))?;
    Ok(Exported {
        samples: profile.samples,
        lost: profile.lost,
        threads: profile.threads.len() as u64,
        bytes: bytes.len() as u64,
        damage: profile.damage,
        ..Exported::default()
    })
}

/// `thread;outer;inner MICROSECONDS`, sorted.
fn lines(profile: &Profile) -> Vec<String> {
    let stacks = &profile.stacks;
    let mut lines = Vec::new();
    for (node, at) in stacks.nodes.iter().zip(0..).filter(|(node, _)| node.self_ns > 0) {
        let path = stacks.path(at);
        let names: Vec<String> =
            path.iter().rev().map(|&name| frame(&stacks.names[name as usize])).collect();
        lines.push(format!("{} {}", names.join(";"), node.self_ns.div_ceil(1000)));
    }
    lines.sort();
    lines
}

/// `perftools.profiles.Profile` of <https://github.com/google/pprof>, not compressed: samples with a count and
/// nanoseconds of CPU time, a location for each function, the thread as a label.
fn pprof(profile: &Profile) -> Vec<u8> {
    let stacks = &profile.stacks;
    let mut strings: Vec<&str> = vec!["", "samples", "count", "cpu", "nanoseconds", "thread"];
    let first_name = strings.len() as i64;
    strings.extend(stacks.names.iter().map(String::as_str));
    let mut out = Vec::new();
    let value = |out: &mut Vec<u8>, kind: i64, unit: i64| {
        int(out, 1, kind);
        int(out, 2, unit);
    };
    message(&mut out, 1, |out| value(out, 1, 2));
    message(&mut out, 1, |out| value(out, 3, 4));
    for (node, at) in stacks.nodes.iter().zip(0..).filter(|(node, _)| node.samples > 0) {
        let path = stacks.path(at);
        let (thread, functions) = path.split_last().unwrap_or((&0, &[]));
        message(&mut out, 2, |out| {
            // Innermost first; the ids of locations are those of names, from 1.
            functions.iter().for_each(|&name| uint(out, 1, u64::from(name) + 1));
            int(out, 2, node.samples as i64);
            int(out, 2, node.self_ns as i64);
            message(out, 3, |out| {
                int(out, 1, 5);
                int(out, 2, first_name + i64::from(*thread));
            });
        });
    }
    for name in 0..stacks.names.len() as u64 {
        message(&mut out, 4, |out| {
            uint(out, 1, name + 1);
            message(out, 4, |out| uint(out, 1, name + 1));
        });
    }
    for name in 0..stacks.names.len() as u64 {
        message(&mut out, 5, |out| {
            uint(out, 1, name + 1);
            int(out, 2, first_name + name as i64);
            int(out, 3, first_name + name as i64);
        });
    }
    strings.iter().for_each(|string| text(&mut out, 6, string));
    message(&mut out, 11, |out| value(out, 3, 4));
    out
}
