// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a PCI function is to the bus it sits on.
//!
//! Whatever a function sits on drives it through [`PciFunction`]: the bus of a virtual machine, a server for buses elsewhere,
//! the tests. The GPU implements it, and so can hardware that is passed through. Every method takes `&self`: vCPU threads
//! come in side by side.
//!
//! A function never calls its bus. What only the bus can carry out is an [`Effect`]: accesses return those that they cause, and
//! for those that no access caused the function signals an event ([`PciFunction::event`]), whereupon the bus takes them
//! ([`PciFunction::take_effects`]). Both are carried out in the same way.

use std::fs::File;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

/// Something that changed, by an access or without one, and that only the bus can carry out.
///
/// A change of the power state has no effect of its own: BARs stop to decode or decode again ([`Effect::BarMoved`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A BAR decodes at another address now, or stopped (`None`), or has another size ([`PciFunction::bars`]). The bus
    /// moves its mapping and ioeventfds.
    BarMoved {
        /// Index of the BAR (0 to 5; the low half of a 64-bit one).
        bar: u8,
        /// Guest physical address; `None` while decoding is off.
        address: Option<u64>,
    },
    /// The message or the mask of one MSI-X vector changed: look at [`PciFunction::msix_message`].
    MsixChanged {
        /// The vector.
        vector: u16,
    },
    /// The enable or function-mask bit changed, so any vector may have: look at all of them.
    MsixControlChanged,
    /// A message held back while its vector was masked (or the function not bus master) goes out now: the bus
    /// signals the vector, after it has carried out the effects before this one.
    MsixSend {
        /// The vector.
        vector: u16,
    },
    /// The function was reset: BARs decode nowhere and MSI-X is off.
    Reset,
    /// The parts of a BAR that are memory or doorbells are others now: look at [`PciFunction::mappings`] and
    /// [`PciFunction::doorbells`]. The BAR stays where it is.
    MappingsChanged {
        /// Index of the BAR.
        bar: u8,
    },
    /// The function is gone, as if pulled out of its slot: the bus takes it out, and it never comes back.
    Gone,
}

/// What a bus must know to decode one BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarInfo {
    /// Index of the BAR (0 to 5; the low half of a 64-bit one).
    pub bar: u8,
    /// Size in bytes, a power of two.
    pub size: u64,
    /// Takes two BAR registers.
    pub is_64bit: bool,
    /// Prefetchable.
    pub prefetchable: bool,
}

/// Part of a BAR that is memory: the bus maps the file there and sees no accesses.
#[derive(Clone, Debug)]
pub struct BarMapping {
    /// Index of the BAR.
    pub bar: u8,
    /// Offset in the BAR, page-aligned.
    pub offset: u64,
    /// Length in bytes, page-aligned.
    pub length: u64,
    /// The memory.
    pub file: Arc<File>,
    /// Offset in the file, page-aligned.
    pub file_offset: u64,
}

/// Part of a BAR where any write means no more than "signal this event".
#[derive(Clone, Debug)]
pub struct Doorbell {
    /// Index of the BAR.
    pub bar: u8,
    /// Offset in the BAR.
    pub offset: u64,
    /// Width of the write in bytes.
    pub width: u8,
    /// What to signal. A bus that cannot do so by itself calls [`PciFunction::bar_write`], with the same result.
    pub event: Arc<EventFd>,
}

/// The message of an MSI-X vector that may be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixMessage {
    /// Where the message is written.
    pub address: u64,
    /// What is written.
    pub data: u32,
}

/// One PCI function, seen from its bus.
///
/// No method panics, whatever a guest passes: an access that makes no sense reads as all ones or zeros and
/// writes nothing, as on hardware.
pub trait PciFunction: Send + Sync {
    /// Reads `data.len()` bytes of config space at `offset` (0 to 4095).
    fn config_read(&self, offset: u16, data: &mut [u8]);

    /// Writes config space; returns what the bus has to carry out, in order.
    fn config_write(&self, offset: u16, data: &[u8]) -> Vec<Effect>;

    /// Reads a BAR that is not a mapping.
    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]);

    /// Writes a BAR that is not a mapping; returns what the bus has to carry out, in order.
    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]) -> Vec<Effect>;

    /// The BARs as they are now; a resizable BAR's size changes with [`Effect::BarMoved`].
    fn bars(&self) -> Vec<BarInfo>;

    /// The parts of BARs that are memory.
    fn mappings(&self) -> Vec<BarMapping>;

    /// The parts of BARs that are doorbells.
    fn doorbells(&self) -> Vec<Doorbell>;

    /// Number of MSI-X vectors, 0 for none. The vectors of a function that sends messages by MSI count as such, too.
    fn msix_vectors(&self) -> u16;

    /// The message of a vector; `None` while it is masked or MSI-X is off.
    fn msix_message(&self, vector: u16) -> Option<MsixMessage>;

    /// Conventional reset, as at power-on: what a machine reset does.
    fn reset(&self) -> Vec<Effect>;

    /// The event that the function signals when there are effects to take; `None` if it has none but those of accesses. It
    /// is the same one for as long as the function lives, and does not block.
    fn event(&self) -> Option<Arc<EventFd>> {
        None
    }

    /// Clears the event and takes the effects that are pending, in order. The bus calls this once the event was signalled, and
    /// may at any other time.
    ///
    /// Effects are in the order in which they came about, whichever call returns them: a write that returns effects returns
    /// those that were pending before its own. The bus calls neither this nor a config write before it has carried out
    /// the effects of the call before.
    fn take_effects(&self) -> Vec<Effect> {
        Vec::new()
    }
}
