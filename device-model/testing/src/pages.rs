// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The same pages, copied by an engine and by a plain loop.

use std::hint::black_box;

use ersatz_abi::command::{Command, List, ListEntry, Operation};
use ersatz_device_model::GpuConfig;
use ersatz_device_model::vram::Vram;
use vm_memory::{GuestAddress, GuestMemoryBackend};

use super::{DATA, Host, LISTS, command, entry, system, vram};

/// Bytes copied at once: more than caches hold.
pub const BATCH: u64 = 32 << 20;
/// Room for them.
pub const VRAM: u64 = 64 << 20;

/// What is copied.
#[derive(Clone, Copy)]
pub struct Pages {
    /// How the benchmarks name them.
    pub name: &'static str,
    /// Bytes of a page.
    pub size: u64,
    /// Whether pages that follow upon each other in memory of the system are far from each other in VRAM.
    pub scattered: bool,
}

const HUGE: Pages = Pages { name: "2 MiB pages", size: 2 << 20, scattered: false };
const SCATTERED: Pages = Pages { name: "scattered 4 KiB pages", size: 4096, scattered: true };

/// Everything that is compared.
pub const KINDS: [(Pages, Direction); 4] = [
    (HUGE, Direction::ToVram),
    (HUGE, Direction::ToSystem),
    (SCATTERED, Direction::ToVram),
    (SCATTERED, Direction::ToSystem),
];

/// The way of a copy.
#[derive(Clone, Copy)]
pub enum Direction {
    /// From system memory to VRAM.
    ToVram,
    /// From VRAM to system memory.
    ToSystem,
}

impl Direction {
    /// How the benchmarks name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ToVram => "to VRAM",
            Self::ToSystem => "to the system",
        }
    }
}

impl Pages {
    /// Where each page is in the system's memory, and where in VRAM.
    fn places(self) -> Vec<(u64, u64)> {
        let count = BATCH / self.size;
        // A prime, so that each place is reached once.
        let step = if self.scattered { 4099 } else { 1 };
        (0..count).map(|number| (number * self.size, number * step % count * self.size)).collect()
    }
}

/// Copies by an engine. What that takes includes everything a driver waits for: the doorbell, fetching command and list, the
/// fence and the interrupt.
pub struct Engine {
    host: Host,
    list: List,
    fence: u64,
}

impl Engine {
    /// A device that has copied the pages once: none of its memory was never touched.
    pub fn new(config: GpuConfig, pages: Pages, direction: Direction) -> Self {
        let host = Host::unlogged_with(config);
        host.enable(0, 1);
        let entries: Vec<ListEntry> = pages
            .places()
            .into_iter()
            .map(|(ram, device)| match direction {
                Direction::ToVram => entry(system(DATA + ram), vram(device), pages.size as u32),
                Direction::ToSystem => entry(vram(device), system(DATA + ram), pages.size as u32),
            })
            .collect();
        let list = host.list(LISTS, &entries);
        let mut engine = Self { host, list, fence: 0 };
        engine.copy();
        engine
    }

    /// Copies the pages once, and waits for the interrupt.
    pub fn copy(&mut self) {
        self.fence += 1;
        let operation = Operation::Copy(self.list);
        self.host.submit(Command { fence: Some(self.fence), interrupt: true, ..command(operation) });
        self.host.interrupts.wait_for_one();
    }
}

/// Copies by a loop around `memcpy`.
pub struct Plain {
    host: Host,
    vram: Vram,
    places: Vec<(u64, u64)>,
    size: u64,
    direction: Direction,
}

impl Plain {
    /// Memory that was copied once.
    pub fn new(pages: Pages, direction: Direction) -> Self {
        let vram = Vram::new(VRAM).expect("VRAM");
        let plain = Self { host: Host::unlogged(), vram, places: pages.places(), size: pages.size, direction };
        plain.copy();
        plain
    }

    /// Copies the pages once.
    pub fn copy(&self) {
        for &(ram, at) in &self.places {
            let ram = self.host.memory.get_slice(GuestAddress(DATA + ram), self.size as usize).expect("RAM");
            let there = self.vram.slice(at, self.size).expect("VRAM");
            let (from, to) = match self.direction {
                Direction::ToVram => (ram, there),
                Direction::ToSystem => (there, ram),
            };
            black_box(from).copy_to_volatile_slice(black_box(to));
        }
    }
}
