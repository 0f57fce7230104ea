// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A channel: its registers and its state machine ([`setup`], [`state`]), and the arithmetic of its [`ring`].
//!
//! Register writes come from vCPU threads, the work is done by an engine; the lock here is held for a few instructions by
//! either. A reset asked for by register is complete at once, unless an engine has the channel: that sees at its next access
//! that the channel's *epoch* has moved on, drops what it was doing, lets go, and completes the reset. A reset of the whole
//! function completes at once, with the gate closed.
//!
//! A command that has to wait is kept by its channel ([`suspended`]), with all that was done of it ([`task`]), until an engine
//! takes the channel up again or a reset drops it.

pub(crate) mod ring;
mod setup;
mod state;
mod suspended;
pub(crate) mod task;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ersatz_abi::channel::{ChannelState, Priority};
use ersatz_abi::error::ErrorCode;
use ersatz_abi::regs::ChannelStatus;
use vmm_sys_util::eventfd::EventFd;

use crate::sync::{Lock, Mutex};
pub(crate) use setup::{ChannelFailure, CheckedSetup, Setup};
pub(crate) use state::{ChannelSwitched, Found, ResetScope, Settled, State, Turn};
pub(crate) use suspended::{FaultedAccess, Wait};
use task::Task;

/// One channel. Generic over what threads meet at, so that the model checker runs the very code the device runs.
#[derive(Debug)]
pub(crate) struct Channel<B = EventFd, L = Mutex<State>, E = AtomicU64> {
    /// Signalled by a write to the doorbell, by the bus or by the device's registers.
    pub(crate) doorbell: Arc<B>,
    epoch: E,
    state: L,
}

/// Counts the resets of a channel. It advances with the channel's lock held, and is looked at without.
pub(crate) trait Epoch {
    /// Returns the count. A thread that sees a reset sees what was done before it.
    fn now(&self) -> u64;
    /// Counts a reset.
    fn advance(&self);
}

impl Epoch for AtomicU64 {
    fn now(&self) -> u64 {
        self.load(Ordering::Acquire)
    }

    fn advance(&self) {
        self.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
impl Epoch for loom::sync::atomic::AtomicU64 {
    fn now(&self) -> u64 {
        self.load(Ordering::Acquire)
    }

    fn advance(&self) {
        self.fetch_add(1, Ordering::Release);
    }
}

/// A channel's registers, all as of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChannelRegisters {
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
        Self::with(doorbell, Mutex::new(State::INITIAL), AtomicU64::new(0))
    }
}

impl<B, L: Lock<State>, E: Epoch> Channel<B, L, E> {
    /// A channel of these parts, which are as they are at first.
    pub(crate) fn with(doorbell: B, state: L, epoch: E) -> Self {
        Self { doorbell: Arc::new(doorbell), epoch, state }
    }

    /// The registers as they read now.
    pub(crate) fn snapshot(&self) -> ChannelRegisters {
        self.state.with(|state| ChannelRegisters {
            setup: state.setup,
            enable: state.enable,
            resetting: state.reset.is_some(),
            status: state.status(),
            position: state.position,
            address: state.waited_at().unwrap_or(state.address),
            get: state.get,
        })
    }

    /// The last fence value that was signalled, and what the command that was begun waits for.
    pub(crate) fn progress(&self) -> (u64, Option<Wait>) {
        self.state.with(|state| (state.fence, state.wait()))
    }

    /// Whether the channel is in [`ChannelState::Error`].
    pub(crate) fn is_in_error(&self) -> bool {
        self.state.with(|state| state.state == ChannelState::Error)
    }

    /// Changes the setup; false if the channel is not disabled, and nothing was changed.
    pub(crate) fn set_up(&self, change: impl FnOnce(&mut Setup)) -> bool {
        self.state.with(|state| {
            let allowed = state.state == ChannelState::Disabled && state.reset.is_none();
            if allowed {
                change(&mut state.setup);
            }
            allowed
        })
    }

    /// Carries out a write of the enable bit. Enabling checks the setup, for a device with `engines` engines. `tell` is called
    /// before another thread can see the result, so that the trace has it before its consequences.
    pub(crate) fn switch(&self, enable: bool, engines: u8, tell: impl FnOnce(&ChannelSwitched)) -> ChannelSwitched {
        self.state.with(|state| {
            let switched = state.switch(enable, engines);
            tell(&switched);
            switched
        })
    }

    /// Asks for a reset. It is complete at once if no engine works for the channel (`tell` is called then as for
    /// [`Self::switch`], and the result is true), else when the engine lets go. A wider reset takes the place of a narrower
    /// one.
    pub(crate) fn request_reset(&self, scope: ResetScope, tell: impl FnOnce(WasUsed)) -> bool {
        self.state.with(|state| {
            let was_used = WasUsed(state.enable || state.state != ChannelState::Disabled);
            state.reset = state.reset.max(Some(scope));
            state.enable = false;
            self.epoch.advance();
            let complete = state.settle().is_some();
            if complete {
                tell(was_used);
            }
            complete
        })
    }

