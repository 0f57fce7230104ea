// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Interrupts: the in-kernel I/O APIC's pins, and MSI-X messages by irqfd.
//!
//! Each MSI-X vector of each function has an eventfd and a GSI of its own. Signalling the eventfd makes KVM send the
//! message that the GSI is routed to, with no vCPU exit and no thread of ours.
//!
//! KVM listens to a vector's eventfd only while the vector has a message. Signals that come while it has none (it is masked) are
//! kept by the eventfd, and KVM sends them as one when it listens again. Hardware whose interrupts are passed on needs that: it
//! does not know the guest's masks.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use ersatz_device_model::bus::MsixMessage;
use ersatz_device_model::interrupt::InterruptSink;
use ersatz_guest_image::error_chain::chain;
use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KvmIrqRouting, kvm_irq_routing_entry,
    kvm_irq_routing_irqchip, kvm_irq_routing_msi,
};
use kvm_ioctls::VmFd;
use thiserror::Error;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::kvm_error::KvmError;

/// Pins of the I/O APIC: GSIs 0 to 23.
const IO_APIC_PINS: u32 = 24;
/// GSIs that KVM knows.
const MAX_GSIS: u32 = 4096;

/// Why a function has no interrupts.
#[derive(Debug, Error)]
pub enum InterruptError {
    /// All GSIs are taken.
    #[error("{vectors} MSI-X vectors are more than there are interrupts left")]
    TooMany {
        /// Vectors asked for.
        vectors: u16,
    },
    /// No eventfd could be had.
    #[error("cannot make an eventfd; is the limit of open files too low?")]
    EventFd(#[source] io::Error),
    /// KVM refused.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// The vectors are another function's.
    #[error("one interrupt sink was given to two functions")]
    Connected,
}

/// A GSI beyond the I/O APIC's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gsi {
    /// It belongs to no vector.
    Free,
    /// It belongs to a vector, which sends this message; `None` while the vector is masked.
    Taken(Option<MsixMessage>),
}

impl Gsi {
    /// Whether it has a message, so that KVM listens to its event.
    fn has_message(self) -> bool {
        matches!(self, Self::Taken(Some(_)))
    }
}

/// Which message each GSI beyond the I/O APIC's sends.
pub struct Interrupts {
    vm: Arc<VmFd>,
    gsis: Mutex<Vec<Gsi>>,
}

impl Interrupts {
    /// The interrupts of `vm`, whose irqchip is in the kernel. Only the pins of the I/O APIC are routed.
    ///
    /// # Errors
    ///
    /// [`KvmError`] if KVM refuses the routes.
    pub fn new(vm: Arc<VmFd>) -> Result<Self, KvmError> {
        let interrupts = Self { vm, gsis: Mutex::default() };
        interrupts.write_routes(&[])?;
        Ok(interrupts)
    }

    fn gsis(&self) -> MutexGuard<'_, Vec<Gsi>> {
        self.gsis.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes GSIs for `vectors` vectors; returns their range, as indices behind the I/O APIC's pins.
    fn allocate(&self, vectors: u16) -> Result<Range<usize>, InterruptError> {
        let mut gsis = self.gsis();
        let range = free_run(&gsis, vectors.into());
        if range.end > (MAX_GSIS - IO_APIC_PINS) as usize {
            return Err(InterruptError::TooMany { vectors });
        }
        let length = gsis.len().max(range.end);
        gsis.resize(length, Gsi::Free);
        gsis[range.clone()].fill(Gsi::Taken(None));
        Ok(range)
    }

    /// Gives GSIs back, whose events are `events`. They send nothing any more.
    fn release(&self, range: Range<usize>, events: &[EventFd], gsis: &mut [Gsi]) {
        let mut had_routes = false;
        for (number, event) in range.clone().zip(events) {
            if gsis[number].has_message() {
                self.detach(event, number);
                had_routes = true;
            }
        }
        gsis[range].fill(Gsi::Free);
        if had_routes {
            self.update_routes(gsis);
        }
    }

