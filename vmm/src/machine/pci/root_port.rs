// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A root port: the PCI-to-PCI bridge on bus 0 behind which a slot is.
//!
//! It has no BARs, no I/O window and no interrupt. Offsets are of this port, registers are of the PCI-to-PCI Bridge
//! Architecture and PCI Express Base Specifications.

use ersatz_abi::pci::VENDOR_ID;
use ersatz_device_model::pci::config::ConfigSpace;

use super::window::{ADDRESS_BITS, BridgeWindows, WindowRegisters};

/// Device id, next to the host bridge's.
const DEVICE_ID: u16 = 0xe501;
/// Bridge device, PCI-to-PCI bridge, normal decode; and revision 0.
const CLASS_AND_REVISION: u32 = 0x06_04_00_00;
/// Header of a bridge.
const HEADER_TYPE: u8 = 1;

const COMMAND: u16 = 0x04;
const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_MASTER: u16 = 1 << 2;
/// Memory, bus master, parity error response, SERR, INTx disable.
const COMMAND_WRITABLE: u16 = COMMAND_MEMORY | COMMAND_MASTER | 1 << 6 | 1 << 8 | 1 << 10;
const STATUS_CAPABILITIES: u16 = 1 << 4;
/// Primary, secondary and subordinate bus number.
const BUS_NUMBERS: u16 = 0x18;
/// Memory base; the limit follows.
const MEMORY_BASE: u16 = 0x20;
/// Prefetchable memory base; the limit follows, then the upper halves of both.
const PREFETCHABLE_BASE: u16 = 0x24;
/// The low bits of prefetchable base and limit: addresses have 64 bits.
const PREFETCHABLE_64BIT: u16 = 1;
const CAPABILITIES_POINTER: u16 = 0x34;
const BRIDGE_CONTROL: u16 = 0x3e;
/// Bridge control: the secondary bus is in reset.
const SECONDARY_BUS_RESET: u16 = 1 << 6;
/// Parity error response, SERR, secondary bus reset.
const BRIDGE_CONTROL_WRITABLE: u16 = 0b11 | SECONDARY_BUS_RESET;

/// Power management capability: id 1, version 1.2, neither D1 nor D2, no wake-up events.
const POWER: u16 = 0x40;
const POWER_CAPABILITIES: u16 = 3;
const POWER_CONTROL: u16 = POWER + 4;
/// The power state field.
const POWER_STATE: u16 = 0b11;
/// Going from D3hot to D0 resets nothing.
const NO_SOFT_RESET: u16 = 1 << 3;

/// PCI Express capability: id 0x10, version 2, root port, with a slot.
const EXPRESS: u16 = 0x48;
const EXPRESS_CAPABILITIES: u16 = 2 | 4 << 4 | 1 << 8;
/// 256 bytes maximum payload, role-based error reporting.
const DEVICE_CAPABILITIES: u32 = 1 | 1 << 15;
/// After reset: relaxed ordering, no snoop, 512 bytes maximum read request.
const DEVICE_CONTROL_INITIAL: u16 = 1 << 4 | 1 << 11 | 2 << 12;
const DEVICE_CONTROL_WRITABLE: u16 = 0x7fff;
/// 16 lanes of 16 GT/s.
const LINK: u16 = 4 | 16 << 4;
/// Link capabilities: the port reports whether the link is active.
const LINK_ACTIVE_REPORTING: u32 = 1 << 20;
/// ASPM, read completion boundary, common clock, extended synch.
const LINK_CONTROL_WRITABLE: u16 = 0b11 | 1 << 3 | 1 << 6 | 1 << 7;
const LINK_STATUS: u16 = EXPRESS + 18;
/// Link status: the link is active.
const LINK_ACTIVE: u16 = 1 << 13;
const SLOT_STATUS: u16 = EXPRESS + 26;
/// Slot status: there is a card in the slot.
const PRESENCE_DETECT: u16 = 1 << 6;
/// Root control: system errors, PME interrupt.
const ROOT_CONTROL_WRITABLE: u16 = 0b1111;
/// Completion timeouts: disabling them is supported.
const DEVICE_CAPABILITIES_2: u32 = 1 << 4;
const DEVICE_CONTROL_2_WRITABLE: u16 = 0b1_1111;
/// 2.5, 5, 8 and 16 GT/s.
const LINK_SPEEDS: u32 = 0b1111 << 1;

