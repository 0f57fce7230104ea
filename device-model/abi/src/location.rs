// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 OR BSD-3-Clause
//! Where something is: which memory, and where in it. Lists and page tables both name memory by that.

/// Most peers a device can have.
pub const MAX_PEERS: u8 = 8;

closed_enum! {
    /// Which memory an address is in.
    pub enum Aperture(u8) {
        /// The device's own: an offset in VRAM.
        Vram = 0 => "vram",
        /// The system's: a bus address.
        System = 1 => "system",
        /// Another device's, over the link between them: an offset in its VRAM.
        Peer = 2 => "peer",
        /// Wherever the channel's address space says: a virtual address. Not in a page table entry.
        Virtual = 3 => "virtual",
    }
}

/// An address in an aperture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// Which memory.
    pub aperture: Aperture,
    /// Which peer, if the aperture is [`Aperture::Peer`]: 0 to [`MAX_PEERS`] - 1; else 0.
    pub peer: u8,
    /// Where in it: bytes.
    pub address: u64,
}

impl Location {
    /// An offset in VRAM.
    pub const fn vram(address: u64) -> Self {
        Self { aperture: Aperture::Vram, peer: 0, address }
    }

    /// A bus address.
    pub const fn system(address: u64) -> Self {
        Self { aperture: Aperture::System, peer: 0, address }
    }

    /// An offset in a peer's VRAM.
    pub const fn peer(peer: u8, address: u64) -> Self {
        Self { aperture: Aperture::Peer, peer, address }
    }

    /// An address of the channel's address space.
    pub const fn virtual_address(address: u64) -> Self {
        Self { aperture: Aperture::Virtual, peer: 0, address }
    }

    /// The location that an entry names; `None` if it names none.
    #[inline]
    pub(super) const fn from_raw(aperture: u64, peer: u64, address: u64) -> Option<Self> {
        let Some(aperture) = Aperture::from_raw(aperture as u8) else { return None };
        let limit = if matches!(aperture, Aperture::Peer) { MAX_PEERS as u64 } else { 1 };
        if peer < limit {
            Some(Self { aperture, peer: peer as u8, address })
        } else {
            None
        }
    }
}
