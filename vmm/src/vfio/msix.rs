// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! MSI-X as the guest sees it: the control register, the table and the pending bits, all of them the VMM's. The device's own table
//! is the host's.

use std::ops::Range;

use ersatz_device_model::bus::MsixMessage;

use super::config::ConfigSpace;

/// Offsets in the capability.
const CONTROL: u16 = 2;
const TABLE: usize = 4;
const PENDING: usize = 8;
/// Control: on; all vectors masked; the number of vectors, less one.
const ENABLE: u16 = 1 << 15;
const MASK_ALL: u16 = 1 << 14;
const SIZE_BITS: u16 = 0x7ff;
/// Table and pending bits: the index of the BAR, below their offset in it.
const BAR_BITS: u32 = 0b111;
const ENTRY: u64 = 16;
/// Of an entry's last dword.
const MASKED: u32 = 1;
/// Which bits of an entry's dwords can be written.
const WRITABLE: [u32; 4] = [!0b11, u32::MAX, u32::MAX, MASKED];

/// Part of a BAR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of the BAR.
    pub bar: u8,
    /// Offsets in the BAR.
    pub range: Range<u64>,
}

/// MSI-X of a function.
#[derive(Clone, Debug)]
pub struct Msix {
    capability: u16,
    table: Place,
    pending: Place,
    entries: Vec<[u32; 4]>,
}

/// What an offset in a BAR means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A byte of the table.
    Table,
    /// Pending bits of eight vectors from this one on.
    Pending(u16),
}

impl Msix {
    /// Takes the capability at an offset from the device. `device` is what the device has in config space.
    pub fn take(config: &mut ConfigSpace, device: &[u8], capability: u16) -> Self {
        let at = usize::from(capability);
        let dword = |offset: usize| {
            let bytes = device.get(at + offset..at + offset + 4).unwrap_or(&[0; 4]);
            u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
        };
        let size = (dword(0) >> 16) as u16 & SIZE_BITS;
        config.take(capability + CONTROL, &size.to_le_bytes(), &(ENABLE | MASK_ALL).to_le_bytes());
        let vectors = size + 1;
        let place = |register: u32, length: u64| {
            let start = u64::from(register & !BAR_BITS);
            Place { bar: (register & BAR_BITS) as u8, range: start..start + length }
        };
        let table = place(dword(TABLE), ENTRY * u64::from(vectors));
        let pending = place(dword(PENDING), 8 * u64::from(vectors.div_ceil(64)));
        let mut msix = Self { capability, table, pending, entries: Vec::new() };
        msix.entries.resize(vectors.into(), [0, 0, 0, MASKED]);
        msix
    }

    /// The table as after reset.
    pub fn reset(&mut self) {
        self.entries.fill([0, 0, 0, MASKED]);
    }

    /// Vectors of the device.
    pub fn vectors(&self) -> u16 {
        self.entries.len() as u16 // at most 2048
    }

    /// Where the table and the pending bits are.
    pub fn places(&self) -> [&Place; 2] {
        [&self.table, &self.pending]
    }

    /// Whether the guest has MSI-X on.
    pub fn is_enabled(&self, config: &ConfigSpace) -> bool {
        config.word(self.capability + CONTROL) & ENABLE != 0
    }

    /// The enable and function mask bits.
    pub fn control(&self, config: &ConfigSpace) -> u16 {
        config.word(self.capability + CONTROL) & (ENABLE | MASK_ALL)
    }

    /// The message of a vector; `None` while it is masked, or MSI-X is off.
    pub fn message(&self, config: &ConfigSpace, vector: u16) -> Option<MsixMessage> {
        let &[low, high, data, control] = self.entries.get(usize::from(vector))?;
        let is_sent = self.control(config) == ENABLE && control & MASKED == 0;
        is_sent.then_some(MsixMessage { address: u64::from(high) << 32 | u64::from(low), data })
    }

    /// What is at an offset in a BAR, unless that is the device's.
    pub fn content(&self, bar: u8, offset: u64) -> Option<Content> {
        let is_at = |place: &Place| place.bar == bar && place.range.contains(&offset);
        if is_at(&self.table) {
            return Some(Content::Table);
        }
        let byte = is_at(&self.pending).then(|| offset - self.pending.range.start)?;
        u16::try_from(byte).ok().map(|byte| Content::Pending(byte * 8))
    }

    /// The byte of the table at an offset in its BAR.
    pub fn table_byte(&self, offset: u64) -> u8 {
        let at = offset.saturating_sub(self.table.range.start);
        let entry = usize::try_from(at / ENTRY).ok().and_then(|entry| self.entries.get(entry));
        entry.map_or(0, |entry| entry[(at % ENTRY / 4) as usize].to_le_bytes()[(at % 4) as usize])
    }

