// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The rules of a ring, one by one.

use proptest::prelude::*;

use super::*;

const GOOD: Setup = Setup { base: 0x4000, order: NOTIFICATION_ORDER_MIN, vector: 3 };
const RECORDS: u32 = 1 << NOTIFICATION_ORDER_MIN;

fn with(setup: Setup) -> State {
    let mut state = State::default();
    assert!(state.set_up(|place| *place = setup));
    assert!(state.switch(true));
    state
}

fn enabled() -> State {
    let state = with(GOOD);
    assert_eq!((state.control().enable(), state.status()), (true, NotificationStatus(0)));
    state
}

/// Claims and settles a record; its position and whether it was announced.
fn write(state: &mut State) -> Result<(u32, bool), Loss> {
    let claim = state.claim(false)?;
    state.settle(true);
    assert!(claim.interrupt.is_none_or(|vector| vector == 3));
    Ok((claim.position, claim.interrupt.is_some()))
}

#[test]
fn a_setup_that_cannot_work_shows_in_the_status() {
    let last = u64::MAX - 0xfff;
    for setup in [
        Setup { base: 0x4800, ..GOOD },
        Setup { base: last, order: NOTIFICATION_ORDER_MAX, ..GOOD },
        Setup { order: NOTIFICATION_ORDER_MIN - 1, ..GOOD },
        Setup { order: NOTIFICATION_ORDER_MAX + 1, ..GOOD },
        Setup { order: u32::MAX, ..GOOD },
        Setup { vector: MSIX_VECTORS.into(), ..GOOD },
        Setup { vector: 0x1_0003, ..GOOD },
    ] {
        let mut state = with(setup);
        assert!(state.status().bad_setup() && !state.control().enable(), "{setup:?}");
        assert_eq!(state.claim(false), Err(Loss::Off));
        state.clear_status(NotificationStatus(0).with_bad_setup(true));
        assert!(state.set_up(|place| *place = GOOD) && state.switch(true));
        assert!(state.control().enable());
    }
    let highest = last - (RECORD_BYTES << NOTIFICATION_ORDER_MAX);
    assert!(with(Setup { base: highest, order: NOTIFICATION_ORDER_MAX, ..GOOD }).control().enable());
}

#[test]
fn the_setup_stands_while_the_ring_is_enabled() {
    let mut state = enabled();
    assert!(!state.set_up(|place| place.vector = 7));
    assert!(state.switch(true), "enabling again changes nothing");
    assert!(state.switch(false) && state.set_up(|place| place.vector = 7));
    assert_eq!(state.setup().vector, 7);
}

#[test]
fn a_full_ring_loses_records_and_says_so() {
    let mut state = enabled();
    for position in 0..RECORDS {
        assert_eq!(write(&mut state), Ok((position, position == 0)));
    }
    assert_eq!(state.status(), NotificationStatus(0));
    assert_eq!(write(&mut state), Err(Loss::Overflow));
    assert_eq!((state.status().overflow(), state.put()), (true, RECORDS));
    state.clear_status(NotificationStatus(0).with_dma_error(true));
    assert!(state.status().overflow(), "another bit");
    state.clear_status(NotificationStatus(0).with_overflow(true));
    assert_eq!(state.status(), NotificationStatus(0));
    assert_eq!(state.acknowledge(1), Some(Acknowledged { interrupt: Some(3) }));
    assert_eq!(write(&mut state), Ok((RECORDS, true)), "room for one, the first after GET was written");
    assert_eq!(write(&mut state), Err(Loss::Overflow));
}

#[test]
fn a_record_that_may_be_dropped_finds_room_in_a_half_empty_ring_only() {
    let mut state = enabled();
    for _ in 0..=RECORDS / 2 {
        assert!(state.claim(true).is_ok());
        state.settle(true);
    }
    assert_eq!(state.claim(true), Err(Loss::HalfFull));
    assert_eq!(state.status(), NotificationStatus(0), "that is no overflow");
    assert!(write(&mut state).is_ok(), "what must not be dropped still finds room");
}

