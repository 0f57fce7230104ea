// SPDX-License-Identifier: GPL-2.0
//! Batches of work for the copy engines: lists of copies, fills and digests in memory shared with the device.
//!
//! The lists are made when the device is bound, so that a CPU fault needs no memory for one; a batch waits for a free
//! list if all are under way. Batches go to the channels in turn, so that several are under way on different engines.

use super::channel::{Channel, Ticket, Work, RING_LENGTH};
use crate::{
    abi::command::{Cause, List, ListEntry, Location, Operation},
    kernel_ext::{
        dma::SystemMappings,
        shared_words::SharedWords,
        tracepoints::{self, BatchId},
    },
    zone_device::migrate::{Copier, Endpoint, Transfer},
};
use kernel::{
    device::{Bound, Device},
    new_condvar, new_mutex,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        atomic::{ordering, Atomic},
        Arc, CondVar, Mutex,
    },
};

/// Most entries in one batch: one for each page of 2 MiB.
pub(crate) const BATCH_PAGES: usize = 512;
/// Number of channels that the work is spread over.
pub(crate) const CHANNELS: usize = 2;
/// The longest entry, by the ABI.
const ENTRY_BYTES: usize = 2 << 20;
/// Words of a list entry.
const ENTRY_WORDS: usize = 4;
/// Batches that can be under way at once.
const LISTS: usize = 16;
/// Commands that a batch may need: a copy and a fill, or a digest.
const BATCH_COMMANDS: usize = 2;
const _: () = assert!(LISTS * BATCH_COMMANDS <= RING_LENGTH, "a ring can hold all batches");

/// A list, and room for what a digest says of each of its pages.
struct SharedList {
    entries: SharedWords,
    results: SharedWords,
}

/// The copy engines of a device, by channels of theirs.
#[pin_data]
pub(crate) struct CopyEngine {
    channels: [Arc<Channel>; CHANNELS],
    next_channel: Atomic<u64>,
    #[pin]
    lists: Mutex<KVec<SharedList>>,
    #[pin]
    returned: CondVar,
}

impl CopyEngine {
    /// Engines that work through `channels`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new<'a>(
        dev: &'a Device<Bound>,
        channels: [Arc<Channel>; CHANNELS],
    ) -> impl PinInit<Self, Error> + 'a {
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
                channels,
                next_channel: Atomic::new(0),
                lists <- new_mutex!(lists, "ersatz_lists"),
                returned <- new_condvar!("ersatz_list_returned"),
            }))
        })
    }

    /// Whether the device is beyond recovery: it does no more work and no more DMA.
    pub(crate) fn is_lost(&self) -> bool {
        self.channels.iter().any(|channel| channel.is_lost())
    }

    /// An empty batch. May sleep until another has been done, so the caller must not hold one already.
    pub(crate) fn batch(&self, cause: Cause) -> Batch<'_> {
        let mut lists = self.lists.lock();
        let list = loop {
            match lists.pop() {
                Some(list) => break list,
                None => self.returned.wait(&mut lists),
            }
        };
        drop(lists);
        self.batch_of(list, cause)
    }

    /// An empty batch; `None` if all lists are under way.
    pub(crate) fn try_batch(&self, cause: Cause) -> Option<Batch<'_>> {
        let list = self.lists.lock().pop()?;
        Some(self.batch_of(list, cause))
    }

    fn batch_of(&self, list: SharedList, cause: Cause) -> Batch<'_> {
        let turn = self.next_channel.fetch_add(1, ordering::Relaxed) as usize;
        let channel = &self.channels[turn % CHANNELS];
        Batch {
            engine: self,
            channel,
            list: Some(list),
            cause,
            front: 0,
            fills: 0,
            digests: false,
            tag: None,
            last: None,
            ticket: None,
            id: BatchId::default(),
        }
    }
}

/// Work of up to [`BATCH_PAGES`] entries: copies and fills, or digests. Dropping it waits for what is under way.
pub(crate) struct Batch<'a> {
    engine: &'a CopyEngine,
    channel: &'a Channel,
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
    /// The last copy or fill, to which the next may be joined.
    last: Option<Transfer>,
    /// The work that is under way.
    ticket: Option<Ticket>,
    id: BatchId,
}

fn location(endpoint: Endpoint) -> Location {
    match endpoint {
        Endpoint::Device(offset) => Location::vram(offset),
        Endpoint::System(address) => Location::system(address),
    }
}

/// The endpoint `length` bytes further on.
fn after(endpoint: Endpoint, length: usize) -> Endpoint {
    match endpoint {
        Endpoint::Device(offset) => Endpoint::Device(offset + length as u64),
        Endpoint::System(address) => Endpoint::System(address + length as u64),
    }
}

/// Two transfers as one, if the second continues the first on both sides.
fn join(first: Transfer, second: Transfer) -> Option<Transfer> {
    let length = first.length + second.length;
    let continues = second.source == first.source.map(|source| after(source, first.length))
        && second.destination == after(first.destination, first.length)
        && second.address == first.address.wrapping_add(first.length);
    (continues && length <= ENTRY_BYTES).then_some(Transfer { length, ..first })
}

