// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory that the host demands, the driver hands over, and the host returns.

use std::sync::Arc;
use std::time::Duration;

use ersatz_abi::channel::{ChannelState, Priority};
use ersatz_abi::command::{List, Operation};
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;
use ersatz_abi::fault::FaultKind;
use ersatz_abi::kernel::Kernel;
use ersatz_abi::list::{ListEntry, Location};
use ersatz_abi::mmu::PageSize;
use ersatz_abi::pci::VECTOR_ERROR;
use ersatz_abi::regs::{self, HAND_OVER_BYTES, HandOver};
use ersatz_device_model::GpuConfig;
use ersatz_device_model::bus::PciFunction;
use ersatz_device_model::clock::ManualClock;
use ersatz_device_model::fabric::Fabric;
use ersatz_device_model::inject::{Action, MemoryDemand, MemoryLimit, MemoryReturn, MemoryView};
use ersatz_device_model::trace::Kind;

use ersatz_device_testing::faults::{ASID, BASE, COMPUTE, bind, enable_buffer, records, replayable};
use ersatz_device_testing::tables::{Space, page};
use ersatz_device_testing::{DATA, Host, Interrupts, LISTS, command, entry, reg, system, vram};

const VRAM: u64 = 64 << 20;
const PAGES: u64 = VRAM / HAND_OVER_BYTES;
const GONE: u64 = 0x8000;

/// A host whose driver hears vector 0.
fn listening() -> Host {
    let host = Host::new();
    host.enable(0, 3);
    host
}

fn act(host: &Host, action: Action) {
    host.gpu.inject().act(action).unwrap();
}

fn memory(host: &Host) -> MemoryView {
    host.gpu.query().memory
}

/// The demand that waits for an answer: its number, its range in pages, and how many pages are left.
fn demand(host: &Host) -> (u64, u64, u64, u64) {
    let read = |register: regs::Register| host.read64(register.offset);
    let pages = |register| read(register) / HAND_OVER_BYTES;
    (read(regs::DEMAND), pages(regs::DEMAND_OFFSET), pages(regs::DEMAND_LENGTH), pages(regs::DEMAND_BYTES))
}

fn wait_for_demand(host: &Host, number: u64) {
    host.wait_until("the demand", |host| host.read64(regs::DEMAND.offset) == number);
}

fn hand_over(host: &Host, page: u64, order: u64) {
    host.write64(regs::HAND_OVER.offset, HandOver(0).with_page(page).with_order(order).0);
}

fn answer(host: &Host, number: u64) {
    host.write64(regs::DEMAND_ANSWER.offset, number);
}

/// The pages that are handed over, as the registers show them.
fn handed_over(host: &Host) -> Vec<(u64, u64)> {
    let mut found: Vec<(u64, u64)> = Vec::new();
    loop {
        host.write64(regs::HANDED_OVER.offset, found.last().map_or(0, |(_, end)| end * HAND_OVER_BYTES));
        match host.read64(regs::HANDED_OVER.offset) {
            u64::MAX => {
                assert_eq!(host.read64(regs::HANDED_OVER_END.offset), u64::MAX);
                return found;
            }
            first => {
                let end = host.read64(regs::HANDED_OVER_END.offset);
                found.push((first / HAND_OVER_BYTES, end / HAND_OVER_BYTES));
            }
        }
    }
}

#[test]
fn pages_anywhere_are_demanded_handed_over_and_answered() {
    let host = listening();
    assert_eq!((demand(&host), handed_over(&host)), ((0, 0, 0, 0), vec![]));
    act(&host, Action::DemandMemory(MemoryDemand { pages: Some(6), ..MemoryDemand::default() }));
    assert_eq!(host.interrupts.wait_for(1), [VECTOR_ERROR]);
    assert_eq!(demand(&host), (1, 0, PAGES, 6));
    assert!(host.read64(regs::DEMAND_DEADLINE.offset) > host.read64(regs::TIMESTAMP.offset));
    hand_over(&host, 8, 2);
    hand_over(&host, 12, 0);
    hand_over(&host, 12, 0);
    assert_eq!((demand(&host), handed_over(&host)), ((1, 0, PAGES, 1), vec![(8, 13)]));
    answer(&host, 1);
    assert_eq!(demand(&host), (0, 0, 0, 0));
    let view = memory(&host);
    assert_eq!((view.pages, view.handed_over, view.answered, view.expired), (PAGES, 5, 1, 0));
    assert_eq!((view.demand, host.counter(Counter::BadAccesses)), (None, 0));
}

