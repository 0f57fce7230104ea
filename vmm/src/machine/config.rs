// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a machine is given, and how it ends.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use ersatz_device_model::bus::PciFunction;
use ersatz_device_model::dma::DmaSpace;
use ersatz_device_model::interrupt::InterruptSink;
use kvm_ioctls::VmFd;

use super::layout::HIGH_MEMORY;
use super::vcpu::group::VcpuGroup;
use crate::spec::MachineSpec;

/// The two ends of the guest's serial port, `ttyS0`.
pub struct Console {
    /// Gets each byte the guest sends, as it sends it: `write_all` and `flush` per byte, on a vCPU's thread, which
    /// stands still meanwhile. A sink that fails loses the byte; the guest does not notice.
    pub output: Box<dyn Write + Send>,
    /// Read whenever it is readable, and sent to the guest; end of file ends it. A terminal, pipe, FIFO, eventfd or
    /// socket; something epoll can wait for. Its blocking mode is not changed.
    pub input: Option<File>,
}

/// What the machine runs.
#[derive(Clone, Debug)]
pub enum Payload {
    /// Linux, by its 64-bit boot protocol.
    Linux {
        /// bzImage or ELF file.
        kernel: PathBuf,
        /// The initramfs file.
        initramfs: PathBuf,
        /// A further cpio archive to load right behind it; may be empty.
        initramfs_tail: Vec<u8>,
        /// Kernel command line.
        command_line: String,
    },
    /// Machine code that runs by itself: for probes and tests.
    Code {
        /// The code. It is at [`CODE_ADDRESS`], and starts at its first byte, in 64-bit mode, with interrupts off.
        code: Vec<u8>,
        /// Bytes of the address space that are mapped to themselves; rounded up to 1 GiB.
        mapped: u64,
    },
}

/// Where [`Payload::Code`] is in guest memory.
pub const CODE_ADDRESS: u64 = HIGH_MEMORY;

/// What makes one machine differ from another.
#[derive(Clone, Debug)]
pub struct MachineConfig {
    /// Number of vCPUs.
    pub vcpus: u8,
    /// Guest memory in bytes: at least 2 MiB, in multiples of 4 KiB.
    pub memory: u64,
    /// What runs.
    pub payload: Payload,
}

impl MachineConfig {
    /// A machine that boots Linux, with an archive behind its initramfs; that may be empty.
    pub fn linux(spec: &MachineSpec, initramfs_tail: Vec<u8>) -> Self {
        Self {
            vcpus: spec.resources.vcpus,
            memory: spec.resources.memory,
            payload: Payload::Linux {
                kernel: spec.kernel.clone().into(),
                initramfs: spec.initramfs.clone().into(),
                initramfs_tail,
                command_line: spec.command_line.clone(),
            },
        }
    }
}

/// What a PCI function gets of the machine it is built for.
#[derive(Clone)]
pub struct BusConnections {
    /// What the function may do DMA to, by guest physical address: all of guest memory, and memory of BARs where they decode.
    pub dma: Arc<dyn DmaSpace>,
    /// Where the function's MSI-X messages go.
    pub interrupts: Arc<dyn InterruptSink>,
    /// Bus, device and function number that the function will have.
    pub requester_id: u16,
    /// The virtual machine, for functions that KVM must know of.
    pub vm: Arc<VmFd>,
    /// The machine's vCPUs, for functions that must do something while the guest does nothing.
    pub vcpus: VcpuGroup,
}

/// Why a function could not be made.
pub type FactoryError = Box<dyn Error + Send + Sync>;

/// Makes a PCI function, once its machine has memory and interrupts.
pub type FunctionFactory = Box<dyn FnOnce(BusConnections) -> Result<Arc<dyn PciFunction>, FactoryError> + Send>;

/// How a machine came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The guest wrote this byte to the exit port, 0xf4.
    Exited(u8),
    /// The guest powered off.
    PoweredOff,
    /// The guest reset the machine: a reboot, also that of `panic=`.
    Reset,
    /// [`MachineHandle::stop`](super::MachineHandle::stop) was called.
    Stopped,
}
