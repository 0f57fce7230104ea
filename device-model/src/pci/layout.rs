// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Registers of config space that more than one part of the function uses.

/// Offset of the command register.
pub const COMMAND: u16 = 0x04;
/// Offset of the status register.
pub const STATUS: u16 = 0x06;
/// Command: error messages may be sent.
pub const COMMAND_SERR: u16 = 1 << 8;

/// PCI Express capability.
pub const EXPRESS: u16 = 0x60;
/// Device control register.
pub const DEVICE_CONTROL: u16 = EXPRESS + 8;
/// Device status register.
pub const DEVICE_STATUS: u16 = EXPRESS + 10;
