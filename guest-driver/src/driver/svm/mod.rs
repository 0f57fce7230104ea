// SPDX-License-Identifier: GPL-2.0
//! Shared virtual memory: kernels of the compute engines over the addresses of a process.
//!
//! - [`invalidator`]: making the engines' TLBs forget.
//! - [`page_tables`]: the device's page tables of an address space.
//! - [`space`]: a process's address space, mirrored.
//! - [`advice`] and [`damping`]: where the process wants its memory, and how often that moves there.
//! - [`lasting`]: mappings that are made again when what they map has moved.
//! - [`notification_ring`]: a ring of what the device reports.
//! - [`fault_buffer`]: the faults that it reports.
//! - [`access_counters`]: the memory that it reports to access often.
//! - [`compute_channel`]: a channel that runs one kernel at a time.
//! - [`launch`]: running a kernel, and answering its faults.
//!
//! Faults are answered by the thread that launched the kernel: it belongs to the process, so the process's memory is there. A thread that
//! finds other channels' records in the fault buffer keeps them for those channels. It also moves memory to where the process wants it: at a
//! fault, or when the device has accessed it often.
//!
//! # Locks
//!
//! From the outside in:
//!
//! 1. The table of address spaces (`ersatz_spaces`).
//! 2. The mm.
//! 3. The list of address spaces whose mappings last (`ersatz_lasting`).
//! 4. The address space's (`ersatz_mirrored`): its page tables. The memory manager takes it for invalidations, so nothing is allocated
//!    under it in ways that reclaim.
//! 5. The invalidator's: the registers of invalidation, until a number is taken.
//!
//! An address space's advice has a lock of its own, with none of these inside; the list of idle channels, the fault buffer and the access
//! counters have theirs, with none of these inside or outside.

pub(crate) mod access_counters;
pub(crate) mod advice;
pub(crate) mod compute_channel;
pub(crate) mod damping;
pub(crate) mod fault_buffer;
pub(crate) mod invalidator;
pub(crate) mod lasting;
pub(crate) mod launch;
pub(crate) mod notification_ring;
pub(crate) mod page_tables;
pub(crate) mod space;

use self::{
    access_counters::AccessCounters,
    advice::is_lasting,
    compute_channel::ComputeChannel,
    fault_buffer::FaultBuffer,
    invalidator::Invalidator,
    lasting::{map_present, Lasting},
    space::{Space, SpaceId},
};
use super::registers::Registers;
use crate::{
    abi::{
        mmu::ADDRESS_SPACES,
        regs::{self, Configuration, MmuConfiguration},
    },
    kernel_ext::{interrupt::Handler, wait::WaitQueue},
    uapi::Advice,
    zone_device::pagemap::{BoundMap, DeviceMemory},
};
use core::ops::Range;
use kernel::{
    device::{Bound, Device},
    mm::MmWithUser,
    new_condvar, new_mutex, pci,
    prelude::*,
    sync::{
        atomic::{ordering, Atomic},
        Arc, CondVar, Mutex,
    },
};

/// Most channels that kernels run on at once.
pub(crate) const MAX_CHANNELS: usize = 4;

/// The part of a device that works by virtual addresses.
#[pin_data]
pub(crate) struct Svm {
    registers: Arc<Registers>,
    invalidator: Arc<Invalidator>,
    channels: KVec<ComputeChannel>,
    /// The channels that run nothing.
    #[pin]
    idle: Mutex<KVec<usize>>,
    #[pin]
    returned: CondVar,
    /// The address spaces, by ASID. That of number zero is nobody's: it is what channels have that use none.
    #[pin]
    spaces: Mutex<KVec<Option<Arc<Space>>>>,
    #[pin]
    faults: FaultBuffer,
    #[pin]
    accesses: AccessCounters,
    #[pin]
    pub(crate) lasting: Lasting,
    /// Number of address spaces that were ever bound.
    bound: Atomic<u64>,
    #[pin]
    waiters: WaitQueue,
    /// Counts interrupts.
    events: Atomic<u64>,
}

