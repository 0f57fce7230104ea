// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where named ranges are. A forked process has a copy of its own.

use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use ersatz_scenario::Scenario;
use ersatz_scenario::call::Call;
use ersatz_scenario::range::Range;
use nix::libc::c_void;

use crate::pattern::PAGE;
use crate::region::Span;

/// Addresses that the scenario has or had mapped for itself: no Rust value lives there. It may be unmapped, or anything that the
/// scenario mapped there since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(Span);

impl Place {
    /// The range of addresses.
    pub fn span(self) -> Span {
        self.0
    }

    /// Its length in bytes.
    pub fn bytes(self) -> usize {
        self.0.length as usize
    }

    /// Number of pages.
    pub fn pages(self) -> usize {
        self.bytes() / PAGE
    }

    /// One of the pages.
    pub fn page(self, index: usize) -> Span {
        Span { address: self.0.address + (index * PAGE) as u64, length: PAGE as u64 }
    }

    /// The address of a byte.
    ///
    /// # Panics
    ///
    /// If it is not inside.
    pub fn pointer(self, offset: usize) -> *mut c_void {
        assert!(offset < self.bytes(), "offset {offset:#x} in a place of {:#x} bytes", self.bytes());
        std::ptr::with_exposed_provenance_mut(self.0.address as usize + offset)
    }
}

#[derive(Debug)]
struct Slot {
    name: String,
    address: AtomicU64,
    length: AtomicU64,
    userfault: AtomicI32,
}

/// The ranges of a scenario.
#[derive(Debug)]
pub struct Ranges(Vec<Slot>);

impl Ranges {
    /// Those that the scenario names, none of them mapped yet.
    pub fn of(scenario: &Scenario) -> Self {
        let steps = scenario.sequences().flat_map(|sequence| sequence.steps);
        let names = steps.filter_map(|step| match &step.call {
            Call::Map { name, .. } => Some(name.clone()),
            _ => None,
        });
        let slot = |name| Slot { name, address: 0.into(), length: 0.into(), userfault: (-1).into() };
        Self(names.map(slot).collect())
    }

    fn slot(&self, name: &str) -> Result<&Slot, String> {
        self.0.iter().find(|slot| slot.name == name).ok_or_else(|| format!("no range is called {name}"))
    }

    /// Notes where a range is from here on. The addresses must be those of a mapping that is the scenario's alone.
    pub fn set(&self, name: &str, address: u64, length: u64) -> Result<(), String> {
        let slot = self.slot(name)?;
        slot.length.store(length, Ordering::Release);
        slot.address.store(address, Ordering::Release);
        Ok(())
    }

    /// Where a range, or the part of it, is.
    pub fn place(&self, range: &Range) -> Result<Place, String> {
        let slot = self.slot(&range.name)?;
        let (address, size) = (slot.address.load(Ordering::Acquire), slot.length.load(Ordering::Acquire));
        let (offset, length) = range.within(size);
        if address == 0 {
            return Err(format!("{} is not mapped yet", range.name));
        }
        if offset + length > size {
            return Err(format!("{range} reaches beyond the {size} bytes that {} has now", range.name));
        }
        Ok(Place(Span { address: address + offset, length }))
    }

    /// All of a range.
    pub fn whole(&self, name: &str) -> Result<Place, String> {
        self.place(&Range { name: name.to_owned(), part: None })
    }

    /// Notes the userfaultfd that answers for a range.
    pub fn set_userfault(&self, name: &str, descriptor: i32) -> Result<(), String> {
        self.slot(name).map(|slot| slot.userfault.store(descriptor, Ordering::Release))
    }

    /// The userfaultfd that answers for a range.
    pub fn userfault(&self, name: &str) -> Result<i32, String> {
        let descriptor = self.slot(name)?.userfault.load(Ordering::Acquire);
        if descriptor < 0 { Err(format!("uffd register {name} has not been done")) } else { Ok(descriptor) }
    }
}
