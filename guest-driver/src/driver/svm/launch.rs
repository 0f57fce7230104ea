// SPDX-License-Identifier: GPL-2.0
//! Running a kernel in the address space of the process that launches it, and answering its faults.
//!
//! A fault is answered by moving the page to where the process wants it, mapping it, and a replay. One that cannot be answered ends the
//! kernel if its channel waits at it and it was reported again after a replay: a record may be stale, and memory may be mapped by now.
//! Where the channel waits is answered whether or not there is a record: of the several faults of a round it can be the same whose record is lost,
//! time and again.

use super::{
    advice::Advised,
    compute_channel::ComputeChannel,
    lasting,
    space::{Nearby, Space, SpaceId, WINDOW},
    Svm,
};
use crate::{
    abi::{
        channel::ChannelState,
        command::Cause,
        error::ErrorCode,
        fault::{AccessKind, FaultKind, FaultRecord},
        kernel::Kernel,
        regs,
    },
    bindings::EHWPOISON,
    driver::{gpu::Gpu, parameters, placement, statistics::Stopwatch},
    kernel_ext::signal,
    uapi::{Advice, Direction},
    zone_device::{
        folio::HUGE_SIZE,
        interval_notifier::{Wanted, WALK_PAGES},
        pagemap::BoundMap,
    },
};
use core::{cmp, ops::Range};
use kernel::{
    mm::MmWithUser,
    page::{PAGE_MASK, PAGE_SIZE},
    prelude::*,
    processor::cpu_relax,
    sync::atomic::ordering,
    time::{delay::fsleep, msecs_to_jiffies, Delta, Instant, Monotonic},
};

/// How often to look at the fence before going to sleep.
const POLLS: u32 = 100;
/// How often to look whether a channel waits of which a fault was reported, and how long to wait in between.
const WAIT_LOOKS: u32 = 20;
const WAIT_PAUSE: Delta = Delta::from_micros(10);
/// How often a waiting thread asks the device for faults and errors, in case an interrupt was lost.
const LOOK_MS: u32 = 20;

/// How a kernel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is done.
    Done,
    /// It accessed what the process itself could not have accessed so.
    Fault { address: u64, access: AccessKind, error: Error },
}

/// A page-aligned range all of which is mapped at a fault in it, from there to the end.
#[derive(Debug)]
pub(crate) struct Around {
    /// The range.
    pub(crate) range: Range<usize>,
    /// Number of faults that were answered so.
    pub(crate) faults: u64,
}

impl Svm {
    /// Runs a kernel in an address space that mirrors `mm`, which must be the current process's, and waits for its end. Faults are answered
    /// page by page, with what is present nearby, but those in `around`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the address space has ended; `EPERM` if it mirrors another process's; `EINTR` if a signal came before the kernel was started,
    /// or the process is being killed; `ENOMEM`; `EIO` if the device failed or took too long. Any part of the kernel may have been done
    /// then, but nothing more will be.
    pub(crate) fn launch(
        &self,
        map: BoundMap<'_, Gpu>,
        id: SpaceId,
        mm: &MmWithUser,
        kernel: Kernel,
        around: Option<&mut Around>,
    ) -> Result<Outcome> {
        let space = self.space_of(id, mm)?;
        let pfns = KVec::from_elem(0, WALK_PAGES, GFP_KERNEL)?;
        let index = self.take_channel()?;
        let result = match self.channels.get(index) {
            Some(channel) => self.run(Run { svm: self, map, space: &space, mm, channel, index, pfns, around }, kernel),
            None => Err(EINVAL),
        };
        // There is room: the number came from here.
        let _ = self.idle.lock().push_within_capacity(index);
        self.returned.notify_one();
        result
    }

    fn take_channel(&self) -> Result<usize> {
        let mut idle = self.idle.lock();
        loop {
            if let Some(index) = idle.pop() {
                return Ok(index);
            }
            if self.returned.wait_interruptible(&mut idle) {
                return Err(EINTR);
            }
        }
    }

