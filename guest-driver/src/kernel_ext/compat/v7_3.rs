// SPDX-License-Identifier: GPL-2.0
//! Linux 7.3.

use crate::bindings;
use kernel::{
    device::{Bound, Device},
    dma::{Coherent, DmaAddress},
    faux,
    prelude::*,
};

/// A mapped BAR that is revoked when its device is unbound.
pub(crate) use kernel::pci::DevresBar;
/// Defines a driver's table of PCI ids.
pub(crate) use kernel::pci_device_table;

/// What `pci::Driver::probe` is given of the table entry that matched; nothing for an id that was added by hand.
pub(crate) type ProbeInfo<'bound, T> = Option<&'bound T>;

/// What an interrupt handler returns once it has handled its interrupt.
pub(crate) const IRQ_HANDLED: bindings::irqreturn_t = bindings::irqreturn_t(bindings::irqreturn::IRQ_HANDLED.0);
/// What it returns if its thread is to handle the rest.
pub(crate) const IRQ_WAKE_THREAD: bindings::irqreturn_t = bindings::irqreturn_t(bindings::irqreturn::IRQ_WAKE_THREAD.0);

/// The device of a faux registration, which is bound while that lives.
pub(crate) fn bound_device(registration: &faux::Registration) -> &Device<Bound> {
    registration.as_ref().as_ref()
}

/// Returns the address by which a device reaches coherent memory.
pub(crate) fn coherent_address(memory: &Coherent<[u64]>) -> DmaAddress {
    memory.dma_address()
}

/// Reads one word of coherent memory, in one access.
///
/// # Errors
///
/// `ERANGE` or `EINVAL` if there is no such word.
pub(crate) fn coherent_read(memory: &Coherent<[u64]>, index: usize) -> Result<u64> {
    Ok(kernel::io::io_read!(memory, [try: index]))
}

/// Writes one word of coherent memory, in one access.
///
/// # Errors
///
/// `ERANGE` or `EINVAL` if there is no such word.
pub(crate) fn coherent_write(memory: &Coherent<[u64]>, index: usize, value: u64) -> Result {
    kernel::io::io_write!(memory, [try: index], value);
    Ok(())
}
