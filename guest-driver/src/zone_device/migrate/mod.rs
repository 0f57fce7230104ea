// SPDX-License-Identifier: GPL-2.0
//! Moving folios to a device's memory and back.
//!
//! A migration goes through these states, and each ends well wherever it is dropped:
//!
//! 1. [`Isolated`]: the folios that can move are unmapped everywhere and locked; a CPU that touches them waits. The driver gives each
//!    a destination. Dropped here, or in the next states, every folio goes back to where it was.
//! 2. [`Filling`], by [`Filling::begin`]: the system's side is in the reach of a [`Copier`], which is at work: a device by DMA, or a CPU.
//! 3. [`Filled`](filling::Filled), by [`Filling::finish`]: each destination has its content.
//! 4. [`Committed`](filling::Committed), by `Filled::commit`: the destinations have taken the place of their sources, save those that
//!    something held on to at the last moment. Dropped here, the process sees the new folios.
//!
//! What moves is a [`Run`]: a folio of some order, or a hole that one would fill. A destination is as large as its run, or else
//! single pages stand in for it, each with its own part of the source. For memory that CPUs reach ([`Kind::Coherent`]) all runs are of
//! order 0: the kernel keeps large folios of such memory on its LRU lists and splits them as if they were the system's, which
//! overwrites what their page structs are for (`__folio_split()`, `mm/huge_memory.c`).
//!
//! [`Kind::Coherent`]: super::pagemap::Kind::Coherent

mod filling;
mod isolated;
mod migration;
#[allow(dead_code)] // A driver's device copies, or a CPU does.
mod reach;

pub(crate) use filling::{Copier, Endpoint, Filling, Transfer};
pub(super) use isolated::replace_lost;
pub(crate) use isolated::{for_each_hole, Isolated};
#[allow(unused_imports)] // As above.
pub(crate) use reach::{ByCpu, CpuPages};

use super::folio::Pfn;

/// What is at a place that can migrate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// No page, or the zero page: the destination is to be cleared.
    Hole,
    /// A folio, isolated; its first page frame.
    Folio(Pfn),
}

/// A folio or a hole among the pages that a migration looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The place of its first page.
    pub(crate) first: usize,
    /// Base-2 logarithm of its number of pages.
    pub(crate) order: u32,
    /// What is there.
    pub(crate) source: Source,
}

impl Run {
    /// Number of pages.
    pub(crate) fn pages(&self) -> usize {
        1 << self.order
    }

    /// The place behind its last page.
    pub(crate) fn end(&self) -> usize {
        self.first + self.pages()
    }
}
