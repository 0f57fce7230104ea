// SPDX-License-Identifier: GPL-2.0
//! A channel of a compute engine. It runs one kernel at a time, in one address space, and is reset in between: whatever became of the
//! kernel, the next one finds a working channel, and none of the old one's accesses is left.

use super::super::registers::Registers;
use crate::{
    abi::{
        channel::{Priority, CONTROL_BLOCK_FENCE, CONTROL_BLOCK_PUT, CONTROL_BLOCK_SIZE, RING_ORDER_MIN},
        command::{Cause, Command, Operation, COMMAND_BYTES},
        kernel::Kernel,
        regs::{self, ChannelControl, ChannelStatus},
    },
    kernel_ext::shared_words::{dma_read_barrier, dma_write_barrier, SharedWords},
};
use kernel::{
    device::{Bound, Device},
    prelude::*,
    processor::cpu_relax,
    sync::Arc,
    time::{delay::fsleep, Delta},
};

const WORD: usize = size_of::<u64>();
const RING_WORDS: usize = COMMAND_BYTES as usize / WORD << RING_ORDER_MIN;
const PUT: usize = CONTROL_BLOCK_PUT as usize / WORD;
const FENCE: usize = CONTROL_BLOCK_FENCE as usize / WORD;
/// The fence value of the one command.
const DONE: u64 = 1;
/// How often to look whether the channel is reset before sleeping in between, and how often after.
const RESET_POLLS: u32 = 100;
const RESET_LOOKS: u32 = 5000;

/// A channel.
pub(crate) struct ComputeChannel {
    registers: Arc<Registers>,
    number: u32,
    engine: u32,
    vector: u16,
    ring: SharedWords,
    control: SharedWords,
}

impl ComputeChannel {
    /// Takes channel `number`, for which engine `engine` is to work, and which is to raise interrupt vector `vector`. It is not enabled yet.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(
        dev: &Device<Bound>,
        registers: Arc<Registers>,
        number: u32,
        engine: u32,
        vector: u16,
    ) -> Result<Self> {
        Ok(Self {
            registers,
            number,
            engine,
            vector,
            ring: SharedWords::zeroed(dev, RING_WORDS)?,
            control: SharedWords::zeroed(dev, CONTROL_BLOCK_SIZE as usize / WORD)?,
        })
    }

    /// Makes the device begin with a kernel. The channel must be reset.
    ///
    /// # Errors
    ///
    /// `EIO` or `ENODEV` if the device does not take it.
    pub(crate) fn start(&self, asid: u8, kernel: Kernel) -> Result {
        let command = Command {
            operation: Operation::Kernel(kernel),
            cause: Cause::Other,
            fence: Some(DONE),
            interrupt: true,
            tag: kernel.encode().first,
        };
        self.ring.write(0, &command.encode())?;
        self.control.write(FENCE, &[0])?;
        self.control.write(PUT, &[1])?;
        dma_write_barrier();
        let write = |register, value| self.registers.write_channel(self.number, register, value);
        write(regs::RING_BASE, self.ring.dma_address())?;
        write(regs::CONTROL_BLOCK, self.control.dma_address())?;
        write(regs::RING_ORDER, RING_ORDER_MIN.into())?;
        write(regs::VECTOR, self.vector.into())?;
        write(regs::ENGINE, self.engine.into())?;
        write(regs::ASID, asid.into())?;
        write(regs::PRIORITY, Priority::Normal as u64)?;
        // Enabling looks at PUT.
        write(regs::CHANNEL_CONTROL, ChannelControl(0).with_enable(true).0.into())
    }

    /// Whether the kernel is done. What it wrote can be seen then.
    pub(crate) fn is_done(&self) -> bool {
        let is_done = self.control.read(FENCE).unwrap_or(0) >= DONE;
        if is_done {
            dma_read_barrier();
        }
        is_done
    }

    /// State and error.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device does not answer.
    pub(crate) fn status(&self) -> Result<ChannelStatus> {
        let status = self.registers.read_channel(self.number, regs::CHANNEL_STATUS)?;
        self.registers.confirm()?;
        Ok(ChannelStatus(status as u32))
    }

    /// The address that the channel failed at.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device does not answer.
    pub(crate) fn error_address(&self) -> Result<u64> {
        let address = self.registers.read_channel(self.number, regs::ERROR_ADDRESS)?;
        self.registers.confirm()?;
        Ok(address)
    }

    /// Makes the device drop the kernel. It does nothing more of it then.
    ///
    /// # Errors
    ///
    /// `EIO` if the device does not answer; `ETIMEDOUT` if it takes too long.
    pub(crate) fn reset(&self) -> Result {
        let reset = ChannelControl(0).with_reset(true);
        self.registers.write_channel(self.number, regs::CHANNEL_CONTROL, reset.0.into())?;
        for look in 0..RESET_POLLS + RESET_LOOKS {
            let control = self.registers.read_channel(self.number, regs::CHANNEL_CONTROL)?;
            if !self.registers.device_answers() {
                return Err(EIO);
            }
            if !ChannelControl(control as u32).reset() {
                return Ok(());
            }
            if look < RESET_POLLS {
                cpu_relax();
            } else {
                fsleep(Delta::from_millis(1));
            }
        }
        Err(ETIMEDOUT)
    }
}

impl Drop for ComputeChannel {
    fn drop(&mut self) {
        // The device must not look at ring and control block when they are freed, and does not: the end of each kernel has reset the
        // channel, or forbidden the device to do DMA. This is for registers that a reset of the function has left in between.
        let _ = self.reset();
    }
}
