// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Poisoned pages of VRAM: no engine accesses one, whatever leads there, and nothing makes it well.

use ersatz_abi::channel::{ChannelState, Priority};
use ersatz_abi::command::{Command, List, Operation};
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;
use ersatz_abi::fault::FaultKind;
use ersatz_abi::kernel::Kernel;
use ersatz_abi::list::{ListEntry, Location};
use ersatz_abi::mmu::PageSize;
use ersatz_abi::pci::VECTOR_ERROR;
use ersatz_abi::regs::{self, MAX_POISONED_PAGES, POISON_BYTES};
use ersatz_device_model::GpuConfig;
use ersatz_device_model::bus::PciFunction;
use ersatz_device_model::fabric::Fabric;
use ersatz_device_model::inject::{Action, Rule};

use ersatz_device_testing::faults::{ASID, BASE, COMPUTE, bind, enable_buffer, records, replayable};
use ersatz_device_testing::tables::{Space, page};
use ersatz_device_testing::{DATA, Host, Interrupts, LISTS, command, entry, reg, system, vram};

const VRAM: u64 = 64 << 20;
const BAD: u64 = 0x7000;

/// What the register says from an offset on; `None` for all ones.
fn poisoned_from(host: &Host, offset: u64) -> Option<u64> {
    host.write64(regs::POISONED.offset, offset);
    Some(host.read64(regs::POISONED.offset)).filter(|found| *found != u64::MAX)
}

fn poison(host: &Host, offset: u64) {
    host.write64(regs::POISON.offset, offset);
}

/// Submits to channel 0 what is to fail. Returns how, and at which address.
fn refused(host: &mut Host, command: Command) -> (Option<ErrorCode>, u64) {
    host.submit(command);
    host.wait_until("the error", |host| host.status(0).state() == Some(ChannelState::Error));
    (host.status(0).error(), host.read64(reg(0, regs::ERROR_ADDRESS)))
}

/// The channel works again.
fn restart(host: &mut Host) {
    host.write32(reg(0, regs::CHANNEL_CONTROL), 2);
    host.wait_until("the reset", |host| host.read32(reg(0, regs::CHANNEL_CONTROL)) == 0);
    host.put[0] = 0;
    host.enable(0, 1);
}

/// Makes an operation of a list.
type OfList = fn(List) -> Operation;

fn list(host: &Host, operation: OfList, entry: ListEntry) -> Command {
    command(operation(host.list(LISTS, &[entry])))
}

#[test]
fn engines_refuse_a_poisoned_page_and_say_which() {
    let mut host = Host::new();
    host.enable(0, 1);
    poison(&host, BAD + 24);
    let cases: [(OfList, ListEntry); 5] = [
        (Operation::Copy, entry(vram(BAD), system(DATA), 4096)),
        (Operation::Copy, entry(system(DATA), vram(BAD + 4088), 8)),
        (Operation::Copy, entry(system(DATA), vram(BAD - 0x2000), 0x1_0000)),
        (|list| Operation::Fill(list, 7), entry(vram(0), vram(BAD), 8)),
        (Operation::Digest, entry(vram(BAD - 8), system(DATA), 16)),
    ];
    for (operation, entry) in cases {
        let command = list(&host, operation, entry);
        assert_eq!(refused(&mut host, command), (Some(ErrorCode::Poisoned), BAD), "{entry:?}");
        restart(&mut host);
    }
    let beside =
        host.list(LISTS, &[entry(system(DATA), vram(BAD + 4096), 4096), entry(vram(0), vram(BAD - 4096), 4096)]);
    host.execute(Operation::Copy(beside), 1);
    assert_eq!(host.counter(Counter::CopyEntries), 2);
}

#[test]
fn kernels_and_page_tables_find_no_way_to_it() {
    let mut host = Host::new();
    enable_buffer(&host);
    let mut space = Space::new(&host, ASID, replayable(), vram(32 << 20));
    bind(&host, 0, COMPUTE, Priority::Low);
    space.map(&host, BASE, page(vram(BAD), PageSize::Small));
    host.submit(command(Operation::Kernel(Kernel::Set { destination: BASE, length: 64, pattern: 3 })));
    host.wait_until("work", |host| host.get() == 1);
    poison(&host, BAD);
    let again = command(Operation::Kernel(Kernel::Set { destination: BASE, length: 64, pattern: 4 }));
    assert_eq!(refused(&mut host, again), (Some(ErrorCode::Poisoned), BAD));
    assert_eq!(host.load(vram(BAD)), 3, "what was there");
    // A page table that cannot be read is a fault like any other of its kind.
    space.map(&host, BASE + (1 << 30), page(vram(0x9000), PageSize::Small));
    poison(&host, space.entry(BASE + (1 << 30), PageSize::Small).address);
    host.write32(reg(0, regs::CHANNEL_CONTROL), 2);
    host.wait_until("the reset", |host| host.read32(reg(0, regs::CHANNEL_CONTROL)) == 0);
    host.put[0] = 0;
    bind(&host, 0, COMPUTE, Priority::Low);
    host.submit(command(Operation::Kernel(Kernel::Set { destination: BASE + (1 << 30), length: 64, pattern: 4 })));
    host.wait_until("the fault", |host| host.status(0).state() == Some(ChannelState::Faulted));
    assert_eq!(records(&host).last().map(|record| record.kind), Some(FaultKind::BadTable));
}

