// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The fields of events about virtual memory, faults and hot regions.

use ersatz_abi::access_counter::AccessRecord;
use ersatz_abi::fault::FaultRecord;
use ersatz_abi::mmu::{InvalidateScope, Invalidation};
use ersatz_device_model::trace::{MmuEvent, NotificationEvent};

use super::Value::{self, Address, Bytes, Flag, Name, Number, Place};

type Fields = Vec<(&'static str, Value)>;

/// The fields of an event of the MMU.
pub fn mmu(event: &MmuEvent) -> Fields {
    match *event {
        MmuEvent::AddressSpaceEnabled { asid, root, control } => {
            vec![("asid", Number(asid.into())), ("root", Address(root)), ("control", Address(control.into()))]
        }
        MmuEvent::AddressSpaceDisabled { asid } => vec![("asid", Number(asid.into()))],
        MmuEvent::Translation { engine, asid, address, page, size, write, atomic } => vec![
            ("asid", Number(asid.into())),
            ("address", Address(address)),
            ("page", Place(page)),
            ("size", Name(size.name())),
            ("write", Flag(write)),
            ("atomic", Flag(atomic)),
            ("engine", Number(engine.into())),
        ],
        MmuEvent::Access { engine, asid, kind, address, location, length, .. } => vec![
            ("access", Name(kind.name())),
            ("asid", Number(asid.into())),
            ("address", Address(address)),
            ("at", Place(location)),
            ("bytes", Bytes(length)),
            ("engine", Number(engine.into())),
        ],
        MmuEvent::InvalidateRequested { number, invalidation: what, .. } => {
            let mut fields = vec![("number", Number(number))];
            fields.extend(invalidation(what));
            fields
        }
        MmuEvent::InvalidateAcknowledged { number } => vec![("number", Number(number))],
    }
}

fn invalidation(invalidation: Invalidation) -> Fields {
    let (scope, rest) = match invalidation {
        Invalidation::All => (InvalidateScope::All, vec![]),
        Invalidation::AddressSpace(asid) => (InvalidateScope::AddressSpace, vec![("asid", Number(asid.into()))]),
        Invalidation::Range { asid, address, length } => (
            InvalidateScope::Range,
            vec![("asid", Number(asid.into())), ("address", Address(address)), ("length", Bytes(length))],
        ),
    };
    [vec![("scope", Name(scope.name()))], rest].concat()
}

/// The fields of an event of a notification ring.
pub fn notification(event: &NotificationEvent) -> Fields {
    match *event {
        NotificationEvent::FaultRecorded { record, position } => {
            [fault(record), vec![("position", Number(position.into()))]].concat()
        }
        NotificationEvent::FaultLost { record, loss } => [vec![("loss", Name(loss.name()))], fault(record)].concat(),
        NotificationEvent::Replay { channels } => vec![("channels", Address(channels))],
        NotificationEvent::FaultCancelled { .. } => vec![],
        NotificationEvent::HotRegion { record, position } => {
            [hot_region(record), vec![("position", Number(position.into()))]].concat()
        }
        NotificationEvent::HotRegionLost { record, loss } => {
            [vec![("loss", Name(loss.name()))], hot_region(record)].concat()
        }
    }
}

fn fault(record: FaultRecord) -> Fields {
    vec![
        ("number", Number(record.number)),
        ("fault", Name(record.kind.name())),
        ("access", Name(record.access.name())),
        ("asid", Number(record.asid.into())),
        ("address", Address(record.address)),
        ("level", Number(record.level.into())),
        ("engine", Number(record.engine.into())),
    ]
}

fn hot_region(record: AccessRecord) -> Fields {
    vec![
        ("asid", Number(record.asid.into())),
        ("region", Address(record.region)),
        ("count", Number(record.count)),
        ("aperture", Name(record.aperture.name())),
        ("engine", Number(record.engine.into())),
    ]
}
