// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR BSD-3-Clause
//! `include/ersatz_device.h` has the numbers of this crate for drivers in C. It is made here, and compared with the file in the tree.
//!
//! `ERSATZ_UPDATE_HEADER=1 cargo test -p ersatz-abi --test header` writes it anew.

use std::fmt::Write;
use std::path::Path;

use ersatz_abi::access_counter::{self, AccessCounterControl, AccessWord};
use ersatz_abi::channel::{self, ChannelState, Priority};
use ersatz_abi::command::{self, Aperture, Cause, Header as CommandHeader, Opcode};
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;
use ersatz_abi::fault::{AccessKind, FaultKind, FaultWord};
use ersatz_abi::list::EntryShape;
use ersatz_abi::mmu::{self, AddressSpaceControl, InvalidateScope, InvalidateTarget, PageSize, PageTableEntry};
use ersatz_abi::notification::{self, NotificationControl, NotificationStatus};
use ersatz_abi::regs::{
    self, ChannelControl, ChannelStatus, Configuration, Control, HandOver, MmuConfiguration, Peers, Status,
};
use ersatz_abi::{kernel, location, pci, ABI_VERSION};

const BEGINNING: &str = "\
/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR BSD-3-Clause */
/*
 * The numbers of the Ersatz GPU, for drivers in C; device-model/MANUAL.md says what they mean. Generated from the crate ersatz-abi by
 * its test `header`.
 *
 * Registers are offsets in bytes in BAR0. X_SHIFT and X_MASK are of a field: (word >> X_SHIFT) & X_MASK. Words wider than 32 bits and
 * bus addresses are 64 bits wide. All integers are little-endian.
 */
#ifndef ERSATZ_DEVICE_H
#define ERSATZ_DEVICE_H
";

/// The text of the header.
struct Text(String);

impl Text {
    fn section(&mut self, title: &str) {
        write!(self.0, "\n/* {title} */\n").unwrap();
    }

    fn define(&mut self, name: &str, value: impl std::fmt::Display) {
        writeln!(self.0, "#define ERSATZ_{name} {value}").unwrap();
    }

    /// A constant; large ones are written as C takes them.
    fn number(&mut self, name: &str, value: u64) {
        let suffix = if value > u64::from(u32::MAX) { "ULL" } else { "" };
        self.define(name, format_args!("{value:#x}{suffix}"));
    }

    /// The registers of a block; `place` is where one of several blocks begins.
    fn registers(&mut self, (prefix, parameter): (&str, &str), place: &str, registers: &[regs::Register]) {
        for register in registers {
            let name = format!("{prefix}{}{parameter}", register.name.strip_prefix(prefix).unwrap_or(register.name));
            let bits = u32::from(register.width) * 8;
            let access = match register.access {
                regs::Access::ReadOnly => "read",
                regs::Access::WriteOnly => "write",
                regs::Access::ReadWrite => "read, write",
            };
            let offset = register.offset;
            let value = if place.is_empty() { format!("{offset:#05x}") } else { format!("({place} + {offset:#04x})") };
            self.define(&name, format_args!("{value} /* {bits} bits; {access} */"));
        }
    }

    fn numbers<'a>(&mut self, prefix: &str, numbers: impl Iterator<Item = (&'a str, u8)>) {
        for (name, number) in numbers {
            self.define(&format!("{prefix}_{}", name.to_uppercase().replace('-', "_")), number);
        }
    }

    fn fields(&mut self, prefix: &str, fields: &[(&str, u32, u32)]) {
        for (name, high, low) in fields {
            let name = format!("{prefix}_{}", name.trim_start_matches("raw_").to_uppercase());
            let width = high - low + 1;
            self.define(&format!("{name}_SHIFT"), low);
            self.number(&format!("{name}_MASK"), u64::MAX >> (64 - width));
        }
    }
}

macro_rules! numbers_of {
    ($text:ident, $($prefix:literal: $Enumeration:ident),* $(,)?) => {
        $(
            $text.section(concat!("Numbers: ERSATZ_", $prefix, "_..."));
            $text.numbers($prefix, $Enumeration::ALL.iter().map(|one| (one.name(), *one as u8)));
        )*
    };
}

macro_rules! fields_of {
    ($text:ident, $($prefix:literal, $title:literal: $Word:ident),* $(,)?) => {
        $(
            $text.section(concat!("Fields of ", $title));
            $text.fields($prefix, $Word::FIELDS);
        )*
    };
}

macro_rules! constants {
    ($text:ident, $($module:ident :: { $($name:ident),* $(,)? })*) => {
        $($($text.number(stringify!($name), u64::from($module::$name));)*)*
    };
}

