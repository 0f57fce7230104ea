// SPDX-License-Identifier: GPL-2.0
//! Pages that take the place of pages whose content is lost.
//!
//! The memory manager has no way to get users off a poisoned page of device memory that CPUs reach: `memory_failure()` fails for it, or
//! takes it for a file's (`mf_generic_kill_procs()`, `mm/memory-failure.c`). So the page migrates to one of private memory, which no CPU can
//! reach, and a CPU that touches that one gets `SIGBUS` with `BUS_MCEERR_AR`.

use super::{
    fault::{CpuFault, FaultEnd},
    folio::Side,
    migrate,
    pagemap::{BoundMap, DeviceMemory, Kind, PageMap, Registered},
    region::{Region, ALIGNMENT},
};
use crate::kernel_ext::revocable::SleepableRevocable;
use kernel::{
    device::{Bound, Device},
    prelude::*,
    sync::Arc,
};

/// The stand-ins of a device: there is no memory behind them.
pub(crate) struct StandIns(());

impl DeviceMemory for StandIns {
    const SIDE: Side = Side::StandIn;

    fn migrate_to_ram(_map: BoundMap<'_, Self>, _fault: &CpuFault<'_>) -> FaultEnd {
        FaultEnd::Poisoned
    }

    fn memory_failure(_map: BoundMap<'_, Self>, _index: usize) -> Result {
        Ok(())
    }
}

/// Registers stand-ins for as long as `dev` is bound: 512, more than a device survives.
///
/// # Errors
///
/// As for [`Region::free`] and [`PageMap::register`].
pub(crate) fn register(
    dev: &Device<Bound>,
    name: &'static CStr,
) -> Result<Arc<SleepableRevocable<Registered<StandIns>>>> {
    let region = Region::free(dev, ALIGNMENT, name)?;
    PageMap::register(dev, Kind::Private, region, Ok(StandIns(())))
}

/// Puts a stand-in in the place of page `index` of `map`, for all its users.
///
/// # Errors
///
/// `EBUSY` if something else than page tables holds the page; `ENOMEM` if there is no stand-in left.
pub(crate) fn replace<T: DeviceMemory>(
    map: BoundMap<'_, T>,
    index: usize,
    stand_ins: &SleepableRevocable<Registered<StandIns>>,
) -> Result {
    let guard = stand_ins.try_access().ok_or(ENODEV)?;
    let folio = guard.bound().allocate(0).ok_or(ENOMEM)?;
    migrate::replace_lost(map, index, folio)
}