#[test]
fn peers_are_refused_as_well() {
    let fabric = Fabric::new();
    let plugged = |number| {
        let mut config = GpuConfig::new(4 << 20);
        config.fabric = Some(fabric.port(number).unwrap());
        Host::with(config, Interrupts::default())
    };
    let (mut zero, one) = (plugged(0), plugged(1));
    zero.enable(0, 1);
    poison(&one, BAD);
    let copy = list(&zero, Operation::Copy, entry(Location::peer(1, BAD), vram(0), 8));
    assert_eq!(refused(&mut zero, copy), (Some(ErrorCode::Poisoned), BAD));
    assert_eq!(poisoned_from(&zero, 0), None, "it is the peer's");
}

#[test]
fn the_register_shows_all_in_order_through_every_reset() {
    let host = Host::new();
    assert_eq!(poisoned_from(&host, 0), None);
    for offset in [0x5000, VRAM - 1, 0x2008] {
        poison(&host, offset);
    }
    let all = |host: &Host| {
        let mut found = Vec::new();
        while let Some(offset) = poisoned_from(host, found.last().map_or(0, |last| last + POISON_BYTES)) {
            found.push(offset);
        }
        found
    };
    assert_eq!(all(&host), [0x2000, 0x5000, VRAM - 4096]);
    host.write32(regs::CONTROL.offset, 1);
    host.wait_until("the reset", |host| host.read32(regs::CONTROL.offset) == 0);
    assert_eq!(host.read64(regs::POISONED.offset), 0x2000, "the search begins anew");
    assert_eq!(all(&host), [0x2000, 0x5000, VRAM - 4096]);
    host.gpu.reset();
    host.start();
    assert_eq!(all(&host), [0x2000, 0x5000, VRAM - 4096]);
    assert_eq!(host.counter(Counter::BadAccesses), 0);
}

#[test]
fn what_is_no_page_or_one_too_many_is_a_bad_access() {
    let host = Host::new();
    poison(&host, VRAM);
    poison(&host, u64::MAX);
    assert_eq!((host.counter(Counter::BadAccesses), poisoned_from(&host, 0)), (2, None));
    for page in 0..u64::from(MAX_POISONED_PAGES) {
        poison(&host, page * POISON_BYTES);
    }
    poison(&host, VRAM - 1);
    assert_eq!(host.counter(Counter::BadAccesses), 3);
    assert_eq!(poisoned_from(&host, u64::from(MAX_POISONED_PAGES) * POISON_BYTES), None);
}

#[test]
fn a_page_that_is_mended_is_zero_and_of_use() {
    let mut host = Host::new();
    host.enable(0, 1);
    host.store(vram(BAD + 8), 5);
    poison(&host, BAD);
    host.write64(regs::POISON_CLEAR.offset, BAD + 4095);
    assert_eq!((poisoned_from(&host, 0), host.load(vram(BAD + 8))), (None, 0));
    let copy = host.list(LISTS, &[entry(vram(BAD), system(DATA), 4096)]);
    host.execute(Operation::Copy(copy), 1);
    // One that is well is left alone.
    host.store(vram(BAD + 8), 6);
    host.write64(regs::POISON_CLEAR.offset, BAD);
    assert_eq!((host.load(vram(BAD + 8)), host.counter(Counter::BadAccesses)), (6, 0));
    host.write64(regs::POISON_CLEAR.offset, VRAM);
    assert_eq!(host.counter(Counter::BadAccesses), 1);
}

#[test]
fn halves_poison_once_both_are_there() {
    let host = Host::new();
    host.write32(regs::POISON.offset, 0x3000);
    assert_eq!(poisoned_from(&host, 0), None);
    host.write32(regs::POISON.offset + 4, 0);
    assert_eq!(poisoned_from(&host, 0), Some(0x3000));
}

#[test]
fn a_rule_poisons_pages_and_the_driver_is_told() {
    let host = Host::new();
    host.enable(0, 3);
    let mut rule = Rule::new("rule", Action::Poison { offset: VRAM - 8192, pages: 4 });
    rule.on.at_ns = Some(0);
    host.gpu.inject().add_rule(rule).unwrap();
    assert_eq!(host.interrupts.wait_for(1), [VECTOR_ERROR]);
    assert_eq!(poisoned_from(&host, 0), Some(VRAM - 8192));
    assert_eq!(poisoned_from(&host, VRAM - 4096), Some(VRAM - 4096));
    assert_eq!(host.counter(Counter::BadAccesses), 0, "what is beyond VRAM is left out");
}
