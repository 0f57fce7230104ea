// SPDX-License-Identifier: GPL-2.0
//! Safe abstractions over `ZONE_DEVICE` memory and the migration of pages to and from it.
//!
//! They know nothing of the Ersatz GPU; mainline has no Rust counterpart to them.
//!
//! - [`region`]: a range of physical addresses to give the pages their pfns.
//! - [`pagemap`]: the range registered with the memory manager (`devm_memremap_pages`), and its callbacks.
//! - [`frames`]: which frames of it are free.
//! - [`poisoned`]: which frames have lost their content.
//! - [`withheld`]: which frames are kept from use.
//! - [`homes`]: to which node of the system each page belongs.
//! - [`fault`]: a CPU's touch of a private page.
//! - [`stand_in`]: pages in the place of those whose content is lost.
//! - [`folio`]: a locked folio, on either side.
//! - [`migrate`]: moving the folios of a VMA, of a CPU fault, or of a list of device pages.
//! - [`mirror`]: looking at a process's page tables, and working on its pages while they stay put
//!   (`hmm_range_fault` with an interval notifier).
//! - [`interval_notifier`]: a device's page tables that follow a process's.
//! - [`drain`]: getting back the references in the lists of CPUs.
//!
//! # Glossary
//!
//! - **pfn**: page frame number, a physical address divided by the page size.
//! - **Private / coherent**: device memory that the CPU cannot reach (a touch faults), or that it reads in place.
//! - **Owner**: the pointer by which the memory manager tells one device's private pages from another's.

pub(crate) mod drain;
pub(crate) mod fault;
pub(crate) mod folio;
mod frames;
pub(crate) mod homes;
pub(crate) mod interval_notifier;
pub(crate) mod migrate;
pub(crate) mod mirror;
pub(crate) mod pagemap;
mod poisoned;
pub(crate) mod region;
pub(crate) mod stand_in;
pub(crate) mod withheld;
