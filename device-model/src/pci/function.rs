// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! An endpoint's config space, put together: identity, command register, BARs, capabilities.
//!
//! A write returns what it changed, found by comparing before and after. The device that embeds the function acts on that.

use std::sync::Arc;

use super::aer::ErrorLog;
use super::capability::{self, MsixLayout};
use super::config::{ConfigSpace, written_byte};
use super::layout::{COMMAND, COMMAND_SERR, DEVICE_CONTROL, STATUS};
use super::resize::ResizableBar;
use super::{bar, capability as cap};
use crate::bus::BarInfo;

const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_MASTER: u16 = 1 << 2;
/// Memory decode, bus master, parity error response, SERR, INTx disable.
const COMMAND_WRITABLE: u16 = COMMAND_MEMORY | COMMAND_MASTER | 1 << 6 | COMMAND_SERR | 1 << 10;
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
    /// The size of each BAR.
    pub sizes: Vec<u64>,
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
    /// The sizes of the BARs after reset.
    initial_sizes: Vec<u64>,
    resizable: Option<ResizableBar>,
    errors: Arc<ErrorLog>,
}

impl Function {
    /// An endpoint as it is after power-on. A resizable BAR is one of `bars`, with the size that it has after reset. What
    /// went wrong on the bus is taken from `errors`.
    pub fn new(
        identity: Identity,
        bars: Vec<BarInfo>,
        resizable: Option<ResizableBar>,
        msix: MsixLayout,
        errors: Arc<ErrorLog>,
    ) -> Self {
        let mut config = ConfigSpace::new();
        config.define(0x00, identity.vendor.to_le_bytes(), [0; 2]);
        config.define(0x02, identity.device.to_le_bytes(), [0; 2]);
        config.define(COMMAND, [0; 2], COMMAND_WRITABLE.to_le_bytes());
        config.define(STATUS, STATUS_CAPABILITIES.to_le_bytes(), [0; 2]);
        let [interface, subclass, class, _] = identity.class.to_le_bytes();
        config.define(0x08, [identity.revision, interface, subclass, class], [0; 4]);
        config.define(0x0c, [0], [0xff]); // cache line size: no meaning, but writable
        config.define(0x2c, identity.vendor.to_le_bytes(), [0; 2]);
        config.define(0x2e, identity.device.to_le_bytes(), [0; 2]);
        config.define(0x3c, [0], [0xff]); // interrupt line: a scratch byte for firmware
        for info in &bars {
            bar::define(&mut config, info);
        }
        let resizable = resizable.filter(|resizable| bars.iter().any(|info| info.bar == resizable.bar));
        let with_size = |resizable: ResizableBar| {
            bars.iter().find(|info| info.bar == resizable.bar).map(|info| (resizable, info.size))
        };
        capability::define(&mut config, msix, identity.serial, resizable.and_then(with_size));
        errors.follow(&config);
        let initial_sizes = bars.iter().map(|info| info.size).collect();
        Self { config, bars, initial_sizes, resizable, errors }
    }

    /// The BARs, as they are now.
    pub fn bars(&self) -> &[BarInfo] {
        &self.bars
    }

