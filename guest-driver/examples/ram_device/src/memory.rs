// SPDX-License-Identifier: GPL-2.0
//! The device's memory: private pages, whose content a CPU copies to a chunk of RAM and back.

use crate::{
    kernel_ext::{mm::Vmas, revocable::SleepableRevocable, signal},
    uapi::ram::PAGES,
    zone_device::{
        drain::drain_cpu_lists,
        fault::{CpuFault, FaultEnd},
        folio::{LockedFolio, Side, HUGE_ORDER, HUGE_SIZE},
        migrate::{ByCpu, Copier, CpuPages, Endpoint, Filling, Isolated, Source, Transfer},
        pagemap::{BoundMap, DeviceMemory, Kind, PageMap, Registered},
        region::Region,
    },
};
use core::ops::Range;
use kernel::{
    device::{Bound, Device},
    mm::MmWithUser,
    new_mutex,
    page::{PAGE_SHIFT, PAGE_SIZE},
    prelude::*,
    sync::{Arc, Mutex},
    time::{delay::fsleep, Delta},
};

/// The memory, which can be used while its device is there.
pub(crate) type Memory = SleepableRevocable<Registered<Ram>>;

/// What the pages hold.
#[pin_data]
pub(crate) struct Ram {
    #[pin]
    content: Mutex<VVec<u8>>,
}

/// Registers the memory for as long as `dev` is bound.
///
/// # Errors
///
/// As for [`Region::free`] and [`PageMap::register`].
pub(crate) fn register(dev: &Device<Bound>) -> Result<Arc<Memory>> {
    let region = Region::free(dev, (PAGES * PAGE_SIZE) as u64, c"ersatz_ram")?;
    let content = VVec::from_elem(0, PAGES * PAGE_SIZE, GFP_KERNEL)?;
    let ram = try_pin_init!(Ram { content <- new_mutex!(content, "ersatz_ram") });
    PageMap::register(dev, Kind::Private, region, ram)
}

impl DeviceMemory for Ram {
    fn migrate_to_ram(map: BoundMap<'_, Self>, fault: &CpuFault<'_>) -> FaultEnd {
        if map.has_lost(fault) {
            return FaultEnd::Poisoned;
        }
        let (vma, window) = (fault.vma(), fault.window(PAGE_SIZE));
        let address = |index| window.start + (index << PAGE_SHIFT);
        let allocate = |order, index| LockedFolio::new_for_vma(order, &vma, address(index)).ok();
        match Isolated::of_fault(map, fault, window.clone()).and_then(|isolated| relocate(map, isolated, allocate)) {
            Ok(Moved { is_short: true, .. }) => FaultEnd::OutOfMemory,
            // What somebody else holds for a moment has not moved, and is touched again.
            result => FaultEnd::from(result.map(|_| ())),
        }
    }

    fn memory_failure(_map: BoundMap<'_, Self>, _index: usize) -> Result {
        Ok(())
    }
}

/// Has a CPU copy what is added.
struct CpuCopy<'a>(&'a Ram);

impl<'a> Copier<'a> for CpuCopy<'a> {
    type Reach = ByCpu;

    fn add(&mut self, transfer: Transfer<CpuPages<'_>>) -> Result {
        let Transfer { source, destination, length, .. } = transfer;
        let offset = match (&source, &destination) {
            (Some(Endpoint::Device(offset)), _) | (_, Endpoint::Device(offset)) => usize::try_from(*offset)?,
            _ => return Err(EINVAL),
        };
        let mut content = self.0.content.lock();
        let here = content.get_mut(offset..offset + length).ok_or(EINVAL)?;
        match (source, destination) {
            (Some(Endpoint::System(pages)), _) => pages.read(here)?,
            (_, Endpoint::System(pages)) => pages.write(here)?,
            _ => here.fill(0),
        }
        Ok(())
    }

    fn start(&mut self) -> Result {
        Ok(())
    }

    fn finish(&mut self) -> Result {
        Ok(())
    }
}

/// What became of a migration.
struct Moved {
    /// Pages that moved.
    count: usize,
    /// Whether a page had no destination.
    is_short: bool,
}

/// Moves isolated folios to what `allocate` has for them, by order and place.
fn relocate<'a>(
    map: BoundMap<'a, Ram>,
    mut isolated: Isolated<'a, Ram>,
    allocate: impl Fn(u32, usize) -> Option<LockedFolio>,
) -> Result<Moved> {
    let (mut at, mut is_short) = (0, false);
    while let Some(run) = isolated.next_run(at) {
        at = run.end();
        if run.source != Source::Hole {
            is_short |= !isolated.assign(&run, |order| allocate(order, run.first), |index| allocate(0, index))?;
        }
    }
    let filled = Filling::begin(isolated, CpuCopy(map.map().memory()))?.finish(0)?;
    Ok(Moved { count: filled.commit().count(), is_short })
}

/// Moves what a page-aligned range of `mm`, the current process's, has on side `from` to the other. Returns the number of pages that moved.
///
/// # Errors
///
/// `ENOMEM`; `EINTR` if the process is being killed. What has moved by then has moved.
pub(crate) fn migrate(map: BoundMap<'_, Ram>, mm: &MmWithUser, range: Range<usize>, from: Side) -> Result<usize> {
    let (vmas, mut moved, mut next) = (Vmas::lock(mm), 0, range.start);
    while let Some((vma, part)) = vmas.first_in(next..range.end) {
        if signal::is_fatal_pending() {
            return Err(EINTR);
        }
        let piece = part.start..part.end.min((part.start / HUGE_SIZE + 1) * HUGE_SIZE);
        next = piece.end;
        let address = |index| piece.start + (index << PAGE_SHIFT);
        let allocate = |order, index| match from {
            Side::System => map.allocate(order),
            _ => LockedFolio::new_for_vma(order, &vma, address(index)).ok(),
        };
        match Isolated::of_vma(map, vma, piece.clone(), from) {
            // Of a kind that never migrates.
            Err(error) if error == EINVAL => {}
            isolated => moved += relocate(map, isolated?, allocate)?.count,
        }
    }
    Ok(moved)
}

/// Moves all pages of all processes back, and waits for those that are busy.
pub(crate) fn empty(memory: &Registered<Ram>) {
    let map = memory.bound();
    while map.pages_in_use() > 0 {
        for block in 0..map.blocks() {
            let isolated = Isolated::of_device(map, map.mapped_pages_of_block(block), 1 << HUGE_ORDER);
            let allocate = |order, _| LockedFolio::new_system(order, None).ok();
            // What does not move now is tried again.
            let _ = isolated.and_then(|isolated| relocate(map, isolated, allocate));
        }
        if map.pages_in_use() > 0 {
            let _ = drain_cpu_lists();
            fsleep(Delta::from_millis(10));
        }
    }
}
