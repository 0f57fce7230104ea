// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the device reports to the driver by itself: faults, and hot regions of memory.
//!
//! [`ring`] is the ring both are written to, [`state`] its rules without the memory, [`publish`] the order in which a record
//! gets there. [`faults`] numbers faults and decides which of them may be dropped; [`access_counters`] counts accesses
//! by region, in the table of [`regions`].
//!
//! Records are written by engine threads, each with a permit for DMA. No lock of this module is held meanwhile: records of
//! two engines may become valid in either order, and accesses to these registers do not wait for them. (The faulting channel
//! is locked until its record is written.)

mod access_counters;
mod faults;
mod publish;
mod regions;
mod ring;
pub(crate) mod state;

pub(crate) use access_counters::{Access, AccessCounters};
pub(crate) use faults::{FaultBuffer, Initiator};
pub(crate) use ring::NotificationRing;
