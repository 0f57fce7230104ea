// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! MSI-X against what the specification says, and against a model of it with one flag a thing.

use proptest::prelude::*;

use super::*;

const MSIX_VECTORS: u16 = 32;
const LAYOUT: MsixLayout = MsixLayout { bar: 4, vectors: MSIX_VECTORS, table: 0, pending: 0x1000 };

#[derive(Default)]
struct Sink {
    seen: Mutex<Vec<u16>>,
    keeps_table: bool,
}

impl InterruptSink for Sink {
    fn signal(&self, vector: u16) {
        self.seen.lock().push(vector);
    }

    fn keeps_table(&self) -> bool {
        self.keeps_table
    }
}

fn table(vector: u16, dword: u64) -> u64 {
    u64::from(LAYOUT.table) + u64::from(vector) * ENTRY_BYTES + dword * 4
}

fn set_mask(msix: &Msix, vector: u16, masked: bool) -> Vec<Effect> {
    msix.write(table(vector, 3), &u32::from(masked).to_le_bytes(), false)
}

fn pending(msix: &Msix) -> u64 {
    let mut data = [0; 8];
    msix.read(u64::from(LAYOUT.pending), &mut data);
    u64::from_le_bytes(data)
}

fn ready() -> Msix {
    let msix = Msix::new(LAYOUT);
    msix.set_master(true, false);
    msix.set_control(true, false, false);
    msix
}

#[test]
fn any_layout_of_table_and_pending_bits_will_do() {
    // Pending bits before the table, and more than a qword of them.
    let layout = MsixLayout { bar: 1, vectors: 130, table: 0x800, pending: 0x40 };
    let msix = Msix::new(layout);
    let sink = Sink::default();
    msix.set_master(true, false);
    msix.set_control(true, false, false);
    for vector in [0, 63, 64, 129] {
        assert_eq!(msix.raise(vector, &sink, |_| ()), Raised::Pending);
    }
    assert_eq!(msix.raise(130, &sink, |_| ()), Raised::Lost);
    let mut bits = [[0; 8]; 4];
    for (data, offset) in bits.iter_mut().zip((0x40..).step_by(8)) {
        msix.read(offset, data);
    }
    assert_eq!(bits.map(u64::from_le_bytes), [1 | 1 << 63, 1, 1 << 1, 0]);
    let entry = |vector: u64| 0x800 + vector * ENTRY_BYTES;
    msix.write(entry(129), &0xfee0_1000_u64.to_le_bytes(), false);
    msix.write(entry(129) + 8, &0x77_u32.to_le_bytes(), false);
    let effects = msix.write(entry(129) + 12, &[0; 4], false);
    assert_eq!(effects, [Effect::MsixChanged { vector: 129 }, Effect::MsixSend { vector: 129 }]);
    assert_eq!(msix.message(129), Some(MsixMessage { address: 0xfee0_1000, data: 0x77 }));
    assert!(msix.write(entry(130) + 12, &[0; 4], false).is_empty(), "behind the table");
    let mut beyond = [0xff; 8];
    msix.read(u64::MAX - 7, &mut beyond);
    assert_eq!(beyond, [0; 8]);
}

#[test]
fn every_vector_is_masked_after_reset() {
    let msix = ready();
    let sink = Sink::default();
    for vector in 0..MSIX_VECTORS {
        assert_eq!(msix.message(vector), None);
        assert_eq!(msix.raise(vector, &sink, |_| ()), Raised::Pending);
    }
    assert_eq!(pending(&msix), u64::MAX >> (64 - MSIX_VECTORS));
    msix.reset();
    assert_eq!(pending(&msix), 0);
    assert!(sink.seen.lock().is_empty());
}

#[test]
fn an_unmask_tells_of_the_message_and_then_sends_it() {
    let msix = ready();
    let sink = Sink::default();
    msix.raise(5, &sink, |_| ());
    let expected = [Effect::MsixChanged { vector: 5 }, Effect::MsixSend { vector: 5 }];
    assert_eq!(set_mask(&msix, 5, false), expected);
    assert_eq!(pending(&msix), 0);
    assert_eq!(msix.raise(5, &sink, |_| ()), Raised::Sent);
    assert_eq!(*sink.seen.lock(), [5]);
}

#[test]
fn the_function_mask_holds_back_all() {
    let msix = ready();
    let sink = Sink::default();
    set_mask(&msix, 1, false);
    assert_eq!(msix.set_control(true, true, false), [Effect::MsixControlChanged]);
    assert_eq!((msix.raise(1, &sink, |_| ()), msix.message(1)), (Raised::Pending, None));
    let expected = [Effect::MsixControlChanged, Effect::MsixSend { vector: 1 }];
    assert_eq!(msix.set_control(true, false, false), expected);
    assert_eq!(msix.set_control(true, false, false), []);
}

#[test]
fn mastership_holds_back_all() {
    let msix = ready();
    let sink = Sink::default();
    set_mask(&msix, 1, false);
    assert_eq!(msix.set_master(false, false), []);
    assert_eq!(msix.raise(1, &sink, |_| ()), Raised::Pending);
    assert_eq!(msix.set_master(true, false), [Effect::MsixSend { vector: 1 }]);
}

