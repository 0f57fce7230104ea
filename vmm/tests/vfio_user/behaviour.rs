// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a good client gets, by the client of the crate `vfio_user`, which knows nothing of our server.

use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use ersatz::gpu::GpuAddress;
use ersatz::spec::GpuSpec;
use ersatz_abi::channel::ChannelState;
use ersatz_abi::list::Location;
use ersatz_abi::pci::{BAR_MSIX, BAR_REGISTERS, BAR_VRAM, DEVICE_ID, MSIX_VECTORS, REGISTERS_BAR_SIZE, VENDOR_ID};
use ersatz_abi::regs;
use ersatz_device_model::fabric::Fabric;
use vfio_user::Client;
use vmm_sys_util::eventfd::EventFd;

use crate::rig::{BUS, CONFIG, DATA, Driver, MSIX, Served, VECTOR, VRAM, entry, system, vram, wait_for};

fn config_u16(client: &mut Client, offset: u64) -> u16 {
    let mut data = [0; 2];
    client.region_read(CONFIG, offset, &mut data).unwrap();
    u16::from_le_bytes(data)
}

/// Offset of the PCI Express capability.
fn express_capability(client: &mut Client) -> u64 {
    let mut offset = config_u16(client, 0x34) & 0xfc;
    while offset != 0 {
        let header = config_u16(client, offset.into());
        if header & 0xff == 0x10 {
            return offset.into();
        }
        offset = header >> 8;
    }
    panic!("no PCI Express capability");
}

#[test]
fn a_client_finds_the_device() {
    let served = Served::new(false);
    let mut client = served.connect();
    assert_eq!((config_u16(&mut client, 0), config_u16(&mut client, 2)), (VENDOR_ID, DEVICE_ID));
    assert_eq!(client.region(BAR_REGISTERS.into()).unwrap().size, REGISTERS_BAR_SIZE);
    assert_eq!(client.region(CONFIG).unwrap().size, 4096);
    assert_eq!(client.region(1).unwrap().size, 0);
    assert!(client.region(BAR_MSIX.into()).unwrap().size > 0);
    assert_eq!(client.get_irq_info(MSIX).unwrap().count, u32::from(MSIX_VECTORS));
    assert_eq!(client.get_irq_info(0).unwrap().count, 0, "no INTx");
}

#[test]
fn vram_is_mapped_by_the_client_and_reached_through_the_socket_too() {
    let served = Served::new(false);
    let mut client = served.connect();
    let region = client.region(BAR_VRAM.into()).unwrap();
    assert_eq!(region.size, VRAM);
    assert_eq!(region.sparse_areas.iter().map(|area| (area.offset, area.size)).collect::<Vec<_>>(), [(0, VRAM)]);
    let file = region.file_offset.as_ref().unwrap();
    assert_eq!(file.start(), 0);
    let file = file.file().try_clone().unwrap();
    file.write_all_at(b"from the mapping", 4096).unwrap();
    let mut data = [0; 16];
    client.region_read(BAR_VRAM.into(), 4096, &mut data).unwrap();
    assert_eq!(&data, b"from the mapping");
    client.region_write(BAR_VRAM.into(), VRAM - 3, b"end").unwrap();
    let mut data = [0; 3];
    file.read_exact_at(&mut data, VRAM - 3).unwrap();
    assert_eq!(&data, b"end");
}

