// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! 64-bit registers that do something when they are written: halves make up one value, complete with the high one.

use super::decode::Part;
use crate::sync::Mutex;

/// The low half of such a register, until the high one comes.
#[derive(Debug, Default)]
pub(super) struct LowHalf(Mutex<u64>);

impl LowHalf {
    /// Back to the state after reset.
    pub(super) fn reset(&self) {
        *self.0.lock() = 0;
    }

    /// A part was written: the value, if it is complete.
    pub(super) fn complete(&self, part: Part, value: u64) -> Option<u64> {
        let mut low = self.0.lock();
        let whole = part.put(*low, value);
        *low = if part == Part::Low { whole } else { 0 };
        (part != Part::Low).then_some(whole)
    }
}
