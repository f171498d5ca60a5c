//! The curve of a counter, and its levels of detail: what `rows` does for items. A step holds from its sample to
//! the next one; steps that begin within the width of a level are one, from the least value to the greatest.

use super::rows::{FEW, FINEST, Level, push};
use crate::Value;

/// A value and since when it holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    /// Nanoseconds.
    pub(super) begin: u64,
    pub(super) value: f64,
}

/// All levels of a curve, the finest first, and between which values it lies.
pub(super) struct Curve {
    pub(super) levels: Vec<Level>,
    pub(super) low: f64,
    pub(super) high: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Step {
    begin: u64,
    low: f64,
    high: f64,
}

/// A value that can be drawn.
pub(super) fn number(value: &Value<'_>) -> Option<f64> {
    let number = match value {
        Value::Uint(n) => *n as f64,
        Value::Int(n) => *n as f64,
        Value::Wide(n) => *n as f64,
        Value::WideInt(n) => *n as f64,
        Value::Duration(n) => *n as f64,
        Value::Float32(n) => f64::from(*n),
        Value::Float(n) => *n,
        Value::Bool(value) => f64::from(*value),
        _ => return None,
    };
    number.is_finite().then_some(number)
}

impl Curve {
    /// Samples of several threads come in the order of their times but for those at once.
    pub(super) fn new(mut samples: Vec<Sample>, total_ns: u64) -> Curve {
        samples.sort_by_key(|sample| sample.begin);
        let step = |sample: &Sample| Step {
            begin: sample.begin.min(total_ns),
            low: sample.value,
            high: sample.value,
        };
        let mut steps: Vec<Step> = samples.iter().map(step).collect();
        let low = steps.iter().map(|step| step.low).fold(f64::INFINITY, f64::min);
        let high = steps.iter().map(|step| step.high).fold(f64::NEG_INFINITY, f64::max);
        let mut levels = vec![encode(&steps, 0)];
        let mut width = FINEST;
        while steps.len() > FEW && width < total_ns {
            steps = merge(&steps, width);
            if steps.len() <= levels.last().map_or(0, |level| level.blocks) / 2 {
                levels.push(encode(&steps, width));
            }
            width *= 4;
        }
        Curve { levels, low, high }
    }
}

/// The steps of the next wider level.
fn merge(steps: &[Step], width: u64) -> Vec<Step> {
    let mut out: Vec<Step> = Vec::with_capacity(steps.len() / 2);
    for step in steps {
        match out.last_mut() {
            Some(last) if step.begin - last.begin < width => {
                last.low = last.low.min(step.low);
                last.high = last.high.max(step.high);
            }
            _ => out.push(*step),
        }
    }
    out
}

/// For each step: begin since the one before, least value, and in levels above 0 the greatest. Values are floats
/// of 8 bytes, the lowest first.
fn encode(steps: &[Step], width: u64) -> Level {
    let mut bytes = Vec::with_capacity(steps.len() * 11);
    let mut begin = 0;
    for step in steps {
        push(step.begin - begin, &mut bytes);
        bytes.extend_from_slice(&step.low.to_le_bytes());
        if width > 0 {
            bytes.extend_from_slice(&step.high.to_le_bytes());
        }
        begin = step.begin;
    }
    Level { width, blocks: steps.len(), bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_has_the_extremes_of_the_one_before() {
        let samples = |n: u64| -> Vec<Sample> {
            let value = |i: u64| if i == 777 { 1e6 } else { (i % 10) as f64 - 3.0 };
            (0..n).map(|i| Sample { begin: i * 100, value: value(i) }).collect()
        };
        let curve = Curve::new(samples(1000), 100_000);
        assert_eq!((curve.low, curve.high), (-3.0, 1e6));
        let widths: Vec<u64> = curve.levels.iter().map(|level| level.width).collect();
        assert_eq!(widths, [0, 1024]);
        // Of 11 samples each.
        assert_eq!(curve.levels[1].blocks, 91);
        let steps: Vec<Step> = samples(1000)
            .iter()
            .map(|s| Step { begin: s.begin, low: s.value, high: s.value })
            .collect();
        let wide = merge(&steps, 1024);
        assert_eq!((wide[0].begin, wide[0].low, wide[0].high), (0, -3.0, 6.0));
        assert_eq!(wide.iter().filter(|step| step.high == 1e6).count(), 1);
        assert_eq!(Curve::new(samples(200), 20_000).levels.len(), 1);
    }

    #[test]
    fn what_is_no_number_is_left_out() {
        assert_eq!(number(&Value::Int(-5)), Some(-5.0));
        assert_eq!(number(&Value::Bool(true)), Some(1.0));
        assert_eq!(number(&Value::Float(f64::NAN)), None);
        assert_eq!(number(&Value::None), None);
    }
}
