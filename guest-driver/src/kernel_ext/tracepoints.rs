// SPDX-License-Identifier: GPL-2.0
//! The module's tracepoints, which `trace.h` declares. Each costs next to nothing while nobody records it.

use super::raw::device_ptr;
use crate::bindings;
use kernel::device::{Device, DeviceContext};

/// What names a batch in the device's own trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BatchId {
    /// The channel that it was submitted to.
    pub(crate) channel: u32,
    /// The fence of its last command.
    pub(crate) fence: u64,
    /// The tag of its commands: the user's address of its first page.
    pub(crate) address: u64,
}

/// The device was given a batch.
pub(crate) fn copy<C: DeviceContext>(dev: &Device<C>, batch: BatchId, cause: &'static str) {
    let BatchId { channel, fence, address } = batch;
    let length = cause.len();
    // SAFETY: The device is valid, and `cause` is `length` bytes long.
    unsafe { bindings::ersatz_trace_copy(device_ptr(dev), channel, fence, address, cause.as_ptr().cast(), length) };
}

/// What a batch of `pages` pages copied has taken the place of its sources, as far as `moved` says.
pub(crate) fn migrate<C: DeviceContext>(dev: &Device<C>, batch: BatchId, pages: usize, moved: usize) {
    let BatchId { channel, fence, address } = batch;
    // SAFETY: The device is valid.
    unsafe { bindings::ersatz_trace_migrate(device_ptr(dev), channel, fence, address, pages as u64, moved as u64) };
}

/// A CPU touched a private page; `end` are the bits that the fault ends with.
pub(crate) fn cpu_fault<C: DeviceContext>(dev: &Device<C>, address: usize, pages: usize, end: u32) {
    // SAFETY: The device is valid.
    unsafe { bindings::ersatz_trace_cpu_fault(device_ptr(dev), address as u64, pages as u64, end) };
}

/// A block of device memory is to be evicted, in which `pages` pages were looked at.
pub(crate) fn evict<C: DeviceContext>(dev: &Device<C>, block: usize, pages: usize) {
    // SAFETY: The device is valid.
    unsafe { bindings::ersatz_trace_evict(device_ptr(dev), block as u64, pages as u64) };
}

/// Nobody uses a folio any more. Callable from any context.
pub(crate) fn free<C: DeviceContext>(dev: &Device<C>, page: usize, pages: usize) {
    // SAFETY: The device is valid.
    unsafe { bindings::ersatz_trace_free(device_ptr(dev), page as u64, pages as u64) };
}
