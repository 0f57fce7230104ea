// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Configuration space of a PCI function, by sysfs. The numbers are those of the PCI specifications, and where the device's manual
//! says that its capabilities are.

use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::bus::Function;

/// The command register.
pub const COMMAND: u16 = 0x04;
/// Memory decoding.
pub const COMMAND_MEMORY: u16 = 1 << 1;
/// Bus mastering.
pub const COMMAND_MASTER: u16 = 1 << 2;
/// SERR# enable.
pub const COMMAND_SERR: u16 = 1 << 8;
/// The status register. Its error bits are cleared by writing ones.
pub const STATUS: u16 = 0x06;
/// The base address registers.
pub const BASE_ADDRESSES: Range<u16> = 0x10..0x28;

/// The power state in the control register of power management; a function that is awake has zero there.
pub const POWER_D3HOT: u16 = 0b11;

/// Identifiers of capabilities.
pub mod capability {
    /// Power management; the control register is 4 bytes behind it.
    pub const POWER_MANAGEMENT: u8 = 0x01;
    /// PCI Express; Device Control is 8 bytes behind it, Device Status 10.
    pub const EXPRESS: u8 = 0x10;
    /// MSI-X; Message Control is 2 bytes behind it.
    pub const MSIX: u8 = 0x11;
}

/// The 4 KiB of one function.
#[derive(Debug)]
pub struct ConfigSpace {
    file: File,
}

impl ConfigSpace {
    /// That of this function.
    ///
    /// # Panics
    ///
    /// As all functions here, if the system refuses what a test needs.
    pub fn of(function: &Function) -> Self {
        let path = function.folder().join("config");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap_or_else(|error| panic!("cannot open {}: {error}", path.display()));
        Self { file }
    }

    /// Where a capability is.
    pub fn capability(&self, id: u8) -> u16 {
        const FIRST: u16 = 0x34;
        let follow = |pointer: u16| Some(self.read16(pointer) & 0xfc).filter(|&next| next != 0);
        // A next pointer is in the high byte of the word that begins a capability.
        std::iter::successors(follow(FIRST), |&place| follow(place + 1))
            .take(48)
            .find(|&place| self.read16(place).to_le_bytes()[0] == id)
            .unwrap_or_else(|| panic!("there is no capability {id:#x}"))
    }

    /// Reads 16 bits.
    pub fn read16(&self, offset: u16) -> u16 {
        u16::from_le_bytes(self.read(offset))
    }

    /// Reads 32 bits.
    pub fn read32(&self, offset: u16) -> u32 {
        u32::from_le_bytes(self.read(offset))
    }

    /// Writes 16 bits.
    pub fn write16(&self, offset: u16, value: u16) {
        self.write(offset, &value.to_le_bytes());
    }

    /// Writes 32 bits.
    pub fn write32(&self, offset: u16, value: u32) {
        self.write(offset, &value.to_le_bytes());
    }

    fn read<const LENGTH: usize>(&self, offset: u16) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        self.file
            .read_exact_at(&mut bytes, offset.into())
            .unwrap_or_else(|error| panic!("cannot read config space at {offset:#x}: {error}"));
        bytes
    }

    fn write(&self, offset: u16, bytes: &[u8]) {
        self.file
            .write_all_at(bytes, offset.into())
            .unwrap_or_else(|error| panic!("cannot write config space at {offset:#x}: {error}"));
    }
}
