// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The state machine of a channel, under its lock.

use ersatz_abi::channel::ChannelState;
use ersatz_abi::error::ErrorCode;
use ersatz_abi::regs::ChannelStatus;

use super::setup::{ChannelFailure, CheckedSetup, Setup};
use super::suspended::{FaultedAccess, Suspended, Wait};
use super::task::Task;

/// How much a reset forgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ResetScope {
    /// Commands, positions, the error.
    Channel,
    /// The setup registers too.
    Device,
}

/// What the engine needs to work for a channel, as it was when the engine took the channel up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub(crate) setup: CheckedSetup,
    pub(crate) get: u32,
    pub(crate) fence: u64,
    pub(super) epoch: u64,
}

impl Turn {
    /// This turn once the command at its GET is complete and has signalled `fence`.
    pub(crate) fn completed(self, fence: Option<u64>) -> Self {
        Self { get: self.get.wrapping_add(1), fence: fence.unwrap_or(self.fence), ..self }
    }
}

/// What an engine finds when it takes up a channel.
#[derive(Debug)]
pub(crate) enum Found {
    /// Commands may be executed: first this one, if it is there, which had to wait.
    Turn(Turn, Option<Box<Task>>),
    /// Its command still waits.
    Waiting(Wait),
    /// Another engine works for it.
    Elsewhere,
    /// Nothing to do.
    Nothing,
}

/// What was waiting for the engine to let go, and is done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// A reset that was asked for.
    Reset,
    /// The driver disabled the channel, and now it is.
    Stopped,
}

/// The result of a request to enable or disable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChannelSwitched {
    /// It accepts commands now.
    Enabled(CheckedSetup),
    /// It is disabled.
    Stopped,
    /// It will be disabled once the engine lets go.
    Stopping,
    /// The setup cannot work: the channel is in error now. The vector is the one to raise, if the setup has a usable one.
    Refused(ChannelFailure, Option<u16>),
    /// It was so already, or the channel is in error.
    Unchanged,
}

/// The registers and what stands behind them.
#[derive(Debug)]
pub(crate) struct State {
    pub(super) setup: Setup,
    pub(super) checked: Option<CheckedSetup>,
    /// The command that was begun and waits, or waited and was not taken up again: it ends before the channel is disabled.
    pub(super) suspended: Option<Suspended>,
    pub(super) enable: bool,
    pub(super) reset: Option<ResetScope>,
    /// The epoch of the turn that an engine has.
    pub(super) held: Option<u64>,
    pub(super) state: ChannelState,
    pub(super) error: ErrorCode,
    pub(super) position: u64,
    pub(super) address: u64,
    pub(super) get: u32,
    pub(super) fence: u64,
}

impl State {
    pub(crate) const INITIAL: Self = Self {
        setup: Setup { ring_base: 0, control_block: 0, ring_order: 0, vector: 0, engine: 0, asid: 0, priority: 0 },
        checked: None,
        suspended: None,
        enable: false,
        reset: None,
        held: None,
        state: ChannelState::Disabled,
        error: ErrorCode::None,
        position: 0,
        address: 0,
        get: 0,
        fence: 0,
    };

    pub(super) fn reset(&mut self, scope: ResetScope) {
        let setup = if scope == ResetScope::Device { Setup::default() } else { self.setup };
        *self = Self { setup, ..Self::INITIAL };
    }

    pub(super) fn fail(&mut self, failure: ChannelFailure) {
        self.enable = false;
        self.suspended = None;
        self.state = ChannelState::Error;
        self.error = failure.code;
        self.position = u64::from(self.get) | u64::from(failure.entry) << 32;
        self.address = failure.address;
    }

    /// Keeps the command under way, which has to wait.
    pub(super) fn suspend(&mut self, task: Box<Task>, wait: Wait) {
        self.suspended = Some(Suspended { task, wait: Some(wait) });
        self.state = wait.state();
    }

    /// What the channel's command waits for, as far as the state says.
    pub(super) fn wait(&self) -> Option<Wait> {
        self.suspended.as_ref()?.wait
    }

    /// State and error, and the access that the channel waits with, if it does.
    pub(super) fn status(&self) -> ChannelStatus {
        let status = ChannelStatus::new(self.state, self.error);
        match self.wait() {
            Some(Wait::Replay(_, FaultedAccess { access, kind })) => status.with_fault(access, kind),
            _ => status,
        }
    }

    /// The virtual address that the channel waits at, if it does.
    pub(super) fn waited_at(&self) -> Option<u64> {
        Some(self.wait()?.failure()?.address)
    }

    /// Ends the wait for a replay; the command then waits until the hold that `hold` returns has ended, if it returns one.
    /// Returns whether there was a wait.
    pub(super) fn replay(&mut self, hold: impl FnOnce(&CheckedSetup, ChannelFailure) -> Option<u64>) -> bool {
        let (Some(suspended), Some(setup)) = (&mut self.suspended, &self.checked) else { return false };
        let Some(Wait::Replay(failure, _)) = suspended.wait else { return false };
        suspended.wait = hold(setup, failure).map(Wait::Hold);
        self.state = ChannelState::Busy;
        true
    }

    pub(super) fn switch(&mut self, enable: bool, engines: u8) -> ChannelSwitched {
        if self.reset.is_some() || self.state == ChannelState::Error || self.enable == enable {
            return ChannelSwitched::Unchanged;
        }
        if !enable {
            self.enable = false;
            return if self.settle().is_some() { ChannelSwitched::Stopped } else { ChannelSwitched::Stopping };
        }
        match self.setup.check(engines) {
            Ok(checked) => {
                self.enable = true;
                // Enabled again before the engine let go: it goes on with the setup it has, which is this one.
                if self.state == ChannelState::Disabled {
                    self.state = ChannelState::Idle;
                }
                self.checked = Some(checked);
                ChannelSwitched::Enabled(checked)
            }
            Err(failure) => {
                self.fail(failure);
                ChannelSwitched::Refused(failure, self.setup.usable_vector())
            }
        }
    }

    /// Does what was asked for, and waits for nothing but an engine to let go, if none has the channel.
    pub(super) fn settle(&mut self) -> Option<Settled> {
        if self.held.is_some() {
            return None;
        }
        if let Some(scope) = self.reset {
            self.reset(scope);
            return Some(Settled::Reset);
        }
        let stops =
            !self.enable && self.suspended.is_none() && matches!(self.state, ChannelState::Idle | ChannelState::Busy);
        stops.then(|| {
            self.state = ChannelState::Disabled;
            Settled::Stopped
        })
    }

    /// Gives the channel to an engine, with the command that had to wait, unless `is_over` says that it still has to.
    pub(super) fn take_up(&mut self, engine: u8, epoch: u64, is_over: impl FnOnce(Wait) -> bool) -> Found {
        let setup = match (self.state, self.checked) {
            (ChannelState::Idle | ChannelState::Busy, Some(setup)) => setup,
            _ => return Found::Nothing,
        };
        if setup.engine != engine {
            return Found::Elsewhere;
        }
        if let Some(wait) = self.suspended.as_ref().and_then(|suspended| suspended.wait_unless(is_over)) {
            return Found::Waiting(wait);
        }
        self.held = Some(epoch);
        let turn = Turn { setup, get: self.get, fence: self.fence, epoch };
        Found::Turn(turn, self.suspended.take().map(|suspended| suspended.task))
    }
}
