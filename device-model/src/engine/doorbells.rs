// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What wakes an engine: the doorbells of the channels that are bound to it, kicks, and the end of the time it may sleep.
//!
//! The thread that enables a channel by a register write binds it, while the engines run. Its doorbell counts what is written
//! to it meanwhile, so no ring is lost on the way from one engine to another.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ersatz_abi::regs::MAX_CHANNELS;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::timerfd::TimerFd;

use crate::eventfd::{drain, signal};
use crate::sync::Mutex;

// Channels are bits of a word here.
const _: () = assert!(MAX_CHANNELS == u64::BITS);

/// What the epoll set says of a kick; doorbells have their channel's number.
const KICK: u64 = u64::MAX;
/// What it says of the timer.
const TIMER: u64 = u64::MAX - 1;

/// What an engine waits with, so that the model checker runs the very code the device runs.
pub(crate) trait WakeSource {
    /// A doorbell: counts how often it was rung, until that is taken back.
    type Bell;

    /// Reports this doorbell from now on.
    fn add(&self, channel: u8, doorbell: &Self::Bell) -> io::Result<()>;
    /// Reports it no more, but for a ring that was seen before.
    fn remove(&self, doorbell: &Self::Bell) -> io::Result<()>;
    /// Makes [`Self::wait`] report a kick.
    fn kick(&self);
    /// Calls `tell` with kicks, which it takes back first, and for doorbells that were rung, which it does not; sleeps if there
    /// is nothing. May return without either, and earlier than it was to sleep.
    fn wait(&self, sleep: Sleep, tell: impl FnMut(Wake)) -> io::Result<()>;
}

/// How long an engine sleeps if nothing wakes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sleep {
    /// Not at all.
    Never,
    /// For this long.
    For(Duration),
    /// Without an end.
    UntilWoken,
}

impl Sleep {
    /// Sleeps for `duration`; `None` if the clock does not run by itself: setting it wakes the engine.
    pub(super) fn lasting(duration: Option<Duration>) -> Self {
        match duration {
            Some(Duration::ZERO) => Self::Never,
            Some(duration) => Self::For(duration),
            None => Self::UntilWoken,
        }
    }
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
    source: E,
    /// One bit for each channel that is bound.
    channels: C,
}

/// Event descriptors, and what waits for any of them.
pub(crate) struct Events {
    set: Epoll,
    kick: EventFd,
    timer: Mutex<TimerFd>,
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
        let (set, kick, timer) = (Epoll::new()?, EventFd::new(EFD_NONBLOCK)?, TimerFd::new()?);
        set.ctl(ControlOperation::Add, kick.as_raw_fd(), EpollEvent::new(EventSet::IN, KICK))?;
        set.ctl(ControlOperation::Add, timer.as_raw_fd(), EpollEvent::new(EventSet::IN, TIMER))?;
        Ok(Self::with(Events { set, kick, timer: Mutex::new(timer) }, AtomicU64::new(0)))
    }
}

impl<E: WakeSource, C: Bits> Doorbells<E, C> {
    /// Made of these parts; no channel is bound.
    pub(super) fn with(source: E, channels: C) -> Self {
        Self { source, channels }
    }

    /// Makes this doorbell wake the engine from now on; it may have been rung before.
    pub(crate) fn bind(&self, channel: u8, doorbell: &E::Bell) -> io::Result<()> {
        self.source.add(channel, doorbell)?;
        self.channels.set(1 << channel);
        Ok(())
    }

    /// Makes this doorbell wake the engine no more, but for a ring that was seen before.
    fn unbind(&self, channel: u8, doorbell: &E::Bell) -> io::Result<()> {
        self.channels.clear(1 << channel);
        self.source.remove(doorbell)
    }

    /// Whether the channel is bound.
    pub(super) fn is_bound(&self, channel: u8) -> bool {
        self.channels.get() & (1 << channel) != 0
    }

    /// Makes the engine look at all its channels.
    pub(crate) fn kick(&self) {
        self.source.kick();
    }

    /// As [`WakeSource::wait`].
    pub(super) fn wait(&self, sleep: Sleep, tell: impl FnMut(Wake)) -> io::Result<()> {
        self.source.wait(sleep, tell)
    }
}

/// Makes a channel's doorbell wake this one of the engines, and no other one. Called with the channel's lock held.
pub(crate) fn bind<E: WakeSource, C: Bits>(
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

/// Makes the engine that a channel is bound to look at it.
pub(crate) fn kick<E: WakeSource, C: Bits>(engines: &[Doorbells<E, C>], channel: u8) {
    engines.iter().filter(|engine| engine.is_bound(channel)).for_each(Doorbells::kick);
}

impl WakeSource for Events {
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

    fn wait(&self, sleep: Sleep, mut tell: impl FnMut(Wake)) -> io::Result<()> {
        let timeout = match sleep {
            Sleep::Never => 0,
            Sleep::UntilWoken => -1,
            Sleep::For(duration) => {
                // The timeout of an epoll set counts whole milliseconds.
                self.timer.lock().reset(duration, None)?;
                -1
            }
        };
        let mut events = [EpollEvent::default(); 16];
        let count = match self.set.wait(timeout, &mut events) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        for event in &events[..count] {
            match (u8::try_from(event.data()), event.data()) {
                (Ok(channel), _) => tell(Wake::Doorbell(channel)),
                (Err(_), TIMER) => _ = self.timer.lock().wait()?,
                (Err(_), _) => {
                    drain(&self.kick);
                    tell(Wake::Kick);
                }
            }
        }
        Ok(())
    }
}
