// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What becomes of faults, in a ring of sixteen.

use std::cell::Cell;
use std::sync::Arc;

use ersatz_abi::fault::FaultKind;
use ersatz_abi::notification::{NOTIFICATION_ORDER_MIN, NotificationStatus, RECORD_BYTES};
use proptest::prelude::*;

use super::*;
use crate::bus_requests::ReportedSpace;
use crate::clock::HostClock;
use crate::dma::{DmaSpace, MapAccess, MappedSpace};
use crate::inject::Injector;
use crate::interrupt::InterruptSink;
use crate::pci::aer::ErrorLog;
use crate::trace::{Event, Identity, TraceFile, TraceOptions, Tracer};

const BASE: u64 = 0x10_0000;
const RECORDS: u64 = 1 << NOTIFICATION_ORDER_MIN;

struct NoInterrupts;

impl InterruptSink for NoInterrupts {
    fn signal(&self, _: u16) {
        panic!("the fault buffer leaves that to its caller");
    }
}

struct Rig {
    ports: Ports,
    space: Arc<MappedSpace>,
    counters: Counters,
    buffer: FaultBuffer,
    interrupts: Cell<u32>,
}

impl Rig {
    fn with(access: MapAccess, tracer: Tracer) -> Self {
        let space = MappedSpace::new();
        let file = tempfile::tempfile().unwrap();
        file.set_len(0x1000).unwrap();
        space.map_file(BASE, 0x1000, file, 0, access).unwrap();
        let space = Arc::new(space);
        let ports = Ports {
            dma: ReportedSpace::new(space.clone(), Arc::new(ErrorLog::new(0)), Arc::default()),
            interrupts: Arc::new(NoInterrupts),
            clock: Arc::new(HostClock::new()),
            tracer,
            injector: Injector::idle(),
        };
        Self { ports, space, counters: Counters::new(), buffer: FaultBuffer::default(), interrupts: Cell::new(0) }
    }

    fn enabled() -> Self {
        let rig = Self::with(MapAccess::ReadWrite, Tracer::disabled());
        rig.enable();
        rig
    }

    fn enable(&self) {
        let ring = &self.buffer.ring;
        assert!(ring.set_up(|setup| (setup.base, setup.order, setup.vector) = (BASE, NOTIFICATION_ORDER_MIN, 2)));
        assert!(ring.switch(true));
    }

    fn record_as(&self, access: AccessKind) -> Result<FaultRecord, Loss> {
        self.record_to(&*self.space.open(), access)
    }

    fn record_to(&self, dma: &dyn DmaSession, access: AccessKind) -> Result<FaultRecord, Loss> {
        let initiator = Initiator { channel: 5, engine: 1, asid: 9 };
        let fault = PageFault { address: 0x7000, access, kind: FaultKind::NotPresent, level: 2 };
        self.buffer.record_or_lose(&self.ports, &self.counters, dma, (initiator, &fault), None, |vector| {
            assert_eq!(vector, 2);
            self.interrupts.set(self.interrupts.get() + 1);
        })
    }

    fn record(&self, access: AccessKind) -> Result<u64, Loss> {
        self.record_as(access).map(|record| record.number)
    }

    /// The record in a slot.
    fn read(&self, slot: u64) -> Option<FaultRecord> {
        let word = |word: u64| self.space.open().load_u64(BASE + slot * RECORD_BYTES + word * 8).unwrap();
        FaultRecord::decode(&[0, 1, 2, 3].map(word))
    }

    fn counts(&self) -> [u64; 3] {
        [Counter::Faults, Counter::FaultsDropped, Counter::PrefetchFaultsDropped]
            .map(|counter| self.counters.get(counter))
    }
}

#[test]
fn a_fault_is_in_memory_as_it_was_met() {
    let rig = Rig::enabled();
    let record = rig.record_as(AccessKind::Write).unwrap();
    assert_eq!(rig.read(0), Some(record));
    assert_eq!((record.number, record.channel, record.engine, record.asid, record.level), (1, 5, 1, 9, 2));
    assert!(record.timestamp <= rig.ports.clock.now());
    assert_eq!(rig.record(AccessKind::Read), Ok(2));
    assert_eq!((rig.counts(), rig.interrupts.get()), ([2, 0, 0], 1));
}

#[test]
fn lost_faults_have_numbers_too() {
    let rig = Rig::with(MapAccess::ReadWrite, Tracer::disabled());
    assert_eq!(rig.record(AccessKind::Read), Err(Loss::Off));
    rig.enable();
    assert_eq!(rig.record_to(&*MappedSpace::new().open(), AccessKind::Read), Err(Loss::DmaError));
    assert_eq!(rig.record(AccessKind::Read), Ok(3));
    // The one that could not be written has its place, too.
    for _ in 2..RECORDS {
        rig.record(AccessKind::Atomic).unwrap();
    }
    assert_eq!(rig.record(AccessKind::Write), Err(Loss::Overflow));
    assert!(rig.buffer.ring.snapshot().status.overflow());
    assert!(rig.buffer.ring.acknowledge(1).is_some());
    assert_eq!(rig.record(AccessKind::Read), Ok(RECORDS + 3));
    assert_eq!(rig.counts(), [RECORDS, 3, 0]);
}

