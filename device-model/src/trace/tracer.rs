// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The one thing the device code sees of the log: [`Tracer::emit`].

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use super::event::Event;
use super::header::{Header, Identity};
use super::record::RECORD_WORDS;
use super::writer::{CreateError, Log};
use crate::clock::Clock;
use crate::dma::{MapAccess, MapObserver, MappedRegion};

/// Room for 16 Mi events: a log of at most 1 GiB.
pub const DEFAULT_CAPACITY: u64 = 16 << 20;

/// What a log is to be.
#[derive(Clone, Copy, Debug)]
pub struct TraceOptions {
    /// The device it belongs to.
    pub identity: Identity,
    /// Most events it keeps; the file grows up to 64 bytes for each. 1 to
    /// [`MAX_CAPACITY`](super::header::MAX_CAPACITY).
    pub capacity: u64,
}

impl TraceOptions {
    /// A log of [`DEFAULT_CAPACITY`].
    pub const fn new(identity: Identity) -> Self {
        Self { identity, capacity: DEFAULT_CAPACITY }
    }
}

/// Writes events, or does not. Clones share one log; the last one to go closes it.
#[derive(Clone, Default)]
pub struct Tracer {
    sink: Option<Arc<Sink>>,
    watch: Option<Watch>,
}

/// Sees each event that is emitted, whether or not it is written.
pub(crate) trait EventObserver: Send + Sync {
    /// An event has come about. Called from any thread, with locks of the device held: must not emit through the same tracer.
    fn observe(&self, event: &Event);
}

/// An observer, and whether it wants to see events at all.
#[derive(Clone)]
struct Watch {
    is_armed: Arc<AtomicBool>,
    observer: Arc<dyn EventObserver>,
}

struct Sink {
    log: Log,
    clock: Arc<dyn Clock>,
    device: u8,
}

impl Tracer {
    /// A tracer that writes nothing.
    pub const fn disabled() -> Self {
        Self { sink: None, watch: None }
    }

    /// The same tracer, with an observer that sees events while `is_armed` is set. A device without rules looks at that alone.
    pub(crate) fn observed(&self, is_armed: Arc<AtomicBool>, observer: Arc<dyn EventObserver>) -> Self {
        Self { sink: self.sink.clone(), watch: Some(Watch { is_armed, observer }) }
    }

    /// A tracer that writes to a new log at `path`; what was there is lost. `clock` is the device's own, which its
    /// TIMESTAMP register shows.
    ///
    /// # Errors
    ///
    /// Whatever [`CreateError`] lists.
    pub fn create(path: &Path, options: &TraceOptions, clock: Arc<dyn Clock>) -> Result<Self, CreateError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let epoch = u64::try_from(now).unwrap_or(u64::MAX).saturating_sub(clock.now());
        let header = Header {
            identity: options.identity,
            capacity: options.capacity,
            epoch,
            process: std::process::id(),
            abi_version: ersatz_abi::ABI_VERSION,
            claimed: 0,
            dropped: 0,
            closed: false,
        };
        let log = Log::create(path, &header)?;
        let sink = Sink { log, clock, device: options.identity.device };
        Ok(Self { sink: Some(Arc::new(sink)), watch: None })
    }

    /// Whether events go anywhere: to skip work that only the trace needs.
    #[inline]
    pub const fn enabled(&self) -> bool {
        self.sink.is_some()
    }

    /// The observer that writes the maps of a [`DmaSpace`](crate::dma::DmaSpace) to the log until the last tracer closes it;
    /// `None` for a tracer that writes nothing.
    pub fn map_observer(&self) -> Option<Weak<dyn MapObserver>> {
        let sink: Arc<dyn MapObserver> = self.sink.clone()?;
        Some(Arc::downgrade(&sink))
    }

    /// Writes an event, from any thread, without waiting for another.
    #[inline]
    pub fn emit(&self, event: Event) {
        if let Some(sink) = &self.sink {
            sink.write(&event);
        }
        if let Some(observer) = self.observer() {
            observer.observe(&event);
        }
    }

    /// Writes events of one moment, which then follow upon each other in the log. Cheaper than one by one.
    #[inline]
    pub fn emit_all(&self, events: impl ExactSizeIterator<Item = Event>) {
        if events.len() == 0 {
            return;
        }
        if self.observer().is_some() {
            return events.for_each(|event| self.emit(event));
        }
        if let Some(sink) = &self.sink {
            let now = sink.clock.now();
            sink.log.append_all(events, |event, sequence| sink.words(&event, sequence, now));
        }
    }
}

impl Tracer {
    /// The observer, if it wants to see events: one load.
    #[inline]
    fn observer(&self) -> Option<&dyn EventObserver> {
        let watch = self.watch.as_ref().filter(|watch| watch.is_armed.load(Ordering::Relaxed))?;
        Some(&*watch.observer)
    }
}

impl MapObserver for Sink {
    fn mapped(&self, region: &MappedRegion<'_>) {
        let writable = region.access == MapAccess::ReadWrite;
        self.write(&Event::DmaMap { address: region.address, length: region.length(), writable });
    }

    fn unmapped(&self, address: u64, length: u64, _regions: &[MappedRegion<'_>]) {
        self.write(&Event::DmaUnmap { address, length });
    }
}

impl Sink {
    #[inline(never)]
    fn write(&self, event: &Event) {
        // The time is taken when the slot is.
        self.log.append(|sequence| self.words(event, sequence, self.clock.now()));
    }

    #[inline]
    fn words(&self, event: &Event, sequence: u64, time: u64) -> [u64; RECORD_WORDS] {
        let mut fields = event.to_fields();
        fields.device = self.device;
        fields.to_words(sequence, time)
    }
}

impl std::fmt::Debug for Tracer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(if self.enabled() { "Tracer(on)" } else { "Tracer(off)" })
    }
}

#[cfg(test)]
mod tests;
