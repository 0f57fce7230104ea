// SPDX-License-Identifier: GPL-2.0
//! The driver proper.
//!
//! - [`probe`]: binding to the device and leaving it.
//! - [`parameters`], [`number`]: the user's choices, and which device is which.
//! - [`reset`]: the device's state before it is used and after.
//! - [`registers`], [`channel`], [`copy_engine`]: the device, from the bottom up.
//! - [`gpu`]: what a bound device consists of; [`Vram`](gpu::Vram) is it together with its pages.
//! - [`statistics`]: where the time goes.
//! - [`transfer`]: migrations whose content is being copied.
//! - [`placement`], [`fault`], [`eviction`]: pages that move because user space, a CPU or the kernel wants it.
//! - [`poison`], [`demand`]: pages that the device does not have any more.
//! - [`inspection`]: looking at pages where they are.
//! - [`svm`]: kernels that work on the addresses of a process.
//! - [`open_device`], [`ioctl`]: what user space can ask for.
//! - [`dmirror`]: what the kernel's tests of HMM ask for.

pub(crate) mod channel;
pub(crate) mod copy_engine;
mod demand;
pub(crate) mod dmirror;
pub(crate) mod eviction;
pub(crate) mod fault;
pub(crate) mod gpu;
pub(crate) mod inspection;
pub(crate) mod ioctl;
pub(crate) mod number;
pub(crate) mod open_device;
pub(crate) mod parameters;
pub(crate) mod placement;
mod poison;
pub(crate) mod probe;
pub(crate) mod registers;
pub(crate) mod reset;
pub(crate) mod statistics;
pub(crate) mod svm;
pub(crate) mod transfer;
