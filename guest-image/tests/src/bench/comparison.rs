// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Our driver beside the kernel's test driver, in one boot and by turns, so that what disturbs one disturbs the other.

use std::fmt;
use std::time::Duration;

#[cfg(test)]
use super::contender::Phases;
use super::contender::{Contender, Mapping, Times};
use super::dmirror::{Dmirror, Module};
use super::median;
use super::raw_copy::{self, RawRates};
use crate::device::Device;
use crate::pattern::PAGE;
use crate::statistics::Steps;

/// What one size in one mapping gave: the times of ours and of the test driver, one of each a round.
#[derive(Clone, Debug)]
struct Case {
    bytes: usize,
    mapping: Mapping,
    ersatz: Vec<Times>,
    test_hmm: Vec<Times>,
}

/// All of it. Its text is a table.
#[derive(Clone, Debug)]
pub struct Comparison {
    cases: Vec<Case>,
    raw: RawRates,
    rounds: u32,
}

/// Measures sizes, in MiB, in both mappings.
///
/// # Panics
///
/// If a driver does not work, or a size does not fit into VRAM.
pub fn run(mebibytes: &[u32], rounds: u32) -> Comparison {
    let mut cases = Vec::new();
    for &size in mebibytes {
        let bytes = (size as usize) << 20;
        for mapping in [Mapping::Small, Mapping::Huge] {
            cases.push(Case { bytes, mapping, ersatz: Vec::new(), test_hmm: Vec::new() });
        }
    }
    // One more round warms up what both stand on, and does not count.
    for round in 0..=rounds {
        for case in &mut cases {
            let pages = case.bytes / PAGE;
            let ersatz = Contender::Ersatz(Device::open()).measure(pages, case.mapping);
            let module = Module::load();
            let test_hmm = Contender::TestHmm(Dmirror::open(pages)).measure(pages, case.mapping);
            drop(module);
            if round > 0 {
                case.ersatz.push(ersatz);
                case.test_hmm.push(test_hmm);
            }
        }
    }
    Comparison { cases, raw: raw_copy::measure(), rounds }
}

/// A row: its name, what of the times it is about, and the engine's own rate that it is held against.
type Row = (&'static str, fn(&Times) -> Duration, f64);

impl Case {
    /// Median rates of ours and of the test driver, in bytes per second.
    fn rates(&self, step: fn(&Times) -> Duration) -> [f64; 2] {
        [&self.ersatz, &self.test_hmm]
            .map(|times| self.bytes as f64 / median(times.iter().map(step).collect()).as_secs_f64())
    }

    /// Writes where the time of ours goes, in microseconds for each page: medians of the steps, and what is outside of them.
    fn write_steps(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        type Way = (&'static str, fn(&Times) -> Duration, fn(&Times) -> Steps);
        let ways: [Way; 3] = [
            ("to the device", |times| times.to_device, |times| times.steps.to_device),
            ("back to system memory", |times| times.to_system, |times| times.steps.to_system),
            ("back by CPU touch", |times| times.touch, |times| times.steps.touch),
        ];
        let pages = (self.bytes / PAGE) as f64;
        let per_page = |time: Duration| time.as_secs_f64() * 1e6 / pages;
        writeln!(f, "  us per 4 KiB, ersatz         collect  allocate     map    copy  commit  finalize   other")?;
        for (name, whole, steps) in ways {
            let of_step =
                |index: usize| median(self.ersatz.iter().map(|times| steps(times).named()[index].1).collect());
            let [collect, allocate, map, copy, commit, finalize] = [0, 1, 2, 3, 4, 5].map(of_step);
            let sum = collect + allocate + map + copy + commit + finalize;
            let other = median(self.ersatz.iter().map(whole).collect()).saturating_sub(sum);
            writeln!(
                f,
                "    {name:<24} {:>7.2} {:>9.2} {:>7.2} {:>7.2} {:>7.2} {:>9.2} {:>7.2}",
                per_page(collect),
                per_page(allocate),
                per_page(map),
                per_page(copy),
                per_page(commit),
                per_page(finalize),
                per_page(other)
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: [Row; 4] = [
            ("to the device", |times| times.to_device, self.raw.to_device),
            ("  without reading back", |times| times.to_device.saturating_sub(times.read_back), self.raw.to_device),
            ("back to system memory", |times| times.to_system, self.raw.to_system),
            ("back by CPU touch", |times| times.touch, self.raw.to_system),
        ];
        for case in &self.cases {
            let title = format!("{} MiB in pages of {}", case.bytes >> 20, case.mapping.name());
            writeln!(f, "{title:<28} {:>13} {:>13} {:>7} {:>14}", "ersatz", "test_hmm", "ratio", "of the engine")?;
            for (name, step, engine) in rows {
                let [ersatz, test_hmm] = case.rates(step);
                writeln!(
                    f,
                    "  {name:<26} {:>8.1} MB/s {:>8.1} MB/s {:>7.2} {:>14.3}",
                    ersatz / 1e6,
                    test_hmm / 1e6,
                    ersatz / test_hmm,
                    ersatz / engine
                )?;
            }
            case.write_steps(f)?;
        }
        writeln!(
            f,
            "the engine by itself: to the device {:.0} MB/s, back {:.0} MB/s",
            self.raw.to_device / 1e6,
            self.raw.to_system / 1e6
        )?;
        write!(
            f,
            "medians of {}; ratio: our rate through test_hmm's, whose ioctl reads back all it has migrated to the device; of the \
             engine: our rate through the engine's",
            self.rounds
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_rates_ratios_and_shares() {
        let milliseconds = Duration::from_millis;
        let ours = Times {
            to_device: milliseconds(10),
            read_back: Duration::ZERO,
            to_system: milliseconds(20),
            touch: milliseconds(40),
            steps: Phases {
                to_device: Steps { collect: milliseconds(4), copy: milliseconds(1), ..Steps::default() },
                ..Phases::default()
            },
        };
        let theirs = Times { to_device: milliseconds(30), read_back: milliseconds(10), ..ours };
        let case = Case { bytes: 1 << 20, mapping: Mapping::Huge, ersatz: vec![ours; 3], test_hmm: vec![theirs; 3] };
        let raw = RawRates { to_device: 1.048_576e9, to_system: 1.048_576e9 };
        let text = Comparison { cases: vec![case], raw, rounds: 3 }.to_string();
        let words = |name: &str| -> Vec<String> {
            let line = text.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
            line.split_whitespace().map(str::to_owned).collect()
        };
        assert!(text.starts_with("1 MiB in pages of 2 MiB"), "{text}");
        assert!(words("to the device").ends_with(&["3.00", "0.100"].map(str::to_owned)), "{text}");
        assert!(words("without reading back").ends_with(&["2.00", "0.100"].map(str::to_owned)), "{text}");
        assert!(words("back by CPU touch").ends_with(&["1.00", "0.025"].map(str::to_owned)), "{text}");
        let steps = text.lines().skip_while(|line| !line.contains("collect")).nth(1).unwrap();
        assert!(steps.ends_with("15.62      0.00    0.00    3.91    0.00      0.00   19.53"), "{text}");
    }
}