#[test]
fn a_range_and_all_of_vram_are_demanded_one_after_the_other() {
    let host = listening();
    act(&host, Action::DemandMemory(MemoryDemand { offset: Some(4096), pages: Some(8), ..MemoryDemand::default() }));
    act(&host, Action::DemandMemory(MemoryDemand::default()));
    wait_for_demand(&host, 1);
    assert_eq!(demand(&host), (1, 1, 8, 8));
    // What lies elsewhere is not what is demanded.
    hand_over(&host, 4, 2);
    hand_over(&host, 64, 6);
    assert_eq!(demand(&host), (1, 1, 8, 4));
    answer(&host, 1);
    assert_eq!(demand(&host), (2, 0, PAGES, PAGES - 68));
    hand_over(&host, 0, PAGES.trailing_zeros().into());
    assert_eq!((demand(&host).3, handed_over(&host)), (0, vec![(0, PAGES)]));
    answer(&host, 2);
    // Nothing is left to be demanded.
    act(&host, Action::DemandMemory(MemoryDemand::default()));
    act(&host, Action::ReturnMemory(MemoryReturn { offset: Some(0), pages: Some(1) }));
    host.wait_until("the page", |host| memory(host).handed_over == PAGES - 1);
    assert_eq!((demand(&host).0, memory(&host).answered), (0, 2));
}

#[test]
fn what_is_returned_is_zero_and_of_use() {
    let mut host = listening();
    for page in 0..4 {
        host.store(vram(GONE + page * 4096), 7);
        host.store(vram(GONE + page * 4096 + 4088), 7);
    }
    hand_over(&host, GONE / 4096, 2);
    act(&host, Action::ReturnMemory(MemoryReturn { offset: Some(GONE + 4096), pages: Some(2) }));
    assert_eq!(host.interrupts.wait_for(1), [VECTOR_ERROR]);
    assert_eq!(handed_over(&host), [(8, 9), (11, 12)]);
    assert_eq!([host.load(vram(GONE + 4096)), host.load(vram(GONE + 3 * 4096 - 8))], [0, 0]);
    let copy = host.list(LISTS, &[entry(vram(GONE + 4096), system(DATA), 8192)]);
    host.execute(Operation::Copy(copy), 1);
    // The first ones from anywhere, then the rest.
    act(&host, Action::ReturnMemory(MemoryReturn { offset: None, pages: Some(1) }));
    host.wait_until("the page", |host| handed_over(host) == [(11, 12)]);
    act(&host, Action::ReturnMemory(MemoryReturn::default()));
    host.wait_until("the page", |host| handed_over(host).is_empty());
    assert_eq!(memory(&host).handed_over, 0);
}

#[test]
fn a_limit_demands_and_returns() {
    let host = listening();
    act(&host, Action::LimitMemory(MemoryLimit::new(PAGES - 16)));
    wait_for_demand(&host, 1);
    assert_eq!(demand(&host), (1, 0, PAGES, 16));
    hand_over(&host, 32, 4);
    answer(&host, 1);
    act(&host, Action::LimitMemory(MemoryLimit::new(PAGES - 4)));
    host.wait_until("pages", |host| handed_over(host) == [(44, 48)]);
    act(&host, Action::LimitMemory(MemoryLimit::new(u64::MAX)));
    host.wait_until("pages", |host| handed_over(host).is_empty());
    assert_eq!((demand(&host).0, memory(&host).answered), (0, 1));
}

