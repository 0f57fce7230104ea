// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The function at 00:00.0. Linux takes a bus seriously only if it finds one there.

use ersatz_abi::pci::VENDOR_ID;
use ersatz_device_model::bus::{BarInfo, BarMapping, Doorbell, Effect, MsixMessage, PciFunction};

/// Device id, next to the GPU's.
const DEVICE_ID: u16 = 0xe500;
/// Bridge device, host bridge.
const CLASS_CODE: u32 = 0x06_00_00;

/// A host bridge with nothing to program.
pub struct HostBridge {
    header: [u8; 16],
}

impl HostBridge {
    /// The bridge.
    pub fn new() -> Self {
        let mut header = [0; 16];
        header[..2].copy_from_slice(&VENDOR_ID.to_le_bytes());
        header[2..4].copy_from_slice(&DEVICE_ID.to_le_bytes());
        header[9..12].copy_from_slice(&CLASS_CODE.to_le_bytes()[..3]);
        Self { header }
    }
}

impl PciFunction for HostBridge {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        for (byte, offset) in data.iter_mut().zip(usize::from(offset)..) {
            *byte = self.header.get(offset).copied().unwrap_or(0);
        }
    }

    fn config_write(&self, _: u16, _: &[u8]) -> Vec<Effect> {
        Vec::new()
    }

    fn bar_read(&self, _: u8, _: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn bar_write(&self, _: u8, _: u64, _: &[u8]) -> Vec<Effect> {
        Vec::new()
    }

    fn bars(&self) -> Vec<BarInfo> {
        Vec::new()
    }

    fn mappings(&self) -> Vec<BarMapping> {
        Vec::new()
    }

    fn doorbells(&self) -> Vec<Doorbell> {
        Vec::new()
    }

    fn msix_vectors(&self) -> u16 {
        0
    }

    fn msix_message(&self, _: u16) -> Option<MsixMessage> {
        None
    }

    fn reset(&self) -> Vec<Effect> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_host_bridge() {
        let mut dwords = [0; 12];
        HostBridge::new().config_read(0, &mut dwords);
        assert_eq!(dwords[..4], [0x34, 0x12, 0x00, 0xe5]);
        assert_eq!(dwords[8..], [0, 0, 0, 6]);
        let mut beyond = [0xaa; 4];
        HostBridge::new().config_read(4094, &mut beyond);
        assert_eq!(beyond, [0; 4]);
    }
}
