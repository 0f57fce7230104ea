// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory that the host wants back from the driver, and returns: the words of rules and requests.

use serde::{Deserialize, Serialize};

use super::breakpoint::{DEFAULT_DEADLINE_NS, MAX_DEADLINE_NS};

/// Memory that is demanded. Without `offset` it may lie anywhere; without `pages` it is all from the offset on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct MemoryDemand {
    /// The offset in VRAM of the first page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// The number of pages of 4 KiB, besides those that are handed over; at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pages: Option<u64>,
    /// How long the driver has for its answer, in nanoseconds, 1 to [`MAX_DEADLINE_NS`]; [`DEFAULT_DEADLINE_NS`] by default.
    #[serde(default = "default_deadline")]
    pub deadline_ns: u64,
}

/// Memory that is returned, of what was handed over. Without `offset` it may lie anywhere; without `pages` it is all from the offset on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct MemoryReturn {
    /// The offset in VRAM of the first page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// The number of pages of 4 KiB; at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pages: Option<u64>,
}

/// How much memory the driver has: what it has beyond that is demanded, what it lacks is returned as far as there is any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct MemoryLimit {
    /// The number of pages of 4 KiB.
    pub pages: u64,
    /// As [`MemoryDemand::deadline_ns`].
    #[serde(default = "default_deadline")]
    pub deadline_ns: u64,
}

const fn default_deadline() -> u64 {
    DEFAULT_DEADLINE_NS
}

const fn is_deadline(deadline_ns: u64) -> bool {
    1 <= deadline_ns && deadline_ns <= MAX_DEADLINE_NS
}

impl Default for MemoryDemand {
    /// All.
    fn default() -> Self {
        Self { offset: None, pages: None, deadline_ns: DEFAULT_DEADLINE_NS }
    }
}

impl MemoryDemand {
    /// Whether its numbers are in their ranges.
    pub(super) fn is_valid(&self) -> bool {
        self.pages != Some(0) && is_deadline(self.deadline_ns)
    }
}

impl MemoryReturn {
    /// As [`MemoryDemand::is_valid`].
    pub(super) fn is_valid(&self) -> bool {
        self.pages != Some(0)
    }
}

impl MemoryLimit {
    /// A limit of this many pages.
    pub const fn new(pages: u64) -> Self {
        Self { pages, deadline_ns: DEFAULT_DEADLINE_NS }
    }

    /// As [`MemoryDemand::is_valid`].
    pub(super) fn is_valid(&self) -> bool {
        is_deadline(self.deadline_ns)
    }
}
