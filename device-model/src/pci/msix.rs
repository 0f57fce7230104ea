// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! MSI-X: the vector table, the pending bits, and who may send what when.
//!
//! A message goes out when MSI-X is on, neither the function nor the vector is masked, and the function is bus master.
//! While a mask or the lack of mastership holds it back, its pending bit is set; when the last obstacle goes, the bus is
//! told to send it ([`Effect::MsixSend`]). Where the transport keeps the table, only mastership counts.

use ersatz_abi::pci::{MSIX_BAR_SIZE, MSIX_PBA_OFFSET, MSIX_TABLE_OFFSET, MSIX_VECTORS};

use crate::bus::{Effect, MsixMessage};
use crate::interrupt::InterruptSink;
use crate::sync::Mutex;

const ENTRY_BYTES: u64 = 16;
const TABLE_START: u64 = MSIX_TABLE_OFFSET as u64;
const TABLE_END: u64 = TABLE_START + MSIX_VECTORS as u64 * ENTRY_BYTES;
const PENDING_START: u64 = MSIX_PBA_OFFSET as u64;
const PENDING_BYTES: u64 = 8;
/// The mask bit of an entry's vector control word.
const MASKED: u32 = 1;
/// Messages are dwords: the low two bits of the address are not there.
const ADDRESS_LOW: u32 = !0b11;

const _: () = assert!(MSIX_VECTORS as u64 <= PENDING_BYTES * 8, "one qword of pending bits");

/// One entry as four dwords: address low, address high, data, vector control.
type Entry = [u32; 4];

#[derive(Debug)]
struct State {
    entries: [Entry; MSIX_VECTORS as usize],
    pending: u64,
    enabled: bool,
    function_masked: bool,
    master: bool,
}

impl State {
    const AFTER_RESET: Self = Self {
        entries: [[0, 0, 0, MASKED]; MSIX_VECTORS as usize],
        pending: 0,
        enabled: false,
        function_masked: false,
        master: false,
    };

    fn unmasked(&self, vector: u16) -> Option<&Entry> {
        let entry = self.entries.get(usize::from(vector))?;
        (self.enabled && !self.function_masked && entry[3] & MASKED == 0).then_some(entry)
    }

    /// Takes out the pending vectors that nothing holds back any more.
    fn release(&mut self, keeps_table: bool) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.pending == 0 || !self.master {
            return effects;
        }
        for vector in 0..MSIX_VECTORS {
            if self.pending & (1 << vector) != 0 && (keeps_table || self.unmasked(vector).is_some()) {
                self.pending &= !(1 << vector);
                effects.push(Effect::MsixSend { vector });
            }
        }
        effects
    }
}

/// What became of an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raised {
    /// The message went out.
    Sent,
    /// Something holds it back; the pending bit is set.
    Pending,
    /// MSI-X is off, or there is no such vector.
    Lost,
}

/// The MSI-X side of the function.
#[derive(Debug)]
pub struct Msix(Mutex<State>);

impl Default for Msix {
    fn default() -> Self {
        Self::new()
    }
}

impl Msix {
    /// As after reset: off, every vector masked, none pending.
    pub fn new() -> Self {
        Self(Mutex::new(State::AFTER_RESET))
    }

    /// Back to the state after reset.
    pub fn reset(&self) {
        *self.0.lock() = State::AFTER_RESET;
    }

    /// Sends a vector's message, or notes that it is pending. The decision and the sending are one step for whoever
    /// changes a mask. `tell` is called with what will become of it, before it does: whoever the message wakes may look at
    /// trace and counters next.
    pub fn raise(&self, vector: u16, sink: &dyn InterruptSink, tell: impl FnOnce(Raised)) -> Raised {
        let mut state = self.0.lock();
        let keeps_table = sink.keeps_table();
        let raised = if vector >= MSIX_VECTORS || !(keeps_table || state.enabled) {
            Raised::Lost
        } else if state.master && (keeps_table || state.unmasked(vector).is_some()) {
            Raised::Sent
        } else {
            Raised::Pending
        };
        tell(raised);
        match raised {
            Raised::Sent => sink.signal(vector),
            Raised::Pending => state.pending |= 1 << vector,
            Raised::Lost => {}
        }
        raised
    }

