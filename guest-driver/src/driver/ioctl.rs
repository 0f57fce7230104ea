// SPDX-License-Identifier: GPL-2.0
//! What user space can ask for: the ioctls of `uapi`.

use super::{eviction, gpu::Gpu, inspection, placement};
use crate::{
    abi::{command::Cause, counter::Counter, regs},
    kernel_ext::{
        char_device::Node,
        revocable::{RevocableGuard, SleepableRevocable},
    },
    uapi,
    zone_device::pagemap::{Kind, Registered},
};
use core::ops::Range;
use kernel::{
    mm::MmWithUser,
    page::{PAGE_MASK, PAGE_SHIFT, PAGE_SIZE},
    prelude::*,
    task::CurrentTask,
    transmute::{AsBytes, FromBytes},
    uaccess::{UserPtr, UserSlice, UserSliceWriter},
};

/// The device's memory, for the time of one ioctl.
type Vram<'a> = RevocableGuard<'a, Registered<Gpu>>;

impl Node for SleepableRevocable<Registered<Gpu>> {
    fn ioctl(&self, cmd: u32, arg: usize) -> Result {
        let vram = self.try_access().ok_or(ENODEV)?;
        match cmd {
            uapi::IOC_INFO => exchange(arg, |info| fill_info(&vram, info)),
            uapi::IOC_MIGRATE => exchange(arg, |request| migrate(&vram, request)),
            uapi::IOC_RESIDENCY => exchange(arg, |request| residency(&vram, request)),
            uapi::IOC_DIGEST => exchange(arg, |request| digest(&vram, request)),
            uapi::IOC_COUNTERS => exchange(arg, |counters| read_counters(&vram, counters)),
            uapi::IOC_EVICT => exchange(arg, |request| evict(&vram, request)),
            uapi::IOC_MARK => exchange(arg, |mark| write_mark(&vram, mark)),
            _ => Err(ENOTTY),
        }
    }
}

/// Reads the ioctl's structure, has it answered, and writes it back.
fn exchange<T: AsBytes + FromBytes>(arg: usize, answer: impl FnOnce(&mut T) -> Result) -> Result {
    let (mut reader, mut writer) = UserSlice::new(UserPtr::from_addr(arg), size_of::<T>()).reader_writer();
    // The largest structure is half a kilobyte.
    let mut value = reader.read::<T>()?;
    answer(&mut value)?;
    writer.write(&value)
}

fn page_range(address: u64, length: u64) -> Result<Range<usize>> {
    let (start, length) = (usize::try_from(address)?, usize::try_from(length)?);
    let end = start.checked_add(length).ok_or(EINVAL)?;
    if length == 0 || (start | end) & !PAGE_MASK != 0 {
        return Err(EINVAL);
    }
    Ok(start..end)
}

fn array<T>(pointer: u64, range: &Range<usize>) -> Result<UserSliceWriter> {
    let length = (range.len() >> PAGE_SHIFT).checked_mul(size_of::<T>()).ok_or(EINVAL)?;
    Ok(UserSlice::new(UserPtr::from_addr(usize::try_from(pointer)?), length).writer())
}

/// The memory of the calling process, which kernel threads do not have.
fn own_memory(task: &CurrentTask) -> Result<&MmWithUser> {
    task.mm().ok_or(EINVAL)
}

fn fill_info(vram: &Vram<'_>, info: &mut uapi::Info) -> Result {
    let gpu = vram.memory();
    *info = uapi::Info {
        abi_version: gpu.identity.abi_version,
        memory_type: match vram.kind() {
            Kind::Private => uapi::MemoryType::Private,
            Kind::Coherent => uapi::MemoryType::Coherent,
        } as u32,
        vram_bytes: (vram.free_pages().len() * PAGE_SIZE) as u64,
        vram_free: (vram.free_pages().free() * PAGE_SIZE) as u64,
        cpu_faults: gpu.faults.answered(),
        cpu_faults_failed: gpu.faults.failed(),
        pci_address: gpu.identity.pci_address,
        reserved: 0,
    };
    Ok(())
}

fn migrate(vram: &Vram<'_>, request: &mut uapi::Migrate) -> Result {
    let direction = match request.direction {
        direction if direction == uapi::Direction::ToDevice as u32 => uapi::Direction::ToDevice,
        direction if direction == uapi::Direction::ToSystem as u32 => uapi::Direction::ToSystem,
        _ => return Err(EINVAL),
    };
    if request.flags != 0 {
        return Err(EINVAL);
    }
    let range = page_range(request.address, request.length)?;
    let outcome = placement::migrate(vram, vram.dev(), own_memory(kernel::current!())?, range, direction)?;
    (request.moved, request.left) = (outcome.moved, outcome.left);
    Ok(())
}

fn residency(vram: &Vram<'_>, request: &mut uapi::Residency) -> Result {
    let range = page_range(request.address, request.length)?;
    let mut states = array::<u8>(request.states, &range)?;
    inspection::residency(vram, own_memory(kernel::current!())?, range, &mut states)
}

fn digest(vram: &Vram<'_>, request: &mut uapi::Digest) -> Result {
    let range = page_range(request.address, request.length)?;
    let mut digests = array::<u64>(request.digests, &range)?;
    request.in_vram = inspection::digest(vram, vram.dev(), own_memory(kernel::current!())?, range, &mut digests)?;
    Ok(())
}

fn read_counters(vram: &Vram<'_>, counters: &mut uapi::Counters) -> Result {
    let registers = &vram.memory().registers;
    *counters = uapi::Counters::default();
    for &counter in Counter::ALL {
        let value = registers.read_counter(counter as u8)?;
        *counters.values.get_mut(counter as usize).ok_or(EINVAL)? = value;
    }
    registers.confirm()
}

fn write_mark(vram: &Vram<'_>, mark: &mut uapi::Mark) -> Result {
    let registers = &vram.memory().registers;
    registers.write(regs::MARK, mark.value)?;
    registers.confirm()
}

fn evict(vram: &Vram<'_>, request: &mut uapi::Evict) -> Result {
    request.moved = eviction::evict(vram, vram.dev(), Cause::Evict)? as u64;
    request.left = eviction::pages_in_use(vram) as u64;
    Ok(())
}
