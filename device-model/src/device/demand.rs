// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The host demands memory back from the driver, and returns it.

use std::ops::Range;
use std::sync::MutexGuard;

use ersatz_abi::list::Location;
use ersatz_abi::pci::VECTOR_ERROR;
use ersatz_abi::regs::{HAND_OVER_BYTES, HandOver};

use super::Device;
use crate::demand::{Demand, Demands, Want};
use crate::inject::{DemandView, MemoryDemand, MemoryLimit, MemoryReturn, MemoryView, Work};
use crate::interrupt::InterruptCause;
use crate::trace::MemoryEvent;

impl Device {
    fn vram_pages(&self) -> u64 {
        self.vram.size() / HAND_OVER_BYTES
    }

    /// Demands memory, once all demands before this one have ended.
    pub(super) fn demand_memory(&self, demand: &MemoryDemand) {
        let all = self.vram_pages();
        let first = demand.offset.unwrap_or(0) / HAND_OVER_BYTES;
        let within = match (demand.offset, demand.pages) {
            (Some(_), Some(pages)) => first..first.saturating_add(pages),
            _ => first..all,
        };
        let pages = demand.pages.unwrap_or(all);
        self.want(Want::More { within, pages }, demand.deadline_ns);
    }

    /// Limits the number of pages that the driver has: those beyond are demanded, those missing are returned.
    pub(super) fn limit_memory(&self, limit: &MemoryLimit) {
        self.want(Want::Limit(limit.pages), limit.deadline_ns);
    }

    fn want(&self, want: Want, lasts: u64) {
        let mut demands = self.demands.lock();
        if !demands.add(want, lasts) {
            let gpu = self.number;
            return log::warn!("GPU {gpu}: too many demands for memory wait for answers; this one is not made");
        }
        self.make_next(demands);
    }

    /// Makes the next demand of the driver, if there is one and none before it waits for an answer.
    fn make_next(&self, mut demands: MutexGuard<'_, Demands>) {
        let (handed, all) = (self.vram.handed_over(), self.vram_pages());
        let mut is_news = false;
        while let Some((want, lasts)) = demands.take_next() {
            let (within, pages) = match want {
                Want::More { within, pages } => (within.start.min(all)..within.end.min(all), pages),
                Want::Limit(limit) => {
                    let usable = all - handed.count();
                    is_news |= self.give_back(0..all, limit.saturating_sub(usable));
                    (0..all, usable.saturating_sub(limit))
                }
            };
            let pages = pages.min(handed.others(within.clone()));
            if pages == 0 {
                continue;
            }
            let Demand { number, deadline, .. } = *demands.make(within.clone(), pages, self.ports.clock.now(), lasts);
            self.ports.tracer.emit(
                MemoryEvent::Demanded {
                    number,
                    range: Location::vram(within.start * HAND_OVER_BYTES),
                    length: (within.end - within.start) * HAND_OVER_BYTES,
                    bytes: pages * HAND_OVER_BYTES,
                    deadline: lasts,
                }
                .into(),
            );
            self.ports.injector.do_at(deadline, Work::ExpireDemand(number));
            is_news = true;
        }
        drop(demands);
        if is_news {
            self.tell_of_memory();
        }
    }

    /// Returns memory to the driver.
    pub(super) fn return_memory(&self, returned: &MemoryReturn) {
        let first = returned.offset.unwrap_or(0) / HAND_OVER_BYTES;
        let demands = self.demands.lock();
        let within = match (returned.offset, returned.pages) {
            (Some(_), Some(pages)) => first..first.saturating_add(pages),
            _ => first..self.vram_pages(),
        };
        let is_news = self.give_back(within, returned.pages.unwrap_or(u64::MAX));
        drop(demands);
        if is_news {
            self.tell_of_memory();
        }
    }

