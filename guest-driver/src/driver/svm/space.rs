// SPDX-License-Identifier: GPL-2.0
//! A process's address space, as the device has it.

use super::{
    super::registers::Registers,
    advice::{is_lasting, Advices, Advised},
    damping::Damping,
    invalidator::Invalidator,
    page_tables::{PageTables, SpareTables, Target},
};
use crate::{
    abi::{
        mmu::{AddressSpaceControl, Invalidation},
        regs,
    },
    kernel_ext::{
        mm::{bring_to_system, LockedVma},
        signal,
    },
    uapi::Advice,
    zone_device::{
        folio::HUGE_SIZE,
        interval_notifier::{IntervalNotifier, Mirrored, PresentPage, PresentPages, Wanted},
        pagemap::{BoundMap, DeviceMemory},
    },
};
use core::ops::Range;
use kernel::{
    device::{Bound, Device},
    mm::MmWithUser,
    new_mutex,
    page::PAGE_SIZE,
    prelude::*,
    sync::{Arc, Mutex},
};

/// The addresses that are mirrored: those that a process gets if it does not ask for higher ones.
const ADDRESSES: usize = 1 << 47;
/// How often a page is brought to the system for the device, if another device takes it in between.
const ATTEMPTS: u32 = 8;
/// How much around a fault is mapped with it, as far as it is present, unless more has just been moved.
pub(crate) const WINDOW: usize = 64 << 10;

/// The device's page tables of a process, and how to have the device forget them.
struct DeviceMappings {
    asid: u8,
    tables: PageTables,
    invalidator: Arc<Invalidator>,
    /// From the first to the last page that was forgotten since [`Space::take_forgotten`].
    forgotten: Range<usize>,
}

// SAFETY: `invalidate` clears the entries, waits until the device has forgotten them or may do no more DMA, and drops the pages thereafter.
// `Space::close` does so for all of them, and is called before the device is unbound.
unsafe impl Mirrored for DeviceMappings {
    fn invalidate(&mut self, range: Range<usize>) {
        if let Some(cleared) = self.tables.clear(range) {
            let (address, length) = (cleared.start as u64, cleared.len() as u64);
            self.invalidator.invalidate(Invalidation::Range { asid: self.asid, address, length });
            self.tables.release(cleared.clone());
            self.forgotten = match self.forgotten.is_empty() {
                true => cleared,
                false => self.forgotten.start.min(cleared.start)..self.forgotten.end.max(cleared.end),
            };
        }
    }

    fn knows_any(&mut self, range: Range<usize>) -> bool {
        self.tables.maps_any(range)
    }
}

/// What names an address space for as long as the device is bound. An ASID gets other users in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpaceId {
    /// The address space's number.
    pub(crate) asid: u8,
    /// Which of those with this number.
    pub(crate) serial: u64,
}

/// What may be mapped with the pages of a fault.
#[derive(Clone, Debug)]
pub(crate) struct Nearby {
    /// The pages, as far as they are present.
    pub(crate) pages: Range<usize>,
    /// Whether with the right to write, where the process has it, also if the device only reads.
    pub(crate) write: bool,
}

/// Where the process wants its memory, and what of it was moved lately.
struct Placement {
    advices: Advices,
    damping: Damping,
}

/// An address space of the device that mirrors a process's.
#[pin_data]
pub(crate) struct Space {
    id: SpaceId,
    root: u64,
    registers: Arc<Registers>,
    invalidator: Arc<Invalidator>,
    #[pin]
    placement: Mutex<Placement>,
    #[pin]
    notifier: IntervalNotifier<DeviceMappings>,
}

