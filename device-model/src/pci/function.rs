// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An endpoint's config space, put together: identity, command register, BARs, capabilities.
//!
//! A write returns what it changed, found by comparing before and after. Whoever embeds the function acts on that.

use super::capability::{self, MsixLayout};
use super::config::{ConfigSpace, written_byte};
use super::{bar, capability as cap};
use crate::bus::BarInfo;

const COMMAND: u16 = 0x04;
const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_MASTER: u16 = 1 << 2;
/// Memory decode, bus master, parity error response, SERR, INTx disable.
const COMMAND_WRITABLE: u16 = COMMAND_MEMORY | COMMAND_MASTER | 1 << 6 | 1 << 8 | 1 << 10;
const STATUS_CAPABILITIES: u16 = 1 << 4;

/// Who the function says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor id, also that of the subsystem.
    pub vendor: u16,
    /// Device id, also that of the subsystem.
    pub device: u16,
    /// Class, subclass and programming interface: the low 24 bits.
    pub class: u32,
    /// Revision.
    pub revision: u8,
    /// Serial number.
    pub serial: u64,
}

/// The bits of config space that change what the function does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controls {
    /// Where each BAR decodes, in the order the function was given them.
    pub addresses: Vec<Option<u64>>,
    /// It answers memory accesses: memory decode is on, and it is in D0.
    pub memory: bool,
    /// It may send requests: bus mastering is on, and it is in D0.
    pub master: bool,
    /// It is in D3hot.
    pub asleep: bool,
    /// MSI-X is on.
    pub msix_enabled: bool,
    /// All MSI-X vectors are masked.
    pub msix_masked: bool,
}

/// What a config write did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Function level reset was asked for; config space has been reset already.
    FunctionReset,
    /// The controls are these now (perhaps the same as before).
    Controls {
        /// Before the write.
        before: Controls,
        /// After it.
        after: Controls,
    },
}

/// Config space of one endpoint.
#[derive(Clone, Debug)]
pub struct Function {
    config: ConfigSpace,
    bars: Vec<BarInfo>,
}

impl Function {
    /// An endpoint as it is after power-on.
    pub fn new(identity: Identity, bars: Vec<BarInfo>, msix: MsixLayout) -> Self {
        let mut config = ConfigSpace::new();
        config.define(0x00, identity.vendor.to_le_bytes(), [0; 2]);
        config.define(0x02, identity.device.to_le_bytes(), [0; 2]);
        config.define(COMMAND, [0; 2], COMMAND_WRITABLE.to_le_bytes());
        config.define(0x06, STATUS_CAPABILITIES.to_le_bytes(), [0; 2]);
        let [interface, subclass, class, _] = identity.class.to_le_bytes();
        config.define(0x08, [identity.revision, interface, subclass, class], [0; 4]);
        config.define(0x0c, [0], [0xff]); // cache line size: no meaning, but writable
        config.define(0x2c, identity.vendor.to_le_bytes(), [0; 2]);
        config.define(0x2e, identity.device.to_le_bytes(), [0; 2]);
        config.define(0x3c, [0], [0xff]); // interrupt line: a scratch byte for firmware
        for info in &bars {
            bar::define(&mut config, info);
        }
        capability::define(&mut config, msix, identity.serial);
        Self { config, bars }
    }

    /// The BARs, as given.
    pub fn bars(&self) -> &[BarInfo] {
        &self.bars
    }

    /// Reads config space.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        self.config.read(offset, data);
    }

    /// Writes config space.
    pub fn write(&mut self, offset: u16, data: &[u8]) -> Change {
        let [_, flr_byte] = cap::INITIATE_FLR.to_le_bytes();
        if written_byte(offset, data, cap::DEVICE_CONTROL + 1).is_some_and(|byte| byte & flr_byte != 0) {
            self.reset();
            return Change::FunctionReset;
        }
        let before = self.controls();
        let power_before: [u8; 2] = self.config.get(cap::POWER_CONTROL);
        self.config.write(offset, data);
        let state = self.config.word(cap::POWER_CONTROL) & cap::POWER_STATE;
        if state != 0 && state != cap::POWER_STATE_D3HOT {
            // D1 and D2 do not exist here; asking for them changes nothing.
            self.config.set(cap::POWER_CONTROL, power_before);
        }
        Change::Controls { before, after: self.controls() }
    }

    /// Back to the state after power-on.
    pub fn reset(&mut self) {
        self.config.reset();
    }

    /// The bits that matter, as they are now.
    pub fn controls(&self) -> Controls {
        let command = self.config.word(COMMAND);
        let asleep = self.config.word(cap::POWER_CONTROL) & cap::POWER_STATE == cap::POWER_STATE_D3HOT;
        let memory = command & COMMAND_MEMORY != 0 && !asleep;
        let message_control = self.config.word(cap::MSIX_CONTROL);
        Controls {
            addresses: self.bars.iter().map(|info| bar::address(&self.config, info).filter(|_| memory)).collect(),
            memory,
            master: command & COMMAND_MASTER != 0 && !asleep,
            asleep,
            msix_enabled: message_control & cap::MSIX_ENABLE != 0,
            msix_masked: message_control & cap::MSIX_FUNCTION_MASK != 0,
        }
    }
}
