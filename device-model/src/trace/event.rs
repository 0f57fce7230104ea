// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the device reports: the table of events.
//!
//! An event is defined here, or in the table of its group, and nowhere else: its kind, its fields, where each stands in a record
//! and how it is shown, and what the event is about ([`definition`] has the language). A new event is an entry in a table
//! and the call that emits it. The tool prints, filters and exports it by its definition; summary and oracle pass over
//! what they do not know.
//!
//! Logs outlive the device that wrote them: the number of a kind is never used again for another, and what stands in a
//! record keeps its place. Numbers below 64 are for the events in this file, from 64 to 79 for [`MmuEvent`], from 80 to 95 for
//! [`NotificationEvent`], from 96 to 111 for [`InjectionEvent`], from 112 to 127 for [`MemoryEvent`].

#[macro_use]
mod definition;
mod injection;
mod memory;
mod mmu;
mod notification;
pub(super) mod place;
mod register;
#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;
pub(super) mod value;

use ersatz_abi::command::{Cause, Location, Opcode};
use ersatz_abi::error::ErrorCode;
use ersatz_abi::regs::POISON_BYTES;

use super::enumeration::{InterruptOutcome, ResetSource};
use super::range::Range;
pub use injection::InjectionEvent;
pub use memory::MemoryEvent;
pub use mmu::MmuEvent;
pub use notification::NotificationEvent;
pub use place::Subject;
use place::*;
pub use value::Value;

