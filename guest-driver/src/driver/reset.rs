// SPDX-License-Identifier: GPL-2.0
//! Resets of the whole device: before it is used, since another driver may have left it in any state, and after.

use super::registers::Registers;
use crate::{
    abi::regs::{self, Control},
    kernel_ext::pci_device::BusMaster,
};
use kernel::{
    device::{Bound, Device},
    devres, pci,
    prelude::*,
    sync::Arc,
    time::{delay::fsleep, Delta},
};

/// How long a reset may take.
const RESET_MS: u32 = 5000;

/// Resets the device and permits it to master the bus, until it is unbound: then it is reset again, and no longer permitted.
///
/// All that the device is told of system memory must be registered with `pdev` after this, so that it is freed before the device
/// is left. No channel is enabled when this returns.
///
/// # Errors
///
/// `ENODEV` if the device does not answer; `ETIMEDOUT` if the reset does not end; `ENOMEM`.
pub(crate) fn bring_up(pdev: &pci::Device<Bound>, registers: &Arc<Registers>) -> Result {
    let dev: &Device<Bound> = pdev.as_ref();
    let master = BusMaster::new(pdev);
    // A channel that was left enabled must not reach memory that is somebody else's by now.
    master.forbid();
    reset(registers).inspect_err(|_| dev_err!(dev, "the device cannot be reset\n"))?;
    master.permit();
    devres::register(dev, ResetOnUnbind { registers: registers.clone(), master }, GFP_KERNEL)
}

struct ResetOnUnbind {
    registers: Arc<Registers>,
    master: BusMaster,
}

impl Drop for ResetOnUnbind {
    fn drop(&mut self) {
        // A device that does not answer has nothing left to stop, but may come back: it is not to master the bus then.
        let _ = reset(&self.registers);
        self.master.forbid();
    }
}

/// Stops all channels and makes the device forget all but the content of its memory.
fn reset(registers: &Registers) -> Result {
    registers.write(regs::CONTROL, Control(0).with_reset(true).0.into())?;
    for _ in 0..RESET_MS {
        let control = registers.read(regs::CONTROL)?;
        if !registers.device_answers() {
            return Err(ENODEV);
        }
        if !Control(control as u32).reset() {
            return Ok(());
        }
        fsleep(Delta::from_millis(1));
    }
    Err(ETIMEDOUT)
}
