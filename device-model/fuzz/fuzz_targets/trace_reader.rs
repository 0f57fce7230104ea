// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Any file as a trace log: read or refused, and summed up and checked without a panic. What is read is an event again when
//! it is written again.
#![no_main]

use arbitrary::Arbitrary;
use ersatz_device_model::trace::check::Checker;
use ersatz_device_model::trace::{Event, Header, Identity, Summary, TraceFile};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Input {
    /// Anything.
    Raw(Vec<u8>),
    /// A good header in front of anything.
    Records { claimed: u16, dropped: u8, closed: bool, records: Vec<u8> },
    /// Records in their places, with fields of any kind.
    Placed { closed: bool, records: Vec<Placed> },
}

#[derive(Arbitrary, Debug)]
struct Placed {
    published: bool,
    /// Small numbers, as a real record has them: kind, detail, flags, cause, status, channel.
    small: [u8; 6],
    time: u32,
    words: [u64; 5],
}

fn header(claimed: u64, dropped: u64, closed: bool) -> Vec<u8> {
    let identity = Identity { device: 0, vram: 1 << 30, channels: 2, copy_engines: 1 };
    let header = Header { identity, capacity: 1 << 20, epoch: 0, process: 1, abi_version: 0, claimed, dropped, closed };
    header.encode().to_vec()
}

impl Placed {
    fn bytes(&self, sequence: u64) -> impl Iterator<Item = u8> {
        let [kind, detail, flags, cause, status, channel] = self.small;
        let packed = [kind % 52, detail, flags % 4, cause % 8, status % 17, channel % 3, 0, 0];
        let [address, second, length, id, tag] = self.words;
        let sequence = if self.published { sequence } else { 0 };
        let words = [sequence, self.time.into(), u64::from_le_bytes(packed), address, second, length, id, tag];
        words.into_iter().flat_map(u64::to_le_bytes)
    }
}

fn bytes(input: Input) -> Vec<u8> {
    match input {
        Input::Raw(bytes) => bytes,
        Input::Records { claimed, dropped, closed, records } => {
            let mut bytes = header(claimed.into(), dropped.into(), closed);
            bytes.extend(records);
            bytes
        }
        Input::Placed { closed, records } => {
            let mut bytes = header(records.len() as u64, 0, closed);
            bytes.extend((1..).zip(&records).flat_map(|(sequence, record)| record.bytes(sequence)));
            bytes
        }
    }
}

fuzz_target!(|input: Input| {
    let Ok(file) = TraceFile::from_bytes(bytes(input)) else { return };
    let mut last = 0;
    let mut count = 0;
    for record in file.records() {
        let record = record.expect("memory can be read");
        assert!(record.sequence > last);
        last = record.sequence;
        count += 1;
        if let Some(event) = record.event() {
            assert_eq!(Event::from_fields(&event.to_fields()), Some(event));
        }
    }
    let summary = Summary::of(&file).expect("memory can be read");
    assert_eq!(summary.records, count);
    assert!(summary.active <= summary.duration().saturating_mul(count));
    assert_eq!(Checker::check(&file).expect("memory can be read").records, count);
});