impl Space {
    /// Mirrors `mm` as address space `id`. The mm must not be locked by the caller.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(
        dev: &Device<Bound>,
        mm: &MmWithUser,
        id: SpaceId,
        registers: Arc<Registers>,
        invalidator: Arc<Invalidator>,
    ) -> Result<Arc<Self>> {
        let tables = PageTables::new(dev)?;
        let root = tables.root().0;
        let placement = Placement { advices: Advices::new(), damping: Damping::new()? };
        let mappings = DeviceMappings { asid: id.asid, tables, invalidator: invalidator.clone(), forgotten: 0..0 };
        Arc::pin_init(
            try_pin_init!(Self {
                id,
                root,
                registers,
                invalidator,
                placement <- new_mutex!(placement, "ersatz_advice"),
                notifier <- IntervalNotifier::new(mm, ADDRESSES, mappings),
            }),
            GFP_KERNEL,
        )
    }

    /// What names it.
    pub(crate) fn id(&self) -> SpaceId {
        self.id
    }

    /// Whether it mirrors `mm`.
    pub(crate) fn is_of(&self, mm: &MmWithUser) -> bool {
        self.notifier.is_of(mm)
    }

    /// Notes where the memory of a page-aligned range is wanted.
    ///
    /// # Errors
    ///
    /// `EFAULT` for addresses that are not mirrored; otherwise as [`Advices::set`].
    pub(crate) fn advise(&self, range: Range<usize>, advice: Advice) -> Result {
        if range.end > ADDRESSES {
            return Err(EFAULT);
        }
        self.placement.lock().advices.set(range.clone(), advice)?;
        if is_lasting(advice) {
            // With rights by the new advice.
            self.notifier.lock().invalidate(range);
        }
        Ok(())
    }

    /// As [`Advices::at`].
    pub(crate) fn advice_at(&self, address: usize) -> Advised {
        self.placement.lock().advices.at(address)
    }

    /// The first part of a range that is wanted on the device when that accesses it often.
    pub(crate) fn first_by_access(&self, range: &Range<usize>) -> Option<Range<usize>> {
        let advised = self.placement.lock().advices.first_in(range, |advice| advice == Advice::ByAccess);
        advised.map(|advised| advised.range)
    }

    /// The first part of a range that the device is to have mapped.
    pub(crate) fn first_lasting(&self, range: &Range<usize>) -> Option<Advised> {
        self.placement.lock().advices.first_in(range, is_lasting)
    }

    /// Whether the device is to have anything mapped.
    pub(crate) fn has_lasting(&self) -> bool {
        self.placement.lock().advices.has_any(is_lasting)
    }

    /// From the first to the last page whose mapping the device has lost since this was called last.
    pub(crate) fn take_forgotten(&self) -> Range<usize> {
        core::mem::replace(&mut self.notifier.lock().forgotten, 0..0)
    }

    /// Whether accesses are to be counted.
    pub(crate) fn counts_accesses(&self) -> bool {
        self.placement.lock().advices.has_any(|advice| advice == Advice::ByAccess)
    }

    /// As [`Damping::permits`].
    pub(crate) fn may_move(&self, start: usize) -> bool {
        self.placement.lock().damping.permits(start)
    }

    /// As [`Damping::note`].
    pub(crate) fn note_move(&self, start: usize) {
        self.placement.lock().damping.note(start);
    }

    /// Enables the address space in the device, unless it is: a reset of the function may have come between.
    ///
    /// # Errors
    ///
    /// `EIO` if the device does not take it.
    pub(crate) fn enable(&self) -> Result {
        let _mappings = self.notifier.lock();
        let control = AddressSpaceControl(0).with_enable(true).with_replayable(true);
        if self.control()? == control {
            return Ok(());
        }
        self.registers.write_address_space(self.id.asid, regs::ADDRESS_SPACE_ROOT, self.root)?;
        self.registers.write_address_space(self.id.asid, regs::ADDRESS_SPACE_CONTROL, control.0.into())?;
        (self.control()? == control).then_some(()).ok_or(EIO)
    }

    fn control(&self) -> Result<AddressSpaceControl> {
        let control = self.registers.read_address_space(self.id.asid, regs::ADDRESS_SPACE_CONTROL)?;
        Ok(AddressSpaceControl(control as u32))
    }

    /// Takes everything from the device. Nothing may run in the address space any more.
    pub(crate) fn close(&self) {
        // A device that does not answer has nothing enabled, or is given up below.
        let _ = self.registers.write_address_space(self.id.asid, regs::ADDRESS_SPACE_CONTROL, 0);
        self.notifier.lock().invalidate(0..ADDRESSES);
        // Walks that are under way use tables that are about to be freed.
        self.invalidator.invalidate(Invalidation::AddressSpace(self.id.asid));
    }

    /// Maps the pages of a fault for the device, which one entry of a PMD table covers, with what is present of the pages `nearby` that the
    /// same entry covers. Returns whether one of them was not mapped before.
    ///
    /// # Errors
    ///
    /// `EFAULT` or `EPERM` if the process itself could not access a page so; `EIO` if a page cannot be made reachable; `ENOMEM`;
    /// `EINTR` if the process is being killed; `ETIMEDOUT` if the pages do not hold still.
    pub(crate) fn serve<M: DeviceMemory>(
        &self,
        map: BoundMap<'_, M>,
        mm: &MmWithUser,
        wanted: &Wanted,
        nearby: &Nearby,
        pfns: &mut [usize],
    ) -> Result<bool> {
        if wanted.pages.end > ADDRESSES {
            return Err(EFAULT);
        }
        let first = wanted.pages.start;
        if self.notifier.lock().tables.permits_all(wanted) {
            return Ok(false);
        }
        let mut spare = self.missing_tables(map.dev(), first)?;
        let window = if nearby.pages.len() > WINDOW { HUGE_SIZE } else { WINDOW };
        let mut attempts = 0;
        loop {
            let mapped = self.notifier.with_pages(mm, map.map().owner(), wanted, window, pfns, |mappings, pages| {
                spare.as_mut().map_or(Ok(()), |spare| mappings.tables.attach(first, spare))?;
                map_present(map, mappings, wanted, nearby, pages)
            })?;
            match mapped {
                Ok(()) => return Ok(true),
                Err(Unmapped::Elsewhere(page)) if attempts < ATTEMPTS => bring_to_system(page)?,
                Err(Unmapped::Elsewhere(_)) => return Err(EFAULT),
                Err(Unmapped::Failed(error)) => return Err(error),
            }
            attempts += 1;
        }
    }

    /// Maps all pages of a page-aligned range for the device. Returns whether one of them was not mapped before.
    ///
    /// # Errors
    ///
    /// As [`Space::serve`]. What was mapped by then is.
    pub(crate) fn serve_range<M: DeviceMemory>(
        &self,
        map: BoundMap<'_, M>,
        mm: &MmWithUser,
        range: Range<usize>,
        write: bool,
        pfns: &mut [usize],
    ) -> Result<bool> {
        let nearby = Nearby { pages: range.clone(), write: false };
        let mut was_missing = false;
        let mut next = range.start;
        while next < range.end {
            if signal::is_fatal_pending() {
                return Err(EINTR);
            }
            let end = (next / HUGE_SIZE + 1).saturating_mul(HUGE_SIZE).min(range.end);
            was_missing |= self.serve(map, mm, &Wanted { pages: next..end, write }, &nearby, pfns)?;
            next = end;
        }
        Ok(was_missing)
    }

    /// Maps for the device what is present of a range of a mapping that it is to have mapped and has not. What cannot be mapped is left.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the pages do not hold still; `EFAULT` for memory that is not handed out to devices; `ENOMEM`.
    pub(crate) fn map_lasting<M: DeviceMemory>(
        &self,
        map: BoundMap<'_, M>,
        vma: LockedVma<'_>,
        range: Range<usize>,
        pfns: &mut [usize],
    ) -> Result {
        let mut rest = range.start..range.end.min(ADDRESSES);
        while let Some(Advised { range, advice }) = self.first_lasting(&rest) {
            let end = (range.start / HUGE_SIZE + 1).saturating_mul(HUGE_SIZE).min(range.end);
            self.map_all_present(map, vma, range.start..end, advice == Advice::AccessedBy, pfns)?;
            rest.start = end;
        }
        Ok(())
    }

    /// Maps what is present of a range that one entry of a PMD table covers and that is not mapped yet, with the right to write where the
    /// process has it, if `write` says so.
    fn map_all_present<M: DeviceMemory>(
        &self,
        map: BoundMap<'_, M>,
        vma: LockedVma<'_>,
        range: Range<usize>,
        write: bool,
        pfns: &mut [usize],
    ) -> Result {
        let first = range.start;
        let mut spare = None;
        loop {
            let work = |mappings: &mut DeviceMappings, pages: &PresentPages<'_>| {
                let tables = &mut mappings.tables;
                spare.as_mut().map_or(Ok(()), |spare| tables.attach(first, spare))?;
                let lacks_tables = !tables.has_tables(first) && pages.iter().next().is_some();
                for page in pages.iter().filter(|_| !lacks_tables) {
                    if !tables.is_mapped(page.address) {
                        // The device faults at what is not mapped, and more can be done about it then.
                        let _ = target(map, pages, page)
                            .and_then(|target| tables.map(page.address, target, page.write && write));
                    }
                }
                Ok(lacks_tables)
            };
            // Tables are not made for what is not there: a process can have a great deal of that.
            match self.notifier.with_present_pages(vma, map.map().owner(), range.clone(), pfns, work)? {
                Ok(true) if spare.is_none() => spare = Some(PageTables::allocate(map.dev(), first)?),
                result => return result.map(|_| ()),
            }
        }
    }

    /// Gives the device exclusive access to the pages of a page-aligned range, each until a CPU touches it. Adds the number of pages to `done`.
    ///
    /// # Errors
    ///
    /// As [`Space::serve`]; `EOPNOTSUPP` or `EBUSY` if the kernel does not give a page to one device alone. Those before it were given.
    pub(crate) fn make_exclusive(
        &self,
        dev: &Device<Bound>,
        mm: &MmWithUser,
        range: Range<usize>,
        done: &mut u64,
    ) -> Result {
        if range.end > ADDRESSES {
            return Err(EFAULT);
        }
        for page in range.step_by(PAGE_SIZE) {
            if signal::is_fatal_pending() {
                return Err(EINTR);
            }
            let mut attempts = 0;
            loop {
                match self.make_page_exclusive(dev, mm, page) {
                    // In the coherent memory of a device, which cannot be closed to CPUs.
                    Err(error) if error == EXDEV && attempts < ATTEMPTS => bring_to_system(page)?,
                    result => break result?,
                }
                attempts += 1;
            }
            *done += 1;
        }
        Ok(())
    }

    fn make_page_exclusive(&self, dev: &Device<Bound>, mm: &MmWithUser, page: usize) -> Result {
        let mut spare = self.missing_tables(dev, page)?;
        self.notifier.with_exclusive_page(mm, page, |mappings, exclusive| {
            spare.as_mut().map_or(Ok(()), |spare| mappings.tables.attach(page, spare))?;
            let target = Target::Exclusive(exclusive.map(dev)?);
            if mappings.tables.is_mapped(page) {
                mappings.invalidate(page..page + PAGE_SIZE);
            }
            mappings.tables.map(page, target, true)
        })?
    }

    /// Whether the device has exclusive access to a page of a range.
    pub(crate) fn has_exclusive(&self, range: Range<usize>) -> bool {
        self.notifier.lock().tables.has_exclusive(range)
    }

    /// The tables on the way to an address, unless they are there.
    fn missing_tables(&self, dev: &Device<Bound>, address: usize) -> Result<Option<SpareTables>> {
        let has_tables = self.notifier.lock().tables.has_tables(address);
        (!has_tables).then(|| PageTables::allocate(dev, address)).transpose()
    }
}

