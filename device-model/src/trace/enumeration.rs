// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The enumerations that stand in records: those of the ABI, and the trace's own.

use ersatz_abi::command::{Aperture, Cause, Opcode};
use ersatz_abi::error::ErrorCode;
use ersatz_abi::fault::{AccessKind, FaultKind};
use ersatz_abi::mmu::PageSize;

/// What is written to a record as a small number.
pub(super) trait Enumeration: Sized {
    /// The number.
    fn number(self) -> u8;

    /// The value with this number, if there is one.
    fn from_number(number: u8) -> Option<Self>;
}

/// An enumeration whose variants have names.
pub(super) trait Named: Enumeration + Copy + 'static {
    /// Every variant.
    #[cfg(test)]
    const VARIANTS: &'static [Self];

    /// The name that the tool prints and takes.
    fn name(self) -> &'static str;
}

impl Enumeration for u8 {
    #[inline]
    fn number(self) -> u8 {
        self
    }

    #[inline]
    fn from_number(number: u8) -> Option<Self> {
        Some(number)
    }
}

impl Enumeration for bool {
    #[inline]
    fn number(self) -> u8 {
        self.into()
    }

    #[inline]
    fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

/// Implements [`Enumeration`] and [`Named`] for enumerations that have the functions of the same names.
macro_rules! enumerations {
    ($($Type:ty),*) => {$(
        impl Enumeration for $Type {
            #[inline]
            fn number(self) -> u8 {
                self as u8
            }

            #[inline]
            fn from_number(number: u8) -> Option<Self> {
                Self::from_raw(number)
            }
        }

        impl Named for $Type {
            #[cfg(test)]
            const VARIANTS: &'static [Self] = Self::ALL;

            fn name(self) -> &'static str {
                Self::name(self)
            }
        }
    )*};
}

pub(super) use enumerations;

enumerations! { Aperture, Cause, Opcode, ErrorCode, AccessKind, FaultKind, PageSize, Loss, ResetSource, InterruptOutcome }

/// Declares an enumeration that converts from its number fallibly, and whose variants have names.
macro_rules! numbered {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$vmeta:meta])* $variant:ident = $value:literal => $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$vmeta])* $variant = $value,)* }

        impl $name {
            /// Every variant, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The variant with this number, if there is one.
            pub const fn from_raw(raw: u8) -> Option<Self> {
                match raw { $($value => Some(Self::$variant),)* _ => None }
            }

            /// The name that the tool prints.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

pub(super) use numbered;

numbered! {
    /// Why a record is not in its notification ring.
    pub enum Loss {
        /// The ring was full.
        Overflow = 0 => "overflow",
        /// The ring is not enabled.
        Off = 1 => "off",
        /// Guest memory could not be written there.
        DmaError = 2 => "dma-error",
        /// A prefetch fault, and the ring is more than half full.
        HalfFull = 3 => "half-full",
        /// A rule of the host's wanted it so.
        Injected = 4 => "injected",
    }
}

numbered! {
    /// What reset a device.
    pub enum ResetSource {
        /// Power-on or a reset of the whole machine.
        Conventional = 0 => "conventional",
        /// A function level reset through config space.
        FunctionLevel = 1 => "flr",
        /// The reset bit of the CONTROL register.
        Register = 2 => "register",
        /// A reset by the transport, as when its client requests one, or disconnects.
        Transport = 3 => "transport",
        /// The function is gone.
        Removal = 4 => "removal",
    }
}

numbered! {
    /// What happened to an interrupt.
    pub enum InterruptOutcome {
        /// The message went out.
        Sent = 0 => "sent",
        /// The vector is masked: its pending bit is set instead.
        Pending = 1 => "pending",
        /// A pending vector was unmasked and its message went out.
        Released = 2 => "released",
        /// MSI-X is off or the vector has no message: the interrupt is never delivered.
        Lost = 3 => "lost",
    }
}
