// SPDX-License-Identifier: GPL-2.0
//! `/dev/hmm_dmirrorN`: the ioctls of the kernel's test driver for HMM, done by this driver's own means, so that the kernel's tests run
//! against it.
//!
//! - Reads and writes are copies by a compute engine in the process's address space; its page faults are answered as those of any kernel.
//! - Migrations are those of [`placement`](super::placement).
//! - [`snapshot`]: what each page is.

mod snapshot;

use super::{
    eviction,
    gpu::Gpu,
    inspection,
    number::{Number, Numbers},
    open_device::{own_memory, svm, BoundSpace, Device},
    placement,
    svm::launch::{Around, Outcome},
};
use crate::{
    abi::kernel::Kernel,
    kernel_ext::{char_device::Node, mm::Vmas, signal, uapi_bytes::exchange},
    uapi::{
        dmirror::{self, Command},
        Direction,
    },
    zone_device::{
        drain::drain_cpu_lists,
        pagemap::{BoundMap, Kind},
    },
};
use core::ops::Range;
use kernel::{
    mm::{
        virt::{flags, VmaNew},
        MmWithUser,
    },
    page::{Page, PAGE_MASK, PAGE_SIZE},
    prelude::*,
    sync::Arc,
    uaccess::{UserPtr, UserSlice},
};

/// Most bytes of a mapping of the file: its pages are nobody's to account for, and the kernel's tests need one.
const MAX_MAPPING: usize = 256 * PAGE_SIZE;

/// How often pages are asked to go to the device.
const ATTEMPTS: u32 = 3;

static NUMBERS: Numbers = Numbers::new();

/// Takes N for a device with memory of some type: 0 or 1 for private memory, 2 or 3 for coherent, as the kernel's tests expect.
///
/// # Errors
///
/// `ENOSPC` if there are two of its type already.
pub(crate) fn take_number(kind: Kind) -> Result<Number> {
    NUMBERS.take(match kind {
        Kind::Private => 0..2,
        Kind::Coherent => 2..4,
    })
}

/// A node.
pub(crate) struct Mirror {
    device: Arc<Device>,
}

/// An open file of it. The address space of the process that opened it is the device's.
pub(crate) struct MirrorFile {
    device: Arc<Device>,
    space: BoundSpace,
}

impl Mirror {
    /// A node for a device.
    pub(crate) fn new(device: Arc<Device>) -> Self {
        Self { device }
    }
}

impl Node for Mirror {
    type File = MirrorFile;

    fn open(node: Arc<Self>) -> Result<Arc<MirrorFile>> {
        let device = node.device.clone();
        let space = BoundSpace::bind(device.clone(), own_memory(kernel::current!())?)?;
        Ok(Arc::new(MirrorFile { device, space }, GFP_KERNEL)?)
    }

    fn ioctl(file: &MirrorFile, cmd: u32, arg: usize) -> Result {
        exchange(arg, |command: &mut Command| {
            let range = range_of(command)?;
            (command.done, command.faults) = (0, 0);
            file.perform(cmd, command, range)
        })
    }

    /// Fills the mapping with pages of zeros.
    fn mmap(_file: &MirrorFile, vma: &VmaNew) -> Result {
        if vma.end() - vma.start() > MAX_MAPPING {
            return Err(EINVAL);
        }
        let mixed = vma.set_mixedmap();
        for address in (vma.start()..vma.end()).step_by(PAGE_SIZE) {
            let page = Page::alloc_page(GFP_KERNEL | __GFP_ZERO)?;
            mixed.vm_insert_page(address, &page)?;
        }
        Ok(())
    }
}

/// The pages of a command.
fn range_of(command: &Command) -> Result<Range<usize>> {
    let start = usize::try_from(command.address)?;
    let length = usize::try_from(command.pages)?.checked_mul(PAGE_SIZE).ok_or(EINVAL)?;
    let end = start.checked_add(length).ok_or(EINVAL)?;
    if length == 0 || start & !PAGE_MASK != 0 {
        return Err(EINVAL);
    }
    Ok(start..end)
}

