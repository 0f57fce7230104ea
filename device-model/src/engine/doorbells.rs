// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What wakes an engine: the doorbells of the channels that are bound to it, and kicks.
//!
//! A channel is bound when it is enabled, by whoever writes its registers, while the engines run. Its doorbell counts what was
//! written to it meanwhile, so no ring is lost on the way from one engine to another.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};

use ersatz_abi::regs::MAX_CHANNELS;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::eventfd::{drain, signal};

// Channels are bits of a word here.
const _: () = assert!(MAX_CHANNELS == u64::BITS);

/// What the epoll set says of a kick; doorbells have their channel's number.
const KICK: u64 = u64::MAX;

/// What an engine listens with, so that the model checker runs the very code the device runs.
pub(crate) trait Ears {
    /// A doorbell: counts how often it was rung, until that is taken back.
    type Bell;

    /// Hears this doorbell from now on.
    fn add(&self, channel: u8, doorbell: &Self::Bell) -> io::Result<()>;
    /// Hears it no more; what it was heard of before may still be told.
    fn remove(&self, doorbell: &Self::Bell) -> io::Result<()>;
    /// Has [`Self::wait`] tell of a kick.
    fn kick(&self);
    /// Calls `tell` with kicks, which it takes back first, and for doorbells that were rung, which it does not; waits
    /// if there is nothing and `block` is set.
    fn wait(&self, block: bool, tell: impl FnMut(Wake)) -> io::Result<()>;
}

/// A word of bits that threads change.
pub(crate) trait Bits {
    /// The word.
    fn get(&self) -> u64;
    /// Sets bits.
    fn set(&self, bits: u64);
    /// Clears bits.
    fn clear(&self, bits: u64);
}

impl Bits for AtomicU64 {
    fn get(&self) -> u64 {
        self.load(Ordering::Acquire)
    }

    fn set(&self, bits: u64) {
        self.fetch_or(bits, Ordering::AcqRel);
    }

    fn clear(&self, bits: u64) {
        self.fetch_and(!bits, Ordering::AcqRel);
    }
}

/// What wakes one engine.
pub(crate) struct Doorbells<E = Events, C = AtomicU64> {
    ears: E,
    /// One bit for each channel that is bound.
    channels: C,
}

/// Event descriptors, and what waits for any of them.
pub(crate) struct Events {
    set: Epoll,
    kick: EventFd,
}

/// Why an engine woke up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// Something else than a doorbell: look at every channel.
    Kick,
    /// The doorbell of this channel.
    Doorbell(u8),
}

impl Doorbells {
    /// No channel is bound.
    pub(crate) fn new() -> io::Result<Self> {
        let (set, kick) = (Epoll::new()?, EventFd::new(EFD_NONBLOCK)?);
        set.ctl(ControlOperation::Add, kick.as_raw_fd(), EpollEvent::new(EventSet::IN, KICK))?;
        Ok(Self::with(Events { set, kick }, AtomicU64::new(0)))
    }
}

impl<E: Ears, C: Bits> Doorbells<E, C> {
    /// Made of these parts; no channel is bound.
    pub(super) fn with(ears: E, channels: C) -> Self {
        Self { ears, channels }
    }

    /// Has the engine hear this doorbell from now on; it may have been rung before.
    pub(crate) fn bind(&self, channel: u8, doorbell: &E::Bell) -> io::Result<()> {
        self.ears.add(channel, doorbell)?;
        self.channels.set(1 << channel);
        Ok(())
    }

    /// Has the engine hear this doorbell no more; it may be told of it once again.
    fn unbind(&self, channel: u8, doorbell: &E::Bell) -> io::Result<()> {
        self.channels.clear(1 << channel);
        self.ears.remove(doorbell)
    }

    /// Whether the channel is bound.
    pub(super) fn is_bound(&self, channel: u8) -> bool {
        self.channels.get() & (1 << channel) != 0
    }

    /// Has the engine look at all its channels.
    pub(crate) fn kick(&self) {
        self.ears.kick();
    }

    /// As [`Ears::wait`].
    pub(super) fn wait(&self, block: bool, tell: impl FnMut(Wake)) -> io::Result<()> {
        self.ears.wait(block, tell)
    }
}

/// Has this one of the engines hear a channel's doorbell, and no other one. Called with the channel's lock held.
pub(crate) fn bind<E: Ears, C: Bits>(
    engines: &[Doorbells<E, C>],
    engine: u8,
    channel: u8,
    doorbell: &E::Bell,
) -> io::Result<()> {
    let chosen = &engines[usize::from(engine)];
    if chosen.is_bound(channel) {
        return Ok(());
    }
    for other in engines.iter().filter(|other| other.is_bound(channel)) {
        other.unbind(channel, doorbell)?;
    }
    chosen.bind(channel, doorbell)
}

/// Has the engine that a channel is bound to look at it.
pub(crate) fn kick<E: Ears, C: Bits>(engines: &[Doorbells<E, C>], channel: u8) {
    engines.iter().filter(|engine| engine.is_bound(channel)).for_each(Doorbells::kick);
}

impl Ears for Events {
    type Bell = EventFd;

    fn add(&self, channel: u8, doorbell: &EventFd) -> io::Result<()> {
        let event = EpollEvent::new(EventSet::IN, u64::from(channel));
        self.set.ctl(ControlOperation::Add, doorbell.as_raw_fd(), event)
    }

    fn remove(&self, doorbell: &EventFd) -> io::Result<()> {
        self.set.ctl(ControlOperation::Delete, doorbell.as_raw_fd(), EpollEvent::default())
    }

    fn kick(&self) {
        signal(&self.kick);
    }

    fn wait(&self, block: bool, mut tell: impl FnMut(Wake)) -> io::Result<()> {
        let mut events = [EpollEvent::default(); 16];
        let count = match self.set.wait(if block { -1 } else { 0 }, &mut events) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        for event in &events[..count] {
            match u8::try_from(event.data()) {
                Ok(channel) => tell(Wake::Doorbell(channel)),
                Err(_) => {
                    drain(&self.kick);
                    tell(Wake::Kick);
                }
            }
        }
        Ok(())
    }
}
