// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where a field of an event stands in a record.
//!
//! A place is a constant that writes values of some types into [`Fields`] and reads them back. A record begins with all zero (but
//! for "no channel, no engine"), and the places of one event do not overlap. The place also decides whom the event
//! concerns: the number at [`CHANNEL`] is the event's channel.

mod memory;
mod notification;

use ersatz_abi::command::Cause;

use crate::trace::enumeration::Enumeration;
use crate::trace::fields::{Fields, NONE};
pub(super) use memory::{BOTH_ENDS, DESTINATION, INVALIDATION, PAGE_SIZE, SOURCE, TARGET};
pub(super) use notification::{ACCESS_RECORD, FAULT_RECORD};

/// Whom an event concerns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// The channel.
    pub channel: Option<u8>,
    /// The engine.
    pub engine: Option<u8>,
    /// The address space.
    pub asid: Option<u8>,
    /// Why the driver asked for it.
    pub cause: Option<Cause>,
}

/// A place for values of one type.
pub(super) trait FieldPlace<T> {
    /// Writes a value to a record in which nothing stands here yet.
    fn put(&self, value: T, fields: &mut Fields);

    /// Reads the value back; `None` if no such value stands here.
    fn get(&self, fields: &Fields) -> Option<T>;

    /// Adds what a value at this place means to whom the event concerns.
    #[inline]
    fn concern(&self, value: T, subject: &mut Subject) {
        let _ = (value, subject);
    }
}