    /// The enable and function mask bits of message control changed.
    pub fn set_control(&self, enabled: bool, function_masked: bool, keeps_table: bool) -> Vec<Effect> {
        let mut state = self.0.lock();
        if (state.enabled, state.function_masked) == (enabled, function_masked) {
            return Vec::new();
        }
        state.enabled = enabled;
        state.function_masked = function_masked;
        let mut effects = vec![Effect::MsixControlChanged];
        effects.extend(state.release(keeps_table));
        effects
    }

    /// The function became bus master or stopped being it.
    pub fn set_master(&self, master: bool, keeps_table: bool) -> Vec<Effect> {
        let mut state = self.0.lock();
        state.master = master;
        state.release(keeps_table)
    }

    /// The message of a vector that may be sent now.
    pub fn message(&self, vector: u16) -> Option<MsixMessage> {
        let state = self.0.lock();
        let [low, high, data, _] = *state.unmasked(vector)?;
        Some(MsixMessage { address: u64::from(high) << 32 | u64::from(low), data })
    }

    /// Reads the BAR that holds table and pending bits: aligned dwords and qwords, all else reads as zero.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if !is_dword_access(offset, data.len()) {
            return;
        }
        let state = self.0.lock();
        for (at, target) in (offset..).step_by(4).zip(data.chunks_exact_mut(4)) {
            let value = match place(at) {
                Some(Place::Table { vector, dword }) => state.entries[vector][dword],
                Some(Place::Pending { shift }) => (state.pending >> shift & u64::from(u32::MAX)) as u32,
                None => 0,
            };
            target.copy_from_slice(&value.to_le_bytes());
        }
    }

    /// Writes the BAR that holds table and pending bits: aligned dwords and qwords of the table, all else is dropped.
    pub fn write(&self, offset: u64, data: &[u8], keeps_table: bool) -> Vec<Effect> {
        let mut effects = Vec::new();
        if !is_dword_access(offset, data.len()) {
            return effects;
        }
        let mut state = self.0.lock();
        for (at, source) in (offset..).step_by(4).zip(data.chunks_exact(4)) {
            let (Some(Place::Table { vector, dword }), Ok(bytes)) = (place(at), source.try_into()) else { continue };
            let writable = [ADDRESS_LOW, u32::MAX, u32::MAX, MASKED][dword];
            let value = u32::from_le_bytes(bytes) & writable;
            if std::mem::replace(&mut state.entries[vector][dword], value) != value {
                let changed = Effect::MsixChanged { vector: vector as u16 };
                if !effects.contains(&changed) {
                    effects.push(changed);
                }
            }
        }
        effects.extend(state.release(keeps_table));
        effects
    }
}

/// What a dword of the BAR is.
enum Place {
    Table { vector: usize, dword: usize },
    Pending { shift: u32 },
}

fn place(offset: u64) -> Option<Place> {
    if (TABLE_START..TABLE_END).contains(&offset) {
        let at = offset - TABLE_START;
        Some(Place::Table { vector: (at / ENTRY_BYTES) as usize, dword: (at % ENTRY_BYTES / 4) as usize })
    } else if (PENDING_START..PENDING_START + PENDING_BYTES).contains(&offset) {
        Some(Place::Pending { shift: ((offset - PENDING_START) * 8) as u32 })
    } else {
        None
    }
}

fn is_dword_access(offset: u64, length: usize) -> bool {
    offset < MSIX_BAR_SIZE && matches!(length, 4 | 8) && offset % length as u64 == 0
}

#[cfg(test)]
mod tests;
