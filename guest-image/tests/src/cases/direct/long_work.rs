// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Work that an engine does not finish while a test looks: to see what happens in the midst of it.

use ersatz_abi::command::{List, ListEntry, Location, MAX_LIST_ENTRIES, Operation};

use crate::direct::buffer::Buffer;
use crate::direct::channel::Channel;
use crate::direct::patience::wait_until;

/// Fills one piece of memory with ones, again and again: with 2 MiB, 128 GiB in all.
#[derive(Clone, Copy, Debug)]
pub struct LongFill<'a> {
    target: Buffer<'a>,
    list: List,
}

impl<'a> LongFill<'a> {
    /// One that a channel can do.
    pub fn of(channel: &Channel<'_>, target: Buffer<'a>) -> Self {
        let length = u32::try_from(target.length()).expect("a length of at most 2 MiB");
        let entry = ListEntry { source: Location::vram(0), destination: target.location(), length, tag: 0 };
        Self { target, list: channel.list(&vec![entry; MAX_LIST_ENTRIES as usize]) }
    }

    /// Has a channel begin with it. Returns the fence value at its end.
    pub fn begin(&self, channel: &Channel<'_>) -> u64 {
        self.target.fill(|_| 0);
        let fence = channel.submit(Operation::Fill(self.list, u64::MAX));
        wait_until("work of an engine", || self.target.read(0) != 0);
        fence
    }
}
