// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The memory a device masters, with each refusal counted, and put on record in the function's config space.
//!
//! All of a device's requests go through here, so no engine has to think of it.

use std::sync::{Arc, Weak};

use ersatz_abi::counter::Counter;
use vm_memory::VolatileSlice;

use crate::counters::Counters;
use crate::dma::{DmaError, DmaSession, DmaSpace, MapObserver, Purpose};
use crate::inject::Injector;
use crate::pci::aer::{ErrorLog, Refusal};
use crate::pci::tlp::{Kind, Request};

/// A space and where its refusals are recorded.
pub(crate) struct ReportedSpace {
    space: Arc<dyn DmaSpace>,
    errors: Arc<ErrorLog>,
    counters: Arc<Counters>,
    /// What makes the bus refuse requests, if anything does.
    injector: Option<Arc<Injector>>,
}

impl ReportedSpace {
    pub(crate) fn new(space: Arc<dyn DmaSpace>, errors: Arc<ErrorLog>, counters: Arc<Counters>) -> Self {
        Self { space, errors, counters, injector: None }
    }

    /// The same with requests that an injector can have refused.
    pub(crate) fn with_injector(self, injector: Arc<Injector>) -> Self {
        Self { injector: Some(injector), ..self }
    }

    /// As [`DmaSpace::open`].
    pub(crate) fn open(&self) -> ReportedSession<'_> {
        let Self { space, errors, counters, injector } = self;
        ReportedSession { session: space.open(), errors, counters, injector: injector.as_deref() }
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
    injector: Option<&'a Injector>,
}

impl ReportedSession<'_> {
    /// How many bytes of an access can be made before it is refused; `None` if no rule has it refused.
    #[inline]
    fn refused_at(&self, address: u64, length: usize, is_write: bool) -> Option<usize> {
        let injector = self.injector.filter(|injector| injector.decides_about_dma())?;
        let bytes = injector.refuses_dma(address, length as u64, is_write)?;
        Some(usize::try_from(bytes).unwrap_or(0))
    }

    /// Makes an access that is not divided, unless a rule has it refused.
    #[inline]
    fn whole<T>(
        &self,
        address: u64,
        length: usize,
        kind: Kind,
        access: impl FnOnce() -> Result<T, DmaError>,
    ) -> Result<T, DmaError> {
        let result = match self.refused_at(address, length, kind != Kind::Read) {
            Some(_) => Err(DmaError::Unmapped(address)),
            None => access(),
        };
        self.report(result, address, length, kind)
    }

    /// Makes an access of as many bytes as a rule leaves of it.
    #[inline]
    fn divided(
        &self,
        address: u64,
        memory: &VolatileSlice<'_>,
        kind: Kind,
        access: impl FnOnce(&VolatileSlice<'_>) -> Result<(), DmaError>,
    ) -> Result<(), DmaError> {
        let result = match self.refused_at(address, memory.len(), kind != Kind::Read) {
            Some(bytes) => {
                let done = memory.subslice(0, bytes).map_or(Ok(()), |part| access(&part));
                done.and(Err(DmaError::Unmapped(address.saturating_add(bytes as u64))))
            }
            None => access(memory),
        };
        self.report(result, address, memory.len(), kind)
    }

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
        self.divided(address, target, Kind::Read, |target| self.session.read(address, target))
    }

    fn write(&self, address: u64, source: &VolatileSlice<'_>) -> Result<(), DmaError> {
        self.divided(address, source, Kind::Write, |source| self.session.write(address, source))
    }

    fn load_u32(&self, address: u64) -> Result<u32, DmaError> {
        self.whole(address, size_of::<u32>(), Kind::Read, || self.session.load_u32(address))
    }

    fn load_u64(&self, address: u64) -> Result<u64, DmaError> {
        self.whole(address, size_of::<u64>(), Kind::Read, || self.session.load_u64(address))
    }

    fn store_u32(&self, address: u64, value: u32) -> Result<(), DmaError> {
        self.whole(address, size_of::<u32>(), Kind::Write, || self.session.store_u32(address, value))
    }

    fn store_u64(&self, address: u64, value: u64) -> Result<(), DmaError> {
        self.whole(address, size_of::<u64>(), Kind::Write, || self.session.store_u64(address, value))
    }

    fn compare_exchange_u64(&self, address: u64, current: u64, new: u64) -> Result<Result<u64, u64>, DmaError> {
        let exchange = || self.session.compare_exchange_u64(address, current, new);
        self.whole(address, size_of::<u64>(), Kind::CompareAndSwap, exchange)
    }

    fn expect(&self, address: u64, purpose: Purpose) {
        self.session.expect(address, purpose);
    }
}
