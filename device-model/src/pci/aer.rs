// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What config space says about requests of the function that were refused: PCI status, Device Status, and the Advanced
//! Error Reporting capability.
//!
//! A requester learns of a refusal by the status of the completion. Two layers record it here:
//!
//! - The function's interface to the bus: *Unsupported Request* sets Received Master Abort, *Completer Abort* sets Received
//!   Target Abort, in the PCI status register. For AER such a completion is an error of its completer, not of the requester.
//! - The engine behind it, which lost a request it cannot do without: that is an Uncorrectable Internal Error, for which AER
//!   lets a function log the header of the request. As the specification has it, that error is masked and fatal until
//!   software says otherwise; while it is masked, its status bit is set but nothing is logged.
//!
//! Engines write here while a config access may read, so this has a lock of its own, below all others. A function level
//! reset leaves the capability as it is (its bits are sticky), and clears the rest.

use super::config::ConfigSpace;
use super::layout::{COMMAND, COMMAND_SERR, DEVICE_CONTROL, DEVICE_STATUS, STATUS};
use super::tlp::{Kind, Request};
use crate::sync::Mutex;

/// The capability's extended id.
pub const ID: u16 = 0x01;
const VERSION: u32 = 2;
/// Where the capability lies.
pub const AER: u16 = 0x100;
/// Bytes that it takes up.
pub const LENGTH: u16 = 0x48;

const UNCORRECTABLE_STATUS: u16 = AER + 0x04;
const UNCORRECTABLE_MASK: u16 = AER + 0x08;
const UNCORRECTABLE_SEVERITY: u16 = AER + 0x0c;
const CORRECTABLE_MASK: u16 = AER + 0x14;
const CONTROL: u16 = AER + 0x18;
const HEADER_LOG: u16 = AER + 0x1c;

/// Uncorrectable Internal Error, by its number; also the value of the first error pointer.
const INTERNAL: u32 = 22;
/// Errors with bits in mask and severity: data link protocol, poisoned TLP, completion timeout, unexpected completion,
/// malformed TLP, unsupported request, internal error.
const UNCORRECTABLE: u32 = 1 << 4 | 1 << 12 | 1 << 14 | 1 << 16 | 1 << 18 | 1 << 20 | 1 << INTERNAL;
/// Of those, the ones that are fatal unless software says otherwise.
const FATAL: u32 = 1 << 4 | 1 << 18 | 1 << INTERNAL;
/// Receiver error, bad TLP, bad DLLP, replay rollover, replay timeout, advisory non-fatal.
const CORRECTABLE: u32 = 1 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 12 | 1 << ADVISORY;
const ADVISORY: u32 = 13;

/// PCI status bits.
const RECEIVED_TARGET_ABORT: u16 = 1 << 12;
const RECEIVED_MASTER_ABORT: u16 = 1 << 13;
const SIGNALED_SYSTEM_ERROR: u16 = 1 << 14;
/// Device Status bits.
const NON_FATAL_DETECTED: u16 = 1 << 1;
const FATAL_DETECTED: u16 = 1 << 2;

/// How a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing is at the address.
    UnsupportedRequest,
    /// What is there does not permit the access.
    CompleterAbort,
}

/// The record.
#[derive(Debug)]
pub struct ErrorLog {
    requester: u16,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    sticky: Sticky,
    /// Error bits of the PCI status register.
    status: u16,
    /// Error bits of Device Status.
    device_status: u16,
    /// The command and Device Control registers, as they are in config space.
    command: u16,
    device_control: u16,
}

/// What a function level reset does not touch.
#[derive(Debug)]
struct Sticky {
    status: u32,
    mask: u32,
    severity: u32,
    correctable_mask: u32,
    /// The header of the first error's request; the first error pointer is valid.
    logged: bool,
    header: [u32; 4],
}

impl Default for Sticky {
    fn default() -> Self {
        Self {
            status: 0,
            mask: 1 << INTERNAL,
            severity: FATAL,
            correctable_mask: 1 << ADVISORY,
            logged: false,
            header: [0; 4],
        }
    }
}

impl ErrorLog {
    /// Nothing has happened. `requester` is bus, device and function number, as in the headers that are logged.
    pub fn new(requester: u16) -> Self {
        let state = State { sticky: Sticky::default(), status: 0, device_status: 0, command: 0, device_control: 0 };
        Self { requester, state: Mutex::new(state) }
    }

