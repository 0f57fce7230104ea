// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Deliveries of events to the guest that KVM takes for failed though none was under way.
//!
//! On AMD processors KVM (Linux 7.2) looks for an event under delivery in the *type* bits of EXITINTINFO alone, without the valid
//! bit. QEMU's emulated SVM leaves there the type of the guest's last exception. So if the guest's first access to a page of
//! registers follows an exception (a page fault of its own) with no other exit in between, KVM reports a failed delivery. It has
//! done nothing then, and entering the guest once more does the access: this time the bits are clear.
//!
//! Pages of registers are new to KVM after each change of the memory slots, so BARs that move or change size bring this about.

use kvm_bindings::{KVM_INTERNAL_ERROR_DELIVERY_EV, kvm_vcpu_events};

/// Most attempts without progress. One does; more than a few are another fault.
const ATTEMPTS: u32 = 4;

/// Counts the false reports in a row.
#[derive(Debug, Default)]
pub struct FalseDeliveries(u32);

impl FalseDeliveries {
    /// Whether to enter the guest again after this internal error, with these events where the guest stands. An event whose
    /// delivery did fail is among them: KVM has queued it again.
    pub fn excuse(&mut self, suberror: u32, events: &kvm_vcpu_events) -> bool {
        let queued =
            [events.exception.injected, events.exception.pending, events.interrupt.injected, events.nmi.injected];
        if suberror != KVM_INTERNAL_ERROR_DELIVERY_EV || queued.into_iter().any(|flag| flag != 0) {
            return false;
        }
        self.0 += 1;
        self.0 <= ATTEMPTS
    }

    /// The guest got on.
    pub fn progress(&mut self) {
        self.0 = 0;
    }
}

#[cfg(test)]
mod tests {
    use kvm_bindings::KVM_INTERNAL_ERROR_EMULATION;

    use super::*;

    #[test]
    fn a_delivery_of_nothing_did_not_fail() {
        let mut deliveries = FalseDeliveries::default();
        let nothing = kvm_vcpu_events::default();
        assert!(deliveries.excuse(KVM_INTERNAL_ERROR_DELIVERY_EV, &nothing));
        assert!(!deliveries.excuse(KVM_INTERNAL_ERROR_EMULATION, &nothing));
        let mut queued = [nothing; 4];
        queued[0].exception.injected = 1;
        queued[1].exception.pending = 1;
        queued[2].interrupt.injected = 1;
        queued[3].nmi.injected = 1;
        assert!(!queued.iter().any(|events| deliveries.excuse(KVM_INTERNAL_ERROR_DELIVERY_EV, events)));
    }

    #[test]
    fn without_progress_there_is_an_end_to_it() {
        let mut deliveries = FalseDeliveries::default();
        let mut excuse = || deliveries.excuse(KVM_INTERNAL_ERROR_DELIVERY_EV, &kvm_vcpu_events::default());
        assert_eq!((0..10).filter(|_| excuse()).count(), ATTEMPTS as usize);
        deliveries.progress();
        assert!(deliveries.excuse(KVM_INTERNAL_ERROR_DELIVERY_EV, &kvm_vcpu_events::default()));
    }
}