/// Why a page is not mapped.
enum Unmapped {
    /// It is in the coherent memory of another device.
    Elsewhere(usize),
    Failed(Error),
}

impl From<Error> for Unmapped {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Maps the pages of a fault, and those `nearby` that are not mapped yet. Right to write is only given where it was asked for: a page that is
/// only read does not become dirty.
fn map_present<M: DeviceMemory>(
    map: BoundMap<'_, M>,
    mappings: &mut DeviceMappings,
    wanted: &Wanted,
    nearby: &Nearby,
    pages: &PresentPages<'_>,
) -> Result<(), Unmapped> {
    if mappings.tables.permits_all(wanted) {
        return Ok(());
    }
    // With fewer rights than are needed; what is between them is mapped again.
    let lacks = |page: &usize| mappings.tables.is_mapped(*page) && !mappings.tables.permits(*page, wanted.write);
    let mut lacking = wanted.pages.clone().step_by(PAGE_SIZE).filter(lacks);
    if let Some(first) = lacking.next() {
        let last = lacking.last().unwrap_or(first);
        mappings.invalidate(first..last + PAGE_SIZE);
    }
    for page in pages.iter() {
        let is_meant = wanted.pages.contains(&page.address) || nearby.pages.contains(&page.address);
        if !is_meant || mappings.tables.is_mapped(page.address) {
            continue;
        }
        let write = page.write && (wanted.write || nearby.write);
        let mapped = target(map, pages, page).and_then(|target| mappings.tables.map(page.address, target, write));
        match mapped {
            Err(error) if wanted.pages.contains(&page.address) => {
                return Err(if error == EXDEV { Unmapped::Elsewhere(page.address) } else { Unmapped::Failed(error) });
            }
            _ => {}
        }
    }
    Ok(())
}

fn target<M: DeviceMemory>(map: BoundMap<'_, M>, pages: &PresentPages<'_>, page: PresentPage) -> Result<Target> {
    match map.offset(page.pfn) {
        Some(offset) => {
            map.touch(page.pfn);
            Ok(Target::Vram(offset))
        }
        None => pages.map(map.dev(), page).map(Target::System),
    }
}
