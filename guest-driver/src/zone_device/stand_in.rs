// SPDX-License-Identifier: GPL-2.0
//! Pages that take the place of pages whose content is lost.
//!
//! The memory manager has no way to get users off a poisoned page of device memory that CPUs reach: `memory_failure()` fails for it, or
//! takes it for a file's (`mf_generic_kill_procs()`, `mm/memory-failure.c`). And a page of a device that is gone cannot be moved to system memory with its
//! content, while `memunmap_pages()` waits for it as long as a process has it. So such a page migrates to one of private memory, which no CPU can
//! reach, and a CPU that touches that one gets `SIGBUS` with `BUS_MCEERR_AR`.
//!
//! The stand-ins of all devices are the module's, as they outlast the device: they keep the module loaded while a process has them. There is no memory behind
//! them, only page structs.

use super::{
    fault::{CpuFault, FaultEnd},
    folio::{LockedFolio, Side},
    frames::BLOCK_PAGES,
    migrate,
    pagemap::{BoundMap, DeviceMemory, Kind, PageMap, Registered},
    region::{Region, ALIGNMENT},
};
use crate::kernel_ext::{compat::bound_device, module_use::ModuleUses, revocable::SleepableRevocable};
use core::ops::Range;
use kernel::{
    device::Device,
    faux,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        atomic::{ordering, Atomic},
        global_lock, Arc, GlobalGuard,
    },
};

/// The kind of memory that stand-ins are.
struct StandIns(());

impl DeviceMemory for StandIns {
    const SIDE: Side = Side::StandIn;

    fn migrate_to_ram(_map: BoundMap<'_, Self>, _fault: &CpuFault<'_>) -> FaultEnd {
        FaultEnd::Poisoned
    }

    fn memory_failure(_map: BoundMap<'_, Self>, _index: usize) -> Result {
        Ok(())
    }

    fn freed(_dev: &Device, pages: Range<usize>) {
        // SAFETY: `take` left a use for each page. The memory manager notes that the page is free when this has returned, and its map, which is
        // unregistered before the module goes, waits for that.
        unsafe { ModuleUses::end(pages.len()) };
    }
}

/// The module's stand-ins.
struct Stock {
    maps: KVec<Arc<SleepableRevocable<Registered<StandIns>>>>,
    /// What the maps are registered for. Dropped last, with them.
    device: faux::Registration,
}

global_lock! {
    // SAFETY: `StandInPool::open` initialises it, and `stock` does not use it before.
    unsafe(uninit) static STOCK: Mutex<Option<Stock>> = None;
}
/// Whether a pool was opened since the module was loaded.
static OPENING: Atomic<u32> = Atomic::new(CLOSED);

const CLOSED: u32 = 0;
const OPENED: u32 = 1;
const READY: u32 = 2;

/// The stock, if the pool is open.
fn stock() -> Option<GlobalGuard<STOCK>> {
    (OPENING.load(ordering::Acquire) == READY).then(|| STOCK.lock())
}

/// Gives the module stand-ins, until this is dropped: no device is bound then, and no process has one.
pub(crate) struct StandInPool(());

impl StandInPool {
    /// Begins without a stand-in.
    ///
    /// # Errors
    ///
    /// `EBUSY` if it was opened before; `ENOMEM` and the like if there can be no device for them.
    pub(crate) fn open() -> Result<Self> {
        let device = faux::Registration::new(c"ersatz-lost-pages", None)?;
        if OPENING.cmpxchg(CLOSED, OPENED, ordering::Relaxed).is_err() {
            return Err(EBUSY);
        }
        // SAFETY: This is the only thread that comes here, once, and nobody uses the lock before it is ready.
        unsafe { STOCK.init() };
        *STOCK.lock() = Some(Stock { maps: KVec::new(), device });
        OPENING.store(READY, ordering::Release);
        Ok(Self(()))
    }
}

impl Drop for StandInPool {
    fn drop(&mut self) {
        let stock = stock().and_then(|mut stock| stock.take());
        // Not under the lock: this waits until the last page has been freed.
        drop(stock);
    }
}

/// Sees to it that there is a stand-in for each of some pages, of which huge folios are whole blocks. May sleep.
///
/// # Errors
///
/// As for [`Region::free`] and [`PageMap::register`]; `ENODEV` if the module is being unloaded.
pub(crate) fn reserve(pages: usize) -> Result {
    let mut stock = stock().ok_or(ENODEV)?;
    let stock = stock.as_mut().ok_or(ENODEV)?;
    let needed = pages.div_ceil(BLOCK_PAGES);
    // Others are of no use to a huge folio.
    let free: usize = stock.maps.iter().filter_map(|map| Some(map.try_access()?.bound().free_blocks())).sum();
    if free >= needed {
        return Ok(());
    }
    let blocks = (needed - free) as u64;
    const { assert!(ALIGNMENT == (BLOCK_PAGES * PAGE_SIZE) as u64) };
    let device = bound_device(&stock.device);
    let region = Region::free(device, blocks * ALIGNMENT, c"ersatz lost pages")?;
    stock.maps.reserve(1, GFP_KERNEL)?;
    let map = PageMap::register(device, Kind::Private, region, Ok(StandIns(())))?;
    Ok(stock.maps.push(map, GFP_KERNEL)?)
}

/// Takes a free stand-in of an order; `None` if there is none, or the module is being unloaded.
fn take(order: u32) -> Option<LockedFolio> {
    let stock = stock()?;
    let maps = &stock.as_ref()?.maps;
    let uses = ModuleUses::take(1 << order)?;
    let folio = maps.iter().find_map(|map| map.try_access()?.bound().allocate(order))?;
    uses.leave();
    Some(folio)
}

/// Puts stand-ins in the place of pages of a map, by their indexes in ascending order, for all their users. Folios that are not named whole stay. Returns the
/// number of pages that have a stand-in now; others are held by something else than page tables, or there is no stand-in for them.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn replace<T: DeviceMemory>(map: BoundMap<'_, T>, indexes: impl Iterator<Item = usize>) -> Result<usize> {
    migrate::replace_lost(map, indexes, BLOCK_PAGES, take)
}