/// The bus numbers of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusNumbers {
    /// The bus that the bridge is on.
    pub primary: u8,
    /// The bus behind it.
    pub secondary: u8,
    /// The last bus behind it.
    pub subordinate: u8,
}

/// What a config write asks the bus to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortEvent {
    /// Nothing, but windows may have changed.
    None,
    /// Reset what is in the slot.
    SecondaryBusReset,
}

/// Config space of a root port.
#[derive(Clone, Debug)]
pub struct RootPort {
    config: ConfigSpace,
}

impl RootPort {
    /// The port of slot `slot` as after power-on, with all windows closed and an empty slot.
    pub fn new(slot: u8) -> Self {
        let mut config = ConfigSpace::new();
        config.define(0x00, VENDOR_ID.to_le_bytes(), [0; 2]);
        config.define(0x02, DEVICE_ID.to_le_bytes(), [0; 2]);
        config.define(COMMAND, [0; 2], COMMAND_WRITABLE.to_le_bytes());
        config.define(COMMAND + 2, STATUS_CAPABILITIES.to_le_bytes(), [0; 2]);
        config.define(0x08, CLASS_AND_REVISION.to_le_bytes(), [0; 4]);
        config.define(0x0c, [0], [0xff]); // cache line size: no meaning, but writable
        config.define(0x0e, [HEADER_TYPE], [0]);
        config.define(BUS_NUMBERS, [0; 3], [0xff; 3]);
        config.define(0x3c, [0], [0xff]); // interrupt line: a scratch byte for firmware
        config.define(BRIDGE_CONTROL, [0; 2], BRIDGE_CONTROL_WRITABLE.to_le_bytes());
        let mask = ADDRESS_BITS.to_le_bytes();
        let closed = WindowRegisters::CLOSED;
        config.define(MEMORY_BASE, closed.base.to_le_bytes(), mask);
        config.define(MEMORY_BASE + 2, closed.limit.to_le_bytes(), mask);
        config.define(PREFETCHABLE_BASE, (closed.base | PREFETCHABLE_64BIT).to_le_bytes(), mask);
        config.define(PREFETCHABLE_BASE + 2, (closed.limit | PREFETCHABLE_64BIT).to_le_bytes(), mask);
        config.define(PREFETCHABLE_BASE + 4, [0; 8], [0xff; 8]);
        define_power(&mut config);
        define_express(&mut config, slot);
        Self { config }
    }

    /// Reads config space.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        self.config.read(offset, data);
    }

    /// Writes config space.
    pub fn write(&mut self, offset: u16, data: &[u8]) -> PortEvent {
        let was_in_reset = self.is_in_reset();
        self.config.write(offset, data);
        if self.is_in_reset() && !was_in_reset { PortEvent::SecondaryBusReset } else { PortEvent::None }
    }

    /// Says whether there is a function in the slot.
    pub fn set_present(&mut self, present: bool) {
        let (link, slot) = if present { (LINK | LINK_ACTIVE, PRESENCE_DETECT) } else { (0, 0) };
        self.config.set(LINK_STATUS, link.to_le_bytes());
        self.config.set(SLOT_STATUS, slot.to_le_bytes());
    }

    /// The bus numbers.
    pub fn buses(&self) -> BusNumbers {
        let [primary, secondary, subordinate] = self.config.get(BUS_NUMBERS);
        BusNumbers { primary, secondary, subordinate }
    }

    /// Whether config accesses to a bus are for the link behind this port, and reach it.
    pub fn leads_to(&self, bus: u8) -> bool {
        self.buses().secondary == bus && self.is_link_up()
    }

    /// The addresses of memory space that reach the slot now.
    pub fn windows(&self) -> BridgeWindows {
        if self.config.word(COMMAND) & COMMAND_MEMORY == 0 || !self.is_link_up() {
            return BridgeWindows::default();
        }
        BridgeWindows {
            memory: self.registers(MEMORY_BASE, [0; 2]).range(),
            prefetchable: self
                .registers(
                    PREFETCHABLE_BASE,
                    [self.config.dword(PREFETCHABLE_BASE + 4), self.config.dword(PREFETCHABLE_BASE + 8)],
                )
                .range(),
        }
    }

    fn registers(&self, at: u16, [base_upper, limit_upper]: [u32; 2]) -> WindowRegisters {
        WindowRegisters { base: self.config.word(at), limit: self.config.word(at + 2), base_upper, limit_upper }
    }

    fn is_in_reset(&self) -> bool {
        self.config.word(BRIDGE_CONTROL) & SECONDARY_BUS_RESET != 0
    }

    /// Requests are forwarded: the port is in D0, and the link is not in reset.
    fn is_link_up(&self) -> bool {
        self.config.word(POWER_CONTROL) & POWER_STATE == 0 && !self.is_in_reset()
    }

    /// Sets the port up as firmware does before it starts an operating system.
    pub fn set_up(&mut self, buses: BusNumbers, windows: &BridgeWindows) {
        self.config.set(BUS_NUMBERS, [buses.primary, buses.secondary, buses.subordinate]);
        let memory = WindowRegisters::of(&windows.memory);
        let prefetchable = WindowRegisters::of(&windows.prefetchable);
        self.config.write(MEMORY_BASE, &memory.base.to_le_bytes());
        self.config.write(MEMORY_BASE + 2, &memory.limit.to_le_bytes());
        self.config.write(PREFETCHABLE_BASE, &prefetchable.base.to_le_bytes());
        self.config.write(PREFETCHABLE_BASE + 2, &prefetchable.limit.to_le_bytes());
        self.config.write(PREFETCHABLE_BASE + 4, &prefetchable.base_upper.to_le_bytes());
        self.config.write(PREFETCHABLE_BASE + 8, &prefetchable.limit_upper.to_le_bytes());
        self.config.write(COMMAND, &(COMMAND_MEMORY | COMMAND_MASTER).to_le_bytes());
    }
}

