// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A vCPU: its thread's loop, and what it takes to start it.

mod control;
mod cpuid;
mod delivery;
mod error;
pub mod group;
mod registers;
mod state;

use std::sync::Arc;

use kvm_ioctls::{VcpuExit, VcpuFd};

pub use control::{VcpuControl, install_kick_handler};
pub use cpuid::HostCpuid;
pub use error::VcpuError;
pub use registers::{set_boot_state, set_msrs, write_descriptors};
pub use state::VcpuState;

use self::delivery::FalseDeliveries;
use super::config::End;
use super::exits::{ExitCounters, ExitKind};
use super::platform::Platform;

/// One vCPU, owned by the thread that runs it.
pub struct Vcpu {
    /// Its number, which is its APIC id.
    pub number: u8,
    /// KVM's side of it.
    pub fd: VcpuFd,
    /// Its mailbox.
    pub control: Arc<VcpuControl>,
    /// Where exits are counted.
    pub exits: Arc<ExitCounters>,
    /// What its accesses reach.
    pub platform: Arc<Platform>,
}

/// What the loop does after an exit.
enum Next {
    Enter,
    End(End),
    Fail(ExitFailure),
}

/// An exit that there is no going on from.
enum ExitFailure {
    InternalError,
    TripleFault,
    FailEntry { reason: u64, cpu: u32 },
    MemoryFault { address: u64 },
    Unexpected(String),
}

impl Vcpu {
    /// Runs the vCPU until the guest ends the machine (what it did), or until it is told to stop (`None`).
    ///
    /// # Errors
    ///
    /// [`VcpuError`] if KVM cannot go on with it.
    pub fn run(mut self) -> Result<Option<End>, VcpuError> {
        let control = Arc::clone(&self.control);
        let _running = control.enter();
        let mut deliveries = FalseDeliveries::default();
        loop {
            let requests = control.take();
            if requests.stop {
                return Ok(None);
            }
            if requests.nmi {
                self.fd.nmi().map_err(VcpuError::Nmi)?;
            }
            if requests.state {
                match self.state() {
                    Ok(state) => control.publish(state),
                    Err(error) => log::warn!("cannot read the registers of vCPU {}: {error}", self.number),
                }
            }
            if requests.pause {
                control.stay_out();
                continue;
            }
            match self.enter()? {
                Next::Enter => deliveries.progress(),
                Next::Fail(ExitFailure::InternalError) if self.is_excused(&mut deliveries) => {}
                Next::End(end) => return Ok(Some(end)),
                Next::Fail(failure) => return Err(self.describe(failure)),
            }
        }
    }

    /// Enters the guest, and serves the exit.
    fn enter(&mut self) -> Result<Next, VcpuError> {
        let exit = self.fd.run();
        self.control.left_guest();
        let exit = match exit {
            Ok(exit) => exit,
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                self.exits.count(ExitKind::Signal);
                return Ok(Next::Enter);
            }
            Err(error) => return Err(VcpuError::Run(error)),
        };
        let (kind, next) = match exit {
            VcpuExit::IoIn(port, data) => {
                self.platform.port_read(port, data);
                (Platform::exit_kind(port), Next::Enter)
            }
            VcpuExit::IoOut(port, data) => {
                let end = self.platform.port_write(port, data);
                (Platform::exit_kind(port), end.map_or(Next::Enter, Next::End))
            }
            VcpuExit::MmioRead(address, data) => (self.platform.mmio_read(address, data), Next::Enter),
            VcpuExit::MmioWrite(address, data) => (self.platform.mmio_write(address, data), Next::Enter),
            VcpuExit::InternalError => (ExitKind::Other, Next::Fail(ExitFailure::InternalError)),
            VcpuExit::Shutdown => (ExitKind::Other, Next::Fail(ExitFailure::TripleFault)),
            VcpuExit::FailEntry(reason, cpu) => (ExitKind::Other, Next::Fail(ExitFailure::FailEntry { reason, cpu })),
            VcpuExit::MemoryFault { gpa, .. } => {
                (ExitKind::Other, Next::Fail(ExitFailure::MemoryFault { address: gpa }))
            }
            VcpuExit::Intr | VcpuExit::IrqWindowOpen => (ExitKind::Other, Next::Enter),
            other => {
                let text = format!("{other:?}");
                (ExitKind::Other, Next::Fail(ExitFailure::Unexpected(text)))
            }
        };
        self.exits.count(kind);
        Ok(next)
    }

    /// Whether the guest can continue after this internal error.
    fn is_excused(&mut self, deliveries: &mut FalseDeliveries) -> bool {
        let suberror = error::suberror(self.fd.get_kvm_run());
        self.fd.get_vcpu_events().is_ok_and(|events| deliveries.excuse(suberror, &events))
    }

    /// Where the vCPU is.
    fn state(&self) -> Result<VcpuState, kvm_ioctls::Error> {
        let regs = self.fd.get_regs()?;
        let sregs = self.fd.get_sregs()?;
        Ok(VcpuState {
            vcpu: self.number,
            rip: regs.rip,
            rsp: regs.rsp,
            rflags: regs.rflags,
            cr3: sregs.cr3,
            cpl: sregs.cs.dpl,
        })
    }

    /// Says what went wrong, and where in the guest.
    fn describe(&mut self, failure: ExitFailure) -> VcpuError {
        let state = match self.state() {
            Ok(state) => state,
            Err(error) => return VcpuError::Run(error),
        };
        match failure {
            ExitFailure::InternalError => error::internal_error(self.fd.get_kvm_run(), state),
            ExitFailure::TripleFault => VcpuError::TripleFault(state),
            ExitFailure::FailEntry { reason, cpu } => VcpuError::FailEntry { reason, cpu, state },
            ExitFailure::MemoryFault { address } => VcpuError::MemoryFault { address, state },
            ExitFailure::Unexpected(exit) => VcpuError::Unexpected { exit, state },
        }
    }
}
