// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest-side tests, with both memory types, with one GPU and with two, under every accelerator that runs on any machine;
//! and the protocol oracle over what the devices saw of them. On the default kernel all of it, on each other one what can tell
//! whether the driver works there, too.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow};
use ersatz_guest_image::manifest::DEBUG_KERNEL;

use super::{Tally, brought, identity, scenarios};
use crate::log::tail;
use crate::progress::{Progress, Stage};
use crate::store::Store;

/// The accelerator whose logs the protocol oracle looks at, and under which scenarios are tried: of the two, the one that writes them straight to a file.
const TRACED: &str = "tcg";
/// The accelerator under which the guest's vCPUs exit to this VMM.
const COUNTED: &str = "nested";
/// VRAM enough for every test, and soon filled by those that fill it, even where a processor is emulated twice.
const SMALL: &str = "16M";
/// VRAM enough for the kernel's own tests, which move some MiB at once.
const MEDIUM: &str = "64M";
/// The largest there is, of which the driver uses what it finds memory for `struct page`s for.
const LARGE: &str = "1T";
/// What is run under an accelerator on the default kernel, a guest each: all tests with one GPU, then those for two that skipped
/// themselves, then under [`TRACED`] some with a guest for each test, and the kernel's own. The first guest boots with all it has, the others start from a
/// snapshot.
///
/// Where the processor is emulated twice, the tests are those in which the bus, the BAR and the device matter, which is what differs there;
/// the others take half an hour more, and are for [`Depth::Everything`].
const SUITES: &[(&str, &[Suite])] = &[
    (
        "nested",
        &[
            Suite { mode: "private", gpus: 1, vram: SMALL, filters: BUS, start: Start::Boot },
            Suite { mode: "coherent", gpus: 1, vram: SMALL, filters: BUS, start: Start::Snapshot },
            Suite { mode: "private", gpus: 2, vram: LARGE, filters: TWO_GPUS, start: Start::Snapshot },
            Suite { mode: "coherent", gpus: 2, vram: LARGE, filters: TWO_GPUS, start: Start::Snapshot },
            Suite { mode: "private", gpus: 1, vram: SMALL, filters: PASSED_THROUGH, start: Start::PassThrough },
            Suite { mode: "coherent", gpus: 1, vram: SMALL, filters: PASSED_THROUGH, start: Start::PassThrough },
        ],
    ),
    (
        "tcg",
        &[
            Suite { mode: "private", gpus: 1, vram: SMALL, filters: &[], start: Start::Boot },
            Suite { mode: "coherent", gpus: 1, vram: SMALL, filters: &[], start: Start::Snapshot },
            Suite { mode: "private", gpus: 2, vram: LARGE, filters: TWO_GPUS, start: Start::Snapshot },
            Suite { mode: "coherent", gpus: 2, vram: LARGE, filters: TWO_GPUS, start: Start::Snapshot },
            Suite { mode: "private", gpus: 1, vram: SMALL, filters: ISOLATED, start: Start::Isolated },
            Suite { mode: "private", gpus: 1, vram: SMALL, filters: MANY_NODES, start: Start::ManyNodes },
            Suite { mode: "coherent", gpus: 1, vram: SMALL, filters: MANY_NODES, start: Start::ManyNodes },
            Suite { mode: "private", gpus: 4, vram: MEDIUM, filters: KERNELS_OWN, start: Start::Snapshot },
            Suite { mode: "coherent", gpus: 4, vram: MEDIUM, filters: KERNELS_OWN, start: Start::Snapshot },
        ],
    ),
];

/// What is run on a kernel that is not the default one: all tests with one GPU, from snapshots, under the quicker accelerator;
/// and some under the other one.
const OTHER_KERNEL_SUITES: &[(&str, Suite)] = &[
    ("tcg", Suite { mode: "private", gpus: 1, vram: SMALL, filters: &[], start: Start::Snapshot }),
    ("tcg", Suite { mode: "coherent", gpus: 1, vram: SMALL, filters: &[], start: Start::Snapshot }),
    ("tcg", Suite { mode: "private", gpus: 4, vram: MEDIUM, filters: KERNELS_OWN, start: Start::Snapshot }),
    ("tcg", Suite { mode: "coherent", gpus: 4, vram: MEDIUM, filters: KERNELS_OWN, start: Start::Snapshot }),
    ("nested", Suite { mode: "private", gpus: 1, vram: SMALL, filters: ISOLATED, start: Start::Snapshot }),
];

/// The tests whose result may differ with the bus that the device is on.
const BUS: &[&str] = &[
    "bring_up.",
    "roundtrip.",
    "counters.",
    "errors.",
    "eviction.",
    "exclusive.",
    "fork.",
    "folios.",
    "injection.",
    "module.",
    "placement.",
    "poison.",
    "resize.",
    "svm.",
    "unbind.",
];

/// The tests for two GPUs.
const TWO_GPUS: &[&str] = &["devices.", "direct_peers."];

/// The kernel's own tests of device memory, which are for two GPUs of each memory type.
const KERNELS_OWN: &[&str] = &["hmm-tests"];

