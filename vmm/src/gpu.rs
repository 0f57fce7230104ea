// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Making the GPU of a [`GpuSpec`], for whichever transport.

pub mod registry;

use std::path::PathBuf;
use std::sync::Arc;

use ersatz_device_model::clock::{Clock, HostClock};
use ersatz_device_model::dma::{DmaSpace, MappedSpace};
use ersatz_device_model::fabric::{Fabric, FabricError};
use ersatz_device_model::gpu::{Gpu, GpuConfig, GpuError};
use ersatz_device_model::interrupt::InterruptSink;
use ersatz_device_model::trace::{CreateError, Identity, TraceOptions, Tracer};
use thiserror::Error;

use self::registry::GpuRegistry;
use crate::control::window::WindowHandler;
use crate::spec::{ApplyError, GpuSpec};
use crate::vfio_user::backend::FunctionBackend;
use crate::vfio_user::interrupts::ClientInterrupts;

/// Why a GPU could not be made.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The trace log could not be made.
    #[error("cannot write the trace to {path}")]
    Trace {
        /// Where it was to go.
        path: PathBuf,
        /// Why not.
        #[source]
        source: CreateError,
    },
    /// The device refuses its rules.
    #[error("the GPU cannot have its rules")]
    Injection(#[from] ApplyError),
    /// There are more GPUs than a fabric links.
    #[error(transparent)]
    Fabric(#[from] FabricError),
    /// The device could not be made.
    #[error("cannot make a GPU with {vram} bytes of VRAM")]
    Gpu {
        /// VRAM in bytes.
        vram: u64,
        /// Why not.
        #[source]
        source: GpuError,
    },
}

/// Where a GPU is attached: its port on the fabric, its function on the bus, and where others find it.
#[derive(Clone, Debug, Default)]
pub struct GpuAddress {
    /// Number of the GPU in its machine, from 0; also that of its port on the fabric.
    pub index: u8,
    /// The fabric that links the GPUs of the machine.
    pub fabric: Fabric,
    /// Bus, device and function number; 0 if they are not known.
    pub requester_id: u16,
    /// Where the GPU is entered by its number.
    pub registry: GpuRegistry,
}

/// Makes a GPU, with its trace log and its rules if it has any.
///
/// # Errors
///
/// Fails if the log or the device cannot be made, or the fabric has no such port or a GPU there.
pub fn build(
    spec: &GpuSpec,
    address: &GpuAddress,
    dma: Arc<dyn DmaSpace>,
    interrupts: Arc<dyn InterruptSink>,
) -> Result<Arc<Gpu>, BuildError> {
    let GpuAddress { index, ref fabric, requester_id, ref registry } = *address;
    let clock: Arc<dyn Clock> = Arc::new(HostClock::new());
    let mut config = GpuConfig::new(spec.vram);
    config.bar_size = spec.bar_size();
    config.number = index;
    config.serial = u64::from(index) + 1;
    config.requester_id = requester_id;
    config.fabric = Some(fabric.port(index)?);
    config.control = spec.control_window.then(|| Arc::new(WindowHandler::new(registry.clone())) as _);
    if let Some(path) = &spec.trace {
        let identity = Identity {
            device: index,
            vram: spec.vram,
            channels: config.channels.into(),
            copy_engines: config.copy_engines.into(),
        };
        config.tracer = Tracer::create(path, &TraceOptions::new(identity), clock.clone())
            .map_err(|source| BuildError::Trace { path: path.to_path_buf(), source })?;
    }
    let gpu = Gpu::new(config, dma, interrupts, clock).map_err(|source| BuildError::Gpu { vram: spec.vram, source })?;
    if let Some(injection) = &spec.injection {
        injection.apply(gpu.inject())?;
    }
    let gpu = Arc::new(gpu);
    registry.enter(index, &gpu);
    Ok(gpu)
}

/// Makes a GPU for vfio-user clients, which do not pass its requester id.
///
/// # Errors
///
/// As [`build`].
pub fn build_backend(spec: &GpuSpec, address: &GpuAddress, keep_vram: bool) -> Result<FunctionBackend, BuildError> {
    let memory = Arc::new(MappedSpace::new());
    let interrupts = Arc::new(ClientInterrupts::new(ersatz_abi::pci::MSIX_VECTORS));
    let gpu = build(spec, address, memory.clone(), interrupts.clone())?;
    let vram = gpu.clone();
    let clear = (!keep_vram).then(|| Box::new(move || vram.clear_vram()) as _);
    Ok(FunctionBackend::new(address.index, gpu, memory, interrupts, clear))
}
