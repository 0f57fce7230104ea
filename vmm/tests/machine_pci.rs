// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Tiny guests that use a PCI function: its config space, its registers, its memory, its doorbell, wherever the guest
//! puts its BARs.

mod card;
mod machine_code;

use std::io;
use std::sync::Arc;

use card::{Card, DOORBELL, MEMORY_SIZE, REGISTERS_SIZE};
use ersatz::machine::{Console, End, ExitKind, Exits, Machine, MachineConfig, Payload};
use ersatz_device_model::bus::PciFunction;
use machine_code::{Code, config, port};

/// Where the first function's BARs are, and the second one's behind them.
const REGISTERS: u64 = 0xc000_0000;
const MEMORY: u64 = 0x1_0000_0000;
/// Config space of 01:00.0 and 02:00.0, and of the root port before the first.
const CONFIG_1: u64 = config(0);
const CONFIG_2: u64 = config(1);
const PORT_1: u64 = port(0);
const COMMAND: u64 = 4;
const BAR0: u64 = 0x10;
const BAR2: u64 = 0x18;
/// Memory decode.
const DECODE: u32 = 2;

/// Config space of 01:00.0: the control register of the resizable BAR.
const RESIZE_1: u64 = CONFIG_1 + 0x168;
/// What to write there for BAR2 of 2 MiB, 4 MiB, 8 MiB.
const TWO_MIB: u32 = 1 << 8;
const FOUR_MIB: u32 = 2 << 8;
const EIGHT_MIB: u32 = 3 << 8;

/// Runs code that ends by the exit port, with these cards on the bus; returns its status and what it took.
fn run(cards: &[&Arc<Card>], code: Code) -> (u8, Exits) {
    let factories = cards.iter().map(|card| card.factory());
    let payload = Payload::Code { code: code.bytes(), mapped: 8 << 30 };
    let config = MachineConfig { vcpus: 1, memory: 4 << 20, payload };
    let console = Console { output: Box::new(io::sink()), input: None };
    let machine = Machine::new(&config, factories.collect(), console).expect("these tests need /dev/kvm");
    let handle = machine.handle();
    match machine.run().expect("the guest runs to its end") {
        End::Exited(status) => (status, handle.exits()),
        other => panic!("{other:?}"),
    }
}

/// Opens two root ports, and puts the BARs of both functions where the tests want them.
fn placed() -> Code {
    (0..2).fold(Code::new(), |code, slot| {
        let memory = MEMORY + slot * MEMORY_SIZE;
        code.open_port(slot)
            .store32(config(slot) + BAR0, (REGISTERS + slot * REGISTERS_SIZE) as u32)
            .store32(config(slot) + BAR2, memory as u32)
            .store32(config(slot) + BAR2 + 4, (memory >> 32) as u32)
    })
}

/// The same, and the first function decodes.
fn decode_on() -> Code {
    placed().store32(CONFIG_1 + COMMAND, DECODE)
}

#[test]
fn memory_is_used_without_exits() {
    let card = Card::new();
    let code = decode_on().store32(MEMORY + 0x1000, 0x1234_5678).load32(MEMORY + 0x1000).exit_with_al();
    let (status, exits) = run(&[&card], code);
    assert_eq!(status, 0x78);
    assert_eq!(card.memory_at(0x1000), 0x1234_5678);
    assert_eq!((exits.of(ExitKind::MappedBar), exits.of(ExitKind::Bar)), (0, 0), "{exits}");
    assert_eq!(exits.total() - exits.of(ExitKind::ConfigSpace), 1, "one to end: {exits}");
}

#[test]
fn nothing_decodes_until_it_is_switched_on() {
    let card = Card::new();
    let (status, exits) = run(&[&card], placed().load32(MEMORY).exit_with_al());
    assert_eq!((status, exits.of(ExitKind::Unclaimed)), (0xff, 1));
}

#[test]
fn memory_follows_the_bar() {
    let card = Card::new();
    let elsewhere = 0x1_8000_0000;
    let code = decode_on()
        .store32(MEMORY, 1)
        // With decode on, half by half: for a moment it is where half of the old address and half of the new one are.
        .store32(CONFIG_1 + BAR2, elsewhere as u32)
        .store32(elsewhere + 4, 2)
        .store32(CONFIG_1 + COMMAND, 0)
        .store32(CONFIG_1 + BAR2, MEMORY as u32)
        .store32(CONFIG_1 + COMMAND, DECODE)
        .store32(MEMORY + 8, 3)
        .load32(elsewhere)
        .exit_with_al();
    let (status, exits) = run(&[&card], code);
    assert_eq!(status, 0xff, "it is not where it was");
    assert_eq!([0, 4, 8].map(|offset| card.memory_at(offset)), [1, 2, 3]);
    assert_eq!((exits.of(ExitKind::MappedBar), exits.of(ExitKind::Unclaimed)), (0, 1), "{exits}");
}

