// SPDX-License-Identifier: GPL-2.0
//! What user space can ask for: the ioctls of `uapi`.

use super::{
    eviction,
    gpu::Gpu,
    inspection::{self, Digests, StateBuffers},
    open_device::{own_memory, svm, BoundSpace, Device},
    placement,
    svm::launch::Outcome,
};
use crate::{
    abi::{
        counter::Counter,
        fault::AccessKind,
        kernel::{Kernel, KernelWords},
        opcode::Opcode,
        regs,
    },
    kernel_ext::{
        char_device::Node,
        mm::page_range,
        uapi_bytes::{exchange, exchange_always},
    },
    uapi,
    zone_device::pagemap::{BoundMap, Kind},
};
use core::ops::Range;
use kernel::{
    new_mutex,
    page::{PAGE_SHIFT, PAGE_SIZE},
    prelude::*,
    sync::{Arc, Mutex},
    uaccess::{UserPtr, UserSlice, UserSliceWriter},
};

/// An open file of the device's node.
#[pin_data]
pub(crate) struct OpenFile {
    node: Arc<Device>,
    /// The address space that was bound through this file.
    #[pin]
    space: Mutex<Option<BoundSpace>>,
}

impl Node for Device {
    type File = OpenFile;

    fn open(node: Arc<Self>) -> Result<Arc<OpenFile>> {
        Arc::pin_init(pin_init!(OpenFile { node, space <- new_mutex!(None, "ersatz_file") }), GFP_KERNEL)
    }

    fn ioctl(file: &OpenFile, cmd: u32, arg: usize) -> Result {
        let node = &*file.node;
        match cmd {
            uapi::IOC_INFO => node.exchange(arg, fill_info),
            uapi::IOC_MIGRATE => node.exchange(arg, migrate),
            uapi::IOC_RESIDENCY => exchange(arg, |request| residency(node, request)),
            uapi::IOC_DIGEST => exchange(arg, |request| digest(node, request)),
            uapi::IOC_COUNTERS => node.exchange(arg, read_counters),
            uapi::IOC_EVICT => node.exchange(arg, evict),
            uapi::IOC_MARK => node.exchange(arg, write_mark),
            uapi::IOC_BIND => exchange(arg, |request| file.bind(request)),
            uapi::IOC_LAUNCH => exchange_always(arg, |request| file.launch(request)),
            uapi::IOC_ADVISE => exchange(arg, |request| file.advise(request)),
            uapi::IOC_EXCLUSIVE => exchange_always(arg, |request| file.make_exclusive(request)),
            _ => Err(ENOTTY),
        }
    }
}

impl OpenFile {
    fn bind(&self, request: &mut uapi::Bind) -> Result {
        if request.flags != 0 {
            return Err(EINVAL);
        }
        let task = kernel::current!();
        let mm = own_memory(task)?;
        let mut space = self.space.lock();
        if space.is_some() {
            return Err(EBUSY);
        }
        let bound = BoundSpace::bind(self.node.clone(), mm)?;
        request.asid = bound.id().asid.into();
        *space = Some(bound);
        Ok(())
    }

    fn launch(&self, request: &mut uapi::Launch) -> Result {
        let kernel = kernel_of(request)?;
        let id = self.space.lock().as_ref().map(BoundSpace::id).ok_or(EINVAL)?;
        let task = kernel::current!();
        let mm = own_memory(task)?;
        match self.node.with_map(|map| svm(map)?.launch(map, id, mm, kernel, None))? {
            Outcome::Done => Ok(()),
            Outcome::Fault { address, access, .. } => {
                request.fault_address = address;
                request.fault_access = match access {
                    AccessKind::Read | AccessKind::Prefetch => uapi::FaultAccess::Read,
                    AccessKind::Write => uapi::FaultAccess::Write,
                    AccessKind::Atomic => uapi::FaultAccess::Atomic,
                } as u32;
                Err(EFAULT)
            }
        }
    }

    fn advise(&self, request: &mut uapi::Advise) -> Result {
        let advice = match request.advice {
            advice if advice == uapi::Advice::None as u32 => uapi::Advice::None,
            advice if advice == uapi::Advice::PreferDevice as u32 => uapi::Advice::PreferDevice,
            advice if advice == uapi::Advice::PreferSystem as u32 => uapi::Advice::PreferSystem,
            advice if advice == uapi::Advice::ByAccess as u32 => uapi::Advice::ByAccess,
            advice if advice == uapi::Advice::AccessedBy as u32 => uapi::Advice::AccessedBy,
            advice if advice == uapi::Advice::ReadMostly as u32 => uapi::Advice::ReadMostly,
            _ => return Err(EINVAL),
        };
        if request.flags != 0 {
            return Err(EINVAL);
        }
        let range = page_range(request.address, request.length)?;
        let id = self.space.lock().as_ref().map(BoundSpace::id).ok_or(EINVAL)?;
        let task = kernel::current!();
        let mm = own_memory(task)?;
        self.node.with_map(|map| svm(map)?.advise(map, id, mm, range, advice))
    }

    fn make_exclusive(&self, request: &mut uapi::Exclusive) -> Result {
        let range = page_range(request.address, request.length)?;
        let id = self.space.lock().as_ref().map(BoundSpace::id).ok_or(EINVAL)?;
        let task = kernel::current!();
        let mm = own_memory(task)?;
        request.done = 0;
        self.node.with_map(|map| svm(map)?.space_of(id, mm)?.make_exclusive(map.dev(), mm, range, &mut request.done))
    }
}