#[test]
fn the_bar_has_the_size_that_a_client_found_for_as_long_as_it_stays() {
    let shown = VRAM / 2;
    let served = Served::with(&GpuSpec { bar: Some(shown), ..GpuSpec::new(VRAM) }, false);
    let bar = u32::from(BAR_VRAM);
    {
        let mut driver = Driver::new(served.connect());
        let region = driver.client.region(bar).unwrap();
        assert_eq!((region.size, region.sparse_areas[0].size), (shown, shown));
        let read = |driver: &mut Driver, offset| {
            let mut data = [0; 4];
            driver.client.region_read(bar, offset, &mut data).unwrap();
            u32::from_le_bytes(data)
        };
        assert_eq!(read(&mut driver, shown - 4), 0);
        driver.copy(&[entry(system(DATA), vram(VRAM - 4096), 4096)], 1);
        wait_for("the engine reaches all of it", || (driver.fence() == 1).then_some(()));

        // As a driver resizes. The client's region does not follow; what the BAR does not show of it reads as ones.
        let resize = |driver: &mut Driver, order: u8| {
            for (offset, data) in [(4, [0, 0]), (0x169, [order, 0]), (4, [6, 0])] {
                let length = if offset == 4 { 2 } else { 1 };
                driver.client.region_write(CONFIG, offset, &data[..length]).unwrap();
            }
        };
        resize(&mut driver, 1);
        assert_eq!([read(&mut driver, (2 << 20) - 4), read(&mut driver, 2 << 20)], [0, u32::MAX]);
        resize(&mut driver, u8::try_from(VRAM.ilog2() - 20).unwrap());
        assert_eq!([read(&mut driver, 2 << 20), read(&mut driver, shown - 4)], [0, 0]);
        assert_eq!(driver.client.region(bar).unwrap().size, shown);
    }
    assert_eq!(served.connect().region(bar).unwrap().size, shown, "the next client finds the first size");
}

#[test]
fn the_device_copies_both_ways_and_interrupts() {
    let served = Served::new(false);
    let mut driver = Driver::new(served.connect());
    let event = EventFd::new(0).unwrap();
    driver.connect(VECTOR, event.as_raw_fd());
    let content: Vec<u8> = (0..8192u32).map(|byte| (byte * 7 % 251) as u8).collect();
    driver.memory.write(DATA, &content);
    driver.copy(&[entry(system(DATA), vram(0x10000), 8192), entry(vram(0x10000), system(DATA + 0x10000), 8192)], 1);
    assert_eq!(event.read().unwrap(), 1);
    assert_eq!(driver.fence(), 1);
    assert_eq!(driver.memory.read(DATA + 0x10000, 8192), content);
}

#[test]
fn gpus_of_one_process_copy_into_each_other() {
    let fabric = Fabric::new();
    let [zero, one] = [0, 1].map(|index| {
        let address = GpuAddress { index, fabric: fabric.clone(), ..GpuAddress::default() };
        Served::at(&GpuSpec::new(VRAM), &address, false)
    });
    let mut driver = Driver::new(zero.connect());
    driver.memory.write(DATA, b"over the fabric.");
    driver.copy(&[entry(system(DATA), Location::peer(1, 0x8000), 16)], 1);
    wait_for("the fence", || (driver.fence() == 1).then_some(()));
    let mut client = one.connect();
    let mut found = [0; 16];
    client.region_read(BAR_VRAM.into(), 0x8000, &mut found).unwrap();
    assert_eq!(&found, b"over the fabric.");
    driver.copy(&[entry(system(DATA), Location::peer(2, 0x8000), 16)], 2);
    wait_for("an error", || (driver.status().state() == Some(ChannelState::Error)).then_some(()));
}

#[test]
fn a_disconnected_vector_is_silent() {
    let served = Served::new(false);
    let mut driver = Driver::new(served.connect());
    let event = EventFd::new(libc::EFD_NONBLOCK).unwrap();
    driver.connect(VECTOR, event.as_raw_fd());
    driver.client.set_irqs(MSIX, 0x24, VECTOR, 1, &[]).unwrap();
    driver.copy(&[entry(system(DATA), vram(0), 8)], 1);
    wait_for("the fence", || (driver.fence() == 1).then_some(()));
    wait_for("idle", || (driver.status().state() == Some(ChannelState::Idle)).then_some(()));
    assert!(event.read().is_err());
}

#[test]
fn memory_that_was_taken_away_is_not_touched() {
    let served = Served::new(false);
    let mut driver = Driver::new(served.connect());
    let other = crate::rig::Memory::new(0x1000);
    let far = ersatz_abi::command::Location { address: 0x9000_0000, ..system(0) };
    driver.client.dma_map(0, far.address, 0x1000, other.fd()).unwrap();
    driver.copy(&[entry(system(DATA), far, 8)], 1);
    wait_for("the fence", || (driver.fence() == 1).then_some(()));
    driver.client.dma_unmap(far.address, 0x1000).unwrap();
    driver.copy(&[entry(system(DATA), far, 8)], 2);
    wait_for("an error", || (driver.status().state() == Some(ChannelState::Error)).then_some(()));
    assert_eq!(driver.read64(regs::ERROR_ADDRESS), far.address);
    assert_eq!(driver.fence(), 1);
}

