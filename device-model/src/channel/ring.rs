// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The arithmetic of a ring: free-running 32-bit positions over a power of two of slots.

use ersatz_abi::command::COMMAND_BYTES;

/// A ring of commands in guest memory. The whole of it lies inside the address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ring {
    base: u64,
    commands: u32,
}

/// Commands that lie one behind the other in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Bus address of the first.
    pub(crate) address: u64,
    /// How many.
    pub(crate) count: u32,
}

impl Ring {
    /// A ring of `commands` slots, a power of two, at bus address `base`.
    pub(crate) const fn new(base: u64, commands: u32) -> Self {
        Self { base, commands }
    }

    /// Number of slots.
    pub(crate) const fn commands(self) -> u32 {
        self.commands
    }

    /// Bus address of the slot of position `get`.
    pub(crate) fn address(self, get: u32) -> u64 {
        self.base + u64::from(get & (self.commands - 1)) * COMMAND_BYTES
    }

    /// How many commands wait from `get` up to `put`; `None` if `put` is further ahead than the ring is long.
    pub(crate) fn waiting(self, get: u32, put: u32) -> Option<u32> {
        let waiting = put.wrapping_sub(get);
        (waiting <= self.commands).then_some(waiting)
    }

    /// The first of `waiting` commands from `get` on, as many as lie in one piece and at most `limit`.
    pub(crate) fn contiguous(self, get: u32, waiting: u32, limit: u32) -> Run {
        let to_end = self.commands - (get & (self.commands - 1));
        Run { address: self.address(get), count: waiting.min(to_end).min(limit) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn positions_wrap_around_the_ring_and_the_number() {
        let ring = Ring::new(0x1000, 16);
        assert_eq!(ring.address(0), 0x1000);
        assert_eq!(ring.address(17), 0x1000 + COMMAND_BYTES);
        assert_eq!(ring.address(u32::MAX), 0x1000 + 15 * COMMAND_BYTES);
        assert_eq!(ring.waiting(u32::MAX, 3), Some(4));
        assert_eq!(ring.waiting(5, 21), Some(16));
        assert_eq!(ring.waiting(5, 22), None);
        assert_eq!(ring.waiting(5, 4), None, "PUT behind GET is far ahead of it");
    }

    proptest! {
        /// Taken run by run, the commands from GET to PUT are exactly those that a walk slot by slot meets.
        #[test]
        fn runs_cover_what_waits(order in 4_u32..=16, get in any::<u32>(), waiting in any::<u32>(), limit in 1_u32..100) {
            let ring = Ring::new(0x4000_0000, 1 << order);
            let waiting = waiting % (ring.commands() + 1);
            let put = get.wrapping_add(waiting);
            prop_assert_eq!(ring.waiting(get, put), Some(waiting));
            let (mut at, mut left) = (get, waiting);
            while left > 0 {
                let run = ring.contiguous(at, left, limit);
                prop_assert!(run.count >= 1 && run.count <= limit.min(left));
                for step in 0..run.count {
                    let slot = u64::from(at.wrapping_add(step)) % u64::from(ring.commands());
                    let address = run.address + u64::from(step) * COMMAND_BYTES;
                    prop_assert_eq!(address, 0x4000_0000 + slot * COMMAND_BYTES);
                }
                at = at.wrapping_add(run.count);
                left -= run.count;
            }
            prop_assert_eq!(at, put);
        }

        #[test]
        fn the_last_slot_ends_inside_the_address_space(order in 4_u32..=16, get in any::<u32>()) {
            let size = COMMAND_BYTES << order;
            let ring = Ring::new(u64::MAX - size + 1 - 4096, 1 << order);
            prop_assert!(ring.address(get).checked_add(COMMAND_BYTES).is_some());
        }
    }
}
