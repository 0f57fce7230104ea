// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which events are wanted.

mod memory;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use ersatz_abi::command::Cause;
use ersatz_device_model::trace::{Event, Kind, Record};

use super::range::{self, Range};

/// Several values of one option are alternatives; several options must all match.
#[derive(Debug, Args)]
pub struct Filter {
    /// Only events of these kinds
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = kinds(), hide_possible_values = true)]
    kind: Vec<Kind>,
    /// Only work for these causes
    #[arg(long, value_name = "CAUSE", value_delimiter = ',', value_parser = causes(), hide_possible_values = true)]
    cause: Vec<Cause>,
    /// Only events of these channels
    #[arg(long, value_name = "NUMBER", value_delimiter = ',')]
    channel: Vec<u8>,
    /// Only events of these address spaces
    #[arg(long, value_name = "NUMBER", value_delimiter = ',')]
    asid: Vec<u8>,
    /// Only events about these addresses, in any aperture, virtual, or as the tag: 0x1000..0x3000, 0x1000+8K or 0x1000
    #[arg(long, value_name = "RANGE", value_parser = range::addresses)]
    address: Option<Range>,
    /// Only events in this time from the first one on: 1.5ms..2s, ..10us or 3s..
    #[arg(long, value_name = "FROM..TO", value_parser = range::times)]
    time: Option<Range>,
}

fn kinds() -> impl TypedValueParser<Value = Kind> {
    PossibleValuesParser::new(Kind::ALL.iter().map(|kind| kind.name()))
        .try_map(|name| Kind::from_name(&name).ok_or("no such kind"))
}

fn causes() -> impl TypedValueParser<Value = Cause> {
    PossibleValuesParser::new(Cause::ALL.iter().map(|cause| cause.name()))
        .try_map(|name| Cause::ALL.iter().copied().find(|cause| cause.name() == name).ok_or("no such cause"))
}

impl Filter {
    /// Whether a record is wanted; `time` is its time in nanoseconds from the first one on.
    pub fn wants(&self, record: &Record, time: u64) -> bool {
        let event = record.event();
        let event = event.as_ref();
        let is_one_of = |wanted: &[u8], number: Option<u8>| number.is_some_and(|number| wanted.contains(&number));
        (self.kind.is_empty() || record.kind().is_some_and(|kind| self.kind.contains(&kind)))
            && (self.cause.is_empty() || event.and_then(cause).is_some_and(|cause| self.cause.contains(&cause)))
            && (self.channel.is_empty() || is_one_of(&self.channel, event.and_then(Event::channel)))
            && (self.asid.is_empty() || is_one_of(&self.asid, event.and_then(Event::asid)))
            && self.time.is_none_or(|range| range.contains(time))
            && self.address.is_none_or(|range| event.is_some_and(|event| is_about(event, range)))
    }
}

/// Why something was done, for kinds that have a cause.
pub fn cause(event: &Event) -> Option<Cause> {
    match *event {
        Event::CommandStart { cause, .. }
        | Event::CommandEnd { cause, .. }
        | Event::Copy { cause, .. }
        | Event::Fill { cause, .. }
        | Event::Digest { cause, .. } => Some(cause),
        _ => None,
    }
}

/// Whether an event is about memory in the range.
fn is_about(event: &Event, range: Range) -> bool {
    let touches = |start, length| range.touches(start, length);
    match *event {
        Event::Copy { source, destination, length, tag, .. } => {
            touches(source.address, length) || touches(destination.address, length) || touches(tag, length)
        }
        Event::Fill { destination, length, tag, .. } => touches(destination.address, length) || touches(tag, length),
        Event::Digest { source, destination, length, tag, .. } => {
            touches(source.address, length) || touches(destination.address, 8) || touches(tag, length)
        }
        Event::CommandStart { address, tag, .. } => range.contains(address) || range.contains(tag),
        Event::CommandEnd { tag, .. } => range.contains(tag),
        Event::Fence { address, .. } | Event::ChannelError { address, .. } => range.contains(address),
        Event::BarMoved { address: Some(address), size, .. } => touches(address, size),
        Event::DmaMap { address, length, .. } | Event::DmaUnmap { address, length } => touches(address, length),
        Event::ChannelEnabled { ring, control_block, .. } => range.contains(ring) || range.contains(control_block),
        Event::BadAccess { offset, .. } => range.contains(offset),
        Event::RegisterWrite { offset, .. } => range.contains(offset.into()),
        Event::Mmu(event) => memory::is_about_mmu(&event, range),
        Event::Notification(event) => memory::is_about_notification(&event, range),
        Event::BarMoved { address: None, .. }
        | Event::DeviceCreated { .. }
        | Event::DeviceDropped
        | Event::Reset { .. }
        | Event::BusMaster { .. }
        | Event::PowerState { .. }
        | Event::Mark { .. }
        | Event::ChannelDisabled { .. }
        | Event::ChannelReset { .. }
        | Event::Doorbell { .. }
        | Event::Interrupt { .. } => false,
    }
}
