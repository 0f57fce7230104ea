// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a GPU can be asked to be, and why it may not come about.

use std::io;
use std::sync::Arc;

use ersatz_abi::regs;
use thiserror::Error;

use crate::control_window::ControlHandler;
use crate::fabric::{FabricError, FabricPort};
use crate::trace::Tracer;
use crate::vram::VramError;

/// Most engines of one kind.
pub const MAX_ENGINES: u8 = 8;

/// What a GPU is to be. Make one with [`GpuConfig::new`] and change what should differ.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GpuConfig {
    /// Size of VRAM in bytes: a power of two from 2 MiB to 1 TiB.
    pub vram_size: u64,
    /// How much of it BAR2 shows after a reset, in bytes: a power of two from 2 MiB to all of it. A driver may resize the
    /// BAR.
    pub bar_size: u64,
    /// Number of channels, 1 to [`regs::MAX_CHANNELS`].
    pub channels: u8,
    /// Number of copy engines, each a thread, 1 to [`MAX_ENGINES`].
    pub copy_engines: u8,
    /// Number of compute engines, each a thread, 0 to [`MAX_ENGINES`].
    pub compute_engines: u8,
    /// PCIe device serial number, which tells devices apart.
    pub serial: u64,
    /// The GPU's number in its machine, for log lines and the names of its threads.
    pub number: u8,
    /// Bus, device and function number: whom error reports name as the sender of a request.
    pub requester_id: u16,
    /// Where this GPU is plugged into a fabric, by which it reaches others and they reach it.
    pub fabric: Option<FabricPort>,
    /// Carries out the requests of programs in the guest, who have a control window then.
    pub control: Option<Arc<dyn ControlHandler>>,
    /// Where the trace goes.
    pub tracer: Tracer,
}

impl GpuConfig {
    /// All of VRAM in BAR2, sixteen channels, two copy engines, one compute engine, number, serial number and requester id
    /// zero, no fabric, no control window, no trace.
    pub const fn new(vram_size: u64) -> Self {
        Self {
            vram_size,
            bar_size: vram_size,
            channels: 16,
            copy_engines: 2,
            compute_engines: 1,
            serial: 0,
            number: 0,
            requester_id: 0,
            fabric: None,
            control: None,
            tracer: Tracer::disabled(),
        }
    }
}

/// Why there is no GPU.
#[derive(Debug, Error)]
pub enum GpuError {
    /// No VRAM.
    #[error("cannot make the device's memory")]
    Vram(#[from] VramError),
    /// BAR2 cannot have that size.
    #[error("BAR2 of {bar:#x} bytes for {vram:#x} bytes of VRAM: it must be a power of two from 2 MiB to all of VRAM")]
    BarSize {
        /// As configured, in bytes.
        bar: u64,
        /// Size of VRAM in bytes.
        vram: u64,
    },
    /// It cannot be plugged into its fabric.
    #[error(transparent)]
    Fabric(#[from] FabricError),
    /// The number of channels is out of range.
    #[error("a device with {0} channels: there must be 1 to {max}", max = regs::MAX_CHANNELS)]
    Channels(u8),
    /// A number of engines is out of range.
    #[error(
        "a device with {copy} copy engines and {compute} compute engines: there must be 1 to {MAX_ENGINES} of the former, \
         0 to {MAX_ENGINES} of the latter"
    )]
    Engines {
        /// Copy engines as configured.
        copy: u8,
        /// Compute engines as configured.
        compute: u8,
    },
    /// An event descriptor could not be made.
    #[error("cannot make the device's event descriptors; raise the limit on open files (ulimit -n)?")]
    Events(#[source] io::Error),
    /// A thread could not be started.
    #[error("cannot start engine {engine}")]
    Engine {
        /// Number of the engine.
        engine: u8,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The thread could not be started.
    #[error("cannot start the thread that invalidates translations")]
    Mmu(#[source] io::Error),
    /// The thread could not be started.
    #[error("cannot start the thread that carries out what breakpoints and rules want")]
    Inject(#[source] io::Error),
    /// The thread could not be started.
    #[error("cannot start the thread of the control window")]
    Control(#[source] io::Error),
}