#[test]
fn memory_follows_the_size_of_the_bar() {
    let card = Card::new();
    let code = decode_on()
        .load32(MEMORY + MEMORY_SIZE) // nothing there yet
        .store32(CONFIG_1 + COMMAND, 0)
        .store32(RESIZE_1, FOUR_MIB)
        .store32(CONFIG_1 + COMMAND, DECODE)
        .store32(MEMORY + MEMORY_SIZE, 1)
        .store32(MEMORY, 2)
        // While it decodes its size stays, and none that it cannot have is taken.
        .store32(RESIZE_1, TWO_MIB)
        .store32(MEMORY + MEMORY_SIZE + 4, 3)
        .store32(CONFIG_1 + COMMAND, 0)
        .store32(RESIZE_1, EIGHT_MIB)
        .store32(CONFIG_1 + COMMAND, DECODE)
        .store32(MEMORY + MEMORY_SIZE + 8, 4)
        .store32(CONFIG_1 + COMMAND, 0)
        .store32(RESIZE_1, TWO_MIB)
        .store32(CONFIG_1 + COMMAND, DECODE)
        .store32(MEMORY + 4, 5)
        .load32(MEMORY + MEMORY_SIZE) // nothing there any more
        .exit_with_al();
    let (status, exits) = run(&[&card], code);
    assert_eq!(status, 0xff);
    assert_eq!([0, 4].map(|offset| card.memory_at(offset)), [2, 5]);
    assert_eq!([0, 4, 8].map(|offset| card.memory_at(MEMORY_SIZE + offset)), [1, 3, 4]);
    assert_eq!((exits.of(ExitKind::MappedBar), exits.of(ExitKind::Unclaimed)), (0, 2), "{exits}");
}

#[test]
fn a_grown_bar_is_moved_to_where_it_fits() {
    let (first, second) = (Card::new(), Card::new());
    let elsewhere = 0x1_8000_0000;
    // The second one's memory is behind the first one's: grown in place the first would be on top of it.
    let code = decode_on()
        .store32(CONFIG_2 + COMMAND, DECODE)
        .store32(MEMORY + MEMORY_SIZE, 1)
        .store32(CONFIG_1 + COMMAND, 0)
        .store32(RESIZE_1, FOUR_MIB)
        .store32(CONFIG_1 + COMMAND, DECODE)
        .load32(MEMORY + 4) // it is in the way of the other, which was there first
        .store32(CONFIG_1 + COMMAND, 0)
        .store32(CONFIG_1 + BAR2, elsewhere as u32)
        .store32(CONFIG_1 + COMMAND, DECODE)
        .store32(elsewhere + MEMORY_SIZE, 2)
        .store32(MEMORY + MEMORY_SIZE + 4, 3)
        .out8(0xf4, 0);
    let (_, exits) = run(&[&first, &second], code);
    assert_eq!(first.memory_at(MEMORY_SIZE), 2);
    assert_eq!([0, 4].map(|offset| second.memory_at(offset)), [1, 3]);
    assert_eq!(exits.of(ExitKind::Unclaimed), 1, "{exits}");
}

#[test]
fn a_bar_on_top_of_ram_decodes_nothing() {
    let card = Card::new();
    let code = placed()
        .store32(0x20_0000, 77)
        .store32(CONFIG_1 + BAR2, 0x20_0000)
        .store32(CONFIG_1 + BAR2 + 4, 0)
        .store32(CONFIG_1 + COMMAND, DECODE)
        .load32(0x20_0000)
        .exit_with_al();
    assert_eq!(run(&[&card], code).0, 77);
    assert_eq!(card.memory_at(0), 0);
}

#[test]
fn of_two_bars_in_one_place_the_first_wins_until_it_leaves() {
    let (first, second) = (Card::new(), Card::new());
    let code = decode_on()
        .store32(CONFIG_2 + BAR2, MEMORY as u32)
        .store32(CONFIG_2 + COMMAND, DECODE)
        .store32(MEMORY, 1)
        .store32(CONFIG_1 + COMMAND, 0)
        .store32(MEMORY + 4, 2)
        .out8(0xf4, 0);
    run(&[&first, &second], code);
    assert_eq!([first.memory_at(0), second.memory_at(0)], [1, 0]);
    assert_eq!([first.memory_at(4), second.memory_at(4)], [0, 2]);
}

#[test]
fn registers_are_trapped() {
    let card = Card::new();
    let code = decode_on().store32(REGISTERS + 0x40, 0x0102_0304).load32(REGISTERS + 0x44).exit_with_al();
    let (status, exits) = run(&[&card], code);
    assert_eq!(status, 0x44);
    assert_eq!(*card.writes.lock().unwrap(), [(0, 0x40, vec![4, 3, 2, 1])]);
    assert_eq!(exits.of(ExitKind::Bar), 2, "{exits}");
}

