// SPDX-License-Identifier: GPL-2.0
//! Mappings of the device that outlast the moves of what they map.
//!
//! Memory that moves takes its mappings with it: the memory manager has the device forget them first. Where a process wants the device's
//! access to last, whoever has moved the memory maps it again, before a CPU or the device can ask for it. What others have moved (eviction for
//! another process, the kernel itself) is mapped again when the process launches a kernel, or at the device's fault.

use super::space::Space;
use crate::{
    kernel_ext::{
        mm::{LockedVma, Vmas},
        signal,
    },
    zone_device::{
        folio::HUGE_SIZE,
        interval_notifier::WALK_PAGES,
        pagemap::{BoundMap, DeviceMemory},
    },
};
use core::ops::Range;
use kernel::{
    mm::MmWithUser,
    new_mutex,
    prelude::*,
    sync::{
        atomic::{ordering, Atomic},
        Arc, Mutex,
    },
};

/// Pieces of up to 2 MiB that are mapped before the mm is unlocked for a moment.
const PIECES_PER_LOCK: usize = 16;

/// The address spaces with memory that the device is to have mapped.
#[pin_data]
pub(crate) struct Lasting {
    #[pin]
    spaces: Mutex<KVec<Arc<Space>>>,
    /// Number of them, to be looked at without the lock.
    count: Atomic<u64>,
}

impl Lasting {
    /// There are none.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self { spaces <- new_mutex!(KVec::new(), "ersatz_lasting"), count: Atomic::new(0) })
    }

    /// Adds an address space, unless it is there.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn add(&self, space: &Arc<Space>) -> Result {
        let mut spaces = self.spaces.lock();
        if !spaces.iter().any(|other| Arc::ptr_eq(other, space)) {
            spaces.push(space.clone(), GFP_KERNEL)?;
            self.count.store(spaces.len() as u64, ordering::Relaxed);
        }
        Ok(())
    }

    /// Takes an address space out. Nothing is mapped in it any more when this returns.
    pub(crate) fn remove(&self, space: &Space) {
        let mut spaces = self.spaces.lock();
        let place = spaces.iter().position(|other| core::ptr::eq(&**other, space));
        let removed = place.and_then(|place| spaces.remove(place).ok());
        self.count.store(spaces.len() as u64, ordering::Relaxed);
        drop(spaces);
        // Not under the lock: it may be the last reference.
        drop(removed);
    }

    /// Maps again what of a range of a mapping the calling thread has moved. What cannot be mapped now is left to a fault of the device.
    pub(crate) fn follow<M: DeviceMemory>(&self, map: BoundMap<'_, M>, vma: LockedVma<'_>, range: Range<usize>) {
        if self.count.load(ordering::Relaxed) == 0 {
            return;
        }
        let spaces = self.spaces.lock();
        for space in spaces.iter().filter(|space| space.is_of(vma.mm())) {
            let pfns = KVec::from_elem(0, WALK_PAGES, GFP_KERNEL).map_err(Error::from);
            let _ = pfns.and_then(|mut pfns| space.map_lasting(map, vma, range.clone(), &mut pfns));
        }
    }
}

/// Maps what is present of a range of `mm`, the current process's, that the device is to have mapped in an address space that mirrors it.
///
/// # Errors
///
/// `ENOMEM`; `EINTR` if the process is being killed. What was mapped by then is.
pub(crate) fn map_present<M: DeviceMemory>(
    map: BoundMap<'_, M>,
    mm: &MmWithUser,
    space: &Space,
    range: Range<usize>,
) -> Result {
    let mut pfns = KVec::from_elem(0, WALK_PAGES, GFP_KERNEL)?;
    let mut rest = range;
    while let Some(wanted) = space.first_lasting(&rest).map(|advised| advised.range) {
        if signal::is_fatal_pending() {
            return Err(EINTR);
        }
        rest.start = wanted.start;
        let vmas = Vmas::lock(mm);
        for _ in 0..PIECES_PER_LOCK {
            let Some((vma, part)) = vmas.first_in(rest.start..wanted.end) else {
                rest.start = wanted.end;
                break;
            };
            let end = (part.start / HUGE_SIZE + 1).saturating_mul(HUGE_SIZE).min(part.end);
            match space.map_lasting(map, vma, part.start..end, &mut pfns) {
                Err(error) if error == ENOMEM => return Err(ENOMEM),
                // What does not hold still, or is not handed out, is left to a fault.
                _ => rest.start = end,
            }
        }
    }
    Ok(())
}