    /// Routes some of a function's vectors to the messages that `message` gives.
    pub fn route(&self, msix: &MsixVectors, vectors: Range<u16>, message: impl Fn(u16) -> Option<MsixMessage>) {
        let Some(connected) = msix.0.get() else {
            return;
        };
        let mut gsis = self.gsis();
        if connected.released.load(Ordering::Relaxed) {
            return;
        }
        let mut changed = false;
        let mut unmasked = Vec::new();
        for (number, vector) in connected.gsis.clone().zip(0..) {
            let Some(event) = connected.events.get(usize::from(vector)).filter(|_| vectors.contains(&vector)) else {
                continue;
            };
            // Asked for under the lock: of two threads the last one to get here sees the latest.
            let new = Gsi::Taken(message(vector));
            let old = std::mem::replace(&mut gsis[number], new);
            changed |= old != new;
            match (old.has_message(), new.has_message()) {
                // Before the route goes: what is signalled from now on is kept.
                (true, false) => self.detach(event, number),
                (false, true) => unmasked.push((event, number)),
                _ => {}
            }
        }
        if changed {
            self.update_routes(&gsis);
        }
        for (event, number) in unmasked {
            self.attach(event, number);
        }
    }

    /// Has KVM send the message of a GSI when `event` is signalled, and now if it is already.
    fn attach(&self, event: &EventFd, number: usize) {
        if let Err(error) = self.vm.register_irqfd(event, gsi_number(number)) {
            log::error!("KVM does not connect interrupt {}: {error}", gsi_number(number));
        }
    }

    /// Has KVM not listen to `event` any more. All that was signalled before is sent.
    fn detach(&self, event: &EventFd, number: usize) {
        if let Err(error) = self.vm.unregister_irqfd(event, gsi_number(number)) {
            log::error!("KVM does not disconnect interrupt {}: {error}", gsi_number(number));
        }
    }

    fn update_routes(&self, gsis: &[Gsi]) {
        if let Err(error) = self.write_routes(gsis) {
            log::error!("{}", chain(&error));
        }
    }

    /// Gives KVM all routes.
    fn write_routes(&self, gsis: &[Gsi]) -> Result<(), KvmError> {
        let pins = (0..IO_APIC_PINS).map(pin_route);
        let messages = gsis.iter().zip(IO_APIC_PINS..).filter_map(|(gsi, number)| match *gsi {
            Gsi::Taken(Some(message)) => Some(message_route(number, message)),
            Gsi::Taken(None) | Gsi::Free => None,
        });
        let entries: Vec<_> = pins.chain(messages).collect();
        let routing = KvmIrqRouting::from_entries(&entries).map_err(|_| KvmError::ListTooLong(entries.len()))?;
        self.vm.set_gsi_routing(&routing).map_err(KvmError::doing("routing interrupts"))
    }
}

/// The first run of `count` free GSIs. It may reach beyond the end of the list, where all are free.
fn free_run(gsis: &[Gsi], count: usize) -> Range<usize> {
    let mut start = 0;
    for (index, gsi) in gsis.iter().enumerate() {
        if index - start == count {
            break;
        }
        if *gsi != Gsi::Free {
            start = index + 1;
        }
    }
    start..start + count
}

fn pin_route(pin: u32) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry { gsi: pin, type_: KVM_IRQ_ROUTING_IRQCHIP, ..Default::default() };
    entry.u.irqchip = kvm_irq_routing_irqchip { irqchip: KVM_IRQCHIP_IOAPIC, pin };
    entry
}

fn message_route(gsi: u32, message: MsixMessage) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
    entry.u.msi = kvm_irq_routing_msi {
        address_lo: message.address as u32,
        address_hi: (message.address >> 32) as u32,
        data: message.data,
        ..Default::default()
    };
    entry
}

/// The vectors of a function that is on the bus, or has left it.
struct Connected {
    interrupts: Arc<Interrupts>,
    gsis: Range<usize>,
    events: Vec<EventFd>,
    /// The GSIs have been given back; changed while the list of GSIs is locked. Nobody listens to the events any more.
    released: AtomicBool,
}

impl Connected {
    fn new(interrupts: &Arc<Interrupts>, vectors: u16) -> Result<Self, InterruptError> {
        let gsis = interrupts.allocate(vectors)?;
        // From here on dropping it gives back what was taken.
        let mut connected = Self {
            interrupts: Arc::clone(interrupts),
            gsis: gsis.clone(),
            events: Vec::new(),
            released: AtomicBool::new(false),
        };
        for _ in gsis {
            connected.events.push(EventFd::new(EFD_NONBLOCK).map_err(InterruptError::EventFd)?);
        }
        Ok(connected)
    }

