// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The registers of config space that are the VMM's, and what they say.

use ersatz_device_model::bus::{BarInfo, MsixMessage};

use super::bar;
use super::capability::{self, id};
use super::config::{ConfigSpace, DeviceWrite};
use super::hardware::MessageKind;
use super::msi::Msi;
use super::msix::Msix;

/// Offsets of registers.
pub const COMMAND: u16 = 0x04;
const HEADER_TYPE: u16 = 0x0e;
const INTERRUPT_LINE: u16 = 0x3c;
const INTERRUPT_PIN: u16 = 0x3d;
/// Command register: I/O BARs decode; memory BARs decode; the function does DMA.
const IO: u8 = 1;
const MEMORY: u8 = 1 << 1;
const MASTER: u8 = 1 << 2;
/// Header type: there are other functions of the same device.
const MULTIFUNCTION: u8 = 1 << 7;
/// Power management: the control register in the capability, its power state, and whether the function keeps its state when it
/// leaves D3.
const POWER_CONTROL: u16 = 4;
const POWER_STATE: u8 = 0b11;
const KEEPS_STATE: u8 = 1 << 3;
const D3: u8 = 3;
/// PCI Express: capabilities and control of the device in the capability, both for the function-level reset.
const DEVICE_CAPABILITIES: u16 = 4;
const HAS_RESET: u8 = 1 << 4; // of the last byte
const DEVICE_CONTROL: u16 = 8;
const RESET: u8 = 1 << 7; // of the second byte
/// Advanced features: capabilities and control in the capability, both for the function-level reset.
const ADVANCED_CAPABILITIES: u16 = 3;
const ADVANCED_HAS_RESET: u8 = 1 << 1;
const ADVANCED_CONTROL: u16 = 4;
const ADVANCED_RESET: u8 = 1;

/// What the registers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controls {
    /// Where each BAR decodes, in the order of [`Registers::bars`].
    pub addresses: Vec<Option<u64>>,
    /// Whether the function may do DMA and send messages.
    pub master: bool,
    /// How it sends messages, and by how many vectors; `None` while it sends none.
    pub messages: Option<(MessageKind, u16)>,
    /// What all of its messages hinge on: the control bits of MSI-X, the messages of MSI.
    pub message_controls: (u16, Vec<Option<MsixMessage>>),
}

/// What follows from a write to config space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// The device gets these bytes.
    Device(Vec<DeviceWrite>),
    /// The function is to be reset.
    Reset,
}

/// The registers.
#[derive(Clone, Debug)]
pub struct Registers {
    config: ConfigSpace,
    /// As after reset.
    initial: ConfigSpace,
    bars: Vec<BarInfo>,
    msi: Option<Msi>,
    msix: Option<Msix>,
    /// Where the power state is, and whether the function keeps its state when it leaves D3.
    power: Option<(u16, bool)>,
    /// Bytes in which a bit written resets the function.
    resets: Vec<(u16, u8)>,
}

impl Registers {
    /// Takes the registers from a device with `device` in its config space, and BARs of these sizes in bytes.
    pub fn take(device: &[u8], size: impl Fn(u8) -> u64) -> Self {
        let byte = |offset: u16| device.get(usize::from(offset)).copied().unwrap_or(0);
        let mut config = ConfigSpace::default();
        capability::hide(&mut config, device);
        // The device itself always decodes: accesses through mappings of its BARs must not fail.
        config.take_bits(COMMAND, IO | MEMORY | MASTER, 0, MEMORY | MASTER);
        config.set_device_bits(COMMAND, MEMORY);
        config.take_bits(HEADER_TYPE, MULTIFUNCTION, 0, 0);
        config.take(INTERRUPT_LINE, &[0], &[0xff]);
        config.take(INTERRUPT_PIN, &[0], &[0]);
        let bars = bar::take_registers(&mut config, device, size);
        let (mut msi, mut msix, mut power, mut resets) = (None, None, None, Vec::new());
        for found in capability::list(device) {
            match found.id {
                id::MSI => msi = Some(Msi::take(&mut config, device, found.offset)),
                id::MSIX => msix = Some(Msix::take(&mut config, device, found.offset)),
                id::POWER => {
                    let control = found.offset + POWER_CONTROL;
                    config.take_bits(control, POWER_STATE, 0, POWER_STATE);
                    power = Some((control, byte(control) & KEEPS_STATE != 0));
                }
                id::EXPRESS if byte(found.offset + DEVICE_CAPABILITIES + 3) & HAS_RESET != 0 => {
                    resets.push((found.offset + DEVICE_CONTROL + 1, RESET));
                }
                id::ADVANCED if byte(found.offset + ADVANCED_CAPABILITIES) & ADVANCED_HAS_RESET != 0 => {
                    resets.push((found.offset + ADVANCED_CONTROL, ADVANCED_RESET));
                }
                _ => {}
            }
        }
        for &(offset, bit) in &resets {
            config.take_bits(offset, bit, 0, 0);
        }
        Self { initial: config.clone(), config, bars, msi, msix, power, resets }
    }

