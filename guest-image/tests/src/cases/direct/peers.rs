// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Two GPUs that reach each other's VRAM: over their fabric, by virtual address, and by the bus address of BAR2.

use ersatz_abi::command::{ListEntry, Location, Operation};
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;
use ersatz_abi::kernel::Kernel;
use ersatz_abi::mmu::{AddressSpaceControl, PageSize};

use crate::direct::address_space::{AddressSpace, Rights};
use crate::direct::channel::{Channel, Failure, Setup, copy_entry};
use crate::direct::gpu::{Gpu, GpuPair};
use crate::pattern::Pattern;
use crate::suite::{Need, test_list};
use crate::vram_bar::VramBar;

const NEEDS: &[Need] = &[Need::SecondDevice];

test_list! { "direct_peers":
    copies_over_the_fabric.direct().needs(NEEDS);
    kernels_on_memory_of_a_peer.direct().needs(NEEDS);
    a_peer_that_sleeps_cannot_be_reached.direct().needs(NEEDS);
    by_the_bus_address_of_its_bar.direct().needs(&[Need::SecondDevice, Need::BarsOnTheBus]);
}

/// The number that `gpu` has for its peer.
fn number_of(peer: &Gpu, gpu: &Gpu) -> u8 {
    let own = peer.peers();
    assert!(own.plugged() && gpu.peers().linked() >> own.own() & 1 == 1, "{own:?}, seen from {:?}", gpu.peers());
    u8::try_from(own.own()).expect("the number of a peer")
}

fn copies_over_the_fabric() {
    const LENGTH: usize = 256 << 10;
    let pair = GpuPair::claim();
    let [one, other] = &pair.0;
    let pattern = Pattern::new(1);
    let peer = number_of(other, one);
    assert_ne!(peer, number_of(one, other));
    let channel = Channel::open(one, Setup::new(0, 0));
    let (source, theirs, back) = (one.system().take(LENGTH), other.vram().take(LENGTH), one.vram().take(LENGTH));
    source.fill(|index| pattern.word(index));
    let there = copy_entry(source, theirs);
    let there = ListEntry { destination: Location::peer(peer, theirs.address()), ..there };
    let home = ListEntry { source: there.destination, destination: back.location(), ..there };
    // The peer has nothing to do for it, and nobody else's VRAM is meant.
    let mut counted = [0; 2];
    let of_other = other.count([Counter::Commands, Counter::BytesToVram], || {
        counted = one.count([Counter::BytesToPeer, Counter::BytesFromPeer], || {
            channel.copy(&[there]);
            theirs.check(|index| pattern.word(index));
            back.check(|_| 0);
            channel.copy(&[home]);
        });
    });
    assert_eq!((counted, of_other), ([LENGTH as u64; 2], [0; 2]));
    back.check_same(&source);
}

fn kernels_on_memory_of_a_peer() {
    const BASE: u64 = 0x5500_0000_0000;
    const LENGTH: u64 = PageSize::Big.bytes();
    let pair = GpuPair::claim();
    let [one, other] = &pair.0;
    let memory = other.vram().take(LENGTH as usize);
    // Both add to the same memory at once: to one it is a peer's, to the other its own.
    let locations = [Location::peer(number_of(other, one), memory.address()), memory.location()];
    let channels = [0, 1].map(|index| {
        let gpu = &pair.0[index];
        let space = AddressSpace::new(gpu, 4, AddressSpaceControl(0), gpu.vram());
        space.map_location(BASE, locations[index], LENGTH, PageSize::Big, Rights::Atomic);
        Channel::open(gpu, Setup { asid: 4, ..Setup::new(0, gpu.compute_engines().start) })
    });
    for _ in 0..8 {
        for channel in &channels {
            channel.submit(Operation::Kernel(Kernel::AtomicAdd { target: BASE, length: LENGTH, addend: 3 }));
        }
    }
    channels.iter().for_each(|channel| channel.wait(8));
    memory.check(|_| 48);
}

fn a_peer_that_sleeps_cannot_be_reached() {
    let pair = GpuPair::claim();
    let [one, other] = &pair.0;
    let channel = Channel::open(one, Setup::new(0, 0));
    let (source, theirs) = (one.system().take(4096), other.vram().take(4096));
    let place = Location::peer(number_of(other, one), theirs.address());
    let entry = ListEntry { destination: place, ..copy_entry(source, theirs) };
    other.sleep();
    channel.submit_list(&[entry], Operation::Copy);
    let address = theirs.address();
    let failure = Failure { error: ErrorCode::PeerUnavailable, position: 0, entry: 0, address };
    assert_eq!(channel.wait_for_failure(), failure);
    other.wake();
    channel.reset();
    source.fill(|index| index + 7);
    channel.copy(&[entry]);
    theirs.check_same(&source);
}

fn by_the_bus_address_of_its_bar() {
    let pair = GpuPair::claim();
    let [one, other] = &pair.0;
    let pattern = Pattern::new(1);
    let channel = Channel::open(one, Setup::new(0, 0));
    let (source, theirs, back) = (one.system().take(8192), other.vram().take(8192), one.vram().take(8192));
    source.fill(|index| pattern.word(index));
    let place = Location::system(VramBar::of(other.function()).bus_address() + theirs.address());
    let there = ListEntry { destination: place, ..copy_entry(source, theirs) };
    channel.copy(&[there]);
    theirs.check_same(&source);
    channel.copy(&[ListEntry { source: place, ..copy_entry(theirs, back) }]);
    back.check_same(&source);
}
