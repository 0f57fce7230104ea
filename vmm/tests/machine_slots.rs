// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Functions that come and go while tiny guests run.

mod card;
mod machine_code;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use card::{Card, DOORBELL};
use ersatz::machine::{
    Console, End, FunctionFactory, Machine, MachineConfig, MachineError, MachineHandle, Payload, PlugError,
};
use ersatz_device_model::bus::PciFunction;
use machine_code::{Code, config, port};

const SLOT: u8 = 4;
/// Config space of the function in that slot.
const CONFIG: u64 = config(SLOT as u64);
const COMMAND: u64 = CONFIG + 4;
const BAR0: u64 = CONFIG + 0x10;
const BAR2: u64 = CONFIG + 0x18;
const DECODE: u32 = 2;
const CARD_ID: u32 = 0x0001_1234;
const NOTHING: u32 = u32::MAX;
/// Where the guest puts the BARs.
const REGISTERS: u64 = 0xd000_0000;
const MEMORY: u64 = 0x1_4000_0000;
/// RAM in which the guest says how far it is.
const PROGRESS: u64 = 0x20_0000;

fn machine(functions: Vec<FunctionFactory>, code: Code) -> Result<Machine, MachineError> {
    let payload = Payload::Code { code: code.bytes(), mapped: 8 << 30 };
    let config = MachineConfig { vcpus: 1, memory: 4 << 20, payload };
    Machine::new(&config, functions, Console { output: Box::new(io::sink()), input: None })
}

/// What a guest does with a function that it finds: it gives the BARs addresses, and has them decode.
fn use_card(code: Code) -> Code {
    code.open_port(SLOT.into())
        .wait_memory(CONFIG, CARD_ID)
        .store32(BAR0, REGISTERS as u32)
        .store32(BAR2, MEMORY as u32)
        .store32(BAR2 + 4, (MEMORY >> 32) as u32)
        .store32(COMMAND, DECODE)
}

/// Runs the guest while `host` does something with its slots.
fn run(code: Code, host: impl FnOnce(&MachineHandle) + Send) -> End {
    let machine = machine(Vec::new(), code).expect("these tests need /dev/kvm");
    let handle = machine.handle();
    thread::scope(|scope| {
        scope.spawn(|| {
            let _stop = StopOnPanic(&handle);
            host(&handle);
        });
        machine.run().expect("the guest runs to its end")
    })
}

/// Ends the machine if the test's own thread fails, which otherwise would wait for ever.
struct StopOnPanic<'a>(&'a MachineHandle);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.stop();
        }
    }
}

