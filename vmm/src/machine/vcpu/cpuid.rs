// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the guest's CPUID says: what KVM supports on this host, with the topology of this machine.
//!
//! Each vCPU is a core of one package; its APIC id is its number. Leaves that KVM lists and that describe the host's
//! own topology are rewritten or dropped: Linux complains about processors whose leaves contradict each other.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};
use kvm_ioctls::{Cap, Kvm};

use crate::machine::kvm_error::KvmError;

/// Room for CPUID entries; KVM has no more.
const MAX_ENTRIES: usize = kvm_bindings::KVM_MAX_CPUID_ENTRIES;
/// Leaf 1 ECX: timer of the local APIC by time stamp.
const TSC_DEADLINE: u32 = 1 << 24;
/// Leaf 1 ECX: runs on a hypervisor.
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1 EDX: leaf 1's count of logical processors is valid.
const HTT: u32 = 1 << 28;
/// Leaf 0x8000_0001 ECX: leaf 1's count is one of cores, not threads.
const CORES_NOT_THREADS: u32 = 1 << 1;
/// Leaf 0xb ECX: this level is of threads in a core.
const LEVEL_THREAD: u32 = 1 << 8;
/// Leaf 0xb ECX: this level is of cores in a package.
const LEVEL_CORE: u32 = 2 << 8;
/// Width of a physical address on processors that do not say.
const DEFAULT_PHYSICAL_BITS: u8 = 36;

/// What this host's KVM supports, for one machine.
#[derive(Clone, Debug)]
pub struct HostCpuid {
    entries: Vec<kvm_cpuid_entry2>,
    tsc_deadline: bool,
}

impl HostCpuid {
    /// Asks KVM.
    ///
    /// # Errors
    ///
    /// [`KvmError`] if it does not say.
    pub fn read(kvm: &Kvm) -> Result<Self, KvmError> {
        let supported = kvm
            .get_supported_cpuid(MAX_ENTRIES)
            .map_err(KvmError::doing("asking which processor features it supports"))?;
        Ok(Self { entries: supported.as_slice().to_vec(), tsc_deadline: kvm.check_extension(Cap::TscDeadlineTimer) })
    }

    /// Width in bits of the guest physical addresses that can be used: what KVM's page tables for the guest can map,
    /// which may be less than the processor's addresses have.
    pub fn physical_bits(&self) -> u8 {
        let sane = |bits: u32| u8::try_from(bits & 0xff).ok().filter(|bits| (32..=52).contains(bits));
        let sizes = self.entries.iter().find(|entry| entry.function == 0x8000_0008).map_or(0, |entry| entry.eax);
        let of_processor = sane(sizes).unwrap_or(DEFAULT_PHYSICAL_BITS);
        sane(sizes >> 16).map_or(of_processor, |mappable| mappable.min(of_processor))
    }

    /// The entries of vCPU `vcpu` of `count`.
    ///
    /// # Errors
    ///
    /// [`KvmError`] if they are more than KVM takes.
    pub fn for_vcpu(&self, vcpu: u8, count: u8) -> Result<CpuId, KvmError> {
        CpuId::from_entries(&self.entries_of(vcpu, count)).map_err(|_| KvmError::ListTooLong(self.entries.len()))
    }

    fn entries_of(&self, vcpu: u8, count: u8) -> Vec<kvm_cpuid_entry2> {
        let mut entries: Vec<_> =
            self.entries.iter().filter(|entry| !matches!(entry.function, 0xb | 0x1f | 0x8000_0026)).copied().collect();
        for entry in &mut entries {
            self.adapt(entry, vcpu.into(), count.into());
        }
        if self.entries.iter().any(|entry| entry.function == 0xb) {
            entries.extend(topology(vcpu.into(), count.into()));
        }
        entries
    }

