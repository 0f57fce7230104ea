// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a rule does when it fires.
//!
//! Some actions are answers of the device at the place where it asks: the event of the rule's trigger is about to come about, and the
//! action changes it or takes it away. The others are carried out beside the event that triggers them, or at a time.

use ersatz_abi::error::ErrorCode;
use ersatz_abi::fault::AccessKind;
use serde::{Deserialize, Serialize};

use super::memory::{MemoryDemand, MemoryLimit, MemoryReturn};
use crate::trace::nearest::nearest;
use crate::trace::{ActionKind, Kind};

/// Most pages for which one action reports faults.
pub const MAX_FAULTS: u16 = 4096;

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", deny_unknown_fields, rename_all = "kebab-case")]
pub enum Action {
    /// The command (`command-start`) or the list entry (`copy`, `fill`, `digest`) fails.
    Fail {
        /// The error with which the channel stops.
        #[serde(with = "error")]
        error: ErrorCode,
        /// How much of a list entry is done before it fails, in bytes, rounded down to a multiple of 8; less than the entry has.
        #[serde(default)]
        bytes: u64,
    },
    /// The fence and all behind it (`fence`), the interrupt (`interrupt`), the acknowledgement (`invalidate-requested`) or the
    /// record (`fault-recorded`, `access-notification`) comes later.
    Delay {
        /// By how much, in nanoseconds.
        ns: u64,
    },
    /// The next interrupt (`interrupt`) or record (`fault-recorded`, `access-notification`) overtakes this one, which comes right behind it.
    Reorder {
        /// After how long it comes if there is no next one until then, in nanoseconds.
        #[serde(default = "reorder_limit")]
        ns: u64,
    },
    /// The fence is not written (`fence`), the interrupt not raised (`interrupt`), the acknowledgement not given until the device is
    /// reset (`invalidate-requested`), the record not written (`fault-recorded`, `access-notification`).
    Drop,
    /// The interrupt is raised twice (`interrupt`), the record written twice (`fault-recorded`, `access-notification`).
    Double,
    /// The ring takes the record for one too many (`fault-recorded`, `access-notification`): it is lost, and the overflow bit is set.
    Overflow,
    /// PUT moves and the interrupt comes as if the record was there (`fault-recorded`); its words, the valid bit last, come later.
    AnnounceEarly {
        /// By how much, in nanoseconds.
        ns: u64,
    },
    /// The engine executes neither this command nor any other one until the device is reset (`command-start`).
    Hang,
    /// The bus refuses a DMA access as if nothing was mapped there.
    Refuse {
        /// How much of the access is done before that, in bytes; less than it has. An atomic access is done as a whole or not at all.
        #[serde(default)]
        bytes: u64,
    },
    /// An interrupt is raised for which there is no reason.
    SpuriousInterrupt {
        /// MSI-X vector.
        vector: u16,
    },
    /// Faults are reported at which no channel waits, one for each of some pages that follow one another.
    Fault {
        /// The channel that the records name.
        channel: u8,
        /// The address space that they name.
        asid: u8,
        /// The first virtual address.
        address: u64,
        /// How it was accessed.
        #[serde(with = "access")]
        access: AccessKind,
        /// The number of pages, at most [`MAX_FAULTS`].
        #[serde(default = "one")]
        count: u16,
    },
    /// Pages of VRAM that follow one another are poisoned, and vector 0 is raised. What is beyond VRAM is left out.
    Poison {
        /// The offset of the first.
        offset: u64,
        /// The number of pages, at most [`MAX_POISONED_PAGES`](ersatz_abi::regs::MAX_POISONED_PAGES) in all.
        #[serde(default = "one")]
        pages: u16,
    },
    /// The host demands memory back from the driver.
    DemandMemory(MemoryDemand),
    /// The host returns memory to the driver.
    ReturnMemory(MemoryReturn),
    /// The host has the driver keep no more memory than a limit: memory is demanded or returned.
    LimitMemory(MemoryLimit),
    /// The function resets itself, as by a function level reset that the driver did not ask for.
    Reset,
    /// The function is gone, as if pulled out of its slot: registers read as all ones, DMA has ended.
    Gone,
    /// The rules are in another state from the next event on.
    SetState {
        /// The state; it is 1 at first.
        state: u32,
    },
}

