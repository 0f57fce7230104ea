// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `events!`: the language in which events are defined.
//!
//! ```text
//! /// One list entry was copied.
//! Copy = 34, "copy" {
//!     /// The channel.
//!     channel: u8 => CHANNEL;
//!     /// From where.
//!     source: Location => SOURCE, "from": location, covers length;
//!     /// Number of bytes.
//!     length: u64 => LENGTH, "bytes": bytes;
//! }
//! ```
//!
//! An event has a variant, the number that stands for its kind in a record, and the name of its kind. A field has a type and a
//! [place](super::place) in the record, which is also what makes it the event's channel, engine, address space or cause.
//! Behind that stand, each if there is one and in this order:
//!
//! - `"LABEL": UNIT`: the name of the field in text and JSON, and the function of [`value`](super::value) that makes its
//!   [`Value`](super::Value). Fields are printed in the order of their definition; channel, engine and cause have columns of
//!   their own, and need no label.
//! - `shown EXPRESSION`: further labels and values, for what depends on several fields.
//! - `covers LENGTH`: the field is an address, and the event is about this many bytes from there on.
//! - `about EXPRESSION`: further [ranges](crate::trace::range::Range) that the event is about.
//!
//! Expressions may use every field of the event, and what the table imports. A field must have a place, so every event can be written and read back; all
//! else is optional.

/// Defines an enumeration of events, and all that follows from the definition.
macro_rules! events {
    (
        $(#[$meta:meta])*
        pub enum $Events:ident {
            $(
                $(#[$event_meta:meta])*
                $Event:ident = $number:literal, $name:literal $({
                    $(
                        $(#[$field_meta:meta])*
                        $field:ident: $Type:ty => $place:expr
                            $(, $label:literal: $unit:ident)?
                            $(, shown $shown:expr)?
                            $(, covers $length:expr)?
                            $(, about $about:expr)?
                        ;
                    )*
                })?
            )*
        }
        $(groups {
            $(
                $(#[$group_meta:meta])*
                $Group:ident($Inner:ident);
            )*
        })?
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $Events {
            $(
                $(#[$event_meta])*
                $Event $({ $($(#[$field_meta])* $field: $Type,)* })?,
            )*
            $($(
                $(#[$group_meta])*
                $Group($Inner),
            )*)?
        }

        #[allow(unused_variables, unused_mut, reason = "few events need all of their fields for everything")]
        impl $Events {
            /// The kinds of these events, and those of each group of events among them.
            pub(in crate::trace) const KINDS: &'static [&'static [$crate::trace::Kind]] = &[
                &[$($crate::trace::Kind::new($number, $name),)*],
                $($($Inner::KINDS[0],)*)?
            ];

            /// The kind of this event.
            #[inline]
            pub const fn kind(&self) -> $crate::trace::Kind {
                match self {
                    $(Self::$Event { .. } => $crate::trace::Kind::new($number, $name),)*
                    $($(Self::$Group(event) => event.kind(),)*)?
                }
            }

            /// The fields of the record that stands for this event (the device number is the writer's to fill in).
            #[inline]
            pub fn to_fields(&self) -> $crate::trace::Fields {
                use $crate::trace::event::place::FieldPlace as _;
                match *self {
                    $(Self::$Event { $($($field,)*)? } => {
                        let mut fields = $crate::trace::Fields::new($crate::trace::Kind::new($number, $name));
                        $($($place.put($field, &mut fields);)*)?
                        fields
                    })*
                    $($(Self::$Group(event) => event.to_fields(),)*)?
                }
            }

            /// The event that these fields stand for; `None` if a number in them is unknown or too large for its place.
            pub fn from_fields(fields: &$crate::trace::Fields) -> Option<Self> {
                use $crate::trace::event::place::FieldPlace as _;
                match fields.kind {
                    $($number => Some(Self::$Event { $($($field: $place.get(fields)?,)*)? }),)*
                    _ => None$($(.or_else(|| $Inner::from_fields(fields).map(Self::$Group)))*)?,
                }
            }

            /// Whom this event concerns.
            #[inline]
            pub fn subject(&self) -> $crate::trace::event::Subject {
                use $crate::trace::event::place::FieldPlace as _;
                match *self {
                    $(Self::$Event { $($($field,)*)? } => {
                        let mut subject = $crate::trace::event::Subject::default();
                        $($($place.concern($field, &mut subject);)*)?
                        subject
                    })*
                    $($(Self::$Group(event) => event.subject(),)*)?
                }
            }

            /// The fields that text and JSON show, with their names, in the order they are shown.
            pub fn shown(&self) -> Vec<(&'static str, $crate::trace::event::Value)> {
                let mut list = Vec::new();
                match *self {
                    $(Self::$Event { $($($field,)*)? } => {
                        $($(
                            $(list.push(($label, $crate::trace::event::value::$unit($field)));)?
                            $(list.extend($shown);)?
                        )*)?
                    })*
                    $($(Self::$Group(event) => return event.shown(),)*)?
                }
                list
            }

            /// Whether this event is about an address in the range: a bus address, an offset in VRAM, a virtual address, or a tag.
            pub fn is_about(&self, range: $crate::trace::range::Range) -> bool {
                match *self {
                    $(Self::$Event { $($($field,)*)? } => {
                        false
                        $($(
                            $(|| range.overlaps($crate::trace::event::value::range($field, $length)))?
                            $(|| $about.into_iter().any(|about| range.overlaps(about)))?
                        )*)?
                    })*
                    $($(Self::$Group(event) => event.is_about(range),)*)?
                }
            }

            /// A strategy for each kind that makes events with any fields.
            #[cfg(test)]
            pub(in crate::trace) fn strategies() -> Vec<proptest::strategy::BoxedStrategy<Self>> {
                use proptest::strategy::Strategy as _;
                use $crate::trace::event::sample::sample;
                let mut strategies = vec![$(
                    (proptest::strategy::Just(()), $($(sample::<$Type>(),)*)?)
                        .prop_map(|(_, $($($field,)*)?)| Self::$Event { $($($field,)*)? })
                        .boxed(),
                )*];
                $($(strategies.extend($Inner::strategies().into_iter().map(|inner| inner.prop_map(Self::$Group).boxed()));)*)?
                strategies
            }
        }

        $($(
            impl From<$Inner> for $Events {
                fn from(event: $Inner) -> Self {
                    Self::$Group(event)
                }
            }
        )*)?
    };
}
