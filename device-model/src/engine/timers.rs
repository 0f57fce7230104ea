// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! When an engine comes back to channels whose commands wait for a time.
//!
//! A timer is a hint: the channel says whether its command still waits, so one that is left over from before a reset costs a
//! look at the channel and nothing more.

/// The times at which channels are to be looked at; one per channel.
#[derive(Debug, Default)]
pub(super) struct Timers(Vec<Timer>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Timer {
    channel: u8,
    deadline: u64,
}

impl Timers {
    /// Sets the timer of a channel, in place of the one that it has.
    pub(super) fn set(&mut self, channel: u8, deadline: u64) {
        self.0.retain(|timer| timer.channel != channel);
        self.0.push(Timer { channel, deadline });
    }

    /// Whether no timer is set.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The earliest time of all.
    pub(super) fn earliest(&self) -> Option<u64> {
        self.0.iter().map(|timer| timer.deadline).min()
    }

    /// Calls `wake` with the channels whose times have come, the earliest first, and removes their timers.
    pub(super) fn expire(&mut self, now: u64, wake: impl FnMut(u8)) {
        self.0.sort_by_key(|timer| timer.deadline);
        let due = self.0.partition_point(|timer| timer.deadline <= now);
        self.0.drain(..due).map(|timer| timer.channel).for_each(wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expired(timers: &mut Timers, now: u64) -> Vec<u8> {
        let mut channels = Vec::new();
        timers.expire(now, |channel| channels.push(channel));
        channels
    }

    #[test]
    fn channels_are_woken_once_and_in_the_order_of_their_times() {
        let mut timers = Timers::default();
        assert_eq!(timers.earliest(), None);
        for (channel, deadline) in [(1, 30), (2, 10), (3, 20), (4, u64::MAX)] {
            timers.set(channel, deadline);
        }
        assert_eq!(timers.earliest(), Some(10));
        assert_eq!(expired(&mut timers, 9), [0u8; 0]);
        assert_eq!(expired(&mut timers, 20), [2, 3]);
        assert_eq!(expired(&mut timers, 20), [0u8; 0]);
        assert_eq!(timers.earliest(), Some(30));
        assert_eq!(expired(&mut timers, u64::MAX), [1, 4]);
        assert!(timers.is_empty());
    }

    #[test]
    fn a_channel_has_one_timer() {
        let mut timers = Timers::default();
        timers.set(1, 10);
        timers.set(1, 20);
        assert_eq!(expired(&mut timers, 10), [0u8; 0]);
        assert_eq!(expired(&mut timers, 20), [1]);
    }
}
