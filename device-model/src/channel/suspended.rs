// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A command that waits. It belongs to its channel: no engine, lock or pass is held for it, and a reset of the channel drops
//! it.

use ersatz_abi::channel::ChannelState;
use ersatz_abi::fault::{AccessKind, FaultKind};

use super::setup::ChannelFailure;
use super::task::Task;

/// Why a command cannot go on yet.
///
/// A wait ends in one of two ways: by a call ([`Channel::replay`](super::Channel::replay)), or because the engine, which looks
/// each time that it takes up the channel, finds that what is waited for has come. Whatever makes that true, or ends the wait,
/// kicks the engine afterwards. A command begins to wait only if what it needs was not there in the same turn, so no kick is
/// missed. A wait for a time needs none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// An access faulted: the command waits until the driver replays it. If the driver cancels it instead, this is the failure.
    Replay(ChannelFailure, FaultedAccess),
    /// An invalidation was requested: the command waits until this number is acknowledged.
    Acknowledgement(u64),
    /// A breakpoint holds the command: it waits until the hold of this number has ended.
    Hold(u64),
    /// The command waits until the device's clock reads this many nanoseconds.
    Time(u64),
}

/// The access that a command waits with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FaultedAccess {
    /// How it would access memory.
    pub(crate) access: AccessKind,
    /// Why it could not.
    pub(crate) kind: FaultKind,
}

/// A command that waits, with all that was done of it.
#[derive(Debug)]
pub(super) struct Suspended {
    pub(super) task: Box<Task>,
    /// `None` once a call has ended the wait.
    pub(super) wait: Option<Wait>,
}

impl Wait {
    /// When the wait ends by itself, in nanoseconds of the device's clock.
    pub(crate) fn deadline(self) -> Option<u64> {
        match self {
            Self::Time(deadline) => Some(deadline),
            Self::Replay(..) | Self::Acknowledgement(_) | Self::Hold(_) => None,
        }
    }

    /// The state of a channel whose command waits for this.
    pub(super) fn state(self) -> ChannelState {
        match self {
            Self::Replay(..) => ChannelState::Faulted,
            Self::Acknowledgement(_) | Self::Hold(_) | Self::Time(_) => ChannelState::Busy,
        }
    }

    /// The failure with which the channel stops if the wait is cancelled; `None` if it cannot be.
    pub(super) fn failure(self) -> Option<ChannelFailure> {
        match self {
            Self::Replay(failure, _) => Some(failure),
            Self::Acknowledgement(_) | Self::Hold(_) | Self::Time(_) => None,
        }
    }
}

impl Suspended {
    /// The wait, unless it has ended.
    pub(super) fn wait_unless(&self, is_over: impl FnOnce(Wait) -> bool) -> Option<Wait> {
        self.wait.filter(|wait| !is_over(*wait))
    }
}
