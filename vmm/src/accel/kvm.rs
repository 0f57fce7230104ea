// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `--accel kvm`: the machine of this VMM, with the GPUs on its bus, and devices of this machine behind them.

use std::fs::File;
use std::io;
use std::sync::Arc;

use ersatz_device_model::fabric::{FABRIC_PORTS, Fabric};
use thiserror::Error;

use crate::console::output::ConsoleOutput;
use crate::gpu::registry::GpuRegistry;
use crate::gpu::{self, GpuAddress};
use crate::machine::{BusConnections, Console, FunctionFactory, Machine, MachineConfig, MachineError};
use crate::outcome::Outcome;
use crate::spec::{ArchiveError, GpuSpec, GuestSpec};
use crate::supervisor::{Watch, supervise};
use crate::vfio;

/// Why a guest has no outcome.
#[derive(Debug, Error)]
pub enum KvmRunError {
    /// The machine could not be built, or could not continue.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// What the run brings could not be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// There are more GPUs than a fabric links.
    #[error("a guest may have at most {FABRIC_PORTS} GPUs, not {0}")]
    TooMany(usize),
    /// A descriptor or thread could not be made.
    #[error("cannot watch over the guest")]
    Io(#[from] io::Error),
}

/// Runs a guest.
///
/// Its console goes to `output`; `input` is read whenever it is readable, to its end. `progress` is called with the exit counts,
/// if the run asks for them. Its GPUs are entered in `watch.gpus`.
///
/// # Errors
///
/// Fails if it could not be run. How the guest ended is an [`Outcome`].
pub fn run(
    spec: &GuestSpec,
    output: ConsoleOutput,
    input: Option<File>,
    watch: &Watch,
    progress: &mut dyn FnMut(&str),
) -> Result<Outcome, KvmRunError> {
    let config = MachineConfig::linux(&spec.machine, spec.run.archive()?);
    let mut functions = gpu_factories(&spec.run.devices, &watch.gpus)?;
    functions.extend(vfio::factories(&spec.run.vfio));
    let machine = Machine::new(&config, functions, Console { output: Box::new(output), input })?;
    let handle = machine.handle();
    let outcome = supervise::<KvmRunError>(watch, &handle, || Ok(machine.run()?))?;
    if spec.run.exit_counts {
        progress(&format!("exits to the VMM: {}", handle.exits()));
    }
    Ok(outcome)
}

/// What makes the GPUs, in their order, linked with each other, and enters them in a registry.
///
/// # Errors
///
/// Fails if there are more than a fabric links.
pub fn gpu_factories(devices: &[GpuSpec], registry: &GpuRegistry) -> Result<Vec<FunctionFactory>, KvmRunError> {
    if devices.len() > usize::from(FABRIC_PORTS) {
        return Err(KvmRunError::TooMany(devices.len()));
    }
    let fabric = Fabric::new();
    let factory = |(index, gpu): (u8, &GpuSpec)| factory(gpu.clone(), index, fabric.clone(), registry.clone());
    Ok((0..).zip(devices).map(factory).collect())
}

/// What makes one GPU once its machine has memory and interrupts.
fn factory(spec: GpuSpec, index: u8, fabric: Fabric, registry: GpuRegistry) -> FunctionFactory {
    Box::new(move |BusConnections { dma, interrupts, requester_id, .. }: BusConnections| {
        let address = GpuAddress { index, fabric, requester_id, registry };
        Ok(gpu::build(&spec, &address, dma, interrupts).map(|gpu| gpu as Arc<_>)?)
    })
}
