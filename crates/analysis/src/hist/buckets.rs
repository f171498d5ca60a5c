//! Log-linear buckets, and the percentiles that they tell.

use crate::Value;
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use std::collections::HashMap;

/// Bits of the mantissa that take part: 32 buckets to a power of two.
pub(super) const FINE: u32 = 5;
const SHIFT: u32 = 52 - FINE;
/// The bucket of 1.0.
pub(super) const ONE: i64 = 1023 << FINE;

/// A number of any type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scalar {
    /// An integer; of a `u128` beyond `i128::MAX`, that.
    Whole(i128),
    /// A float; not NaN.
    Real(f64),
}

impl Scalar {
    /// The number that a value is; `None` for NaN and for what is not a number.
    pub fn of(value: Value<'_>) -> Option<Scalar> {
        Some(match value {
            Value::Uint(n) | Value::Duration(n) => Scalar::Whole(i128::from(n)),
            Value::Int(n) => Scalar::Whole(i128::from(n)),
            Value::Wide(n) => Scalar::Whole(i128::try_from(n).unwrap_or(i128::MAX)),
            Value::WideInt(n) => Scalar::Whole(n),
            Value::Float32(n) if !n.is_nan() => Scalar::Real(f64::from(n)),
            Value::Float(n) if !n.is_nan() => Scalar::Real(n),
            _ => return None,
        })
    }

    /// As a float, rounded where need be.
    pub fn as_f64(self) -> f64 {
        match self {
            Scalar::Whole(n) => n as f64,
            Scalar::Real(n) => n,
        }
    }

    fn min(self, other: Scalar) -> Scalar {
        if other.is_below(self) { other } else { self }
    }

    fn max(self, other: Scalar) -> Scalar {
        if self.is_below(other) { other } else { self }
    }

    fn is_below(self, other: Scalar) -> bool {
        match (self, other) {
            (Scalar::Whole(a), Scalar::Whole(b)) => a < b,
            (a, b) => a.as_f64() < b.as_f64(),
        }
    }
}

impl Serialize for Scalar {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Scalar::Whole(n) => match (i64::try_from(n), u64::try_from(n)) {
                (Ok(n), _) => serializer.serialize_i64(n),
                (_, Ok(n)) => serializer.serialize_u64(n),
                // Through `flatten` a wider integer would be refused.
                _ => serializer.serialize_f64(n as f64),
            },
            Scalar::Real(n) if n.is_finite() => serializer.serialize_f64(n),
            Scalar::Real(n) => serializer.collect_str(&n),
        }
    }
}

/// Counted values.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Counts {
    count: u64,
    range: Option<(Scalar, Scalar)>,
    buckets: HashMap<i64, u64>,
}

/// A bucket's position on the line of numbers, for which order is that of the values.
fn bucket_of(value: f64) -> i64 {
    let magnitude = (value.abs().to_bits() >> SHIFT) as i64;
    if value < 0.0 { -magnitude - 1 } else { magnitude }
}

/// Where `width` buckets from `bucket` on begin and end, as values.
pub(super) fn edges(bucket: i64, width: i64) -> (f64, f64) {
    // Beyond the largest float lies infinity, and beyond that what would be NaN.
    let edge = |magnitude: i64| {
        let edge = f64::from_bits((magnitude as u64) << SHIFT);
        if edge.is_nan() { f64::INFINITY } else { edge }
    };
    if bucket >= 0 {
        (edge(bucket), edge(bucket + width))
    } else {
        (-edge(-bucket), -edge(-bucket - width))
    }
}

impl Counts {
    /// Counts one value.
    pub fn add(&mut self, value: Scalar) {
        self.count += 1;
        let (min, max) = self.range.unwrap_or((value, value));
        self.range = Some((min.min(value), max.max(value)));
        *self.buckets.entry(bucket_of(value.as_f64())).or_default() += 1;
    }

    /// How many values.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The smallest value, exact.
    pub fn min(&self) -> Option<Scalar> {
        self.range.map(|r| r.0)
    }

    /// The largest value, exact.
    pub fn max(&self) -> Option<Scalar> {
        self.range.map(|r| r.1)
    }

