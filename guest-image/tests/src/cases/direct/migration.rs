// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pages that move between system memory and VRAM while engines work on them: everything at once that a driver for shared virtual
//! memory does.

use ersatz_abi::command::Operation;
use ersatz_abi::counter::Counter;
use ersatz_abi::fault::FaultRecord;
use ersatz_abi::kernel::Kernel;
use ersatz_abi::mmu::PageSize;

use super::kernels::update_at_random;
use crate::direct::address_space::{AddressSpace, REPLAYABLE, Rights};
use crate::direct::buffer::Buffer;
use crate::direct::channel::{Channel, Setup, copy_entry};
use crate::direct::gpu::Gpu;
use crate::direct::notification_ring::NotificationRing;
use crate::pattern::dice;
use crate::suite::test_list;

test_list! { "direct_migration":
    pages_move_under_running_kernels.direct();
}

const ASID: u8 = 2;
const BASE: u64 = 0x12_3400_0000;
const PAGE: u64 = PageSize::Small.bytes();
const PAGES: usize = 32;
const LENGTH: u64 = PAGES as u64 * PAGE;

/// The ways of moving a page: engines that want it meanwhile find nothing there, or find that they may not write it.
#[derive(Clone, Copy, Debug)]
enum Way {
    Unmapped,
    WriteProtected,
}

/// A page, and where it may be.
struct Home<'a> {
    address: u64,
    places: [Buffer<'a>; 2],
    /// Which of the places it is in.
    at: usize,
}

impl Home<'_> {
    fn place(&self) -> &Buffer<'_> {
        &self.places[self.at]
    }

    /// Moves the page to its other place, as the manual has it.
    fn move_over(&mut self, space: &AddressSpace<'_>, copying: &Channel<'_>, way: Way) {
        match way {
            Way::Unmapped => drop(space.unmap(self.address, PageSize::Small)),
            Way::WriteProtected => space.map(self.address, self.place(), PageSize::Small, Rights::Read),
        }
        // The channel that copies does what is in its ring in order: the acknowledgement comes before the copy.
        copying.submit(Operation::Invalidate(space.range(self.address, PAGE)));
        copying.copy(&[copy_entry(self.places[self.at], self.places[1 - self.at])]);
        self.at = 1 - self.at;
        space.map(self.address, self.place(), PageSize::Small, Rights::Atomic);
        if matches!(way, Way::WriteProtected) {
            space.invalidate(self.address, PAGE);
        }
    }
}

fn pages_move_under_running_kernels() {
    const MOVES: usize = 120;
    const UPDATES: u64 = 1000;
    let gpu = Gpu::claim();
    let mut dice = dice(1);
    let space = AddressSpace::new(&gpu, ASID, REPLAYABLE, gpu.system());
    let faults = NotificationRing::<FaultRecord>::enable(&gpu);
    let copying = Channel::open(&gpu, Setup::new(0, gpu.copy_engines().start));
    let engine = gpu.compute_engines().start;
    let updating = [1, 2, 3].map(|number| Channel::open(&gpu, Setup { asid: ASID, ..Setup::new(number, engine) }));
    let (system, vram) = (gpu.system().take(LENGTH as usize), gpu.vram().take(LENGTH as usize));
    let mut homes = Vec::from_iter((0..LENGTH).step_by(PAGE as usize).map(|offset| {
        let places = [system, vram].map(|memory| memory.part(offset..offset + PAGE));
        Home { address: BASE + offset, places, at: 0 }
    }));
    space.map(BASE, &system, PageSize::Small, Rights::Atomic);
    let mut table = vec![0; (LENGTH / 8) as usize];
    let mut fences = [0; 3];
    let faults_before = gpu.counter(Counter::Faults);
    for _ in 0..MOVES {
        for (channel, fence) in updating.iter().zip(&mut fences) {
            if channel.fence() == *fence {
                let seed = dice.u64(1..);
                let kernel = Kernel::RandomUpdate { table: BASE, length: LENGTH, seed, updates: UPDATES };
                *fence = channel.submit(Operation::Kernel(kernel));
                // In which order updates happen does not matter to what comes of them.
                update_at_random(&mut table, seed, UPDATES);
            }
        }
        let way = if dice.bool() { Way::Unmapped } else { Way::WriteProtected };
        homes[dice.usize(..PAGES)].move_over(&space, &copying, way);
        // Whatever faulted, it is mapped again by now.
        faults.take();
        gpu.replay();
    }
    updating.iter().zip(fences).for_each(|(channel, fence)| channel.wait(fence));
    assert_ne!(gpu.counter(Counter::Faults), faults_before, "nobody missed a page");
    for (home, words) in homes.iter().zip(table.chunks((PAGE / 8) as usize)) {
        home.place().check(|index| words[index as usize]);
    }
}
