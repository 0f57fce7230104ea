// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory requests as PCI Express writes them down: the header of the packet that carries one.
//!
//! The device's requests are function calls, not packets. But error reports hold packet headers, so for those the first
//! packet of a request is put together as hardware would have sent it.
//!
//! Glossary: **TLP** transaction layer packet, **DW** four bytes, **BE** byte enables.

/// First address that takes a header of four DWs; below it, three are mandatory.
const FOUR_GIB: u64 = 1 << 32;
/// No request crosses a multiple of this.
const BOUNDARY: u64 = 4096;
/// Format: the header has four DWs.
const FOUR_DWS: u32 = 1 << 29;
/// Format: data follow, which makes a memory request a write.
const WITH_DATA: u32 = 1 << 30;
/// Type: compare and swap. The type of plain memory requests is zero.
const COMPARE_AND_SWAP: u32 = 0b01110 << 24;
/// The field for the length in DWs, in which zero means 1024.
const LENGTH: u32 = 0x3ff;

/// What a function asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To read memory.
    Read,
    /// To write memory.
    Write,
    /// To replace a word if it has a certain value.
    CompareAndSwap,
}

/// A function's request for bytes of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is to be done with them.
    pub kind: Kind,
    /// Bus address of the first byte.
    pub address: u64,
    /// Number of bytes; at least one is meant.
    pub length: u64,
}

impl Request {
    /// The header of the request's first packet, DW by DW, with the first byte on the wire as the highest of the first DW.
    /// `requester` is bus, device and function number; `limit` is the most bytes a packet may ask for or carry, a power
    /// of two from 128 to 4096.
    pub fn header(&self, requester: u16, limit: u16) -> [u32; 4] {
        let (kind, (dws, enables)) = match self.kind {
            Kind::Read => (0, self.extent(limit)),
            Kind::Write => (WITH_DATA, self.extent(limit)),
            // Two operands, the value to find and the one to put there. They come whole, without byte enables.
            Kind::CompareAndSwap => (WITH_DATA | COMPARE_AND_SWAP, (self.length.clamp(4, 16) as u32 / 4 * 2, 0)),
        };
        let high = (self.address >> 32) as u32;
        let low = (self.address & !3) as u32;
        let is_long = self.address >= FOUR_GIB;
        let format = if is_long { FOUR_DWS } else { 0 };
        let [third, fourth] = if is_long { [high, low] } else { [low, 0] };
        [format | kind | (dws & LENGTH), u32::from(requester) << 16 | enables, third, fourth]
    }

    /// How many DWs the first packet covers, and which bytes of the first and the last of them.
    fn extent(&self, limit: u16) -> (u32, u32) {
        let lead = (self.address % 4) as u32;
        let room = (BOUNDARY - self.address % BOUNDARY).min(u64::from(limit) - u64::from(lead));
        // At most 4096, so no bits are lost.
        let bytes = self.length.clamp(1, room) as u32;
        let dws = (lead + bytes).div_ceil(4);
        let tail = dws * 4 - lead - bytes;
        let (first, last) = (0xf << lead & 0xf, 0xf >> tail);
        (dws, if dws == 1 { first & last } else { last << 4 | first })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn headers_are_those_of_the_specification() {
        let read = Request { kind: Kind::Read, address: 0x1_2345_6000, length: 1 << 20 };
        assert_eq!(read.header(0x0010, 512), [0x2000_0080, 0x0010_00ff, 0x1, 0x2345_6000]);
        let write = Request { kind: Kind::Write, address: 0xfee0_0004, length: 4 };
        assert_eq!(write.header(0x0108, 128), [0x4000_0001, 0x0108_000f, 0xfee0_0004, 0]);
        let page = Request { kind: Kind::Write, address: 0x1_0000_0000, length: 4096 };
        assert_eq!(page.header(0, 4096)[0], 0x6000_0000, "1024 DWs are written as zero");
        let swap = Request { kind: Kind::CompareAndSwap, address: 0x1_0000_0008, length: 8 };
        assert_eq!(swap.header(8, 128), [0x6e00_0004, 0x0008_0000, 1, 8]);
        let odd = Request { kind: Kind::Read, address: 0x1003, length: 2 };
        assert_eq!(odd.header(0, 128), [0x0000_0002, 0x18, 0x1000, 0]);
    }

    proptest! {
        #[test]
        fn a_header_covers_the_first_bytes_and_no_others(
            address in prop_oneof![0_u64..1 << 33, any::<u64>()],
            length in prop_oneof![1_u64..64, any::<u64>()],
            write: bool,
            order in 7_u32..=12,
        ) {
            let limit = 1_u64 << order;
            let kind = if write { Kind::Write } else { Kind::Read };
            let [first, second, third, fourth] = Request { kind, address, length }.header(7, limit as u16);
            let long = first & FOUR_DWS != 0;
            let base = if long { u64::from(third) << 32 | u64::from(fourth) } else { u64::from(third) };
            prop_assert_eq!((first & WITH_DATA != 0, long, base), (write, address >= FOUR_GIB, address & !3));
            let dws = if first & LENGTH == 0 { 1024 } else { u64::from(first & LENGTH) };
            let (first_enables, last_enables) = (second & 0xf, second >> 4 & 0xf);
            prop_assert_eq!(last_enables == 0, dws == 1, "a single DW has no last enables");
            let lead = u64::from(first_enables.trailing_zeros());
            let top = if dws == 1 { first_enables } else { last_enables };
            let bytes = dws * 4 - lead - u64::from(3 - top.ilog2());
            prop_assert_eq!(base.wrapping_add(lead), address);
            prop_assert!(bytes >= 1 && bytes <= length && dws * 4 <= limit);
            prop_assert!(address % BOUNDARY + bytes <= BOUNDARY);
            let cut = bytes == limit - lead || (address % BOUNDARY) + bytes == BOUNDARY;
            prop_assert!(bytes == length || cut, "as much as fits");
        }
    }
}