    /// Makes one entry fit the machine.
    fn adapt(&self, entry: &mut kvm_cpuid_entry2, vcpu: u32, count: u32) {
        let id_bits = id_bits(count);
        match entry.function {
            0x1 => {
                entry.ebx = entry.ebx & 0xffff | count << 16 | vcpu << 24;
                entry.ecx |= HYPERVISOR;
                if self.tsc_deadline {
                    entry.ecx |= TSC_DEADLINE;
                }
                set(&mut entry.edx, HTT, count > 1);
            }
            // Caches: the last level is the package's, the others are a core's.
            0x4 | 0x8000_001d if entry.eax & 0x1f != 0 => {
                let level = entry.eax >> 5 & 7;
                let sharing = if level >= 3 { (1 << id_bits) - 1 } else { 0 };
                entry.eax = entry.eax & !(0xfff << 14) | sharing << 14;
                if entry.function == 0x4 {
                    entry.eax = entry.eax & 0x03ff_ffff | (((1 << id_bits) - 1) & 0x3f) << 26;
                }
            }
            // Power management and performance counters: the guest has none.
            0x6 => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (entry.eax & 1 << 2, 0, 0, 0),
            0xa => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
            0x8000_0001 => set(&mut entry.ecx, CORES_NOT_THREADS, count > 1),
            0x8000_0008 => entry.ecx = (count - 1) | id_bits << 12,
            0x8000_001e => (entry.eax, entry.ebx, entry.ecx) = (vcpu, vcpu, 0),
            _ => {}
        }
    }
}

fn set(word: &mut u32, bit: u32, on: bool) {
    if on {
        *word |= bit;
    } else {
        *word &= !bit;
    }
}

/// Bits of an APIC id that number the cores of a package.
fn id_bits(count: u32) -> u32 {
    count.next_power_of_two().trailing_zeros()
}

/// Leaf 0xb, and the level that ends it.
fn topology(vcpu: u32, count: u32) -> [kvm_cpuid_entry2; 3] {
    let level = |index, eax, ebx, kind| kvm_cpuid_entry2 {
        function: 0xb,
        index,
        flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax,
        ebx,
        ecx: kind | index,
        edx: vcpu,
        ..kvm_cpuid_entry2::default()
    };
    [level(0, 0, 1, LEVEL_THREAD), level(1, id_bits(count), count, LEVEL_CORE), level(2, 0, 0, 0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(functions: &[(u32, u32)]) -> HostCpuid {
        let entries = functions
            .iter()
            .map(|&(function, eax)| kvm_cpuid_entry2 { function, eax, ..kvm_cpuid_entry2::default() })
            .collect();
        HostCpuid { entries, tsc_deadline: true }
    }

    #[test]
    fn physical_bits_are_the_hosts() {
        assert_eq!(host(&[(0x8000_0008, 0x3028)]).physical_bits(), 40);
        assert_eq!(host(&[(0x8000_0008, 0x30_3934)]).physical_bits(), 48, "the processor has 52, KVM maps 48");
        assert_eq!(host(&[(0x8000_0008, 0)]).physical_bits(), DEFAULT_PHYSICAL_BITS);
        assert_eq!(host(&[]).physical_bits(), DEFAULT_PHYSICAL_BITS);
    }

    #[test]
    fn each_vcpu_is_a_core_of_one_package() {
        let host = host(&[(0x1, 0), (0xb, 0), (0x1f, 0), (0x8000_0008, 40), (0x8000_001e, 0)]);
        for vcpu in 0..3 {
            let entries = host.entries_of(vcpu, 3);
            let find = |function, index| {
                *entries.iter().find(|entry| entry.function == function && entry.index == index).unwrap()
            };
            let leaf1 = find(0x1, 0);
            assert_eq!(leaf1.ebx >> 24, u32::from(vcpu));
            assert_eq!(leaf1.ebx >> 16 & 0xff, 3);
            assert_eq!(leaf1.ecx & (HYPERVISOR | TSC_DEADLINE), HYPERVISOR | TSC_DEADLINE);
            assert_eq!((find(0xb, 1).eax, find(0xb, 1).ebx), (2, 3));
            assert_eq!(find(0xb, 0).edx, u32::from(vcpu));
            assert_eq!(find(0xb, 2).ecx, 2);
            assert_eq!(find(0x8000_0008, 0).ecx, 2 | 2 << 12);
            assert_eq!(find(0x8000_001e, 0).eax, u32::from(vcpu));
            assert!(entries.iter().all(|entry| entry.function != 0x1f));
        }
    }

    #[test]
    fn caches_below_the_last_level_are_not_shared() {
        let host = host(&[(0x4, 0xfc1f_c043), (0x4, 0xfc1f_c063), (0x4, 0)]);
        let entries = host.entries_of(0, 4);
        assert_eq!(entries[0].eax >> 14 & 0xfff, 0);
        assert_eq!(entries[1].eax >> 14 & 0xfff, 3);
        assert_eq!(entries[1].eax >> 26, 3);
        assert_eq!(entries[2].eax, 0);
    }
}
