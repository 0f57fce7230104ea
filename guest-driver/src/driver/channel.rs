// SPDX-License-Identifier: GPL-2.0
//! A channel: the ring and the control block it shares with the device, fences, and what to do when it fails.
//!
//! Threads submit under a lock and wait without one, each for its own fence value. A channel that reports an error or
//! lets a fence wait too long is reset by the first thread that notices; every thread whose fence had not come by then
//! gets `EIO`, and those that submit later find a working channel. A device that cannot even be reset is forbidden to
//! do DMA and counts as lost, so that the memory it was told of can be used again.

use super::{parameters, registers::Registers};
use crate::{
    abi::{
        channel::{ChannelState, Priority, CONTROL_BLOCK_FENCE, CONTROL_BLOCK_PUT, CONTROL_BLOCK_SIZE},
        command::{Cause, Command, Operation},
        regs::{self, ChannelControl, ChannelStatus},
    },
    kernel_ext::{
        interrupt::Handler,
        pci_device::BusMaster,
        shared_words::{dma_read_barrier, dma_write_barrier, SharedWords},
        wait::WaitQueue,
    },
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
    time::{delay::fsleep, msecs_to_jiffies, Delta},
};

/// Base-2 logarithm of the ring's length in commands.
const RING_ORDER: u32 = 8;
/// Length of the ring in commands.
pub(crate) const RING_LENGTH: usize = 1 << RING_ORDER;
/// Words of a command.
const COMMAND_WORDS: usize = 8;
/// Number of generations whose end is remembered: a ticket may be waited for late, by a thread that has others.
const GENERATIONS: usize = 16;
const PUT: usize = CONTROL_BLOCK_PUT as usize / size_of::<u64>();
const FENCE: usize = CONTROL_BLOCK_FENCE as usize / size_of::<u64>();
/// How often to look at a fence before going to sleep.
const POLLS: u32 = 200;
/// How often a waiting thread asks the device for errors, in case an interrupt was lost.
const LOOK_MS: u32 = 1000;
/// How long the device may take to reset a channel.
const RESET_MS: u32 = 5000;
/// How often to try to revive a channel whose device does not answer, and how long to wait in between: a function-level
/// reset by another program silences a device for a while.
const REVIVALS: u32 = 50;
const REVIVAL_PAUSE_MS: i64 = 100;

/// A command of a batch: what to do, and the number it is found by in the device's trace.
#[derive(Clone, Copy)]
pub(crate) struct Work {
    pub(crate) operation: Operation,
    pub(crate) tag: u64,
}

/// A submission that has not been waited for.
pub(crate) struct Ticket {
    generation: u64,
    fence: u64,
}

impl Ticket {
    /// The fence value that says that the submission is done.
    pub(crate) fn fence(&self) -> u64 {
        self.fence
    }
}

/// What is known of a ticket.
#[derive(PartialEq, Eq)]
enum Progress {
    Done,
    Failed,
    /// An interrupt came that no fence explains.
    Suspicious,
}

struct Submission {
    put: u32,
    last_fence: u64,
}

/// One channel of the device.
#[pin_data(PinnedDrop)]
pub(crate) struct Channel {
    dev: ARef<Device>,
    master: BusMaster,
    number: u32,
    engine: u32,
    vector: u16,
    registers: Arc<Registers>,
    ring: SharedWords,
    control: SharedWords,
    timeout_ms: u32,
    #[pin]
    submission: Mutex<Submission>,
    #[pin]
    waiters: WaitQueue,
    /// Counts resets. Written under the submission lock, after `fences_at_reset`.
    generation: Atomic<u64>,
    /// The fence at the end of each of the last generations, by the generation's number modulo the length.
    fences_at_reset: [Atomic<u64>; GENERATIONS],
    /// The fence the last interrupt found.
    fence_seen: Atomic<u64>,
    suspicious: Atomic<bool>,
    lost: Atomic<bool>,
}

