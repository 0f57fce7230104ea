// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `ersatz clean`: gives back the space that snapshots take.

use clap::Args;

use super::CommandError;
use crate::snapshot::SnapshotStore;

/// Remove the snapshots that runs start from; the next run of each kind boots and makes its own again
///
/// Runs that are under way go on. The built guests and the rest of the cache stay: see `cargo xtask clean`.
#[derive(Debug, Args)]
pub struct CleanOptions {}

/// Removes them; returns the exit status.
///
/// # Errors
///
/// Fails if the cache cannot be found, or a file in it not be removed.
pub fn run(_: &CleanOptions) -> Result<u8, CommandError> {
    let store = SnapshotStore::open()?;
    let (count, bytes) = store.clear()?;
    println!("removed {count} snapshots, {} MiB, from {}", bytes >> 20, store.folder().display());
    Ok(0)
}
