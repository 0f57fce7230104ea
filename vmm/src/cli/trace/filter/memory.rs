// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which events about virtual memory, faults and hot regions are about a range of addresses.

use ersatz_abi::mmu::Invalidation;
use ersatz_device_model::trace::{MmuEvent, NotificationEvent};

use crate::cli::trace::range::Range;

/// Whether an event of the MMU is about memory in the range, by virtual address or by where that led.
pub fn is_about_mmu(event: &MmuEvent, range: Range) -> bool {
    match *event {
        MmuEvent::Translation { address, page, size, .. } => {
            range.touches(address, size.bytes()) || range.touches(page.address, size.bytes())
        }
        MmuEvent::Access { address, location, length, .. } => {
            range.touches(address, length) || range.touches(location.address, length)
        }
        MmuEvent::InvalidateRequested { invalidation, .. } => match invalidation {
            Invalidation::Range { address, length, .. } => range.touches(address, length),
            Invalidation::All | Invalidation::AddressSpace(_) => true,
        },
        MmuEvent::AddressSpaceEnabled { .. }
        | MmuEvent::AddressSpaceDisabled { .. }
        | MmuEvent::InvalidateAcknowledged { .. } => false,
    }
}

/// Whether an event of a notification ring is about memory in the range. A hot region is looked up by where it begins: how
/// large regions are, the log does not say.
pub fn is_about_notification(event: &NotificationEvent, range: Range) -> bool {
    match *event {
        NotificationEvent::FaultRecorded { record, .. } | NotificationEvent::FaultLost { record, .. } => {
            range.contains(record.address)
        }
        NotificationEvent::HotRegion { record, .. } | NotificationEvent::HotRegionLost { record, .. } => {
            range.contains(record.region)
        }
        NotificationEvent::Replay { .. } | NotificationEvent::FaultCancelled { .. } => false,
    }
}