    fn run(&self, mut run: Run<'_>, kernel: Kernel) -> Result<Outcome> {
        if self.invalidator.is_lost() {
            return Err(EIO);
        }
        let channel = run.channel;
        channel.reset().map_err(|_| EIO)?;
        self.faults.enable()?;
        run.space.enable()?;
        if run.space.counts_accesses() {
            self.accesses.enable(run.space.id().asid)?;
        }
        if run.space.has_lasting() {
            // What others have moved since the last kernel.
            lasting::map_present(run.map, run.mm, run.space, run.space.take_forgotten())?;
        }
        // What is left of the channel's last kernel.
        self.faults.collect()?;
        self.faults.take(run.index);
        let result = channel.start(run.space.id().asid, kernel).and_then(|()| run.attend());
        if channel.reset().is_err() {
            // The device might go on writing to the process's memory, whatever becomes of that.
            self.invalidator.give_up("a channel cannot be reset");
        }
        if result.is_ok() {
            // For the next kernel. If that goes wrong this one is done nevertheless.
            let _ = run.move_hot();
        }
        result
    }
}

/// A kernel under way.
struct Run<'a> {
    svm: &'a Svm,
    map: BoundMap<'a, Gpu>,
    space: &'a Space,
    mm: &'a MmWithUser,
    channel: &'a ComputeChannel,
    /// Number of the channel among those of the fault buffer.
    index: usize,
    pfns: KVec<usize>,
    around: Option<&'a mut Around>,
}

/// Addresses at which faults that cannot be answered are remembered: as many as records are kept at once.
const REFUSALS: usize = 8;

/// How it stands with answering faults.
struct Progress {
    /// Since when the channel was not seen to wait anywhere else.
    since: Instant<Monotonic>,
    /// Where it was seen to wait last.
    waited_at: Option<u64>,
    /// What cannot be answered, the channel waits there or not.
    refusals: [Option<Refusal>; REFUSALS],
    /// The place that is used next.
    next: usize,
}

/// A fault that cannot be answered.
#[derive(Clone, Copy)]
struct Refusal {
    record: FaultRecord,
    error: Error,
    /// How often it was reported, with a replay in between.
    times: u32,
}

impl Progress {
    fn new() -> Self {
        Self { since: Instant::now(), waited_at: None, refusals: [None; REFUSALS], next: 0 }
    }

    /// Notes where the channel waits.
    fn waits_at(&mut self, address: u64) {
        if self.waited_at.replace(address) != Some(address) {
            self.since = Instant::now();
        }
    }

    /// Notes what became of a fault.
    fn note(&mut self, record: &FaultRecord, result: Result) {
        let is_here =
            |slot: &&mut Option<Refusal>| slot.is_some_and(|refusal| refusal.record.address == record.address);
        let known = self.refusals.iter_mut().find(is_here);
        match (result, known) {
            (Ok(()), Some(known)) => *known = None,
            (Ok(()), None) => {}
            (Err(error), Some(known)) => {
                let times = known.map_or(0, |refusal| refusal.times) + 1;
                *known = Some(Refusal { record: *record, error, times });
            }
            (Err(error), None) => {
                if let Some(slot) = self.refusals.get_mut(self.next) {
                    *slot = Some(Refusal { record: *record, error, times: 1 });
                }
                self.next = if self.next + 1 < REFUSALS { self.next + 1 } else { 0 };
            }
        }
    }

    /// What could not be answered at an address, if it was reported again after a replay.
    fn refusal_at(&self, address: u64) -> Option<Refusal> {
        let refusals = self.refusals.iter().flatten().copied();
        refusals.filter(|refusal| refusal.times > 1).find(|refusal| refusal.record.address == address)
    }
}

