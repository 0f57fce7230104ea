// SPDX-License-Identifier: GPL-2.0
//! Numbers of devices: N in /dev/ersatzN and in lists of module parameters.

use core::ops::Range;
use kernel::{
    prelude::*,
    sync::atomic::{ordering, Atomic},
};

/// The devices' numbers.
pub(crate) static DEVICES: Numbers = Numbers::new();

/// Numbers below 64, each of which one has at a time.
pub(crate) struct Numbers {
    taken: Atomic<u64>,
}

impl Numbers {
    /// All are free.
    pub(crate) const fn new() -> Self {
        Self { taken: Atomic::new(0) }
    }

    /// Takes the lowest free number of a range.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if all are taken.
    pub(crate) fn take(&'static self, range: Range<u32>) -> Result<Number> {
        let mut taken = self.taken.load(ordering::Relaxed);
        loop {
            let free = |number: &u32| *number < u64::BITS && taken & 1 << number == 0;
            let number = range.clone().find(free).ok_or(ENOSPC)?;
            match self.taken.cmpxchg(taken, taken | 1 << number, ordering::Relaxed) {
                Ok(_) => return Ok(Number { number, of: self }),
                Err(now) => taken = now,
            }
        }
    }
}

/// A number that nobody else has, until it is dropped.
pub(crate) struct Number {
    number: u32,
    of: &'static Numbers,
}

impl Number {
    /// Returns the number.
    pub(crate) fn get(&self) -> u32 {
        self.number
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        let mut taken = self.of.taken.load(ordering::Relaxed);
        while let Err(now) = self.of.taken.cmpxchg(taken, taken & !(1 << self.number), ordering::Relaxed) {
            taken = now;
        }
    }
}
