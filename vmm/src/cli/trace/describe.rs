// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What an event shows: its fields with their names, once, for text and for JSON.

mod memory;
mod register;

use ersatz_abi::command::{Aperture, Location, Opcode};
use ersatz_device_model::trace::{Event, Record};
use serde_json::{Map, Value as Json, json};

use super::{filter, units};

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// An address or a tag: hexadecimal.
    Address(u64),
    /// An address in an aperture.
    Place(Location),
    /// A plain number.
    Number(u64),
    /// An amount of memory.
    Bytes(u64),
    /// A name.
    Name(&'static str),
    /// Yes or no.
    Flag(bool),
}

/// The fields of an event, in the order they are shown; channel, engine and cause have columns of their own.
pub fn fields(event: &Event) -> Vec<(&'static str, Value)> {
    use Value::{Address, Bytes, Flag, Name, Number, Place};
    match *event {
        Event::DeviceCreated { vram } => vec![("vram", Bytes(vram))],
        Event::DeviceDropped | Event::ChannelDisabled { .. } | Event::ChannelReset { .. } => vec![],
        Event::Doorbell { rings, .. } => vec![("rings", Number(rings))],
        Event::Reset { source } => vec![("source", Name(source.name()))],
        Event::BusMaster { enabled } => vec![("enabled", Flag(enabled))],
        Event::PowerState { state } => vec![("d", Number(state.into()))],
        Event::BarMoved { bar, address, size } => {
            let mut fields = vec![("bar", Number(bar.into())), ("size", Bytes(size))];
            fields.push(address.map_or(("decodes", Flag(false)), |address| ("address", Address(address))));
            fields
        }
        Event::RegisterWrite { offset, value, .. } => {
            let mut fields = vec![("offset", Address(offset.into())), ("value", Address(value))];
            fields.extend(register::name(offset).map(|name| ("register", Name(name))));
            fields
        }
        Event::BadAccess { bar, offset, width, write } => {
            vec![
                ("bar", Number(bar.into())),
                ("offset", Address(offset)),
                ("width", Number(width)),
                ("write", Flag(write)),
            ]
        }
        Event::Mark { value } => vec![("value", Address(value))],
        Event::ChannelEnabled { ring, control_block, commands, vector, .. } => vec![
            ("ring", Address(ring)),
            ("control-block", Address(control_block)),
            ("commands", Number(commands)),
            ("vector", Number(vector.into())),
        ],
        Event::ChannelError { error, position, entry, address, .. } => vec![
            ("error", Name(error.name())),
            ("position", Number(position.into())),
            ("entry", Number(entry.into())),
            ("address", Address(address)),
        ],
        Event::CommandStart { position, opcode, count, address, fence, interrupt, tag, .. } => {
            let mut fields = vec![("opcode", Name(opcode.name())), ("position", Number(position.into()))];
            fields.extend(match opcode {
                Opcode::Nop | Opcode::Copy | Opcode::Fill | Opcode::Digest => {
                    [("entries", Number(count)), ("list", Address(address))]
                }
                Opcode::Chase | Opcode::RandomUpdate => [("address", Address(address)), ("count", Number(count))],
                _ => [("address", Address(address)), ("length", Bytes(count))],
            });
            fields.extend(fence.map(|value| ("fence", Number(value))));
            fields.push(("interrupt", Flag(interrupt)));
            fields.push(("tag", Address(tag)));
            fields
        }
        Event::CommandEnd { position, opcode, error, bytes, tag, .. } => vec![
            ("opcode", Name(opcode.name())),
            ("position", Number(position.into())),
            ("error", Name(error.name())),
            ("bytes", Bytes(bytes)),
            ("tag", Address(tag)),
        ],
        Event::Copy { source, destination, length, tag, .. } => {
            vec![("from", Place(source)), ("to", Place(destination)), ("bytes", Bytes(length)), ("tag", Address(tag))]
        }
        Event::Fill { destination, length, pattern, tag, .. } => {
            vec![
                ("to", Place(destination)),
                ("bytes", Bytes(length)),
                ("pattern", Address(pattern)),
                ("tag", Address(tag)),
            ]
        }
        Event::Digest { source, destination, length, digest, tag, .. } => vec![
            ("from", Place(source)),
            ("to", Place(destination)),
            ("bytes", Bytes(length)),
            ("digest", Address(digest.into())),
            ("tag", Address(tag)),
        ],
        Event::Fence { value, address, .. } => vec![("value", Number(value)), ("address", Address(address))],
        Event::Interrupt { vector, outcome, .. } => {
            vec![("vector", Number(vector.into())), ("outcome", Name(outcome.name()))]
        }
        Event::DmaMap { address, length, writable } => {
            vec![("address", Address(address)), ("length", Bytes(length)), ("writable", Flag(writable))]
        }
        Event::DmaUnmap { address, length } => vec![("address", Address(address)), ("length", Bytes(length))],
        Event::Mmu(event) => memory::mmu(&event),
        Event::Notification(event) => memory::notification(&event),
    }
}

