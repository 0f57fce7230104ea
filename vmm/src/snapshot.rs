// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Snapshots of booted guests, from which runs start.
//!
//! A guest boots once, up to PID 1 waiting at its mailbox; its machine is then saved, and every later run with an equal machine
//! ([`MachineSpec`](crate::spec::MachineSpec)) is restored from that, in a fraction of a second. What a run brings comes in
//! afterwards.
//!
//! [`key`] determines which runs may start from the same snapshot, [`store`] keeps snapshots in the cache, [`file`](mod@file) is
//! one of them on disk, [`ram`] copies the memory of a guest in and out; [`obtain`](mod@obtain) puts these together, and
//! [`header`] is what a restored guest receives. Saving and loading a machine is left to its accelerator; QEMU's part is in
//! [`qemu::migration`](crate::qemu::migration).

pub mod file;
pub mod header;
pub mod key;
pub mod obtain;
pub mod ram;
pub mod store;

pub use file::Snapshot;
pub use key::Key;
pub use store::{SnapshotStore, StoreError};
