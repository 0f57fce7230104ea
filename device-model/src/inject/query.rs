// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a device knows of itself, for those who watch it from the host. Each part is as of one moment; the parts are read one after
//! the other while the device works.

use serde::Serialize;

use super::holds::Hold;

/// What a device knows of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct DeviceView {
    /// The channels that are not disabled.
    pub channels: Vec<ChannelView>,
    /// The fault buffer.
    pub fault_buffer: RingView,
    /// The access counters' ring.
    pub access_ring: RingView,
    /// Number of the last invalidation that is acknowledged.
    pub acknowledged: u64,
    /// The address spaces that are enabled.
    pub address_spaces: Vec<AddressSpaceView>,
    /// What the TLBs hold: the pages of VRAM and of other memory that engines reach without a walk.
    pub translations: Vec<TranslationView>,
    /// The engines that hang.
    pub hung_engines: Vec<u8>,
    /// Whose VRAM is.
    pub memory: MemoryView,
    /// What is held.
    pub holds: Vec<Hold>,
}

/// A channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ChannelView {
    /// Its number.
    pub channel: u8,
    /// The name of its state.
    pub state: &'static str,
    /// The name of its error.
    pub error: &'static str,
    /// Number of its engine.
    pub engine: u32,
    /// Its address space.
    pub asid: u32,
    /// Ring position of its next command.
    pub get: u32,
    /// The last fence value that it has signalled.
    pub fence: u64,
    /// What its command waits for, by name.
    pub waits_for: Option<&'static str>,
    /// The address at which it waits for a replay.
    pub faulted_at: Option<u64>,
}

/// A notification ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RingView {
    /// Whether it is enabled.
    pub enabled: bool,
    /// Position up to which the driver has read.
    pub get: u32,
    /// Position of the next record.
    pub put: u32,
    /// Whether records were lost because it was full.
    pub overflow: bool,
}

/// An address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct AddressSpaceView {
    /// Its number.
    pub asid: u8,
    /// The entry above its root table (`ersatz_abi::mmu::PageTableEntry`).
    pub root: u64,
    /// Whether its faults are replayable.
    pub replayable: bool,
}

/// A translation in the TLB of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TranslationView {
    /// The engine.
    pub engine: u8,
    /// The address space.
    pub asid: u8,
    /// First virtual address of the page.
    pub address: u64,
    /// Size of the page in bytes.
    pub bytes: u64,
    /// The name of the memory that it leads to.
    pub aperture: &'static str,
    /// Address of the page there.
    pub location: u64,
    /// Whether it may be written.
    pub write: bool,
}

/// Whose VRAM is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct MemoryView {
    /// The number of pages of 4 KiB that there are.
    pub pages: u64,
    /// How many of them the driver has handed over.
    pub handed_over: u64,
    /// How many demands the driver has answered.
    pub answered: u64,
    /// How many demands had no answer by their deadlines.
    pub expired: u64,
    /// The demand that waits for an answer.
    pub demand: Option<DemandView>,
}

/// A demand for memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct DemandView {
    /// Its number.
    pub number: u64,
    /// How many pages are still to be handed over.
    pub left: u64,
    /// When it ends without an answer, in nanoseconds of the device's clock.
    pub deadline_ns: u64,
}
