// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The capabilities of the endpoint, and where in config space they lie.
//!
//! The list is: power management, MSI-X, PCI Express; in the extended space: advanced error reporting, device serial number,
//! and, if it has one, resizable BAR. Offsets are of this function, bit positions are of the PCI Express Base Specification.

use super::aer;
use super::config::ConfigSpace;
use super::layout::{DEVICE_CONTROL, EXPRESS};
use super::resize::ResizableBar;

/// Offset of the capabilities pointer in the header.
const CAPABILITIES_POINTER: u16 = 0x34;

/// Power management capability.
const POWER: u16 = 0x40;
/// Power management control and status register.
pub const POWER_CONTROL: u16 = POWER + 4;
/// Its power state field: 0 for D0 to 3 for D3hot.
pub const POWER_STATE: u16 = 0b11;
/// The value of that field for D3hot.
pub const POWER_STATE_D3HOT: u16 = 3;
/// Going from D3hot to D0 resets nothing.
const NO_SOFT_RESET: u16 = 1 << 3;
/// Version 1.2 of the PCI power management specification; neither D1 nor D2, no wake-up events.
const POWER_CAPABILITIES: u16 = 3;

/// MSI-X capability.
const MSIX: u16 = 0x48;
/// MSI-X message control register.
pub const MSIX_CONTROL: u16 = MSIX + 2;
/// Message control: MSI-X is on.
pub const MSIX_ENABLE: u16 = 1 << 15;
/// Message control: every vector is masked.
pub const MSIX_FUNCTION_MASK: u16 = 1 << 14;

/// Device control: writing one starts a function level reset. Always reads as zero.
pub const INITIATE_FLR: u16 = 1 << 15;
/// Endpoint, capability version 2.
const EXPRESS_CAPABILITIES: u16 = 2;
/// 256 bytes maximum payload, extended tags, role-based error reporting, function level reset.
const DEVICE_CAPABILITIES: u32 = 1 | 1 << 5 | 1 << 15 | 1 << 28;
/// After reset: relaxed ordering, extended tags, no snoop, 512 bytes maximum read request.
const DEVICE_CONTROL_INITIAL: u16 = 1 << 4 | 1 << 8 | 1 << 11 | 2 << 12;
/// 16 lanes of 16 GT/s.
const LINK: u16 = 4 | 16 << 4;
/// Link control: ASPM, read completion boundary, common clock, extended synch.
const LINK_CONTROL_WRITABLE: u16 = 0b11 | 1 << 3 | 1 << 6 | 1 << 7;
/// Device control 2: completion timeout value and disable.
const DEVICE_CONTROL_2_WRITABLE: u16 = 0b1_1111;
/// Completion timeouts: disabling them is supported.
const DEVICE_CAPABILITIES_2: u32 = 1 << 4;
/// 2.5, 5, 8 and 16 GT/s.
const LINK_SPEEDS: u32 = 0b1111 << 1;

/// Device serial number, the extended capability behind error reporting.
const SERIAL_NUMBER: u16 = 0x150;
const SERIAL_NUMBER_ID: u32 = 3;
/// Resizable BAR.
pub const RESIZABLE_BAR: u16 = 0x160;

const POWER_ID: u8 = 0x01;
const MSIX_ID: u8 = 0x11;
const EXPRESS_ID: u8 = 0x10;

/// Where the parts of MSI-X are: BAR and offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixLayout {
    /// BAR of both table and pending bits.
    pub bar: u8,
    /// Number of vectors, 1 to 2048.
    pub vectors: u16,
    /// Offset of the table in the BAR, a multiple of 8.
    pub table: u32,
    /// Offset of the pending bit array in the BAR, a multiple of 8.
    pub pending: u32,
}

/// Defines all capabilities; of a resizable BAR with its size after reset.
pub fn define(config: &mut ConfigSpace, msix: MsixLayout, serial: u64, resizable: Option<(ResizableBar, u64)>) {
    config.define(CAPABILITIES_POINTER, [low_byte(POWER)], [0]);
    define_power(config, MSIX);
    define_msix(config, msix, EXPRESS);
    define_express(config, 0);
    aer::define(config, SERIAL_NUMBER);
    let next = if resizable.is_some() { RESIZABLE_BAR } else { 0 };
    let header = SERIAL_NUMBER_ID | 1 << 16 | u32::from(next) << 20;
    config.define(SERIAL_NUMBER, header.to_le_bytes(), [0; 4]);
    config.define(SERIAL_NUMBER + 4, serial.to_le_bytes(), [0; 8]);
    if let Some((bar, size)) = resizable {
        bar.define(config, RESIZABLE_BAR, 0, size);
    }
}

fn define_header(config: &mut ConfigSpace, at: u16, id: u8, next: u16) {
    config.define(at, [id, low_byte(next)], [0; 2]);
}

fn define_power(config: &mut ConfigSpace, next: u16) {
    define_header(config, POWER, POWER_ID, next);
    config.define(POWER + 2, POWER_CAPABILITIES.to_le_bytes(), [0; 2]);
    config.define(POWER_CONTROL, NO_SOFT_RESET.to_le_bytes(), POWER_STATE.to_le_bytes());
}

