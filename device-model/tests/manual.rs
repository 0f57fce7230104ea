// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The manual's tables are those of the ABI: every row, word for word. On a mismatch the test prints the table to paste.

use std::fmt::Write;

use ersatz_abi::ABI_VERSION;
use ersatz_abi::access_counter::{AccessCounterControl, AccessWord};
use ersatz_abi::channel::{ChannelState, Priority};
use ersatz_abi::command::{Aperture, Cause, Opcode};
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;
use ersatz_abi::fault::{AccessKind, FaultKind, FaultWord};
use ersatz_abi::mmu::{InvalidateScope, PageSize, PageTableEntry};
use ersatz_abi::notification::NotificationStatus;
use ersatz_abi::regs::{self, Access, Register};
use ersatz_device_model::trace::check::Rule;

const MANUAL: &str = include_str!("../MANUAL.md");

fn registers(title: &str, registers: &[Register]) -> String {
    let mut table = format!("<!-- {title} -->\n| offset | register | bytes | access | |\n|---|---|---|---|---|\n");
    for register in registers {
        let access = match register.access {
            Access::ReadOnly => "read",
            Access::WriteOnly => "write",
            Access::ReadWrite => "read, write",
        };
        let summary = without_types(register.summary);
        let Register { name, offset, width, .. } = register;
        writeln!(table, "| {offset:#05x} | `{name}` | {width} | {access} | {summary} |").unwrap();
    }
    table
}

/// Returns a summary, which is rustdoc, as it is in the manual: without the name of the type that has the fields, and with the plain name
/// of a constant.
fn without_types(summary: &str) -> String {
    let text = match (summary.split_once(" ([`"), summary.rsplit_once("`])")) {
        (Some((before, link)), Some((_, after))) if link.contains(char::is_lowercase) && !link.contains("_VERSION") => {
            format!("{before}{after}")
        }
        _ => summary.to_owned(),
    };
    text.replace("super::", "").replace("[`", "`").replace("`]", "`")
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
fn every_rule_of_the_oracle_names_a_section() {
    for section in Rule::ALL.iter().filter_map(|rule| rule.section()) {
        let is_heading = |line: &str| line.trim_start_matches('#') == format!(" {section}") && line.starts_with("##");
        assert!(MANUAL.lines().any(is_heading), "device-model/MANUAL.md has no section {section}");
    }
}

#[test]
fn the_places_of_blocks_are_those_of_the_abi() {
    let each = |name, bytes: u32| format!("{name}, {bytes:#x} bytes each");
    let rows = [
        (0, "registers of the device".to_owned()),
        (regs::FAULT_RING_BASE, "registers of the fault buffer".to_owned()),
        (regs::ACCESS_RING_BASE, "registers of the access counters' ring".to_owned()),
        (regs::CHANNEL_BASE, each("registers of channels", regs::CHANNEL_STRIDE)),
        (regs::COUNTER_BASE, "counters, 8 bytes each".to_owned()),
        (regs::ADDRESS_SPACE_BASE, each("registers of address spaces", regs::ADDRESS_SPACE_STRIDE)),
        (regs::DOORBELL_BASE, each("doorbells", regs::DOORBELL_STRIDE)),
    ];
    let mut table = String::from("<!-- blocks of BAR0 -->\n| offset | block |\n|---|---|\n");
    rows.iter().for_each(|(offset, block)| writeln!(table, "| {offset:#07x} | {block} |").unwrap());
    assert!(MANUAL.contains(&table), "device-model/MANUAL.md lacks:\n{table}");
}

#[test]
fn a_driver_can_tell_the_device_and_its_version() {
    for number in [format!("{:#010x}", regs::DEVICE_MAGIC), format!("{ABI_VERSION:#010x}")] {
        assert!(MANUAL.contains(&number), "device-model/MANUAL.md lacks {number}");
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
    assert_rows("", &fields.map(|(bits, name, entry)| (bits, name, entry.0)), !PageTableEntry::RESERVED);
}

/// That these fields have these bits, and that the manual says so, in rows that begin with `before`. There are no others.
fn assert_rows(before: &str, fields: &[(&str, &str, u64)], defined: u64) {
    for (bits, name, field) in fields {
        let (high, low) = bits.split_once(':').unwrap_or((bits, bits));
        let (high, low): (u32, u32) = (high.parse().unwrap(), low.parse().unwrap());
        assert_eq!(*field, (u64::MAX >> (63 - high)) & (u64::MAX << low), "{name}");
        let row = format!("| {before}{bits} | {name}");
        assert!(MANUAL.contains(&row), "device-model/MANUAL.md has no row: {row}");
    }
    assert_eq!(fields.iter().fold(0, |used, (.., field)| used | field), defined);
}

#[test]
fn the_bits_of_faults_and_access_counters_are_those_of_the_abi() {
    const ALL: u64 = u64::MAX;
    let fault = FaultWord(0);
    let fields = [
        ("15:0", "the address space", fault.with_asid(ALL)),
        ("23:16", "the channel", fault.with_channel(ALL)),
        ("31:24", "the engine", fault.with_engine(ALL)),
        ("35:32", "how it was accessed", fault.with_raw_access(ALL)),
        ("39:36", "why it faulted", fault.with_raw_kind(ALL)),
        ("43:40", "level of the table", fault.with_level(ALL)),
        ("63", "valid", fault.with_valid(true)),
    ];
    assert_rows("1 | ", &fields.map(|(bits, name, field)| (bits, name, field.0)), !FaultWord::RESERVED);
    let access = AccessWord(0);
    let fields = [
        ("15:0", "the address space", access.with_asid(ALL)),
        ("23:16", "the channel whose access reached the threshold", access.with_channel(ALL)),
        ("31:24", "the engine", access.with_engine(ALL)),
        ("35:32", "the aperture", access.with_raw_aperture(ALL)),
        ("63", "valid", access.with_valid(true)),
    ];
    assert_rows("1 | ", &fields.map(|(bits, name, field)| (bits, name, field.0)), !AccessWord::RESERVED);
    let control = AccessCounterControl(0);
    let fields = [
        ("0", "enable", control.with_enable(true)),
        ("1", "local", control.with_local(true)),
        ("13:8", "region order", control.with_region_order(u32::MAX)),
        ("31:16", "threshold", control.with_threshold(u32::MAX)),
    ];
    assert_rows(
        "",
        &fields.map(|(bits, name, field)| (bits, name, field.0.into())),
        (!AccessCounterControl::RESERVED).into(),
    );
    let status = NotificationStatus(0);
    let fields = [
        ("0", "overflow", status.with_overflow(true)),
        ("1", "dma_error", status.with_dma_error(true)),
        ("2", "bad_setup", status.with_bad_setup(true)),
    ];
    assert_rows(
        "",
        &fields.map(|(bits, name, field)| (bits, name, field.0.into())),
        (!NotificationStatus::RESERVED).into(),
    );
}
