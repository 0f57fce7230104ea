// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Virtual memory that is anything but uniform: pages of 4 KiB and 64 KiB, in system memory and VRAM by turns.

use ersatz_abi::mmu::PageSize;

use crate::direct::address_space::{AddressSpace, Rights};
use crate::direct::buffer::Buffer;
use crate::direct::gpu::Gpu;

/// Bytes of each piece.
const PIECE: usize = 64 << 10;

/// 256 KiB of virtual memory that permits everything.
#[derive(Debug)]
pub struct Patchwork<'a> {
    address: u64,
    /// What is mapped, in the order of virtual addresses.
    parts: Vec<Buffer<'a>>,
}

impl<'a> Patchwork<'a> {
    /// Length in bytes.
    pub const LENGTH: u64 = 4 * PIECE as u64;

    /// Maps one at an address: 64 KiB of small pages from either memory by turns, a big page of VRAM, small pages in reverse
    /// order, a big page of system memory.
    pub fn new(gpu: &'a Gpu, space: &AddressSpace<'_>, address: u64) -> Self {
        let (here, there) = ([(); 3].map(|()| gpu.system().take(PIECE)), [(); 2].map(|()| gpu.vram().take(PIECE)));
        let small = |buffer: Buffer<'a>, index: u64| buffer.part(index * 0x1000..(index + 1) * 0x1000);
        let by_turns = (0..16).map(|index| small(if index % 2 == 0 { here[0] } else { there[0] }, index));
        let reversed = (0..16).rev().map(|index| small(here[1], index));
        let parts = Vec::from_iter(by_turns.chain([there[1]]).chain(reversed).chain([here[2]]));
        let patchwork = Self { address, parts };
        for (place, part) in patchwork.places() {
            let size = if part.length() == PIECE as u64 { PageSize::Big } else { PageSize::Small };
            space.map(place, part, size, Rights::Atomic);
        }
        patchwork
    }

    /// Its first virtual address.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Writes every word, by its index.
    pub fn fill(&self, value: impl Fn(u64) -> u64) {
        for (place, part) in self.places() {
            part.fill(|index| value((place - self.address) / 8 + index));
        }
    }

    /// Asserts what every word is, by its index.
    pub fn check(&self, expected: impl Fn(u64) -> u64) {
        for (place, part) in self.places() {
            part.check(|index| expected((place - self.address) / 8 + index));
        }
    }

    /// Every part with its virtual address.
    fn places(&self) -> impl Iterator<Item = (u64, &Buffer<'a>)> {
        self.parts.iter().scan(self.address, |address, part| {
            let place = *address;
            *address += part.length();
            Some((place, part))
        })
    }
}
