// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Mounts the folders that the host shares: 9p over virtio.

use std::fs;
use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ersatz_guest_image::share::{SHARES_PATH, Share, decode};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use thiserror::Error;

/// What the transport is told. The kernel makes messages of at most 500 KiB from that size. Nothing is cached,
/// so either side sees at once what the other has written.
const OPTIONS: &str = "trans=virtio,version=9p2000.L,msize=524288,cache=none,access=any";
/// How often a share is looked for: a restored guest has it only now.
const LOOK: Duration = Duration::from_millis(5);
/// How long it may take to be there.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why a folder cannot be mounted.
#[derive(Debug, Error)]
pub enum ShareError {
    /// The list cannot be read.
    #[error("cannot read {SHARES_PATH}")]
    Read(#[source] io::Error),
    /// The list is something else.
    #[error("{SHARES_PATH} is not a list of folders")]
    Malformed,
    /// There is no place for it.
    #[error("cannot make the folder {path}, at which the host's is to be mounted")]
    Place {
        /// The folder.
        path: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The kernel does not mount it.
    #[error("cannot mount the host's folder at {path} (the kernel needs NET_9P_VIRTIO and 9P_FS)")]
    Mount {
        /// The folder.
        path: String,
        /// The system's error.
        #[source]
        source: Errno,
    },
}

/// Mounts all of them.
///
/// # Errors
///
/// Fails if one cannot be mounted.
pub fn mount_all() -> Result<(), ShareError> {
    let list = match fs::read(SHARES_PATH) {
        Ok(list) => list,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(ShareError::Read(error)),
    };
    decode(&list).ok_or(ShareError::Malformed)?.iter().try_for_each(mount_one)
}

fn mount_one(Share { tag, path, read_only }: &Share) -> Result<(), ShareError> {
    fs::create_dir_all(path).map_err(|source| ShareError::Place { path: path.clone(), source })?;
    let mut flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
    flags.set(MsFlags::MS_RDONLY, *read_only);
    let deadline = Instant::now() + PATIENCE;
    loop {
        match mount(Some(tag.as_str()), Path::new(path), Some("9p"), flags, Some(OPTIONS)) {
            Ok(()) => return Ok(()),
            // No device has that tag yet.
            Err(Errno::ENOENT) if Instant::now() < deadline => sleep(LOOK),
            Err(source) => return Err(ShareError::Mount { path: path.clone(), source }),
        }
    }
}