#[test]
fn prefetch_faults_leave_half_of_the_buffer_alone() {
    let rig = Rig::with(MapAccess::ReadWrite, Tracer::disabled());
    assert_eq!(rig.record(AccessKind::Prefetch), Err(Loss::Off));
    rig.enable();
    for _ in 0..=RECORDS / 2 {
        rig.record(AccessKind::Prefetch).unwrap();
    }
    assert_eq!(rig.record(AccessKind::Prefetch), Err(Loss::HalfFull));
    assert!(rig.record(AccessKind::Read).is_ok());
    assert!(rig.buffer.ring.acknowledge(2).is_some());
    assert!(rig.record(AccessKind::Prefetch).is_ok(), "half full is not more than half full");
    assert_eq!(rig.counts(), [RECORDS / 2 + 3, 0, 2]);
    assert_eq!(rig.buffer.ring.snapshot().status, NotificationStatus(0));
    assert_eq!(
        rig.record_to(&*MappedSpace::new().open(), AccessKind::Prefetch),
        Err(Loss::HalfFull),
        "it would not have been written anyway"
    );
}

#[test]
fn memory_that_cannot_be_written_loses_faults_of_all_kinds() {
    let rig = Rig::with(MapAccess::ReadOnly, Tracer::disabled());
    rig.enable();
    assert_eq!(rig.record(AccessKind::Read), Err(Loss::DmaError));
    assert_eq!(rig.interrupts.get(), 1, "the driver is told, and finds the status");
    assert_eq!(rig.record(AccessKind::Prefetch), Err(Loss::DmaError));
    assert_eq!((rig.counts(), rig.buffer.ring.snapshot().status.dma_error()), ([0, 2, 0], true));
}

#[test]
fn a_reset_numbers_from_one() {
    let rig = Rig::enabled();
    assert_eq!([rig.record(AccessKind::Read), rig.record(AccessKind::Read)], [Ok(1), Ok(2)]);
    rig.buffer.reset();
    assert_eq!(rig.record(AccessKind::Read), Err(Loss::Off));
    rig.enable();
    assert_eq!(rig.record(AccessKind::Read), Ok(2));
}

#[test]
fn every_fault_is_in_the_trace() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let options = TraceOptions { identity: Identity::default(), capacity: 100 };
    let tracer = Tracer::create(&path, &options, Arc::new(HostClock::new())).unwrap();
    let rig = Rig::with(MapAccess::ReadWrite, tracer);
    let _ = rig.record(AccessKind::Prefetch);
    rig.enable();
    let record = rig.record_as(AccessKind::Read).unwrap();
    let events: Vec<Event> =
        TraceFile::open(&path).unwrap().records().map(|record| record.unwrap().event().unwrap()).collect();
    assert!(matches!(
        events[0],
        Event::Notification(NotificationEvent::FaultDropped { record: FaultRecord { number: 1, .. }, loss: Loss::Off })
    ));
    assert_eq!(events[1..], [NotificationEvent::FaultRecorded { record, position: 0 }.into()]);
}

proptest! {
    /// Each fault is counted once; those in the ring have rising numbers; a prefetch fault never costs another one its place.
    #[test]
    fn every_fault_is_recorded_or_counted_as_lost(
        steps in prop::collection::vec((prop::sample::select(AccessKind::ALL), 0_u32..3, any::<bool>()), 0..200),
    ) {
        let rig = Rig::enabled();
        let mut recorded = Vec::new();
        let mut get = 0;
        let nowhere = MappedSpace::new();
        for (access, read, is_mapped) in &steps {
            let put = u64::from(rig.buffer.ring.snapshot().put);
            let waiting = put - u64::from(get);
            let space = if *is_mapped { &*rig.space } else { &nowhere };
            match rig.record_to(&*space.open(), *access) {
                Ok(record) => {
                    prop_assert_eq!(rig.read(put % RECORDS), Some(record));
                    recorded.push(record.number);
                }
                Err(Loss::HalfFull) => prop_assert!(*access == AccessKind::Prefetch && waiting > RECORDS / 2),
                Err(Loss::DmaError) => prop_assert!(!is_mapped && waiting < RECORDS),
                Err(loss) => prop_assert_eq!((loss, waiting), (Loss::Overflow, RECORDS)),
            }
            if *access == AccessKind::Prefetch {
                prop_assert_ne!(rig.buffer.ring.snapshot().put.wrapping_sub(get), RECORDS as u32 + 1);
            }
            get = (get + read).min(rig.buffer.ring.snapshot().put);
            prop_assert!(rig.buffer.ring.acknowledge(get).is_some());
        }
        prop_assert!(recorded.is_sorted());
        let [faults, dropped, prefetches] = rig.counts();
        prop_assert_eq!(faults, recorded.len() as u64);
        prop_assert_eq!(faults + dropped + prefetches, steps.len() as u64);
    }
}