#[test]
fn interrupts_come_for_the_first_record_and_for_those_left() {
    let mut state = enabled();
    assert_eq!([write(&mut state), write(&mut state)], [Ok((0, true)), Ok((1, false))]);
    assert_eq!(state.acknowledge(2), Some(Acknowledged { interrupt: None }), "none left");
    assert_eq!([write(&mut state), write(&mut state)], [Ok((2, true)), Ok((3, false))]);
    assert_eq!(state.acknowledge(3), Some(Acknowledged { interrupt: Some(3) }), "one left");
    assert_eq!(state.acknowledge(3), Some(Acknowledged { interrupt: Some(3) }), "still");
    assert_eq!(write(&mut state), Ok((4, true)));
}

#[test]
fn get_stays_between_put_and_the_ring_behind_it() {
    let mut state = enabled();
    assert_eq!(state.acknowledge(1), None, "beyond PUT");
    for _ in 0..3 {
        write(&mut state).unwrap();
    }
    for get in [4, 1 << 31, 3_u32.wrapping_sub(RECORDS + 1)] {
        assert_eq!(state.acknowledge(get), None, "{get}");
        assert_eq!(state.get(), 0);
    }
    assert!(state.acknowledge(3).is_some());
    assert!(state.switch(false));
    assert_eq!(state.acknowledge(3), None, "a ring that is off has no records to read");
}

#[test]
fn enabling_begins_at_zero_and_keeps_the_status() {
    let mut state = enabled();
    for _ in 0..=RECORDS {
        let _ = write(&mut state);
    }
    assert!(state.switch(false));
    assert_eq!((state.put(), write(&mut state)), (RECORDS, Err(Loss::Off)));
    assert!(state.switch(true));
    assert_eq!((state.get(), state.put(), state.status().overflow()), (0, 0, true));
    assert_eq!(write(&mut state), Ok((0, true)));
}

#[test]
fn disabling_is_done_when_no_record_is_under_way() {
    let mut state = enabled();
    let claims = [state.claim(false), state.claim(false)];
    assert!(claims.iter().all(Result::is_ok));
    assert!(state.switch(false));
    assert!(state.control().enable(), "two are under way");
    assert_eq!(state.claim(false), Err(Loss::Off), "no further ones");
    state.settle(true);
    assert!(state.control().enable() && !state.switch(true) && !state.set_up(|_| ()), "one is");
    assert!(state.switch(false), "asked for again");
    state.settle(false);
    assert!(!state.control().enable() && state.status().dma_error());
    assert!(state.set_up(|_| ()) && state.switch(true));
}

#[test]
fn a_record_that_cannot_be_written_keeps_its_place() {
    let mut state = enabled();
    let claim = state.claim(false).unwrap();
    state.settle(false);
    assert_eq!((claim.interrupt, state.put(), state.status().dma_error()), (Some(3), 1, true));
}

proptest! {
    /// Positions run freely through all 32 bits, slots through the ring.
    #[test]
    fn positions_wrap(start: u32, order in NOTIFICATION_ORDER_MIN..=NOTIFICATION_ORDER_MAX, steps in 1_u32..100) {
        let mut state = with(Setup { order, ..GOOD });
        (state.get, state.put) = (start, start);
        for step in 0..steps {
            let claim = state.claim(false).unwrap();
            state.settle(true);
            let position = start.wrapping_add(step);
            prop_assert_eq!(claim.position, position);
            let slot = u64::from(position) % (1 << order);
            prop_assert_eq!(claim.address, GOOD.base + slot * RECORD_BYTES);
            prop_assert_eq!(state.acknowledge(position.wrapping_add(1)), Some(Acknowledged { interrupt: None }));
        }
    }

    /// Whatever is written to GET, what waits is never more than the ring holds.
    #[test]
    fn any_get_is_taken_or_refused(writes in prop::collection::vec((any::<u32>(), 0_u32..20), 0..50)) {
        let mut state = enabled();
        for (get, records) in writes {
            for get in [get, state.put().wrapping_sub(get % 40), get % 64] {
                let taken = state.acknowledge(get).is_some();
                prop_assert_eq!(taken, state.put().wrapping_sub(get) <= RECORDS);
            }
            for _ in 0..records {
                let _ = write(&mut state);
            }
            prop_assert!(state.put().wrapping_sub(state.get()) <= RECORDS);
        }
    }
}
