// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The events of several logs in one order.

use std::iter::Peekable;

use ersatz_device_model::trace::{ReadError, Record, Records, TraceFile};

/// The records of several logs by time of day, in nanoseconds since 1970; those of one log stay in their order.
pub struct Merge<'a>(Vec<(u64, Peekable<Records<'a>>)>);

impl<'a> Merge<'a> {
    /// From the beginning of each log.
    pub fn new(files: &'a [TraceFile]) -> Self {
        Self(files.iter().map(|file| (file.header().epoch, file.records().peekable())).collect())
    }

    /// The time of the earliest head.
    pub fn start(&mut self) -> Option<u64> {
        self.heads().min().map(|(time, _)| time)
    }

    /// Time and index of each log that has more events; a log that cannot be read comes first, so that its error does.
    fn heads(&mut self) -> impl Iterator<Item = (u64, usize)> + '_ {
        self.0.iter_mut().enumerate().filter_map(|(index, (epoch, records))| {
            records.peek().map(|head| (head.as_ref().map_or(0, |record| epoch.saturating_add(record.time)), index))
        })
    }
}

impl Iterator for Merge<'_> {
    type Item = Result<(u64, Record), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (time, index) = self.heads().min()?;
        let (_, records) = self.0.get_mut(index)?;
        records.next().map(|record| record.map(|record| (time, record)))
    }
}
