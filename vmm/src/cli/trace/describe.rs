// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! How the fields that an event shows are written, as text and as JSON. Which these are is part of the event's definition
//! (`ersatz_device_model::trace::event`).

use ersatz_abi::command::{Aperture, Location};
use ersatz_device_model::trace::event::Value;
use ersatz_device_model::trace::{Event, Record};
use serde_json::{Map, Value as Json, json};

use super::units;

/// A value for people.
fn value_text(value: Value) -> String {
    match value {
        Value::Address(address) => format!("{address:#x}"),
        // Padded, so that the columns of successive copies line up.
        Value::Location(Location { aperture: Aperture::Peer, peer, address }) => format!("peer {peer}:{address:#014x}"),
        Value::Location(Location { aperture, address, .. }) => format!("{:>6}:{address:#014x}", aperture.name()),
        Value::Number(number) => number.to_string(),
        Value::Bytes(bytes) => units::bytes(bytes),
        Value::Name(name) => name.to_owned(),
        Value::Flag(flag) => (if flag { "yes" } else { "no" }).to_owned(),
    }
}

/// A value for programs: addresses as strings, because many JSON readers round large numbers.
fn value_json(value: Value) -> Json {
    match value {
        Value::Address(address) => json!(format!("{address:#x}")),
        Value::Location(Location { aperture: Aperture::Peer, peer, address }) => {
            json!({ "aperture": Aperture::Peer.name(), "peer": peer, "address": format!("{address:#x}") })
        }
        Value::Location(Location { aperture, address, .. }) => {
            json!({ "aperture": aperture.name(), "address": format!("{address:#x}") })
        }
        Value::Number(number) | Value::Bytes(number) => json!(number),
        Value::Name(name) => json!(name),
        Value::Flag(flag) => json!(flag),
    }
}

/// The fields in one line of text.
pub fn text(event: &Event) -> String {
    let parts: Vec<String> =
        event.shown().into_iter().map(|(name, value)| format!("{name} {}", value_text(value))).collect();
    parts.join("  ")
}

/// The fields as members of a JSON object.
pub fn json(event: &Event, object: &mut Map<String, Json>) {
    for (name, value) in event.shown() {
        object.insert(name.replace('-', "_"), value_json(value));
    }
}

/// A whole record as a JSON object; `time` in nanoseconds from the first event of all; `timestamp_ns` is that of the device's
/// clock (`TIMESTAMP`).
pub fn object(record: &Record, time: u64) -> Json {
    let mut object = Map::new();
    object.insert("sequence".to_owned(), json!(record.sequence));
    object.insert("time_ns".to_owned(), json!(time));
    object.insert("timestamp_ns".to_owned(), json!(record.time));
    object.insert("device".to_owned(), json!(record.fields.device));
    match record.event() {
        Some(event) => {
            object.insert("kind".to_owned(), json!(event.kind().name()));
            if let Some(channel) = event.channel() {
                object.insert("channel".to_owned(), json!(channel));
            }
            if let Some(cause) = event.cause() {
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

#[cfg(test)]
mod tests {
    use ersatz_device_model::trace::{Fields, Kind};

    use super::*;

    #[test]
    fn every_kind_has_its_text_and_its_object() {
        for &kind in Kind::ALL {
            // Pages have a size, and most invalidations have none. Some codes begin at 1.
            let values = [(0, 0), (4096, 0), (0, 1)];
            let fields =
                values.map(|(length, code)| Fields { length, detail: code, status: code, ..Fields::new(kind) });
            let records = fields.map(|fields| Record { sequence: 1, time: 2, fields });
            let record = records.iter().find(|record| record.event().is_some());
            let record = record.unwrap_or_else(|| panic!("none of these is a {}", kind.name()));
            let object = object(record, 2);
            assert_eq!(object["kind"], kind.name());
            let event = record.event().expect("the one just found");
            for (name, _) in event.shown() {
                assert!(object.get(name.replace('-', "_")).is_some(), "{}: {name}", kind.name());
                assert!(text(&event).contains(name), "{}: {name}", kind.name());
            }
        }
    }
}
