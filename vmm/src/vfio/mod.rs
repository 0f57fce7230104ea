// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Devices of this machine that are handed to a guest: pass-through by VFIO.
//!
//! The host's kernel gives a device that is bound to its driver `vfio-pci` to this process, behind an IOMMU. A [`Function`] is
//! such a device as a function on the guest's bus; the bus treats it like any other one.
//!
//! ```text
//!  guest   config space       BARs: memory      BARs: MSI-X table, PBA     messages       DMA
//!            |                  |                  |                          ^              ^
//!  here    [`config`]         memory slots      [`msix`]                    irqfds         [`dma`]
//!            |                  |                                             |              |
//!  device  config space       BARs              (the host's table)          messages       IOMMU
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`host`] | what sysfs says about a device, and why it cannot be handed out |
//! | [`open`] | the container and its devices: all that calls VFIO |
//! | [`dma`] | keeps the IOMMU's maps in step with guest memory |
//! | [`hardware`] | what the other parts need of an opened device |
//! | [`config`], [`capability`] | config space, of which some bits are the VMM's and all others the device's |
//! | [`bar`], [`msi`], [`msix`] | the registers behind the VMM's bits |
//! | [`registers`] | the VMM's bits together, and what they say |
//! | [`function`](mod@function) | all of it as a PCI function |
//! | [`settle`] | a device on a host that QEMU emulates, which must not change its memory map under a running guest |
//!
//! # What the guest does not get
//!
//! - INTx: the interrupt pin reads as zero. A device without MSI and MSI-X has no interrupts, which the log says.
//! - I/O BARs and the expansion ROM read as absent.
//! - Power states: the device stays in D0. The guest's D3 stops its decoding and its DMA.
//! - Capabilities that move or multiply what the VMM keeps: resizable BARs, SR-IOV, ATS and its like.
//! - DMA to the memory of modelled devices. The memory of other devices that are handed to the guest is within reach.

pub mod bar;
pub mod capability;
pub mod config;
pub mod dma;
pub mod error;
pub mod function;
pub mod hardware;
pub mod host;
pub mod msi;
pub mod msix;
pub mod open;
pub mod registers;
pub mod settle;

pub use error::VfioError;
pub use function::Function;
pub use open::factories;

#[cfg(test)]
mod tests;
