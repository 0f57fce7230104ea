// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Every criterion, satisfied and not.

use ersatz_abi::command::Location;

use super::*;
use crate::trace::{Event, Fields, MmuEvent};

fn record(event: &Event) -> Record {
    Record { sequence: 1, time: 7, fields: event.to_fields() }
}

fn copy() -> Record {
    record(&Event::Copy {
        channel: 3,
        engine: 1,
        cause: Cause::Evict,
        source: Location::vram(0x1000),
        destination: Location::system(0x8000),
        length: 0x1000,
        tag: 0x7f00_0000,
    })
}

#[test]
fn the_default_wants_everything() {
    let all = Filter::default();
    assert!(all.matches(&copy(), 0));
    let unknown = Record { sequence: 1, time: 0, fields: Fields { kind: 255, ..copy().fields } };
    assert!(all.matches(&unknown, 0), "also what is not known");
    assert!(!Filter { channels: vec![3], ..all.clone() }.matches(&unknown, 0), "which has no channel");
    assert!(!Filter { kinds: Kind::ALL.to_vec(), ..all }.matches(&unknown, 0), "and no kind");
}

#[test]
fn values_are_alternatives_and_criteria_are_not() {
    let kind = |name| Kind::from_name(name).unwrap();
    let kinds = Filter { kinds: vec![kind("fence"), kind("copy")], ..Filter::default() };
    assert!(kinds.matches(&copy(), 0));
    let both = Filter { causes: vec![Cause::Unbind], ..kinds };
    assert!(!both.matches(&copy(), 0), "it is a copy, but for another cause");
    assert!(Filter { causes: vec![Cause::Unbind, Cause::Evict], ..both }.matches(&copy(), 0));
}

#[test]
fn an_event_is_found_by_whatever_it_is_about() {
    let about = |text: &str| Filter { addresses: Some(Range::of_addresses(text).unwrap()), ..Filter::default() };
    for text in ["0x1fff", "0x8fff", "0x7f000fff", "0..0x1001"] {
        assert!(about(text).matches(&copy(), 0), "{text}");
    }
    for text in ["0xfff", "0x2000", "0x9000+4K", "0x7f001000"] {
        assert!(!about(text).matches(&copy(), 0), "{text}");
    }
    let asid = |asid| Filter { asids: vec![asid], ..Filter::default() };
    let disabled = record(&MmuEvent::AddressSpaceDisabled { asid: 9 }.into());
    assert!(asid(9).matches(&disabled, 0) && !asid(8).matches(&disabled, 0) && !asid(9).matches(&copy(), 0));
}

#[test]
fn times_are_those_of_the_caller() {
    let early = Filter { times: Some(Range::of_times("..1us").unwrap()), ..Filter::default() };
    assert!(early.matches(&copy(), 999) && !early.matches(&copy(), 1000));
}

#[test]
fn causes_have_names() {
    for &known in Cause::ALL {
        assert_eq!(cause(known.name()), Ok(known));
    }
    assert!(cause("no-such-cause").is_err());
}
