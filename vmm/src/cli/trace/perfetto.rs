// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The Trace Event format: what Perfetto and chrome://tracing read.
//!
//! A device is a process, each channel a thread of it, and thread 0 is for what belongs to no channel. Commands are slices,
//! with the pieces of work they did inside; all else are instants. The log has the end of each piece of work; it began no
//! earlier than what its channel did before, which is where its slice begins.

use std::collections::BTreeMap;
use std::io::{self, Write};

use ersatz_device_model::trace::{Event, Identity, Record};
use serde_json::{Map, Value as Json, json};

use super::describe;

/// The command a channel is executing.
struct Open {
    start: u64,
    event: Event,
}

/// What is known of a channel.
#[derive(Default)]
struct Track {
    open: Option<Open>,
    /// When the last piece of work ended.
    last: u64,
}

/// Writes one document.
pub struct Perfetto<'a, W: Write> {
    out: &'a mut W,
    any: bool,
    tracks: BTreeMap<(u8, u8), Track>,
    time: u64,
}

/// Where on the screen an event belongs.
#[derive(Clone, Copy)]
struct Row {
    device: u8,
    /// Zero: no channel; else one more than the channel.
    thread: u16,
}

impl Row {
    fn new(device: u8, channel: Option<u8>) -> Self {
        Self { device, thread: channel.map_or(0, |channel| u16::from(channel) + 1) }
    }

    fn object(self, phase: &str, name: &str) -> Map<String, Json> {
        let mut object = Map::new();
        for (key, value) in
            [("ph", json!(phase)), ("name", json!(name)), ("pid", json!(self.device)), ("tid", json!(self.thread))]
        {
            object.insert(key.to_owned(), value);
        }
        object
    }
}

/// The format counts in microseconds.
fn microseconds(nanoseconds: u64) -> Json {
    json!(nanoseconds as f64 / 1000.0)
}

impl<'a, W: Write> Perfetto<'a, W> {
    /// Begins the document.
    pub fn new(out: &'a mut W) -> io::Result<Self> {
        write!(out, "{{\"displayTimeUnit\":\"ns\",\"traceEvents\":[")?;
        Ok(Self { out, any: false, tracks: BTreeMap::new(), time: 0 })
    }

    /// Names a device.
    pub fn device(&mut self, identity: &Identity) -> io::Result<()> {
        let mut object = Row::new(identity.device, None).object("M", "process_name");
        object.insert("args".to_owned(), json!({ "name": format!("GPU {}", identity.device) }));
        self.put(object)
    }

    /// Writes what a record shows; `time` in nanoseconds from the first event of all.
    pub fn record(&mut self, record: &Record, time: u64) -> io::Result<()> {
        self.time = self.time.max(time);
        let device = record.fields.device;
        let Some(event) = record.event() else {
            let mut object = Row::new(device, None).object("i", "unknown");
            object.insert("args".to_owned(), describe::object(record, time));
            return self.instant(object, time);
        };
        let channel = event.channel();
        let place = Row::new(device, channel);
        if let (Some(channel), true) = (channel, ends_command(&event)) {
            self.close(device, channel, time)?;
        }
        match (event, channel) {
            (Event::CommandStart { .. }, Some(channel)) => {
                let track = self.track(device, channel)?;
                *track = Track { open: Some(Open { start: time, event }), last: time };
                Ok(())
            }
            (Event::CommandEnd { .. }, Some(_)) => Ok(()),
            (Event::Copy { .. } | Event::Fill { .. } | Event::Digest { .. }, Some(channel)) => {
                let track = self.track(device, channel)?;
                let start = if track.open.is_some() { track.last } else { time };
                track.last = time;
                self.slice(place, &event, start, time)
            }
            (Event::Reset { .. } | Event::DeviceDropped, _) => {
                let busy: Vec<u8> = self.tracks.keys().filter(|key| key.0 == device).map(|key| key.1).collect();
                for channel in busy {
                    self.close(device, channel, time)?;
                }
                self.event_instant(place, &event, time)
            }
            (_, Some(channel)) => {
                self.track(device, channel)?;
                self.event_instant(place, &event, time)
            }
            (_, None) => self.event_instant(place, &event, time),
        }
    }

    /// Ends the document; commands still under way end with it.
    pub fn finish(mut self) -> io::Result<()> {
        let busy: Vec<(u8, u8)> = self.tracks.keys().copied().collect();
        for (device, channel) in busy {
            self.close(device, channel, self.time)?;
        }
        writeln!(self.out, "\n]}}")
    }

    /// The track of a channel, which gets its name with its first event.
    fn track(&mut self, device: u8, channel: u8) -> io::Result<&mut Track> {
        if !self.tracks.contains_key(&(device, channel)) {
            let mut object = Row::new(device, Some(channel)).object("M", "thread_name");
            object.insert("args".to_owned(), json!({ "name": format!("channel {channel}") }));
            self.put(object)?;
        }
        Ok(self.tracks.entry((device, channel)).or_default())
    }

    /// The channel's command is over.
    fn close(&mut self, device: u8, channel: u8, time: u64) -> io::Result<()> {
        let open = self.tracks.get_mut(&(device, channel)).and_then(|track| track.open.take());
        open.map_or(Ok(()), |open| self.slice(Row::new(device, Some(channel)), &open.event, open.start, time))
    }

    fn slice(&mut self, place: Row, event: &Event, start: u64, end: u64) -> io::Result<()> {
        let mut object = place.object("X", &name(event));
        object.insert("ts".to_owned(), microseconds(start));
        object.insert("dur".to_owned(), microseconds(end.saturating_sub(start)));
        object.insert("args".to_owned(), arguments(event));
        self.put(object)
    }

    fn event_instant(&mut self, place: Row, event: &Event, time: u64) -> io::Result<()> {
        let mut object = place.object("i", &name(event));
        object.insert("args".to_owned(), arguments(event));
        self.instant(object, time)
    }

    fn instant(&mut self, mut object: Map<String, Json>, time: u64) -> io::Result<()> {
        object.insert("ts".to_owned(), microseconds(time));
        object.insert("s".to_owned(), json!("t"));
        self.put(object)
    }

    fn put(&mut self, object: Map<String, Json>) -> io::Result<()> {
        write!(self.out, "{}\n{}", if self.any { "," } else { "" }, Json::Object(object))?;
        self.any = true;
        Ok(())
    }
}

/// Whether the command under way on this event's channel is over with it.
fn ends_command(event: &Event) -> bool {
    matches!(
        event,
        Event::CommandStart { .. } | Event::CommandEnd { .. } | Event::ChannelError { .. } | Event::ChannelReset { .. }
    )
}

/// A command is called by what it does and why.
fn name(event: &Event) -> String {
    match event {
        Event::CommandStart { opcode, cause, .. } => format!("{} ({})", opcode.name(), cause.name()),
        Event::ChannelError { error, .. } => format!("error: {}", error.name()),
        _ => event.kind().name().to_owned(),
    }
}

fn arguments(event: &Event) -> Json {
    let mut object = Map::new();
    if let Some(cause) = event.cause() {
        object.insert("cause".to_owned(), json!(cause.name()));
    }
    describe::json(event, &mut object);
    Json::Object(object)
}