events! {
    /// One event. Addresses and lengths are in bytes; an address without an aperture is a bus address.
    pub enum Event {
        /// The device was created.
        DeviceCreated = 1, "device-created" {
            /// Size of VRAM.
            vram: u64 => LENGTH, "vram": bytes;
        }
        /// The device was taken away in good order.
        DeviceDropped = 2, "device-dropped"
        /// The device was reset: all channels are disabled, bus mastering is off (but for [`ResetSource::Register`]).
        Reset = 3, "reset" {
            /// What reset it.
            source: ResetSource => DETAIL, "source": name;
        }
        /// The permit to do DMA was granted or revoked: by the bus master bit, or by entering or leaving D0.
        BusMaster = 4, "bus-master" {
            /// Whether the device may do DMA now.
            enabled: bool => FLAG_0, "enabled": flag;
        }
        /// The power state changed.
        PowerState = 5, "power-state" {
            /// 0 for D0 to 3 for D3hot.
            state: u8 => DETAIL, "d": number;
        }
        /// A BAR decodes at another address, or no longer.
        BarMoved = 6, "bar-moved" {
            /// Index of the BAR.
            bar: u8 => DETAIL, "bar": number;
            /// Size of the BAR.
            size: u64 => LENGTH, "size": bytes;
            /// Guest physical address; `None` while decoding is off.
            address: Option<u64> => Optional(FLAG_0, ADDRESS),
                shown [address.map_or(("decodes", Value::Flag(false)), |address| ("address", Value::Address(address)))],
                about address.map(|address| Range::with_length(address, size));
        }
        /// A register was written that changes what the device does.
        RegisterWrite = 7, "register-write" {
            /// Offset in BAR0.
            offset: u32 => ADDRESS, "offset": address, covers 1;
            /// The value written.
            value: u64 => ID, "value": address,
                shown register::name(offset).map(|name| ("register", Value::Name(name)));
            /// The channel whose register it is.
            channel: Option<u8> => CHANNEL;
        }
        /// An access to a BAR that the device does not support.
        BadAccess = 8, "bad-access" {
            /// Index of the BAR.
            bar: u8 => DETAIL, "bar": number;
            /// Offset in it.
            offset: u64 => ADDRESS, "offset": address, covers 1;
            /// Width of the access.
            width: u64 => LENGTH, "width": number;
            /// Whether it was a write.
            write: bool => FLAG_0, "write": flag;
        }
        /// The driver wrote the MARK register.
        Mark = 9, "mark" {
            /// The value written.
            value: u64 => ID, "value": address;
        }
        /// A page of VRAM is poisoned: no engine accesses it any more.
        Poisoned = 10, "poisoned" {
            /// The page.
            page: Location => TARGET, "page": location, covers POISON_BYTES;
        }
        /// A page of VRAM was zeroed, and is poisoned no more.
        PoisonCleared = 11, "poison-cleared" {
            /// The page.
            page: Location => TARGET, "page": location, covers POISON_BYTES;
        }
        /// A channel began to accept commands.
        ChannelEnabled = 16, "channel-enabled" {
            /// The channel.
            channel: u8 => CHANNEL;
            /// Address of its ring.
            ring: u64 => ADDRESS, "ring": address, covers 1;
            /// Address of its control block.
            control_block: u64 => SECOND, "control-block": address, covers 1;
            /// Length of the ring in commands.
            commands: u64 => LENGTH, "commands": number;
            /// Its MSI-X vector.
            vector: u16 => ID, "vector": number;
        }
        /// A channel stopped accepting commands; the one under way still ends.
        ChannelDisabled = 17, "channel-disabled" {
            /// The channel.
            channel: u8 => CHANNEL;
        }
        /// A channel lost its commands and its error, and is disabled.
        ChannelReset = 18, "channel-reset" {
            /// The channel.
            channel: u8 => CHANNEL;
        }
        /// A channel reached a command that it cannot execute, and stopped.
        ChannelError = 19, "channel-error" {
            /// The channel.
            channel: u8 => CHANNEL;
            /// What is wrong.
            error: ErrorCode => STATUS, "error": name;
            /// Ring position of the command.
            position: u32 => ID, "position": number;
            /// List entry, if the command got that far; else 0.
            entry: u32 => LENGTH, "entry": number;
            /// The address that was refused.
            address: u64 => ADDRESS, "address": address, covers 1;
        }
        /// A doorbell was seen.
        Doorbell = 20, "doorbell" {
            /// The channel whose doorbell it is.
            channel: u8 => CHANNEL;
            /// How often it was rung since it was seen last.
            rings: u64 => LENGTH, "rings": number;
        }
        /// A command was fetched and decoded.
        CommandStart = 32, "command-start" {
            /// The channel.
            channel: u8 => CHANNEL;
            /// The engine that executes it.
            engine: u8 => ENGINE;
            /// Why the driver asked for it.
            cause: Cause => CAUSE;
            /// What it does.
            opcode: Opcode => DETAIL, "opcode": name;
            /// Ring position.
            position: u32 => SECOND, "position": number;
            /// Entries of its list; bytes of an invalidation; bytes, steps or updates of a kernel.
            count: u64 => LENGTH, shown value::operands(opcode, address, count);
            /// Address of the list; virtual address of an invalidation, or of a kernel's first operand.
            address: u64 => ADDRESS, covers 1;
            /// The fence value it is to signal.
            fence: Option<u64> => Optional(FLAG_0, ID), shown fence.map(|value| ("fence", Value::Number(value)));
            /// Whether it asks for an interrupt.
            interrupt: bool => FLAG_1, "interrupt": flag;
            /// The driver's number for it.
            tag: u64 => TAG, "tag": address, covers 1;
        }
        /// A command ended: completed, or failed with an error.
        CommandEnd = 33, "command-end" {
            /// The channel.
            channel: u8 => CHANNEL;
            /// The engine that executed it.
            engine: u8 => ENGINE;
            /// Why the driver asked for it.
            cause: Cause => CAUSE;
            /// What it did.
            opcode: Opcode => DETAIL, "opcode": name;
            /// Ring position.
            position: u32 => SECOND, "position": number;
            /// [`ErrorCode::None`] if it completed.
            error: ErrorCode => STATUS, "error": name;
            /// Bytes it moved, filled or read.
            bytes: u64 => LENGTH, "bytes": bytes;
            /// The driver's number for it.
            tag: u64 => TAG, "tag": address, covers 1;
        }
        /// One list entry was copied.
        Copy = 34, "copy" {
            /// The channel.
            channel: u8 => CHANNEL;
            /// The engine.
            engine: u8 => ENGINE;
            /// Why the driver asked for it.
            cause: Cause => CAUSE;
            /// The memory it was copied from.
            source: Location => SOURCE, "from": location, covers length;
            /// The memory it was copied to.
            destination: Location => DESTINATION, "to": location, covers length;
            /// Number of bytes.
            length: u64 => LENGTH, "bytes": bytes;
            /// By custom the virtual address of the page.
            tag: u64 => TAG, "tag": address, covers length;
        }
        /// One list entry was filled.
        Fill = 35, "fill" {
            /// The channel.
            channel: u8 => CHANNEL;
            /// The engine.
            engine: u8 => ENGINE;
            /// Why the driver asked for it.
            cause: Cause => CAUSE;
            /// The memory that was filled.
            destination: Location => BOTH_ENDS, "to": location, covers length;
            /// Number of bytes.
            length: u64 => LENGTH, "bytes": bytes;
            /// What it was filled with.
            pattern: u64 => ID, "pattern": address;
            /// By custom the virtual address of the page.
            tag: u64 => TAG, "tag": address, covers length;
        }
        /// One list entry was read for its digest.
        Digest = 36, "digest" {
            /// The channel.
            channel: u8 => CHANNEL;
            /// The engine.
            engine: u8 => ENGINE;
            /// Why the driver asked for it.
            cause: Cause => CAUSE;
            /// The memory that was read.
            source: Location => SOURCE, "from": location, covers length;
            /// Where the digest was written.
            destination: Location => DESTINATION, "to": location, covers size_of::<u64>() as u64;
            /// Number of bytes read.
            length: u64 => LENGTH, "bytes": bytes;
            /// The digest.
            digest: u32 => ID, "digest": address;
            /// By custom the virtual address of the page.
            tag: u64 => TAG, "tag": address, covers length;
        }
        /// A fence value was written.
        Fence = 37, "fence" {
            /// The channel.
            channel: u8 => CHANNEL;
            /// The engine.
            engine: u8 => ENGINE;
            /// The value.
            value: u64 => ID, "value": number;
            /// Where it was written.
            address: u64 => ADDRESS, "address": address, covers 1;
        }
        /// An interrupt was raised, or a pending one released.
        Interrupt = 38, "interrupt" {
            /// MSI-X vector.
            vector: u16 => ID, "vector": number;
            /// The channel it is for; `None` for device errors and where it is not known any more.
            channel: Option<u8> => CHANNEL;
            /// What happened to it.
            outcome: InterruptOutcome => DETAIL, "outcome": name;
        }
        /// Memory was mapped for the device's DMA (by a transport that reports it).
        DmaMap = 48, "dma-map" {
            /// First address.
            address: u64 => ADDRESS, "address": address, covers length;
            /// Number of bytes.
            length: u64 => LENGTH, "length": bytes;
            /// Whether the device may write it.
            writable: bool => FLAG_0, "writable": flag;
        }
        /// Memory was unmapped: no access of the device to it is under way or will begin.
        DmaUnmap = 49, "dma-unmap" {
            /// First address.
            address: u64 => ADDRESS, "address": address, covers length;
            /// Number of bytes.
            length: u64 => LENGTH, "length": bytes;
        }
    }
    groups {
        /// An event of the MMU.
        Mmu(MmuEvent);
        /// An event of a notification ring.
        Notification(NotificationEvent);
        /// An event of a breakpoint or a rule.
        Injection(InjectionEvent);
        /// An event of memory that the host demands.
        Memory(MemoryEvent);
    }
}

impl Event {
    /// The channel this event is about.
    #[inline]
    pub fn channel(&self) -> Option<u8> {
        self.subject().channel
    }

    /// The address space this event is about.
    #[inline]
    pub fn asid(&self) -> Option<u8> {
        self.subject().asid
    }

    /// Why the driver asked for this, for events that have a cause.
    #[inline]
    pub fn cause(&self) -> Option<Cause> {
        self.subject().cause
    }
}
