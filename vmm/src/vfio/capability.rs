// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The lists of capabilities in a device's config space: finding them, and leaving some out of what the guest sees.

use super::config::{ConfigSpace, SIZE};

/// Identity of a capability in the list below 256 bytes.
pub mod id {
    /// Power management.
    pub const POWER: u8 = 0x01;
    /// MSI.
    pub const MSI: u8 = 0x05;
    /// PCI Express.
    pub const EXPRESS: u8 = 0x10;
    /// MSI-X.
    pub const MSIX: u8 = 0x11;
    /// Advanced features: the function-level reset of conventional PCI.
    pub const ADVANCED: u8 = 0x13;
    /// Enhanced allocation: BARs that do not move.
    pub const ALLOCATION: u8 = 0x14;
}

/// The capabilities that the guest does not see, in the list below 256 bytes.
const HIDDEN: [u8; 1] = [id::ALLOCATION];

/// The extended capabilities that the guest does not see: those that act on addresses, buses or functions that the VMM keeps.
const HIDDEN_EXTENDED: [u16; 8] = [
    0x0e, // alternative routing-id interpretation
    0x0f, // address translation service
    0x10, // single root I/O virtualization
    0x11, // multi-root I/O virtualization
    0x13, // page requests
    0x15, // resizable BARs
    0x1b, // process address space ids
    0x24, // resizable BARs of virtual functions
];

const STATUS: usize = 0x06;
/// Status register: there is a list of capabilities.
const HAS_LIST: u8 = 1 << 4;
const LIST: usize = 0x34;
/// The first byte that can be a capability.
const FIRST: u8 = 0x40;
const EXTENDED_LIST: usize = 0x100;
/// Capabilities are dwords at least, so lists have no more.
const MOST: usize = SIZE / 4;

/// A capability: its identity and its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability<Id> {
    /// What it is.
    pub id: Id,
    /// Where it is.
    pub offset: u16,
}

/// The capabilities below 256 bytes, in their order. `config` is what the device has.
pub fn list(config: &[u8]) -> Vec<Capability<u8>> {
    let byte = |offset: usize| config.get(offset).copied().unwrap_or(0);
    let mut found: Vec<Capability<u8>> = Vec::new();
    let mut next = if byte(STATUS) & HAS_LIST == 0 { 0 } else { byte(LIST) & !3 };
    while next >= FIRST && found.len() < MOST && found.iter().all(|known| known.offset != u16::from(next)) {
        found.push(Capability { id: byte(next.into()), offset: next.into() });
        next = byte(usize::from(next) + 1) & !3;
    }
    found
}

/// The extended capabilities, in their order.
pub fn extended_list(config: &[u8]) -> Vec<Capability<u16>> {
    let header = |offset: usize| config.get(offset..offset + 4).map_or(0, dword);
    let mut found: Vec<Capability<u16>> = Vec::new();
    let mut next = EXTENDED_LIST;
    while next >= EXTENDED_LIST && found.len() < MOST && found.iter().all(|known| usize::from(known.offset) != next) {
        let value = header(next);
        if value == 0 || value == u32::MAX {
            break;
        }
        found.push(Capability { id: value as u16, offset: next as u16 }); // 12 bits
        next = (value >> 20 & !3) as usize;
    }
    found
}

fn dword(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte))
}

/// Takes the links of both lists from the device, past the capabilities that the guest does not see.
pub fn hide(config: &mut ConfigSpace, device: &[u8]) {
    let seen: Vec<_> = list(device).into_iter().filter(|found| !HIDDEN.contains(&found.id)).collect();
    let mut link = LIST as u16;
    for capability in &seen {
        config.take(link, &[capability.offset as u8], &[0]); // below 256
        link = capability.offset + 1;
    }
    config.take(link, &[0], &[0]);

    // The first header stays where it is whatever it is: without an identity if it is hidden.
    let all = extended_list(device);
    let hidden = |found: &Capability<u16>| HIDDEN_EXTENDED.contains(&found.id);
    let mut headers = vec![Capability { id: 0, offset: EXTENDED_LIST as u16 }];
    headers.extend(all.iter().filter(|found| !hidden(found)).copied());
    if headers.get(1).is_some_and(|second| usize::from(second.offset) == EXTENDED_LIST) {
        headers.remove(0);
    }
    let nexts = headers.iter().skip(1).map(|found| found.offset).chain([0]);
    for (header, next) in headers.iter().zip(nexts) {
        let offset = usize::from(header.offset);
        let own = device.get(offset..offset + 4).map_or(0, dword);
        // Identity and version, or nothing.
        let kept = if header.id == 0 { 0 } else { own & 0xf_ffff };
        config.take(header.offset, &(kept | u32::from(next) << 20).to_le_bytes(), &[0; 4]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn device(capabilities: &[(u8, u8, u8)], extended: &[(usize, u32)]) -> Vec<u8> {
        let mut config = vec![0; SIZE];
        config[STATUS] = HAS_LIST;
        config[LIST] = capabilities.first().map_or(0, |first| first.0);
        for &(offset, id, next) in capabilities {
            config[usize::from(offset)..][..2].copy_from_slice(&[id, next]);
        }
        for &(offset, header) in extended {
            config[offset..offset + 4].copy_from_slice(&header.to_le_bytes());
        }
        config
    }

    /// What the guest sees of a device.
    fn seen(device: &[u8]) -> Vec<u8> {
        let mut config = ConfigSpace::default();
        hide(&mut config, device);
        let mut seen = device.to_vec();
        config.overlay(0, &mut seen);
        seen
    }

    #[test]
    fn hidden_capabilities_are_not_in_the_lists() {
        let device = device(
            &[(0x40, id::POWER, 0x50), (0x50, id::ALLOCATION, 0x60), (0x60, id::MSIX, 0)],
            &[(0x100, 0x1101_0015), (0x110, 0x1201_0001), (0x120, 0x1301_0010), (0x130, 0x0001_0003)],
        );
        let seen = seen(&device);
        let ids: Vec<_> = list(&seen).iter().map(|found| found.id).collect();
        assert_eq!(ids, [id::POWER, id::MSIX]);
        let extended: Vec<_> = extended_list(&seen).iter().map(|found| (found.id, found.offset)).collect();
        assert_eq!(extended, [(0, 0x100), (1, 0x110), (3, 0x130)]);
    }

    #[test]
    fn a_device_without_lists_has_none() {
        let mut device = device(&[], &[]);
        assert!(list(&seen(&device)).is_empty() && extended_list(&seen(&device)).is_empty());
        device[STATUS] = 0;
        device[LIST] = 0x40;
        assert!(list(&device).is_empty());
        assert!(list(&[]).is_empty() && extended_list(&[0; 256]).is_empty());
    }

    proptest! {
        #[test]
        fn whatever_a_device_has_the_lists_end_and_hide_what_must_be(
            bytes in prop::collection::vec((0usize..SIZE, any::<u8>()), 0..200),
            links in prop::collection::vec(0x40u8..0xff, 0..20),
        ) {
            let mut device = vec![0; SIZE];
            for (offset, byte) in bytes {
                device[offset] = byte;
            }
            device[STATUS] |= HAS_LIST;
            for pair in links.windows(2) {
                device[usize::from(pair[0]) + 1] = pair[1];
            }
            let seen = seen(&device);
            prop_assert!(list(&seen).iter().all(|found| !HIDDEN.contains(&found.id)));
            prop_assert!(extended_list(&seen).iter().all(|found| !HIDDEN_EXTENDED.contains(&found.id)));
        }
    }
}
