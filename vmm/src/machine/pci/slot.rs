// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A slot with its root port, and what it may hold: a function with its interrupts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ersatz_device_model::bus::PciFunction;
use ersatz_device_model::dma::MappedSpace;
use kvm_ioctls::VmFd;
use vmm_sys_util::eventfd::EventFd;

use super::root_port::RootPort;
use crate::machine::config::{BusConnections, FactoryError, FunctionFactory};
use crate::machine::interrupts::MsixVectors;
use crate::machine::vcpu::group::VcpuGroup;

/// Most slots of a machine: each has a root port on bus 0, beside the host bridge.
pub const MAX_SLOTS: usize = 31;

/// A function and the sink it was made with.
#[derive(Clone)]
pub struct ConnectedFunction {
    /// The function.
    pub function: Arc<dyn PciFunction>,
    /// Its MSI-X vectors.
    pub msix: Arc<MsixVectors>,
    /// What it signals when there are effects to take.
    pub event: Option<Arc<EventFd>>,
}

/// What a machine makes all its functions with.
#[derive(Clone)]
pub struct MachineParts {
    /// The virtual machine.
    pub vm: Arc<VmFd>,
    /// Where functions do DMA.
    pub dma: Arc<MappedSpace>,
    /// The vCPUs.
    pub vcpus: VcpuGroup,
}

/// Makes the function of a slot. Its interrupts are not connected yet.
///
/// # Errors
///
/// What the factory says.
pub fn connect(
    factory: FunctionFactory,
    parts: &MachineParts,
    requester_id: u16,
) -> Result<ConnectedFunction, FactoryError> {
    let msix = Arc::new(MsixVectors::default());
    let connections = BusConnections {
        dma: Arc::clone(&parts.dma) as _,
        interrupts: Arc::clone(&msix) as _,
        requester_id,
        vm: Arc::clone(&parts.vm),
        vcpus: parts.vcpus.clone(),
    };
    let function = factory(connections)?;
    let event = function.event();
    Ok(ConnectedFunction { function, msix, event })
}

/// A slot.
pub struct Slot {
    port: Mutex<RootPort>,
    /// Locked for reading while an access and its effects are carried out, for writing while the slot fills or empties: so
    /// no access is under way when a function leaves.
    occupant: RwLock<Option<ConnectedFunction>>,
    /// Held while a config access, or effects that no access caused, are carried out: those of two threads must not overtake
    /// each other.
    config: Mutex<()>,
    /// Held while the slot fills or empties, which is more than the change itself.
    changing: Mutex<()>,
}

impl Slot {
    /// A slot that holds a function, or is empty.
    pub fn new(port: RootPort, occupant: Option<ConnectedFunction>) -> Self {
        Self {
            port: Mutex::new(port),
            occupant: RwLock::new(occupant),
            config: Mutex::default(),
            changing: Mutex::default(),
        }
    }

    /// The registers of the root port.
    pub fn port(&self) -> MutexGuard<'_, RootPort> {
        self.port.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The occupant, which does not leave meanwhile.
    pub fn read(&self) -> RwLockReadGuard<'_, Option<ConnectedFunction>> {
        self.occupant.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The occupant, to be changed.
    pub fn write(&self) -> RwLockWriteGuard<'_, Option<ConnectedFunction>> {
        self.occupant.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts config accesses in order.
    pub fn order_config(&self) -> MutexGuard<'_, ()> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts fillings and emptyings in order.
    pub fn order_changes(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
