// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Config space of which some bits are the VMM's, and all others the device's.
//!
//! A bit of the VMM's has a value here, which the guest reads, and writes if it is writable. The device never gets what the guest
//! writes to it; where the guest writes a byte of which only some bits are the VMM's, the device gets fixed values for these.

use std::ops::Range;

/// Bytes of config space, as PCI Express has it.
pub const SIZE: usize = 4096;

/// One byte of config space.
#[derive(Clone, Copy, Debug, Default)]
struct Byte {
    /// The bits that are the VMM's.
    owned: u8,
    /// Those of them that the guest can write.
    writable: u8,
    /// What the guest reads of them.
    value: u8,
    /// What the device gets in their place.
    device: u8,
}

/// The VMM's part of a function's config space. An offset beyond it is no error: nothing is there.
#[derive(Clone, Debug)]
pub struct ConfigSpace(Box<[Byte]>);

/// What a write passes on to the device: bytes from an offset on.
pub type DeviceWrite = (u16, Vec<u8>);

impl Default for ConfigSpace {
    fn default() -> Self {
        Self(vec![Byte::default(); SIZE].into())
    }
}

impl ConfigSpace {
    /// Takes some bits of a byte from the device: those in `owned`, with a value. The guest can write those in `writable`.
    pub fn take_bits(&mut self, offset: u16, owned: u8, value: u8, writable: u8) {
        if let Some(byte) = self.0.get_mut(usize::from(offset)) {
            let others = !owned;
            byte.owned |= owned;
            byte.writable = byte.writable & others | writable & owned;
            byte.value = byte.value & others | value & owned;
        }
    }

    /// Takes whole bytes from the device.
    pub fn take(&mut self, offset: u16, value: &[u8], writable: &[u8]) {
        for ((at, &value), &writable) in (offset..).zip(value).zip(writable) {
            self.take_bits(at, 0xff, value, writable);
        }
    }

    /// Sets what the device gets in place of a byte's bits that are the VMM's.
    pub fn set_device_bits(&mut self, offset: u16, bits: u8) {
        if let Some(byte) = self.0.get_mut(usize::from(offset)) {
            byte.device = bits & byte.owned;
        }
    }

    /// The value of a byte's bits that are the VMM's.
    pub fn byte(&self, offset: u16) -> u8 {
        self.0.get(usize::from(offset)).map_or(0, |byte| byte.value)
    }

    /// The same of the two bytes from an offset on.
    pub fn word(&self, offset: u16) -> u16 {
        u16::from_le_bytes([self.byte(offset), self.byte(offset.saturating_add(1))])
    }

    /// The same of four bytes.
    pub fn dword(&self, offset: u16) -> u32 {
        u32::from(self.word(offset)) | u32::from(self.word(offset.saturating_add(2))) << 16
    }

    /// The bytes that an access is about.
    fn range(offset: u16, length: usize) -> Range<usize> {
        let start = usize::from(offset).min(SIZE);
        start..start.saturating_add(length).min(SIZE)
    }

    /// Whether the device need not be asked: all bits are the VMM's.
    pub fn is_owned(&self, offset: u16, length: usize) -> bool {
        self.0[Self::range(offset, length)].iter().all(|byte| byte.owned == 0xff)
    }

    /// Puts the VMM's bits into what the device has.
    pub fn overlay(&self, offset: u16, data: &mut [u8]) {
        for (target, byte) in data.iter_mut().zip(&self.0[Self::range(offset, usize::MAX)]) {
            *target = *target & !byte.owned | byte.value;
        }
    }

    /// Writes the bits that are the VMM's; returns what the device gets.
    pub fn write(&mut self, offset: u16, data: &[u8]) -> Vec<DeviceWrite> {
        let mut writes: Vec<DeviceWrite> = Vec::new();
        let range = Self::range(offset, data.len());
        let first = range.start;
        for (index, (byte, &written)) in self.0[range].iter_mut().zip(data).enumerate() {
            byte.value = byte.value & !byte.writable | written & byte.writable;
            if byte.owned == 0xff {
                continue;
            }
            let passed = written & !byte.owned | byte.device;
            let at = (first + index) as u16; // below SIZE
            match writes.last_mut() {
                Some((start, bytes)) if usize::from(*start) + bytes.len() == usize::from(at) => bytes.push(passed),
                _ => writes.push((at, vec![passed])),
            }
        }
        writes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_device_gets_what_is_not_the_vmms() {
        let mut config = ConfigSpace::default();
        config.take_bits(4, 0b0000_0010, 0, 0b0000_0010);
        config.set_device_bits(4, 0b0000_0010);
        config.take(0x10, &[0x08, 0, 0, 0], &[0, 0, 0xff, 0xff]);
        assert_eq!(config.write(4, &[0b0100_0100, 1]), [(4, vec![0b0100_0110, 1])]);
        assert_eq!(config.byte(4), 0);
        assert_eq!(config.write(4, &[0b0100_0110]), [(4, vec![0b0100_0110])]);
        assert_eq!(config.byte(4), 2);
        assert_eq!(config.write(0x10, &[0xff; 4]), []);
        assert_eq!(config.dword(0x10), 0xffff_0008);
        assert_eq!(config.write(0xe, &[1, 2, 3, 4, 5, 6, 7, 8]), [(0xe, vec![1, 2]), (0x14, vec![7, 8])]);
        let mut data = [0xaa; 6];
        config.overlay(0xe, &mut data);
        assert_eq!(data, [0xaa, 0xaa, 0x08, 0, 5, 6]);
    }

    proptest! {
        #[test]
        fn no_write_changes_what_is_not_writable_or_leaves_config_space(
            taken in prop::collection::vec((0u16..64, any::<u8>(), any::<u8>(), any::<u8>(), any::<u8>()), 0..20),
            writes in prop::collection::vec((prop_oneof![0u16..64, 4080u16..5000, any::<u16>()],
                prop::collection::vec(any::<u8>(), 0..16)), 0..20),
        ) {
            let mut config = ConfigSpace::default();
            for (offset, owned, value, writable, device) in taken {
                config.take_bits(offset, owned, value, writable);
                config.set_device_bits(offset, device);
            }
            for (offset, data) in writes {
                let before = config.clone();
                for (start, bytes) in config.write(offset, &data) {
                    prop_assert!(usize::from(start) + bytes.len() <= SIZE);
                    prop_assert!(start >= offset && usize::from(start - offset) + bytes.len() <= data.len());
                    for (at, byte) in (usize::from(start)..).zip(bytes) {
                        let known = before.0[at];
                        prop_assert_eq!(byte & known.owned, known.device, "only fixed values of the VMM's bits");
                        prop_assert_eq!(byte & !known.owned, data[at - usize::from(offset)] & !known.owned);
                    }
                }
                for (old, new) in before.0.iter().zip(&config.0) {
                    prop_assert_eq!(old.value & !old.writable, new.value & !new.writable);
                    prop_assert_eq!(new.value & !new.owned, 0);
                }
                let mut read = vec![0x5a; data.len()];
                config.overlay(offset, &mut read);
            }
        }
    }
}
