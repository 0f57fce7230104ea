// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a driver asks of a channel while an engine has it, and positions at the end of their numbers.

mod waiting;

use ersatz_abi::command::{Cause, Command, Operation};
use ersatz_abi::error::ErrorCode;
use ersatz_abi::fault::{AccessKind, FaultKind};

use super::*;

const FAILURE: ChannelFailure = ChannelFailure { code: ErrorCode::MmuFault, entry: 3, address: 0x5000 };
const ACCESS: FaultedAccess = FaultedAccess { access: AccessKind::Write, kind: FaultKind::NotPresent };

fn enabled() -> Channel {
    let channel = Channel::new(EventFd::new(0).unwrap());
    assert!(channel.set_up(|setup| {
        *setup = Setup { ring_base: 0x1000, control_block: 0x2000, ring_order: 4, ..Setup::default() };
    }));
    assert!(matches!(channel.switch(true, 1, |_| ()), ChannelSwitched::Enabled(_)));
    channel
}

fn task(tag: u64) -> Task {
    Task::new(Command { operation: Operation::Nop, cause: Cause::Other, fence: None, interrupt: false, tag })
}

fn take_up(channel: &Channel) -> Turn {
    match channel.take_up(0, |_| panic!("it waits for nothing")) {
        Found::Turn(turn, None) => turn,
        found => panic!("{found:?}"),
    }
}

/// Takes up the channel with its command, whose wait is over; the tag of that.
fn resume(channel: &Channel) -> (Turn, u64) {
    match channel.take_up(0, |_| true) {
        Found::Turn(turn, Some(task)) => (turn, task.command.tag),
        found => panic!("{found:?}"),
    }
}

fn fault(channel: &Channel, turn: &Turn) {
    assert!(channel.suspend(turn, &task(7), Wait::Replay(FAILURE, ACCESS), || ()));
}

/// The record of a fault can be read before the engine has let go of the channel, so the answer may come before, too.
#[test]
fn answers_are_taken_before_the_engine_has_let_go() {
    let channel = enabled();
    let turn = take_up(&channel);
    fault(&channel, &turn);
    assert!(channel.replay(|_, _| None) && !channel.replay(|_, _| None), "once");
    assert_eq!(channel.let_go(&turn, |_| panic!("nothing waited")), None);
    assert_eq!(resume(&channel).1, 7);
    fault(&channel, &turn);
    assert!(channel.cancel(|cancelled| {
        assert_eq!((cancelled.failure.entry, cancelled.failure.address), (3, 0x5000));
    }));
    assert_eq!(channel.let_go(&turn, |_| panic!("an error is left by a reset alone")), None);
    assert!(channel.is_in_error());
}

#[test]
fn a_reset_that_was_asked_for_leaves_nothing_to_cancel() {
    let channel = enabled();
    let turn = take_up(&channel);
    fault(&channel, &turn);
    assert!(!channel.request_reset(ResetScope::Channel, |_| panic!("the engine has it")));
    assert!(!channel.cancel(|_| panic!("it was reset")));
    assert_eq!(channel.let_go(&turn, |_| ()), Some(Settled::Reset));
    assert_eq!(channel.snapshot().status.error(), Some(ErrorCode::None));
    assert!(!channel.is_faulted() && !channel.replay(|_, _| None));
}

#[test]
fn a_wider_reset_takes_the_place_of_a_narrower_one_and_not_the_other_way() {
    for scopes in [[ResetScope::Channel, ResetScope::Device], [ResetScope::Device, ResetScope::Channel]] {
        let channel = enabled();
        let turn = take_up(&channel);
        for scope in scopes {
            assert!(!channel.request_reset(scope, |_| panic!("the engine has it")));
        }
        assert_eq!(channel.let_go(&turn, |_| ()), Some(Settled::Reset));
        assert_eq!(channel.snapshot().setup, Setup::default());
    }
}

#[test]
fn disabled_and_enabled_again_before_the_engine_let_go_it_was_never_disabled() {
    let channel = enabled();
    let turn = take_up(&channel);
    channel.set_busy(&turn, true);
    assert_eq!(channel.switch(false, 1, |_| ()), ChannelSwitched::Stopping);
    assert!(!channel.set_up(|_| panic!("the engine has it")));
    assert!(matches!(channel.switch(true, 1, |_| ()), ChannelSwitched::Enabled(_)));
    assert!(channel.complete(&turn.completed(Some(9))), "go on");
    assert_eq!(channel.let_go(&turn, |_| ()), None);
    assert_eq!(take_up(&channel).fence, 9);
}

#[test]
fn a_command_that_waits_ends_before_its_channel_is_disabled() {
    let channel = enabled();
    let turn = take_up(&channel);
    assert!(channel.suspend(&turn, &task(7), Wait::Acknowledgement(3), || ()));
    assert_eq!(channel.let_go(&turn, |_| ()), None);
    assert_eq!(channel.switch(false, 1, |_| ()), ChannelSwitched::Stopping);
    let asked = |wait| {
        assert_eq!(wait, Wait::Acknowledgement(3));
        false
    };
    assert!(matches!(channel.take_up(0, asked), Found::Waiting(Wait::Acknowledgement(3))));
    let (turn, _) = resume(&channel);
    assert!(!channel.complete(&turn.completed(None)), "no further command");
    assert_eq!(channel.let_go(&turn, |_| ()), Some(Settled::Stopped));
    assert_eq!(channel.snapshot().get, 1);
}

/// So does one that is replayed before the engine has let go.
#[test]
fn a_command_that_faulted_ends_before_its_channel_is_disabled() {
    let channel = enabled();
    let turn = take_up(&channel);
    assert_eq!(channel.switch(false, 1, |_| ()), ChannelSwitched::Stopping);
    fault(&channel, &turn);
    assert!(channel.replay(|_, _| None));
    assert_eq!(channel.let_go(&turn, |_| panic!("its command has not ended")), None);
    let (resumed, tag) = resume(&channel);
    assert_eq!((resumed.get, tag), (turn.get, 7));
}

#[test]
fn positions_go_on_behind_the_last_number() {
    let channel = enabled();
    channel.state.with(|state| state.get = u32::MAX);
    let turn = take_up(&channel);
    assert_eq!(turn.setup.ring.waiting(turn.get, 1), Some(2));
    assert!(channel.complete(&turn.completed(Some(1))));
    assert_eq!(channel.let_go(&turn, |_| ()), None);
    let turn = take_up(&channel);
    assert_eq!((turn.get, turn.setup.ring.waiting(turn.get, 1)), (0, Some(1)));
    assert!(channel.fail(&turn, FAILURE));
    assert_eq!(channel.snapshot().position, 3 << 32);
}
