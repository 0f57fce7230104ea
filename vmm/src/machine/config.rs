// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a machine is given, and how it ends.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use ersatz_device_model::bus::PciFunction;
use ersatz_device_model::dma::DmaSpace;
use ersatz_device_model::interrupt::InterruptSink;

/// The two ends of the guest's serial port, `ttyS0`.
pub struct Console {
    /// Gets each byte the guest sends, as it sends it: `write_all` and `flush` per byte, on a vCPU's thread, which
    /// stands still meanwhile. A sink that fails loses the byte; the guest does not notice.
    pub output: Box<dyn Write + Send>,
    /// Read whenever it is readable, and sent to the guest; end of file ends it. A terminal, pipe, FIFO, eventfd or
    /// socket; something epoll can wait for. Its blocking mode is not changed.
    pub input: Option<File>,
}

/// What a PCI function gets of the machine it is built for.
#[derive(Clone)]
pub struct Connections {
    /// All of guest memory, by guest physical address.
    pub dma: Arc<dyn DmaSpace>,
    /// Where the function's MSI-X messages go.
    pub interrupts: Arc<dyn InterruptSink>,
}

/// Why a function could not be made.
pub type FactoryError = Box<dyn Error + Send + Sync>;

/// Makes a PCI function, once its machine has memory and interrupts.
pub type FunctionFactory = Box<dyn FnOnce(Connections) -> Result<Arc<dyn PciFunction>, FactoryError> + Send>;

/// How a machine came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The guest wrote this byte to the exit port, 0xf4.
    Exited(u8),
    /// The guest powered off.
    PoweredOff,
    /// The guest reset the machine: a reboot, also that of `panic=`; or a triple fault.
    Reset,
    /// [`MachineHandle::stop`](super::MachineHandle::stop) was called.
    Stopped,
}
