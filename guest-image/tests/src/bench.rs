// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How fast memory migrates, as a process in the guest sees it.
//!
//! The names are those of the xe driver's statistics (`svm_SIZE_WHAT_us`), so that figures compare. Each is the median of
//! several runs; rates are of the largest size. What is measured is everything between the system call, or the touch, and
//! its return: the memory manager, the driver, the device and the machine that emulates it.
//!
//! [`comparison`] holds the same migrations by the kernel's own test driver against them.

pub mod comparison;
mod contender;
mod device_faults;
mod dmirror;
mod raw_copy;

use std::fmt;
use std::time::{Duration, Instant};

use ersatz_uapi::Info;

use crate::device::Device;
use crate::pattern::{PAGE, Pattern};
use crate::region::{HUGE_PAGE, Region};

/// One measured figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
}

impl fmt::Display for Figure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:<36} {:>12.1} {}", self.name, self.value, self.unit)
    }
}

/// A size to measure, and how often.
struct Size {
    label: &'static str,
    pages: usize,
    runs: usize,
}

const SIZES: &[Size] = &[
    Size { label: "4K", pages: 1, runs: 101 },
    Size { label: "64K", pages: 16, runs: 51 },
    Size { label: "2M", pages: HUGE_PAGE / PAGE, runs: 21 },
    Size { label: "32M", pages: (32 << 20) / PAGE, runs: 5 },
];

/// How long the steps of a round trip took.
#[derive(Clone, Copy, Debug)]
struct Times {
    to_device: Duration,
    to_system: Duration,
    touch: Duration,
}

/// Measures all sizes that fit into VRAM. Each figure is handed to `tell` as it is known.
///
/// # Panics
///
/// If the device loses content or refuses memory: figures of a device that does not work mean nothing.
pub fn run(device: &Device, mut tell: impl FnMut(&Figure)) {
    let info = device.info();
    let mut rates = Vec::new();
    for size in SIZES.iter().filter(|size| fits(size, &info)) {
        let times: Vec<Times> = (0..size.runs).map(|_| round_trip(device, size.pages)).collect();
        let mut steps = vec![
            ("migrate", times.iter().map(|times| times.to_device).collect()),
            ("migrate_back", times.iter().map(|times| times.to_system).collect()),
        ];
        // A CPU that uses VRAM in place takes no fault.
        if !device.is_coherent() {
            steps.push(("pagefault", times.iter().map(|times| times.touch).collect()));
        }
        for (step, times) in steps {
            let time = median(times);
            tell(&Figure {
                name: format!("svm_{}_{step}_us", size.label),
                value: time.as_secs_f64() * 1e6,
                unit: "us",
            });
            rates.retain(|rate: &Figure| !rate.name.ends_with(&format!("_{step}_rate")));
            let megabytes = (size.pages * PAGE) as f64 / 1e6;
            rates.push(Figure {
                name: format!("svm_{}_{step}_rate", size.label),
                value: megabytes / time.as_secs_f64(),
                unit: "MB/s",
            });
        }
    }
    rates.iter().for_each(&mut tell);
    device_faults::run(device, tell);
}

fn fits(size: &Size, info: &Info) -> bool {
    (size.pages * PAGE) as u64 <= info.vram_free
}

/// Takes memory to the device and back by ioctl, and again by the CPU's touching each page.
fn round_trip(device: &Device, pages: usize) -> Times {
    let pattern = Pattern::new(pages as u64);
    let region = Region::filled(pages, pattern);
    let to_device = timed(|| device.to_device(region.span()));
    let to_system = timed(|| device.to_system(region.span()));
    device.to_device(region.span());
    let touch = timed(|| (0..pages).map(|index| u64::from(region.touch(index))).sum());
    region.check(pattern);
    Times { to_device, to_system, touch }
}

fn timed(work: impl FnOnce() -> u64) -> Duration {
    let start = Instant::now();
    std::hint::black_box(work());
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        let seconds = |numbers: &[u64]| numbers.iter().copied().map(Duration::from_secs).collect::<Vec<_>>();
        assert_eq!(median(seconds(&[9, 1, 5])), Duration::from_secs(5));
        assert_eq!(median(Vec::new()), Duration::ZERO);
    }

    #[test]
    fn a_size_that_does_not_fit_is_left_out() {
        let info = Info { vram_free: 2 << 20, ..Info::default() };
        assert_eq!(SIZES.iter().filter(|size| fits(size, &info)).count(), 3);
    }
}