/// Makes an operation of a list.
type OfList = fn(List) -> Operation;

#[test]
fn engines_refuse_what_was_handed_over_and_say_which() {
    let mut host = listening();
    hand_over(&host, GONE / 4096, 1);
    let cases: [(OfList, ListEntry); 4] = [
        (Operation::Copy, entry(vram(GONE), system(DATA), 4096)),
        (Operation::Copy, entry(system(DATA), vram(GONE - 4096), 0x3000)),
        (|list| Operation::Fill(list, 7), entry(vram(0), vram(GONE), 8)),
        (Operation::Digest, entry(vram(GONE - 8), system(DATA), 16)),
    ];
    for (operation, entry) in cases {
        let refused = command(operation(host.list(LISTS, &[entry])));
        host.submit(refused);
        host.wait_until("the error", |host| host.status(0).state() == Some(ChannelState::Error));
        let found = (host.status(0).error(), host.read64(reg(0, regs::ERROR_ADDRESS)));
        assert_eq!(found, (Some(ErrorCode::HandedOver), GONE), "{entry:?}");
        host.write32(reg(0, regs::CHANNEL_CONTROL), 2);
        host.wait_until("the reset", |host| host.read32(reg(0, regs::CHANNEL_CONTROL)) == 0);
        host.put[0] = 0;
        host.enable(0, 3);
    }
    let beside = host.list(LISTS, &[entry(system(DATA), vram(GONE + 8192), 8)]);
    host.execute(Operation::Copy(beside), 1);
}

#[test]
fn page_tables_and_peers_find_no_way_to_it() {
    let mut host = Host::new();
    enable_buffer(&host);
    let mut space = Space::new(&host, ASID, replayable(), vram(32 << 20));
    bind(&host, 0, COMPUTE, Priority::Low);
    space.map(&host, BASE, page(vram(0x9000), PageSize::Small));
    hand_over(&host, space.entry(BASE, PageSize::Small).address / 4096, 0);
    host.submit(command(Operation::Kernel(Kernel::Set { destination: BASE, length: 64, pattern: 4 })));
    host.wait_until("the fault", |host| host.status(0).state() == Some(ChannelState::Faulted));
    assert_eq!(records(&host).last().map(|record| record.kind), Some(FaultKind::BadTable));

    let fabric = Fabric::new();
    let plugged = |number| {
        let mut config = GpuConfig::new(4 << 20);
        config.fabric = Some(fabric.port(number).unwrap());
        Host::with(config, Interrupts::default())
    };
    let (mut zero, one) = (plugged(0), plugged(1));
    zero.enable(0, 1);
    hand_over(&one, 3, 0);
    let list = zero.list(LISTS, &[entry(Location::peer(1, 0x3000), vram(0), 8)]);
    zero.submit(command(Operation::Copy(list)));
    zero.wait_until("the error", |host| host.status(0).state() == Some(ChannelState::Error));
    assert_eq!(zero.status(0).error(), Some(ErrorCode::HandedOver));
}

#[test]
fn it_outlasts_resets() {
    let host = listening();
    act(&host, Action::DemandMemory(MemoryDemand { pages: Some(2), ..MemoryDemand::default() }));
    wait_for_demand(&host, 1);
    hand_over(&host, 5, 0);
    host.write64(regs::HANDED_OVER.offset, 0x7000);
    host.write32(regs::CONTROL.offset, 1);
    host.wait_until("the reset", |host| host.read32(regs::CONTROL.offset) == 0);
    assert_eq!(host.read64(regs::HANDED_OVER.offset), 0x5000, "the search begins anew");
    assert_eq!((demand(&host), handed_over(&host)), ((1, 0, PAGES, 1), vec![(5, 6)]));
    host.gpu.reset();
    host.start();
    assert_eq!((demand(&host), handed_over(&host)), ((1, 0, PAGES, 1), vec![(5, 6)]));
    answer(&host, 1);
    assert_eq!(host.counter(Counter::BadAccesses), 0);
}

