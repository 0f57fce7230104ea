// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The figures of virtual memory: translations, accesses, invalidations, faults, access notifications.

use std::collections::BTreeMap;

use ersatz_abi::command::Aperture;
use ersatz_abi::fault::{AccessKind, FaultKind};

use crate::trace::enumeration::Loss;
use crate::trace::event::{MmuEvent, NotificationEvent};

/// What a log says of virtual memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VirtualMemory {
    /// Translations that engines put into their TLBs.
    pub tlb_fills: u64,
    /// Bytes accessed through translations, by how and where.
    pub accessed: BTreeMap<(AccessKind, Aperture), u64>,
    /// Invalidations asked for.
    pub invalidations: u64,
    /// Those of them that were acknowledged.
    pub invalidations_acknowledged: u64,
    /// Faults in the fault buffer.
    pub faults: BTreeMap<FaultKind, u64>,
    /// Those of them that were prefetches, which no command waits for.
    pub prefetch_faults: u64,
    /// Faults that were dropped.
    pub faults_dropped: BTreeMap<Loss, u64>,
    /// Replays.
    pub replays: u64,
    /// Faults cancelled.
    pub faults_cancelled: u64,
    /// Access notifications in the access counters' ring.
    pub access_notifications: u64,
    /// Access notifications that were dropped.
    pub access_notifications_dropped: BTreeMap<Loss, u64>,
}

impl VirtualMemory {
    /// Whether the log says anything about it.
    pub fn is_used(&self) -> bool {
        *self != Self::default()
    }

    /// Faults in the fault buffer, whatever their kind.
    pub fn faults_in_all(&self) -> u64 {
        self.faults.values().sum()
    }

    pub(super) fn add_mmu(&mut self, event: &MmuEvent) {
        match *event {
            MmuEvent::TlbFill { .. } => self.tlb_fills += 1,
            MmuEvent::Access { kind, location, length, .. } => {
                let bytes = self.accessed.entry((kind, location.aperture)).or_default();
                *bytes = bytes.saturating_add(length);
            }
            MmuEvent::InvalidateRequested { .. } => self.invalidations += 1,
            MmuEvent::InvalidateAcknowledged { .. } => self.invalidations_acknowledged += 1,
            _ => {}
        }
    }

    pub(super) fn add_notification(&mut self, event: &NotificationEvent) {
        match *event {
            NotificationEvent::FaultRecorded { record, .. } => {
                *self.faults.entry(record.kind).or_default() += 1;
                self.prefetch_faults += u64::from(record.access == AccessKind::Prefetch);
            }
            NotificationEvent::FaultDropped { loss, .. } => *self.faults_dropped.entry(loss).or_default() += 1,
            NotificationEvent::Replay { .. } => self.replays += 1,
            NotificationEvent::FaultCancelled { .. } => self.faults_cancelled += 1,
            NotificationEvent::AccessNotification { .. } => self.access_notifications += 1,
            NotificationEvent::AccessNotificationDropped { loss, .. } => {
                *self.access_notifications_dropped.entry(loss).or_default() += 1
            }
            #[allow(unreachable_patterns, reason = "an event that changes no figure needs no arm")]
            _ => {}
        }
    }
}
