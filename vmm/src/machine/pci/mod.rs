// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The PCI Express topology of the machine: a host bridge and root ports on bus 0, and behind each root port a link with one
//! slot, which may fill and empty while the machine runs.
//!
//! [`bus::PciBus`] drives the functions and carries out their effects; [`slot`] has what a slot holds, [`plug`] the way in
//! and out for other threads, [`pending`] how functions report what no access caused; [`address`] says which function a config access means, [`root_port`] and [`window`] what
//! reaches a slot; [`topology`] and [`placement`] where windows and BARs are at first, [`decode`] where they are now, and
//! [`attachment`] what KVM serves of them without an exit, and other devices reach.

pub mod address;
mod attachment;
mod bus;
mod decode;
mod error;
mod host_bridge;
mod pending;
mod placement;
mod plug;
mod root_port;
mod slot;
mod topology;
mod window;

pub use attachment::MemorySlots;
pub use bus::PciBus;
pub use error::{PciError, PlugError};
pub use plug::PciSlots;
pub use slot::{ConnectedFunction, MAX_SLOTS, MachineParts, connect};
pub use topology::{MIN_SLOTS, Topology, boot_requester_id};
