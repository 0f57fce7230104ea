// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A channel: its registers and its state machine ([`setup`], [`state`]), and the arithmetic of its [`ring`].
//!
//! Register writes come from vCPU threads, the work is done by an engine; the lock here is held for a few instructions by
//! either. A reset asked for by register is complete at once, unless an engine has the channel: that sees at its next access
//! that the channel's *epoch* has moved on, drops what it was doing, lets go, and completes the reset. A reset of the whole
//! function completes at once, with the gate closed.

pub(crate) mod ring;
mod setup;
mod state;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ersatz_abi::channel::{ChannelState, Priority};
use ersatz_abi::error::ErrorCode;
use ersatz_abi::regs::ChannelStatus;
use vmm_sys_util::eventfd::EventFd;

use crate::sync::Mutex;
pub(crate) use setup::{Fault, Setup};
use state::State;
pub(crate) use state::{Found, ResetScope, Settled, Switched, Turn};

/// One channel.
#[derive(Debug)]
pub(crate) struct Channel {
    /// Signalled by a write to the doorbell, by the bus or by [`Self::ring`].
    pub(crate) doorbell: Arc<EventFd>,
    epoch: AtomicU64,
    state: Mutex<State>,
}

/// A channel's registers, all as of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) setup: Setup,
    pub(crate) enable: bool,
    pub(crate) resetting: bool,
    pub(crate) status: ChannelStatus,
    pub(crate) position: u64,
    pub(crate) address: u64,
    pub(crate) get: u32,
}

impl Channel {
    pub(crate) fn new(doorbell: EventFd) -> Self {
        Self { doorbell: Arc::new(doorbell), epoch: AtomicU64::new(0), state: Mutex::new(State::INITIAL) }
    }

    /// The registers as they read now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let state = self.state.lock();
        Snapshot {
            setup: state.setup,
            enable: state.enable,
            resetting: state.reset.is_some(),
            status: ChannelStatus::new(state.state, state.error),
            position: state.position,
            address: state.address,
            get: state.get,
        }
    }

    /// Whether the channel is in [`ChannelState::Error`].
    pub(crate) fn is_in_error(&self) -> bool {
        self.state.lock().state == ChannelState::Error
    }

    /// Changes the setup; false if the channel is not disabled, and nothing was changed.
    pub(crate) fn set_up(&self, change: impl FnOnce(&mut Setup)) -> bool {
        let mut state = self.state.lock();
        let allowed = state.state == ChannelState::Disabled && state.reset.is_none();
        if allowed {
            change(&mut state.setup);
        }
        allowed
    }

    /// The enable bit was written. Enabling checks the setup, for a device with so many engines. `tell` is called before anybody can see what has become of it:
    /// the trace has it before its consequences.
    pub(crate) fn switch(&self, enable: bool, engines: u8, tell: impl FnOnce(&Switched)) -> Switched {
        let mut state = self.state.lock();
        let switched = state.switch(enable, engines);
        tell(&switched);
        switched
    }

    /// Asks for a reset. It is complete at once if no engine works for the channel (`tell` is called then as for
    /// [`Self::switch`], and the result is true), else when the engine lets go. A wider reset takes the place of a narrower one.
    pub(crate) fn request_reset(&self, scope: ResetScope, tell: impl FnOnce()) -> bool {
        let mut state = self.state.lock();
        state.reset = state.reset.max(Some(scope));
        state.enable = false;
        self.move_on();
        let complete = state.settle().is_some();
        if complete {
            tell();
        }
        complete
    }

    /// The engine lets go of the channel, which it had for this turn.
    pub(crate) fn let_go(&self, turn: &Turn) {
        let mut state = self.state.lock();
        if state.held == Some(turn.epoch) {
            state.held = None;
        }
    }

    /// Resets at once. The gate must be closed, or the channel's engine be the caller.
    pub(crate) fn reset(&self, scope: ResetScope) {
        let mut state = self.state.lock();
        state.reset(scope);
        self.move_on();
    }

    /// Whether a reset was asked for and is not complete.
    pub(crate) fn is_resetting(&self) -> bool {
        self.state.lock().reset.is_some()
    }

    fn move_on(&self) {
        self.epoch.fetch_add(1, Ordering::Release);
    }

    /// Whether the channel is still the one this turn began with: no reset has come between.
    pub(crate) fn is_current(&self, turn: &Turn) -> bool {
        self.epoch.load(Ordering::Acquire) == turn.epoch
    }

    /// An engine takes up the channel. `tell` is called as for [`Self::switch`].
    pub(crate) fn take_up(&self, engine: u8, tell: impl FnOnce(&Found)) -> Found {
        let mut state = self.state.lock();
        let found = state.take_up(engine, self.epoch.load(Ordering::Acquire));
        tell(&found);
        found
    }

    /// Changes the state on behalf of a turn, unless a reset has come between.
    fn advance(&self, turn: &Turn, change: impl FnOnce(&mut State)) -> bool {
        let mut state = self.state.lock();
        let current = self.is_current(turn);
        if current {
            change(&mut state);
        }
        current
    }

    /// There are commands, or there are no more.
    pub(crate) fn set_busy(&self, turn: &Turn, busy: bool) {
        self.advance(turn, |state| state.state = if busy { ChannelState::Busy } else { ChannelState::Idle });
    }

    /// A command is complete: the channel's GET and fence are the turn's. Returns whether to go on with the next.
    pub(crate) fn complete(&self, turn: &Turn) -> bool {
        let mut go_on = false;
        self.advance(turn, |state| {
            state.get = turn.get;
            state.fence = turn.fence;
            state.under_way = false;
            go_on = state.enable;
        });
        go_on
    }

    /// The command under way waits for something; false if a reset was faster.
    pub(crate) fn hold(&self, turn: &Turn) -> bool {
        self.advance(turn, |state| state.under_way = true)
    }

    /// The access under way faulted: the channel waits for a replay, `fault` is the error it ends with if that is cancelled.
    /// `tell` is called as for [`Self::switch`]: no replay comes between. False if a reset was faster.
    pub(crate) fn suspend(&self, turn: &Turn, fault: Fault, tell: impl FnOnce()) -> bool {
        self.advance(turn, |state| {
            tell();
            state.suspend(fault);
        })
    }

    /// Whether the channel waits at a fault.
    pub(crate) fn is_faulted(&self) -> bool {
        self.state.lock().faulted.is_some()
    }

    /// Has a channel that waits at a fault try again; whether it did wait.
    pub(crate) fn replay(&self) -> bool {
        self.state.lock().replay()
    }

    /// Puts a channel that waits at a fault in error. `tell` is called as for [`Self::switch`], with what is wrong, the ring position and the
    /// vector to tell; false if it did not wait.
    pub(crate) fn cancel(&self, tell: impl FnOnce(Fault, u32, Option<u16>)) -> bool {
        let mut state = self.state.lock();
        let Some(fault) = state.faulted else { return false };
        let fault = Fault { code: ErrorCode::FaultCancelled, ..fault };
        tell(fault, state.get, state.setup.usable_vector());
        state.fail(fault);
        self.move_on();
        true
    }

    /// Whose turn it is, compared with other channels.
    pub(crate) fn priority(&self) -> Priority {
        self.state.lock().checked.map_or(Priority::Low, |checked| checked.priority)
    }

    /// Puts the channel in error; false if a reset was faster.
    pub(crate) fn fail(&self, turn: &Turn, fault: Fault) -> bool {
        self.advance(turn, |state| state.fail(fault))
    }
}