    /// The value that `part` (0 to 1) of all values do not exceed; at most 1/32 too high.
    ///
    /// ```
    /// use gracepoint_analysis::hist::{Counts, Scalar};
    /// let mut counts = Counts::default();
    /// (1..=50).for_each(|n| counts.add(Scalar::Whole(n)));
    /// assert_eq!(counts.percentile(0.5), Some(Scalar::Whole(25)));
    /// assert_eq!(counts.percentile(1.0), Some(Scalar::Whole(50)));
    /// ```
    pub fn percentile(&self, part: f64) -> Option<Scalar> {
        let (min, max) = self.range?;
        let rank = ((self.count as f64 * part).ceil() as u64).clamp(1, self.count);
        let mut seen = 0;
        let bucket = self.sorted().into_iter().find(|(_, n)| {
            seen += n;
            seen >= rank
        });
        let (_, above) = edges(bucket?.0, 1);
        let value = match max {
            // The largest integer in the bucket.
            Scalar::Whole(_) if above.abs() < 1e18 => Scalar::Whole(above.ceil() as i128 - 1),
            Scalar::Whole(_) => Scalar::Whole(above as i128),
            Scalar::Real(_) => Scalar::Real(above),
        };
        Some(value.min(max).max(min))
    }

    /// Buckets that are not empty, in order of values.
    pub(super) fn sorted(&self) -> Vec<(i64, u64)> {
        let mut all: Vec<(i64, u64)> = self.buckets.iter().map(|(&b, &n)| (b, n)).collect();
        all.sort_unstable();
        all
    }

    /// Rows of `width` buckets that are not empty: the first bucket of each, and its count.
    pub(super) fn rows(&self, width: i64) -> Vec<(i64, u64)> {
        let mut rows: Vec<(i64, u64)> = Vec::new();
        for (bucket, n) in self.sorted() {
            let row = bucket.div_euclid(width) * width;
            match rows.last_mut() {
                Some((last, sum)) if *last == row => *sum += n,
                _ => rows.push((row, n)),
            }
        }
        rows
    }
}

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Bucket {
            from: Scalar,
            to: Scalar,
            count: u64,
        }
        let bucket = |&(bucket, count): &(i64, u64)| {
            let (from, to) = edges(bucket, 1);
            Bucket { from: Scalar::Real(from), to: Scalar::Real(to), count }
        };
        let buckets: Vec<Bucket> = self.sorted().iter().map(bucket).collect();
        let mut s = serializer.serialize_struct("Counts", 7)?;
        s.serialize_field("count", &self.count)?;
        s.serialize_field("min", &self.min())?;
        s.serialize_field("p50", &self.percentile(0.5))?;
        s.serialize_field("p90", &self.percentile(0.9))?;
        s.serialize_field("p99", &self.percentile(0.99))?;
        s.serialize_field("max", &self.max())?;
        s.serialize_field("buckets", &buckets)?;
        s.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_lies_in_its_bucket_and_buckets_are_in_order() {
        let values = [
            f64::NEG_INFINITY,
            -1e300,
            -65.0,
            -64.0,
            -1.0,
            -1e-310,
            0.0,
            1e-310,
            1.0,
            1.04,
            63.0,
            64.0,
            1e18,
            f64::MAX,
            f64::INFINITY,
        ];
        let mut last = i64::MIN;
        for value in values {
            let bucket = bucket_of(value);
            assert!(bucket >= last, "{value}");
            last = bucket;
            let (from, to) = edges(bucket, 1);
            assert!(from <= value && value <= to, "{value} in {from} to {to}");
        }
    }

    #[test]
    fn percentiles_are_close() {
        let mut counts = Counts::default();
        (0..100_000).for_each(|n| counts.add(Scalar::Whole(n - 50_000)));
        for (part, want) in [(0.01, -49_001.0), (0.25, -25_001.0), (0.9, 39_999.0)] {
            let got = counts.percentile(part).unwrap().as_f64();
            assert!((got - want).abs() <= f64::abs(want) / 30.0, "{part}: {got} for {want}");
        }
        assert_eq!(counts.min(), Some(Scalar::Whole(-50_000)));
        assert_eq!(counts.percentile(1.0), Some(Scalar::Whole(49_999)));
        assert_eq!(Counts::default().percentile(0.5), None);
    }
}