impl Value {
    /// The value for people.
    pub fn text(self) -> String {
        match self {
            Self::Address(address) => format!("{address:#x}"),
            // Padded, so that the columns of successive copies line up.
            Self::Place(Location { aperture: Aperture::Peer, peer, address }) => format!("peer {peer}:{address:#014x}"),
            Self::Place(Location { aperture, address, .. }) => format!("{:>6}:{address:#014x}", aperture.name()),
            Self::Number(number) => number.to_string(),
            Self::Bytes(bytes) => units::bytes(bytes),
            Self::Name(name) => name.to_owned(),
            Self::Flag(flag) => (if flag { "yes" } else { "no" }).to_owned(),
        }
    }

    /// The value for programs: addresses as strings, because many JSON readers round large numbers.
    pub fn json(self) -> Json {
        match self {
            Self::Address(address) => json!(format!("{address:#x}")),
            Self::Place(Location { aperture: Aperture::Peer, peer, address }) => {
                json!({ "aperture": Aperture::Peer.name(), "peer": peer, "address": format!("{address:#x}") })
            }
            Self::Place(Location { aperture, address, .. }) => {
                json!({ "aperture": aperture.name(), "address": format!("{address:#x}") })
            }
            Self::Number(number) | Self::Bytes(number) => json!(number),
            Self::Name(name) => json!(name),
            Self::Flag(flag) => json!(flag),
        }
    }
}

/// The fields in one line of text.
pub fn text(event: &Event) -> String {
    let parts: Vec<String> =
        fields(event).into_iter().map(|(name, value)| format!("{name} {}", value.text())).collect();
    parts.join("  ")
}

/// The fields as members of a JSON object.
pub fn json(event: &Event, object: &mut Map<String, Json>) {
    for (name, value) in fields(event) {
        object.insert(name.replace('-', "_"), value.json());
    }
}

/// A whole record as a JSON object; `time` in nanoseconds from the first event of all.
pub fn object(record: &Record, time: u64) -> Json {
    let mut object = Map::new();
    object.insert("sequence".to_owned(), json!(record.sequence));
    object.insert("time_ns".to_owned(), json!(time));
    object.insert("device".to_owned(), json!(record.fields.device));
    match record.event() {
        Some(event) => {
            object.insert("kind".to_owned(), json!(event.kind().name()));
            if let Some(channel) = event.channel() {
                object.insert("channel".to_owned(), json!(channel));
            }
            if let Some(cause) = filter::cause(&event) {
                object.insert("cause".to_owned(), json!(cause.name()));
            }
            self::json(&event, &mut object);
        }
        None => {
            object.insert("kind".to_owned(), json!("unknown"));
            let words = record.fields.to_words(record.sequence, record.time).map(|word| format!("{word:#x}"));
            object.insert("words".to_owned(), json!(words));
        }
    }
    Json::Object(object)
}
