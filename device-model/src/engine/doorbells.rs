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

use crate::device::{drain, signal};

// Channels are bits of a word here.
const _: () = assert!(MAX_CHANNELS == u64::BITS);

/// What the epoll set says of a kick; doorbells have their channel's number.
const KICK: u64 = u64::MAX;

/// The ears of one engine.
pub(crate) struct Doorbells {
    events: Epoll,
    kick: EventFd,
    /// One bit for each channel that is bound.
    channels: AtomicU64,
}

/// Why an engine woke up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wake {
    /// Something else than a doorbell: look at every channel.
    Kick,
    /// The doorbell of this channel.
    Doorbell(u8),
}

impl Doorbells {
    /// No channel is bound.
    pub(crate) fn new() -> io::Result<Self> {
        let (events, kick) = (Epoll::new()?, EventFd::new(EFD_NONBLOCK)?);
        events.ctl(ControlOperation::Add, kick.as_raw_fd(), EpollEvent::new(EventSet::IN, KICK))?;
        Ok(Self { events, kick, channels: AtomicU64::new(0) })
    }

    /// Has the engine hear this doorbell from now on; it may have been rung before.
    pub(crate) fn bind(&self, channel: u8, doorbell: &EventFd) -> io::Result<()> {
        let event = EpollEvent::new(EventSet::IN, u64::from(channel));
        self.events.ctl(ControlOperation::Add, doorbell.as_raw_fd(), event)?;
        self.channels.fetch_or(1 << channel, Ordering::AcqRel);
        Ok(())
    }

    /// Has the engine hear this doorbell no more; it may be told of it once again.
    pub(crate) fn unbind(&self, channel: u8, doorbell: &EventFd) -> io::Result<()> {
        self.channels.fetch_and(!(1 << channel), Ordering::AcqRel);
        self.events.ctl(ControlOperation::Delete, doorbell.as_raw_fd(), EpollEvent::default())
    }

    /// Whether the channel is bound.
    pub(crate) fn is_bound(&self, channel: u8) -> bool {
        self.channels.load(Ordering::Acquire) & (1 << channel) != 0
    }

    /// Has the engine look at all its channels.
    pub(crate) fn kick(&self) {
        signal(&self.kick);
    }

    /// Calls `tell` with what there is; waits if there is nothing and `block` is set.
    pub(super) fn wait(&self, block: bool, mut tell: impl FnMut(Wake)) -> io::Result<()> {
        let mut events = [EpollEvent::default(); 16];
        let count = match self.events.wait(if block { -1 } else { 0 }, &mut events) {
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