    /// Returns up to `pages` pages of a range to the driver, the first that are handed over. Called with the lock of the demands held.
    /// Returns whether there were any.
    fn give_back(&self, within: Range<u64>, pages: u64) -> bool {
        let handed = self.vram.handed_over();
        let (mut at, mut left) = (within.start, pages);
        while left > 0
            && let Some(run) = handed.first_run_from(at).filter(|run| run.start < within.end)
        {
            let run = run.start..run.end.min(within.end).min(run.start.saturating_add(left));
            let (offset, length) = (run.start * HAND_OVER_BYTES, (run.end - run.start) * HAND_OVER_BYTES);
            // What others have left there is nothing to the driver.
            self.vram.zero(offset, length);
            // A driver that sees it has it at once.
            self.ports.tracer.emit(MemoryEvent::Returned { page: Location::vram(offset), length }.into());
            handed.remove(run.clone());
            left -= run.end - run.start;
            at = run.end;
        }
        left < pages
    }

    /// The driver hands over pages. Returns whether it can.
    pub(crate) fn hand_over(&self, value: HandOver) -> bool {
        let Some((first, count)) = value.pages() else { return false };
        let pages = first..first.saturating_add(count);
        if pages.end > self.vram_pages() {
            return false;
        }
        let mut demands = self.demands.lock();
        let handed = self.vram.handed_over();
        if let Some(demand) = &mut demands.current {
            let part = pages.start.max(demand.within.start)..pages.end.min(demand.within.end);
            if !part.is_empty() {
                demand.given += handed.others(part);
            }
        }
        if handed.add(pages) > 0 {
            let (offset, length) = (first * HAND_OVER_BYTES, count * HAND_OVER_BYTES);
            self.vram.zero(offset, length);
            self.ports.tracer.emit(MemoryEvent::HandedOver { page: Location::vram(offset), length }.into());
        }
        true
    }

    /// The driver answers a demand. Returns whether there ever was one of this number: it may have ended by itself.
    pub(crate) fn answer_demand(&self, number: u64) -> bool {
        let mut demands = self.demands.lock();
        if let Some(demand) = demands.end(number) {
            demands.answered += 1;
            self.ports.injector.call_off(&Work::ExpireDemand(number));
            let given = demand.given * HAND_OVER_BYTES;
            self.ports.tracer.emit(MemoryEvent::Answered { number, given }.into());
        }
        let is_known = demands.has_made(number);
        self.make_next(demands);
        is_known
    }

    /// A demand has come to its deadline.
    pub(super) fn expire_demand(&self, number: u64) {
        let mut demands = self.demands.lock();
        if let Some(demand) = demands.end(number) {
            demands.expired += 1;
            let given = demand.given * HAND_OVER_BYTES;
            let lasted = demand.deadline - demand.since;
            self.ports.tracer.emit(MemoryEvent::Expired { number, given, deadline: lasted }.into());
        }
        self.make_next(demands);
    }

    /// What a register shows of the demand that waits for an answer; zero if there is none.
    pub(crate) fn of_demand(&self, part: impl FnOnce(&Demand) -> u64) -> u64 {
        self.demands.lock().current.as_ref().map_or(0, part)
    }

    /// The first pages that are handed over from where the driver looks, in bytes.
    pub(crate) fn first_handed_over(&self) -> Option<Range<u64>> {
        let from = *self.handed_over_from.lock();
        let run = self.vram.handed_over().first_run_from(from / HAND_OVER_BYTES)?;
        Some(run.start * HAND_OVER_BYTES..run.end * HAND_OVER_BYTES)
    }

    /// What is to be seen of all this on the host.
    pub(super) fn memory_view(&self) -> MemoryView {
        let demands = self.demands.lock();
        MemoryView {
            pages: self.vram_pages(),
            handed_over: self.vram.handed_over().count(),
            answered: demands.answered,
            expired: demands.expired,
            demand: demands.current.as_ref().map(|demand| DemandView {
                number: demand.number,
                left: demand.left(),
                deadline_ns: demand.deadline,
            }),
        }
    }

    /// Tells the driver to look for demands and for what was returned.
    fn tell_of_memory(&self) {
        self.unless_reset(|| self.raise(VECTOR_ERROR, InterruptCause::Memory));
    }
}