    /// The engine lets go of the channel, which it had for this turn, and with that does what was waiting for it.
    /// `tell` is called as for [`Self::switch`].
    pub(crate) fn let_go(&self, turn: &Turn, tell: impl FnOnce(Settled)) -> Option<Settled> {
        self.state.with(|state| {
            if state.held != Some(turn.epoch) {
                return None;
            }
            state.held = None;
            let settled = state.settle()?;
            tell(settled);
            Some(settled)
        })
    }

    /// Resets at once. The gate must be closed, or the channel's engine be the caller.
    pub(crate) fn reset(&self, scope: ResetScope) {
        self.state.with(|state| {
            state.reset(scope);
            self.epoch.advance();
        });
    }

    /// Whether a reset was asked for and is not complete.
    pub(crate) fn is_resetting(&self) -> bool {
        self.state.with(|state| state.reset.is_some())
    }

    /// Whether the channel is still the one this turn began with: no reset has come between.
    pub(crate) fn is_current(&self, turn: &Turn) -> bool {
        self.epoch.now() == turn.epoch
    }

    /// Gives the channel to an engine, with the command that had to wait, unless `is_over` says that it still has to.
    /// `is_over` is called with the channel's lock held.
    pub(crate) fn take_up(&self, engine: u8, is_over: impl FnOnce(Wait) -> bool) -> Found {
        self.state.with(|state| state.take_up(engine, self.epoch.now(), is_over))
    }

    /// Changes the state on behalf of a turn, unless a reset has come between.
    fn advance(&self, turn: &Turn, change: impl FnOnce(&mut State)) -> bool {
        self.state.with(|state| {
            let current = self.is_current(turn);
            if current {
                change(state);
            }
            current
        })
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
            go_on = state.enable;
        });
        go_on
    }

    /// Keeps the command under way, which waits, with all that was done of it. `tell` is called as for [`Self::switch`]:
    /// nothing that ends the wait comes between. False if a reset was faster.
    pub(crate) fn suspend(&self, turn: &Turn, task: &Task, wait: Wait, tell: impl FnOnce()) -> bool {
        let task = Box::new(*task);
        self.advance(turn, |state| {
            tell();
            state.suspend(task, wait);
        })
    }

    /// Whether the channel waits at a fault.
    pub(crate) fn is_faulted(&self) -> bool {
        self.state.with(|state| matches!(state.wait(), Some(Wait::Replay(..))))
    }

    /// Ends the wait for a replay; the command then waits until the hold that `hold` returns has ended, if it returns one.
    /// `hold` is called with the channel's lock held, with the setup and what the channel would stop with. Returns whether there
    /// was a wait: the caller then kicks the engine.
    pub(crate) fn replay(&self, hold: impl FnOnce(&CheckedSetup, ChannelFailure) -> Option<u64>) -> bool {
        self.state.with(|state| state.replay(hold))
    }

    /// Puts a channel that waits at a fault in error. `tell` is called as for [`Self::switch`]. Returns whether the channel waited.
    pub(crate) fn cancel(&self, tell: impl FnOnce(&Cancelled)) -> bool {
        self.state.with(|state| {
            // A reset that was asked for is the end of its waiting, though the engine has not let go.
            let waits_at = state.wait().and_then(Wait::failure).filter(|_| state.reset.is_none());
            let (Some(failure), Some(suspended)) = (waits_at, &state.suspended) else { return false };
            let failure = ChannelFailure { code: ErrorCode::FaultCancelled, ..failure };
            tell(&Cancelled {
                failure,
                position: state.get,
                vector: state.setup.usable_vector(),
                engine: state.checked.map_or(0, |setup| setup.engine),
                task: *suspended.task,
            });
            state.fail(failure);
            self.epoch.advance();
            true
        })
    }

    /// The priority of the channel over others.
    pub(crate) fn priority(&self) -> Priority {
        self.state.with(|state| state.checked.map_or(Priority::Low, |checked| checked.priority))
    }

    /// Puts the channel in error; false if a reset was faster.
    pub(crate) fn fail(&self, turn: &Turn, failure: ChannelFailure) -> bool {
        self.advance(turn, |state| state.fail(failure))
    }
}

/// Whether a channel that is reset was enabled or in error before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WasUsed(pub(crate) bool);

/// A command that waited at a fault, which its driver has cancelled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cancelled {
    /// What the channel stops with.
    pub(crate) failure: ChannelFailure,
    /// The command's ring position.
    pub(crate) position: u32,
    /// The vector to raise; `None` if the setup names one that is not there.
    pub(crate) vector: Option<u16>,
    /// The engine that worked for it.
    pub(crate) engine: u8,
    /// The command, as far as it had come.
    pub(crate) task: Task,
}

#[cfg(test)]
mod tests;
