// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A served function that changes without an access.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use ersatz::supervisor::Event;
use ersatz::vfio_user::backend::FunctionBackend;
use ersatz::vfio_user::interrupts::ClientInterrupts;
use ersatz::vfio_user::server::{self, Clients, Until};
use ersatz::vfio_user::socket::Socket;
use ersatz_device_model::bus::Effect;
use ersatz_device_model::dma::MappedSpace;
use vfio_user::Client;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::card::Card;
use crate::rig::{BUS, CONFIG, MSIX, Memory, wait_for};

/// BAR2, the memory.
const MEMORY: u32 = 2;

/// Serves a card to a client.
fn with_client(test: impl FnOnce(&Card, &MappedSpace, Client)) {
    let folder = tempfile::tempdir().unwrap();
    let (card, memory, interrupts) = (Card::new(), Arc::new(MappedSpace::new()), Arc::new(ClientInterrupts::new(1)));
    let backend = FunctionBackend::new(0, card.clone(), memory.clone(), interrupts, None);
    let socket = Socket::bind(&folder.path().join("card")).unwrap();
    let stop = Event::new().unwrap();
    let stopped = stop.clone();
    let server = thread::spawn(move || {
        server::serve(socket.listener(), backend, Until::Stopped, Clients::Anyone, &stopped).unwrap();
    });
    test(&card, &memory, Client::new(&folder.path().join("card")).unwrap());
    stop.set();
    server.join().unwrap();
}

fn read(client: &mut Client, region: u32, offset: u64) -> [u8; 4] {
    let mut data = [0; 4];
    client.region_read(region, offset, &mut data).unwrap();
    data
}

#[test]
fn a_message_is_sent_while_the_client_says_nothing() {
    with_client(|card, _, mut client| {
        let event = EventFd::new(EFD_NONBLOCK).unwrap();
        let flags = vfio_bindings::bindings::vfio::VFIO_IRQ_SET_ACTION_TRIGGER
            | vfio_bindings::bindings::vfio::VFIO_IRQ_SET_DATA_EVENTFD;
        client.set_irqs(MSIX, flags, 0, 1, &[std::os::fd::AsRawFd::as_raw_fd(&event)]).unwrap();
        card.report(Effect::MsixSend { vector: 0 });
        wait_for("the vector is signalled", || event.read().ok());
    });
}

#[test]
fn memory_that_is_none_any_more_is_read_from_the_function() {
    with_client(|card, _, mut client| {
        client.region_write(MEMORY, 0x44, &[1, 2, 3, 4]).unwrap();
        assert_eq!(read(&mut client, MEMORY, 0x44), [1, 2, 3, 4]);
        card.hidden.store(true, Ordering::Relaxed);
        card.report(Effect::MappingsChanged { bar: 2 });
        // The card's registers read as their offset.
        assert_eq!(read(&mut client, MEMORY, 0x44), [0x44; 4]);
        card.hidden.store(false, Ordering::Relaxed);
        card.report(Effect::BarMoved { bar: 2, address: None });
        assert_eq!(read(&mut client, MEMORY, 0x44), [1, 2, 3, 4]);
    });
}

#[test]
fn a_function_that_is_gone_reads_as_ones_and_has_no_memory() {
    with_client(|card, memory, mut client| {
        let ram = Memory::new(1 << 20);
        client.dma_map(0, BUS, 1 << 20, ram.fd()).unwrap();
        assert!(!memory.is_empty());
        card.report(Effect::Gone);
        assert_eq!(read(&mut client, CONFIG, 0), [0xff; 4]);
        assert_eq!(read(&mut client, MEMORY, 0), [0xff; 4]);
        assert!(memory.is_empty());
        client.region_write(CONFIG, 0x3c, &[9]).unwrap();
        assert_eq!(card.interrupt_line(), 0);
        // The client does not know, and goes on.
        client.dma_unmap(BUS, 1 << 20).unwrap();
        client.dma_map(0, BUS, 1 << 20, ram.fd()).unwrap();
        client.reset().unwrap();
        assert!(memory.is_empty());
        assert_eq!(read(&mut client, CONFIG, 0), [0xff; 4]);
    });
}
