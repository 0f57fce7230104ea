// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The device under an unmodified QEMU: a PCI function served over vfio-user.
//!
//! ```text
//! QEMU (vfio-user-pci) ── socket ── session ── backend ── PciFunction
//!                                     │           ├────── MappedSpace       (DMA_MAP: the guest's RAM)
//!                                   wire          └────── ClientInterrupts  (SET_IRQS: an eventfd a vector)
//! ```
//!
//! [`socket`] is where clients come in, [`server`] takes them, one at a time; [`session`] talks to one in the messages
//! of [`wire`]; [`backend`] turns each request into one call of the function. [`description`] is what the client is
//! told of it, [`interrupts`] how it is interrupted, [`notifier`] how that is done without waiting. VRAM never passes
//! here: the client maps its file.

pub mod backend;
pub mod description;
pub mod interrupts;
pub mod notifier;
pub mod peer;
pub mod server;
pub mod session;
pub mod socket;
pub mod wire;
