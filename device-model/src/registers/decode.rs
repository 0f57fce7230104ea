// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! From an offset and a length in BAR0 to a register, or to nothing.

use ersatz_abi::counter::Counter;
use ersatz_abi::mmu::ADDRESS_SPACES;
use ersatz_abi::regs::{
    self, Access, AddressSpaceRegister, ChannelRegister, DeviceRegister, NotificationRegister, Register,
};

/// What an access goes to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    Device(DeviceRegister),
    Channel(u8, ChannelRegister),
    AddressSpace(u8, AddressSpaceRegister),
    Notification(RingName, NotificationRegister),
    Counter(Counter),
    Doorbell(u8),
}

/// One of the two notification rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RingName {
    Faults,
    AccessCounters,
}

/// Which part of a register an access covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    Low,
    High,
}

impl Target {
    #[inline]
    pub(super) fn access(self) -> Access {
        match self {
            Self::Device(register) => register.register().access,
            Self::Channel(_, register) => register.register().access,
            Self::AddressSpace(_, register) => register.register().access,
            Self::Notification(_, register) => register.register().access,
            Self::Counter(_) => Access::ReadOnly,
            Self::Doorbell(_) => Access::WriteOnly,
        }
    }

    pub(super) fn channel(self) -> Option<u8> {
        match self {
            Self::Channel(channel, _) | Self::Doorbell(channel) => Some(channel),
            Self::Device(_) | Self::AddressSpace(..) | Self::Notification(..) | Self::Counter(_) => None,
        }
    }
}

/// Bytes from the low half of a register to its high half.
const HALF: u32 = 4;

impl Part {
    /// The part of a register of `width` bytes that an access of `length` bytes at `offset` in it covers.
    #[inline]
    fn of(width: u8, offset: u32, length: usize) -> Option<Self> {
        match (width, offset, length) {
            (8, 0, 8) | (4, 0, 4) => Some(Self::Whole),
            (8, 0, 4) => Some(Self::Low),
            (8, HALF, 4) => Some(Self::High),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn get(self, value: u64) -> u64 {
        match self {
            Self::Whole => value,
            Self::Low => value & u64::from(u32::MAX),
            Self::High => value >> 32,
        }
    }

    /// `old` with this part replaced.
    pub(super) fn put(self, old: u64, value: u64) -> u64 {
        match self {
            Self::Whole => value,
            Self::Low => (old & !u64::from(u32::MAX)) | value,
            Self::High => (old & u64::from(u32::MAX)) | value << 32,
        }
    }
}

/// Finds the register of a block, and the part of it, that an access of `length` bytes at `offset` in the block covers.
/// `from_offset` and `row` are those of the block's enumeration.
#[inline]
fn find<R: Copy>(
    from_offset: impl Fn(u32) -> Option<R>,
    row: impl Fn(R) -> &'static Register,
    offset: u32,
    length: usize,
) -> Option<(R, Part)> {
    // No register begins in the middle of another.
    let (register, at) = match from_offset(offset) {
        Some(register) => (register, 0),
        None => (from_offset(offset.checked_sub(HALF)?)?, HALF),
    };
    Some((register, Part::of(row(register).width, at, length)?))
}

// Each number of eight bits is an address space.
const _: () = assert!(ADDRESS_SPACES == 1 << u8::BITS);

/// The register at `offset` of BAR0, for a device with this number of channels.
pub(super) fn locate(offset: u64, length: usize, channels: u8) -> Option<(Target, Part)> {
    let offset = u32::try_from(offset).ok()?;
    let block_at = |base: u32, stride: u32| {
        let distance = offset.checked_sub(base)?;
        Some((u8::try_from(distance / stride).ok()?, distance % stride))
    };
    let channel_at = |base, stride| block_at(base, stride).filter(|(channel, _)| *channel < channels);
    if let Some((channel, offset)) = channel_at(regs::DOORBELL_BASE, regs::DOORBELL_STRIDE) {
        let whole = offset == 0 && length == regs::DOORBELL_WIDTH as usize;
        return whole.then_some((Target::Doorbell(channel), Part::Whole));
    }
    if offset >= regs::ADDRESS_SPACE_BASE {
        let (asid, offset) = block_at(regs::ADDRESS_SPACE_BASE, regs::ADDRESS_SPACE_STRIDE)?;
        let (register, part) = find(AddressSpaceRegister::from_offset, AddressSpaceRegister::register, offset, length)?;
        return Some((Target::AddressSpace(asid, register), part));
    }
    if offset >= regs::COUNTER_BASE {
        let distance = offset - regs::COUNTER_BASE;
        let counter = Counter::from_raw(u8::try_from(distance / 8).ok()?)?;
        return Some((Target::Counter(counter), Part::of(8, distance % 8, length)?));
    }
    if offset >= regs::CHANNEL_BASE {
        let (channel, offset) = channel_at(regs::CHANNEL_BASE, regs::CHANNEL_STRIDE)?;
        let (register, part) = find(ChannelRegister::from_offset, ChannelRegister::register, offset, length)?;
        return Some((Target::Channel(channel, register), part));
    }
    for (name, base) in [(RingName::Faults, regs::FAULT_RING_BASE), (RingName::AccessCounters, regs::ACCESS_RING_BASE)]
    {
        if let Some(offset) = offset.checked_sub(base).filter(|offset| *offset < regs::NOTIFICATION_STRIDE) {
            let (register, part) =
                find(NotificationRegister::from_offset, NotificationRegister::register, offset, length)?;
            return Some((Target::Notification(name, register), part));
        }
    }
    let (register, part) = find(DeviceRegister::from_offset, DeviceRegister::register, offset, length)?;
    Some((Target::Device(register), part))
}
