// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the device does because a breakpoint or a rule wants it, outside of its own work.

use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ersatz_abi::fault::FaultRecord;
use ersatz_abi::mmu::PageSize;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::Device;
use crate::dma::DmaSession;
use crate::engine::gate::Master;
use crate::eventfd::{drain, signal};
use crate::inject::Work;
use crate::mmu::PageFault;
use crate::notification::Initiator;
use crate::sync::Mutex;
use crate::trace::{ResetSource, Step};

/// What happens to the function without an access, until the bus takes note of it.
pub(crate) struct Removal {
    /// Signalled when there is something to take note of.
    pub(crate) event: Arc<EventFd>,
    pending: Mutex<Vec<FunctionChange>>,
    /// The function is gone, and stays so.
    is_gone: AtomicBool,
}

/// Something that happened to the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FunctionChange {
    /// It is to be reset.
    Reset,
    /// It is gone.
    Gone,
}

impl Removal {
    pub(super) fn new() -> io::Result<Self> {
        let event = Arc::new(EventFd::new(EFD_NONBLOCK)?);
        Ok(Self { event, pending: Mutex::default(), is_gone: AtomicBool::new(false) })
    }

    /// Whether the function is gone.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Acquire)
    }

    /// Takes what the bus has not taken note of.
    pub(crate) fn take(&self) -> Vec<FunctionChange> {
        drain(&self.event);
        mem::take(&mut *self.pending.lock())
    }

    fn add(&self, change: FunctionChange) {
        self.pending.lock().push(change);
        signal(&self.event);
    }
}

impl Device {
    /// Carries out what the injector wants done outside of the device's own work, until [`Self::leave`].
    pub(crate) fn run_injection(&self) {
        while let Some((resets, work)) = self.ports.injector.next_work() {
            for work in work {
                self.carry_out(work, resets);
            }
        }
    }

    fn carry_out(&self, work: Work, resets: u64) {
        match work {
            Work::GoOn(hold) => match hold.channel {
                Some(channel) if hold.step != Step::BeforeInvalidationAck => self.kick(channel),
                _ => self.mmu.release(hold.number),
            },
            Work::Acknowledge(hold) => self.mmu.release(hold),
            Work::Interrupt { vector, cause } => {
                let _pass = self.gate.enter();
                self.unless_reset_since(resets, || {
                    self.raise_undecided(vector, cause.and_then(|cause| cause.channel()));
                });
            }
            Work::Record(record) => {
                // A function that is no master any more writes no record.
                let Ok(master) = self.gate.enter().master(&self.ports.dma) else { return };
                self.unless_reset_since(resets, || self.record_late(&master, &record));
            }
            Work::Fill { claim, record } => {
                // A function that is no master any more writes no record, and its place stays empty.
                let master = self.gate.enter().master(&self.ports.dma).ok();
                self.unless_reset_since(resets, || {
                    let dma = master.as_ref().map(|master| &master.dma as &dyn DmaSession);
                    let _ = self.faults.fill(&self.ports, &self.counters, dma, &record, &Ok(claim));
                });
            }
            Work::ReportHot(hot) => {
                let Ok(master) = self.gate.enter().master(&self.ports.dma) else { return };
                self.unless_reset_since(resets, || self.report_hot_undecided(&master, hot, None));
            }
            Work::Faults { first, count } => {
                let Ok(master) = self.gate.enter().master(&self.ports.dma) else { return };
                self.unless_reset_since(resets, || {
                    for page in 0..u64::from(count) {
                        let address = first.address.wrapping_add(page * PageSize::Small.bytes());
                        self.record_late(&master, &FaultRecord { address, ..first });
                    }
                });
            }
            Work::Poison { offset, pages } => self.find_poison(offset, pages),
            Work::DemandMemory(demand) => self.demand_memory(&demand),
            Work::ReturnMemory(returned) => self.return_memory(&returned),
            Work::LimitMemory(limit) => self.limit_memory(&limit),
            Work::ExpireDemand(number) => self.expire_demand(number),
            Work::Reset => self.removal.add(FunctionChange::Reset),
            Work::Vanish => self.vanish(),
        }
    }

    fn record_late(&self, master: &Master<'_>, record: &FaultRecord) {
        let FaultRecord { address, asid, channel, engine, access, kind, level, .. } = *record;
        let fault = PageFault { address, access, kind, level };
        let _ = self.record_undecided(master, Initiator { channel, engine, asid }, &fault, None);
    }

    /// Runs `work` unless the device was reset more than this many times. A reset waits until it is done.
    fn unless_reset_since(&self, resets: u64, work: impl FnOnce()) {
        let _resetting = self.resetting.lock();
        if self.ports.injector.resets() == resets {
            work();
        }
    }

    /// The device is being reset: what the injector has made of it is over.
    pub(super) fn reset_injected(&self) {
        self.hung.store(0, Ordering::Release);
        self.ports.injector.reset();
    }

    /// The function is gone: nothing reaches it any more, nor it anything.
    fn vanish(&self) {
        if self.removal.is_gone.swap(true, Ordering::AcqRel) {
            return;
        }
        self.answers.store(false, Ordering::Release);
        self.link.set_reachable(false);
        self.gate.close(false, || self.reset_now(ResetSource::Removal));
        self.removal.add(FunctionChange::Gone);
    }

    /// An engine executes nothing until the device is reset.
    pub(crate) fn hang(&self, engine: u8) {
        self.hung.fetch_or(1 << engine, Ordering::AcqRel);
    }

    /// Whether an engine executes nothing.
    pub(crate) fn is_hung(&self, engine: u8) -> bool {
        self.hung.load(Ordering::Acquire) & (1 << engine) != 0
    }
}
