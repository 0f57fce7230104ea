// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How fast and how small the VMM is, next to QEMU.
//!
//! Two VMMs boot the same kernel with the same trivial init ([`init_program`]) by turns, on one machine and under the same
//! load, so that what disturbs one disturbs the other. A [`contender`] is started, timed from exec to init's first
//! output, and its memory measured ([`footprint`]) while the guest sleeps. [`report`] sums up.
//!
//! Where KVM does not work, all of it happens inside one outer machine (see [`nested`](crate::accel::nested)): the host
//! side makes a [`Plan`], the program runs itself in there to carry it out.

pub mod boot;
pub mod contender;
pub mod footprint;
pub mod init_program;
pub mod report;

use std::path::{Path, PathBuf};

use ersatz_guest_image::initramfs::{Archive, ArchiveError};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::contender::{Contender, ContenderError, Sample};
use self::report::Report;

/// What is to be measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The VMMs, each with the kernel image it boots. The first is the one that the others are compared to.
    pub contenders: Vec<Contender>,
    /// How often each boots; one more boot each warms up caches and does not count.
    pub rounds: u32,
}

/// Why a benchmark has no result.
#[derive(Debug, Error)]
pub enum BenchError {
    /// The plan could not be read.
    #[error("cannot read the plan {path}")]
    Plan {
        /// The file.
        path: PathBuf,
        /// The error of the system or of the parser.
        #[source]
        source: std::io::Error,
    },
    /// The initramfs could not be made.
    #[error("cannot make the initramfs of the benchmark")]
    Initramfs(#[from] ArchiveError),
    /// A contender did not boot.
    #[error("{name} did not boot in round {round}")]
    Contender {
        /// Its name.
        name: String,
        /// The round, from 0, which does not count.
        round: u32,
        /// What happened.
        #[source]
        source: ContenderError,
    },
}

/// Reads a plan.
///
/// # Errors
///
/// Fails if it cannot be read or parsed.
pub fn read_plan(path: &Path) -> Result<Plan, BenchError> {
    let failed = |source| BenchError::Plan { path: path.to_owned(), source };
    let text = std::fs::read(path).map_err(failed)?;
    serde_json::from_slice(&text).map_err(|error| failed(error.into()))
}

/// Carries out a plan, on this machine. `progress` is called after each boot.
///
/// # Errors
///
/// Fails if a contender does not boot: a result without it would mean nothing.
pub fn run(plan: &Plan, progress: &mut dyn FnMut(&str)) -> Result<Report, BenchError> {
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); plan.contenders.len()];
    for round in 0..=plan.rounds {
        for (contender, samples) in plan.contenders.iter().zip(&mut samples) {
            let sample = contender.boot().map_err(|source| BenchError::Contender {
                name: contender.name.clone(),
                round,
                source,
            })?;
            let seconds = sample.boot.as_secs_f64();
            let remark = if round == 0 { " (does not count)" } else { "" };
            progress(&format!("round {round}: {} {seconds:.2} s{remark}", contender.name));
            if round > 0 {
                samples.push(sample);
            }
        }
    }
    let names = plan.contenders.iter().map(|contender| contender.name.clone());
    Ok(Report::new(names.zip(samples).collect()))
}

/// The initramfs that all contenders boot.
///
/// # Errors
///
/// Never in practice: its content is fixed.
pub fn initramfs() -> Result<Vec<u8>, BenchError> {
    let mut archive = Archive::new();
    archive.char_device("/dev/console", 0o600, 5, 1)?;
    archive.file("/init", 0o755, init_program::elf())?;
    Ok(archive.to_bytes()?)
}
