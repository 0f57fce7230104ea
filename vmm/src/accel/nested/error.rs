// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Failures around the guest, told apart by the part that failed.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use ersatz_guest_image::initramfs::ArchiveError;
use ersatz_guest_image::outer::channel::ChannelError;
use thiserror::Error;

use crate::accel::served_gpus::DeviceError;
use crate::qemu::migration::MigrationError;
use crate::qemu::{QemuError, QmpError};
use crate::snapshot::key::KeyError;
use crate::spec;

/// Why a nested run has no outcome.
#[derive(Debug, Error)]
pub enum NestedError {
    /// A temporary file could not be made or used.
    #[error("cannot use a temporary file (set TMPDIR to a folder with room)")]
    Scratch(#[source] io::Error),
    /// A path that cannot be passed to the outer machine.
    #[error("the path {0:?} is not UTF-8, and nested runs need it to be; rename it")]
    Path(PathBuf),
    /// A snapshot has no place for a file.
    #[error("a guest that starts from a snapshot cannot use {0}; add --cold")]
    NotInSnapshot(PathBuf),
    /// A file for the outer machine could not be read.
    #[error("cannot read {path} for the outer machine")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file that comes out of the outer machine could not be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The outer machine's initramfs could not be put together.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A GPU could not be made or served.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// What the run brings could not be read.
    #[error(transparent)]
    Brought(#[from] spec::ArchiveError),
    /// The machine could not be saved or loaded.
    #[error(transparent)]
    Migration(#[from] MigrationError),
    /// QEMU refused a request.
    #[error(transparent)]
    Monitor(#[from] QmpError),
    /// A file that the guest boots with is not there.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// QEMU could not be started or waited for.
    #[error(transparent)]
    Qemu(#[from] QemuError),
    /// The socket to the outer machine failed.
    #[error("the channel to the outer machine failed")]
    Socket(#[source] io::Error),
    /// Waiting for events failed.
    #[error("cannot wait for the outer machine")]
    Poll(#[source] io::Error),
    /// The outer machine sent a malformed message.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// More, or other, file content came out of the outer machine than was announced.
    #[error("the outer machine sent file content that it had not announced (file {index}, {length} bytes at {offset})")]
    UnexpectedFile {
        /// The file's index among those to collect.
        index: u32,
        /// Offset of the content.
        offset: u64,
        /// Length of the content in bytes.
        length: u64,
    },
    /// QEMU ended by itself.
    #[error("QEMU ended ({status}) while {when}; its last words:\n{words}")]
    Ended {
        /// How, as the system puts it.
        status: String,
        /// What was going on.
        when: &'static str,
        /// The end of the messages of QEMU and of the outer kernel.
        words: String,
        /// Whether the VMM ran by then.
        vmm_ran: bool,
    },
    /// The heartbeat of the outer machine stopped.
    #[error(
        "the outer machine hangs: it was silent for {silence:?} while {when}. That is a fault of the emulated machine, \
         not of the guest; run it again. Its last words:\n{words}"
    )]
    Hung {
        /// How long it sent nothing.
        silence: Duration,
        /// What was going on.
        when: &'static str,
        /// The end of the messages of QEMU and of the outer kernel.
        words: String,
        /// Whether the VMM ran by then.
        vmm_ran: bool,
    },
    /// PID 1 of the outer machine could not run the VMM.
    #[error("the outer machine could not run the VMM: {reason}; the outer kernel's last words:\n{words}")]
    Prepare {
        /// Its reason.
        reason: String,
        /// The end of the outer kernel's messages.
        words: String,
    },
    /// The VMM did not keep the guest's time limit, and was killed.
    #[error("the VMM hung in the outer machine, which is alive: {limit:?} after its start it was killed. {threads}")]
    VmmHung {
        /// The time it had.
        limit: Duration,
        /// What its threads were waiting for.
        threads: String,
    },
    /// The VMM ended without saying how the guest did.
    #[error("the VMM failed in the outer machine (exit status {status}){hint}")]
    VmmFailed {
        /// Its exit status, as shells have it.
        status: u8,
        /// What that may mean.
        hint: &'static str,
    },
    /// The VMM's report of the guest's end cannot be parsed.
    #[error("the report of the VMM in the outer machine cannot be parsed (run `cargo xtask build` again)")]
    Report(#[source] serde_json::Error),
}

impl NestedError {
    /// Whether the outer machine failed before the VMM ran, so that trying again hides no defect of the VMM.
    pub fn is_before_the_vmm(&self) -> bool {
        matches!(self, Self::Ended { vmm_ran: false, .. } | Self::Hung { vmm_ran: false, .. })
    }
}
