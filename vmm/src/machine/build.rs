// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Puts a machine together. The order matters to KVM: memory, interrupt controllers, then vCPUs.

use std::sync::Arc;

use ersatz_device_model::dma::MappedSpace;
use kvm_bindings::{KVM_PIT_SPEAKER_DUMMY, kvm_pit_config, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, Kvm, VmFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::boot::{self, Entry, LinuxImage};
use super::config::{CODE_ADDRESS, Console, FunctionFactory, MachineConfig, Payload};
use super::error::MachineError;
use super::events::Ending;
use super::exits::ExitCounters;
use super::handle::MachineHandle;
use super::interrupts::Interrupts;
use super::kvm_error::KvmError;
use super::layout::{FOUR_GIB, IDENTITY_MAP_PAGE, Layout, TASK_STATE_PAGES};
use super::pci::{
    ConnectedFunction, MAX_SLOTS, MIN_SLOTS, MachineParts, MemorySlots, PciBus, PciError, PciSlots, Topology,
};
use super::platform::{Platform, SERIAL_GSI};
use super::serial::SerialPort;
use super::vcpu::group::VcpuGroup;
use super::vcpu::{self, HostCpuid, Vcpu};
use super::{Machine, acpi, memory, pci};

/// Most vCPUs: their numbers are APIC ids of 8 bits, of which 255 means all.
const MAX_VCPUS: usize = 254;

/// What the machine cannot do without.
const NEEDED: [(Cap, &str); 5] = [
    (Cap::UserMemory, "guest memory that user space provides"),
    (Cap::Irqchip, "in-kernel interrupt controllers"),
    (Cap::Irqfd, "interrupts by eventfd"),
    (Cap::Ioeventfd, "doorbells by eventfd"),
    (Cap::IrqRouting, "interrupt routing"),
];

/// Builds a machine; see [`Machine::new`].
pub fn build(
    config: &MachineConfig,
    functions: Vec<FunctionFactory>,
    spare_slots: usize,
    console: Console,
) -> Result<Machine, MachineError> {
    let kvm = Kvm::new().map_err(KvmError::Open)?;
    if let Some((_, what)) = NEEDED.iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
        return Err(KvmError::Lacks(what).into());
    }
    let max = kvm.get_max_vcpus().min(MAX_VCPUS);
    if config.vcpus == 0 || usize::from(config.vcpus) > max {
        return Err(MachineError::Vcpus { asked: config.vcpus, max });
    }
    let cpuid = HostCpuid::read(&kvm)?;
    let layout = Layout::new(config.memory, cpuid.physical_bits())?;
    let memory = memory::allocate(&layout)?;
    let vm = create_vm(&kvm)?;
    let first_free = add_memory(&vm, &memory)?;
    let interrupts = Arc::new(Interrupts::new(Arc::clone(&vm))?);

    let serial = serial_port(&vm, console.output)?;
    let dma = Arc::new(MappedSpace::from_memory(&memory)?);
    let vcpu_group = VcpuGroup::new(config.vcpus);
    let parts = MachineParts { vm: Arc::clone(&vm), dma: Arc::clone(&dma), vcpus: vcpu_group.clone() };
    let functions = make_functions(functions, &parts)?;
    let bars: Vec<_> = functions.iter().map(|connected| connected.function.bars()).collect();
    let topology = Topology::plan(&layout, &bars, MIN_SLOTS + spare_slots)?;
    let memory_slots = MemorySlots::new(Arc::clone(&vm), first_free, dma);
    let bus = Arc::new(PciBus::new(&topology, interrupts, functions, memory_slots, parts)?);
    let slots = PciSlots::new(&bus);
    let ready = Arc::new(EventFd::new(EFD_NONBLOCK).map_err(MachineError::system("make an eventfd"))?);
    let platform = Arc::new(Platform::new(Arc::clone(&serial), Arc::clone(&bus), Arc::clone(&ready), memory.clone()));

    let (entry, mapped) = load(&config.payload, &memory, &layout)?;
    acpi::write_tables(&memory, &topology.layout, topology.last_bus(), config.vcpus)?;
    vcpu::write_descriptors(&memory).map_err(MachineError::Descriptors)?;
    boot::write_reset_vector(&memory).map_err(MachineError::ResetVector)?;
    let cr3 = boot::identity_map(&memory, mapped)?;

    let exits = Arc::new(ExitCounters::default());
    let mut vcpus = Vec::with_capacity(config.vcpus.into());
    for (control, number) in vcpu_group.iter().zip(0..) {
        let fd = vm.create_vcpu(number.into()).map_err(KvmError::doing("creating a vCPU"))?;
        fd.set_cpuid2(&cpuid.for_vcpu(number, config.vcpus)?).map_err(KvmError::doing("setting a vCPU's features"))?;
        vcpu::set_msrs(&fd)?;
        if number == 0 {
            // The others wait for the boot CPU to start them.
            vcpu::set_boot_state(&fd, entry, cr3)?;
        }
        vcpus.push(Vcpu {
            number,
            fd,
            control: Arc::clone(control),
            exits: Arc::clone(&exits),
            platform: Arc::clone(&platform),
        });
    }
    let ending = Ending::new().map_err(MachineError::system("make an eventfd"))?;
    Ok(Machine {
        handle: MachineHandle { exits, ending: Arc::new(ending), vcpus: vcpu_group, slots, ready },
        vcpus,
        serial,
        pci: bus,
        console_input: console.input,
    })
}

