// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Why a machine could not be built or could not go on.

use std::io;

use ersatz_device_model::dma::MapError;
use thiserror::Error;
use vm_memory::GuestMemoryError;

use super::acpi::AcpiError;
use super::boot::{LinuxError, PageTableError};
use super::config::FactoryError;
use super::kvm_error::KvmError;
use super::layout::LayoutError;
use super::memory::MemoryError;
use super::pci::PciError;
use super::vcpu::VcpuError;

/// Why a machine could not be built or could not go on running.
#[derive(Debug, Error)]
pub enum MachineError {
    /// KVM refused something.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// More vCPUs than there can be, or none.
    #[error("{asked} vCPUs: give the guest 1 to {max}")]
    Vcpus {
        /// Number asked for.
        asked: u8,
        /// The most this host's KVM runs.
        max: usize,
    },
    /// The physical address space has no room.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// No memory for the guest.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Guest memory could not be given to the devices.
    #[error("cannot give guest memory to the devices")]
    Dma(#[from] MapError),
    /// Linux could not be loaded.
    #[error(transparent)]
    Linux(#[from] LinuxError),
    /// The machine code image does not fit into guest memory.
    #[error("cannot load an image of {length} bytes at {address:#x}")]
    Image {
        /// Length in bytes.
        length: usize,
        /// Where it was to be.
        address: u64,
        /// What guest memory said.
        #[source]
        source: GuestMemoryError,
    },
    /// The boot CPU's page tables could not be made.
    #[error(transparent)]
    PageTables(#[from] PageTableError),
    /// The boot CPU's descriptor table could not be written.
    #[error("cannot write the boot CPU's descriptor table")]
    Descriptors(#[source] GuestMemoryError),
    /// The reset vector could not be written.
    #[error("cannot write the reset vector")]
    ResetVector(#[source] GuestMemoryError),
    /// The ACPI tables could not be written.
    #[error(transparent)]
    Acpi(#[from] AcpiError),
    /// The PCI bus could not be built.
    #[error(transparent)]
    Pci(#[from] PciError),
    /// A PCI function could not be made.
    #[error("cannot make PCI function {0}")]
    Function(usize, #[source] FactoryError),
    /// An eventfd, a signal handler or a thread could not be had.
    #[error("cannot {doing}")]
    System {
        /// What was to be done.
        doing: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The event loop failed.
    #[error("the event loop failed")]
    Events(#[source] event_manager::Error),
    /// A vCPU could not go on.
    #[error("vCPU {vcpu} cannot go on")]
    Vcpu {
        /// Number of the vCPU.
        vcpu: u8,
        /// Why.
        #[source]
        source: VcpuError,
    },
    /// A vCPU's thread panicked: a defect of the VMM.
    #[error("the thread of vCPU {0} panicked")]
    VcpuPanicked(u8),
}

impl MachineError {
    /// For `map_err`: says what the system was asked for.
    pub(super) fn system(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { doing, source }
    }
}
