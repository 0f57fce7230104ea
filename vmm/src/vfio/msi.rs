// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The MSI capability, which is the VMM's: the device's own is the host's.

use ersatz_device_model::bus::MsixMessage;

use super::config::ConfigSpace;

/// Offsets in the capability.
const CONTROL: u16 = 2;
const ADDRESS: u16 = 4;
/// Control: on; how many vectors the device has and how many the guest uses, as powers of two; 64-bit addresses; a mask per vector.
const ENABLE: u16 = 1;
const CAPABLE_SHIFT: u16 = 1;
const USED_SHIFT: u16 = 4;
const COUNT_BITS: u16 = 0b111;
const IS_64BIT: u16 = 1 << 7;
const MASKABLE: u16 = 1 << 8;
/// Most vectors, as a power of two.
const MOST: u16 = 5;

/// The MSI capability of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msi {
    offset: u16,
    is_64bit: bool,
    maskable: bool,
    /// Vectors of the device.
    vectors: u16,
}

impl Msi {
    /// Takes the capability at an offset from the device. `device` is what the device has in config space.
    pub fn take(config: &mut ConfigSpace, device: &[u8], offset: u16) -> Self {
        let at = usize::from(offset + CONTROL);
        let control = device.get(at..at + 2).map_or(0, |bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
        let capable = (control >> CAPABLE_SHIFT & COUNT_BITS).min(MOST);
        let msi = Self {
            offset,
            is_64bit: control & IS_64BIT != 0,
            maskable: control & MASKABLE != 0,
            vectors: 1 << capable,
        };
        let shown = control & (IS_64BIT | MASKABLE) | capable << CAPABLE_SHIFT;
        config.take(offset + CONTROL, &shown.to_le_bytes(), &(ENABLE | COUNT_BITS << USED_SHIFT).to_le_bytes());
        config.take(offset + ADDRESS, &[0; 4], &[0xfc, 0xff, 0xff, 0xff]);
        if msi.is_64bit {
            config.take(offset + ADDRESS + 4, &[0; 4], &[0xff; 4]);
        }
        config.take(msi.data(), &[0; 2], &[0xff; 2]);
        if msi.maskable {
            let writable = u32::MAX >> (32 - u32::from(msi.vectors));
            config.take(msi.mask(), &[0; 4], &writable.to_le_bytes());
            // None is ever seen to be pending.
            config.take(msi.mask() + 4, &[0; 4], &[0; 4]);
        }
        msi
    }

    fn data(&self) -> u16 {
        self.offset + if self.is_64bit { 12 } else { 8 }
    }

    fn mask(&self) -> u16 {
        self.data() + 4
    }

    /// Vectors that the device has.
    pub fn vectors(&self) -> u16 {
        self.vectors
    }

    /// How many vectors the guest uses; `None` while MSI is off.
    pub fn used(&self, config: &ConfigSpace) -> Option<u16> {
        let control = config.word(self.offset + CONTROL);
        (control & ENABLE != 0).then(|| (1 << (control >> USED_SHIFT & COUNT_BITS).min(MOST)).min(self.vectors))
    }

    /// The message of a vector; `None` while it is masked, or MSI is off.
    pub fn message(&self, config: &ConfigSpace, vector: u16) -> Option<MsixMessage> {
        let used = self.used(config).filter(|&used| vector < used)?;
        if self.maskable && config.dword(self.mask()) >> vector & 1 != 0 {
            return None;
        }
        let low = config.dword(self.offset + ADDRESS);
        let high = if self.is_64bit { config.dword(self.offset + ADDRESS + 4) } else { 0 };
        // The device puts the vector into the low bits.
        let data = config.word(self.data()) & !(used - 1) | vector;
        Some(MsixMessage { address: u64::from(high) << 32 | u64::from(low), data: data.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(control: u16) -> (ConfigSpace, Msi) {
        let mut device = vec![0; 256];
        device[0x52..0x54].copy_from_slice(&control.to_le_bytes());
        let mut config = ConfigSpace::default();
        let msi = Msi::take(&mut config, &device, 0x50);
        (config, msi)
    }

    #[test]
    fn vectors_share_an_address_and_differ_in_their_data() {
        let (mut config, msi) = take(IS_64BIT | MASKABLE | 2 << CAPABLE_SHIFT | ENABLE);
        assert_eq!((msi.vectors(), msi.used(&config)), (4, None), "it is off at first, whatever the device has");
        assert!(config.write(0x54, &0xfee0_1003u32.to_le_bytes()).is_empty());
        config.write(0x58, &7u32.to_le_bytes());
        config.write(0x5c, &0x4041u16.to_le_bytes());
        config.write(0x52, &(ENABLE | 1 << USED_SHIFT).to_le_bytes());
        let message = |data| Some(MsixMessage { address: 0x7_fee0_1000, data });
        assert_eq!(
            (0..3).map(|v| msi.message(&config, v)).collect::<Vec<_>>(),
            [message(0x4040), message(0x4041), None]
        );
        config.write(0x60, &0xffff_fffeu32.to_le_bytes());
        assert_eq!(config.dword(0x60), 0xe, "there are four");
        assert_eq!((msi.message(&config, 0), msi.message(&config, 1)), (message(0x4040), None));
        config.write(0x52, &(ENABLE | 7 << USED_SHIFT).to_le_bytes());
        assert_eq!(msi.used(&config), Some(4), "no more than there are");
    }

    #[test]
    fn the_small_capability_has_its_data_earlier() {
        let (mut config, msi) = take(0);
        config.write(0x54, &0xfee0_0000u32.to_le_bytes());
        config.write(0x58, &0x55u16.to_le_bytes());
        config.write(0x52, &ENABLE.to_le_bytes());
        assert_eq!(msi.message(&config, 0), Some(MsixMessage { address: 0xfee0_0000, data: 0x55 }));
        assert_eq!(config.write(0x5c, &[1]), [(0x5c, vec![1])], "no mask: that is another's");
    }
}
