// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The virtual machine: an x86-64 PC on KVM that boots Linux, with PCI functions on its bus.
//!
//! [`Machine::new`] builds all of it from a [`MachineConfig`], a factory for each PCI function and a [`Console`];
//! [`Machine::run`] runs it to its [`End`] on the calling thread; a [`MachineHandle`], taken before, looks in and stops
//! it from any other thread. Terminals, time limits and what a guest's console says are not the machine's business.
//!
//! ```no_run
//! # use ersatz::machine::{Console, Machine};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let config: ersatz::machine::MachineConfig = unimplemented!();
//! let console = Console { output: Box::new(std::io::stdout()), input: None };
//! let machine = Machine::new(&config, Vec::new(), console)?;
//! let handle = machine.handle();
//! let end = machine.run()?;
//! println!("{end:?}, {} exits", handle.exits().total());
//! # Ok(())
//! # }
//! ```
//!
//! | module | what |
//! |---|---|
//! | `layout`, `memory` | the physical address space and its RAM |
//! | `boot`, `acpi` | what the guest finds in RAM |
//! | `vcpu` | the processors and their threads |
//! | `platform`, `serial`, `pci`, `interrupts` | what the guest's accesses reach, and how it is interrupted |
//! | `events` | the event loop, and the end |

mod acpi;
mod boot;
mod build;
mod config;
mod error;
mod events;
mod exits;
mod handle;
mod interrupts;
mod kvm_error;
mod layout;
mod memory;
mod pci;
pub(crate) mod platform;
pub(crate) mod serial;
mod shared_memory;
mod vcpu;

use std::fs::File;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

pub use config::{BusConnections, CODE_ADDRESS, Console, End, FactoryError, FunctionFactory, MachineConfig, Payload};
pub use error::MachineError;
pub use exits::{ExitKind, Exits};
pub use handle::MachineHandle;
pub use interrupts::InterruptError;
pub use kvm_error::KvmError;
pub use pci::{PciError, PciSlots, PlugError};
pub use shared_memory::SharedMemory;
pub use vcpu::group::VcpuGroup;
pub use vcpu::{VcpuError, VcpuState};

use self::pci::PciBus;
use serial::SerialPort;
use vcpu::Vcpu;

use crate::threads::{self, Role};

/// A built machine that has not run yet.
pub struct Machine {
    handle: MachineHandle,
    vcpus: Vec<Vcpu>,
    serial: Arc<SerialPort>,
    pci: Arc<PciBus>,
    console_input: Option<File>,
}

impl Machine {
    /// Builds a machine: guest memory with its payload, vCPUs at its entry, devices.
    ///
    /// `functions` go into the first slots, at most 31: they are 01:00.0, 02:00.0 and so on, each behind a root port of its
    /// own on bus 0. Factories are called in order, on this thread. There are at least 8 slots; those that are empty can be
    /// filled later ([`MachineHandle::pci`]).
    ///
    /// # Errors
    ///
    /// Whatever keeps this machine from running, known before the guest executes anything.
    pub fn new(
        config: &MachineConfig,
        functions: Vec<FunctionFactory>,
        console: Console,
    ) -> Result<Self, MachineError> {
        build::build(config, functions, 0, console)
    }

    /// The same, with a slot more than there may be GPUs, behind those of the GPUs.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn with_spare_slot(
        config: &MachineConfig,
        functions: Vec<FunctionFactory>,
        console: Console,
    ) -> Result<Self, MachineError> {
        build::build(config, functions, 1, console)
    }

    /// A handle to look in and to stop the machine; works before, during and after [`Self::run`].
    pub fn handle(&self) -> MachineHandle {
        self.handle.clone()
    }

    /// Runs the guest until it ends, or until [`MachineHandle::stop`]. When this returns no vCPU runs any more and
    /// the machine's references to its PCI functions are gone.
    ///
    /// The process's first real-time signal is taken to wake vCPU threads.
    ///
    /// # Errors
    ///
    /// Whatever made it impossible to go on running the guest: what KVM reported, with the place in the guest.
    pub fn run(self) -> Result<End, MachineError> {
        let Self { handle, vcpus, serial, pci, console_input } = self;
        vcpu::install_kick_handler().map_err(MachineError::system("handle the signal that wakes vCPU threads"))?;
        let mut threads = Vec::with_capacity(vcpus.len());
        for vcpu in vcpus {
            match spawn(vcpu, &handle) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    handle.ending.set(Err(error));
                    break;
                }
            }
        }
        let end = events::serve(&handle.ending, serial, pci, console_input);
        for vcpu in handle.vcpus.iter() {
            vcpu.stop();
        }
        for thread in threads {
            // The thread has said how it ended; if it panicked it has said that too.
            let _ = thread.join();
        }
        end
    }
}

/// Starts a vCPU's thread. However that ends, unless it was told to, is the end of the machine.
fn spawn(vcpu: Vcpu, handle: &MachineHandle) -> Result<JoinHandle<()>, MachineError> {
    let number = vcpu.number;
    let report = ReportPanic { vcpu: number, handle: handle.clone() };
    let body = move || match vcpu.run() {
        Ok(None) => {}
        Ok(Some(end)) => report.handle.ending.set(Ok(end)),
        Err(source) => report.handle.ending.set(Err(MachineError::Vcpu { vcpu: number, source })),
    };
    threads::spawn(Role::Vcpu(number), body).map_err(MachineError::system("start a vCPU's thread"))
}

/// Ends the machine if the thread that owns this panics, which otherwise would hang it.
struct ReportPanic {
    vcpu: u8,
    handle: MachineHandle,
}

impl Drop for ReportPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            self.handle.ending.set(Err(MachineError::VcpuPanicked(self.vcpu)));
        }
    }
}