/// Declares places that are 64-bit words, for numbers of any width.
macro_rules! words {
    ($($(#[$meta:meta])* $NAME:ident: $Type:ident = $field:ident;)*) => {$(
        $(#[$meta])*
        pub(super) const $NAME: $Type = $Type;
        #[doc = concat!("The type of [`", stringify!($NAME), "`].")]
        pub(super) struct $Type;

        impl<T: Into<u64> + TryFrom<u64>> FieldPlace<T> for $Type {
            #[inline]
            fn put(&self, value: T, fields: &mut Fields) {
                fields.$field = value.into();
            }

            #[inline]
            fn get(&self, fields: &Fields) -> Option<T> {
                fields.$field.try_into().ok()
            }
        }
    )*};
}

words! {
    /// The address, or the source.
    ADDRESS: AddressWord = address;
    /// The second address.
    SECOND: SecondWord = second;
    /// The length in bytes, or a count.
    LENGTH: LengthWord = length;
    /// What identifies: a fence value, a fault's number, a vector.
    ID: IdWord = id;
    /// The driver's own number.
    TAG: TagWord = tag;
}

/// The address space, which stands in the word of the tag.
pub(super) const ASID: Asid = Asid;
/// The type of [`ASID`].
pub(super) struct Asid;

impl FieldPlace<u8> for Asid {
    #[inline]
    fn put(&self, value: u8, fields: &mut Fields) {
        TAG.put(value, fields);
    }

    #[inline]
    fn get(&self, fields: &Fields) -> Option<u8> {
        TAG.get(fields)
    }

    #[inline]
    fn concern(&self, value: u8, subject: &mut Subject) {
        subject.asid = Some(value);
    }
}

/// The cause.
pub(super) const CAUSE: CauseByte = CauseByte;
/// The type of [`CAUSE`].
pub(super) struct CauseByte;

impl FieldPlace<Cause> for CauseByte {
    #[inline]
    fn put(&self, value: Cause, fields: &mut Fields) {
        fields.cause = value.number();
    }

    #[inline]
    fn get(&self, fields: &Fields) -> Option<Cause> {
        Cause::from_number(fields.cause)
    }

    #[inline]
    fn concern(&self, value: Cause, subject: &mut Subject) {
        subject.cause = Some(value);
    }
}

/// The channel; that of an event which may have none can be absent.
pub(super) const CHANNEL: Channel = Channel;
/// The type of [`CHANNEL`].
pub(super) struct Channel;

impl FieldPlace<u8> for Channel {
    #[inline]
    fn put(&self, value: u8, fields: &mut Fields) {
        fields.channel = value;
    }

    #[inline]
    fn get(&self, fields: &Fields) -> Option<u8> {
        Some(fields.channel)
    }

    #[inline]
    fn concern(&self, value: u8, subject: &mut Subject) {
        subject.channel = Some(value);
    }
}

impl FieldPlace<Option<u8>> for Channel {
    #[inline]
    fn put(&self, value: Option<u8>, fields: &mut Fields) {
        fields.channel = value.unwrap_or(NONE);
    }

    #[inline]
    fn get(&self, fields: &Fields) -> Option<Option<u8>> {
        Some((fields.channel != NONE).then_some(fields.channel))
    }

    #[inline]
    fn concern(&self, value: Option<u8>, subject: &mut Subject) {
        subject.channel = value;
    }
}

/// The engine.
pub(super) const ENGINE: Engine = Engine;
/// The type of [`ENGINE`].
pub(super) struct Engine;

impl FieldPlace<u8> for Engine {
    #[inline]
    fn put(&self, value: u8, fields: &mut Fields) {
        fields.engine = value;
    }

    #[inline]
    fn get(&self, fields: &Fields) -> Option<u8> {
        Some(fields.engine)
    }

    #[inline]
    fn concern(&self, value: u8, subject: &mut Subject) {
        subject.engine = Some(value);
    }
}

impl FieldPlace<Option<u8>> for Engine {
    #[inline]
    fn put(&self, value: Option<u8>, fields: &mut Fields) {
        fields.engine = value.unwrap_or(NONE);
    }

    #[inline]
    fn get(&self, fields: &Fields) -> Option<Option<u8>> {
        Some((fields.engine != NONE).then_some(fields.engine))
    }

    #[inline]
    fn concern(&self, value: Option<u8>, subject: &mut Subject) {
        subject.engine = value;
    }
}

/// Declares places that are some bits of a byte: for enumerations and small numbers.
macro_rules! bits {
    ($($(#[$meta:meta])* $NAME:ident: $Type:ident = $field:ident >> $shift:literal & $mask:literal;)*) => {$(
        $(#[$meta])*
        pub(super) const $NAME: $Type = $Type;
        #[doc = concat!("The type of [`", stringify!($NAME), "`].")]
        pub(super) struct $Type;

        impl<T: Enumeration> FieldPlace<T> for $Type {
            #[inline]
            fn put(&self, value: T, fields: &mut Fields) {
                fields.$field |= (value.number() & $mask) << $shift;
            }

            #[inline]
            fn get(&self, fields: &Fields) -> Option<T> {
                T::from_number((fields.$field >> $shift) & $mask)
            }
        }
    )*};
}

bits! {
    /// What depends on the kind.
    DETAIL: Detail = detail >> 0 & 0xff;
    /// The low half of it.
    DETAIL_LOW: DetailLow = detail >> 0 & 0xf;
    /// The high half of it.
    DETAIL_HIGH: DetailHigh = detail >> 4 & 0xf;
    /// All flags.
    FLAGS: Flags = flags >> 0 & 0xff;
    /// The first flag.
    FLAG_0: Flag0 = flags >> 0 & 1;
    /// The second flag.
    FLAG_1: Flag1 = flags >> 1 & 1;
    /// The low half of the flags.
    FLAGS_LOW: FlagsLow = flags >> 0 & 0xf;
    /// The high half of the flags.
    FLAGS_HIGH: FlagsHigh = flags >> 4 & 0xf;
    /// How it went, or why it did not.
    STATUS: Status = status >> 0 & 0xff;
}

/// A value that may be absent: a flag says whether it is there.
pub(super) struct Optional<F, P>(pub(super) F, pub(super) P);

impl<T: Default, F: FieldPlace<bool>, P: FieldPlace<T>> FieldPlace<Option<T>> for Optional<F, P> {
    #[inline]
    fn put(&self, value: Option<T>, fields: &mut Fields) {
        self.0.put(value.is_some(), fields);
        self.1.put(value.unwrap_or_default(), fields);
    }

    #[inline]
    fn get(&self, fields: &Fields) -> Option<Option<T>> {
        if self.0.get(fields)? { self.1.get(fields).map(Some) } else { Some(None) }
    }
}