    /// Writes bytes from an offset in a BAR on, as far as they are the table's; returns the vectors of which something changed.
    pub fn write(&mut self, bar: u8, offset: u64, data: &[u8]) -> Range<u16> {
        let mut changed = None::<Range<u16>>;
        let end = offset.saturating_add(data.len() as u64);
        for (at, &byte) in (offset..end).zip(data) {
            if self.content(bar, at) != Some(Content::Table) {
                continue;
            }
            let at = at - self.table.range.start;
            let vector = (at / ENTRY) as u16; // the table has 2048 entries at most
            let (dword, shift) = ((at % ENTRY / 4) as usize, (at % 4 * 8) as u32);
            let Some(entry) = self.entries.get_mut(usize::from(vector)) else { continue };
            let bits = 0xff << shift;
            let new = (entry[dword] & !bits | u32::from(byte) << shift) & WRITABLE[dword];
            if entry[dword] != new {
                entry[dword] = new;
                let first = changed.map_or(vector, |changed| changed.start.min(vector));
                changed = Some(first..vector + 1);
            }
        }
        changed.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Three vectors; the table at 0x2000 in BAR4, the pending bits behind it.
    fn take() -> (ConfigSpace, Msix) {
        let mut device = vec![0; 256];
        device[0x70..0x7c].copy_from_slice(&[0x11, 0, 2, 0xc0, 4, 0x20, 0, 0, 4, 0x21, 0, 0]);
        let mut config = ConfigSpace::default();
        let msix = Msix::take(&mut config, &device, 0x70);
        (config, msix)
    }

    #[test]
    fn a_vector_has_a_message_while_nothing_masks_it() {
        let (mut config, mut msix) = take();
        assert_eq!(
            (msix.vectors(), msix.is_enabled(&config)),
            (3, false),
            "it is off at first, whatever the device has"
        );
        assert_eq!(config.word(0x72), 2);
        assert_eq!(msix.write(4, 0x2010, &0x7_fee0_1003u64.to_le_bytes()), 1..2);
        assert_eq!(msix.write(4, 0x2018, &[0x41, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff]), 1..2);
        assert!(msix.message(&config, 1).is_none());
        assert!(config.write(0x72, &ENABLE.to_le_bytes()).is_empty());
        let message = Some(MsixMessage { address: 0x7_fee0_1000, data: 0x41 });
        assert_eq!(
            (msix.message(&config, 1), msix.message(&config, 0), msix.message(&config, 9)),
            (message, None, None)
        );
        assert!(msix.write(4, 0x2018, &[0x41]).is_empty(), "the same once more");
        config.write(0x73, &[0xc0]);
        assert!(msix.message(&config, 1).is_none() && msix.is_enabled(&config));
        config.write(0x73, &[0x80]);
        assert_eq!(msix.write(4, 0x201c, &[1]), 1..2);
        assert!(msix.message(&config, 1).is_none());
        msix.reset();
        assert_eq!((msix.table_byte(0x2010), msix.table_byte(0x201c)), (0, 1));
    }

    #[test]
    fn only_the_table_and_the_pending_bits_are_the_vmms() {
        let (_, msix) = take();
        assert_eq!(msix.content(4, 0x202f), Some(Content::Table));
        assert_eq!((msix.content(4, 0x2030), msix.content(3, 0x2000), msix.content(4, 0x1fff)), (None, None, None));
        assert_eq!((msix.content(4, 0x2107), msix.content(4, 0x2108)), (Some(Content::Pending(56)), None));
    }

    proptest! {
        #[test]
        fn no_write_reaches_beyond_what_it_is_for(
            writes in prop::collection::vec((0u8..6, prop_oneof![0x1ff0u64..0x2040, any::<u64>()],
                prop::collection::vec(any::<u8>(), 0..32)), 0..20),
        ) {
            let (config, mut msix) = take();
            for (bar, offset, data) in writes {
                let before = msix.entries.clone();
                let changed = msix.write(bar, offset, &data);
                for (vector, (old, new)) in (0..).zip(before.iter().zip(&msix.entries)) {
                    prop_assert!(old == new || changed.contains(&vector));
                    prop_assert!(new.iter().zip(WRITABLE).all(|(dword, writable)| dword & !writable == 0));
                }
                prop_assert!((0..5).all(|vector| msix.message(&config, vector).is_none()), "it is off");
            }
        }
    }
}
