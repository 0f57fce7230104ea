// SPDX-License-Identifier: GPL-2.0
//! The numbers of the devices: N in /dev/ersatzN and in lists of module parameters.

use kernel::{
    prelude::*,
    sync::atomic::{ordering, Atomic},
};

static TAKEN: Atomic<u64> = Atomic::new(0);

/// A number that no other device has, until it is dropped.
pub(crate) struct DeviceIndex(u32);

impl DeviceIndex {
    /// Takes the lowest free number.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if there are 64 devices already.
    pub(crate) fn take() -> Result<Self> {
        let mut taken = TAKEN.load(ordering::Relaxed);
        loop {
            let index = taken.trailing_ones();
            if index >= u64::BITS {
                return Err(ENOSPC);
            }
            match TAKEN.cmpxchg(taken, taken | 1 << index, ordering::Relaxed) {
                Ok(_) => return Ok(Self(index)),
                Err(now) => taken = now,
            }
        }
    }

    /// Returns the number.
    pub(crate) fn get(&self) -> u32 {
        self.0
    }
}

impl Drop for DeviceIndex {
    fn drop(&mut self) {
        let mut taken = TAKEN.load(ordering::Relaxed);
        while let Err(now) = TAKEN.cmpxchg(taken, taken & !(1 << self.0), ordering::Relaxed) {
            taken = now;
        }
    }
}
