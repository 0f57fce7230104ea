// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Config space as 4096 bytes, each with a mask of the bits software may write.
//!
//! Firmware and kernels write registers by byte, word or dword as they please. With a mask beside every byte each of
//! these is the same operation, and no register needs to know how it was reached.

/// Size of a PCI Express function's config space in bytes.
pub const CONFIG_SPACE_SIZE: usize = 4096;

/// The bytes of a config space, what they are after reset, and which bits are writable.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    bytes: Box<[u8; CONFIG_SPACE_SIZE]>,
    initial: Box<[u8; CONFIG_SPACE_SIZE]>,
    writable: Box<[u8; CONFIG_SPACE_SIZE]>,
}

impl Default for ConfigSpace {
    fn default() -> Self {
        Self::new()
    }
}

impl ConfigSpace {
    /// All zeros, read-only.
    pub fn new() -> Self {
        let zeros = Box::new([0; CONFIG_SPACE_SIZE]);
        Self { bytes: zeros.clone(), initial: zeros.clone(), writable: zeros }
    }

    /// Defines the bytes at `offset`: their value after reset, and which of their bits software may write. What does not
    /// fit in config space is dropped.
    pub fn define<const N: usize>(&mut self, offset: u16, initial: [u8; N], writable: [u8; N]) {
        for (at, (value, mask)) in (usize::from(offset)..CONFIG_SPACE_SIZE).zip(initial.into_iter().zip(writable)) {
            self.bytes[at] = value;
            self.initial[at] = value;
            self.writable[at] = mask;
        }
    }

    /// Back to what was defined.
    pub fn reset(&mut self) {
        self.bytes.copy_from_slice(&self.initial[..]);
    }

    /// Reads any number of bytes; what lies beyond config space reads as ones.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        data.fill(0xff);
        let known = self.bytes.get(usize::from(offset)..).unwrap_or(&[]);
        for (target, byte) in data.iter_mut().zip(known) {
            *target = *byte;
        }
    }

    /// Writes any number of bytes, as far as the masks allow; what lies beyond config space is dropped.
    pub fn write(&mut self, offset: u16, data: &[u8]) {
        for (at, value) in (usize::from(offset)..CONFIG_SPACE_SIZE).zip(data) {
            let mask = self.writable[at];
            self.bytes[at] = (self.bytes[at] & !mask) | (value & mask);
        }
    }

    /// Replaces bytes, whatever the masks say: for the device itself.
    pub fn set<const N: usize>(&mut self, offset: u16, value: [u8; N]) {
        for (at, byte) in (usize::from(offset)..CONFIG_SPACE_SIZE).zip(value) {
            self.bytes[at] = byte;
        }
    }

    /// The little-endian bytes at `offset`.
    pub fn get<const N: usize>(&self, offset: u16) -> [u8; N] {
        let mut value = [0; N];
        self.read(offset, &mut value);
        value
    }

    /// The 16-bit register at `offset`.
    pub fn word(&self, offset: u16) -> u16 {
        u16::from_le_bytes(self.get(offset))
    }

    /// The 32-bit register at `offset`.
    pub fn dword(&self, offset: u16) -> u32 {
        u32::from_le_bytes(self.get(offset))
    }
}

/// The byte that a write of `data` at `offset` puts at `at`, if it reaches that far.
pub fn written_byte(offset: u16, data: &[u8], at: u16) -> Option<u8> {
    data.get(usize::from(at.checked_sub(offset)?)).copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn masks_decide_what_sticks() {
        let mut config = ConfigSpace::new();
        config.define(0x10, 0x1234_5678_u32.to_le_bytes(), 0x00ff_0f00_u32.to_le_bytes());
        config.write(0x10, &[0xff; 4]);
        assert_eq!(config.dword(0x10), 0x12ff_5f78);
        config.write(0x11, &[0]);
        assert_eq!(config.dword(0x10), 0x12ff_5078);
        config.reset();
        assert_eq!(config.dword(0x10), 0x1234_5678);
    }

    #[test]
    fn beyond_the_end_there_are_ones() {
        let mut config = ConfigSpace::new();
        config.define(4092, [1, 2, 3, 4, 5, 6], [0xff; 6]);
        assert_eq!(config.get::<8>(4092), [1, 2, 3, 4, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(config.get::<2>(u16::MAX), [0xff; 2]);
        config.write(4095, &[9, 9, 9]);
        config.write(u16::MAX, &[9]);
        assert_eq!(config.get::<4>(4092), [1, 2, 3, 9]);
    }

    #[test]
    fn a_write_reaches_the_bytes_it_covers() {
        assert_eq!(written_byte(8, &[1, 2], 8), Some(1));
        assert_eq!(written_byte(8, &[1, 2], 9), Some(2));
        assert_eq!(written_byte(8, &[1, 2], 10), None);
        assert_eq!(written_byte(8, &[1, 2], 7), None);
    }

    proptest! {
        #[test]
        fn any_split_of_a_write_is_the_same_write(
            mask in any::<[u8; 8]>(), initial in any::<[u8; 8]>(), data in any::<[u8; 8]>(), cuts in any::<u8>()
        ) {
            let mut whole = ConfigSpace::new();
            whole.define(0x40, initial, mask);
            let mut split = whole.clone();
            whole.write(0x40, &data);
            let mut start = 0;
            for end in 1..=8_u16 {
                if end == 8 || cuts & (1 << end) != 0 {
                    split.write(0x40 + start, &data[usize::from(start)..usize::from(end)]);
                    start = end;
                }
            }
            prop_assert_eq!(whole.get::<8>(0x40), split.get::<8>(0x40));
            for ((old, new), (value, mask)) in initial.iter().zip(whole.get::<8>(0x40)).zip(data.iter().zip(mask)) {
                prop_assert_eq!(new, (old & !mask) | (value & mask));
            }
        }
    }
}