impl Channel {
    /// Sets up and enables channel `number`, for which engine `engine` is to work, and which is to raise interrupt vector `vector`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EIO` if the device does not take the setup.
    pub(crate) fn new(
        pdev: &pci::Device<Bound>,
        registers: Arc<Registers>,
        number: u32,
        engine: u32,
        vector: u16,
    ) -> Result<Arc<Self>> {
        let dev: &Device<Bound> = pdev.as_ref();
        let ring = SharedWords::zeroed(dev, RING_LENGTH * COMMAND_WORDS)?;
        let control = SharedWords::zeroed(dev, CONTROL_BLOCK_SIZE as usize / size_of::<u64>())?;
        let channel = Arc::pin_init(
            pin_init!(Self {
                dev: dev.into(),
                master: BusMaster::new(pdev),
                number,
                engine,
                vector,
                registers,
                ring,
                control,
                timeout_ms: parameters::timeout_ms(),
                submission <- new_mutex!(Submission { put: 0, last_fence: 0 }, "ersatz_submission"),
                waiters <- WaitQueue::new(),
                generation: Atomic::new(0),
                fences_at_reset: [const { Atomic::new(0) }; GENERATIONS],
                fence_seen: Atomic::new(0),
                suspicious: Atomic::new(false),
                lost: Atomic::new(false),
            }),
            GFP_KERNEL,
        )?;
        channel.reset()?;
        channel.enable(&mut channel.submission.lock())?;
        Ok(channel)
    }

    /// The device.
    pub(crate) fn dev(&self) -> &Device {
        &self.dev
    }

