// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A snapshot for a run: the one there is, or a new one.

use std::fs::File;

use ersatz_guest_image::error_chain::chain;

use super::store::{Found, SnapshotStore, StoreError};
use super::{Key, Snapshot};
use crate::outcome::Outcome;
use crate::supervisor::Event;

/// The result of booting a guest for a snapshot.
#[derive(Debug)]
pub enum Made {
    /// The machine was saved.
    Saved {
        /// Its memory.
        memory: File,
        /// Its state.
        state: Vec<u8>,
    },
    /// The guest ended before that.
    Ended(Outcome),
}

/// What a run starts from.
#[derive(Debug)]
pub enum Obtained {
    /// This snapshot.
    Snapshot(Snapshot),
    /// Nothing: the guest ended while it booted, or the user stopped waiting.
    Ended(Outcome),
    /// Snapshots cannot be kept here, which was reported: boot without.
    Nothing,
}

/// Finds the snapshot with a key, or calls `make` and keeps the result. `progress` is called with what takes long and what
/// failed.
///
/// # Errors
///
/// Those of `make`.
pub fn obtain<E>(
    kind: &str,
    key: &Key,
    stop: &Event,
    progress: &mut dyn FnMut(&str),
    make: impl FnOnce(&mut dyn FnMut(&str)) -> Result<Made, E>,
) -> Result<Obtained, E> {
    let without = |progress: &mut dyn FnMut(&str), error: &StoreError| {
        progress(&format!("booting without a snapshot: {}", chain(error)));
        Ok(Obtained::Nothing)
    };
    let store = match SnapshotStore::open() {
        Ok(store) => store,
        Err(error) => return without(progress, &error),
    };
    let waiting = || progress("waiting for another run that makes the snapshot");
    let turn = match store.find_or_take_turn(kind, key, stop, waiting) {
        Ok(Found::Snapshot(snapshot)) => return Ok(Obtained::Snapshot(snapshot)),
        Ok(Found::Stopped) => return Ok(Obtained::Ended(Outcome::Interrupted)),
        Ok(Found::Turn(turn)) => turn,
        Err(error) => return without(progress, &error),
    };
    match make(progress)? {
        Made::Ended(outcome) => Ok(Obtained::Ended(outcome)),
        Made::Saved { memory, state } => match store.publish(key, &turn, &memory, &state) {
            Ok(snapshot) => Ok(Obtained::Snapshot(snapshot)),
            Err(error) => without(progress, &error),
        },
    }
}

/// Removes a snapshot that turned out to be unusable.
pub fn discard(key: &Key) {
    if let Ok(store) = SnapshotStore::open() {
        store.remove(key);
    }
}