/// A VM with its interrupt controllers in the kernel.
fn create_vm(kvm: &Kvm) -> Result<Arc<VmFd>, KvmError> {
    let vm = kvm.create_vm().map_err(KvmError::doing("creating a virtual machine"))?;
    vm.set_identity_map_address(IDENTITY_MAP_PAGE).map_err(KvmError::doing("placing its identity map"))?;
    vm.set_tss_address(TASK_STATE_PAGES as usize).map_err(KvmError::doing("placing its task state"))?;
    vm.create_irq_chip().map_err(KvmError::doing("creating the interrupt controllers"))?;
    // Linux does not ask for the timer, but it pokes the port behind which its gate is.
    let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
    vm.create_pit2(pit).map_err(KvmError::doing("creating the interval timer"))?;
    Ok(Arc::new(vm))
}

/// Gives KVM the guest's memory; returns how many memory slots that took.
fn add_memory(vm: &VmFd, memory: &GuestMemoryMmap) -> Result<u32, KvmError> {
    let mut slots = 0;
    for region in memory.iter() {
        let slot = kvm_userspace_memory_region {
            slot: slots,
            flags: 0,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
        };
        // SAFETY: the region is mapped for as long as a vCPU may run: `Platform` keeps it, and each vCPU keeps that.
        unsafe { vm.set_user_memory_region(slot) }.map_err(KvmError::doing("giving the guest its memory"))?;
        slots += 1;
    }
    Ok(slots)
}

fn serial_port(vm: &VmFd, output: Box<dyn std::io::Write + Send>) -> Result<Arc<SerialPort>, MachineError> {
    let interrupt = EventFd::new(EFD_NONBLOCK).map_err(MachineError::system("make an eventfd"))?;
    vm.register_irqfd(&interrupt, SERIAL_GSI).map_err(KvmError::doing("connecting the serial port's interrupt"))?;
    let serial = SerialPort::new(interrupt, output).map_err(MachineError::system("make an eventfd"))?;
    Ok(Arc::new(serial))
}

/// Makes the functions of the first slots.
fn make_functions(
    factories: Vec<FunctionFactory>,
    parts: &MachineParts,
) -> Result<Vec<ConnectedFunction>, MachineError> {
    if factories.len() > MAX_SLOTS {
        return Err(PciError::TooManyFunctions(factories.len()).into());
    }
    let make = |(factory, slot): (FunctionFactory, u8)| {
        pci::connect(factory, parts, pci::boot_requester_id(slot))
            .map_err(|source| MachineError::Function(slot.into(), source))
    };
    factories.into_iter().zip(0..).map(make).collect()
}

/// Loads the payload; returns where it starts, and how much of the address space it wants mapped.
fn load(payload: &Payload, memory: &GuestMemoryMmap, layout: &Layout) -> Result<(Entry, u64), MachineError> {
    match payload {
        Payload::Linux { kernel, initramfs, initramfs_tail, command_line } => {
            let image = LinuxImage { kernel, initramfs, initramfs_tail, command_line };
            Ok((boot::load_linux(memory, layout, &image)?, FOUR_GIB))
        }
        Payload::Code { code, mapped } => {
            memory.write_slice(code, GuestAddress(CODE_ADDRESS)).map_err(|source| MachineError::Image {
                length: code.len(),
                address: CODE_ADDRESS,
                source,
            })?;
            Ok((Entry { rip: CODE_ADDRESS, rsi: 0 }, *mapped))
        }
    }
}
