// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Functions that change without an access, while tiny guests use them.

mod card;
mod machine_code;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use card::{Card, DOORBELL};
use ersatz::machine::{Console, End, Machine, MachineConfig, MachineHandle, Payload};
use ersatz_device_model::bus::Effect;
use machine_code::{Code, config};

const CONFIG: u64 = config(0);
const CARD_ID: u32 = 0x0001_1234;
const DECODE: u32 = 2;
const NOTHING: u32 = u32::MAX;
/// Where the guest puts the BARs.
const REGISTERS: u64 = 0xd000_0000;
const MEMORY: u64 = 0x1_4000_0000;
const PATIENCE: Duration = Duration::from_secs(60);

/// A guest that uses the function, writes to its memory, and rings its doorbell.
fn guest() -> Code {
    Code::new()
        .open_port(0)
        .store32(CONFIG + 0x10, REGISTERS as u32)
        .store32(CONFIG + 0x18, MEMORY as u32)
        .store32(CONFIG + 0x1c, (MEMORY >> 32) as u32)
        .store32(CONFIG + 4, DECODE)
        .store32(MEMORY + 0x44, 7)
        .store32(REGISTERS + DOORBELL, 1)
}

/// Runs the guest with a card; once that was rung `host` does something with it.
fn run(code: Code, host: impl FnOnce(&Card, &MachineHandle) + Send) -> (End, Arc<Card>) {
    let card = Card::new();
    let payload = Payload::Code { code: code.bytes(), mapped: 8 << 30 };
    let config = MachineConfig { vcpus: 1, memory: 4 << 20, payload };
    let console = Console { output: Box::new(io::sink()), input: None };
    let machine = Machine::new(&config, vec![card.factory()], console).expect("these tests need /dev/kvm");
    let handle = machine.handle();
    let end = thread::scope(|scope| {
        scope.spawn(|| {
            wait_for_ring(&card);
            host(&card, &handle);
        });
        // A guest that does not get to its end shall not hang the test.
        let watchdog = handle.clone();
        let (done, is_done) = channel::<()>();
        scope.spawn(move || {
            if is_done.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                watchdog.stop();
            }
        });
        let end = machine.run().expect("the guest runs to its end");
        drop(done);
        end
    });
    (end, card)
}

fn wait_for_ring(card: &Card) {
    let start = Instant::now();
    while card.doorbell.read().is_err() && start.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_function_that_is_gone_leaves_its_slot() {
    // It ends when it sees the card in the other slot.
    let code = guest()
        .wait_memory(CONFIG, NOTHING)
        .wait_memory(MEMORY + 0x44, NOTHING)
        .wait_memory(config(1), CARD_ID)
        .out8(0xf4, 3);
    let (end, card) = run(code, |card, handle| {
        card.report(Effect::Gone);
        let start = Instant::now();
        while !handle.pci().occupied().is_empty() && start.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(1));
        }
        handle.pci().plug(1, Card::new().factory()).expect("other slots go on");
    });
    assert_eq!(end, End::Exited(3));
    assert_eq!(card.memory_at(0x44), 7);
}

#[test]
fn memory_that_is_none_any_more_is_trapped() {
    // The card's registers read as their offset.
    let code = guest().wait_memory(MEMORY + 0x44, 0x4444_4444).store32(MEMORY + 0x48, 9).out8(0xf4, 4);
    let (end, card) = run(code, |card, _| {
        card.hidden.store(true, Ordering::Relaxed);
        card.report(Effect::MappingsChanged { bar: 2 });
    });
    assert_eq!(end, End::Exited(4));
    assert_eq!(card.memory_at(0x44), 7);
    assert_eq!(*card.writes.lock().unwrap(), [(2, 0x48, vec![9, 0, 0, 0])]);
}

#[test]
fn a_function_falls_asleep_and_wakes() {
    let code = guest()
        .wait_memory(MEMORY + 0x44, NOTHING)
        .store32(CONFIG + 0x3c, 1) // says that it saw that
        .wait_memory(MEMORY + 0x44, 7)
        .out8(0xf4, 5);
    let (end, _) = run(code, |card, _| {
        card.report(Effect::BarMoved { bar: 2, address: None });
        let start = Instant::now();
        while card.interrupt_line() == 0 && start.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(1));
        }
        card.report(Effect::BarMoved { bar: 2, address: Some(MEMORY) });
    });
    assert_eq!(end, End::Exited(5));
}

#[test]
fn a_function_that_resets_itself_decodes_nothing() {
    let code =
        guest().wait_memory(REGISTERS, NOTHING).wait_memory(MEMORY + 0x44, NOTHING).load32(CONFIG).exit_with_al();
    let (end, _) = run(code, |card, _| card.report(Effect::Reset));
    assert_eq!(end, End::Exited(0x34), "it is still there");
}
