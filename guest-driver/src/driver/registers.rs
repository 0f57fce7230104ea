// SPDX-License-Identifier: GPL-2.0
//! BAR0: the registers and the doorbells, by the ABI's register map.

use crate::{
    abi::{
        pci::{BAR_REGISTERS, REGISTERS_BAR_SIZE},
        regs::{self, Register},
    },
    kernel_ext::compat::DevresBar,
};
use kernel::{device::Bound, io::Io, pci, prelude::*};

/// A notification ring of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ring {
    /// The fault buffer.
    Faults,
    /// That of the access counters.
    Accesses,
}

impl Ring {
    const fn base(self) -> u32 {
        match self {
            Self::Faults => regs::FAULT_RING_BASE,
            Self::Accesses => regs::ACCESS_RING_BASE,
        }
    }
}

const SIZE: usize = REGISTERS_BAR_SIZE as usize;

/// The register BAR, until the device is unbound.
pub(crate) struct Registers {
    bar: DevresBar<SIZE>,
}

impl Registers {
    /// Maps the registers.
    ///
    /// # Errors
    ///
    /// `EBUSY` if somebody else has the BAR; `EINVAL` if it is too small to be an Ersatz GPU's.
    pub(crate) fn map(pdev: &pci::Device<Bound>) -> Result<Self> {
        let bar = pdev.iomap_region_sized::<SIZE>(BAR_REGISTERS.into(), c"ersatz registers")?;
        Ok(Self { bar: bar.into_devres()? })
    }

    /// Reads a device register.
    ///
    /// # Errors
    ///
    /// `ENODEV` after the device was unbound.
    pub(crate) fn read(&self, register: Register) -> Result<u64> {
        self.read_at(register.offset, register.width)
    }

    /// Writes a device register; a value too large for it loses its high bits.
    ///
    /// # Errors
    ///
    /// `ENODEV` after the device was unbound.
    pub(crate) fn write(&self, register: Register, value: u64) -> Result {
        self.write_at(register.offset, register.width, value)
    }

    /// Reads a register of a channel.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there can be no such channel; `ENODEV` after the device was unbound.
    pub(crate) fn read_channel(&self, channel: u32, register: Register) -> Result<u64> {
        let offset = regs::channel_register(channel, register).ok_or(EINVAL)?;
        self.read_at(offset, register.width)
    }

    /// Writes a register of a channel.
    ///
    /// # Errors
    ///
    /// As for [`Registers::read_channel`].
    pub(crate) fn write_channel(&self, channel: u32, register: Register, value: u64) -> Result {
        let offset = regs::channel_register(channel, register).ok_or(EINVAL)?;
        self.write_at(offset, register.width, value)
    }

    /// Reads a register of an address space.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there can be no such address space; `ENODEV` after the device was unbound.
    pub(crate) fn read_address_space(&self, asid: u8, register: Register) -> Result<u64> {
        let offset = regs::address_space_register(asid.into(), register).ok_or(EINVAL)?;
        self.read_at(offset, register.width)
    }

    /// Writes a register of an address space.
    ///
    /// # Errors
    ///
    /// As for [`Registers::read_address_space`].
    pub(crate) fn write_address_space(&self, asid: u8, register: Register, value: u64) -> Result {
        let offset = regs::address_space_register(asid.into(), register).ok_or(EINVAL)?;
        self.write_at(offset, register.width, value)
    }

    /// Reads a register of a notification ring.
    ///
    /// # Errors
    ///
    /// `ENODEV` after the device was unbound.
    pub(crate) fn read_ring(&self, ring: Ring, register: Register) -> Result<u64> {
        self.read_at(ring.base() + register.offset, register.width)
    }

    /// Writes a register of a notification ring.
    ///
    /// # Errors
    ///
    /// `ENODEV` after the device was unbound.
    pub(crate) fn write_ring(&self, ring: Ring, register: Register, value: u64) -> Result {
        self.write_at(ring.base() + register.offset, register.width, value)
    }

    /// Rings a channel's doorbell. All that was written to memory before can be seen by the device.
    ///
    /// # Errors
    ///
    /// As for [`Registers::read_channel`].
    pub(crate) fn ring_doorbell(&self, channel: u32) -> Result {
        let offset = regs::doorbell(channel).ok_or(EINVAL)?;
        self.write_at(offset, 4, 0)
    }

    /// Reads performance counter `number`.
    ///
    /// # Errors
    ///
    /// `ENODEV` after the device was unbound.
    pub(crate) fn read_counter(&self, number: u8) -> Result<u64> {
        self.read_at(regs::COUNTER_BASE + 8 * u32::from(number), 8)
    }

    /// Whether the device answers. Where nothing does, reads are all ones or, on some machines, zero, and writes are lost.
    pub(crate) fn device_answers(&self) -> bool {
        self.read(regs::ID).is_ok_and(|id| id == u64::from(regs::DEVICE_MAGIC))
    }

    /// Confirms that the accesses before this call reached the device, so that values read are those of its registers.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device does not answer: it is gone, sleeps, or does not decode its memory.
    pub(crate) fn confirm(&self) -> Result {
        self.device_answers().then_some(()).ok_or(ENODEV)
    }

    fn read_at(&self, offset: u32, width: u8) -> Result<u64> {
        let bar = self.bar.try_access().ok_or(ENODEV)?;
        match width {
            8 => bar.try_read64(offset as usize),
            _ => bar.try_read32(offset as usize).map(u64::from),
        }
    }

    fn write_at(&self, offset: u32, width: u8, value: u64) -> Result {
        let bar = self.bar.try_access().ok_or(ENODEV)?;
        match width {
            8 => bar.try_write64(value, offset as usize),
            _ => bar.try_write32(value as u32, offset as usize),
        }
    }
}