    /// The channel's number.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Whether the device is beyond recovery: it does no more work and no more DMA.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(ordering::Relaxed)
    }

    /// Makes the device begin with `works`, which it does in order.
    ///
    /// The memory that the works name must stay until [`Channel::wait`] has returned for the ticket, which must be called once. There must
    /// be at least one work.
    ///
    /// # Errors
    ///
    /// `EIO` if the device is beyond recovery.
    pub(crate) fn submit(&self, works: &[Work], cause: Cause) -> Result<Ticket> {
        let mut submission = self.submission.lock();
        if self.is_lost() {
            return Err(EIO);
        }
        let fence = submission.last_fence + 1;
        let mut put = submission.put;
        for (index, work) in works.iter().enumerate() {
            let last = index + 1 == works.len();
            let command = Command {
                operation: work.operation,
                cause,
                fence: last.then_some(fence),
                interrupt: last,
                tag: work.tag,
            };
            self.ring.write(put as usize % RING_LENGTH * COMMAND_WORDS, &command.encode())?;
            put = put.wrapping_add(1);
        }
        // The device must not see PUT before the commands.
        dma_write_barrier();
        self.control.write(PUT, &[u64::from(put)])?;
        submission.put = put;
        submission.last_fence = fence;
        let ticket = Ticket { generation: self.generation.load(ordering::Relaxed), fence };
        // A doorbell that fails (the BAR is gone) shows as a fence that does not come.
        let _ = self.registers.ring_doorbell(self.number);
        Ok(ticket)
    }

    /// Waits until the device has done a submission.
    ///
    /// # Errors
    ///
    /// `EIO` if the device reported an error or took too long; what it was is in the kernel log. Any part may have been done then, but
    /// nothing more will be: the memory that the works name is the caller's again.
    pub(crate) fn wait(&self, ticket: &Ticket) -> Result {
        // Small batches are done sooner than a thread goes to sleep and is woken.
        for _ in 0..POLLS {
            if self.progress(ticket) == Some(Progress::Done) {
                return Ok(());
            }
            cpu_relax();
        }
        let mut waited_ms = 0;
        loop {
            let look_ms = LOOK_MS.min(self.timeout_ms.saturating_sub(waited_ms));
            let progress = self.waiters.wait_timeout(msecs_to_jiffies(look_ms), || self.progress(ticket));
            match progress {
                Some(Progress::Done) => break Ok(()),
                Some(Progress::Failed) => break Err(EIO),
                Some(Progress::Suspicious) => self.suspicious.store(false, ordering::Relaxed),
                None => waited_ms += look_ms,
            }
            let late = waited_ms >= self.timeout_ms;
            if late || self.is_in_error() {
                self.recover(ticket, late);
            }
        }
    }

    /// Must not sleep: it is called by threads about to wait.
    fn progress(&self, ticket: &Ticket) -> Option<Progress> {
        let fence = self.fence();
        // The fence is this generation's if the generation has not changed once it has been read.
        dma_read_barrier();
        let generation = self.generation.load(ordering::Acquire);
        let same = generation == ticket.generation;
        let fence = if same { fence } else { self.fence_at_end_of(ticket.generation) };
        if fence >= ticket.fence {
            Some(Progress::Done)
        } else if !same {
            Some(Progress::Failed)
        } else {
            self.suspicious.load(ordering::Relaxed).then_some(Progress::Suspicious)
        }
    }

    /// The fence at the reset that ended a generation; zero if that is too long ago to be known.
    fn fence_at_end_of(&self, generation: u64) -> u64 {
        let fence = self.fences_at_reset[generation as usize % GENERATIONS].load(ordering::Relaxed);
        dma_read_barrier();
        let now = self.generation.load(ordering::Acquire);
        // The slot is written again before the generation is counted that ends with it.
        if now - generation < GENERATIONS as u64 {
            fence
        } else {
            0
        }
    }

    fn fence(&self) -> u64 {
        self.control.read(FENCE).unwrap_or(0)
    }

    fn status(&self) -> Result<ChannelStatus> {
        let status = self.registers.read_channel(self.number, regs::CHANNEL_STATUS)?;
        Ok(ChannelStatus(status as u32))
    }

    /// Whether the channel has stopped at an error, or does not answer.
    fn is_in_error(&self) -> bool {
        !self.status().is_ok_and(|status| matches!(status.state(), Some(ChannelState::Idle | ChannelState::Busy)))
    }

    /// Resets the channel on behalf of all tickets of `ticket`'s generation, unless another thread is doing so.
    fn recover(&self, ticket: &Ticket, late: bool) {
        let Some(mut submission) = self.submission.try_lock() else {
            // A thread that resets the channel waits for us to settle, so we must not wait for it here.
            fsleep(Delta::from_millis(1));
            return;
        };
        if self.progress(ticket).is_some_and(|progress| progress != Progress::Suspicious) {
            return;
        }
        self.report(ticket, late);
        let stopped = self.persist(|| self.reset());
        if stopped.is_err() {
            self.give_up("reset");
        }
        let ended = self.generation.load(ordering::Relaxed) as usize % GENERATIONS;
        self.fences_at_reset[ended].store(self.fence(), ordering::Relaxed);
        self.generation.fetch_add(1, ordering::Release);
        self.waiters.wake_all();
        if stopped.is_ok() && self.persist(|| self.restart(&mut submission)).is_err() {
            self.give_up("enabled again");
        }
    }

    /// Tries something until it works, or the device answers but takes too long over it, or there is no hope.
    fn persist(&self, mut attempt: impl FnMut() -> Result) -> Result {
        // A user who gives the device less time for its work does not want to wait longer for a sign of life.
        let revivals = REVIVALS.min(self.timeout_ms.div_ceil(REVIVAL_PAUSE_MS as u32));
        for _ in 0..revivals {
            match attempt() {
                Err(error) if error != ETIMEDOUT => fsleep(Delta::from_millis(REVIVAL_PAUSE_MS)),
                result => return result,
            }
        }
        Err(EIO)
    }

    fn restart(&self, submission: &mut Submission) -> Result {
        // Again, since another reset may have come between.
        self.reset()?;
        self.enable(submission)
    }

    fn give_up(&self, what: &str) {
        dev_err!(self.dev, "channel {} cannot be {}: giving up the device\n", self.number, what);
        self.master.forbid();
        self.lost.store(true, ordering::Relaxed);
    }

    fn report(&self, ticket: &Ticket, late: bool) {
        let read = |register| self.registers.read_channel(self.number, register).unwrap_or(u64::MAX);
        let status = ChannelStatus(read(regs::CHANNEL_STATUS) as u32);
        let position = read(regs::ERROR_POSITION);
        let address = read(regs::ERROR_ADDRESS);
        let (state, error) = (status.state().map(|s| s.name()), status.error().map(|e| e.name()));
        dev_err!(
            self.dev,
            "channel {}: {} at fence {} (last signalled {}): state {}, error {}, ring position {}, entry {}, address {:#x}\n",
            self.number,
            if late { "no answer" } else { "error" },
            ticket.fence,
            self.fence(),
            state.unwrap_or("unknown"),
            error.unwrap_or("unknown"),
            position as u32,
            position >> 32,
            address,
        );
    }

    /// Makes the device drop all commands. It no longer accesses the memory that they name then.
    ///
    /// # Errors
    ///
    /// `EIO` if the device does not answer; `ETIMEDOUT` if it answers but takes too long.
    fn reset(&self) -> Result {
        let reset = ChannelControl(0).with_reset(true);
        self.registers.write_channel(self.number, regs::CHANNEL_CONTROL, reset.0.into())?;
        for _ in 0..RESET_MS {
            let control = self.registers.read_channel(self.number, regs::CHANNEL_CONTROL)?;
            // First: a device that does not answer may read as zero, and can still do DMA.
            if !self.registers.device_answers() {
                return Err(EIO);
            }
            if !ChannelControl(control as u32).reset() {
                return Ok(());
            }
            fsleep(Delta::from_millis(1));
        }
        Err(ETIMEDOUT)
    }

    /// Hands ring and control block to a channel that was reset.
    fn enable(&self, submission: &mut Submission) -> Result {
        submission.put = 0;
        self.control.write(PUT, &[0])?;
        dma_write_barrier();
        let write = |register, value| self.registers.write_channel(self.number, register, value);
        write(regs::RING_BASE, self.ring.dma_address())?;
        write(regs::CONTROL_BLOCK, self.control.dma_address())?;
        write(regs::RING_ORDER, RING_ORDER.into())?;
        write(regs::VECTOR, self.vector.into())?;
        write(regs::ENGINE, self.engine.into())?;
        // Commands have no virtual addresses.
        write(regs::ASID, 0)?;
        write(regs::PRIORITY, Priority::High as u64)?;
        write(regs::CHANNEL_CONTROL, ChannelControl(0).with_enable(true).0.into())?;
        if self.is_in_error() {
            return Err(EIO);
        }
        Ok(())
    }
}

#[pinned_drop]
impl PinnedDrop for Channel {
    fn drop(self: Pin<&mut Self>) {
        // The device must no longer access ring and control block when they are freed.
        if !self.is_lost() && self.reset().is_err() {
            self.master.forbid();
        }
    }
}

impl Channel {
    /// There was an interrupt that may be this channel's.
    pub(crate) fn interrupted(&self) {
        let fence = self.fence();
        // No progress: an error, or an interrupt whose fence was seen with an earlier one. The waiting threads ask the device.
        if self.fence_seen.xchg(fence, ordering::Relaxed) == fence {
            self.suspicious.store(true, ordering::Relaxed);
        }
        self.waiters.wake_all();
    }
}

/// The interrupt of fences and errors of some channels.
pub(crate) struct ChannelInterrupt<const N: usize> {
    pub(crate) channels: [Arc<Channel>; N],
}

impl<const N: usize> Handler for ChannelInterrupt<N> {
    fn handle(&self) {
        self.channels.iter().for_each(|channel| channel.interrupted());
    }
}