impl Batch<'_> {
    /// Adds a page to read, which the user knows by `address`; its CRC-32C will be [`Batch::result`] number *n*, if this is
    /// the *n*th.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if the batch is full.
    pub(crate) fn digest(&mut self, source: Endpoint, address: usize) -> Result {
        self.check_room()?;
        self.digests = true;
        let results = self.list.as_ref().ok_or(EINVAL)?.results.dma_address();
        let destination = Location::system(results + (self.front * size_of::<u64>()) as u64);
        // A digest writes eight bytes, whatever it reads.
        self.put(self.front, location(source), destination, PAGE_SIZE, address)?;
        self.front += 1;
        Ok(())
    }

    /// Does the work, and waits until it is done.
    ///
    /// # Errors
    ///
    /// `EIO` if the device failed.
    pub(crate) fn run(&mut self) -> Result {
        self.start()?;
        self.finish()
    }

    /// What names the batch in the device's trace, once it has been started.
    pub(crate) fn id(&self) -> BatchId {
        self.id
    }

    /// The digest of the page added as number `index`, once the batch has been run.
    ///
    /// # Errors
    ///
    /// `ERANGE` if there is no such page.
    pub(crate) fn result(&self, index: usize) -> Result<u64> {
        let list = self.list.as_ref().ok_or(EINVAL)?;
        list.results.read(index)
    }

    fn check_room(&self) -> Result {
        if self.front + self.fills < BATCH_PAGES {
            Ok(())
        } else {
            Err(ENOSPC)
        }
    }

    fn put(&mut self, index: usize, source: Location, destination: Location, length: usize, address: usize) -> Result {
        let entry = ListEntry { source, destination, length: length as u32, tag: address as u64 };
        let list = self.list.as_ref().ok_or(EINVAL)?;
        list.entries.write(index * ENTRY_WORDS, &entry.encode())?;
        self.tag.get_or_insert(address);
        Ok(())
    }
}

impl<'a> Copier<'a> for Batch<'a> {
    type Reach = SystemMappings<'a>;

    /// Adds memory to copy or to clear. What continues the transfer before it, on both sides, becomes one entry with it.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if the batch is full.
    fn add(&mut self, transfer: Transfer) -> Result {
        let joined = self.last.and_then(|last| join(last, transfer));
        let fill = transfer.source.is_none();
        if joined.is_none() {
            self.check_room()?;
            if fill {
                self.fills += 1;
            } else {
                self.front += 1;
            }
        }
        let transfer = joined.unwrap_or(transfer);
        let index = if fill { BATCH_PAGES - self.fills } else { self.front - 1 };
        let destination = location(transfer.destination);
        let source = transfer.source.map_or(destination, location);
        self.put(index, source, destination, transfer.length, transfer.address)?;
        self.last = Some(transfer);
        Ok(())
    }

    /// Makes the engine begin.
    ///
    /// # Errors
    ///
    /// `EIO` if the device failed.
    fn start(&mut self) -> Result {
        let base = self.list.as_ref().ok_or(EINVAL)?.entries.dma_address();
        let list = |first: usize, count: usize| List {
            address: base + (first * (ENTRY_WORDS * size_of::<u64>())) as u64,
            count: count as u32, // at most BATCH_PAGES
        };
        let tag = self.tag.unwrap_or(0) as u64;
        let front = list(0, self.front);
        let front = if self.digests { Operation::Digest(front) } else { Operation::Copy(front) };
        let fill = Operation::Fill(list(BATCH_PAGES - self.fills, self.fills), 0);
        let works: [Work; BATCH_COMMANDS] = [Work { operation: front, tag }, Work { operation: fill, tag }];
        let works = match (self.front, self.fills) {
            (0, 0) => return Ok(()),
            (0, _) => &works[1..],
            (_, 0) => &works[..1],
            _ => &works[..],
        };
        let ticket = self.channel.submit(works, self.cause)?;
        self.id = BatchId { channel: self.channel.number(), fence: ticket.fence(), address: tag };
        self.ticket = Some(ticket);
        tracepoints::copy(self.channel.dev(), self.id, self.cause.name());
        Ok(())
    }

    /// Waits until the work is done.
    ///
    /// # Errors
    ///
    /// `EIO` if the device failed. Any part may have been done then, but the device does nothing more of it.
    fn finish(&mut self) -> Result {
        self.ticket.take().map_or(Ok(()), |ticket| self.channel.wait(&ticket))
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        // The list and what it names are about to get other users; whether the work was done makes no difference to them.
        let _ = self.finish();
        if let Some(list) = self.list.take() {
            // There is room: the list came from here.
            let _ = self.engine.lists.lock().push_within_capacity(list);
            self.engine.returned.notify_one();
        }
    }
}
