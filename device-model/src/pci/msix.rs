// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! MSI-X: the vector table, the pending bits, and who may send what when.
//!
//! A message goes out when MSI-X is on, neither the function nor the vector is masked, and the function is bus master.
//! While a mask or the lack of mastership holds it back, its pending bit is set; when the last obstacle goes, the bus is
//! told to send it ([`Effect::MsixSend`]). Where the transport keeps the table, only mastership counts.
//!
//! Where table and pending bits are in their BAR, and how many vectors there are, is up to the function ([`MsixLayout`]).

use std::ops::Range;

use super::capability::MsixLayout;
use crate::bus::{Effect, MsixMessage};
use crate::interrupt::InterruptSink;
use crate::sync::Mutex;

const ENTRY_BYTES: u64 = 16;
/// Vectors that share a qword of pending bits.
const WORD_BITS: u16 = 64;
/// The mask bit of an entry's vector control word.
const MASKED: u32 = 1;
/// Messages are dwords: the low two bits of the address are not there.
const ADDRESS_LOW: u32 = !0b11;

/// One entry as four dwords: address low, address high, data, vector control.
type Entry = [u32; 4];

#[derive(Debug)]
struct State {
    /// One per vector.
    entries: Box<[Entry]>,
    /// One bit per vector.
    pending: Box<[u64]>,
    enabled: bool,
    function_masked: bool,
    master: bool,
}

impl State {
    fn after_reset(vectors: u16) -> Self {
        Self {
            entries: vec![[0, 0, 0, MASKED]; vectors.into()].into(),
            pending: vec![0; vectors.div_ceil(WORD_BITS).into()].into(),
            enabled: false,
            function_masked: false,
            master: false,
        }
    }

    fn unmasked(&self, vector: u16) -> Option<&Entry> {
        let entry = self.entries.get(usize::from(vector))?;
        (self.enabled && !self.function_masked && entry[3] & MASKED == 0).then_some(entry)
    }

    /// Takes out the pending vectors that nothing holds back any more.
    fn release(&mut self, keeps_table: bool) -> Vec<Effect> {
        let mut effects = Vec::new();
        if !self.master {
            return effects;
        }
        for (word, first) in (0..self.pending.len()).zip((0..).step_by(WORD_BITS.into())) {
            let mut left = self.pending[word];
            while left != 0 {
                let bit = left.trailing_zeros() as u16;
                left &= left - 1;
                let vector = first + bit;
                if keeps_table || self.unmasked(vector).is_some() {
                    self.pending[word] &= !(1 << bit);
                    effects.push(Effect::MsixSend { vector });
                }
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
pub struct Msix {
    layout: MsixLayout,
    state: Mutex<State>,
}

impl Msix {
    /// As after reset: off, every vector masked, none pending.
    pub fn new(layout: MsixLayout) -> Self {
        Self { layout, state: Mutex::new(State::after_reset(layout.vectors)) }
    }

    /// Back to the state after reset.
    pub fn reset(&self) {
        *self.state.lock() = State::after_reset(self.layout.vectors);
    }

    /// Sends a vector's message, or notes that it is pending. The decision and the sending are one step for a thread
    /// that changes a mask. `tell` is called with the result before the message is sent: the driver that the message wakes may
    /// look at trace and counters next.
    pub fn raise(&self, vector: u16, sink: &dyn InterruptSink, tell: impl FnOnce(Raised)) -> Raised {
        let mut state = self.state.lock();
        let keeps_table = sink.keeps_table();
        let raised = if vector >= self.layout.vectors || !(keeps_table || state.enabled) {
            Raised::Lost
        } else if state.master && (keeps_table || state.unmasked(vector).is_some()) {
            Raised::Sent
        } else {
            Raised::Pending
        };
        tell(raised);
        match raised {
            Raised::Sent => sink.signal(vector),
            Raised::Pending => state.pending[usize::from(vector / WORD_BITS)] |= 1 << (vector % WORD_BITS),
            Raised::Lost => {}
        }
        raised
    }

    /// The enable and function mask bits of message control changed.
    pub fn set_control(&self, enabled: bool, function_masked: bool, keeps_table: bool) -> Vec<Effect> {
        let mut state = self.state.lock();
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
        let mut state = self.state.lock();
        state.master = master;
        state.release(keeps_table)
    }

    /// The message of a vector that may be sent now.
    pub fn message(&self, vector: u16) -> Option<MsixMessage> {
        let state = self.state.lock();
        let [low, high, data, _] = *state.unmasked(vector)?;
        Some(MsixMessage { address: u64::from(high) << 32 | u64::from(low), data })
    }

    /// Reads the BAR that holds table and pending bits: aligned dwords and qwords, all else reads as zero.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if !self.is_dword_access(offset, data.len()) {
            return;
        }
        let state = self.state.lock();
        for (at, target) in (offset..).step_by(4).zip(data.chunks_exact_mut(4)) {
            let value = match self.place(at) {
                Some(Dword::Table { vector, dword }) => state.entries[vector][dword],
                Some(Dword::Pending { word, shift }) => (state.pending[word] >> shift & u64::from(u32::MAX)) as u32,
                None => 0,
            };
            target.copy_from_slice(&value.to_le_bytes());
        }
    }

    /// Writes the BAR that holds table and pending bits: aligned dwords and qwords of the table, all else is dropped.
    pub fn write(&self, offset: u64, data: &[u8], keeps_table: bool) -> Vec<Effect> {
        let mut effects = Vec::new();
        if !self.is_dword_access(offset, data.len()) {
            return effects;
        }
        let mut state = self.state.lock();
        for (at, source) in (offset..).step_by(4).zip(data.chunks_exact(4)) {
            let (Some(Dword::Table { vector, dword }), Ok(bytes)) = (self.place(at), source.try_into()) else {
                continue;
            };
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

    /// The bytes of the table in the BAR.
    fn table(&self) -> Range<u64> {
        let start = u64::from(self.layout.table);
        start..start + u64::from(self.layout.vectors) * ENTRY_BYTES
    }

    /// The bytes of the pending bits in the BAR: whole qwords.
    fn pending(&self) -> Range<u64> {
        let start = u64::from(self.layout.pending);
        start..start + u64::from(self.layout.vectors.div_ceil(WORD_BITS)) * 8
    }

    fn place(&self, offset: u64) -> Option<Dword> {
        if self.table().contains(&offset) {
            let at = offset - self.table().start;
            Some(Dword::Table { vector: (at / ENTRY_BYTES) as usize, dword: (at % ENTRY_BYTES / 4) as usize })
        } else if self.pending().contains(&offset) {
            let at = offset - self.pending().start;
            Some(Dword::Pending { word: (at / 8) as usize, shift: (at % 8 * 8) as u32 })
        } else {
            None
        }
    }

    fn is_dword_access(&self, offset: u64, length: usize) -> bool {
        let end = self.table().end.max(self.pending().end);
        offset < end && matches!(length, 4 | 8) && offset % length as u64 == 0
    }
}

/// What a dword of the BAR is.
enum Dword {
    Table { vector: usize, dword: usize },
    Pending { word: usize, shift: u32 },
}

#[cfg(test)]
mod tests;