#[test]
fn memory_whose_file_was_truncated_is_an_error_of_the_channel() {
    let served = Served::new(false);
    let mut driver = Driver::new(served.connect());
    let other = crate::rig::Memory::new(0x1000);
    let far = ersatz_abi::command::Location { address: 0x9000_0000, ..system(0) };
    driver.client.dma_map(0, far.address, 0x1000, other.fd()).unwrap();
    other.file.set_len(0).unwrap();
    driver.copy(&[entry(vram(0), far, 8)], 1);
    wait_for("an error", || (driver.status().state() == Some(ChannelState::Error)).then_some(()));
    assert_eq!(driver.read64(regs::ERROR_ADDRESS), far.address);
    driver.client.reset().unwrap();
    driver.enable();
    driver.copy(&[entry(system(DATA), vram(0), 8)], 1);
    wait_for("the fence", || (driver.fence() == 1).then_some(()));
}

#[test]
fn a_register_access_returns_whatever_the_engine_does() {
    let served = Served::new(false);
    let mut driver = Driver::new(served.connect());
    // Enough that the engine cannot be done between two messages.
    let work = vec![entry(vram(0), vram(32 << 20), 2 << 20); 8192];
    driver.copy(&work, 1);
    wait_for("work begins", || (driver.status().state() == Some(ChannelState::Busy)).then_some(()));
    driver.copy(&work, 2);
    assert_eq!(driver.fence(), 0);
    driver.client.reset().unwrap();
    assert_eq!(driver.status().0, u32::MAX, "memory decoding is off after a reset");
}

#[test]
fn either_reset_clears_the_channels_and_keeps_maps_and_vram() {
    let served = Served::new(false);
    let mut driver = Driver::new(served.connect());
    let express = express_capability(&mut driver.client);
    driver.memory.write(DATA, b"content!");
    for (fence, by_function_level_reset) in [(1, false), (2, true)] {
        driver.copy(&[entry(system(DATA), vram(0), 8)], fence);
        wait_for("the fence", || (driver.fence() == fence).then_some(()));
        if by_function_level_reset {
            let control = config_u16(&mut driver.client, express + 8);
            driver.client.region_write(CONFIG, express + 8, &(control | 1 << 15).to_le_bytes()).unwrap();
        } else {
            driver.client.reset().unwrap();
        }
        driver.client.region_write(CONFIG, 4, &6u16.to_le_bytes()).unwrap();
        assert_eq!(driver.status().state(), Some(ChannelState::Disabled));
        assert_eq!(driver.read64(regs::RING_BASE), 0);
        driver.enable();
    }
    driver.copy(&[entry(vram(0), system(DATA + 64), 8)], 1);
    wait_for("the fence", || (driver.fence() == 1).then_some(()));
    assert_eq!(driver.memory.read(DATA + 64, 8), b"content!");
}

#[test]
fn the_next_client_finds_a_new_device() {
    for keep_vram in [false, true] {
        let served = Served::new(keep_vram);
        let mut driver = Driver::new(served.connect());
        let event = EventFd::new(libc::EFD_NONBLOCK).unwrap();
        driver.connect(VECTOR, event.as_raw_fd());
        driver.memory.write(DATA, b"secret!!");
        driver.copy(&[entry(system(DATA), vram(0), 8)], 1);
        assert!(wait_for("an interrupt", || event.read().ok()) >= 1);
        drop(driver);

        let mut client = served.connect();
        let mut data = [0; 8];
        client.region_read(BAR_VRAM.into(), 0, &mut data).unwrap();
        assert_eq!(&data, if keep_vram { b"secret!!" } else { &[0; 8] });
        // If the old map were still there this would be refused, and the copy would fail.
        let mut driver = Driver::new(client);
        driver.copy(&[entry(vram(0), system(DATA), 8)], 1);
        wait_for("the fence", || (driver.fence() == 1).then_some(()));
        assert_eq!(driver.memory.read(DATA, 8), data);
        assert!(event.read().is_err(), "the first client's vector is still connected");
        assert!(driver.client.dma_unmap(BUS, 4 << 20).is_ok());
    }
}
