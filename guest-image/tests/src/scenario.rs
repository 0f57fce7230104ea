// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Tries scenarios: `--scenario FILE`.
//!
//! An attempt is made twice, on the GPU and on plain memory, each in fresh processes: [`crew`] has these, [`executor`] does the steps of
//! one thread, [`calls`] what each step is, by way of [`guarded`] accesses to the memory that [`ranges`] knows. They share a [`board`],
//! which the [`monitor`] reads: it tells of each step as it ends, has the [`keeper`] arm holds ([`held_point`]) and end them, and finds hangs. [`trial`]
//! compares the two, and [`leak`] looks whether the device has its memory back. [`batch`] tries many scenarios in one
//! guest, and [`mod@disk`] is what transfers go to.

mod batch;
mod board;
mod calls;
mod content;
mod context;
mod cpus;
mod crew;
mod disk;
mod executor;
mod guarded;
mod held_point;
mod keeper;
mod leak;
mod monitor;
mod ranges;
mod report;
mod surroundings;
mod trial;

use std::fs;
use std::path::{Path, PathBuf};

use ersatz_init::kernel_log::KernelLog;
use ersatz_scenario::report::{Entry, Ground};
use ersatz_scenario::{Scenario, Symptom};
use ersatz_uapi::MemoryType;
use nix::errno::Errno;
use nix::libc;
use nix::unistd::{ForkResult, Pid, fork, setpgid};

use self::board::SharedBoard;
use self::context::Context;
use self::cpus::Cpus;
use self::disk::Disk;
use self::held_point::Holders;
use self::monitor::Monitor;
use self::ranges::Ranges;
use self::report::Reporter;
use self::surroundings::Surroundings;
use self::trial::Trial;
use crate::device::Device;

pub use batch::run_batch;

/// What to do with the scenarios.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How often each is tried.
    pub attempts: u32,
    /// Only on plain memory, which needs no device: to see whether a scenario does what its author means.
    pub only_plain: bool,
}

/// Exit status: all as expected; something else was found; a text is no scenario; nothing could be tried.
const STATUS_EXPECTED: u8 = 0;
const STATUS_FOUND: u8 = 1;
const STATUS_INVALID: u8 = 2;
const STATUS_UNAVAILABLE: u8 = 4;

/// Tries the scenarios in these files, one after the other, and returns the exit status.
pub fn run(paths: &[PathBuf], options: Options) -> u8 {
    let mut scenarios = Vec::new();
    for path in paths {
        match read(path) {
            Ok(scenario) => scenarios.push(scenario),
            Err(error) => {
                eprintln!("ersatz-guest-tests: {error}");
                return STATUS_INVALID;
            }
        }
    }
    let mut runner = Runner::new(Reporter::default(), options);
    let statuses: Vec<u8> =
        scenarios.iter().map(|scenario| runner.try_scenario(scenario, 0..options.attempts)).collect();
    if statuses.iter().all(|&status| status == STATUS_UNAVAILABLE) {
        return STATUS_UNAVAILABLE;
    }
    if statuses.contains(&STATUS_FOUND) { STATUS_FOUND } else { STATUS_EXPECTED }
}

/// Has all threads share one heap, which has room and never shrinks. To give it more takes the lock of the address space for writing; a
/// thread that waits for that behind a step which wants the lock, too, would not do its own step.
fn keep_heap() {
    const ROOM: i32 = 4 << 20;
    for (parameter, value) in [(libc::M_ARENA_MAX, 1), (libc::M_TOP_PAD, ROOM), (libc::M_TRIM_THRESHOLD, i32::MAX)] {
        // SAFETY: the call sets a number in the allocator.
        let _ = unsafe { libc::mallopt(parameter, value) };
    }
}

fn read(path: &Path) -> Result<Scenario, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    ersatz_scenario::parse(&name, &text).map_err(|error| error.to_string())
}

#[derive(Debug)]
struct Runner {
    reporter: Reporter,
    log: Option<KernelLog>,
    holders: Holders,
    options: Options,
    /// Whether something hung, or the kernel complained: what comes after may suffer from it.
    tainted: bool,
}

impl Runner {
    fn new(reporter: Reporter, options: Options) -> Self {
        keep_heap();
        // Processes whose parents are over become children of the monitor, which sees their ends.
        // SAFETY: the call changes only whose children those become.
        let _ = unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
        Self { reporter, log: KernelLog::open().ok(), holders: Holders::default(), options, tainted: false }
    }