/// Tests that are run again with a guest for each.
const ISOLATED: &[&str] = &["roundtrip."];

/// Tests that are run again with GPUs that are handed to the guest by pass-through.
const PASSED_THROUGH: &[&str] = &["roundtrip."];

/// The tests for several nodes of memory.
const MANY_NODES: &[&str] = &["numa."];

/// How the guests of a suite start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// One boots.
    Boot,
    /// One is restored.
    Snapshot,
    /// One is restored for each test.
    Isolated,
    /// One boots, and gets its GPUs by pass-through.
    PassThrough,
    /// One boots, with two nodes of memory.
    ManyNodes,
}

/// What is run with a debug kernel, under [`TRACED`] alone: each test once with each memory type. Its guests are slow.
const DEBUG_SUITES: &[Suite] = &[
    Suite { mode: "private", gpus: 1, vram: SMALL, filters: &[], start: Start::Boot },
    Suite { mode: "coherent", gpus: 1, vram: SMALL, filters: &[], start: Start::Snapshot },
    Suite { mode: "private", gpus: 2, vram: SMALL, filters: TWO_GPUS, start: Start::Snapshot },
    Suite { mode: "coherent", gpus: 2, vram: SMALL, filters: TWO_GPUS, start: Start::Snapshot },
];

/// How much of the suites is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Where the processor is emulated twice, the tests in [`BUS`] only, and none by pass-through.
    Pipeline,
    /// All tests under every accelerator, on the default kernel.
    Everything,
}

/// One report.
#[derive(Clone, Copy)]
struct Suite {
    /// The memory type.
    mode: &'static str,
    /// Number of GPUs.
    gpus: usize,
    /// VRAM of each.
    vram: &'static str,
    /// Parts of the names of the tests; empty for all.
    filters: &'static [&'static str],
    /// How its guests start.
    start: Start,
}

/// Runs the suites for a debug kernel. Whatever its checkers report fails the test it comes with, or the run.
pub fn check_debug(ersatz: &Path, store: &Store, progress: &Progress) -> Result<Tally> {
    let mut sum = Tally::default();
    for suite in DEBUG_SUITES {
        sum += suite.run(ersatz, (DEBUG_KERNEL, TRACED), store, progress)?;
    }
    Ok(sum)
}

/// A kernel to run guests with: its series, and the store that has its guest and gets the logs.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// The series.
    pub series: &'a str,
    /// The store.
    pub store: &'a Store,
}

/// Runs the suites of the first kernel under all accelerators, and of the others some. `ersatz` is the program to run them with.
///
/// The accelerators go side by side: each guest sits on few cores, and waits much.
pub fn check(ersatz: &Path, targets: &[Target<'_>], depth: Depth, progress: &Progress) -> Result<Tally> {
    thread::scope(|scope| {
        let start = |accelerator, suites: &'static [Suite]| {
            let suites = suites.iter().filter_map(move |suite| suite.to_depth(depth));
            scope.spawn(move || check_under(accelerator, suites, ersatz, targets, progress))
        };
        let running: Vec<_> = SUITES.iter().map(|(accelerator, suites)| start(accelerator, suites)).collect();
        let mut sum = Tally::default();
        for suites in running {
            sum += suites.join().map_err(|_| anyhow!("the thread that runs a guest panicked"))??;
        }
        Ok(sum)
    })
}

