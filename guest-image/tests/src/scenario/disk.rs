// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The disk of a scenario's `direct` and `uring` steps, full of zeros when an attempt begins.
//!
//! In a guest it is zram without a file system. The kernel pins the memory of an `O_DIRECT` transfer to a block device as it does for a file on one
//! (`bio_iov_iter_get_pages()`), every guest has the module already, for swap, and the debug kernel has it built in. tmpfs would not do: it accepts
//! `O_DIRECT`, but copies. Where only plain memory is tried, an unnamed file takes the disk's place.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ersatz_scenario::Scenario;
use ersatz_scenario::limits::DISK_BYTES;
use nix::libc::{O_DIRECT, O_TMPFILE};

use crate::swap_disk;

/// Makes another disk when it is read, and has its number.
const HOT_ADD: &str = "/sys/class/zram-control/hot_add";
/// Takes away the disk whose number is written to it.
const HOT_REMOVE: &str = "/sys/class/zram-control/hot_remove";

/// The disk, open. Dropped, it is gone.
#[derive(Debug)]
pub struct Disk {
    /// With `O_DIRECT`.
    pub direct: File,
    /// By the page cache.
    pub cached: File,
    _device: Option<Device>,
}

impl Disk {
    /// Makes the disk of an attempt, if the scenario uses it.
    ///
    /// # Errors
    ///
    /// Why there is none, in words.
    pub fn of(scenario: &Scenario, only_plain: bool) -> Result<Option<Self>, String> {
        let mut steps = scenario.sequences().flat_map(|sequence| sequence.steps);
        if !steps.any(|step| step.call.uses_disk()) {
            return Ok(None);
        }
        let made = if only_plain { Self::file(&std::env::temp_dir()) } else { Self::device() };
        made.map(Some).map_err(|error| format!("there is no disk: {error}"))
    }

    /// A file without a name.
    fn file(folder: &Path) -> io::Result<Self> {
        let cached = OpenOptions::new().read(true).write(true).custom_flags(O_TMPFILE).open(folder)?;
        cached.set_len(DISK_BYTES)?;
        let direct = open(&open_file(&cached), O_DIRECT)?;
        Ok(Self { direct, cached, _device: None })
    }

    /// A zram disk.
    fn device() -> io::Result<Self> {
        let device = Device::new()?;
        let path = device.path();
        Ok(Self { direct: open(&path, O_DIRECT)?, cached: open(&path, 0)?, _device: Some(device) })
    }
}

fn open(path: &Path, flags: i32) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)
}

/// The path of an open file.
fn open_file(file: &File) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// A zram disk. Fields of a [`Disk`] are dropped in their order: the files first.
#[derive(Debug)]
struct Device {
    number: u32,
}

impl Device {
    fn new() -> io::Result<Self> {
        if !Path::new(HOT_ADD).exists() {
            swap_disk::load_modules()?;
        }
        let text = fs::read_to_string(HOT_ADD)?;
        let number = text.trim().parse().map_err(|_| io::Error::other(format!("{HOT_ADD} says {text:?}")))?;
        let device = Self { number };
        fs::write(format!("/sys/block/zram{number}/disksize"), DISK_BYTES.to_string())?;
        Ok(device)
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/dev/zram{}", self.number))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // Best effort: one that a process hangs on stays.
        let _ = fs::write(HOT_REMOVE, self.number.to_string());
    }
}