    /// Gives the GSIs back, once.
    fn release(&self) {
        let mut gsis = self.interrupts.gsis();
        if self.released.swap(true, Ordering::Relaxed) {
            return;
        }
        self.interrupts.release(self.gsis.clone(), &self.events, &mut gsis);
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.release();
    }
}

/// KVM's number of a GSI, of which there are [`MAX_GSIS`] at most.
fn gsi_number(index: usize) -> u32 {
    IO_APIC_PINS + index as u32
}

/// The MSI-X vectors of one function. It is made before the function, which is given it as its sink; connected
/// after, when the number of vectors is known; and disconnected when the function leaves the bus.
#[derive(Default)]
pub struct MsixVectors(OnceLock<Connected>);

impl MsixVectors {
    /// Makes `vectors` vectors that can be signalled. They send nothing until they are routed.
    ///
    /// # Errors
    ///
    /// [`InterruptError`] if there is no room for them.
    pub fn connect(&self, interrupts: &Arc<Interrupts>, vectors: u16) -> Result<(), InterruptError> {
        self.0.set(Connected::new(interrupts, vectors)?).map_err(|_| InterruptError::Connected)
    }

    /// Gives the vectors back. Signals have no effect from now on.
    pub fn disconnect(&self) {
        if let Some(connected) = self.0.get() {
            connected.release();
        }
    }
}

impl InterruptSink for MsixVectors {
    fn signal(&self, vector: u16) {
        let event = self.0.get().and_then(|connected| connected.events.get(usize::from(vector)));
        match event.map(|event| event.write(1)) {
            Some(Ok(())) => {}
            Some(Err(error)) => log::error!("cannot signal MSI-X vector {vector}: {error}"),
            None => log::warn!("the device signals MSI-X vector {vector}, which it does not have"),
        }
    }

