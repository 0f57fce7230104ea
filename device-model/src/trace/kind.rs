// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The kinds of events and the enumerations inside them: the numbers that stand in the file.

/// Declares an enumeration that converts from its number and its name fallibly.
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

            /// The name the tool prints and takes.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

numbered! {
    /// What an event is about. Zero is no kind: an unwritten slot is all zeros.
    pub enum Kind {
        /// [`Event::DeviceCreated`](super::Event::DeviceCreated).
        DeviceCreated = 1 => "device-created",
        /// [`Event::DeviceDropped`](super::Event::DeviceDropped).
        DeviceDropped = 2 => "device-dropped",
        /// [`Event::Reset`](super::Event::Reset).
        Reset = 3 => "reset",
        /// [`Event::BusMaster`](super::Event::BusMaster).
        BusMaster = 4 => "bus-master",
        /// [`Event::PowerState`](super::Event::PowerState).
        PowerState = 5 => "power-state",
        /// [`Event::BarMoved`](super::Event::BarMoved).
        BarMoved = 6 => "bar-moved",
        /// [`Event::RegisterWrite`](super::Event::RegisterWrite).
        RegisterWrite = 7 => "register-write",
        /// [`Event::BadAccess`](super::Event::BadAccess).
        BadAccess = 8 => "bad-access",
        /// [`Event::Mark`](super::Event::Mark).
        Mark = 9 => "mark",
        /// [`Event::ChannelEnabled`](super::Event::ChannelEnabled).
        ChannelEnabled = 16 => "channel-enabled",
        /// [`Event::ChannelDisabled`](super::Event::ChannelDisabled).
        ChannelDisabled = 17 => "channel-disabled",
        /// [`Event::ChannelReset`](super::Event::ChannelReset).
        ChannelReset = 18 => "channel-reset",
        /// [`Event::ChannelError`](super::Event::ChannelError).
        ChannelError = 19 => "channel-error",
        /// [`Event::Doorbell`](super::Event::Doorbell).
        Doorbell = 20 => "doorbell",
        /// [`Event::CommandStart`](super::Event::CommandStart).
        CommandStart = 32 => "command-start",
        /// [`Event::CommandEnd`](super::Event::CommandEnd).
        CommandEnd = 33 => "command-end",
        /// [`Event::Copy`](super::Event::Copy).
        Copy = 34 => "copy",
        /// [`Event::Fill`](super::Event::Fill).
        Fill = 35 => "fill",
        /// [`Event::Digest`](super::Event::Digest).
        Digest = 36 => "digest",
        /// [`Event::Fence`](super::Event::Fence).
        Fence = 37 => "fence",
        /// [`Event::Interrupt`](super::Event::Interrupt).
        Interrupt = 38 => "interrupt",
        /// [`Event::DmaMap`](super::Event::DmaMap).
        DmaMap = 48 => "dma-map",
        /// [`Event::DmaUnmap`](super::Event::DmaUnmap).
        DmaUnmap = 49 => "dma-unmap",
        /// [`MmuEvent::AddressSpaceEnabled`](super::MmuEvent::AddressSpaceEnabled).
        AddressSpaceEnabled = 64 => "address-space-enabled",
        /// [`MmuEvent::AddressSpaceDisabled`](super::MmuEvent::AddressSpaceDisabled).
        AddressSpaceDisabled = 65 => "address-space-disabled",
        /// [`MmuEvent::Translation`](super::MmuEvent::Translation).
        Translation = 66 => "translation",
        /// [`MmuEvent::Access`](super::MmuEvent::Access).
        Access = 67 => "access",
        /// [`MmuEvent::InvalidateRequested`](super::MmuEvent::InvalidateRequested).
        InvalidateRequested = 68 => "invalidate-requested",
        /// [`MmuEvent::InvalidateAcknowledged`](super::MmuEvent::InvalidateAcknowledged).
        InvalidateAcknowledged = 69 => "invalidate-acknowledged",
        /// [`NotificationEvent::FaultRecorded`](super::NotificationEvent::FaultRecorded).
        FaultRecorded = 80 => "fault-recorded",
        /// [`NotificationEvent::FaultLost`](super::NotificationEvent::FaultLost).
        FaultLost = 81 => "fault-lost",
        /// [`NotificationEvent::Replay`](super::NotificationEvent::Replay).
        Replay = 82 => "replay",
        /// [`NotificationEvent::FaultCancelled`](super::NotificationEvent::FaultCancelled).
        FaultCancelled = 83 => "fault-cancelled",
        /// [`NotificationEvent::HotRegion`](super::NotificationEvent::HotRegion).
        HotRegion = 84 => "hot-region",
        /// [`NotificationEvent::HotRegionLost`](super::NotificationEvent::HotRegionLost).
        HotRegionLost = 85 => "hot-region-lost",
    }
}

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
        /// The transport's own reset, as when its client asks for one, or leaves.
        Transport = 3 => "transport",
    }
}

numbered! {
    /// What became of an interrupt.
    pub enum InterruptOutcome {
        /// The message went out.
        Sent = 0 => "sent",
        /// The vector is masked: its pending bit is set instead.
        Pending = 1 => "pending",
        /// A pending vector was unmasked and its message went out.
        Released = 2 => "released",
        /// MSI-X is off or the vector has no message: nobody will ever see it.
        Lost = 3 => "lost",
    }
}

impl Kind {
    /// The kind with this name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_lead_back() {
        for &kind in Kind::ALL {
            assert_eq!(Kind::from_raw(kind as u8), Some(kind));
            assert_eq!(Kind::from_name(kind.name()), Some(kind));
        }
        assert_eq!(Kind::from_raw(0), None, "an unwritten slot has no kind");
        assert_eq!(Kind::from_name("no-such-kind"), None);
    }
}
