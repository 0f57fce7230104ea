// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The Ersatz GPU: a device model that knows no transport and no VMM.
//!
//! [`Gpu::new`] makes a device; [`dma::MappedSpace`] is the guest memory most embedders give it.
//!
//! Two sets of small traits are all it sees of the world. *Towards the machine* that it does DMA into:
//! [`dma::DmaSpace`], [`interrupt::InterruptSink`], [`clock::Clock`]. *Towards the bus* that drives it, it implements
//! [`bus::PciFunction`]; whatever an access changes outside of the device is returned as a [`bus::Effect`], for the
//! bus to carry out.
//!
//! What the device looks like to a driver is written in `ersatz-abi`; what it saw and did goes to the log of [`trace`]. [`inject`]
//! makes it hold, fail or misbehave when it is told to.

pub mod bus;
mod bus_requests;
mod cache_hint;
mod channel;
pub mod clock;
pub mod control_window;
pub mod counters;
mod demand;
mod device;
pub mod dma;
mod engine;
mod eventfd;
pub mod fabric;
pub mod gpu;
mod handed_over;
pub mod inject;
pub mod interrupt;
pub mod mmu;
mod notification;
pub mod pci;
mod poison;
mod ports;
mod registers;
pub mod size;
mod sync;
pub mod trace;
pub mod vram;

pub use gpu::{Gpu, GpuConfig, GpuError};