    /// Reads config space.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        self.config.read(offset, data);
        self.errors.read(offset, data);
    }

    /// Writes config space.
    pub fn write(&mut self, offset: u16, data: &[u8]) -> Change {
        let [_, flr_byte] = cap::INITIATE_FLR.to_le_bytes();
        if written_byte(offset, data, DEVICE_CONTROL + 1).is_some_and(|byte| byte & flr_byte != 0) {
            self.reset();
            return Change::FunctionReset;
        }
        let before = self.controls();
        let decoding = self.config.word(COMMAND) & COMMAND_MEMORY != 0;
        let power_before: [u8; 2] = self.config.get(cap::POWER_CONTROL);
        self.config.write(offset, data);
        self.errors.write(offset, data);
        self.errors.follow(&self.config);
        self.resize(decoding);
        let state = self.config.word(cap::POWER_CONTROL) & cap::POWER_STATE;
        if state != 0 && state != cap::POWER_STATE_D3HOT {
            // D1 and D2 do not exist here; asking for them changes nothing.
            self.config.set(cap::POWER_CONTROL, power_before);
        }
        Change::Controls { before, after: self.controls() }
    }

    /// Resizes the BAR to what its control register says. While memory decoding is on, or if it cannot have that size, the BAR
    /// stays as it is, and the register reads its size.
    fn resize(&mut self, decoding: bool) {
        let Some(resizable) = self.resizable else { return };
        let Some(info) = self.bars.iter_mut().find(|info| info.bar == resizable.bar) else { return };
        match resizable.asked_for(&self.config, cap::RESIZABLE_BAR) {
            Some(size) if size == info.size => {}
            Some(size) if !decoding => {
                info.size = size;
                bar::resize(&mut self.config, info);
            }
            _ => resizable.tell(&mut self.config, cap::RESIZABLE_BAR, info.size),
        }
    }

    /// Back to the state after power-on, but for the record of errors.
    pub fn reset(&mut self) {
        for (info, size) in self.bars.iter_mut().zip(&self.initial_sizes) {
            info.size = *size;
            bar::define(&mut self.config, info);
        }
        self.config.reset();
        self.errors.follow(&self.config);
    }

    /// The bits that matter, as they are now.
    pub fn controls(&self) -> Controls {
        let command = self.config.word(COMMAND);
        let asleep = self.config.word(cap::POWER_CONTROL) & cap::POWER_STATE == cap::POWER_STATE_D3HOT;
        let memory = command & COMMAND_MEMORY != 0 && !asleep;
        let message_control = self.config.word(cap::MSIX_CONTROL);
        Controls {
            addresses: self.bars.iter().map(|info| bar::address(&self.config, info).filter(|_| memory)).collect(),
            sizes: self.bars.iter().map(|info| info.size).collect(),
            memory,
            master: command & COMMAND_MASTER != 0 && !asleep,
            asleep,
            msix_enabled: message_control & cap::MSIX_ENABLE != 0,
            msix_masked: message_control & cap::MSIX_FUNCTION_MASK != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: Identity = Identity { vendor: 0x1234, device: 0x5678, class: 0x03_02_00, revision: 9, serial: 1 };

    fn function() -> Function {
        let bars = vec![
            BarInfo { bar: 0, size: 4096, is_64bit: false, prefetchable: false },
            BarInfo { bar: 2, size: 1 << 30, is_64bit: true, prefetchable: true },
        ];
        let resizable = ResizableBar { bar: 2, smallest: 2 << 20, largest: 4 << 30 };
        let msix = MsixLayout { bar: 0, vectors: 4, table: 0, pending: 2048 };
        Function::new(IDENTITY, bars, Some(resizable), msix, Arc::new(ErrorLog::new(0)))
    }

    fn resize(function: &mut Function, order: u8) -> Controls {
        after(function.write(cap::RESIZABLE_BAR + 9, &[order]))
    }

    fn dword(function: &Function, offset: u16) -> u32 {
        let mut data = [0; 4];
        function.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn after(change: Change) -> Controls {
        match change {
            Change::Controls { after, .. } => after,
            Change::FunctionReset => panic!("no reset was asked for"),
        }
    }

    #[test]
    fn the_header_says_who_it_is() {
        let function = function();
        assert_eq!(dword(&function, 0x00), 0x5678_1234);
        assert_eq!(dword(&function, 0x08), 0x0302_0009);
        assert_eq!(dword(&function, 0x0c) >> 16 & 0xff, 0, "type 0, one function");
        assert_eq!(dword(&function, 0x2c), 0x5678_1234);
        assert_eq!(dword(&function, 0x3c) >> 8 & 0xff, 0, "no interrupt pin");
    }

    #[test]
    fn identity_is_not_writable() {
        let mut function = function();
        let before: Vec<_> = [0x00, 0x08, 0x2c, 0x34, 0x100, 0x104].map(|at| dword(&function, at)).into();
        for at in [0x00, 0x08, 0x2c, 0x34, 0x100, 0x104] {
            function.write(at, &[0xff; 4]);
        }
        assert_eq!(before, [0x00, 0x08, 0x2c, 0x34, 0x100, 0x104].map(|at| dword(&function, at)));
    }

    #[test]
    fn bars_decode_while_memory_decoding_is_on() {
        let mut function = function();
        function.write(0x10, &0xfebf_f000_u32.to_le_bytes());
        assert_eq!(after(function.write(0x18, &0x40_0000_0000_u64.to_le_bytes())).addresses, [None, None]);
        let now = after(function.write(COMMAND, &[0b010]));
        assert_eq!(now.addresses, [Some(0xfebf_f000), Some(0x40_0000_0000)]);
        assert!(now.memory && !now.master);
        assert_eq!(after(function.write(COMMAND, &[0])).addresses, [None, None]);
    }

    #[test]
    fn a_sleeping_function_neither_answers_nor_masters() {
        let mut function = function();
        function.write(0x10, &0xfebf_f000_u32.to_le_bytes());
        function.write(COMMAND, &[0b110]);
        let asleep = after(function.write(cap::POWER_CONTROL, &[3]));
        assert!(asleep.asleep && !asleep.memory && !asleep.master && asleep.addresses == [None, None]);
        let awake = after(function.write(cap::POWER_CONTROL, &[0]));
        assert!(!awake.asleep && awake.memory && awake.master && awake.addresses[0] == Some(0xfebf_f000));
    }

    #[test]
    fn there_is_no_d1_and_no_d2() {
        let mut function = function();
        for (wanted, state) in [(1, 0), (2, 0), (3, 3), (1, 3), (2, 3), (0, 0)] {
            function.write(cap::POWER_CONTROL, &[wanted]);
            assert_eq!(dword(&function, cap::POWER_CONTROL) & 3, state, "asked for D{wanted}");
        }
    }

    #[test]
    fn flr_forgets_everything_by_any_width_of_write() {
        let [low, high] = (cap::INITIATE_FLR | 0x10).to_le_bytes();
        let writes: [(u16, &[u8]); 3] =
            [(DEVICE_CONTROL, &[low, high]), (DEVICE_CONTROL + 1, &[high]), (DEVICE_CONTROL, &[low, high, 0, 0])];
        for (offset, data) in writes {
            let mut function = function();
            function.write(0x10, &0xfebf_f000_u32.to_le_bytes());
            function.write(COMMAND, &[0b110]);
            assert_eq!(function.write(offset, data), Change::FunctionReset);
            assert_eq!(function.controls(), super::tests::function().controls());
            assert_eq!(dword(&function, 0x10), 0);
        }
        let mut function = function();
        assert!(matches!(function.write(DEVICE_CONTROL, &[low]), Change::Controls { .. }));
    }

    #[test]
    fn a_resized_bar_has_another_mask_at_once() {
        let mut function = function();
        function.write(0x18, &0x40_c000_0000_u64.to_le_bytes());
        assert_eq!(resize(&mut function, 12).sizes, [4096, 4 << 30]);
        assert_eq!(function.bars()[1].size, 4 << 30);
        assert_eq!((dword(&function, 0x18), dword(&function, 0x1c)), (0b1100, 0x40), "cut to the alignment");
        function.write(0x18, &[0xff; 8]);
        assert_eq!((dword(&function, 0x18), dword(&function, 0x1c)), (0b1100, u32::MAX), "sized again");
        resize(&mut function, 1);
        function.write(0x18, &0x40_0020_0000_u64.to_le_bytes());
        assert_eq!(after(function.write(COMMAND, &[2])).addresses[1], Some(0x40_0020_0000));
    }

    #[test]
    fn sizes_that_cannot_be_are_not_taken() {
        let mut function = function();
        let control = dword(&function, cap::RESIZABLE_BAR + 8);
        for order in [0, 13, 20, 63] {
            assert_eq!(resize(&mut function, order).sizes[1], 1 << 30);
            assert_eq!(dword(&function, cap::RESIZABLE_BAR + 8), control, "{order}");
        }
        function.write(COMMAND, &[2]);
        assert_eq!(resize(&mut function, 1).sizes[1], 1 << 30, "memory decoding is on");
        assert_eq!(dword(&function, cap::RESIZABLE_BAR + 8), control);
        function.write(COMMAND, &[0]);
        assert_eq!(resize(&mut function, 1).sizes[1], 2 << 20);
    }

    #[test]
    fn a_reset_gives_the_bar_its_first_size() {
        let mut function = function();
        resize(&mut function, 1);
        function.reset();
        assert_eq!(
            (function.bars()[1].size, dword(&function, cap::RESIZABLE_BAR + 8)),
            (1 << 30, 10 << 8 | 1 << 5 | 2)
        );
        function.write(0x18, &[0xff; 8]);
        assert_eq!(dword(&function, 0x18), 0xc000_000c);
    }

    #[test]
    fn errors_show_and_can_be_cleared() {
        let mut function = function();
        let request = super::super::tlp::Request { kind: super::super::tlp::Kind::Read, address: 0x1000, length: 8 };
        function.errors.refused(super::super::aer::Refusal::UnsupportedRequest, &request);
        assert_eq!(dword(&function, COMMAND) >> 16, 1 << 13 | u32::from(STATUS_CAPABILITIES));
        assert_eq!(dword(&function, 0x104), 1 << 22);
        function.write(0x104, &[0xff; 4]);
        function.write(STATUS, &[0xff; 2]);
        assert_eq!((dword(&function, COMMAND) >> 16, dword(&function, 0x104)), (STATUS_CAPABILITIES.into(), 0));
    }

    #[test]
    fn msix_bits_show() {
        let mut function = function();
        let now = after(function.write(cap::MSIX_CONTROL, &(cap::MSIX_ENABLE | cap::MSIX_FUNCTION_MASK).to_le_bytes()));
        assert!(now.msix_enabled && now.msix_masked);
        let now = after(function.write(cap::MSIX_CONTROL + 1, &[0x80]));
        assert!(now.msix_enabled && !now.msix_masked);
    }
}
