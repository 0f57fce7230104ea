// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The table at the end of a comparison.

use std::fmt;
use std::time::Duration;

use super::contender::Sample;

/// The samples of each contender, summed up.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    rows: Vec<Row>,
}

/// One contender's figures.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// From exec to init: fastest, median and slowest.
    pub boot: [Duration; 3],
    /// Median of the resident bytes besides guest memory and VRAM.
    pub own_bytes: u64,
    /// The first contender's median time through this one's; 1 for the first.
    pub ratio: f64,
    /// How many boots counted.
    pub boots: usize,
}

impl Report {
    /// Sums up samples; a contender without any is left out.
    pub fn new(samples: Vec<(String, Vec<Sample>)>) -> Self {
        let mut rows: Vec<Row> = Vec::new();
        for (name, samples) in samples {
            let mut times: Vec<Duration> = samples.iter().map(|sample| sample.boot).collect();
            let mut sizes: Vec<u64> = samples.iter().map(|sample| sample.own_bytes).collect();
            times.sort_unstable();
            sizes.sort_unstable();
            let (Some(&fastest), Some(&slowest)) = (times.first(), times.last()) else { continue };
            let (median, own_bytes) = (median(&times, |a, b| (a + b) / 2), median(&sizes, |a, b| a.midpoint(b)));
            let reference = rows.first().map_or(median, |row| row.boot[1]);
            let ratio = reference.as_secs_f64() / median.as_secs_f64();
            rows.push(Row { name, boot: [fastest, median, slowest], own_bytes, ratio, boots: times.len() });
        }
        Self { rows }
    }

    /// The rows, in the order of the contenders.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }
}

/// The middle of sorted samples, of which there is at least one; between the middle two if their number is even.
fn median<T: Copy>(sorted: &[T], between: impl Fn(T, T) -> T) -> T {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 0 { between(sorted[middle - 1], sorted[middle]) } else { sorted[middle] }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or(0).max(4);
        writeln!(
            f,
            "{:width$}  {:>9}  {:>17}  {:>6}  {:>11}",
            "VMM", "exec→init", "(fastest-slowest)", "ratio", "own memory"
        )?;
        for row in &self.rows {
            let [fastest, median, slowest] = row.boot.map(|time| time.as_secs_f64());
            let mebibytes = row.own_bytes as f64 / f64::from(1 << 20);
            writeln!(
                f,
                "{:width$}  {median:>7.2} s  {:>17}  {:>6.2}  {mebibytes:>7.1} MiB",
                row.name,
                format!("({fastest:.2}-{slowest:.2} s)"),
                row.ratio
            )?;
        }
        let boots = self.rows.first().map_or(0, |row| row.boots);
        write!(f, "medians of {boots}; ratio: the first row's time through this row's")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(milliseconds: u64, own_bytes: u64) -> Sample {
        Sample { boot: Duration::from_millis(milliseconds), own_bytes }
    }

    #[test]
    fn medians_and_ratios() {
        let report = Report::new(vec![
            ("a".to_owned(), vec![sample(900, 1 << 20), sample(600, 3 << 20), sample(800, 2 << 20)]),
            ("b".to_owned(), vec![sample(1000, 50 << 20); 3]),
            ("never ran".to_owned(), Vec::new()),
        ]);
        let [a, b] = report.rows() else { panic!("{report:?}") };
        assert_eq!(a.boot.map(|time| time.as_millis()), [600, 800, 900]);
        assert_eq!(a.own_bytes, 2 << 20);
        assert!((b.ratio - 0.8).abs() < 1e-9);
        let text = report.to_string();
        assert!(text.contains("0.80") && text.contains("50.0 MiB") && text.contains("medians of 3"), "{text}");
    }

    #[test]
    fn an_even_number_of_samples_has_its_median_between_the_middle_two() {
        let samples = [100, 200, 400, 900].map(|boot| sample(boot, boot << 20));
        let report = Report::new(vec![("a".to_owned(), samples.to_vec())]);
        let [a] = report.rows() else { panic!("{report:?}") };
        assert_eq!((a.boot[1].as_millis(), a.own_bytes), (300, 300 << 20));
    }

    #[test]
    fn no_samples_make_an_empty_table() {
        assert_eq!(Report::new(Vec::new()).to_string().lines().count(), 2);
    }
}
