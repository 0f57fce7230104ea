// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The manual's tables are those of the ABI: every row, word for word. On a mismatch the test prints the table to paste.

use std::fmt::Write;

use ersatz_abi::channel::{ChannelState, Priority};
use ersatz_abi::command::{Aperture, Cause, Opcode};
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;
use ersatz_abi::fault::{AccessKind, FaultKind};
use ersatz_abi::mmu::{InvalidateScope, PageSize, PageTableEntry};
use ersatz_abi::regs::{self, Access, Register};

const MANUAL: &str = include_str!("../MANUAL.md");

fn registers(title: &str, registers: &[Register]) -> String {
    let mut table = format!("<!-- {title} -->\n| offset | register | bytes | access | |\n|---|---|---|---|---|\n");
    for register in registers {
        let access = match register.access {
            Access::ReadOnly => "read",
            Access::WriteOnly => "write",
            Access::ReadWrite => "read, write",
        };
        // The summaries are rustdoc: in the manual a link is its last part.
        let summary = register.summary.replace("super::", "").replace("[`", "`").replace("`]", "`");
        let Register { name, offset, width, .. } = register;
        writeln!(table, "| {offset:#05x} | `{name}` | {width} | {access} | {summary} |").unwrap();
    }
    table
}

fn numbers<'a>(title: &str, rows: impl Iterator<Item = (u8, &'a str)>) -> String {
    let mut table = format!("<!-- {title} -->\n| number | name |\n|---|---|\n");
    rows.for_each(|(number, name)| writeln!(table, "| {number} | {name} |").unwrap());
    table
}

#[test]
fn every_table_is_that_of_the_abi() {
    let tables = [
        registers("device registers", regs::DEVICE_REGISTERS),
        registers("channel registers", regs::CHANNEL_REGISTERS),
        registers("notification registers", regs::NOTIFICATION_REGISTERS),
        registers("address space registers", regs::ADDRESS_SPACE_REGISTERS),
        numbers("priorities", Priority::ALL.iter().map(|priority| (*priority as u8, priority.name()))),
        numbers("access kinds", AccessKind::ALL.iter().map(|kind| (*kind as u8, kind.name()))),
        numbers("fault kinds", FaultKind::ALL.iter().map(|kind| (*kind as u8, kind.name()))),
        numbers("page sizes", PageSize::ALL.iter().map(|size| (*size as u8, size.name()))),
        numbers("invalidate scopes", InvalidateScope::ALL.iter().map(|scope| (*scope as u8, scope.name()))),
        numbers("states", ChannelState::ALL.iter().map(|state| (*state as u8, state.name()))),
        numbers("opcodes", Opcode::ALL.iter().map(|opcode| (*opcode as u8, opcode.name()))),
        numbers("causes", Cause::ALL.iter().map(|cause| (*cause as u8, cause.name()))),
        numbers("apertures", Aperture::ALL.iter().map(|aperture| (*aperture as u8, aperture.name()))),
        numbers("counters", Counter::ALL.iter().map(|counter| (*counter as u8, counter.name()))),
    ];
    for table in &tables {
        assert!(MANUAL.contains(table.as_str()), "device-model/MANUAL.md lacks:\n{table}");
    }
    for error in ErrorCode::ALL {
        let row = format!("| {} | {} |", *error as u8, error.name());
        assert!(MANUAL.contains(&row), "device-model/MANUAL.md has no error row: {row}");
    }
}

#[test]
fn the_bits_of_page_table_entries_are_those_of_the_abi() {
    const ALL: u64 = u64::MAX;
    let none = PageTableEntry(0);
    let fields = [
        ("0", "valid", none.with_valid(true)),
        ("1", "write", none.with_write(true)),
        ("2", "atomic", none.with_atomic(true)),
        ("3", "leaf", none.with_leaf(true)),
        ("4", "big", none.with_big(true)),
        ("5", "accessed", none.with_accessed(true)),
        ("6", "dirty", none.with_dirty(true)),
        ("9:8", "aperture", none.with_raw_aperture(ALL)),
        ("51:12", "frame", none.with_frame(ALL)),
        ("54:52", "peer", none.with_peer(ALL)),
    ];
    let mut used = 0;
    for (bits, name, entry) in fields {
        let (high, low) = bits.split_once(':').unwrap_or((bits, bits));
        let (high, low): (u32, u32) = (high.parse().unwrap(), low.parse().unwrap());
        assert_eq!(entry.0, (ALL >> (63 - high)) & (ALL << low), "{name}");
        assert!(MANUAL.contains(&format!("| {bits} | {name} |")), "device-model/MANUAL.md has no row for {name}");
        used |= entry.0;
    }
    assert_eq!(used, !PageTableEntry::RESERVED);
}
