// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The table of events of memory that the host demands back from the driver (`crate::demand`).

use ersatz_abi::command::Location;

use super::place::*;

events! {
    /// One event of memory that is demanded, handed over or returned.
    pub enum MemoryEvent {
        /// The host demands memory.
        Demanded = 112, "memory-demanded" {
            /// The demand's number.
            number: u64 => ID, "demand": number;
            /// Where.
            range: Location => TARGET, "range": location, covers length;
            /// Length of the range.
            length: u64 => LENGTH, "length": bytes;
            /// How much of it.
            bytes: u64 => ADDRESS, "bytes": bytes;
            /// How long the driver has for its answer, in nanoseconds.
            deadline: u64 => TAG, "deadline-ns": number;
        }
        /// The driver has handed over memory: no engine accesses it any more.
        HandedOver = 113, "memory-handed-over" {
            /// The first page.
            page: Location => TARGET, "page": location, covers length;
            /// Number of bytes.
            length: u64 => LENGTH, "length": bytes;
        }
        /// The driver has answered a demand.
        Answered = 114, "demand-answered" {
            /// The demand's number.
            number: u64 => ID, "demand": number;
            /// How much of what was demanded has been handed over.
            given: u64 => LENGTH, "given": bytes;
        }
        /// A demand has ended without an answer.
        Expired = 115, "demand-expired" {
            /// The demand's number.
            number: u64 => ID, "demand": number;
            /// How much of what was demanded has been handed over.
            given: u64 => LENGTH, "given": bytes;
            /// How long the driver had for its answer, in nanoseconds.
            deadline: u64 => TAG, "deadline-ns": number;
        }
        /// The host has returned memory to the driver; it is zero.
        Returned = 116, "memory-returned" {
            /// The first page.
            page: Location => TARGET, "page": location, covers length;
            /// Number of bytes.
            length: u64 => LENGTH, "length": bytes;
        }
    }
}
