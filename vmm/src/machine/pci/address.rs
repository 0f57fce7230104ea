// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How an address says which function's config space is meant: by ECAM, and by the ports 0xcf8 and 0xcfc.
//!
//! All numbers here are the guest's.

use crate::machine::layout::ECAM;

/// First port of the config mechanism: the address register, four ports, then the data window, four ports.
pub const CONFIG_PORT: u16 = 0xcf8;
/// The data window.
const DATA_PORT: u16 = 0xcfc;
/// Address register: the data window is open.
const ENABLE: u32 = 1 << 31;
/// Bytes of config space that ECAM gives a function.
const ECAM_FUNCTION: u64 = 4096;
/// Bytes of config space that the ports reach.
const PORT_SPACE: u16 = 256;

/// A place in a function's config space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigAddress {
    /// Bus number.
    pub bus: u8,
    /// Device number, 0 to 31.
    pub device: u8,
    /// Function number, 0 to 7.
    pub function: u8,
    /// Offset in config space, 0 to 4095.
    pub offset: u16,
}

/// Which config space an access of `length` bytes to a guest physical address means. `None` if it is not ECAM, or if
/// it leaves the function's 4 KiB.
pub fn ecam(address: u64, length: usize) -> Option<ConfigAddress> {
    if !ECAM.contains(&address) {
        return None;
    }
    let offset = (address - ECAM.start) % ECAM_FUNCTION;
    if offset.checked_add(length as u64)? > ECAM_FUNCTION {
        return None;
    }
    let number = (address - ECAM.start) / ECAM_FUNCTION;
    let (bus, devfn) = ((number >> 8) as u8, number as u8);
    Some(ConfigAddress { bus, device: devfn >> 3, function: devfn & 7, offset: offset as u16 })
}

/// The address register of the port mechanism.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConfigPort(u32);

/// What an access to the ports means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortAccess {
    /// The address register itself.
    AddressRegister,
    /// Config space.
    Config(ConfigAddress),
    /// Nothing.
    Nothing,
}

impl ConfigPort {
    /// The register's value.
    pub fn read(self) -> u32 {
        self.0
    }

    /// Writes the register; its reserved bits stay zero.
    pub fn write(&mut self, value: u32) {
        self.0 = value & 0x80ff_fffc;
    }

    /// What an access of `length` bytes to `port` means now.
    pub fn decode(self, port: u16, length: usize) -> PortAccess {
        if port == CONFIG_PORT && length == 4 {
            return PortAccess::AddressRegister;
        }
        let (Some(in_window), true) = (port.checked_sub(DATA_PORT), self.0 & ENABLE != 0) else {
            return PortAccess::Nothing;
        };
        if usize::from(in_window) + length > 4 {
            return PortAccess::Nothing;
        }
        PortAccess::Config(ConfigAddress {
            bus: (self.0 >> 16 & 0xff) as u8,
            device: (self.0 >> 11 & 0x1f) as u8,
            function: (self.0 >> 8 & 7) as u8,
            offset: (self.0 & 0xfc) as u16 + in_window,
        })
    }
}

const _: () = assert!(PORT_SPACE as u64 <= ECAM_FUNCTION);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ecam_is_twelve_bits_a_function() {
        let at = |bus, device, function, offset| Some(ConfigAddress { bus, device, function, offset });
        assert_eq!(ecam(ECAM.start, 4), at(0, 0, 0, 0));
        assert_eq!(ecam(ECAM.start + 0x9_a104, 4), at(0, 19, 2, 0x104));
        assert_eq!(ecam(ECAM.start + 0x319_a104, 4), at(49, 19, 2, 0x104));
        assert_eq!(ecam(ECAM.end - 4, 4), at(255, 31, 7, 0xffc));
        assert_eq!(ecam(ECAM.start + 0xffc, 8), None);
        assert_eq!(ecam(ECAM.end, 4), None);
        assert_eq!(ecam(ECAM.start - 1, 1), None);
    }

    #[test]
    fn the_ports_want_an_open_window() {
        let mut port = ConfigPort::default();
        assert_eq!(port.decode(0xcfc, 4), PortAccess::Nothing);
        port.write(0x8000_1a10);
        assert_eq!(port.read(), 0x8000_1a10);
        let config = ConfigAddress { bus: 0, device: 3, function: 2, offset: 0x12 };
        assert_eq!(port.decode(0xcfe, 2), PortAccess::Config(config));
        assert_eq!(port.decode(0xcfe, 4), PortAccess::Nothing);
        assert_eq!(port.decode(0xcf8, 4), PortAccess::AddressRegister);
        assert_eq!(port.decode(0xcf8, 1), PortAccess::Nothing);
        port.write(0x8001_1a10);
        assert_eq!(port.decode(0xcfe, 2), PortAccess::Config(ConfigAddress { bus: 1, ..config }));
        port.write(0x0001_1a10);
        assert_eq!(port.decode(0xcfe, 2), PortAccess::Nothing, "not enabled");
    }

    proptest! {
        #[test]
        fn no_access_leaves_config_space(address: u64, in_ecam in 0..ECAM.end - ECAM.start, length in 0usize..=16) {
            for address in [address, ECAM.start + in_ecam] {
                if let Some(config) = ecam(address, length) {
                    prop_assert!(config.device < 32 && config.function < 8);
                    prop_assert!(u64::from(config.offset) + length as u64 <= ECAM_FUNCTION);
                    let device = u64::from(config.bus) * 32 + u64::from(config.device);
                    let number = device * 8 + u64::from(config.function);
                    prop_assert_eq!(ECAM.start + number * ECAM_FUNCTION + u64::from(config.offset), address);
                }
            }
        }

        #[test]
        fn no_port_access_leaves_config_space(register: u32, port: u16, length in 0usize..=64) {
            let mut config_port = ConfigPort::default();
            config_port.write(register);
            if let PortAccess::Config(config) = config_port.decode(port, length) {
                prop_assert!(config.device < 32 && config.function < 8);
                prop_assert!(usize::from(config.offset) + length <= usize::from(PORT_SPACE));
            }
        }
    }
}