fn define_power(config: &mut ConfigSpace) {
    config.define(CAPABILITIES_POINTER, [POWER.to_le_bytes()[0]], [0]);
    config.define(POWER, [0x01, EXPRESS.to_le_bytes()[0]], [0; 2]);
    config.define(POWER + 2, POWER_CAPABILITIES.to_le_bytes(), [0; 2]);
    config.define(POWER_CONTROL, NO_SOFT_RESET.to_le_bytes(), POWER_STATE.to_le_bytes());
}

fn define_express(config: &mut ConfigSpace, slot: u8) {
    config.define(EXPRESS, [0x10, 0], [0; 2]);
    config.define(EXPRESS + 2, EXPRESS_CAPABILITIES.to_le_bytes(), [0; 2]);
    config.define(EXPRESS + 4, DEVICE_CAPABILITIES.to_le_bytes(), [0; 4]);
    config.define(EXPRESS + 8, DEVICE_CONTROL_INITIAL.to_le_bytes(), DEVICE_CONTROL_WRITABLE.to_le_bytes());
    let number = u32::from(slot) + 1;
    config.define(EXPRESS + 12, (u32::from(LINK) | LINK_ACTIVE_REPORTING | number << 24).to_le_bytes(), [0; 4]);
    config.define(EXPRESS + 16, [0; 2], LINK_CONTROL_WRITABLE.to_le_bytes());
    config.define(EXPRESS + 20, (number << 19).to_le_bytes(), [0; 4]); // slot capabilities: its number
    config.define(EXPRESS + 28, [0; 2], ROOT_CONTROL_WRITABLE.to_le_bytes());
    config.define(EXPRESS + 36, DEVICE_CAPABILITIES_2.to_le_bytes(), [0; 4]);
    config.define(EXPRESS + 40, [0; 2], DEVICE_CONTROL_2_WRITABLE.to_le_bytes());
    config.define(EXPRESS + 44, LINK_SPEEDS.to_le_bytes(), [0; 4]);
    config.define(EXPRESS + 48, (LINK & 0b1111).to_le_bytes(), 0b1111_u16.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOWS: BridgeWindows =
        BridgeWindows { memory: 0xc000_0000..0xc100_0000, prefetchable: 0x100_0000_0000..0x200_0000_0000 };
    const BUSES: BusNumbers = BusNumbers { primary: 0, secondary: 3, subordinate: 3 };

    fn port() -> RootPort {
        let mut port = RootPort::new(2);
        port.set_up(BUSES, &WINDOWS);
        port
    }

    fn dword(port: &RootPort, offset: u16) -> u32 {
        let mut data = [0; 4];
        port.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn it_is_a_bridge_and_a_root_port() {
        let port = port();
        assert_eq!(dword(&port, 0), 0xe501_1234);
        assert_eq!(dword(&port, 8), 0x0604_0000);
        assert_eq!(dword(&port, 0xc) >> 16 & 0xff, 1);
        assert_eq!((dword(&port, 0x10), dword(&port, 0x14)), (0, 0), "no BARs");
        let [mut at] = port.config.get(CAPABILITIES_POINTER);
        let mut found = Vec::new();
        while at != 0 {
            let [id, next, low, high] = port.config.get(at.into());
            found.push((id, u16::from_le_bytes([low, high])));
            at = next;
        }
        assert_eq!(found, [(1, 3), (0x10, 0x142)]);
    }

    #[test]
    fn after_power_on_it_forwards_nothing() {
        let mut port = RootPort::new(0);
        port.write(COMMAND, &[2]);
        assert_eq!(port.windows(), BridgeWindows { memory: 0..0, prefetchable: 0..0 });
        assert_eq!(port.buses(), BusNumbers { primary: 0, secondary: 0, subordinate: 0 });
    }

    #[test]
    fn firmware_opens_it() {
        let port = port();
        assert_eq!(port.windows(), WINDOWS);
        assert!(port.leads_to(3) && !port.leads_to(0) && !port.leads_to(4));
        assert_eq!(dword(&port, 0x20), 0xc0f0_c000);
        assert_eq!(dword(&port, 0x24), 0xfff1_0001);
        assert_eq!((dword(&port, 0x28), dword(&port, 0x2c)), (0x100, 0x1ff));
        assert_eq!(dword(&port, 0x1c) & 0xffff, 0, "no I/O window");
    }

    #[test]
    fn memory_enable_power_and_reset_gate_what_is_forwarded() {
        let mut port = port();
        port.write(COMMAND, &[4]);
        assert_eq!(port.windows(), BridgeWindows::default());
        assert!(port.leads_to(3), "config space does not depend on it");
        port.write(COMMAND, &[6]);
        port.write(POWER_CONTROL, &[3]);
        assert!(!port.leads_to(3) && port.windows() == BridgeWindows::default());
        port.write(POWER_CONTROL, &[0]);
        assert_eq!(port.write(BRIDGE_CONTROL, &[0x40]), PortEvent::SecondaryBusReset);
        assert_eq!(port.write(BRIDGE_CONTROL, &[0x42]), PortEvent::None, "it is in reset already");
        assert!(!port.leads_to(3) && port.windows() == BridgeWindows::default());
        assert_eq!(port.write(BRIDGE_CONTROL, &[0]), PortEvent::None);
        assert_eq!(port.windows(), WINDOWS);
    }

    #[test]
    fn presence_shows_in_link_and_slot_status() {
        let mut port = port();
        let shows = |port: &RootPort| (port.config.word(LINK_STATUS) & LINK_ACTIVE, port.config.word(SLOT_STATUS));
        assert_eq!(shows(&port), (0, 0));
        port.set_present(true);
        assert_eq!(shows(&port), (LINK_ACTIVE, PRESENCE_DETECT));
        port.write(LINK_STATUS, &[0; 2]);
        port.set_present(false);
        assert_eq!(shows(&port), (0, 0));
        assert_eq!(dword(&port, EXPRESS + 20) >> 19, 3, "physical slot number");
    }

    proptest! {
        #[test]
        fn whatever_is_written_it_stays_a_bridge(
            writes in prop::collection::vec((0u16..4096, prop::collection::vec(any::<u8>(), 1..8)), 0..60),
        ) {
            let mut port = port();
            for (offset, data) in writes {
                port.write(offset, &data);
                let windows = port.windows();
                prop_assert!(windows.memory.is_empty() || windows.memory.end <= 1 << 32);
            }
            prop_assert_eq!(dword(&port, 0), 0xe501_1234);
            prop_assert_eq!(dword(&port, 8), 0x0604_0000);
            prop_assert_eq!(dword(&port, 0x24) & 0x000f_000f, 0x0001_0001);
            prop_assert_eq!(dword(&port, 0x1c) & 0xffff, 0);
        }
    }
}