impl MirrorFile {
    fn perform(&self, cmd: u32, command: &mut Command, range: Range<usize>) -> Result {
        let task = kernel::current!();
        let mm = own_memory(task)?;
        match cmd {
            dmirror::IOC_READ => self.copy(mm, command, range, false),
            dmirror::IOC_WRITE => self.copy(mm, command, range, true),
            dmirror::IOC_READ_UNLOCKED => {
                fault_in(range.clone())?;
                self.copy(mm, command, range, false)
            }
            dmirror::IOC_MIGRATE_TO_DEVICE => self.to_device(mm, command, range),
            dmirror::IOC_MIGRATE_TO_SYSTEM => {
                check_readable(mm, range.clone())?;
                let outcome = self.device.with_map(|map| placement::migrate(map, mm, range, Direction::ToSystem))?;
                command.done = outcome.moved;
                Ok(())
            }
            dmirror::IOC_SNAPSHOT => snapshot::write(&self.device, mm, command, range),
            dmirror::IOC_EXCLUSIVE => self.make_exclusive(mm, command, range),
            dmirror::IOC_CHECK_EXCLUSIVE => self.device.with_map(|map| {
                let space = svm(map)?.space_of(self.space.id(), mm)?;
                if space.has_exclusive(range) {
                    Err(EPERM)
                } else {
                    Ok(())
                }
            }),
            dmirror::IOC_RELEASE => self.device.with_map(|map| eviction::evict(map).map(drop)),
            dmirror::IOC_FLAGS => self.device.with_map(|map| {
                let fails = command.pages & dmirror::FLAG_FAIL_ALLOCATION != 0;
                map.memory().failing_allocation.set(fails);
                Ok(())
            }),
            _ => Err(EINVAL),
        }
    }

    /// Copies the pages to the command's pointer by a compute engine, or with `write` the other way. The first fault on a page maps all pages.
    fn copy(&self, mm: &MmWithUser, command: &mut Command, range: Range<usize>, write: bool) -> Result {
        let (pages, length) = (command.address, range.len() as u64);
        let (source, destination) = if write { (command.pointer, pages) } else { (pages, command.pointer) };
        let kernel = Kernel::Copy { source, destination, length };
        // As the device would refuse it.
        if !matches!(Kernel::decode(kernel.opcode(), &kernel.encode()), Some(Ok(_))) {
            return Err(EINVAL);
        }
        let mut around = Around { range, faults: 0 };
        let outcome =
            self.device.with_map(|map| svm(map)?.launch(map, self.space.id(), mm, kernel, Some(&mut around)))?;
        match outcome {
            Outcome::Done => {
                (command.done, command.faults) = (command.pages, around.faults);
                Ok(())
            }
            Outcome::Fault { error, .. } => Err(error),
        }
    }

    /// Moves the pages to the device, and copies their content to the command's pointer.
    fn to_device(&self, mm: &MmWithUser, command: &mut Command, range: Range<usize>) -> Result {
        check_readable(mm, range.clone())?;
        self.device.with_map(|map| {
            for attempt in 0..ATTEMPTS {
                if attempt > 0 {
                    // The thread may have filled the pages on another CPU, whose lists hold them.
                    drain_cpu_lists()?;
                }
                placement::migrate(map, mm, range.clone(), Direction::ToDevice)?;
                if inspection::count(map, mm, range.clone(), Direction::ToDevice)? == range.len() / PAGE_SIZE {
                    return Ok(());
                }
            }
            Err(ENOENT)
        })?;
        self.copy(mm, command, range, false)?;
        command.faults = 0;
        Ok(())
    }

    /// Gives the device exclusive access, and copies the content to the command's pointer.
    fn make_exclusive(&self, mm: &MmWithUser, command: &mut Command, range: Range<usize>) -> Result {
        self.device.with_map(|map| {
            let space = svm(map)?.space_of(self.space.id(), mm)?;
            space.make_exclusive(map.dev(), mm, range.clone(), &mut command.done)
        })?;
        self.copy(mm, command, range, false)?;
        command.faults = 0;
        Ok(())
    }
}

/// Faults pages in as the calling thread does, which no lock is held for: that can take as long as another process likes.
fn fault_in(range: Range<usize>) -> Result {
    for address in range.step_by(PAGE_SIZE) {
        if signal::is_pending() {
            return Err(EINTR);
        }
        UserSlice::new(UserPtr::from_addr(address), 1).reader().read::<u8>()?;
    }
    Ok(())
}

/// Whether all of a range is mapped and readable, `EINVAL` if not.
fn check_readable(mm: &MmWithUser, range: Range<usize>) -> Result {
    let vmas = Vmas::lock(mm);
    let mut rest = range;
    while !rest.is_empty() {
        let (vma, part) = vmas.first_in(rest.clone()).ok_or(EINVAL)?;
        if part.start != rest.start || vma.flags() & flags::READ == 0 {
            return Err(EINVAL);
        }
        rest.start = part.end;
    }
    Ok(())
}
