// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a device did between two steps of a scenario, in few lines.
//!
//! Pieces of copies that follow one another become one line for each direction and cause, and events that only carry a copy (doorbells, fences, interrupts)
//! none. All else is shown as `ersatz trace cat` shows it, in the order of the log.

use ersatz_abi::command::{Aperture, Cause, Location};
use ersatz_device_model::trace::{Event, Record, ResetSource};

use crate::cli::trace::describe;
use crate::cli::trace::units::bytes;

/// Kinds of events that say nothing about a scenario by themselves.
const UNREMARKABLE: &[&str] = &[
    "access",
    "bar-moved",
    "bus-master",
    "channel-disabled",
    "channel-enabled",
    "command-end",
    "command-start",
    "device-created",
    "device-dropped",
    "dma-map",
    "dma-unmap",
    "doorbell",
    "fence",
    "interrupt",
    "mark",
    "power-state",
    "register-write",
    "tlb-fill",
];

/// What happened on the device, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    /// Device clock in nanoseconds, at its first event.
    pub at_ns: u64,
    /// What happened.
    pub text: String,
}

/// Puts events together; [`Self::take`] the lines whenever something else comes between.
#[derive(Debug, Default)]
pub struct DeviceEvents {
    done: Vec<Happening>,
    /// Work that the next piece may belong to, one of each sort.
    open: Vec<Work>,
}

/// Pieces of work of one sort.
#[derive(Debug)]
struct Work {
    at_ns: u64,
    sort: Sort,
    bytes: u64,
}

/// What pieces of work must have in common to be put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sort {
    verb: &'static str,
    way: Option<(Aperture, Aperture)>,
    cause: Cause,
}

impl DeviceEvents {
    /// Adds the next event of the log.
    pub fn add(&mut self, record: &Record) {
        let Some(event) = record.event() else { return };
        if let Some((sort, bytes)) = work(&event) {
            match self.open.iter_mut().find(|work| work.sort == sort) {
                Some(work) => work.bytes = work.bytes.saturating_add(bytes),
                None => self.open.push(Work { at_ns: record.time, sort, bytes }),
            }
            return;
        }
        let name = event.kind().name();
        // The end of a command that failed is told by its channel's error; the machine resets its devices when it ends.
        if UNREMARKABLE.contains(&name) || matches!(event, Event::Reset { source: ResetSource::Conventional }) {
            return;
        }
        self.end_work();
        let channel = event.channel().map(|channel| format!(" of channel {channel}")).unwrap_or_default();
        let text = format!("{name}{channel}  {}", describe::text(&event));
        self.done.push(Happening { at_ns: record.time, text: text.trim_end().to_owned() });
    }

    /// Takes what has been put together so far.
    pub fn take(&mut self) -> Vec<Happening> {
        self.end_work();
        std::mem::take(&mut self.done)
    }

    fn end_work(&mut self) {
        self.done.extend(self.open.drain(..).map(|work| Happening { at_ns: work.at_ns, text: work.text() }));
    }
}

impl Work {
    fn text(&self) -> String {
        let Sort { verb, way, cause } = self.sort;
        let way = match way {
            Some((from, to)) if from == to => format!(" within {}", from.name()),
            Some((from, to)) => format!(" {} to {}", from.name(), to.name()),
            None => String::new(),
        };
        format!("{verb} {}{way} ({})", bytes(self.bytes), cause.name())
    }
}

/// The sort and the bytes of an event that is a piece of work.
fn work(event: &Event) -> Option<(Sort, u64)> {
    let aperture = |location: &Location| location.aperture;
    Some(match event {
        Event::Copy { cause, source, destination, length, .. } => {
            let way = Some((aperture(source), aperture(destination)));
            (Sort { verb: "copy", way, cause: *cause }, *length)
        }
        Event::Fill { cause, length, .. } => (Sort { verb: "fill", way: None, cause: *cause }, *length),
        Event::Digest { cause, length, .. } => (Sort { verb: "digest", way: None, cause: *cause }, *length),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use ersatz_abi::error::ErrorCode;
    use ersatz_device_model::trace::Kind;

    use super::*;

    fn record(sequence: u64, event: Event) -> Record {
        Record { sequence, time: sequence * 1000, fields: event.to_fields() }
    }

    fn copy(to_vram: bool) -> Event {
        let (memory, device) = (Location::system(0x1000), Location::vram(0x2000));
        let (source, destination) = if to_vram { (memory, device) } else { (device, memory) };
        let cause = if to_vram { Cause::MigrateToDevice } else { Cause::CpuFault };
        Event::Copy { channel: 0, engine: 0, cause, source, destination, length: 4096, tag: 0 }
    }

    fn texts(events: &[Event]) -> Vec<String> {
        let mut lines = DeviceEvents::default();
        (1..).zip(events).for_each(|(sequence, event)| lines.add(&record(sequence, *event)));
        lines.take().into_iter().map(|happening| happening.text).collect()
    }

    #[test]
    fn pieces_of_a_copy_are_one_line_whatever_carries_them() {
        let bell = Event::Doorbell { channel: 0, rings: 1 };
        assert_eq!(
            texts(&[bell, copy(true), bell, copy(false), copy(true)]),
            ["copy 8 KiB system to vram (migrate-to-device)", "copy 4 KiB vram to system (cpu-fault)"]
        );
    }

    #[test]
    fn what_ends_a_run_of_copies_is_between_its_lines() {
        let error = Event::ChannelError { channel: 3, error: ErrorCode::DmaRead, position: 0, entry: 0, address: 0x10 };
        let lines = texts(&[copy(true), error, copy(true)]);
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[1].starts_with("channel-error of channel 3  error "), "{lines:?}");
    }

    #[test]
    fn what_is_left_out_exists() {
        for name in UNREMARKABLE {
            assert!(Kind::from_name(name).is_some(), "{name}");
        }
    }
}
