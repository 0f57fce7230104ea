// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Looking into a running machine, and stopping it, from any thread.

use std::sync::Arc;
use std::time::Duration;

use vmm_sys_util::eventfd::EventFd;

use super::config::End;
use super::events::Ending;
use super::exits::{ExitCounters, Exits};
use super::pci::PciSlots;
use super::vcpu::VcpuState;
use super::vcpu::group::VcpuGroup;

/// How long a vCPU may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// A look into a machine. Cheap to clone; keeps no memory of the guest alive.
#[derive(Clone)]
pub struct MachineHandle {
    pub(super) exits: Arc<ExitCounters>,
    pub(super) ending: Arc<Ending>,
    pub(super) vcpus: VcpuGroup,
    pub(super) slots: PciSlots,
    pub(super) ready: Arc<EventFd>,
}

impl MachineHandle {
    /// Ends the run: [`Machine::run`](super::Machine::run) returns [`End::Stopped`], unless the
    /// guest has come to its own end already. Returns at once; may be called any number of times.
    pub fn stop(&self) {
        self.ending.set(Ok(End::Stopped));
    }

    /// Where each vCPU is. A vCPU that does not answer within a second (not started yet, ended, or stuck in the
    /// host) is left out.
    pub fn vcpus(&self) -> Vec<VcpuState> {
        self.vcpus.iter().filter_map(|vcpu| vcpu.state(PATIENCE)).collect()
    }

    /// Sends a non-maskable interrupt to all vCPUs: Linux with `unknown_nmi_panic` panics with a backtrace,
    /// without it prints what it was doing.
    ///
    /// A vCPU that does not answer within a second is left out.
    pub fn inject_nmi(&self) {
        for (vcpu, number) in self.vcpus.iter().zip(0u32..) {
            if !vcpu.inject_nmi(PATIENCE) {
                log::warn!("vCPU {number} does not take a non-maskable interrupt: it is not running");
            }
        }
    }

    /// Keeps all vCPUs out of the guest, whose clocks go on. Returns once their threads wait.
    pub fn pause(&self) {
        self.vcpus.pause();
    }

    /// Ends [`MachineHandle::pause`].
    pub fn resume(&self) {
        self.vcpus.resume();
    }

    /// The machine's PCI slots, to fill and to empty.
    pub fn pci(&self) -> &PciSlots {
        &self.slots
    }

    /// Becomes readable when the guest says that it is ready for its run.
    pub fn ready(&self) -> &EventFd {
        &self.ready
    }

    /// Exits so far.
    pub fn exits(&self) -> Exits {
        self.exits.read()
    }
}
