// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Runs one test: in a process of its own, against the clock, and looks at the device afterwards.
//!
//! A test that crashes, gets SIGBUS or hangs fails alone. Whatever a test does, once its processes are gone the device
//! must have all its VRAM back and no channel in error, and the kernel must have had nothing to complain about: that is
//! checked here, for all of them.

use std::io;
use std::time::{Duration, Instant};

use ersatz_abi::counter::Counter;
use ersatz_guest_image::test_mark::End;
use ersatz_init::kernel_log::KernelLog;
use nix::errno::Errno;
use thiserror::Error;

use crate::device::{Device, PATH};
use crate::ktap::{Failure, Verdict};
use crate::suite::Test;
use crate::{pattern, watched};

/// How long VRAM may take to come back once a test's processes are gone: pages are freed behind an RCU grace period.
const SETTLING: Duration = Duration::from_secs(10);

/// How tests are run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The usual time limit of a test.
    pub time_limit: Duration,
    /// Seed of all random contents and decisions.
    pub seed: u64,
}

/// Why a test could not be run at all.
#[derive(Debug, Error)]
pub enum RunError {
    /// There is no device.
    #[error("cannot open {PATH}: {0}; is the driver loaded and bound?")]
    NoDevice(#[source] io::Error),
    /// The driver does not answer.
    #[error("the driver does not answer: {0}")]
    Driver(#[source] Errno),
    /// The system refused a process or a pipe.
    #[error("cannot start a process for the test: {0}")]
    Process(#[source] Errno),
}

/// What the device looks like between tests.
#[derive(Clone, Copy, Debug)]
struct Idle {
    free: u64,
    failed_faults: u64,
    channel_errors: u64,
    bad_accesses: u64,
}

impl Idle {
    fn look() -> Result<Self, RunError> {
        // Opened anew each time: an open file would keep the module from being unloaded.
        let device = Device::try_open().map_err(RunError::NoDevice)?;
        let info = device.try_info().map_err(RunError::Driver)?;
        let counters = device.try_counters().map_err(RunError::Driver)?.values;
        Ok(Self {
            free: info.vram_free,
            failed_faults: info.cpu_faults_failed,
            channel_errors: counters[usize::from(Counter::ChannelErrors as u8)],
            bad_accesses: counters[usize::from(Counter::BadAccesses as u8)],
        })
    }
}

/// Runs tests, one after the other.
#[derive(Debug)]
pub struct Runner {
    options: Options,
    log: KernelLog,
}

impl Runner {
    /// A runner, and what the kernel complained about before it.
    ///
    /// # Errors
    ///
    /// If the kernel log cannot be read.
    pub fn new(options: Options) -> io::Result<(Self, Vec<String>)> {
        let mut log = KernelLog::open()?;
        let earlier = log.complaints()?;
        Ok((Self { options, log }, earlier))
    }

    /// Sets the seed of the tests from here on.
    pub fn set_seed(&mut self, seed: u64) {
        self.options.seed = seed;
    }

    /// Runs a test. What it printed is returned beside the verdict.
    pub fn run(&mut self, test: &Test) -> (Verdict, String) {
        let (verdict, output) = run_checked(test, self.options)
            .unwrap_or_else(|error| (Verdict::Fail(Failure::of_check(error.to_string())), String::new()));
        (with_complaints(verdict, &mut self.log), output)
    }
}

/// Returns the verdict on a test, which is a failure if the kernel has complained since the log was last read.
pub fn with_complaints(verdict: Verdict, log: &mut KernelLog) -> Verdict {
    match log.complaints() {
        Ok(complaints) if complaints.is_empty() => verdict,
        Ok(complaints) => {
            let also = match verdict {
                Verdict::Fail(failure) => format!("{}\n", failure.reason),
                Verdict::Pass | Verdict::Skip(_) => String::new(),
            };
            let reason = format!("{also}the kernel complains:\n{}", complaints.join("\n"));
            Verdict::Fail(Failure { end: End::KernelComplaint, reason })
        }
        Err(error) => Verdict::Fail(Failure::of_check(format!("cannot read the kernel log: {error}"))),
    }
}

fn run_checked(test: &Test, options: Options) -> Result<(Verdict, String), RunError> {
    let info = Device::try_open().map_err(RunError::NoDevice)?.try_info().map_err(RunError::Driver)?;
    if let Some(reason) = test.unmet(&info) {
        return Ok((Verdict::Skip(reason), String::new()));
    }
    let before = Idle::look()?;
    let (verdict, output) = run_in_process(test, options).map_err(RunError::Process)?;
    let aftermath = if test.disruptive { check_after_reload(&before) } else { check_device(&before) };
    let verdict = match (verdict, aftermath) {
        (Verdict::Pass, Ok(Some(reason))) => Verdict::Fail(Failure::of_check(reason)),
        (Verdict::Pass, Err(error)) => Verdict::Fail(Failure::of_check(error.to_string())),
        // What the test itself says comes first: what is wrong afterwards may follow from that.
        (verdict, _) => verdict,
    };
    Ok((verdict, output))
}

/// What is wrong with the device after a test, if anything.
fn check_device(before: &Idle) -> Result<Option<String>, RunError> {
    let after = settle(before.free)?;
    let risen = |what: &str, before: u64, after: u64| (before != after).then(|| format!("{} {what}", after - before));
    Ok(unreturned(before, &after)
        .or_else(|| risen("CPU faults ended in SIGBUS", before.failed_faults, after.failed_faults))
        .or_else(|| risen("errors of channels", before.channel_errors, after.channel_errors))
        .or_else(|| risen("bad register accesses", before.bad_accesses, after.bad_accesses)))
}

/// The same after the driver was unbound or unloaded, when all that counts from its start has begun again.
fn check_after_reload(before: &Idle) -> Result<Option<String>, RunError> {
    Ok(unreturned(before, &settle(before.free)?))
}

fn unreturned(before: &Idle, after: &Idle) -> Option<String> {
    let missing = before.free.checked_sub(after.free).filter(|&bytes| bytes != 0)?;
    Some(format!("{missing} bytes of VRAM are still in use though all processes of the test are gone"))
}

/// What the device looks like once it has its VRAM back, or once patience has ended.
fn settle(free: u64) -> Result<Idle, RunError> {
    let deadline = Instant::now() + SETTLING;
    loop {
        let now = Idle::look()?;
        if now.free >= free || Instant::now() > deadline {
            return Ok(now);
        }
        drain_page_lists();
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Has the kernel give up the references in its lists of pages for each CPU. A coherent page that was locked when it was
/// unmapped stays in one of them until that CPU has something else to put there, which an idle one never has.
pub fn drain_page_lists() {
    // Dropping the page cache begins with that. Without it there is only longer to wait.
    let _ = std::fs::write("/proc/sys/vm/drop_caches", "1");
}

fn run_in_process(test: &Test, options: Options) -> Result<(Verdict, String), Errno> {
    watched::run(test.time_limit(options.time_limit), || {
        pattern::seed(options.seed, test.name);
        (test.run)();
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: Options = Options { time_limit: Duration::from_secs(20), seed: 1 };

    /// Runs a test in a process of its own, on that process's only thread, as the runner runs: a child that is forked beside
    /// other threads may find a lock held that nobody releases.
    fn alone(name: &str, body: impl FnOnce()) {
        const VARIABLE: &str = "ERSATZ_TEST_ALONE";
        if std::env::var_os(VARIABLE).is_some() {
            return body();
        }
        let name = format!("runner::tests::{name}");
        let program = std::env::current_exe().unwrap();
        let mut command = std::process::Command::new(program);
        let output = command.args(["--exact", &name, "--test-threads=1"]).env(VARIABLE, "1").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }

    #[test]
    fn a_panic_fails_the_test_and_its_words_are_kept() {
        alone("a_panic_fails_the_test_and_its_words_are_kept", || {
            let test = Test::new("x.panics", || {
                // Not by `eprintln`, which the harness that runs this very test captures.
                nix::unistd::write(io::stderr(), b"the reason").unwrap();
                panic!();
            });
            let (verdict, output) = run_in_process(&test, OPTIONS).unwrap();
            assert_eq!(verdict, Verdict::Fail(Failure::of_check("ended with status 101")));
            assert!(output.contains("the reason"), "{output}");
        });
    }

    #[test]
    fn a_crash_fails_the_test_alone() {
        alone("a_crash_fails_the_test_alone", || {
            let test = Test::new("x.crashes", || std::process::abort());
            let (verdict, _) = run_in_process(&test, OPTIONS).unwrap();
            assert!(
                matches!(&verdict, Verdict::Fail(failure) if failure.end == End::Killed && failure.reason.contains("SIGABRT")),
                "{verdict:?}"
            );
        });
    }

    #[test]
    fn a_hang_ends_at_the_limit_and_says_where() {
        alone("a_hang_ends_at_the_limit_and_says_where", || {
            let test = Test::new("x.hangs", || std::thread::sleep(Duration::from_secs(1000)));
            let options = Options { time_limit: Duration::from_millis(50), ..OPTIONS };
            let (verdict, _) = run_in_process(&test, options).unwrap();
            assert!(
                matches!(&verdict, Verdict::Fail(failure) if failure.end == End::TimedOut && failure.reason.contains("state S")),
                "{verdict:?}"
            );
        });
    }

    #[test]
    fn a_test_that_returns_passes() {
        alone("a_test_that_returns_passes", || {
            assert_eq!(run_in_process(&Test::new("x.holds", || ()), OPTIONS).unwrap().0, Verdict::Pass);
        });
    }
}
