// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the guest's accesses reach: I/O ports and physical addresses that KVM does not serve by itself.
//!
//! | port | what |
//! |---|---|
//! | 0x64 | keyboard controller: only its reset line |
//! | 0xf4 | exit port: a byte written is the guest's exit status, and ends the machine |
//! | 0xf5 | ready port: a write says that the guest is ready for its run |
//! | 0x3f8–0x3ff | serial port |
//! | 0x600–0x602 | ACPI sleep control, sleep status, reset |
//! | 0xcf8–0xcff | PCI config space |

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ersatz_guest_image::ports::{EXIT_PORT, READY_PORT};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

use super::config::End;
use super::exits::ExitKind;
use super::pci::PciBus;
use super::pci::address::{self, CONFIG_PORT, ConfigPort, PortAccess};
use super::serial::SerialPort;

/// First port of the serial port.
pub const PORT_SERIAL: u16 = 0x3f8;
/// Ports of the serial port.
pub const SERIAL_PORTS: u8 = 8;
/// Interrupt of the serial port.
pub const SERIAL_GSI: u32 = 4;
/// ACPI's sleep control register.
pub const PORT_SLEEP_CONTROL: u16 = 0x600;
/// ACPI's sleep status register.
pub const PORT_SLEEP_STATUS: u16 = 0x601;
/// ACPI's reset register.
pub const PORT_RESET: u16 = 0x602;
/// What resets when written to it.
pub const RESET_VALUE: u8 = 1;
/// The sleep type that means off.
pub const SLEEP_TYPE_OFF: u8 = 5;

/// Writing this to the sleep control register goes to sleep; the type is in bits 4:2.
const SLEEP_ENABLE: u8 = 1 << 5;
const KEYBOARD_COMMAND: u16 = 0x64;
/// Keyboard controller: pulse the reset line.
const KEYBOARD_RESET: u8 = 0xfe;
const SERIAL_END: u16 = PORT_SERIAL + SERIAL_PORTS as u16 - 1;
const CONFIG_END: u16 = CONFIG_PORT + 7;

/// The devices of the machine.
pub struct Platform {
    serial: Arc<SerialPort>,
    pci: Arc<PciBus>,
    config_port: Mutex<ConfigPort>,
    /// Signalled by a write to the ready port.
    ready: Arc<EventFd>,
    /// Held so that it is there for as long as a vCPU may run: each vCPU has a reference to this platform.
    _memory: GuestMemoryMmap,
}

impl Platform {
    /// The platform of the machine with this memory. `ready` is signalled when the guest says that it is ready.
    pub fn new(serial: Arc<SerialPort>, pci: Arc<PciBus>, ready: Arc<EventFd>, memory: GuestMemoryMmap) -> Self {
        Self { serial, pci, config_port: Mutex::default(), ready, _memory: memory }
    }

    fn config_port(&self) -> MutexGuard<'_, ConfigPort> {
        self.config_port.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an access to a port is counted as.
    pub fn exit_kind(port: u16) -> ExitKind {
        match port {
            PORT_SERIAL..=SERIAL_END => ExitKind::Serial,
            CONFIG_PORT..=CONFIG_END => ExitKind::ConfigSpace,
            _ => ExitKind::Port,
        }
    }

    /// Reads a port; where nothing is, all ones.
    pub fn port_read(&self, port: u16, data: &mut [u8]) {
        match port {
            PORT_SERIAL..=SERIAL_END => {
                // More than one byte means a string instruction, which reads the same port each time.
                for byte in data {
                    *byte = self.serial.read((port - PORT_SERIAL) as u8);
                }
            }
            CONFIG_PORT..=CONFIG_END => self.config_port_read(port, data),
            KEYBOARD_COMMAND | PORT_SLEEP_CONTROL | PORT_SLEEP_STATUS | PORT_RESET => data.fill(0),
            _ => data.fill(0xff),
        }
    }

    /// Writes a port; returns how that ends the machine, if it does.
    pub fn port_write(&self, port: u16, data: &[u8]) -> Option<End> {
        let first = *data.first()?;
        match port {
            PORT_SERIAL..=SERIAL_END => {
                for byte in data {
                    self.serial.write((port - PORT_SERIAL) as u8, *byte);
                }
            }
            CONFIG_PORT..=CONFIG_END => self.config_port_write(port, data),
            EXIT_PORT => return Some(End::Exited(first)),
            READY_PORT => {
                // It fails only if it was signalled 2^64 times and nobody looked.
                let _ = self.ready.write(1);
            }
            PORT_SLEEP_CONTROL if first & SLEEP_ENABLE != 0 && first >> 2 & 7 == SLEEP_TYPE_OFF => {
                return Some(End::PoweredOff);
            }
            PORT_RESET if first == RESET_VALUE => return Some(End::Reset),
            KEYBOARD_COMMAND if first == KEYBOARD_RESET => return Some(End::Reset),
            _ => {}
        }
        None
    }

    fn config_port_read(&self, port: u16, data: &mut [u8]) {
        let config_port = *self.config_port();
        match config_port.decode(port, data.len()) {
            PortAccess::AddressRegister => data.copy_from_slice(&config_port.read().to_le_bytes()),
            PortAccess::Config(address) => self.pci.config_read(address, data),
            PortAccess::Nothing => data.fill(0xff),
        }
    }

    fn config_port_write(&self, port: u16, data: &[u8]) {
        let mut config_port = self.config_port();
        match (config_port.decode(port, data.len()), data) {
            (PortAccess::AddressRegister, &[a, b, c, d]) => config_port.write(u32::from_le_bytes([a, b, c, d])),
            (PortAccess::Config(address), _) => {
                drop(config_port);
                self.pci.config_write(address, data);
            }
            _ => {}
        }
    }

    /// Reads a physical address; where nothing is, all ones.
    pub fn mmio_read(&self, address: u64, data: &mut [u8]) -> ExitKind {
        match address::ecam(address, data.len()) {
            Some(config) => {
                self.pci.config_read(config, data);
                ExitKind::ConfigSpace
            }
            None => self.pci.memory_read(address, data),
        }
    }

    /// Writes a physical address.
    pub fn mmio_write(&self, address: u64, data: &[u8]) -> ExitKind {
        match address::ecam(address, data.len()) {
            Some(config) => {
                self.pci.config_write(config, data);
                ExitKind::ConfigSpace
            }
            None => self.pci.memory_write(address, data),
        }
    }
}
