// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The memory a device masters, with each refusal counted, and put on record in the function's config space.
//!
//! All of a device's requests go through here, so no engine has to think of it.

use std::sync::{Arc, Weak};

use ersatz_abi::counter::Counter;
use vm_memory::VolatileSlice;

use super::{DmaError, DmaSession, DmaSpace, MapObserver, Purpose};
use crate::counters::Counters;
use crate::pci::aer::{ErrorLog, Refusal};
use crate::pci::tlp::{Kind, Request};

/// A space and where its refusals are recorded.
pub(crate) struct ReportedSpace {
    space: Arc<dyn DmaSpace>,
    errors: Arc<ErrorLog>,
    counters: Arc<Counters>,
}

impl ReportedSpace {
    pub(crate) fn new(space: Arc<dyn DmaSpace>, errors: Arc<ErrorLog>, counters: Arc<Counters>) -> Self {
        Self { space, errors, counters }
    }

    /// As [`DmaSpace::open`].
    pub(crate) fn open(&self) -> ReportedSession<'_> {
        ReportedSession { session: self.space.open(), errors: &self.errors, counters: &self.counters }
    }

    /// As [`DmaSpace::observe_maps`].
    pub(crate) fn observe_maps(&self, observer: Weak<dyn MapObserver>) {
        self.space.observe_maps(observer);
    }
}

/// Accesses to such a space.
pub(crate) struct ReportedSession<'a> {
    session: Box<dyn DmaSession + 'a>,
    errors: &'a ErrorLog,
    counters: &'a Counters,
}

impl ReportedSession<'_> {
    /// Passes a result on. Requests begin anew at the first address that was refused, so that one is in the record.
    fn report<T>(&self, result: Result<T, DmaError>, address: u64, length: usize, kind: Kind) -> Result<T, DmaError> {
        let (refusal, at) = match result {
            Err(DmaError::Unmapped(at)) => (Refusal::UnsupportedRequest, at),
            Err(DmaError::ReadOnly(at)) => (Refusal::CompleterAbort, at),
            // This one never got as far as the bus.
            Ok(_) | Err(DmaError::Unaligned(_)) => return result,
        };
        let length = (length as u64).saturating_sub(at.saturating_sub(address));
        self.counters.add(Counter::DmaErrors, 1);
        self.errors.refused(refusal, &Request { kind, address: at, length });
        result
    }
}

impl DmaSession for ReportedSession<'_> {
    fn read(&self, address: u64, target: &VolatileSlice<'_>) -> Result<(), DmaError> {
        self.report(self.session.read(address, target), address, target.len(), Kind::Read)
    }

    fn write(&self, address: u64, source: &VolatileSlice<'_>) -> Result<(), DmaError> {
        self.report(self.session.write(address, source), address, source.len(), Kind::Write)
    }

    fn load_u32(&self, address: u64) -> Result<u32, DmaError> {
        self.report(self.session.load_u32(address), address, size_of::<u32>(), Kind::Read)
    }

    fn load_u64(&self, address: u64) -> Result<u64, DmaError> {
        self.report(self.session.load_u64(address), address, size_of::<u64>(), Kind::Read)
    }

    fn store_u32(&self, address: u64, value: u32) -> Result<(), DmaError> {
        self.report(self.session.store_u32(address, value), address, size_of::<u32>(), Kind::Write)
    }

    fn store_u64(&self, address: u64, value: u64) -> Result<(), DmaError> {
        self.report(self.session.store_u64(address, value), address, size_of::<u64>(), Kind::Write)
    }

    fn compare_exchange_u64(&self, address: u64, current: u64, new: u64) -> Result<Result<u64, u64>, DmaError> {
        let result = self.session.compare_exchange_u64(address, current, new);
        self.report(result, address, size_of::<u64>(), Kind::CompareAndSwap)
    }

    fn expect(&self, address: u64, purpose: Purpose) {
        self.session.expect(address, purpose);
    }
}
