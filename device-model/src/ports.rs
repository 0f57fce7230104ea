// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the device reaches of the machine around it.

use std::sync::Arc;

use crate::bus_requests::ReportedSpace;
use crate::clock::Clock;
use crate::inject::Injector;
use crate::interrupt::InterruptSink;
use crate::trace::Tracer;

/// The machine around the device.
pub(crate) struct Ports {
    pub(crate) dma: ReportedSpace,
    pub(crate) interrupts: Arc<dyn InterruptSink>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) tracer: Tracer,
    /// What is to be held or made to fail.
    pub(crate) injector: Arc<Injector>,
}
