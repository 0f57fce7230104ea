// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Steps in the device's trace: the 64-bit values that a runner marks it with.

use crate::symptom::UnknownName;

/// In the topmost 16 bits of every mark of a scenario, which tell it from other programs' marks.
const MAGIC: u64 = 0x5ce4;

/// What happens to a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Edge {
    /// It begins.
    Begin = 1,
    /// It has ended.
    End = 2,
    /// The kernel holds it.
    Held = 3,
    /// It goes on.
    Resumed = 4,
}

impl TryFrom<u8> for Edge {
    type Error = UnknownName;

    fn try_from(raw: u8) -> Result<Self, UnknownName> {
        [Self::Begin, Self::End, Self::Held, Self::Resumed]
            .into_iter()
            .find(|&edge| edge as u8 == raw)
            .ok_or(UnknownName)
    }
}

/// A step's edge.
///
/// Bits: magic (63:48), attempt (47:32), step (31:16), thread (15:8), edge (7:0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The thread's number, as in [`Scenario::sequences`](crate::Scenario::sequences): 0 is setup.
    pub thread: u8,
    /// The step's number in its thread, from 0.
    pub step: u16,
    /// The attempt, from 0; the low 16 bits of it.
    pub attempt: u16,
    /// What happens to it.
    pub edge: Edge,
}

impl Mark {
    /// The value to mark the trace with.
    pub fn encode(self) -> u64 {
        MAGIC << 48
            | u64::from(self.attempt) << 32
            | u64::from(self.step) << 16
            | u64::from(self.thread) << 8
            | u64::from(self.edge as u8)
    }

    /// The mark that a value of the trace is; `None` if it is something else's.
    pub fn decode(value: u64) -> Option<Self> {
        let [edge, thread, step_low, step_high, attempt_low, attempt_high, magic_low, magic_high] = value.to_le_bytes();
        if u64::from(u16::from_le_bytes([magic_low, magic_high])) != MAGIC {
            return None;
        }
        Some(Self {
            thread,
            step: u16::from_le_bytes([step_low, step_high]),
            attempt: u16::from_le_bytes([attempt_low, attempt_high]),
            edge: edge.try_into().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_mark_is_decoded_as_it_was_encoded(thread: u8, step: u16, attempt: u16, edge in 1u8..=4) {
            let mark = Mark { thread, step, attempt, edge: edge.try_into().unwrap() };
            prop_assert_eq!(Mark::decode(mark.encode()), Some(mark));
        }

        #[test]
        fn any_value_is_a_mark_or_not(value: u64) {
            if let Some(mark) = Mark::decode(value) {
                prop_assert_eq!(mark.encode(), value);
            }
        }
    }
}