impl Svm {
    /// Takes up to [`MAX_CHANNELS`] channels from number `first_channel` on, all of which raise interrupt vector `vector`. `None` if the device
    /// has no channels left, or no compute engine.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `ENODEV` if the registers cannot be read.
    pub(crate) fn new(
        pdev: &pci::Device<Bound>,
        registers: Arc<Registers>,
        first_channel: u32,
        vector: u16,
    ) -> Result<Option<Arc<Self>>> {
        let dev: &Device<Bound> = pdev.as_ref();
        let configuration = Configuration(registers.read(regs::CONFIGURATION)? as u32);
        let mmu = MmuConfiguration(registers.read(regs::MMU_CONFIGURATION)? as u32);
        let engines = mmu.compute_engines();
        let count = configuration.channels().saturating_sub(first_channel).min(MAX_CHANNELS as u32);
        if engines == 0 || count == 0 || mmu.address_spaces() < 2 {
            return Ok(None);
        }
        let (mut channels, mut idle) = (KVec::new(), KVec::new());
        let mut engine = 0;
        for index in 0..count {
            let channel = ComputeChannel::new(
                dev,
                registers.clone(),
                first_channel + index,
                configuration.copy_engines() + engine,
                vector,
            )?;
            channels.push(channel, GFP_KERNEL)?;
            idle.push(index as usize, GFP_KERNEL)?;
            engine = if engine + 1 < engines { engine + 1 } else { 0 };
        }
        let mut spaces = KVec::new();
        for _ in 0..mmu.address_spaces().min(ADDRESS_SPACES) {
            spaces.push(None, GFP_KERNEL)?;
        }
        let svm = Arc::pin_init(
            try_pin_init!(Self {
                invalidator: Invalidator::new(pdev, registers.clone())?,
                channels,
                idle <- new_mutex!(idle, "ersatz_idle_channels"),
                returned <- new_condvar!("ersatz_channel_returned"),
                spaces <- new_mutex!(spaces, "ersatz_spaces"),
                faults <- FaultBuffer::new(dev, registers.clone(), first_channel, vector)?,
                accesses <- AccessCounters::new(dev, registers.clone(), vector)?,
                lasting <- Lasting::new(),
                bound: Atomic::new(0),
                waiters <- WaitQueue::new(),
                events: Atomic::new(0),
                registers,
            }),
            GFP_KERNEL,
        )?;
        Ok(Some(svm))
    }

    /// Makes the address space of `mm` the device's.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `ENOSPC` if there are no more address spaces; `EIO` if the device is beyond recovery.
    pub(crate) fn bind(&self, dev: &Device<Bound>, mm: &MmWithUser) -> Result<SpaceId> {
        if self.invalidator.is_lost() {
            return Err(EIO);
        }
        let mut spaces = self.spaces.lock();
        let (asid, slot) = spaces.iter_mut().enumerate().skip(1).find(|(_, slot)| slot.is_none()).ok_or(ENOSPC)?;
        let id = SpaceId { asid: u8::try_from(asid)?, serial: self.bound.fetch_add(1, ordering::Relaxed) };
        let space = Space::new(dev, mm, id, self.registers.clone(), self.invalidator.clone())?;
        // Closing undoes what enabling may have done.
        space.enable().inspect_err(|_| space.close())?;
        *slot = Some(space);
        Ok(id)
    }

    /// The address space that was bound by a number, unless it has ended.
    fn space(&self, id: SpaceId) -> Option<Arc<Space>> {
        let spaces = self.spaces.lock();
        spaces.get(usize::from(id.asid))?.as_ref().filter(|space| space.id() == id).cloned()
    }

    /// The address space that was bound by a number, which must be that of `mm`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it has ended; `EPERM` if it is another process's.
    pub(crate) fn space_of(&self, id: SpaceId, mm: &MmWithUser) -> Result<Arc<Space>> {
        self.space(id).ok_or(EINVAL).and_then(|space| if space.is_of(mm) { Ok(space) } else { Err(EPERM) })
    }

    /// Notes where the process `mm` wants the memory of a page-aligned range, and maps what the device is to have mapped.
    ///
    /// # Errors
    ///
    /// As [`Svm::space_of`]; `EFAULT` for addresses that are not mirrored; `ENOSPC` if there is too much advice; `ENOMEM`; `EIO` if the
    /// device does not count accesses; `EINTR` if the process is being killed.
    pub(crate) fn advise<M: DeviceMemory>(
        &self,
        map: BoundMap<'_, M>,
        id: SpaceId,
        mm: &MmWithUser,
        range: Range<usize>,
        advice: Advice,
    ) -> Result {
        let space = self.space_of(id, mm)?;
        space.advise(range.clone(), advice)?;
        match advice {
            Advice::ByAccess => self.accesses.enable(id.asid),
            advice if is_lasting(advice) => {
                self.lasting.add(&space)?;
                map_present(map, mm, &space, range)
            }
            _ => Ok(()),
        }
    }

    /// Ends an address space. Nothing may run in it any more.
    pub(crate) fn unbind(&self, id: SpaceId) {
        let space = {
            let mut spaces = self.spaces.lock();
            let slot = spaces.get_mut(usize::from(id.asid));
            slot.filter(|slot| slot.as_ref().is_some_and(|space| space.id() == id)).and_then(Option::take)
        };
        if let Some(space) = space {
            self.close(&space);
        }
    }

    fn close(&self, space: &Space) {
        self.lasting.remove(space);
        space.close();
        // A device that does not answer counts nothing.
        let _ = self.accesses.disable(space.id().asid);
    }

    /// Ends all address spaces, before the device is left. Nothing may run any more.
    pub(crate) fn unbind_all(&self) {
        let count = self.spaces.lock().len();
        for asid in 0..count {
            let space = self.spaces.lock().get_mut(asid).and_then(Option::take);
            if let Some(space) = space {
                self.close(&space);
            }
        }
    }
}

/// The interrupt of the compute channels, of the fault buffer and of the access counters.
pub(crate) struct SvmInterrupt {
    pub(crate) svm: Arc<Svm>,
}

impl Handler for SvmInterrupt {
    fn handle(&self) {
        self.svm.events.fetch_add(1, ordering::Release);
        self.svm.waiters.wake_all();
    }
}
