// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The register blocks of the address spaces: where each one's page tables begin, and how they are to be walked.

use ersatz_abi::mmu::{ADDRESS_SPACES, AddressSpaceControl, PageTableEntry};

use crate::sync::RwLock;

/// An address space, as its registers say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressSpace {
    /// The root: an entry of the level above the root table.
    pub root: PageTableEntry,
    /// How to walk it.
    pub control: AddressSpaceControl,
}

/// What a write of a control register changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpaceSwitched {
    /// Translations may be made from now on.
    Enabled(AddressSpace),
    /// No more translations are made; those that are cached are still used.
    Disabled,
    /// Neither.
    Unchanged,
}

/// All address spaces of a device.
#[derive(Debug)]
pub struct AddressSpaces(Box<[RwLock<AddressSpace>]>);

impl Default for AddressSpaces {
    fn default() -> Self {
        Self::new()
    }
}

impl AddressSpaces {
    /// All disabled, with roots that lead nowhere.
    pub fn new() -> Self {
        Self((0..ADDRESS_SPACES).map(|_| RwLock::default()).collect())
    }

    /// The registers of an address space.
    pub fn get(&self, asid: u8) -> AddressSpace {
        *self.0[usize::from(asid)].read()
    }

    /// The address space, provided that translations may be made.
    pub fn enabled(&self, asid: u8) -> Option<AddressSpace> {
        Some(self.get(asid)).filter(|space| space.control.enable())
    }

    /// Whether faults of the address space are reported, and waited for.
    pub fn is_replayable(&self, asid: u8) -> bool {
        self.enabled(asid).is_some_and(|space| space.control.replayable())
    }

    /// Changes the root; `false`, and no change, while the address space is enabled.
    pub fn set_root(&self, asid: u8, change: impl FnOnce(u64) -> u64) -> bool {
        let mut space = self.0[usize::from(asid)].write();
        if space.control.enable() {
            return false;
        }
        space.root = PageTableEntry(change(space.root.0));
        true
    }

    /// Writes the control register, and calls `trace` with what that changed before any walk sees it. `None`, and no change,
    /// if a reserved bit is set, or if the address space is enabled and would stay so with other bits changed.
    pub fn set_control(&self, asid: u8, value: u32, trace: impl FnOnce(SpaceSwitched)) -> Option<SpaceSwitched> {
        let control = AddressSpaceControl(value);
        if value & AddressSpaceControl::RESERVED != 0 {
            return None;
        }
        let mut space = self.0[usize::from(asid)].write();
        let before = space.control;
        if before.enable() && control.enable() && control != before {
            return None;
        }
        space.control = control;
        let switched = match (before.enable(), control.enable()) {
            (false, true) => SpaceSwitched::Enabled(*space),
            (true, false) => SpaceSwitched::Disabled,
            (false, false) | (true, true) => SpaceSwitched::Unchanged,
        };
        trace(switched);
        Some(switched)
    }

    /// Back to [`Self::new`].
    pub fn reset(&self) {
        for space in &self.0 {
            *space.write() = AddressSpace::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control() -> AddressSpaceControl {
        AddressSpaceControl(0)
    }

    #[test]
    fn the_root_is_written_while_disabled() {
        let spaces = AddressSpaces::new();
        assert!(spaces.set_root(3, |_| 0x1001));
        assert_eq!(spaces.enabled(3), None);
        let enabled = control().with_enable(true).with_track(true);
        let space = AddressSpace { root: PageTableEntry(0x1001), control: enabled };
        assert_eq!(spaces.set_control(3, enabled.0, |_| ()), Some(SpaceSwitched::Enabled(space)));
        assert!(!spaces.set_root(3, |_| 0x2001));
        assert_eq!(spaces.enabled(3), Some(space));
        assert_eq!(spaces.enabled(2), None);
        assert_eq!(spaces.set_control(3, control().with_track(true).0, |_| ()), Some(SpaceSwitched::Disabled));
        assert!(spaces.set_root(3, |old| old + 0x1000));
        assert_eq!(spaces.get(3).root.0, 0x2001);
    }

    #[test]
    fn what_control_refuses() {
        let spaces = AddressSpaces::new();
        for bit in 4..32 {
            assert_eq!(spaces.set_control(0, 1 | 1 << bit, |_| panic!("no change")), None, "bit {bit}");
        }
        let enabled = control().with_enable(true);
        spaces.set_control(0, enabled.0, |_| ()).unwrap();
        for other in [enabled.with_track(true), enabled.with_five_levels(true), enabled.with_replayable(true)] {
            assert_eq!(spaces.set_control(0, other.0, |_| panic!("no change")), None, "{other:?}");
        }
        assert_eq!(spaces.get(0).control, enabled);
        assert_eq!(spaces.set_control(0, enabled.0, |_| ()), Some(SpaceSwitched::Unchanged));
        assert_eq!(spaces.set_control(0, control().with_track(true).0, |_| ()), Some(SpaceSwitched::Disabled));
    }

    #[test]
    fn reset_disables() {
        let spaces = AddressSpaces::new();
        spaces.set_root(255, |_| 0x1001);
        spaces.set_control(255, 1, |_| ()).unwrap();
        spaces.reset();
        assert_eq!(spaces.get(255), AddressSpace::default());
    }
}
