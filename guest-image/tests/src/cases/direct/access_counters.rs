// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Access counters: the device tells of memory that it uses much.

use ersatz_abi::access_counter::{
    ACCESS_SECTOR_BYTES, AccessCounterControl, AccessRecord, CLEAR_ALL_REGIONS, REGION_ORDER_MIN,
};
use ersatz_abi::command::{Aperture, Operation};
use ersatz_abi::counter::Counter;
use ersatz_abi::kernel::Kernel;
use ersatz_abi::mmu::{AddressSpaceControl, PageSize};
use ersatz_abi::regs;

use crate::direct::address_space::{AddressSpace, Rights};
use crate::direct::channel::{Channel, Setup, copy_entry};
use crate::direct::gpu::Gpu;
use crate::direct::notification_ring::NotificationRing;
use crate::suite::test_list;

test_list! { "direct_access_counters":
    a_hot_region_is_told_of_once_until_it_is_cleared.direct();
    a_hot_region_moves_to_vram.direct();
}

const ASID: u8 = 66;
const BASE: u64 = 0x3000_0000;
const REGION: u64 = 1 << REGION_ORDER_MIN;
const THRESHOLD: u32 = 100;

/// Counts by the smallest regions.
const CONTROL: AccessCounterControl =
    AccessCounterControl(0).with_enable(true).with_region_order(REGION_ORDER_MIN).with_threshold(THRESHOLD);

fn clear(gpu: &Gpu, value: u64) {
    gpu.registers().write64(regs::ACCESS_COUNTER_CLEAR, value);
}

fn a_hot_region_is_told_of_once_until_it_is_cleared() {
    let gpu = Gpu::claim();
    // The counters include the hot regions that were reported to the driver before.
    let counters = [Counter::AccessNotifications, Counter::AccessNotificationsDropped];
    let before = counters.map(|counter| gpu.counter(counter));
    let space = AddressSpace::new(&gpu, ASID, AddressSpaceControl(0), gpu.system());
    let channel = Channel::open(&gpu, Setup { asid: ASID, ..Setup::new(6, gpu.compute_engines().start) });
    let (system, vram) = (gpu.system().take(2 * REGION as usize), gpu.vram().take(REGION as usize));
    space.map(BASE, &system, PageSize::Small, Rights::Read);
    space.map(BASE + 2 * REGION, &vram, PageSize::Big, Rights::Read);
    let ring = NotificationRing::<AccessRecord>::enable(&gpu);
    gpu.registers().write32(regs::ACCESS_COUNTER_CONTROL, CONTROL.0);
    let read = |offset, length| channel.run(Operation::Kernel(Kernel::Read { source: BASE + offset, length }));
    let expect = |region: u64, aperture| {
        let [record] = ring.wait()[..] else { panic!("there is to be one record") };
        let place = (record.region, record.asid, record.channel, u32::from(record.engine), record.aperture);
        assert_eq!(place, (BASE + region * REGION, ASID, 6, channel.engine(), aperture));
        assert!(record.count >= THRESHOLD.into(), "{record:?}");
    };
    // The second region by as much as is not enough, then by one more.
    let almost = u64::from(THRESHOLD - 1) * ACCESS_SECTOR_BYTES;
    read(REGION, almost);
    assert_eq!(ring.waiting(), 0);
    read(REGION, 8);
    expect(1, Aperture::System);
    read(REGION, REGION);
    assert_eq!(ring.waiting(), 0, "it was told of before");
    clear(&gpu, BASE + REGION + u64::from(ASID));
    read(REGION, REGION);
    expect(1, Aperture::System);
    // The first region is another one; VRAM is not counted until it is asked for, which forgets every region.
    read(0, REGION);
    expect(0, Aperture::System);
    read(2 * REGION, REGION);
    assert_eq!(ring.waiting(), 0);
    gpu.registers().write32(regs::ACCESS_COUNTER_CONTROL, CONTROL.with_local(true).0);
    read(2 * REGION, REGION);
    expect(2, Aperture::Vram);
    clear(&gpu, CLEAR_ALL_REGIONS);
    read(0, 3 * REGION);
    let regions: Vec<u64> = ring.wait().iter().map(|record| (record.region - BASE) / REGION).collect();
    assert_eq!(regions, [0, 1, 2]);
    assert_eq!(counters.map(|counter| gpu.counter(counter)), [before[0] + 7, before[1]]);
    ring.disable();
}

/// The worked sequence, with other work going on in the region.
fn a_hot_region_moves_to_vram() {
    let gpu = Gpu::claim();
    let space = AddressSpace::new(&gpu, ASID, AddressSpaceControl(0), gpu.vram());
    let channel = Channel::open(&gpu, Setup { asid: ASID, ..Setup::new(0, gpu.compute_engines().start) });
    let copying = Channel::open(&gpu, Setup::new(1, 0));
    let (old, new) = (gpu.system().take(REGION as usize), gpu.vram().take(REGION as usize));
    space.map(BASE, &old, PageSize::Big, Rights::Atomic);
    let ring = NotificationRing::<AccessRecord>::enable(&gpu);
    gpu.registers().write32(regs::ACCESS_COUNTER_CONTROL, CONTROL.0);
    let add = || channel.run(Operation::Kernel(Kernel::AtomicAdd { target: BASE, length: REGION, addend: 1 }));
    add();
    let hot = ring.wait()[0].region;
    assert_eq!(hot, BASE);
    space.unmap(hot, PageSize::Big);
    space.invalidate(hot, REGION);
    copying.copy(&[copy_entry(old, new)]);
    space.map(hot, &new, PageSize::Big, Rights::Atomic);
    clear(&gpu, hot | u64::from(ASID));
    add();
    assert_eq!(ring.waiting(), 0, "it is near now");
    old.check(|_| 1);
    new.check(|_| 2);
}
