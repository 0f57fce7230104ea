// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A driver in user space, which programs the device as `device-model/MANUAL.md` says, by sysfs.
//!
//! The kernel's driver uses a part of the device; this one the rest, on the real path: a kernel's PCI core,
//! configuration space, guest memory, memory slots, doorbells. A [`gpu::Gpu`] is a device that a test has for itself;
//! everything else stands on it: [`memory`] that the device can reach, in [`buffer`]s; a [`channel`]; an
//! [`address_space`]; a [`notification_ring`]. It gets no interrupts, so it looks, with [`patience`].

pub mod address_space;
pub mod buffer;
pub mod channel;
pub mod gpu;
pub mod memory;
pub mod notification_ring;
pub mod patience;