fn wait_for(condition: impl Fn() -> bool) {
    for _ in 0..60_000 {
        if condition() {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("the guest does not get there");
}

#[test]
fn a_guest_uses_a_function_that_came_late_and_sees_it_go() {
    let card = Card::new();
    let code = use_card(Code::new())
        .store32(MEMORY + 0x1000, 7)
        .store32(REGISTERS + DOORBELL, 1)
        .wait_memory(CONFIG, NOTHING)
        .wait_memory(MEMORY + 0x1000, NOTHING)
        .load32(REGISTERS)
        .exit_with_al();
    let end = run(code, |handle| {
        handle.pci().plug(SLOT, card.factory()).unwrap();
        wait_for(|| card.doorbell.read().is_ok());
        handle.pci().unplug(SLOT).unwrap();
    });
    assert_eq!(end, End::Exited(0xff));
    assert_eq!(card.memory_at(0x1000), 7);
}

#[test]
fn a_slot_is_used_again_and_again() {
    // The guest says that it has seen a card go: it would never see that if the next one came before it looked.
    let until_gone = |code: Code| code.wait_memory(CONFIG, NOTHING).out8(0xf5, 0);
    let first = until_gone(use_card(Code::new()).store32(MEMORY, 1).store32(REGISTERS + DOORBELL, 1));
    let second = until_gone(use_card(first).store32(MEMORY, 2).store32(REGISTERS + DOORBELL, 1));
    let code = use_card(second).store32(MEMORY, 3).store32(REGISTERS + DOORBELL, 1).out8(0xf4, 0);
    let cards = [Card::new(), Card::new(), Card::new()];
    run(code, |handle| {
        for card in &cards {
            handle.pci().plug(SLOT, card.factory()).unwrap();
            wait_for(|| card.doorbell.read().is_ok());
            if !Arc::ptr_eq(card, &cards[2]) {
                handle.pci().unplug(SLOT).unwrap();
                wait_for(|| handle.ready().read().is_ok());
            }
        }
    });
    assert_eq!([0, 1, 2].map(|card: usize| cards[card].memory_at(0)), [1, 2, 3]);
}

#[test]
fn slots_change_under_a_guest_that_never_rests() {
    // The guest enables whatever is there and uses it, for as long as the machine runs.
    let once = Code::new()
        .open_port(SLOT.into())
        .store32(BAR0, REGISTERS as u32)
        .store32(BAR2, MEMORY as u32)
        .store32(BAR2 + 4, (MEMORY >> 32) as u32)
        .store32(COMMAND, DECODE)
        .store32(MEMORY, 7)
        .store32(REGISTERS + 0x40, 7)
        .load32(REGISTERS);
    let end = run(once.repeat(), |handle| {
        // More than there are interrupts, were they not given back.
        for _ in 0..5000 {
            handle.pci().plug(SLOT, Card::new().factory()).unwrap();
            handle.pci().unplug(SLOT).unwrap();
        }
        assert!(handle.pci().occupied().is_empty());
        handle.stop();
    });
    assert_eq!(end, End::Stopped);
}

#[test]
fn the_root_port_shows_whether_there_is_a_function() {
    // Slot status: presence detect.
    let slot_status = port(SLOT.into()) + 0x48 + 24;
    let code = Code::new()
        .wait_memory(slot_status, 1 << 22)
        .store32(CONFIG + 0x10, 0xd000_0000)
        .wait_memory(CONFIG + 0x10, 0xd000_0000)
        .store32(COMMAND, DECODE)
        .wait_memory(slot_status, 0)
        .out8(0xf4, 9);
    let card = Card::new();
    let end = run(code, |handle| {
        handle.pci().plug(SLOT, card.factory()).unwrap();
        wait_for(|| {
            let mut command = [0];
            card.config_read(4, &mut command);
            command[0] & 2 != 0
        });
        handle.pci().unplug(SLOT).unwrap();
    });
    assert_eq!(end, End::Exited(9));
}

#[test]
fn what_cannot_be_is_refused() {
    let machine = machine(vec![Card::new().factory()], Code::new().spin()).expect("these tests need /dev/kvm");
    let handle = machine.handle();
    let slots = handle.pci();
    assert!(matches!(slots.plug(0, Card::new().factory()), Err(PlugError::Occupied(0))));
    assert!(matches!(slots.unplug(1), Err(PlugError::Empty(1))));
    assert!(matches!(slots.plug(200, Card::new().factory()), Err(PlugError::NoSlot { slot: 200, .. })));
    let failing: FunctionFactory = Box::new(|_| Err("it is broken".into()));
    assert!(matches!(slots.plug(1, failing), Err(PlugError::Function { slot: 1, .. })));
    assert_eq!(slots.occupied(), [0]);
    assert_eq!(slots.empty().first(), Some(&1));
    slots.plug(1, Card::new().factory()).unwrap();
    drop(machine);
    assert!(matches!(slots.unplug(1), Err(PlugError::Ended)));
    assert!(slots.empty().is_empty());
}

#[test]
fn a_function_that_left_is_dropped_and_one_that_stayed_too() {
    let (gone, stays) = (Card::new(), Card::new());
    let (weak_gone, weak_stays) = (Arc::downgrade(&gone), Arc::downgrade(&stays));
    let unplugged = AtomicBool::new(false);
    run(use_card(Code::new()).store32(PROGRESS, 1).spin(), |handle| {
        let dropped = |card: &Weak<Card>| card.strong_count() == 0;
        handle.pci().plug(SLOT, gone.factory()).unwrap();
        handle.pci().plug(SLOT + 1, stays.factory()).unwrap();
        drop((gone, stays));
        handle.pci().unplug(SLOT).unwrap();
        assert!(dropped(&weak_gone) && !dropped(&weak_stays));
        unplugged.store(true, Ordering::Relaxed);
        handle.stop();
    });
    assert!(unplugged.load(Ordering::Relaxed) && weak_stays.upgrade().is_none());
}
