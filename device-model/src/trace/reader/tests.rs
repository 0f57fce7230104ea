// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Logs that are whole, torn, cut short, or no logs at all.

use std::error::Error as _;

use proptest::prelude::*;

use super::*;
use crate::trace::{Event, Identity};

fn header(claimed: u64, closed: bool) -> Header {
    Header {
        identity: Identity::default(),
        capacity: 5000,
        epoch: 0,
        process: 1,
        abi_version: 0,
        claimed,
        dropped: 0,
        closed,
    }
}

fn log(header: &Header, sequences: &[u64]) -> Vec<u8> {
    let mut bytes = header.encode().to_vec();
    for &sequence in sequences {
        let words = Event::Mark { value: sequence * 10 }.to_fields().to_words(sequence, sequence);
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    }
    bytes
}

fn sequences(bytes: Vec<u8>) -> Vec<u64> {
    let file = TraceFile::from_bytes(bytes).unwrap();
    file.records().map(|record| record.unwrap().sequence).collect()
}

#[test]
fn reads_across_batches_in_order() {
    let all: Vec<u64> = (1..=2500).collect();
    assert_eq!(sequences(log(&header(2500, true), &all)), all);
    assert_eq!(sequences(log(&header(2500, false), &all)), all);
}

#[test]
fn slots_that_were_not_published_are_skipped() {
    assert_eq!(sequences(log(&header(4, false), &[1, 0, 3, 0])), [1, 3]);
}

#[test]
fn a_record_in_the_wrong_place_is_not_believed() {
    assert_eq!(sequences(log(&header(4, true), &[1, 7, 2, 4])), [1, 4]);
}

#[test]
fn a_cut_file_ends_at_its_last_whole_record() {
    let mut bytes = log(&header(3, true), &[1, 2, 3]);
    bytes.pop();
    assert_eq!(sequences(bytes), [1, 2]);
}

#[test]
fn claims_beyond_the_capacity_read_nothing_more() {
    let mut full = header(u64::MAX, false);
    full.capacity = 2;
    assert_eq!(sequences(log(&full, &[1, 2, 3])), [1, 2]);
}

#[test]
fn what_is_no_log_is_refused_with_a_reason() {
    let text = |bytes: Vec<u8>| {
        let error = TraceFile::from_bytes(bytes).err().unwrap();
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        format!("{error}: {cause}")
    };
    assert!(text(vec![1; 10]).contains("10 bytes"));
    assert!(text(vec![0; HEADER_BYTES]).contains("does not begin"));
    let mut newer = log(&header(0, true), &[]);
    newer[8] = 9;
    assert!(text(newer).contains("version 9"));
    let mut vast = header(0, true);
    vast.capacity = u64::MAX;
    assert!(text(log(&vast, &[])).contains("damaged"));
    assert!(matches!(TraceFile::open(Path::new("/")), Err(ReadError::NotAFile(_))));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..9000)) {
        if let Ok(file) = TraceFile::from_bytes(bytes) {
            for record in file.records() {
                let _ = record.unwrap().event();
            }
        }
    }

    #[test]
    fn any_records_behind_a_good_header_are_read_or_skipped(
        claimed in any::<u64>(),
        closed in any::<bool>(),
        records in proptest::collection::vec(any::<u8>(), 0..9000),
    ) {
        let room = records.len() as u64 / 64;
        let mut bytes = header(claimed, closed).encode().to_vec();
        bytes.extend(records);
        let file = TraceFile::from_bytes(bytes).unwrap();
        let mut last = 0;
        for record in file.records() {
            let record = record.unwrap();
            prop_assert!(record.sequence > last && record.sequence <= room);
            last = record.sequence;
            let _ = record.event();
        }
    }

    #[test]
    fn any_fields_that_are_an_event_are_that_event_again(
        words in proptest::array::uniform8(any::<u64>()),
        kind in 0u8..96,
        small in proptest::array::uniform4(0u8..8),
    ) {
        let mut record = Record::from_words(&words);
        record.fields.kind = kind;
        [record.fields.detail, record.fields.flags, record.fields.cause, record.fields.status] = small;
        if let Some(event) = record.event() {
            prop_assert_eq!(Event::from_fields(&event.to_fields()), Some(event));
            prop_assert_eq!(event.kind().number(), kind);
        }
    }
}
