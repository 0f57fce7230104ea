// SPDX-License-Identifier: GPL-2.0
//! Batches of work for the copy engine: lists of page copies, fills and digests in memory shared with the device.
//!
//! The lists are made when the device is bound, so that a CPU fault needs no memory for one; a batch waits for a free
//! list if all are under way.

use super::channel::{Channel, Work, RING_LENGTH};
use crate::{
    abi::command::{Cause, List, ListEntry, Location, Operation},
    kernel_ext::shared_words::SharedWords,
};
use kernel::{
    device::{Bound, Device},
    new_condvar, new_mutex,
    page::PAGE_SIZE,
    prelude::*,
    sync::{Arc, CondVar, Mutex},
};

/// Most pages in one batch: 2 MiB.
pub(crate) const BATCH_PAGES: usize = 512;
/// Words of a list entry.
const ENTRY_WORDS: usize = 4;
/// Batches that can be under way at once.
const LISTS: usize = 8;
/// Commands that a batch may need: a copy and a fill, or a digest.
const BATCH_COMMANDS: usize = 2;
const _: () = assert!(LISTS * BATCH_COMMANDS <= RING_LENGTH, "the ring can hold all batches");

/// A list, and room for what a digest says of each of its pages.
struct SharedList {
    entries: SharedWords,
    results: SharedWords,
}

/// The copy engine of a device, by one of its channels.
#[pin_data]
pub(crate) struct CopyEngine {
    channel: Arc<Channel>,
    #[pin]
    lists: Mutex<KVec<SharedList>>,
    #[pin]
    returned: CondVar,
}

impl CopyEngine {
    /// An engine that works through `channel`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new<'a>(dev: &'a Device<Bound>, channel: Arc<Channel>) -> impl PinInit<Self, Error> + 'a {
        pin_init::pin_init_scope(move || {
            let mut lists = KVec::with_capacity(LISTS, GFP_KERNEL)?;
            for _ in 0..LISTS {
                let list = SharedList {
                    entries: SharedWords::zeroed(dev, BATCH_PAGES * ENTRY_WORDS)?,
                    results: SharedWords::zeroed(dev, BATCH_PAGES)?,
                };
                lists.push(list, GFP_KERNEL)?;
            }
            Ok(try_pin_init!(Self {
                channel,
                lists <- new_mutex!(lists, "ersatz_lists"),
                returned <- new_condvar!("ersatz_list_returned"),
            }))
        })
    }

    /// The channel below.
    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// An empty batch. May sleep until another has been done.
    pub(crate) fn batch(&self, cause: Cause) -> Batch<'_> {
        let mut lists = self.lists.lock();
        let list = loop {
            match lists.pop() {
                Some(list) => break list,
                None => self.returned.wait(&mut lists),
            }
        };
        Batch { engine: self, list: Some(list), cause, front: 0, fills: 0, digests: false, tag: None }
    }
}

/// Work on up to [`BATCH_PAGES`] pages: copies and fills, or digests.
pub(crate) struct Batch<'a> {
    engine: &'a CopyEngine,
    /// Always there until drop.
    list: Option<SharedList>,
    cause: Cause,
    /// Copies or digests: entries from the front of the list.
    front: usize,
    /// Fills: entries from the back of the list.
    fills: usize,
    digests: bool,
    /// The user address of the first entry, which stands for the whole batch in the trace.
    tag: Option<usize>,
}

/// A place in the device's memory, in bytes.
pub(crate) fn vram(offset: u64) -> Location {
    Location::vram(offset)
}

/// A place in the system's memory, by its bus address.
pub(crate) fn system(address: u64) -> Location {
    Location::system(address)
}

impl Batch<'_> {
    /// Adds a page to copy, which the user knows by `address`.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if the batch is full.
    pub(crate) fn copy(&mut self, source: Location, destination: Location, address: usize) -> Result {
        self.add_front(source, destination, address)
    }

    /// Adds a page to clear, which the user knows by `address`.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if the batch is full.
    pub(crate) fn clear(&mut self, destination: Location, address: usize) -> Result {
        self.check_room()?;
        self.put(BATCH_PAGES - self.fills - 1, destination, destination, address)?;
        self.fills += 1;
        Ok(())
    }

    /// Adds a page to read, which the user knows by `address`; its CRC-32C will be [`Batch::result`] number *n*, if this is
    /// the *n*th.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if the batch is full.
    pub(crate) fn digest(&mut self, source: Location, address: usize) -> Result {
        self.digests = true;
        let results = self.list.as_ref().ok_or(EINVAL)?.results.dma_address();
        let destination = system(results + (self.front * size_of::<u64>()) as u64);
        self.add_front(source, destination, address)
    }

    /// Does the work, and waits until it is done.
    ///
    /// # Errors
    ///
    /// `EIO` if the device failed.
    pub(crate) fn run(&mut self) -> Result {
        let base = self.list.as_ref().ok_or(EINVAL)?.entries.dma_address();
        let list = |first: usize, count: usize| List {
            address: base + (first * size_of::<[u64; 4]>()) as u64,
            count: count as u32, // at most BATCH_PAGES
        };
        let tag = self.tag.unwrap_or(0) as u64;
        let front = list(0, self.front);
        let front = if self.digests { Operation::Digest(front) } else { Operation::Copy(front) };
        let fill = Operation::Fill(list(BATCH_PAGES - self.fills, self.fills), 0);
        let works: [Work; BATCH_COMMANDS] = [Work { operation: front, tag }, Work { operation: fill, tag }];
        let works = match (self.front, self.fills) {
            (0, 0) => &works[..0],
            (0, _) => &works[1..],
            (_, 0) => &works[..1],
            _ => &works[..],
        };
        self.engine.channel.execute(works, self.cause)
    }

    /// The digest of the page added as number `index`, once the batch has been run.
    ///
    /// # Errors
    ///
    /// `ERANGE` if there is no such page.
    pub(crate) fn result(&self, index: usize) -> Result<u64> {
        self.list.as_ref().ok_or(EINVAL)?.results.read(index)
    }

    fn check_room(&self) -> Result {
        if self.front + self.fills < BATCH_PAGES {
            Ok(())
        } else {
            Err(ENOSPC)
        }
    }

    fn add_front(&mut self, source: Location, destination: Location, address: usize) -> Result {
        self.check_room()?;
        self.put(self.front, source, destination, address)?;
        self.front += 1;
        Ok(())
    }

    fn put(&mut self, index: usize, source: Location, destination: Location, address: usize) -> Result {
        // A digest writes eight bytes, whatever it reads.
        let entry = ListEntry { source, destination, length: PAGE_SIZE as u32, tag: address as u64 };
        let list = self.list.as_ref().ok_or(EINVAL)?;
        list.entries.write(index * ENTRY_WORDS, &entry.encode())?;
        self.tag.get_or_insert(address);
        Ok(())
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if let Some(list) = self.list.take() {
            // There is room: the list came from here.
            let _ = self.engine.lists.lock().push_within_capacity(list);
            self.engine.returned.notify_one();
        }
    }
}