/// The kernel that a request asks for, checked as the device would.
fn kernel_of(request: &uapi::Launch) -> Result<Kernel> {
    use uapi::KernelKind as Kind;
    if request.flags != 0 || request.reserved != 0 {
        return Err(EINVAL);
    }
    let opcode = match request.kernel {
        kind if kind == Kind::Read as u32 => Opcode::Read,
        kind if kind == Kind::Write as u32 => Opcode::Write,
        kind if kind == Kind::Set as u32 => Opcode::Set,
        kind if kind == Kind::Sum as u32 => Opcode::Sum,
        kind if kind == Kind::Saxpy as u32 => Opcode::Saxpy,
        kind if kind == Kind::AtomicAdd as u32 => Opcode::AtomicAdd,
        kind if kind == Kind::CompareAndSwap as u32 => Opcode::CompareAndSwap,
        kind if kind == Kind::Chase as u32 => Opcode::Chase,
        kind if kind == Kind::RandomUpdate as u32 => Opcode::RandomUpdate,
        kind if kind == Kind::Copy as u32 => Opcode::KernelCopy,
        _ => return Err(EINVAL),
    };
    let &uapi::Launch { first, value, second, count, result, .. } = request;
    match Kernel::decode(opcode, &KernelWords { first, value, second, count, result }) {
        Some(Ok(kernel)) => Ok(kernel),
        _ => Err(EINVAL),
    }
}

fn array<T>(pointer: u64, range: &Range<usize>) -> Result<UserSliceWriter> {
    let length = (range.len() >> PAGE_SHIFT).checked_mul(size_of::<T>()).ok_or(EINVAL)?;
    Ok(UserSlice::new(UserPtr::from_addr(usize::try_from(pointer)?), length).writer())
}

fn fill_info(map: BoundMap<'_, Gpu>, info: &mut uapi::Info) -> Result {
    let gpu = map.memory();
    *info = uapi::Info {
        abi_version: gpu.identity.abi_version,
        memory_type: match map.kind() {
            Kind::Private => uapi::MemoryType::Private,
            Kind::Coherent => uapi::MemoryType::Coherent,
        } as u32,
        vram_bytes: (map.pages() * PAGE_SIZE) as u64,
        vram_free: (map.free_pages() * PAGE_SIZE) as u64,
        cpu_faults: gpu.faults.answered(),
        cpu_faults_failed: gpu.faults.failed(),
        pci_address: gpu.identity.pci_address,
        reserved: 0,
    };
    Ok(())
}

fn migrate(map: BoundMap<'_, Gpu>, request: &mut uapi::Migrate) -> Result {
    let direction = match request.direction {
        direction if direction == uapi::Direction::ToDevice as u32 => uapi::Direction::ToDevice,
        direction if direction == uapi::Direction::ToSystem as u32 => uapi::Direction::ToSystem,
        _ => return Err(EINVAL),
    };
    if request.flags != 0 {
        return Err(EINVAL);
    }
    let range = page_range(request.address, request.length)?;
    let outcome = placement::migrate(map, own_memory(kernel::current!())?, range, direction)?;
    (request.moved, request.left) = (outcome.moved, outcome.left);
    Ok(())
}

/// Batch by batch: between them, where user memory is written, the device can go.
fn residency(node: &Device, request: &mut uapi::Residency) -> Result {
    let mut rest = page_range(request.address, request.length)?;
    let mut user = array::<u8>(request.states, &rest)?;
    let task = kernel::current!();
    let mm = own_memory(task)?;
    let mut buffers = StateBuffers::new()?;
    while !rest.is_empty() {
        let states = node.with_map(|map| inspection::first_states(map, mm, &rest, &mut buffers))?;
        user.write_slice(states)?;
        rest.start += states.len() << PAGE_SHIFT;
    }
    Ok(())
}

/// As for [`residency`].
fn digest(node: &Device, request: &mut uapi::Digest) -> Result {
    let mut rest = page_range(request.address, request.length)?;
    let mut user = array::<u64>(request.digests, &rest)?;
    let task = kernel::current!();
    let mm = own_memory(task)?;
    let mut digests = Digests::new()?;
    request.in_vram = 0;
    while !rest.is_empty() {
        let (values, in_vram) = node.with_map(|map| digests.of_first(map, mm, &rest))?;
        for value in values {
            user.write(value)?;
        }
        rest.start += values.len() << PAGE_SHIFT;
        request.in_vram += in_vram;
    }
    Ok(())
}

fn read_counters(map: BoundMap<'_, Gpu>, counters: &mut uapi::Counters) -> Result {
    let registers = &map.memory().registers;
    *counters = uapi::Counters::default();
    for &counter in Counter::ALL {
        let value = registers.read_counter(counter as u8)?;
        *counters.values.get_mut(counter as usize).ok_or(EINVAL)? = value;
    }
    registers.confirm()
}

fn write_mark(map: BoundMap<'_, Gpu>, mark: &mut uapi::Mark) -> Result {
    let registers = &map.memory().registers;
    registers.write(regs::MARK, mark.value)?;
    registers.confirm()
}

fn evict(map: BoundMap<'_, Gpu>, request: &mut uapi::Evict) -> Result {
    request.moved = eviction::evict(map)? as u64;
    request.left = map.pages_in_use() as u64;
    Ok(())
}
