// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Priorities: which channel is next, and what does not wait for its turn.

use ersatz_abi::channel::{ChannelState, Priority};
use ersatz_abi::command::{Command, List, Operation};
use ersatz_abi::counter::Counter;
use ersatz_abi::list::Location;
use ersatz_abi::regs;

use ersatz_device_testing::held::Holding;
use ersatz_device_testing::{DATA, Host, LISTS, command, entry, reg};

/// The engine of all channels here.
const COPY: u32 = 0;
/// As many as a list can have: seconds of copying.
const ENDLESS: usize = 65_536;

fn bind(host: &Host, channel: u32, priority: Priority) {
    host.write32(reg(channel, regs::ENGINE), COPY);
    host.write32(reg(channel, regs::PRIORITY), priority as u32);
    host.enable(channel, 10 + channel);
}

/// So many copies of 2 MiB.
fn copies(host: &Host, count: usize) -> List {
    let entries = vec![entry(Location::system(DATA), Location::vram(0), 2 << 20); count];
    host.list(LISTS, &entries)
}

/// A host whose engine is held by a copy of channel 0, of high priority.
fn held() -> (Host, Holding) {
    let (mut host, holding) = Host::held_at(DATA);
    bind(&host, 0, Priority::High);
    let work = Operation::Copy(copies(&host, 1));
    host.submit(command(work));
    holding.wait_until_held();
    (host, holding)
}

fn submit_nops(host: &mut Host, channel: u32, count: u32) {
    for _ in 0..count {
        host.push_words_to(channel, Command { interrupt: true, ..command(Operation::Nop) }.encode());
    }
    host.ring_doorbell(channel);
}

#[test]
fn higher_priorities_come_first() {
    let (mut host, holding) = held();
    for (channel, priority) in [(1, Priority::Low), (2, Priority::Normal), (3, Priority::High)] {
        bind(&host, channel, priority);
        submit_nops(&mut host, channel, 20);
    }
    holding.release();
    let order: Vec<u16> = [13, 12, 11].into_iter().flat_map(|vector| [vector; 20]).collect();
    assert_eq!(host.interrupts.wait_for(60), order);
}

#[test]
fn channels_of_one_priority_take_turns() {
    let (mut host, holding) = held();
    for channel in [1, 2] {
        bind(&host, channel, Priority::Normal);
        submit_nops(&mut host, channel, 40);
    }
    holding.release();
    let seen = host.interrupts.wait_for(80);
    let turns: Vec<(u16, usize)> = seen.chunk_by(|one, next| one == next).map(|turn| (turn[0], turn.len())).collect();
    let (first, second) = (seen[0], 23 - seen[0]);
    assert_eq!(turns, [(first, 16), (second, 16), (first, 16), (second, 16), (first, 8), (second, 8)]);
}

/// However much a channel of high priority has to do, one of low priority is reset and disabled when its driver wants that.
#[test]
fn a_reset_waits_for_no_priority() {
    let mut host = Host::new();
    bind(&host, 0, Priority::High);
    bind(&host, 1, Priority::Low);
    let work = Operation::Copy(copies(&host, ENDLESS));
    host.submit(Command { fence: Some(1), ..command(work) });
    host.write32(reg(1, regs::CHANNEL_CONTROL), 0);
    host.wait_until("disabled", |host| host.status(1).state() == Some(ChannelState::Disabled));
    host.write32(reg(1, regs::CHANNEL_CONTROL), 2);
    host.wait_until("the reset", |host| host.read32(reg(1, regs::CHANNEL_CONTROL)) == 0);
    assert_eq!(host.fence(), 0, "the other one has not ended meanwhile");
}

/// A channel of low priority has the engine, and work of high priority waits behind it: once the engine has let go, the reset is
/// complete, whoever has the next turn.
#[test]
fn a_reset_of_who_is_at_work_waits_for_no_priority() {
    let mut host = Host::new();
    bind(&host, 0, Priority::High);
    bind(&host, 1, Priority::Low);
    let work = Operation::Copy(copies(&host, ENDLESS));
    host.submit_to(1, command(work));
    host.wait_until("copying", |host| host.counter(Counter::CopyEntries) > 0);
    host.submit(Command { fence: Some(1), ..command(work) });
    host.write32(reg(1, regs::CHANNEL_CONTROL), 2);
    host.wait_until("the reset", |host| host.read32(reg(1, regs::CHANNEL_CONTROL)) == 0);
    assert_eq!(host.fence(), 0, "the other one has not ended meanwhile");
}

/// Likewise, a channel that is to be disabled is that once its command is done.
#[test]
fn disabling_who_is_at_work_waits_for_no_priority() {
    let mut host = Host::new();
    bind(&host, 0, Priority::High);
    bind(&host, 1, Priority::Low);
    let endless = copies(&host, ENDLESS);
    let short = Operation::Copy(List { count: 4096, ..endless });
    host.submit_to(1, Command { fence: Some(1), ..command(short) });
    host.wait_until("copying", |host| host.counter(Counter::CopyEntries) > 0);
    host.submit(Command { fence: Some(1), ..command(Operation::Copy(endless)) });
    host.write32(reg(1, regs::CHANNEL_CONTROL), 0);
    host.wait_until("disabled", |host| host.status(1).state() == Some(ChannelState::Disabled));
    assert_eq!((host.fence_of(1), host.fence()), (1, 0));
}