#[test]
fn a_demand_ends_at_its_deadline_and_the_next_one_comes() {
    let clock = Arc::new(ManualClock::new());
    let host = Host::with_clock(clock.clone());
    let demanded = |pages| MemoryDemand { pages: Some(pages), deadline_ns: 1000, ..MemoryDemand::default() };
    act(&host, Action::DemandMemory(demanded(1)));
    act(&host, Action::DemandMemory(demanded(2)));
    wait_for_demand(&host, 1);
    assert_eq!(host.read64(regs::DEMAND_DEADLINE.offset), host.read64(regs::TIMESTAMP.offset) + 1000);
    clock.advance(Duration::from_nanos(1000));
    wait_for_demand(&host, 2);
    assert_eq!(demand(&host).3, 2);
    // The answer that is too late says nothing about the next demand.
    answer(&host, 1);
    assert_eq!((demand(&host).0, memory(&host).expired, memory(&host).answered), (2, 1, 0));
    answer(&host, 2);
    clock.advance(Duration::from_nanos(1000));
    assert_eq!((demand(&host).0, memory(&host).expired, memory(&host).answered), (0, 1, 1));
    assert_eq!(host.counter(Counter::BadAccesses), 0);
}

#[test]
fn what_cannot_be_handed_over_or_answered_is_a_bad_access() {
    let host = Host::new();
    let values = [
        HandOver(0).with_page(PAGES).0,
        HandOver(0).with_page(PAGES - 2).with_order(2).0,
        HandOver(0).with_page(1).with_order(1).0,
        HandOver(0).with_order(PAGES.trailing_zeros() as u64 + 1).0,
        HandOver(0).with_order(40).0,
        HandOver(0).with_order(63).0,
        1 << 6,
        1 << 52,
        u64::MAX,
    ];
    for value in values {
        host.write64(regs::HAND_OVER.offset, value);
    }
    for number in [0, 1, u64::MAX] {
        answer(&host, number);
    }
    assert_eq!((host.counter(Counter::BadAccesses), handed_over(&host)), (values.len() as u64 + 3, vec![]));
    // Halves hand over once both are there.
    host.write32(regs::HAND_OVER.offset, 0x3000);
    assert_eq!(handed_over(&host), []);
    host.write32(regs::HAND_OVER.offset + 4, 0);
    assert_eq!(handed_over(&host), [(3, 4)]);
}

#[test]
fn a_rule_demands_and_another_one_returns() {
    use ersatz_device_model::inject::Rule;
    let mut host = listening();
    let mut shrink = Rule::new("shrink", Action::LimitMemory(MemoryLimit::new(PAGES - 1)));
    shrink.on.event.kinds = vec![Kind::from_name("fence").unwrap()];
    let mut grow = Rule::new("grow", Action::LimitMemory(MemoryLimit::new(PAGES)));
    grow.on.event.kinds = vec![Kind::from_name("demand-answered").unwrap()];
    for rule in [shrink, grow] {
        host.gpu.inject().add_rule(rule).unwrap();
    }
    host.execute(Operation::Nop, 1);
    wait_for_demand(&host, 1);
    hand_over(&host, 9, 0);
    answer(&host, 1);
    host.wait_until("the page", |host| handed_over(host).is_empty());
    assert_eq!(memory(&host).answered, 1);
}

#[test]
fn what_no_rule_can_demand() {
    let host = Host::new();
    let refused = |action| host.gpu.inject().act(action).is_err();
    assert!(refused(Action::DemandMemory(MemoryDemand { pages: Some(0), ..MemoryDemand::default() })));
    assert!(refused(Action::DemandMemory(MemoryDemand { deadline_ns: 0, ..MemoryDemand::default() })));
    assert!(refused(Action::LimitMemory(MemoryLimit { pages: 1, deadline_ns: u64::MAX })));
    assert!(refused(Action::ReturnMemory(MemoryReturn { offset: None, pages: Some(0) })));
    assert!(refused(Action::Drop), "an action that decides about events is refused as a request");
}
