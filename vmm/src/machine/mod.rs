// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The virtual machine: an x86-64 PC on KVM that boots Linux, with PCI functions on its bus.
//!
//! [`Machine::new`] builds all of it from a [`GuestSpec`](crate::spec::GuestSpec), a factory for each PCI function
//! and a [`Console`]; [`Machine::run`] runs it to its [`End`] on the calling thread; a [`MachineHandle`], taken
//! before, looks in and stops it from any other thread. Terminals, time limits and what a guest's console says are
//! not the machine's business.
//!
//! ```no_run
//! # use ersatz::machine::{Console, Machine};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let spec: ersatz::spec::GuestSpec = unimplemented!();
//! let console = Console { output: Box::new(std::io::stdout()), input: None };
//! let machine = Machine::new(&spec, Vec::new(), console)?;
//! let handle = machine.handle();
//! let end = machine.run()?;
//! println!("{end:?}, {} exits", handle.exits().total());
//! # Ok(())
//! # }
//! ```

mod config;
mod error;
mod exits;
mod handle;

pub use config::{Connections, Console, End, FactoryError, FunctionFactory};
pub use error::MachineError;
pub use exits::{ExitKind, Exits};
pub use handle::{MachineHandle, VcpuState};

use crate::spec::GuestSpec;

/// A built machine that has not run yet.
pub struct Machine {
    handle: MachineHandle,
}

impl Machine {
    /// Builds a machine: guest memory with kernel and initramfs in it, vCPUs at the kernel's entry, devices.
    ///
    /// `functions` become 00:01.0, 00:02.0 and so on, at most 31; `spec.devices` and `spec.timeout` are not looked
    /// at. Factories are called in order, on this thread.
    ///
    /// # Errors
    ///
    /// Whatever keeps this machine from running, known before the guest executes anything.
    pub fn new(_spec: &GuestSpec, _functions: Vec<FunctionFactory>, _console: Console) -> Result<Self, MachineError> {
        Err(MachineError::NotYet)
    }

    /// A handle to look in and to stop the machine; works before, during and after [`Self::run`].
    pub fn handle(&self) -> MachineHandle {
        self.handle.clone()
    }

    /// Runs the guest until it ends, or until [`MachineHandle::stop`]. When this returns no vCPU runs any more and
    /// the machine's references to its PCI functions are gone.
    ///
    /// # Errors
    ///
    /// Whatever made it impossible to go on running the guest: what KVM reported, with the place in the guest.
    pub fn run(self) -> Result<End, MachineError> {
        Err(MachineError::NotYet)
    }
}
