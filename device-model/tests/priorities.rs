// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Priorities: whose turn it is, and what waits for nobody's turn.

mod host;

use ersatz_abi::channel::{ChannelState, Priority};
use ersatz_abi::command::{Command, List, Operation};
use ersatz_abi::counter::Counter;
use ersatz_abi::list::Location;
use ersatz_abi::regs;

use host::{DATA, Host, LISTS, command, entry, reg};

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

#[test]
fn higher_priorities_come_first() {
    let mut host = Host::new();
    // Behind a command that takes long, all three wait; then the order is that of their priorities.
    for (channel, priority) in [(0, Priority::High), (1, Priority::Low), (2, Priority::Normal), (3, Priority::High)] {
        bind(&host, channel, priority);
    }
    let work = Operation::Copy(copies(&host, 16));
    for round in 1..=8 {
        host.submit(Command { fence: Some(round), ..command(work) });
    }
    for channel in [1, 2, 3] {
        host.submit_to(channel, Command { fence: Some(1), interrupt: true, ..command(Operation::Nop) });
    }
    assert_eq!(host.interrupts.wait_for(3), [13, 12, 11]);
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
