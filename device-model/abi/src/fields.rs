// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR BSD-3-Clause
//! Typed register fields and closed enumerations, so that no caller shifts or masks by hand.

/// Declares a newtype over `$int` with one getter and one `with_` setter for each named field.
///
/// `name: bit N;` is a flag, `name: bits HI..=LO;` an unsigned field. A setter drops the bits of a value too
/// large for its field. Bits not named are reserved: `RESERVED` has them.
macro_rules! bitfield {
    ($(#[$meta:meta])* pub struct $name:ident($int:ty) { $($(#[$fmeta:meta])* $field:ident / $with:ident : $hi:literal ..= $lo:literal as $kind:ident;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[repr(transparent)]
        pub struct $name(pub $int);

        impl $name {
            /// The bits that belong to no field; zero in every valid value.
            pub const RESERVED: $int = !(0 $(| bitfield!(@mask $int, $hi, $lo))*);

            /// The fields: name, highest bit, lowest bit. For what is generated from them; a driver has no use for it.
            #[cfg(not(MODULE))]
            pub const FIELDS: &'static [(&'static str, u32, u32)] = &[$((stringify!($field), $hi, $lo),)*];

            $(
                $(#[$fmeta])*
                pub const fn $field(self) -> bitfield!(@type $int, $kind) {
                    bitfield!(@get self.0, $int, $hi, $lo, $kind)
                }

                #[doc = concat!("This value with `", stringify!($field), "` replaced.")]
                #[must_use]
                pub const fn $with(self, value: bitfield!(@type $int, $kind)) -> Self {
                    let mask = bitfield!(@mask $int, $hi, $lo);
                    Self((self.0 & !mask) | (((value as $int) << $lo) & mask))
                }
            )*
        }
    };
    (@mask $int:ty, $hi:literal, $lo:literal) => { ((<$int>::MAX >> (<$int>::BITS - 1 - ($hi - $lo))) << $lo) };
    (@type $int:ty, flag) => { bool };
    (@type $int:ty, field) => { $int };
    (@get $value:expr, $int:ty, $hi:literal, $lo:literal, flag) => { ($value >> $lo) & 1 != 0 };
    (@get $value:expr, $int:ty, $hi:literal, $lo:literal, field) => {
        ($value >> $lo) & (<$int>::MAX >> (<$int>::BITS - 1 - ($hi - $lo)))
    };
}

/// Declares an enumeration that lists its variants, converts from its number fallibly, and knows its names.
macro_rules! closed_enum {
    ($(#[$meta:meta])* pub enum $name:ident($int:ty) { $($(#[$vmeta:meta])* $variant:ident = $value:literal => $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr($int)]
        pub enum $name { $($(#[$vmeta])* $variant = $value,)* }

        impl $name {
            /// Every variant, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The variant with this number, if there is one.
            #[inline]
            pub const fn from_raw(raw: $int) -> Option<Self> {
                match raw { $($value => Some(Self::$variant),)* _ => None }
            }

            /// The name used in traces and documents.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}
