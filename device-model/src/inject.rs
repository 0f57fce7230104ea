// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The host model: makes the device hold, fail or misbehave when it is told to, repeatably.
//!
//! The words are those of QEMU's blkdebug. A [`Breakpoint`] names a step of the device ([`Step`]) and what it is to be about; at
//! that step the command of one channel, or the acknowledgement of an invalidation, is *held*: a [`Hold`] that is shown until it is
//! resumed, its deadline passes, or what it holds is reset. Others run on: a command that is held is kept by its channel as any
//! command that waits is, and no engine, lock or pass is held for it.
//!
//! A [`Rule`] is a [`Trigger`] and an [`Action`]. The trigger selects events of the trace. Some actions change or take away the very
//! event that triggers them: the device asks before it comes about ([`Injector::decide`]). The others are carried out beside the
//! event, which the tracer of the device shows to the injector. Which occurrences of an event a rule fires at depends on the order of
//! these events alone.
//!
//! A [`Timing`] makes work take as long as on a link and an engine of a given speed.
//!
//! The [`Injector`] of a device has all breakpoints, holds and rules, and the numbers by which they are counted; it holds no state of
//! the device, and a device without any of them asks it nothing but single words with relaxed loads. The device asks it at a closed
//! set of places, with a [`Site`](site::Site) that says what is about to happen. What is to be done outside of such a place (a
//! hold has ended, and its channel goes on) is taken from it by a thread of the device ([`Injector::next_work`]).
//!
//! Everything that is made to happen is an event of the trace ([`InjectionEvent`](crate::trace::InjectionEvent)), so the oracle can
//! tell the device's own misdeeds from the driver's.
//!
//! The lock of the injector is innermost: it is taken with a channel's lock or the gate's pass held, and nothing of the device is
//! called with it held.

mod action;
mod breakpoint;
mod firing;
mod holding;
mod holds;
mod injector;
mod memory;
mod pacing;
mod query;
mod rule;
mod rules;
pub(crate) mod site;
mod timing;
mod trigger;
mod work;

pub use crate::trace::{ActionKind, HoldEnd, Step};
pub use action::{Action, MAX_FAULTS};
pub use breakpoint::{Breakpoint, DEFAULT_DEADLINE_NS, MAX_BREAKPOINTS, MAX_DEADLINE_NS, SetError};
pub(crate) use firing::Decision;
pub use holds::Hold;
pub use injector::Injector;
pub use memory::{MemoryDemand, MemoryLimit, MemoryReturn};
pub use query::{AddressSpaceView, ChannelView, DemandView, DeviceView, MemoryView, RingView, TranslationView};
pub use rule::{FIRST_STATE, MAX_RULES, Rule, RuleError};
pub(crate) use timing::Piece;
pub use timing::{PRESETS, Preset, Timing};
pub use trigger::{DmaKind, Occurrence, Probability, Trigger};
pub(crate) use work::{Stream, Work};
