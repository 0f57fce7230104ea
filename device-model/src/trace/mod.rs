// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The trace log: everything the device sees and does, in a file that survives a crash of the process that writes it.
//!
//! The device calls [`Tracer::emit`] with an [`Event`]; the `ersatz trace` tool and the tests read the file back with
//! [`TraceFile`]. One file belongs to one device. [`event`] defines the events.
//!
//! # The file
//!
//! A header page ([`header`]), then slots of [`RECORD_BYTES`] bytes, each written once ([`record`] has the layout).
//! Slot *n* holds the record with sequence number *n* + 1. All numbers are little-endian.
//!
//! # Writing
//!
//! The file is mapped shared, so a record is in the page cache the moment it is stored: nothing is buffered in the
//! process, and nothing is lost when it is killed. A thread claims a slot, or some in a row, by one atomic addition in the header,
//! stores the payload, and publishes it by a release store of the sequence number ([`slots`]). No thread ever waits
//! for another.
//!
//! Disk blocks are allocated a [`CHUNK_BYTES`] chunk at a time before a slot in them is touched ([`space`]), so a full disk cannot
//! turn a store into SIGBUS. Chunks left behind are unmapped again, so a long log does not grow the process.
//!
//! What finds no slot (the capacity is used up, the disk is full) is counted in the header; the claims tell the rest,
//! so that `kept + dropped + never published = claimed` always holds.
//!
//! # Reading
//!
//! A slot whose sequence number is not the one its place asks for was claimed but never published (its writer was
//! killed, or is about to publish) and is skipped; the gap shows in the sequence numbers. The reader looks at the
//! sequence numbers of a batch first and at its payloads after, so a slot published in between is skipped and never
//! torn. Headers and records are hostile input: sizes are bounded, unknown kinds are passed on undecoded.
//!
//! [`summary`] adds up what a log says, [`check`] holds it against the protocol, [`filter`] selects events.
//!
//! # Time
//!
//! An event's times are those of the device's TIMESTAMP register; the header has what to add for the time of day, which
//! lines up the files of several devices and of the host. List entries that an engine finished in one piece of its work have
//! the same time, that of the end of the piece.

pub mod check;
mod enumeration;
pub mod event;
pub mod fields;
pub mod filter;
pub mod header;
mod injection;
pub mod kind;
pub mod kinds;
pub(crate) mod nearest;
pub mod range;
pub mod reader;
pub mod record;
pub mod slots;
pub mod space;
pub mod summary;
pub mod tracer;
pub mod writer;

pub use enumeration::{InterruptOutcome, Loss, ResetSource};
pub use event::{Event, InjectionEvent, MemoryEvent, MmuEvent, NotificationEvent};
pub use fields::Fields;
pub use filter::Filter;
pub use header::{Header, Identity};
pub use injection::{ActionKind, HoldEnd, Step};
pub use kind::Kind;
pub use reader::{ReadError, Records, TraceFile};
pub use record::{RECORD_BYTES, Record};
pub use space::CHUNK_BYTES;
pub use summary::Summary;
pub use tracer::{TraceOptions, Tracer};
pub use writer::CreateError;