    fn event(&self, vector: u16) -> Option<&EventFd> {
        self.0.get()?.events.get(usize::from(vector))
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::{Duration, Instant};

    use kvm_ioctls::{Kvm, VcpuFd};
    use proptest::prelude::*;

    use super::*;

    /// Registers of the local APIC, as offsets in its page.
    const SPURIOUS_VECTOR: usize = 0xf0;
    const REQUESTS: usize = 0x200;
    /// Software enable, in the spurious vector register.
    const ENABLE: u32 = 1 << 8;

    fn machine() -> (Arc<Interrupts>, VcpuFd) {
        let vm = Kvm::new().expect("these tests need /dev/kvm").create_vm().unwrap();
        vm.create_irq_chip().unwrap();
        let vcpu = vm.create_vcpu(0).unwrap();
        let mut apic = vcpu.get_lapic().unwrap();
        for (register, byte) in apic.regs[SPURIOUS_VECTOR..].iter_mut().zip((ENABLE | 0xff).to_le_bytes()) {
            *register = byte as _;
        }
        vcpu.set_lapic(&apic).unwrap();
        (Arc::new(Interrupts::new(Arc::new(vm)).unwrap()), vcpu)
    }

    /// Whether the local APIC has a request for this interrupt vector.
    fn is_requested(vcpu: &VcpuFd, vector: u8) -> bool {
        let apic = vcpu.get_lapic().unwrap();
        let byte = apic.regs[REQUESTS + usize::from(vector / 32) * 16 + usize::from(vector % 32 / 8)];
        byte as u8 >> (vector % 8) & 1 == 1
    }

    /// KVM may send the message a little after it was signalled.
    fn becomes_requested(vcpu: &VcpuFd, vector: u8) -> bool {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(30) {
            if is_requested(vcpu, vector) {
                return true;
            }
            thread::sleep(Duration::from_millis(1));
        }
        false
    }

    fn message(vector: u8) -> MsixMessage {
        MsixMessage { address: 0xfee0_0000, data: vector.into() }
    }

    #[test]
    fn a_signal_becomes_the_message_that_is_routed_now() {
        let (interrupts, vcpu) = machine();
        let (first, second) = (MsixVectors::default(), MsixVectors::default());
        first.connect(&interrupts, 3).unwrap();
        second.connect(&interrupts, 2).unwrap();

        interrupts.route(&first, 0..3, |vector| Some(message(0x40 + vector as u8)));
        interrupts.route(&second, 0..2, |vector| Some(message(0x50 + vector as u8)));
        first.signal(1);
        second.signal(1);
        assert!(becomes_requested(&vcpu, 0x41) && becomes_requested(&vcpu, 0x51));
        assert!(![0x40, 0x42, 0x50].into_iter().any(|vector| is_requested(&vcpu, vector)));

        interrupts.route(&first, 1..2, |_| Some(message(0x61)));
        first.signal(1);
        assert!(becomes_requested(&vcpu, 0x61));
    }

    #[test]
    fn signals_of_a_masked_vector_are_sent_when_it_has_a_message() {
        let (interrupts, vcpu) = machine();
        let msix = MsixVectors::default();
        msix.connect(&interrupts, 2).unwrap();
        msix.signal(0); // it has had no message yet
        interrupts.route(&msix, 0..2, |vector| Some(message(0x40 + vector as u8)));
        assert!(becomes_requested(&vcpu, 0x40));

        interrupts.route(&msix, 1..2, |_| None);
        msix.event(1).unwrap().write(1).unwrap();
        interrupts.route(&msix, 0..1, |_| Some(message(0x50)));
        msix.signal(0);
        assert!(becomes_requested(&vcpu, 0x50) && !is_requested(&vcpu, 0x41));
        interrupts.route(&msix, 1..2, |_| Some(message(0x51)));
        assert!(becomes_requested(&vcpu, 0x51) && !is_requested(&vcpu, 0x41), "the message is the present one");
    }

    #[test]
    fn vectors_that_are_not_there_are_refused() {
        let (interrupts, _vcpu) = machine();
        let msix = MsixVectors::default();
        msix.signal(0); // before it is connected
        msix.connect(&interrupts, 1).unwrap();
        msix.signal(1);
        interrupts.route(&msix, 0..u16::MAX, |_| None);
        assert!(matches!(msix.connect(&interrupts, 1), Err(InterruptError::Connected)));
        let greedy = MsixVectors::default();
        assert!(matches!(greedy.connect(&interrupts, 4096), Err(InterruptError::TooMany { vectors: 4096 })));
    }

    #[test]
    fn disconnected_vectors_send_nothing_and_are_used_again() {
        let (interrupts, vcpu) = machine();
        let (first, second, third) = (MsixVectors::default(), MsixVectors::default(), MsixVectors::default());
        first.connect(&interrupts, 3).unwrap();
        second.connect(&interrupts, 2).unwrap();
        interrupts.route(&first, 0..3, |vector| Some(message(0x40 + vector as u8)));
        interrupts.route(&second, 0..2, |vector| Some(message(0x50 + vector as u8)));
        first.disconnect();
        first.signal(0);
        assert_eq!(interrupts.gsis()[..3], [Gsi::Free; 3]);
        assert!(matches!(first.connect(&interrupts, 3), Err(InterruptError::Connected)), "once is enough");

        third.connect(&interrupts, 3).unwrap();
        assert_eq!(interrupts.gsis().len(), 5);
        interrupts.route(&third, 0..3, |vector| Some(message(0x60 + vector as u8)));
        third.signal(0);
        second.signal(1);
        assert!(becomes_requested(&vcpu, 0x60) && becomes_requested(&vcpu, 0x51));
        assert!(!is_requested(&vcpu, 0x40));
    }

    proptest! {
        #[test]
        fn a_free_run_is_the_first_that_is_free(taken in prop::collection::vec(any::<bool>(), 0..40), count in 0usize..8) {
            let gsis: Vec<_> = taken.iter().map(|taken| if *taken { Gsi::Taken(None) } else { Gsi::Free }).collect();
            let free = |range: Range<usize>| range.into_iter().all(|index| gsis.get(index).is_none_or(|gsi| *gsi == Gsi::Free));
            let run = free_run(&gsis, count);
            prop_assert_eq!(run.len(), count);
            prop_assert!(free(run.clone()));
            prop_assert!(!(0..run.start).any(|start| free(start..start + count)) || count == 0);
        }
    }
}