    /// The BARs.
    pub fn bars(&self) -> &[BarInfo] {
        &self.bars
    }

    /// MSI-X, if the device has it.
    pub fn msix(&self) -> Option<&Msix> {
        self.msix.as_ref()
    }

    /// The same, to be written.
    pub fn msix_mut(&mut self) -> Option<&mut Msix> {
        self.msix.as_mut()
    }

    /// Vectors of the device, of MSI or MSI-X.
    pub fn vectors(&self) -> u16 {
        let msi = self.msi.map_or(0, |msi| msi.vectors());
        self.msix.as_ref().map_or(0, Msix::vectors).max(msi)
    }

    /// Whether an access need not go to the device.
    pub fn is_owned(&self, offset: u16, length: usize) -> bool {
        self.config.is_owned(offset, length)
    }

    /// Puts the VMM's bits into what the device has.
    pub fn overlay(&self, offset: u16, data: &mut [u8]) {
        self.config.overlay(offset, data);
    }

    /// Writes config space.
    pub fn write(&mut self, offset: u16, data: &[u8]) -> Written {
        let asked = |&(at, bit): &(u16, u8)| {
            let byte = at.checked_sub(offset).and_then(|index| data.get(usize::from(index)));
            byte.is_some_and(|byte| byte & bit != 0)
        };
        let slept = self.power_state() == D3;
        let resets = self.resets.iter().any(asked);
        let writes = self.config.write(offset, data);
        let woke = slept && self.power_state() != D3;
        if resets || woke && self.power.is_some_and(|(_, keeps_state)| !keeps_state) {
            return Written::Reset;
        }
        Written::Device(writes)
    }

    /// All registers as after reset.
    pub fn reset(&mut self) {
        self.config = self.initial.clone();
        if let Some(msix) = &mut self.msix {
            msix.reset();
        }
    }

    /// What of the command register's first byte the device gets in place of the VMM's bits: it decodes, and is bus master or not.
    pub fn set_device_master(&mut self, master: bool) -> u8 {
        let bits = MEMORY | if master { MASTER } else { 0 };
        self.config.set_device_bits(COMMAND, bits);
        bits
    }

    /// The bits of the command register's first byte that are the VMM's.
    pub const fn owned_command_bits() -> u8 {
        IO | MEMORY | MASTER
    }

    fn power_state(&self) -> u8 {
        self.power.map_or(0, |(offset, _)| self.config.byte(offset) & POWER_STATE)
    }

    /// What the registers say now.
    pub fn controls(&self) -> Controls {
        let command = self.config.byte(COMMAND);
        let awake = self.power_state() == 0;
        let decodes = awake && command & MEMORY != 0;
        let address = |info| decodes.then(|| bar::address(&self.config, info));
        // While both are on, which must not be, MSI-X it is.
        let msix = self.msix.as_ref().filter(|msix| msix.is_enabled(&self.config));
        let msi = self.msi.and_then(|msi| msi.used(&self.config)).map(|used| (MessageKind::Msi, used));
        let messages = msix.map(|msix| (MessageKind::Msix, msix.vectors())).or(msi);
        let msi_messages = match messages {
            Some((MessageKind::Msi, used)) => (0..used).map(|vector| self.message(vector)).collect(),
            _ => Vec::new(),
        };
        Controls {
            addresses: self.bars.iter().map(address).collect(),
            master: awake && command & MASTER != 0,
            messages,
            message_controls: (self.msix.as_ref().map_or(0, |msix| msix.control(&self.config)), msi_messages),
        }
    }

    /// The message of a vector; `None` while it is masked, or the device sends none.
    pub fn message(&self, vector: u16) -> Option<MsixMessage> {
        match self.msix.as_ref().filter(|msix| msix.is_enabled(&self.config)) {
            Some(msix) => msix.message(&self.config, vector),
            None => self.msi?.message(&self.config, vector),
        }
    }
}