impl Run<'_> {
    /// Waits for the end of the kernel, and answers its faults.
    fn attend(&mut self) -> Result<Outcome> {
        let timeout = Delta::from_millis(parameters::timeout_ms().into());
        let mut progress = Progress::new();
        for _ in 0..POLLS {
            if self.channel.is_done() {
                return Ok(Outcome::Done);
            }
            cpu_relax();
        }
        loop {
            let seen = self.svm.events.load(ordering::Acquire);
            if self.channel.is_done() {
                return Ok(Outcome::Done);
            }
            self.move_hot()?;
            self.svm.faults.collect()?;
            let mut records = self.svm.faults.take(self.index);
            let is_expected = records.iter().any(Option::is_some);
            let waiting = match self.waiting(is_expected)? {
                Ok(waiting) => waiting,
                // The fence may have come meanwhile.
                Err(_) if self.channel.is_done() => return Ok(Outcome::Done),
                Err(_) => return self.failed(),
            };
            if waiting.is_some() && !is_expected {
                // The record may have come since: it is there before the channel waits.
                self.svm.faults.collect()?;
                records = self.svm.faults.take(self.index);
            }
            if let Some(outcome) = self.answer(&records, waiting, &mut progress)? {
                return Ok(outcome);
            }
            if signal::is_fatal_pending() {
                return Err(EINTR);
            }
            if progress.since.elapsed() > timeout {
                dev_err!(self.map.dev(), "a kernel does not end: it is dropped\n");
                return Err(EIO);
            }
            // A replay without need makes the channel wait anew all the time, and what is read of it mean nothing.
            if is_expected || waiting.is_some() {
                let mut watch = Stopwatch::start();
                self.svm.registers.write(regs::FAULT_REPLAY, 1)?;
                self.map.memory().statistics.add_replay(watch.lap());
                continue;
            }
            // Whether it changed or an interrupt was lost: there is only looking again.
            let _ = self.svm.waiters.wait_timeout(msecs_to_jiffies(LOOK_MS), || {
                let has_changed = self.svm.events.load(ordering::Acquire) != seen || self.channel.is_done();
                has_changed.then_some(())
            });
        }
    }

    /// The fault that the channel waits at, if it does; if it is expected to, it is given a moment, which it takes behind the record of its
    /// fault. `Err` with the state of a channel that has stopped.
    fn waiting(&self, is_expected: bool) -> Result<Result<Option<FaultRecord>, Option<ChannelState>>> {
        for _ in 0..WAIT_LOOKS {
            let status = self.channel.status()?;
            match status.state() {
                Some(ChannelState::Faulted) => {
                    let address = self.channel.error_address()?;
                    // Replays for other channels come at any time: what is read belongs together if nothing changes around it.
                    let is_same = self.channel.status()? == status && self.channel.error_address()? == address;
                    if let (true, Some((access, kind))) = (is_same, status.fault()) {
                        return Ok(Ok(Some(self.fault_at(address, access, kind))));
                    }
                }
                Some(ChannelState::Idle | ChannelState::Busy) => {}
                stopped => return Ok(Err(stopped)),
            }
            if !is_expected || self.channel.is_done() {
                break;
            }
            fsleep(WAIT_PAUSE);
        }
        Ok(Ok(None))
    }

    /// A fault of the channel that there is no record of.
    fn fault_at(&self, address: u64, access: AccessKind, kind: FaultKind) -> FaultRecord {
        let asid = self.space.id().asid;
        FaultRecord { address, asid, channel: 0, engine: 0, access, kind, level: 0, timestamp: 0, number: 0 }
    }

    /// Answers faults: those of the records, and the one that the channel waits at. Returns how the kernel ended, if that one cannot be
    /// answered: it was found at least twice then, the second time after a replay.
    fn answer(
        &mut self,
        records: &[Option<FaultRecord>],
        waiting: Option<FaultRecord>,
        progress: &mut Progress,
    ) -> Result<Option<Outcome>> {
        if let Some(waiting) = &waiting {
            progress.waits_at(waiting.address);
        }
        let is_recorded =
            |waiting: &FaultRecord| records.iter().flatten().any(|record| record.address == waiting.address);
        let unrecorded = waiting.as_ref().filter(|waiting| !is_recorded(waiting));
        let mut last = None;
        // By this name, as pin-init has a method of the same for all types.
        for record in Iterator::chain(records.iter().flatten(), unrecorded) {
            // One of another address space is left from an earlier kernel.
            if record.asid != self.space.id().asid || record.access == AccessKind::Prefetch {
                continue;
            }
            let result = self.serve(record);
            if matches!(result, Err(error) if error == EINTR) {
                return Err(EINTR);
            }
            // One that was written twice counts once.
            if last != Some(record.address) {
                progress.note(record, result);
            }
            last = Some(record.address);
        }
        match waiting.and_then(|waiting| progress.refusal_at(waiting.address)) {
            Some(Refusal { record, error, .. }) => refused(&record, error).map(Some),
            None => Ok(None),
        }
    }

    fn serve(&mut self, record: &FaultRecord) -> Result {
        match record.kind {
            FaultKind::NotPresent | FaultKind::WriteProtect | FaultKind::AtomicDenied => {}
            FaultKind::BadAddress => return Err(EFAULT),
            FaultKind::BadAperture | FaultKind::BadTable => return Err(EIO),
        }
        let page = usize::try_from(record.address)? & PAGE_MASK;
        let write = record.access != AccessKind::Read;
        let mut watch = Stopwatch::start();
        let migrate = match self.around.as_deref_mut() {
            Some(Around { range, faults }) if range.contains(&page) => {
                let rest = page..range.end;
                let was_missing = self.space.serve_range(self.map, self.mm, rest, write, &mut self.pfns)?;
                *faults += u64::from(was_missing);
                Delta::ZERO
            }
            _ => {
                let pages = page..page.checked_add(PAGE_SIZE).ok_or(EFAULT)?;
                let nearby = self.place(page, write)?;
                let migrate = watch.lap();
                self.space.serve(self.map, self.mm, &Wanted { pages, write }, &nearby, &mut self.pfns)?;
                migrate
            }
        };
        self.map.memory().statistics.add_device_fault(migrate, watch.lap());
        Ok(())
    }

    /// Moves what lies around a page that the device faults at to where the process wants it. Returns what around it may be mapped.
    fn place(&self, page: usize, write: bool) -> Result<Nearby> {
        let Advised { range: alike, advice } = self.space.advice_at(page);
        let direction = match advice {
            Advice::PreferDevice => Some(Direction::ToDevice),
            Advice::PreferSystem => Some(Direction::ToSystem),
            Advice::None | Advice::ByAccess | Advice::AccessedBy | Advice::ReadMostly => None,
        };
        let pages = match advice {
            Advice::None | Advice::ByAccess => common(&alike, page, WINDOW),
            // The rest of it is read on, without the right to write.
            Advice::ReadMostly if write => common(&alike, page, PAGE_SIZE),
            _ => common(&alike, page, HUGE_SIZE),
        };
        if let Some(direction) = direction {
            self.bring(pages.clone(), direction, Cause::DeviceFault)?;
        }
        Ok(Nearby { pages, write: advice == Advice::AccessedBy })
    }

    /// Moves memory of the system that the device accesses often to it, where the process wants that.
    fn move_hot(&self) -> Result {
        if !self.space.counts_accesses() {
            return Ok(());
        }
        let accesses = &self.svm.accesses;
        accesses.collect()?;
        while let Some(region) = accesses.take(self.space.id().asid) {
            let mut rest = region.range();
            while let Some(part) = self.space.first_by_access(&rest) {
                rest.start = part.end;
                self.bring(part, Direction::ToDevice, Cause::AccessCounter)?;
            }
            accesses.clear(region)?;
        }
        Ok(())
    }

    /// Moves a range of at most [`HUGE_SIZE`], unless that was moved to and fro lately. What does not move is used where it is.
    fn bring(&self, range: Range<usize>, direction: Direction, cause: Cause) -> Result {
        let start = range.start;
        if !self.space.may_move(start) {
            return Ok(());
        }
        let result = placement::migrate_for(self.map, self.mm, range, direction, cause);
        // If nothing moved, too: it need not be tried again at once.
        self.space.note_move(start);
        match result {
            Err(error) if error == EIO => Err(EIO),
            _ => Ok(()),
        }
    }

    /// Says what a channel stopped at.
    fn failed(&self) -> Result<Outcome> {
        let error = self.channel.status()?.error();
        if error == Some(ErrorCode::BadOperand) {
            // A pointer of a chase that no process could follow in this way.
            return Err(EINVAL);
        }
        if error == Some(ErrorCode::Poisoned) {
            return Err(Error::from_errno(-(EHWPOISON as i32)));
        }
        dev_err!(
            self.map.dev(),
            "a kernel failed: {}, address {:#x}\n",
            error.map_or("unknown", |error| error.name()),
            self.channel.error_address()?,
        );
        Err(EIO)
    }
}

/// What a range has in common with the aligned block of `size` bytes that an address of it lies in.
fn common(range: &Range<usize>, address: usize, size: usize) -> Range<usize> {
    let block = address / size * size;
    cmp::max(block, range.start)..cmp::min(block.saturating_add(size), range.end)
}

/// How a kernel ends at a fault that cannot be answered. The reset of its channel drops it.
fn refused(record: &FaultRecord, error: Error) -> Result<Outcome> {
    match error {
        error if error == EFAULT || error == EPERM => {
            Ok(Outcome::Fault { address: record.address, access: record.access, error })
        }
        error if error == ENOMEM => Err(ENOMEM),
        _ => Err(EIO),
    }
}
