// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A ring in memory, against a driver that does things at any moment.

use std::collections::VecDeque;

use ersatz_abi::notification::{NOTIFICATION_ORDER_MIN, RECORD_BYTES, RECORD_VALID_WORD};
use proptest::prelude::*;

use super::*;
use crate::dma::{DmaSpace, MapAccess, MappedSpace};

const BASE: u64 = 0x10_0000;
const RECORDS: u32 = 1 << NOTIFICATION_ORDER_MIN;
const VALID: u64 = 1 << 63;

fn memory(access: MapAccess) -> MappedSpace {
    let space = MappedSpace::new();
    let file = tempfile::tempfile().unwrap();
    file.set_len(0x1000).unwrap();
    space.map_file(BASE, 0x1000, file, 0, access).unwrap();
    space
}

fn enabled() -> NotificationRing {
    let ring = NotificationRing::default();
    let setup = Setup { base: BASE, order: NOTIFICATION_ORDER_MIN, vector: 3 };
    assert!(ring.set_up(|place| *place = setup) && ring.switch(true));
    ring
}

/// The words of record `number`: each different, the valid bit in its place.
fn record(number: u64) -> [u64; RECORD_WORDS] {
    [number, VALID | number, !number, number << 8]
}

/// What a driver does by itself.
struct Driver<'a> {
    ring: &'a NotificationRing,
    memory: &'a MappedSpace,
    /// Up to where it has read.
    next: u32,
    /// What it has read.
    read: Vec<u64>,
    /// Interrupts since it last wrote GET.
    interrupts: u32,
}

impl Driver<'_> {
    fn word(&self, position: u32, word: usize) -> u64 {
        BASE + u64::from(position % RECORDS) * RECORD_BYTES + word as u64 * 8
    }

    /// Reads a record, if there is one and its bit is set; clears the bit.
    fn read_one(&mut self) -> bool {
        if self.ring.snapshot().put == self.next {
            return false;
        }
        let words = [0, 1, 2, 3].map(|word| self.memory.open().load_u64(self.word(self.next, word)).unwrap());
        if words[RECORD_VALID_WORD] & VALID == 0 {
            return false;
        }
        assert_eq!(words, record(words[0]), "torn");
        self.memory.open().store_u64(self.word(self.next, RECORD_VALID_WORD), 0).unwrap();
        self.next = self.next.wrapping_add(1);
        self.read.push(words[0]);
        true
    }

    fn write_get(&mut self) {
        let acknowledged = self.ring.acknowledge(self.next).expect("no more than there was");
        self.interrupts = u32::from(acknowledged.interrupt.is_some());
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Claim,
    /// Writes one of the records that are claimed.
    Fill(usize),
    Read,
    WriteGet,
    ClearOverflow,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Claim),
        4 => (0_usize..4).prop_map(Step::Fill),
        4 => Just(Step::Read),
        1 => Just(Step::WriteGet),
        1 => Just(Step::ClearOverflow),
    ]
}

proptest! {
    /// No record is lost but by an overflow that the status shows, none is read twice, none out of order, none torn; and
    /// whenever the ring is not empty, an interrupt has come or will since GET was written.
    #[test]
    fn a_driver_at_any_moment_misses_nothing(steps in prop::collection::vec(step(), 0..400)) {
        let (ring, memory) = (enabled(), memory(MapAccess::ReadWrite));
        let mut driver = Driver { ring: &ring, memory: &memory, next: 0, read: Vec::new(), interrupts: 0 };
        let mut under_way: VecDeque<(Claim, u64)> = VecDeque::new();
        let (mut number, mut accepted, mut overflow) = (0, Vec::new(), false);
        for step in steps {
            match step {
                Step::Claim => {
                    number += 1;
                    match ring.claim(false) {
                        Ok(claim) => {
                            accepted.push(number);
                            under_way.push_back((claim, number));
                        }
                        Err(loss) => {
                            prop_assert_eq!(loss, Loss::Overflow);
                            overflow = true;
                        }
                    }
                }
                Step::Fill(which) => {
                    if let Some((claim, number)) = under_way.remove(which) {
                        prop_assert_eq!(ring.fill(&*memory.open(), &claim, &record(number)), Ok(()));
                        driver.interrupts += u32::from(claim.interrupt.is_some());
                    }
                }
                Step::Read => {
                    driver.read_one();
                }
                Step::WriteGet => driver.write_get(),
                Step::ClearOverflow => {
                    ring.clear_status(NotificationStatus(0).with_overflow(true));
                    overflow = false;
                }
            }
            let now = ring.snapshot();
            prop_assert_eq!(now.status, NotificationStatus(0).with_overflow(overflow));
            let due = under_way.iter().filter(|(claim, _)| claim.interrupt.is_some()).count();
            prop_assert!(now.put == now.get || driver.interrupts > 0 || due > 0, "asleep with records");
        }
        for (claim, number) in under_way {
            ring.fill(&*memory.open(), &claim, &record(number)).unwrap();
        }
        while driver.read_one() {}
        prop_assert_eq!(driver.read, accepted);
    }
}

#[test]
fn the_valid_bit_is_not_there_before_the_rest() {
    let (ring, memory) = (enabled(), memory(MapAccess::ReadWrite));
    let mut driver = Driver { ring: &ring, memory: &memory, next: 0, read: Vec::new(), interrupts: 0 };
    let claims = [ring.claim(false).unwrap(), ring.claim(false).unwrap()];
    assert_eq!(ring.snapshot().put, 2, "PUT moves first");
    ring.fill(&*memory.open(), &claims[1], &record(1)).unwrap();
    assert!(!driver.read_one(), "the second is there, the first is not");
    ring.fill(&*memory.open(), &claims[0], &record(0)).unwrap();
    assert!(driver.read_one() && driver.read_one() && !driver.read_one());
    assert_eq!(driver.read, [0, 1]);
}

#[test]
fn memory_that_cannot_be_written_costs_the_record() {
    let ring = enabled();
    for memory in [MappedSpace::new(), memory(MapAccess::ReadOnly)] {
        ring.clear_status(NotificationStatus(0).with_dma_error(true));
        let claim = ring.claim(false).unwrap();
        assert_eq!(ring.fill(&*memory.open(), &claim, &record(0)), Err(Loss::DmaError));
        assert_eq!(ring.snapshot().status, NotificationStatus(0).with_dma_error(true));
    }
    assert_eq!(ring.snapshot().put, 2, "the places are taken");
}

#[test]
fn a_reset_forgets_everything() {
    let (ring, memory) = (enabled(), memory(MapAccess::ReadOnly));
    let claim = ring.claim(false).unwrap();
    let _ = ring.fill(&*memory.open(), &claim, &record(0));
    ring.reset();
    assert_eq!(ring.snapshot(), NotificationRing::default().snapshot());
    assert_eq!(ring.claim(false), Err(Loss::Off));
}