#[test]
fn a_doorbell_is_an_event_and_follows_the_bar() {
    let card = Card::new();
    let elsewhere = 0xd000_0000;
    let code = decode_on()
        .store32(REGISTERS + DOORBELL, 7)
        .store32(CONFIG_1 + BAR0, elsewhere as u32)
        .store32(elsewhere + DOORBELL, 7)
        .store32(REGISTERS + DOORBELL, 7) // nothing there any more
        .out8(0xf4, 0);
    let (_, exits) = run(&[&card], code);
    assert_eq!(card.doorbell.read().unwrap(), 2);
    assert!(card.writes.lock().unwrap().is_empty());
    assert_eq!((exits.of(ExitKind::MappedBar), exits.of(ExitKind::Unclaimed)), (0, 1), "{exits}");
}

#[test]
fn what_kvm_does_not_serve_is_counted_as_an_exit_of_its_own_kind() {
    let card = Card::new();
    // Only writes of its own width ring a doorbell.
    let code = decode_on().load32(REGISTERS + DOORBELL).out8(0xf4, 0);
    let (_, exits) = run(&[&card], code);
    assert_eq!((exits.of(ExitKind::MappedBar), exits.of(ExitKind::Bar)), (1, 0), "{exits}");
}

#[test]
fn a_function_level_reset_stops_decoding() {
    let card = Card::new();
    // Device control of the PCI Express capability, wherever that is.
    let mut capability = [0; 1];
    card.config_read(0x34, &mut capability);
    let mut header = [0; 2];
    card.config_read(capability[0].into(), &mut header);
    while header[0] != 0x10 {
        capability[0] = header[1];
        assert_ne!(capability[0], 0, "the card has a PCI Express capability");
        card.config_read(capability[0].into(), &mut header);
    }
    let device_control = CONFIG_1 + u64::from(capability[0]) + 8;
    let code = decode_on().store32(device_control, 1 << 15).load32(MEMORY).exit_with_al();
    assert_eq!(run(&[&card], code).0, 0xff);
}

#[test]
fn a_root_port_gates_what_reaches_the_function() {
    let card = Card::new();
    let code = decode_on()
        .store32(MEMORY, 1)
        .store32(PORT_1 + COMMAND, 0)
        .store32(MEMORY + 4, 2) // lost: the port forwards nothing
        .store32(PORT_1 + COMMAND, DECODE)
        .store32(MEMORY + 8, 3)
        .store32(PORT_1 + 0x24, 0xfff0_0010) // the window begins behind the BAR's start
        .store32(MEMORY + 12, 4)
        .store32(PORT_1 + 0x24, 0xfff0_0000)
        .store32(MEMORY + 16, 5)
        .out8(0xf4, 0);
    let (_, exits) = run(&[&card], code);
    assert_eq!([0, 4, 8, 12, 16].map(|offset| card.memory_at(offset)), [1, 0, 3, 0, 5]);
    assert_eq!((exits.of(ExitKind::MappedBar), exits.of(ExitKind::Unclaimed)), (0, 2), "{exits}");
}

#[test]
fn config_space_follows_the_bus_number() {
    let card = Card::new();
    let bus_7 = config(6);
    let id = |at: u64| Code::new().load32(at).exit_with_al();
    let renumbered = |at: u64| {
        let code = Code::new().store32(PORT_1 + 0x18, 0x0007_0700).load32(at).exit_with_al();
        run(&[&card], code).0
    };
    assert_eq!(run(&[&card], id(CONFIG_1)).0, 0x34);
    assert_eq!(run(&[&card], id(CONFIG_1 + (1 << 15))).0, 0xff, "device 1 on a link");
    assert_eq!(run(&[&card], id(CONFIG_2)).0, 0xff, "an empty slot");
    assert_eq!(renumbered(CONFIG_1), 0xff);
    // Bus 7 is also that of the seventh port, whose slot is empty; the first port that claims it wins.
    assert_eq!(renumbered(bus_7), 0x34);
}

#[test]
fn a_secondary_bus_reset_resets_the_function() {
    let card = Card::new();
    let code = decode_on()
        .store32(MEMORY, 1)
        .store32(PORT_1 + 0x3c, 0x0040_0000)
        .store32(CONFIG_1 + COMMAND, DECODE) // lost: the bus is in reset
        .store32(PORT_1 + 0x3c, 0)
        .load32(CONFIG_1 + COMMAND)
        .exit_with_al();
    assert_eq!(run(&[&card], code).0, 0);
    assert_eq!(card.memory_at(0), 1);
}

#[test]
fn firmware_puts_bars_into_the_windows_of_their_root_port() {
    let card = Card::new();
    // The function decodes where the machine put it; the guest is not told by anything but the BAR.
    let (status, exits) =
        run(&[&card], Code::new().store32(CONFIG_1 + COMMAND, DECODE).load32(REGISTERS + 0x44).exit_with_al());
    assert_eq!((status, exits.of(ExitKind::Bar)), (0x44, 1), "{exits}");
}
