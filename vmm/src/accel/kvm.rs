// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `--accel kvm`: our own machine, with the GPUs on its bus.

use std::fs::File;
use std::io;
use std::sync::Arc;

use thiserror::Error;

use crate::console::output::ConsoleOutput;
use crate::gpu;
use crate::machine::{Connections, Console, FunctionFactory, Machine, MachineError};
use crate::outcome::Outcome;
use crate::spec::{GpuSpec, GuestSpec};
use crate::supervisor::{Watch, supervise};

/// Why there is no outcome.
#[derive(Debug, Error)]
pub enum KvmRunError {
    /// The machine could not be built, or not go on.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// There are more GPUs than can be numbered.
    #[error("a guest may have at most 256 GPUs, not {0}")]
    TooMany(usize),
    /// A descriptor or thread could not be made.
    #[error("cannot watch over the guest")]
    Io(#[from] io::Error),
}

/// Runs a guest.
///
/// Its console goes to `output`; `input` is read whenever it is readable, to its end.
///
/// # Errors
///
/// If it could not be run. How the guest ended is an [`Outcome`].
pub fn run(
    spec: &GuestSpec,
    output: ConsoleOutput,
    input: Option<File>,
    watch: &Watch,
) -> Result<Outcome, KvmRunError> {
    let functions = spec.devices.iter().enumerate().map(|(index, gpu)| {
        let index = u8::try_from(index).map_err(|_| KvmRunError::TooMany(spec.devices.len()))?;
        Ok(factory(gpu.clone(), index))
    });
    let functions = functions.collect::<Result<Vec<_>, KvmRunError>>()?;
    let machine = Machine::new(spec, functions, Console { output: Box::new(output), input })?;
    let handle = machine.handle();
    supervise(watch, &handle, || Ok(machine.run()?))
}

/// What makes one GPU once its machine has memory and interrupts.
fn factory(spec: GpuSpec, index: u8) -> FunctionFactory {
    Box::new(move |Connections { dma, interrupts }: Connections| {
        Ok(gpu::build(&spec, index, dma, interrupts).map(|gpu| gpu as Arc<_>)?)
    })
}
