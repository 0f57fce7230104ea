// SPDX-License-Identifier: GPL-2.0
//! Making the engines forget translations.

use super::super::{parameters, registers::Registers};
use crate::{
    abi::{mmu::Invalidation, regs},
    kernel_ext::pci_device::BusMaster,
};
use kernel::{
    device::{Bound, Device},
    new_mutex, pci,
    prelude::*,
    processor::cpu_relax,
    sync::{
        aref::ARef,
        atomic::{ordering, Atomic},
        Arc, Mutex,
    },
    time::{delay::fsleep, Delta, Instant, Monotonic},
};

/// How often to look at the acknowledgement before sleeping in between.
const POLLS: u32 = 200;
/// How long to sleep in between.
const PAUSE: Delta = Delta::from_micros(20);

/// The registers of invalidation.
#[pin_data]
pub(crate) struct Invalidator {
    dev: ARef<Device>,
    master: BusMaster,
    registers: Arc<Registers>,
    timeout: Delta,
    /// Held until a number is taken.
    #[pin]
    turn: Mutex<()>,
    lost: Atomic<bool>,
}

impl Invalidator {
    /// An invalidator that has not requested anything.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(pdev: &pci::Device<Bound>, registers: Arc<Registers>) -> Result<Arc<Self>> {
        let dev: &Device<Bound> = pdev.as_ref();
        Arc::pin_init(
            pin_init!(Self {
                dev: dev.into(),
                master: BusMaster::new(pdev),
                registers,
                timeout: Delta::from_millis(parameters::timeout_ms().into()),
                turn <- new_mutex!((), "ersatz_invalidate"),
                lost: Atomic::new(false),
            }),
            GFP_KERNEL,
        )
    }

    /// Whether the device is beyond recovery: it does no more DMA.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(ordering::Relaxed)
    }

    /// Forbids the device to do DMA, for good: it does not do what it must.
    pub(crate) fn give_up(&self, what: &str) {
        dev_err!(self.dev, "{}: giving up the device\n", what);
        self.master.forbid();
        self.lost.store(true, ordering::Relaxed);
    }

    /// Makes all engines forget translations. When this returns none is used any more, nor the pages that they led to: if the device does
    /// not acknowledge in time it is forbidden to do DMA.
    pub(crate) fn invalidate(&self, invalidation: Invalidation) {
        if !self.is_lost() && self.try_invalidate(invalidation).is_err() {
            self.give_up("an invalidation was not acknowledged");
        }
    }

    fn try_invalidate(&self, invalidation: Invalidation) -> Result {
        let (target, address, length) = invalidation.encode();
        let number = {
            let _turn = self.turn.lock();
            if length > 0 {
                self.registers.write(regs::INVALIDATE_ADDRESS, address)?;
                self.registers.write(regs::INVALIDATE_LENGTH, length)?;
            }
            self.registers.write(regs::INVALIDATE, target.0)?;
            self.registers.read(regs::INVALIDATE_REQUESTED)?
        };
        let start = Instant::<Monotonic>::now();
        let mut polls = 0;
        while !self.is_acknowledged(number)? {
            if polls < POLLS {
                polls += 1;
                cpu_relax();
            } else if start.elapsed() > self.timeout {
                return Err(ETIMEDOUT);
            } else {
                fsleep(PAUSE);
            }
        }
        Ok(())
    }

    /// Whether the invalidation with a number is complete. One that a reset of the device has ended is.
    fn is_acknowledged(&self, number: u64) -> Result<bool> {
        let acknowledged = self.registers.read(regs::INVALIDATE_ACKNOWLEDGED)?;
        let is_reset = self.registers.read(regs::INVALIDATE_REQUESTED)? < number;
        // A device that does not answer for a moment reads as anything.
        Ok((acknowledged >= number || is_reset) && self.registers.device_answers())
    }
}
