// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Measures how the times of two things compare.

use std::time::{Duration, Instant};

use criterion::Throughput;
use criterion::measurement::{Measurement, ValueFormatter};

/// Does two things in turn, `pairs` times; how many times as long the first took as the second, times `pairs`.
pub fn of(pairs: u64, mut first: impl FnMut(), mut second: impl FnMut()) -> f64 {
    let [mut one, mut other] = [Duration::ZERO; 2];
    for _ in 0..pairs {
        one += time(&mut first);
        other += time(&mut second);
    }
    one.as_secs_f64() / other.as_secs_f64() * pairs as f64
}

fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// The measurement for benchmarks that report what [`of`] returns.
pub struct Ratio;

impl Measurement for Ratio {
    type Intermediate = Instant;
    type Value = f64;

    fn start(&self) -> Instant {
        Instant::now()
    }

    fn end(&self, start: Instant) -> f64 {
        start.elapsed().as_secs_f64()
    }

    fn add(&self, one: &f64, other: &f64) -> f64 {
        one + other
    }

    fn zero(&self) -> f64 {
        0.0
    }

    fn to_f64(&self, value: &f64) -> f64 {
        *value
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        self
    }
}

impl ValueFormatter for Ratio {
    fn scale_values(&self, _: f64, _: &mut [f64]) -> &'static str {
        "times"
    }

    fn scale_throughputs(&self, _: f64, _: &Throughput, _: &mut [f64]) -> &'static str {
        "times"
    }

    fn scale_for_machines(&self, _: &mut [f64]) -> &'static str {
        "times"
    }
}