fn header() -> String {
    let mut text = Text(BEGINNING.to_owned());
    text.section("The function");
    text.number("ABI_VERSION", u64::from(ABI_VERSION));
    constants!(text, regs::{DEVICE_MAGIC} pci::{
        VENDOR_ID, DEVICE_ID, CLASS_CODE, BAR_REGISTERS, BAR_VRAM, BAR_MSIX, REGISTERS_BAR_SIZE, MSIX_BAR_SIZE,
        MSIX_TABLE_OFFSET, MSIX_PBA_OFFSET, MSIX_VECTORS, VECTOR_ERROR, VRAM_MIN, VRAM_MAX
    });
    text.section("Registers of the device");
    text.registers(("", ""), "", regs::DEVICE_REGISTERS);
    text.section("Registers of a channel");
    let place = format!("{:#x} + {:#x} * (channel)", regs::CHANNEL_BASE, regs::CHANNEL_STRIDE);
    text.registers(("CHANNEL_", "(channel)"), &place, regs::CHANNEL_REGISTERS);
    let place = format!("({:#x} + {:#x} * (channel))", regs::DOORBELL_BASE, regs::DOORBELL_STRIDE);
    text.define("DOORBELL(channel)", format_args!("{place} /* 32 bits; write */"));
    text.section("Registers of the notification rings: the fault buffer and the ring of the access counters");
    constants!(text, regs::{FAULT_RING_BASE, ACCESS_RING_BASE});
    text.registers(("NOTIFICATION_", "(ring)"), "(ring)", regs::NOTIFICATION_REGISTERS);
    text.section("Registers of an address space");
    let place = format!("{:#x} + {:#x} * (asid)", regs::ADDRESS_SPACE_BASE, regs::ADDRESS_SPACE_STRIDE);
    text.registers(("ADDRESS_SPACE_", "(asid)"), &place, regs::ADDRESS_SPACE_REGISTERS);
    text.section("Counters: 64 bits; read");
    text.define("COUNTER(number)", format_args!("({:#x} + 8 * (number))", regs::COUNTER_BASE));
    numbers_of!(text, "COUNTER": Counter);
    text.section("Sizes and limits");
    constants!(text,
        regs::{MAX_CHANNELS}
        channel::{
            RING_ORDER_MIN, RING_ORDER_MAX, SHARED_ALIGNMENT, CONTROL_BLOCK_SIZE, CONTROL_BLOCK_PUT, CONTROL_BLOCK_GET,
            CONTROL_BLOCK_FENCE,
        }
        command::{COMMAND_BYTES, LIST_ENTRY_BYTES, MAX_LIST_ENTRIES, MAX_ENTRY_BYTES, ENTRY_ALIGNMENT}
        kernel::{WORD_BYTES, MAX_KERNEL_COUNT}
        location::{MAX_PEERS}
        mmu::{ADDRESS_SPACES, TABLE_ENTRIES, TABLE_BYTES, ROOT_LEVEL_48, ROOT_LEVEL_57}
        notification::{RECORD_BYTES, NOTIFICATION_ORDER_MIN, NOTIFICATION_ORDER_MAX}
        access_counter::{REGION_ORDER_MIN, REGION_ORDER_MAX, ACCESS_SECTOR_BYTES, CLEAR_ALL_REGIONS}
    );
    fields_of!(text,
        "CONFIGURATION", "CONFIGURATION": Configuration,
        "MMU_CONFIGURATION", "MMU_CONFIGURATION": MmuConfiguration,
        "PEERS", "PEERS": Peers,
        "STATUS", "STATUS": Status,
        "CONTROL", "CONTROL": Control,
        "HAND_OVER", "HAND_OVER": HandOver,
        "CHANNEL_CONTROL", "CHANNEL_CONTROL": ChannelControl,
        "CHANNEL_STATUS", "CHANNEL_STATUS": ChannelStatus,
        "NOTIFICATION_CONTROL", "NOTIFICATION_CONTROL": NotificationControl,
        "NOTIFICATION_STATUS", "NOTIFICATION_STATUS": NotificationStatus,
        "ADDRESS_SPACE_CONTROL", "ADDRESS_SPACE_CONTROL": AddressSpaceControl,
        "ACCESS_COUNTER_CONTROL", "ACCESS_COUNTER_CONTROL": AccessCounterControl,
        "COMMAND", "word 0 of a command": CommandHeader,
        "ENTRY", "word 2 of a list entry": EntryShape,
        "INVALIDATE", "INVALIDATE, and of word 3 of an invalidation": InvalidateTarget,
        "PTE", "an entry of a page table": PageTableEntry,
        "FAULT", "word 1 of a fault record": FaultWord,
        "ACCESS", "word 1 of a record of the access counters": AccessWord,
    );
    numbers_of!(text,
        "STATE": ChannelState, "PRIORITY": Priority, "ERROR": ErrorCode, "OPCODE": Opcode, "CAUSE": Cause, "APERTURE": Aperture,
        "PAGE_SIZE": PageSize, "INVALIDATE_SCOPE": InvalidateScope, "ACCESS_KIND": AccessKind, "FAULT_KIND": FaultKind,
    );
    text.0.push_str("\n#endif\n");
    text.0
}

#[test]
fn the_header_in_the_tree_is_that_of_the_abi() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/ersatz_device.h");
    let expected = header();
    if std::env::var_os("ERSATZ_UPDATE_HEADER").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = expected.lines().zip(found.lines()).find(|(expected, found)| expected != found);
    assert!(
        expected == found,
        "{} is not what the ABI gives, first in {differs:?}; write it with ERSATZ_UPDATE_HEADER=1",
        path.display()
    );
}

#[test]
fn no_name_is_defined_twice() {
    let text = header();
    let defined = text.lines().filter_map(|line| line.strip_prefix("#define ")?.split([' ', '(']).next());
    let mut names: Vec<&str> = defined.collect();
    names.sort_unstable();
    let twice: Vec<&[&str]> = names.windows(2).filter(|pair| pair[0] == pair[1]).collect();
    assert!(twice.is_empty(), "{twice:?}");
}
