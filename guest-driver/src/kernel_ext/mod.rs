// SPDX-License-Identifier: GPL-2.0
//! Small abstractions that the `kernel` crate does not have (yet) and that have nothing to do with `ZONE_DEVICE`.
//!
//! - [`char_device`]: a misc device that keeps its module loaded while it is open.
//! - [`compat`]: what differs between the series of kernels.
//! - [`dma`]: single pages mapped for DMA.
//! - [`interrupt`]: MSI-X vectors and their handlers.
//! - [`mm`]: how much memory there is, and walking a process's VMAs.
//! - [`module_parameters`]: string parameters.
//! - [`module_use`]: what keeps the module loaded.
//! - [`pci_device`], [`pci_id`]: what the PCI abstractions lack.
//! - [`raw`]: what the `kernel` crate keeps to itself.
//! - [`revocable`]: access to a bound device's data that ends when the device is unbound.
//! - [`shared_words`]: memory shared with a device.
//! - [`signal`]: signals for the current thread.
//! - [`tracepoints`]: the module's tracepoints.
//! - [`uapi_bytes`]: the structures of ioctls, to and from user memory.
//! - [`wait`]: a wait queue with conditions and timeouts.

pub(crate) mod char_device;
pub(crate) mod compat;
pub(crate) mod dma;
pub(crate) mod interrupt;
pub(crate) mod memory_failure;
pub(crate) mod mm;
pub(crate) mod module_parameters;
pub(crate) mod module_use;
pub(crate) mod pci_device;
pub(crate) mod pci_id;
pub(crate) mod raw;
pub(crate) mod revocable;
pub(crate) mod shared_words;
pub(crate) mod signal;
pub(crate) mod tracepoints;
pub(crate) mod uapi_bytes;
pub(crate) mod wait;
