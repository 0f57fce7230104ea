// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a register of BAR0 is called.

use ersatz_abi::regs::{
    self, ACCESS_RING_BASE, ADDRESS_SPACE_BASE, ADDRESS_SPACE_REGISTERS, ADDRESS_SPACE_STRIDE, CHANNEL_BASE,
    CHANNEL_REGISTERS, CHANNEL_STRIDE, COUNTER_BASE, DEVICE_REGISTERS, FAULT_RING_BASE, NOTIFICATION_REGISTERS,
    NOTIFICATION_STRIDE, Register,
};

/// The name of the register at an offset; of a 64-bit register also at that of its upper half.
pub fn name(offset: u32) -> Option<&'static str> {
    let (table, offset): (&[Register], u32) = match offset {
        regs::DOORBELL_BASE.. => return None,
        ADDRESS_SPACE_BASE.. => (ADDRESS_SPACE_REGISTERS, (offset - ADDRESS_SPACE_BASE) % ADDRESS_SPACE_STRIDE),
        COUNTER_BASE.. => return None,
        CHANNEL_BASE.. => (CHANNEL_REGISTERS, (offset - CHANNEL_BASE) % CHANNEL_STRIDE),
        _ => ring(offset).map_or((DEVICE_REGISTERS, offset), |offset| (NOTIFICATION_REGISTERS, offset)),
    };
    let covers = |register: &&Register| offset.wrapping_sub(register.offset) < register.width.into();
    table.iter().find(covers).map(|register| register.name)
}

/// The offset in the registers of a notification ring.
fn ring(offset: u32) -> Option<u32> {
    [FAULT_RING_BASE, ACCESS_RING_BASE]
        .iter()
        .filter_map(|base| offset.checked_sub(*base))
        .find(|offset| *offset < NOTIFICATION_STRIDE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_has_its_names() {
        assert_eq!(name(regs::MARK.offset + 4), Some("MARK"), "the upper half");
        assert_eq!(name(CHANNEL_BASE + 3 * CHANNEL_STRIDE + regs::ASID.offset), Some("ASID"));
        assert_eq!(name(FAULT_RING_BASE + regs::NOTIFICATION_GET.offset), Some("NOTIFICATION_GET"));
        assert_eq!(name(ACCESS_RING_BASE + regs::NOTIFICATION_BASE.offset), Some("NOTIFICATION_BASE"));
        assert_eq!(name(regs::FAULT_REPLAY.offset), Some("FAULT_REPLAY"), "between the rings");
        assert_eq!(name(regs::ACCESS_COUNTER_CLEAR.offset), Some("ACCESS_COUNTER_CLEAR"));
        assert_eq!(name(ADDRESS_SPACE_BASE + 8), Some("ADDRESS_SPACE_CONTROL"));
        assert_eq!([COUNTER_BASE, regs::DOORBELL_BASE, 0xff0].map(name), [None; 3]);
    }
}