#[test]
fn without_msix_an_interrupt_is_lost() {
    let msix = Msix::new(LAYOUT);
    let sink = Sink::default();
    assert_eq!(msix.raise(0, &sink, |_| ()), Raised::Lost);
    assert_eq!(ready().raise(MSIX_VECTORS, &sink, |_| ()), Raised::Lost);
    assert!(sink.seen.lock().is_empty());
}

#[test]
fn a_transport_that_keeps_the_table_sees_mastership_alone() {
    let msix = Msix::new(LAYOUT);
    let sink = Sink { keeps_table: true, ..Sink::default() };
    assert_eq!(msix.raise(7, &sink, |_| ()), Raised::Pending);
    assert_eq!(msix.set_master(true, true), [Effect::MsixSend { vector: 7 }]);
    assert_eq!(msix.raise(7, &sink, |_| ()), Raised::Sent);
    assert_eq!(msix.raise(MSIX_VECTORS, &sink, |_| ()), Raised::Lost);
}

#[test]
fn a_message_is_what_was_written() {
    let msix = ready();
    msix.write(table(2, 0), &0x0000_0001_fee0_1007_u64.to_le_bytes(), false);
    msix.write(table(2, 2), &0x0000_0000_0000_4041_u64.to_le_bytes(), false);
    assert_eq!(msix.message(2), Some(MsixMessage { address: 0x1_fee0_1004, data: 0x4041 }));
    assert_eq!(msix.message(MSIX_VECTORS), None);
}

#[test]
fn a_write_that_changes_nothing_has_no_effect() {
    let msix = ready();
    assert_eq!(set_mask(&msix, 0, true), []);
    assert_eq!(msix.write(table(0, 3), &0xffff_ffff_u32.to_le_bytes(), false), [], "reserved bits");
    assert_eq!(msix.write(u64::from(LAYOUT.pending), &[0xff; 8], false), [], "pending bits are read-only");
    assert_eq!(msix.write(table(MSIX_VECTORS, 0), &[0xff; 4], false), []);
}

#[test]
fn odd_accesses_read_zero_and_write_nothing() {
    let msix = ready();
    for (offset, length) in [(0, 1), (0, 2), (2, 4), (4, 8), (0, 16), (u64::MAX - 3, 4), (u64::MAX, 8)] {
        let mut data = vec![0xff; length];
        assert_eq!(msix.write(offset, &data, false), []);
        msix.read(offset, &mut data);
        assert!(data.iter().all(|byte| *byte == 0), "{offset:#x} {length}");
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Raise(u16),
    Mask(u16, bool),
    Control(bool, bool),
    Master(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4_u16).prop_map(Step::Raise),
        (0..4_u16, any::<bool>()).prop_map(|(vector, masked)| Step::Mask(vector, masked)),
        any::<(bool, bool)>().prop_map(|(enabled, masked)| Step::Control(enabled, masked)),
        any::<bool>().prop_map(Step::Master),
    ]
}

proptest! {
    /// Whatever happens: while MSI-X is on, a raised interrupt either goes out or stays pending, and what is pending goes
    /// out as soon as nothing holds it back, once.
    #[test]
    fn no_interrupt_is_lost_or_sent_twice(steps in proptest::collection::vec(step(), 1..60)) {
        let msix = Msix::new(LAYOUT);
        let sink = Sink::default();
        let (mut enabled, mut function_masked, mut master) = (false, false, false);
        let (mut masked, mut held) = ([true; 4], [false; 4]);
        for step in steps {
            let mut expected = Vec::new();
            let effects = match step {
                Step::Raise(vector) => {
                    let open = master && !function_masked && !masked[usize::from(vector)];
                    if enabled && open {
                        expected.push(vector);
                    } else if enabled {
                        held[usize::from(vector)] = true;
                    }
                    msix.raise(vector, &sink, |_| ());
                    Vec::new()
                }
                Step::Mask(vector, value) => {
                    masked[usize::from(vector)] = value;
                    set_mask(&msix, vector, value)
                }
                Step::Control(on, mask) => {
                    (enabled, function_masked) = (on, mask);
                    msix.set_control(on, mask, false)
                }
                Step::Master(value) => {
                    master = value;
                    msix.set_master(value, false)
                }
            };
            for vector in 0..4_u16 {
                let at = usize::from(vector);
                if held[at] && enabled && master && !function_masked && !masked[at] {
                    held[at] = false;
                    expected.push(vector);
                }
            }
            let mut sent = std::mem::take(&mut *sink.seen.lock());
            sent.extend(effects.iter().filter_map(|effect| match effect {
                Effect::MsixSend { vector } => Some(*vector),
                _ => None,
            }));
            prop_assert_eq!(sent, expected);
            let bits = held.iter().rev().fold(0, |bits, held| bits << 1 | u64::from(*held));
            prop_assert_eq!(pending(&msix), bits);
        }
    }
}
