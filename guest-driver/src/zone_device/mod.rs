// SPDX-License-Identifier: GPL-2.0
//! Safe abstractions over `ZONE_DEVICE` memory and the migration of pages to and from it.
//!
//! They know nothing of the Ersatz GPU; mainline has no Rust counterpart to them.
//!
//! - [`region`]: a range of physical addresses to give the pages their pfns.
//! - [`pagemap`]: the range registered with the memory manager (`devm_memremap_pages`), and its callbacks.
//! - [`free_pages`]: which pages of it are free.
//! - [`page`]: a locked page, on either side.
//! - [`migrate`]: moving the pages of a VMA, of a CPU fault, or of a list of device pages.
//! - [`mirror`]: looking at a process's page tables, and working on its pages while they stay put
//!   (`hmm_range_fault` with an interval notifier).
//!
//! # Glossary
//!
//! - **pfn**: page frame number, a physical address divided by the page size.
//! - **Private / coherent**: device memory that the CPU cannot reach (a touch faults), or that it reads in place.
//! - **Owner**: the pointer by which the memory manager tells one device's private pages from another's.

pub(crate) mod free_pages;
pub(crate) mod migrate;
pub(crate) mod mirror;
pub(crate) mod page;
pub(crate) mod pagemap;
pub(crate) mod region;
