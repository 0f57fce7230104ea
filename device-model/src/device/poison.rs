// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Poisoning pages of VRAM: because the driver says that they are bad, or because a rule does.

use ersatz_abi::list::Location;
use ersatz_abi::pci::VECTOR_ERROR;
use ersatz_abi::regs::POISON_BYTES;

use super::Device;
use crate::interrupt::InterruptCause;
use crate::poison::Poisoned;
use crate::trace::Event;

impl Device {
    /// Poisons the page of VRAM that an offset lies in. Returns whether it is poisoned now: there may be no such page, or too many that are.
    pub(crate) fn poison(&self, offset: u64) -> bool {
        if offset >= self.vram.size() {
            return false;
        }
        match self.vram.poisoned().add(offset) {
            Poisoned::Now(page) => {
                self.ports.tracer.emit(Event::Poisoned { page: Location::vram(page) });
                true
            }
            Poisoned::Already => true,
            Poisoned::TooMany => false,
        }
    }

    /// Zeroes the page of VRAM that an offset lies in, and ends its poison. Returns whether there is such a page.
    pub(crate) fn clear_poison(&self, offset: u64) -> bool {
        if offset >= self.vram.size() {
            return false;
        }
        let zero = |page| {
            if let Some(slice) = self.vram.slice(page, POISON_BYTES) {
                slice.copy_from(&[0_u8; POISON_BYTES as usize]);
            }
        };
        if let Some(page) = self.vram.poisoned().remove(offset, zero) {
            self.ports.tracer.emit(Event::PoisonCleared { page: Location::vram(page) });
        }
        true
    }

    /// The first poisoned page from where the driver looks.
    pub(crate) fn first_poisoned(&self) -> Option<u64> {
        let from = *self.poisoned_from.lock();
        self.vram.poisoned().first_from(from)
    }

    /// Poisons pages of VRAM from an offset on, and tells the driver to look for them.
    pub(super) fn find_poison(&self, offset: u64, pages: u16) {
        for page in 0..u64::from(pages) {
            let Some(offset) = offset.checked_add(page * POISON_BYTES) else { break };
            self.poison(offset);
        }
        let _pass = self.gate.enter();
        self.unless_reset(|| self.raise(VECTOR_ERROR, InterruptCause::Poison));
    }
}