/// Runs the suites of all kernels under one accelerator.
fn check_under(
    accelerator: &str,
    suites: impl Iterator<Item = Suite>,
    ersatz: &Path,
    targets: &[Target<'_>],
    progress: &Progress,
) -> Result<Tally> {
    let mut sum = Tally::default();
    let Some((first, others)) = targets.split_first() else { return Ok(sum) };
    // A guest for each test only where restoring one is certain: of some hundred nested ones, one stopped getting timer interrupts.
    for suite in suites {
        sum += suite.run(ersatz, (first.series, accelerator), first.store, progress)?;
    }
    sum += identity::check(ersatz, first.series, accelerator, first.store, progress);
    sum += brought::check(ersatz, first.series, accelerator, first.store, progress);
    if accelerator == TRACED {
        sum += scenarios::check(ersatz, first.series, accelerator, first.store, progress);
    }
    for other in others {
        for (_, suite) in OTHER_KERNEL_SUITES.iter().filter(|(under, _)| *under == accelerator) {
            sum += suite.run(ersatz, (other.series, accelerator), other.store, progress)?;
        }
    }
    Ok(sum)
}

impl Suite {
    /// The suite, with all tests if everything is to be run; `None` if it is for that alone.
    fn to_depth(self, depth: Depth) -> Option<Self> {
        match depth {
            // QEMU now and then gives a guest of a guest an interrupt twice after a BAR was switched on or off
            // (docs/qemu-bugs/injected-twice.md), which a device that is handed through has the outer QEMU do.
            Depth::Pipeline if self.start == Start::PassThrough => None,
            Depth::Everything if self.filters == BUS => Some(Self { filters: &[], ..self }),
            _ => Some(self),
        }
    }

    /// What tells it from the others: for people, and for the names of files.
    fn name(&self) -> String {
        let gpus = if self.gpus == 1 { String::new() } else { format!("-{}-gpus", self.gpus) };
        let start = match self.start {
            Start::Boot | Start::Snapshot => "",
            Start::Isolated => "-isolated",
            Start::PassThrough => "-via-vfio",
            Start::ManyNodes => "-many-nodes",
        };
        format!("{}{gpus}{start}", self.mode)
    }

    /// The report is shown as it comes, by name of the test, and kept.
    fn run(
        &self,
        ersatz: &Path,
        (series, accelerator): (&str, &str),
        store: &Store,
        progress: &Progress,
    ) -> Result<Tally> {
        let name = self.name();
        let stage = progress.stage(&format!("guest tests, kernel {series}, {name}, {accelerator}"));
        let report = store.log(&format!("guest-{accelerator}-{name}"));
        let messages = store.log(&format!("guest-{accelerator}-{name}.messages"));
        let mut kept = File::create(&report).with_context(|| format!("cannot write {}", report.display()))?;
        // In a folder each GPU has a log of its own.
        let traces = report.with_extension("traces");
        let is_isolated = self.start == Start::Isolated;
        // GPUs that are handed through are in the process that writes their logs.
        let traced = (accelerator == TRACED && !is_isolated) || self.start == Start::PassThrough;
        if traced {
            fs::create_dir_all(&traces).with_context(|| format!("cannot make {}", traces.display()))?;
        }
        let counted = accelerator == COUNTED && !is_isolated;
        let mut child = Command::new(ersatz)
            .args(["test", "--format", "ktap", "--kernel", series, "--accel", accelerator, "--mode", self.mode])
            .args(["--vram", self.vram, "--devices", &self.gpus.to_string()])
            .args(traced.then_some([OsStr::new("--trace"), traces.as_os_str()]).into_iter().flatten())
            .args(counted.then_some("--exit-counts"))
            .args(match self.start {
                Start::Boot => &["--cold"][..],
                Start::Snapshot => &[],
                Start::Isolated => &["--isolated"],
                Start::PassThrough => &["--via", "vfio"],
                Start::ManyNodes => &["--cold", "--kernel-args", "numa=fake=2"],
            })
            .args(self.filters)
            .env("ERSATZ_GUEST", store.root())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&messages)?)
            .spawn()
            .with_context(|| format!("cannot start {}", ersatz.display()))?;
        let output = child.stdout.take().context("the child has no standard output")?;
        follow(output, &mut kept, &stage)?;
        let status = child.wait()?;
        let tally = Tally::of_ktap(&fs::read_to_string(&report)?).with_end(status.success());
        stage.say(&tally.to_string());
        if !tally.is_good() {
            let (messages_tail, report) = (tail(&messages), report.display());
            stage.say(&format!(
                "FAILED: ersatz ended with {status}; its report is in {report}, its messages:\n{messages_tail}"
            ));
        }
        let mut sum = tally.with_end(tally.is_good());
        if counted {
            sum += Tally::check(vram_caused_no_exit(&fs::read_to_string(&messages)?, &stage));
        }
        for gpu in (0..self.gpus).filter(|_| traced) {
            sum += hold_against_protocol(ersatz, &traces.join(format!("gpu{gpu}.trace")), &stage)?;
        }
        Ok(sum)
    }
}

/// Whether, in the counts the VMM gave of a guest's exits, none is an access to VRAM or a doorbell.
fn vram_caused_no_exit(messages: &str, stage: &Stage<'_>) -> bool {
    let counts = messages.lines().find_map(|line| line.split_once("exits to the VMM: ")).map(|(_, counts)| counts);
    stage.say(&format!("exits to the VMM: {}", counts.unwrap_or("not counted")));
    counts.is_some_and(|counts| counts.split_whitespace().any(|count| count == "mapped-bar=0"))
}

/// Keeps a report, and shows what it says: each result at a glance, and why a test failed.
fn follow(report: impl Read, kept: &mut File, stage: &Stage<'_>) -> Result<()> {
    let mut explanation = Vec::new();
    for line in BufReader::new(report).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        writeln!(kept, "{line}")?;
        if line.starts_with('#') {
            explanation.push(line);
            continue;
        }
        if line.starts_with("not ok ") {
            explanation.drain(..).for_each(|line| stage.say(&line));
            stage.say(&line);
        } else if line.starts_with("ok ") {
            explanation.clear();
            stage.glance(&line);
        }
    }
    Ok(())
}

/// Has the oracle look at what a device saw.
fn hold_against_protocol(ersatz: &Path, trace: &Path, stage: &Stage<'_>) -> Result<Tally> {
    let oracle = Command::new(ersatz).args(["trace", "check"]).arg(trace).output()?;
    for text in [&oracle.stdout, &oracle.stderr] {
        String::from_utf8_lossy(text).lines().for_each(|line| stage.say(line));
    }
    Ok(Tally::check(oracle.status.success()))
}
