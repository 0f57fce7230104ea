// SPDX-License-Identifier: GPL-2.0
//! To which node of the system each page of a device belongs: the one that its content came from, or that it would have been made on.
//!
//! Eviction finds pages by their place in the device's memory, not by who maps them, so it cannot ask for the NUMA policy that they are
//! under. A policy that changes while a page is on the device is not noticed.

use crate::bindings;
use core::ops::Range;
use kernel::{
    ffi::c_int,
    prelude::*,
    sync::atomic::{ordering, Atomic},
};

/// A node of the system, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Node(i16);

impl Node {
    /// The node with a number of the memory manager's; `None` if the number is not that of a node.
    pub(super) fn from_raw(number: c_int) -> Option<Self> {
        i16::try_from(number).ok().filter(|&number| number >= 0).map(Self)
    }

    /// The memory manager's number.
    pub(super) fn into_raw(self) -> c_int {
        self.0.into()
    }
}

/// The nodes of a device's pages, by index; nothing on a machine of one node.
pub(super) struct Homes(KVVec<Atomic<i16>>);

impl Homes {
    /// No node for any of `pages` pages.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(pages: usize) -> Result<Self> {
        // SAFETY: There are no requirements.
        let pages = if unsafe { bindings::ersatz_has_many_nodes() } { pages } else { 0 };
        let mut homes = KVVec::with_capacity(pages, GFP_KERNEL)?;
        for _ in 0..pages {
            homes.push(Atomic::new(-1), GFP_KERNEL)?;
        }
        Ok(Self(homes))
    }

    /// Notes the node of some pages.
    pub(super) fn set(&self, pages: Range<usize>, node: Option<Node>) {
        for home in self.0.get(pages).into_iter().flatten() {
            home.store(node.map_or(-1, |node| node.0), ordering::Relaxed);
        }
    }

    /// The node of a page, if one was noted.
    pub(super) fn of(&self, index: usize) -> Option<Node> {
        Node::from_raw(self.0.get(index)?.load(ordering::Relaxed).into())
    }
}
