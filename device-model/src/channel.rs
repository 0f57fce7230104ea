// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A channel: its registers and its state machine.
//!
//! Register writes come from vCPU threads, the work is done by an engine; the lock here is held for a few instructions by
//! either. A reset asked for by register takes effect when the engine lets go of the channel: it sees at its next access
//! that the channel's *epoch* has moved on, drops what it was doing, and completes the reset. A reset of the whole
//! function completes at once, with the gate closed.

pub(crate) mod ring;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ersatz_abi::channel::{ChannelState, RING_ORDER_MAX, RING_ORDER_MIN, SHARED_ALIGNMENT};
use ersatz_abi::command::COMMAND_BYTES;
use ersatz_abi::error::ErrorCode;
use ersatz_abi::pci::MSIX_VECTORS;
use ersatz_abi::regs::ChannelStatus;
use vmm_sys_util::eventfd::EventFd;

use crate::sync::Mutex;
use ring::Ring;

/// The registers a driver sets while the channel is disabled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Setup {
    pub(crate) ring_base: u64,
    pub(crate) control_block: u64,
    pub(crate) ring_order: u32,
    pub(crate) vector: u32,
}

/// A setup that can work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckedSetup {
    pub(crate) ring: Ring,
    pub(crate) control_block: u64,
    pub(crate) vector: u16,
}

impl Setup {
    /// Checks what can be checked without touching memory; the address of an error is that of the part that is wrong.
    fn check(&self) -> Result<CheckedSetup, Fault> {
        let bad = |address| Fault { code: ErrorCode::BadSetup, entry: 0, address };
        if !(RING_ORDER_MIN..=RING_ORDER_MAX).contains(&self.ring_order) {
            return Err(bad(0));
        }
        let commands = 1 << self.ring_order;
        if !is_shared_range(self.ring_base, u64::from(commands) * COMMAND_BYTES) {
            return Err(bad(self.ring_base));
        }
        if !is_shared_range(self.control_block, SHARED_ALIGNMENT) {
            return Err(bad(self.control_block));
        }
        let vector = self.usable_vector().ok_or_else(|| bad(0))?;
        Ok(CheckedSetup { ring: Ring::new(self.ring_base, commands), control_block: self.control_block, vector })
    }

    fn usable_vector(&self) -> Option<u16> {
        u16::try_from(self.vector).ok().filter(|vector| *vector < MSIX_VECTORS)
    }
}

/// Aligned, and not wrapping around the end of the address space.
fn is_shared_range(address: u64, length: u64) -> bool {
    address % SHARED_ALIGNMENT == 0 && address.checked_add(length).is_some()
}

/// Why a channel stops with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: ErrorCode,
    /// List entry, 0 if the command did not get that far.
    pub(crate) entry: u32,
    /// The address that was refused, 0 if none was.
    pub(crate) address: u64,
}

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
    epoch: u64,
}

impl Turn {
    /// This turn once the command at its GET is complete and has signalled `fence`.
    pub(crate) fn completed(self, fence: Option<u64>) -> Self {
        Self { get: self.get.wrapping_add(1), fence: fence.unwrap_or(self.fence), ..self }
    }
}

/// What an engine finds when it takes up a channel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found {
    /// Commands may be executed.
    Turn(Turn),
    /// A reset that was asked for is complete now.
    Reset,
    /// The driver disabled the channel, and now it is.
    Stopped,
    /// Nothing to do.
    Nothing,
}

/// What became of a request to enable or disable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Switched {
    /// It accepts commands now.
    Enabled(CheckedSetup),
    /// It will be disabled once the engine lets go.
    Stopping,
    /// The setup cannot work: the channel is in error now. The vector is the one to tell, if it has a usable one.
    Refused(Fault, Option<u16>),
    /// It was so already, or the channel is in error.
    Unchanged,
}

#[derive(Debug)]
struct State {
    setup: Setup,
    checked: Option<CheckedSetup>,
    enable: bool,
    reset: Option<ResetScope>,
    state: ChannelState,
    error: ErrorCode,
    position: u64,
    address: u64,
    get: u32,
    fence: u64,
}

impl State {
    const INITIAL: Self = Self {
        setup: Setup { ring_base: 0, control_block: 0, ring_order: 0, vector: 0 },
        checked: None,
        enable: false,
        reset: None,
        state: ChannelState::Disabled,
        error: ErrorCode::None,
        position: 0,
        address: 0,
        get: 0,
        fence: 0,
    };

    fn reset(&mut self, scope: ResetScope) {
        let setup = if scope == ResetScope::Device { Setup::default() } else { self.setup };
        *self = Self { setup, ..Self::INITIAL };
    }

    fn fail(&mut self, fault: Fault) {
        self.enable = false;
        self.state = ChannelState::Error;
        self.error = fault.code;
        self.position = u64::from(self.get) | u64::from(fault.entry) << 32;
        self.address = fault.address;
    }

    fn switch(&mut self, enable: bool) -> Switched {
        if self.reset.is_some() || self.state == ChannelState::Error || self.enable == enable {
            return Switched::Unchanged;
        }
        if !enable {
            self.enable = false;
            return Switched::Stopping;
        }
        match self.setup.check() {
            Ok(checked) => {
                self.enable = true;
                // Enabled again before the engine let go: it goes on with the setup it has, which is this one.
                if self.state == ChannelState::Disabled {
                    self.state = ChannelState::Idle;
                }
                self.checked = Some(checked);
                Switched::Enabled(checked)
            }
            Err(fault) => {
                self.fail(fault);
                Switched::Refused(fault, self.setup.usable_vector())
            }
        }
    }

    fn take_up(&mut self, epoch: u64) -> Found {
        if let Some(scope) = self.reset {
            self.reset(scope);
            return Found::Reset;
        }
        match (self.state, self.checked) {
            (ChannelState::Idle | ChannelState::Busy, _) if !self.enable => {
                self.state = ChannelState::Disabled;
                Found::Stopped
            }
            (ChannelState::Idle | ChannelState::Busy, Some(setup)) => {
                Found::Turn(Turn { setup, get: self.get, fence: self.fence, epoch })
            }
            _ => Found::Nothing,
        }
    }
}

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

    /// The enable bit was written. Enabling checks the setup. `tell` is called before anybody can see what has become of it:
    /// the trace has it before its consequences.
    pub(crate) fn switch(&self, enable: bool, tell: impl FnOnce(&Switched)) -> Switched {
        let mut state = self.state.lock();
        let switched = state.switch(enable);
        tell(&switched);
        switched
    }

    /// Asks for a reset; the engine completes it. A wider reset takes the place of a narrower one.
    pub(crate) fn request_reset(&self, scope: ResetScope) {
        let mut state = self.state.lock();
        state.reset = state.reset.max(Some(scope));
        state.enable = false;
        self.move_on();
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

    /// The engine takes up the channel. `tell` is called as for [`Self::switch`].
    pub(crate) fn take_up(&self, tell: impl FnOnce(&Found)) -> Found {
        let mut state = self.state.lock();
        let found = state.take_up(self.epoch.load(Ordering::Acquire));
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
            go_on = state.enable;
        });
        go_on
    }

    /// Puts the channel in error; false if a reset was faster.
    pub(crate) fn fail(&self, turn: &Turn, fault: Fault) -> bool {
        self.advance(turn, |state| state.fail(fault))
    }
}
