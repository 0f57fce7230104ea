// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The state a boot CPU starts in: 64-bit mode, paging on, flat segments, as the Linux boot protocol wants it.

use kvm_bindings::{Msrs, kvm_fpu, kvm_msr_entry, kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use crate::machine::boot::Entry;
use crate::machine::kvm_error::KvmError;
use crate::machine::layout::{BOOT_STACK, GDT};

/// Selector of the code segment that Linux expects.
const CODE_SELECTOR: u16 = 0x10;
/// Selector of the data segment that Linux expects.
const DATA_SELECTOR: u16 = 0x18;
/// The descriptor table: null, unused, 64-bit code, flat data.
const DESCRIPTORS: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

/// CR0: protected mode, extension type, numeric error, write protect, paging.
const CR0: u64 = 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 31;
/// CR4: physical address extension, SSE.
const CR4: u64 = 1 << 5 | 1 << 9 | 1 << 10;
/// EFER: long mode enabled and active.
const EFER: u64 = 1 << 8 | 1 << 10;
/// The bit of the flags that is always set.
const RFLAGS_RESERVED: u64 = 1 << 1;
/// FPU control word and MXCSR after reset by FNINIT and LDMXCSR: all exceptions masked.
const FPU_CONTROL: u16 = 0x37f;
const MXCSR: u32 = 0x1f80;

const MSR_MISC_ENABLE: u32 = 0x1a0;
/// Fast string operations.
const MISC_ENABLE_FAST_STRING: u64 = 1;
const MSR_MTRR_DEFAULT_TYPE: u32 = 0x2ff;
/// MTRRs on, with no ranges; the default is write-back. What is not RAM is made uncached by page attributes.
const MTRR_WRITE_BACK: u64 = 1 << 11 | 6;

/// Writes the descriptor table that [`set_boot_state`] refers to.
///
/// # Errors
///
/// Fails if guest memory is too small.
pub fn write_descriptors(memory: &GuestMemoryMmap) -> Result<(), GuestMemoryError> {
    for (index, descriptor) in (0..).zip(DESCRIPTORS) {
        memory.write_obj(descriptor, GuestAddress(GDT + 8 * index))?;
    }
    Ok(())
}

/// Sets the model specific registers that firmware sets on every processor.
///
/// # Errors
///
/// [`KvmError`] if KVM refuses.
pub fn set_msrs(vcpu: &VcpuFd) -> Result<(), KvmError> {
    let entries = [(MSR_MISC_ENABLE, MISC_ENABLE_FAST_STRING), (MSR_MTRR_DEFAULT_TYPE, MTRR_WRITE_BACK)]
        .map(|(index, data)| kvm_msr_entry { index, data, ..kvm_msr_entry::default() });
    let msrs = Msrs::from_entries(&entries).map_err(|_| KvmError::ListTooLong(entries.len()))?;
    let set = vcpu.set_msrs(&msrs).map_err(KvmError::doing("setting model specific registers"))?;
    match entries.get(set) {
        None => Ok(()),
        Some(refused) => Err(KvmError::Msr { index: refused.index, value: refused.data }),
    }
}

/// Makes the boot CPU start at `entry` with the page tables at `cr3`.
///
/// # Errors
///
/// [`KvmError`] if KVM refuses.
pub fn set_boot_state(vcpu: &VcpuFd, entry: Entry, cr3: u64) -> Result<(), KvmError> {
    let mut sregs = vcpu.get_sregs().map_err(KvmError::doing("reading the boot CPU's system registers"))?;
    sregs.gdt.base = GDT;
    sregs.gdt.limit = (size_of_val(&DESCRIPTORS) - 1) as u16;
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    sregs.cs = segment(CODE_SELECTOR, true);
    let data = segment(DATA_SELECTOR, false);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (CR0, cr3, CR4, EFER);
    vcpu.set_sregs(&sregs).map_err(KvmError::doing("setting the boot CPU's system registers"))?;

    let fpu = kvm_fpu { fcw: FPU_CONTROL, mxcsr: MXCSR, ..kvm_fpu::default() };
    vcpu.set_fpu(&fpu).map_err(KvmError::doing("setting the boot CPU's floating point state"))?;

    let regs = kvm_regs {
        rip: entry.rip,
        rsi: entry.rsi,
        rsp: BOOT_STACK,
        rbp: BOOT_STACK,
        rflags: RFLAGS_RESERVED,
        ..kvm_regs::default()
    };
    vcpu.set_regs(&regs).map_err(KvmError::doing("setting the boot CPU's registers"))
}

/// A flat segment, as [`DESCRIPTORS`] describes it.
fn segment(selector: u16, code: bool) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_: if code { 0xb } else { 0x3 },
        present: 1,
        dpl: 0,
        db: u8::from(!code),
        s: 1,
        l: u8::from(code),
        g: 1,
        ..kvm_segment::default()
    }
}
