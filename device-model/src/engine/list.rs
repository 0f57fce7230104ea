// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The lists of copy engines: fetched and decoded some entries ahead, executed a piece of work at a time.
//!
//! Entries are decoded together, well before they are used. What a CPU has put into memory in parts and soon reads as a whole
//! waits for every store before it, and those are the stores of the last copy.

use ersatz_abi::command::{Cause, EntryError, LIST_ENTRY_BYTES, List, ListEntry};

use super::PIECE_BYTES;
use super::context::{Context, Stop, words_at};
use super::decide::decide_about_entry;
use super::hold::{begin_piece, end_piece, pass};
use super::memory_access::MemoryAccess;
use super::transfer::{Transfer, Work, part_event};
use crate::channel::task::{Cursor, Part};
use crate::dma::Purpose;
use crate::trace::Step;

/// List entries fetched at once.
const ENTRIES_AT_ONCE: u64 = 128;
/// What an entry counts at least, in bytes, so that many small ones are no longer under way than few large ones.
const ENTRY_COST: u64 = 2048;

/// Executes lists.
pub(crate) struct Lists {
    entries: Entries,
    transfer: Transfer,
}

impl Lists {
    pub(crate) fn new() -> Self {
        Self { entries: Entries::new(), transfer: Transfer::new() }
    }

    /// Executes a list to its end, from where it has come to. `bytes` counts those of the entries done.
    pub(crate) fn run(
        &mut self,
        context: &Context<'_>,
        (list, work, cause): (List, Work, Cause),
        cursor: &mut Cursor,
        bytes: &mut u64,
    ) -> Result<(), Stop> {
        let Self { entries, transfer } = self;
        entries.begin(list);
        loop {
            if cursor.part.is_none() {
                cursor.part = entries.get(cursor.entries)?;
            }
            let Some(part) = &cursor.part else {
                if cursor.entries >= list.count {
                    return Ok(());
                }
                entries.fetch(context, cursor.entries)?;
                continue;
            };
            let begun = *part;
            let what = || (part_event(context, work, cause, &begun), begun.entry.tag);
            pass(context, Step::BeforePiece, cause, &mut cursor.passes, what)?;
            let injector = &context.device.ports.injector;
            let is_decided = injector.decides();
            if is_decided && cursor.fate.is_none() {
                cursor.fate = Some(decide_about_entry(context, cause, begun.entry.length.into(), what().0)?);
            }
            let budget = match cursor.fate.flatten() {
                Some((code, bytes)) if begun.offset >= bytes => {
                    return Err(Stop::failed(code, cursor.entries, begun.address()));
                }
                Some((_, bytes)) => PIECE_BYTES.min(bytes - begun.offset),
                None => PIECE_BYTES,
            };
            // Those who look at pieces see each entry.
            let is_watched =
                injector.is_watched(Step::BeforePiece) || injector.is_watched(Step::AfterPiece) || is_decided;
            let limit = Limit { bytes: budget, entries: if is_watched { 1 } else { u32::MAX } };
            // One permit for as many entries as make up a piece: asking for it costs as much as a small copy.
            let began = begin_piece(context);
            let moved = MemoryAccess::open(context, cursor.entries, begun.address(), |memory| {
                let result = piece(memory, transfer, (entries, limit), work, cursor, bytes);
                transfer.settle(context, memory, work, cause);
                result
            })?;
            pass(context, Step::AfterPiece, cause, &mut cursor.passes, what)?;
            end_piece(context, began, moved, begun.is_over_link())?;
        }
    }
}

/// What a piece ends at.
#[derive(Clone, Copy, Debug)]
struct Limit {
    bytes: u64,
    entries: u32,
}

/// Executes as many entries as make up a piece, are here, and are within the limit. Returns how many bytes
/// it has moved.
fn piece(
    memory: &mut MemoryAccess<'_>,
    transfer: &mut Transfer,
    (entries, limit): (&Entries, Limit),
    work: Work,
    cursor: &mut Cursor,
    bytes: &mut u64,
) -> Result<u64, Stop> {
    let mut moved = 0;
    let mut budget = limit.bytes;
    let end = cursor.entries.saturating_add(limit.entries);
    while let Some(part) = &mut cursor.part {
        memory.entry = cursor.entries;
        if let Some(Ok(next)) = entries.peek(cursor.entries + 1) {
            memory.expect(next.source, Purpose::Read);
            memory.expect(next.destination, Purpose::Write);
        }
        let done = transfer.step(memory, work, part, budget)?;
        moved += done;
        budget = budget.saturating_sub(done.max(ENTRY_COST));
        if part.finished {
            *bytes += u64::from(part.entry.length);
            cursor.entries += 1;
            cursor.part = None;
            cursor.fate = None;
        }
        if budget == 0 || cursor.entries >= end {
            break;
        }
        if cursor.part.is_none() {
            cursor.part = entries.get(cursor.entries)?;
        }
    }
    Ok(moved)
}

/// Some entries of the list under way.
struct Entries {
    list: List,
    /// What they are fetched into.
    buffer: Box<[u8]>,
    /// Place in the list of the first.
    first: u32,
    decoded: Vec<Result<ListEntry, EntryError>>,
}

impl Entries {
    fn new() -> Self {
        let buffer = vec![0; (ENTRIES_AT_ONCE * LIST_ENTRY_BYTES) as usize].into_boxed_slice();
        Self { list: List { address: 0, count: 0 }, buffer, first: 0, decoded: Vec::new() }
    }

    /// This list comes now.
    fn begin(&mut self, list: List) {
        self.list = list;
        self.decoded.clear();
    }

    /// Bus address of an entry.
    fn address(&self, entry: u32) -> u64 {
        self.list.address + u64::from(entry) * LIST_ENTRY_BYTES
    }

    /// Fetches entries from this one on, which the list has.
    fn fetch(&mut self, context: &Context<'_>, entry: u32) -> Result<(), Stop> {
        let wanted = u64::from(self.list.count - entry).min(ENTRIES_AT_ONCE);
        let address = self.address(entry);
        let fetched = context.fetch(entry, address, wanted, LIST_ENTRY_BYTES, &mut self.buffer)?;
        self.first = entry;
        self.decoded.clear();
        self.decoded.extend((0..fetched as usize).map(|slot| ListEntry::decode(&words_at(&self.buffer, slot))));
        Ok(())
    }

    /// An entry, if it is here.
    fn peek(&self, entry: u32) -> Option<&Result<ListEntry, EntryError>> {
        self.decoded.get(entry.checked_sub(self.first)? as usize)
    }

    /// As [`Self::peek`], to be worked on.
    fn get(&self, entry: u32) -> Result<Option<Part>, Stop> {
        let decoded = self.peek(entry).copied().transpose();
        Ok(decoded.map_err(|error| Stop::entry(error, entry, self.address(entry)))?.map(Part::new))
    }
}