    /// Makes the attempts of these numbers.
    fn try_scenario(&mut self, scenario: &Scenario, attempts: std::ops::Range<u32>) -> u8 {
        if let Err(reason) = self.prepare(scenario) {
            self.reporter.tell(&Entry::Unavailable { scenario: scenario.name.clone(), reason });
            return STATUS_UNAVAILABLE;
        }
        let surroundings = Surroundings::keep(scenario);
        for attempt in attempts {
            let hung = self.attempt(scenario, attempt).unwrap_or_else(|errno| {
                let text = format!("the runner cannot start a process: {errno}");
                self.reporter.find(Symptom::Order, None, None, text);
                true
            });
            self.reporter.tell(&Entry::End { scenario: scenario.name.clone(), attempt });
            self.tainted |= hung;
            if hung {
                // What hangs in the kernel would be in the way of the next.
                break;
            }
        }
        drop(surroundings);
        let expected = scenario.expected_on(&crate::proc_fs::kernel_release());
        let found = self.reporter.take_symptoms();
        if found.iter().all(|symptom| expected.contains(symptom)) { STATUS_EXPECTED } else { STATUS_FOUND }
    }

    /// Why the scenario cannot be tried here, if it cannot.
    fn prepare(&mut self, scenario: &Scenario) -> Result<(), String> {
        if self.options.only_plain {
            return Ok(());
        }
        let device = Device::try_open().map_err(|error| format!("cannot open {}: {error}", crate::device::PATH))?;
        let info = device.try_info().map_err(|errno| format!("the driver does not answer: {errno}"))?;
        let fits = |&memory: &MemoryType| memory as u32 == info.memory_type;
        if !scenario.guest.memory.is_empty() && !scenario.guest.memory.iter().any(fits) {
            return Err("the driver has registered VRAM as another type of memory".into());
        }
        // Each run on a ground makes its own; what cannot be made now cannot be made then.
        Disk::of(scenario, false)?;
        self.holders.open(scenario, &device)
    }

    /// Makes an attempt; true if something in it hung.
    fn attempt(&mut self, scenario: &Scenario, attempt: u32) -> Result<bool, Errno> {
        let gpu = if self.options.only_plain { None } else { Some(self.on_gpu(scenario, attempt)?) };
        if gpu.as_ref().is_some_and(|gpu| gpu.hung) {
            // That is finding enough, and plain memory may be the next to hang.
            return Ok(true);
        }
        let plain = self.on_ground(scenario, Ground::Plain, attempt, 0)?;
        for finding in gpu.iter().filter(|_| !plain.hung).flat_map(|gpu| trial::compare(scenario, gpu, &plain)) {
            self.reporter.tell(&finding);
        }
        Ok(plain.hung)
    }

    fn on_gpu(&mut self, scenario: &Scenario, attempt: u32) -> Result<Trial, Errno> {
        // What was before is not this attempt's.
        let _ = self.log.as_mut().map(KernelLog::complaints);
        let device = Device::try_open().ok();
        let info = device.as_ref().and_then(|device| device.try_info().ok()).unwrap_or_default();
        let trial = self.on_ground(scenario, Ground::Gpu, attempt, info.vram_free)?;
        if let Some(device) = device.filter(|_| !trial.hung) {
            let missing = leak::missing_pages(&device, info.vram_free);
            if missing != 0 {
                let text = format!("{missing} pages of VRAM are in use though all processes have ended");
                self.reporter.find(Symptom::Leak, None, None, text);
            }
        }
        for complaint in self.log.as_mut().and_then(|log| log.complaints().ok()).unwrap_or_default() {
            self.tainted = true;
            self.reporter.find(Symptom::KernelBug, None, None, complaint);
        }
        Ok(trial)
    }

    fn on_ground(
        &mut self,
        scenario: &Scenario,
        ground: Ground,
        attempt: u32,
        free_before: u64,
    ) -> Result<Trial, Errno> {
        self.reporter.tell(&Entry::Begin { scenario: scenario.name.clone(), run: ground, attempt });
        let board = SharedBoard::new()?;
        let disk = Disk::of(scenario, self.options.only_plain).unwrap_or_else(|reason| {
            self.reporter.find(Symptom::Order, None, None, reason);
            None
        });
        let context = || Context {
            scenario,
            board: &board,
            ground,
            attempt,
            ranges: Ranges::of(scenario),
            device: if ground == Ground::Gpu { Device::try_open().ok() } else { None },
            disk: disk.as_ref(),
            free_before,
        };
        // SAFETY: this process has one thread, so there is no lock that the child could find held for ever.
        let first = match unsafe { fork() }? {
            ForkResult::Child => {
                let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
                crew::first(&context())
            }
            ForkResult::Parent { child } => child,
        };
        // Both sides do it, whoever comes first.
        let _ = setpgid(first, first);
        Cpus::of(scenario).enter_others();
        let context = context();
        Ok(Monitor::new(&context, &self.holders, &mut self.reporter, first).watch())
    }
}
