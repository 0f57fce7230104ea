// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The values that text and JSON show, with their units.

use ersatz_abi::access_counter::AccessRecord;
use ersatz_abi::command::{Location, Opcode};
use ersatz_abi::fault::FaultRecord;
use ersatz_abi::mmu::{InvalidateScope, Invalidation};

use crate::trace::enumeration::Named;
use crate::trace::range::Range;

/// The value of a field, for a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// An address, a tag or a bit pattern: hexadecimal.
    Address(u64),
    /// An address in an aperture.
    Location(Location),
    /// A number without a unit.
    Number(u64),
    /// A number of bytes.
    Bytes(u64),
    /// A name.
    Name(&'static str),
    /// Yes or no.
    Flag(bool),
}

type Shown = (&'static str, Value);

/// An address, a tag or a bit pattern.
pub(super) fn address(value: impl Into<u64>) -> Value {
    Value::Address(value.into())
}

/// An address in an aperture.
pub(super) fn location(value: Location) -> Value {
    Value::Location(value)
}

/// A number without a unit.
pub(super) fn number(value: impl Into<u64>) -> Value {
    Value::Number(value.into())
}

/// A number of bytes.
pub(super) fn bytes(value: u64) -> Value {
    Value::Bytes(value)
}

/// The name of an enumeration's variant.
pub(super) fn name(value: impl Named) -> Value {
    Value::Name(value.name())
}

/// Yes or no.
pub(super) fn flag(value: bool) -> Value {
    Value::Flag(value)
}

/// What a command works on: its list, or the virtual memory that it names itself.
pub(super) fn operands(opcode: Opcode, operand: u64, count: u64) -> [Shown; 2] {
    match opcode {
        Opcode::Nop | Opcode::Copy | Opcode::Fill | Opcode::Digest => {
            [("entries", number(count)), ("list", address(operand))]
        }
        Opcode::Chase | Opcode::RandomUpdate => [("address", address(operand)), ("count", number(count))],
        _ => [("address", address(operand)), ("length", bytes(count))],
    }
}

/// The scope of an invalidation, and what it has by its scope.
pub(super) fn invalidation(invalidation: Invalidation) -> Vec<Shown> {
    let scope = |scope: InvalidateScope| ("scope", Value::Name(scope.name()));
    match invalidation {
        Invalidation::All => vec![scope(InvalidateScope::All)],
        Invalidation::AddressSpace(asid) => vec![scope(InvalidateScope::AddressSpace), ("asid", number(asid))],
        Invalidation::Range { asid, address: first, length } => vec![
            scope(InvalidateScope::Range),
            ("asid", number(asid)),
            ("address", address(first)),
            ("length", bytes(length)),
        ],
    }
}

/// The fields of a fault record.
pub(super) fn fault(record: FaultRecord) -> [Shown; 7] {
    [
        ("number", number(record.number)),
        ("fault", name(record.kind)),
        ("access", name(record.access)),
        ("asid", number(record.asid)),
        ("address", address(record.address)),
        ("level", number(record.level)),
        ("engine", number(record.engine)),
    ]
}

/// The fields of an access record.
pub(super) fn access_record(record: AccessRecord) -> [Shown; 5] {
    [
        ("asid", number(record.asid)),
        ("region", address(record.region)),
        ("count", number(record.count)),
        ("aperture", name(record.aperture)),
        ("engine", number(record.engine)),
    ]
}

/// The `length` bytes from an address on.
pub(super) fn range(address: impl Address, length: u64) -> Range {
    Range::with_length(address.address(), length)
}

/// A field that is an address, with or without an aperture.
pub(super) trait Address {
    /// The address.
    fn address(self) -> u64;
}

impl Address for u64 {
    fn address(self) -> u64 {
        self
    }
}

impl Address for u32 {
    fn address(self) -> u64 {
        self.into()
    }
}

impl Address for Location {
    fn address(self) -> u64 {
        self.address
    }
}