fn define_msix(config: &mut ConfigSpace, layout: MsixLayout, next: u16) {
    define_header(config, MSIX, MSIX_ID, next);
    let size = layout.vectors - 1;
    config.define(MSIX_CONTROL, size.to_le_bytes(), (MSIX_ENABLE | MSIX_FUNCTION_MASK).to_le_bytes());
    let bar = u32::from(layout.bar);
    config.define(MSIX + 4, (layout.table | bar).to_le_bytes(), [0; 4]);
    config.define(MSIX + 8, (layout.pending | bar).to_le_bytes(), [0; 4]);
}

fn define_express(config: &mut ConfigSpace, next: u16) {
    define_header(config, EXPRESS, EXPRESS_ID, next);
    config.define(EXPRESS + 2, EXPRESS_CAPABILITIES.to_le_bytes(), [0; 2]);
    config.define(EXPRESS + 4, DEVICE_CAPABILITIES.to_le_bytes(), [0; 4]);
    config.define(DEVICE_CONTROL, DEVICE_CONTROL_INITIAL.to_le_bytes(), (!INITIATE_FLR).to_le_bytes());
    config.define(EXPRESS + 12, u32::from(LINK).to_le_bytes(), [0; 4]);
    config.define(EXPRESS + 16, [0; 2], LINK_CONTROL_WRITABLE.to_le_bytes());
    config.define(EXPRESS + 18, LINK.to_le_bytes(), [0; 2]);
    config.define(EXPRESS + 36, DEVICE_CAPABILITIES_2.to_le_bytes(), [0; 4]);
    config.define(EXPRESS + 40, [0; 2], DEVICE_CONTROL_2_WRITABLE.to_le_bytes());
    config.define(EXPRESS + 44, LINK_SPEEDS.to_le_bytes(), [0; 4]);
    config.define(EXPRESS + 48, (LINK & 0b1111).to_le_bytes(), 0b1111_u16.to_le_bytes());
}

const _: () = assert!(aer::AER + aer::LENGTH <= SERIAL_NUMBER && SERIAL_NUMBER + 12 <= RESIZABLE_BAR);

/// The offset of a capability in the first 256 bytes, as the list has it.
const fn low_byte(offset: u16) -> u8 {
    offset.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAR: ResizableBar = ResizableBar { bar: 2, smallest: 2 << 20, largest: 1 << 30 };

    fn space_with(resizable: Option<(ResizableBar, u64)>) -> ConfigSpace {
        let mut config = ConfigSpace::new();
        let msix = MsixLayout { bar: 4, vectors: 32, table: 0, pending: 4096 };
        define(&mut config, msix, 0x0011_2233_4455_6677, resizable);
        config
    }

    fn space() -> ConfigSpace {
        space_with(Some((BAR, 1 << 30)))
    }

    /// Ids and offsets of the extended capabilities.
    fn extended(config: &ConfigSpace) -> Vec<(u32, u32)> {
        let mut found = Vec::new();
        let mut at = 0x100;
        while at != 0 {
            assert!(at % 4 == 0 && found.len() < 16);
            let header = config.dword(at as u16);
            found.push((header & 0xffff, at));
            at = header >> 20;
        }
        found
    }

    #[test]
    fn the_list_can_be_walked() {
        let config = space();
        let mut found = Vec::new();
        let [mut at] = config.get::<1>(CAPABILITIES_POINTER);
        while at != 0 {
            let [id, next] = config.get(at.into());
            found.push(id);
            assert!(at % 4 == 0 && found.len() < 16);
            at = next;
        }
        assert_eq!(found, [POWER_ID, MSIX_ID, EXPRESS_ID]);
    }

    #[test]
    fn the_extended_list_can_be_walked() {
        let config = space();
        assert_eq!(extended(&config), [(0x01, 0x100), (0x03, 0x150), (0x15, 0x160)]);
        assert_eq!(extended(&space_with(None)), [(0x01, 0x100), (0x03, 0x150)]);
        assert_eq!(config.dword(0x100), 0x1502_0001);
        assert_eq!(config.dword(SERIAL_NUMBER), 0x1601_0003);
        assert_eq!(u64::from_le_bytes(config.get(SERIAL_NUMBER + 4)), 0x0011_2233_4455_6677);
    }

    #[test]
    fn msix_says_where_its_parts_are() {
        let config = space();
        assert_eq!(config.word(MSIX_CONTROL), 31);
        assert_eq!(config.dword(MSIX + 4), 4);
        assert_eq!(config.dword(MSIX + 8), 4096 | 4);
    }

    #[test]
    fn the_endpoint_offers_flr() {
        let mut config = space();
        assert_ne!(config.dword(EXPRESS + 4) & 1 << 28, 0);
        config.write(DEVICE_CONTROL, &[0xff; 2]);
        assert_eq!(config.word(DEVICE_CONTROL) & INITIATE_FLR, 0, "reads as zero");
    }
}