    /// A request of the function was refused, at its first byte.
    pub fn refused(&self, refusal: Refusal, request: &Request) {
        let mut state = self.state.lock();
        state.status |= match refusal {
            Refusal::UnsupportedRequest => RECEIVED_MASTER_ABORT,
            Refusal::CompleterAbort => RECEIVED_TARGET_ABORT,
        };
        let fatal = state.sticky.severity & 1 << INTERNAL != 0;
        state.device_status |= if fatal { FATAL_DETECTED } else { NON_FATAL_DETECTED };
        state.sticky.status |= 1 << INTERNAL;
        if state.sticky.mask & 1 << INTERNAL != 0 {
            return;
        }
        if !state.sticky.logged {
            state.sticky.logged = true;
            state.sticky.header = request.header(self.requester, state.packet_limit(request.kind));
        }
        // The error message that goes to the root port now, and sets this bit if it goes for the sake of SERR#.
        if state.command & COMMAND_SERR != 0 {
            state.status |= SIGNALED_SYSTEM_ERROR;
        }
    }

    /// Function level reset: forgets all but what is sticky.
    pub fn reset(&self) {
        let mut state = self.state.lock();
        (state.status, state.device_status) = (0, 0);
    }

    /// As after power-on.
    pub fn power_on(&self) {
        let mut state = self.state.lock();
        (state.status, state.device_status) = (0, 0);
        state.sticky = Sticky::default();
    }

    /// Takes note of what config space says about reporting.
    pub(super) fn follow(&self, config: &ConfigSpace) {
        let mut state = self.state.lock();
        state.command = config.word(COMMAND);
        state.device_control = config.word(DEVICE_CONTROL);
    }

    /// Puts the record into `data`, which was read from config space at `offset`.
    pub(super) fn read(&self, offset: u16, data: &mut [u8]) {
        let state = self.state.lock();
        let mut add = |at: u16, value: &[u8]| {
            for (byte, at) in value.iter().zip(at..) {
                if let Some(target) = at.checked_sub(offset).and_then(|index| data.get_mut(usize::from(index))) {
                    *target |= byte;
                }
            }
        };
        add(STATUS, &state.status.to_le_bytes());
        add(DEVICE_STATUS, &state.device_status.to_le_bytes());
        let sticky = &state.sticky;
        add(UNCORRECTABLE_STATUS, &sticky.status.to_le_bytes());
        add(UNCORRECTABLE_MASK, &sticky.mask.to_le_bytes());
        add(UNCORRECTABLE_SEVERITY, &sticky.severity.to_le_bytes());
        add(CORRECTABLE_MASK, &sticky.correctable_mask.to_le_bytes());
        if sticky.logged {
            add(CONTROL, &INTERNAL.to_le_bytes());
        }
        for (dword, at) in sticky.header.iter().zip((HEADER_LOG..).step_by(4)) {
            add(at, &dword.to_le_bytes());
        }
    }

    /// Software writes config space.
    pub(super) fn write(&self, offset: u16, data: &[u8]) {
        let mut state = self.state.lock();
        for (byte, at) in data.iter().zip(offset..=u16::MAX) {
            state.write_byte(at, *byte);
        }
    }
}

impl State {
    fn write_byte(&mut self, at: u16, byte: u8) {
        let State { sticky, status, device_status, .. } = self;
        let lane = u32::from(at % 4) * 8;
        let (ones, lane_mask) = (u32::from(byte) << lane, 0xff << lane);
        let store = |register: &mut u32, writable: u32| {
            *register = (*register & !(lane_mask & writable)) | (ones & writable);
        };
        match at & !3 {
            // Status registers are the upper halves of their DWs. Writing one clears.
            COMMAND => *status &= !((ones >> 16) as u16),
            DEVICE_CONTROL => *device_status &= !((ones >> 16) as u16),
            UNCORRECTABLE_STATUS => {
                sticky.status &= !ones;
                sticky.logged &= sticky.status & 1 << INTERNAL != 0;
            }
            UNCORRECTABLE_MASK => store(&mut sticky.mask, UNCORRECTABLE),
            UNCORRECTABLE_SEVERITY => store(&mut sticky.severity, UNCORRECTABLE),
            CORRECTABLE_MASK => store(&mut sticky.correctable_mask, CORRECTABLE),
            _ => {}
        }
    }

    /// Most bytes in one packet, by Device Control; its reserved values count as the largest.
    fn packet_limit(&self, kind: Kind) -> u16 {
        let shift = if kind == Kind::Read { 12 } else { 5 };
        let field = self.device_control >> shift & 0b111;
        128 << field.min(5)
    }
}

/// Defines the capability's header; the registers behind it are zeros, over which [`ErrorLog`] lays what it knows.
pub(super) fn define(config: &mut ConfigSpace, next: u16) {
    let header = u32::from(ID) | VERSION << 16 | u32::from(next) << 20;
    config.define(AER, header.to_le_bytes(), [0; 4]);
}

const _: () = assert!(COMMAND % 4 == 0 && STATUS == COMMAND + 2);
const _: () = assert!(DEVICE_CONTROL % 4 == 0 && DEVICE_STATUS == DEVICE_CONTROL + 2);

#[cfg(test)]
mod tests;