impl Action {
    /// Its kind, by which the trace names it.
    pub const fn kind(&self) -> ActionKind {
        match self {
            Self::Fail { .. } => ActionKind::Fail,
            Self::Delay { .. } => ActionKind::Delay,
            Self::Reorder { .. } => ActionKind::Reorder,
            Self::Drop => ActionKind::Drop,
            Self::Double => ActionKind::Double,
            Self::Overflow => ActionKind::Overflow,
            Self::AnnounceEarly { .. } => ActionKind::AnnounceEarly,
            Self::Fault { .. } => ActionKind::Fault,
            Self::Hang => ActionKind::Hang,
            Self::Refuse { .. } => ActionKind::Refuse,
            Self::SpuriousInterrupt { .. } => ActionKind::SpuriousInterrupt,
            Self::Poison { .. } => ActionKind::Poison,
            Self::DemandMemory(_) => ActionKind::DemandMemory,
            Self::ReturnMemory(_) => ActionKind::ReturnMemory,
            Self::LimitMemory(_) => ActionKind::LimitMemory,
            Self::Reset => ActionKind::Reset,
            Self::Gone => ActionKind::Gone,
            Self::SetState { .. } => ActionKind::SetState,
        }
    }

    /// The names of the kinds of events that the action decides about; `None` if it is carried out beside any event.
    pub(super) const fn decides_about(&self) -> Option<&'static [&'static str]> {
        match self {
            Self::Fail { .. } => Some(&["command-start", "copy", "fill", "digest"]),
            Self::Delay { .. } | Self::Drop => {
                Some(&["fence", "interrupt", "invalidate-requested", "fault-recorded", "access-notification"])
            }
            Self::Double | Self::Reorder { .. } => Some(&["interrupt", "fault-recorded", "access-notification"]),
            Self::Overflow => Some(&["fault-recorded", "access-notification"]),
            Self::AnnounceEarly { .. } => Some(&["fault-recorded"]),
            Self::Hang => Some(&["command-start"]),
            // DMA accesses are not events.
            Self::Refuse { .. } => Some(&[]),
            Self::SpuriousInterrupt { .. }
            | Self::Fault { .. }
            | Self::Poison { .. }
            | Self::DemandMemory(_)
            | Self::ReturnMemory(_)
            | Self::LimitMemory(_)
            | Self::Reset
            | Self::Gone
            | Self::SetState { .. } => None,
        }
    }

    /// Whether the numbers of an action that is about memory are in their ranges.
    pub(super) fn has_valid_memory(&self) -> bool {
        match self {
            Self::DemandMemory(demand) => demand.is_valid(),
            Self::ReturnMemory(returned) => returned.is_valid(),
            Self::LimitMemory(limit) => limit.is_valid(),
            _ => true,
        }
    }

    /// Whether the action can decide about events of a kind, or is carried out beside any.
    pub(super) fn suits(&self, kind: Kind) -> bool {
        self.decides_about().is_none_or(|names| names.contains(&kind.name()))
    }
}

/// A second.
const fn reorder_limit() -> u64 {
    1_000_000_000
}

const fn one() -> u16 {
    1
}

/// Returns the value of a name. The error names the nearest.
fn of_name<T: Copy>(text: &str, what: &str, all: &[T], name: impl Fn(T) -> &'static str) -> Result<T, String> {
    let found = all.iter().copied().find(|value| name(*value) == text);
    found.ok_or_else(|| {
        let nearest = nearest(text, all.iter().map(|value| name(*value)));
        format!("no {what} is {text:?}; the nearest is {nearest:?}")
    })
}

/// An error as its name.
mod error {
    use ersatz_abi::error::ErrorCode;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
    pub(super) fn serialize<S: Serializer>(code: &ErrorCode, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(code.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ErrorCode, D::Error> {
        let errors: Vec<ErrorCode> = ErrorCode::ALL.iter().copied().filter(|code| *code != ErrorCode::None).collect();
        super::of_name(&String::deserialize(deserializer)?, "error of a command", &errors, ErrorCode::name)
            .map_err(D::Error::custom)
    }
}

/// A kind of access as its name.
mod access {
    use ersatz_abi::fault::AccessKind;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
    pub(super) fn serialize<S: Serializer>(access: &AccessKind, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(access.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<AccessKind, D::Error> {
        super::of_name(&String::deserialize(deserializer)?, "kind of access", AccessKind::ALL, AccessKind::name)
            .map_err(D::Error::custom)
    }
}
