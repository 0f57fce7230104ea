// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device that is only an array, as a function: what the guest's accesses make of it.

use std::sync::{Arc, Mutex};

use ersatz_device_model::bus::{Effect, MsixMessage, PciFunction};
use ersatz_device_model::interrupt::InterruptSink;
use proptest::prelude::*;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::function::Function;
use super::hardware::{Hardware, MappableArea, MessageKind, Region};

/// Bytes of BAR0, which is mapped but for the MSI-X table at its end, and of the high BAR2.
const BAR0: u64 = 0x4000;
const BAR2: u64 = 1 << 20;
const TABLE: u64 = 0x3000;
const PENDING: u64 = 0x3800;
const VECTORS: u16 = 3;
/// Places of the capabilities.
const POWER: u16 = 0x40;
const EXPRESS: u16 = 0x50;
const MSIX: u16 = 0x90;

/// What became of a device, for its test.
#[derive(Debug, Default)]
struct Seen {
    config: Vec<u8>,
    bar0: Vec<u8>,
    resets: usize,
    connected: Option<(MessageKind, usize)>,
}

#[derive(Clone)]
struct Fake(Arc<Mutex<Seen>>);

impl Hardware for Fake {
    fn read(&self, region: Region, offset: u64, data: &mut [u8]) {
        let seen = self.0.lock().unwrap();
        let bytes = match region {
            Region::Config => &seen.config,
            Region::Bar(0) => &seen.bar0,
            Region::Bar(_) => return,
        };
        if let Some(bytes) = bytes.get(offset as usize..).and_then(|rest| rest.get(..data.len())) {
            data.copy_from_slice(bytes);
        }
    }

    fn write(&self, region: Region, offset: u64, data: &[u8]) {
        let mut seen = self.0.lock().unwrap();
        let bytes = match region {
            Region::Config => &mut seen.config,
            Region::Bar(0) => &mut seen.bar0,
            Region::Bar(_) => return,
        };
        if let Some(bytes) = bytes.get_mut(offset as usize..).and_then(|rest| rest.get_mut(..data.len())) {
            bytes.copy_from_slice(data);
        }
    }

    fn size(&self, region: Region) -> u64 {
        match region {
            Region::Config => 4096,
            Region::Bar(0) => BAR0,
            Region::Bar(2) => BAR2,
            Region::Bar(_) => 0,
        }
    }

    fn mappable(&self) -> Vec<MappableArea> {
        let file = Arc::new(tempfile::tempfile().unwrap());
        vec![MappableArea { bar: 0, range: 0..BAR0, file, file_offset: 0x10_0000 }]
    }

    fn connect(&self, kind: MessageKind, events: &[&EventFd]) {
        self.0.lock().unwrap().connected = Some((kind, events.len()));
    }

    fn disconnect(&self, kind: MessageKind) {
        let before = self.0.lock().unwrap().connected.take();
        assert_eq!(before.map(|(kind, _)| kind), Some(kind));
    }

    fn reset(&self) {
        self.0.lock().unwrap().resets += 1;
    }
}

struct Events(Vec<EventFd>);

impl InterruptSink for Events {
    fn signal(&self, _: u16) {}

    fn event(&self, vector: u16) -> Option<&EventFd> {
        self.0.get(usize::from(vector))
    }
}

struct Rig {
    seen: Arc<Mutex<Seen>>,
    events: Arc<Events>,
    notice: Arc<EventFd>,
    function: Function,
}

impl Rig {
    fn new() -> Self {
        let mut config = vec![0; 4096];
        let mut put = |offset: u16, bytes: &[u8]| config[usize::from(offset)..][..bytes.len()].copy_from_slice(bytes);
        put(0, &[0x34, 0x12, 0x01, 0xe5, 0x47, 0x05, 0x10, 0]);
        put(0x0e, &[0x80]);
        put(0x18, &[0x0c]);
        put(0x34, &[POWER as u8]);
        put(0x3c, &[11, 1]);
        put(POWER, &[0x01, EXPRESS as u8]);
        put(EXPRESS, &[0x10, MSIX as u8, 0, 0, 0, 0, 0, 0x10]);
        put(MSIX, &[0x11, 0, VECTORS as u8 - 1, 0x80, 0, 0x30, 0, 0, 0, 0x38, 0, 0]);
        let seen = Arc::new(Mutex::new(Seen { config, bar0: vec![0xb0; BAR0 as usize], ..Seen::default() }));
        let event = || EventFd::new(EFD_NONBLOCK).unwrap();
        let events = Arc::new(Events((0..VECTORS).map(|_| event()).collect()));
        let notice = Arc::new(event());
        let hardware = Box::new(Fake(Arc::clone(&seen)));
        let function = Function::new("it".to_owned(), hardware, events.clone(), notice.clone());
        Self { seen, events, notice, function }
    }

    fn write(&self, offset: u16, data: &[u8]) -> Vec<Effect> {
        self.function.config_write(offset, data)
    }

    fn read(&self, offset: u16) -> u32 {
        let mut data = [0; 4];
        self.function.config_read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    /// The device's own command register.
    fn device_command(&self) -> u8 {
        self.seen.lock().unwrap().config[4]
    }

    fn connected(&self) -> Option<(MessageKind, usize)> {
        self.seen.lock().unwrap().connected
    }

    fn bar_read(&self, offset: u64) -> u32 {
        let mut data = [0xff; 4];
        self.function.bar_read(0, offset, &mut data);
        u32::from_le_bytes(data)
    }
}

#[test]
fn the_guest_sees_the_device_as_it_is_but_for_what_the_vmm_keeps() {
    let rig = Rig::new();
    assert_eq!(rig.read(0), 0xe501_1234);
    assert_eq!(rig.read(4), 0x0010_0540, "whatever the host has it do, it does not decode yet");
    assert_eq!(rig.read(0x0c) >> 16, 0, "it is alone in its slot");
    assert_eq!(rig.read(0x3c), 0, "no pin");
    assert_eq!((rig.device_command(), rig.seen.lock().unwrap().resets), (0x42, 1));
    rig.write(0x3c, &[9, 9]);
    assert_eq!(rig.read(0x3c), 9);
}

#[test]
fn bars_decode_where_the_guest_puts_them_while_the_function_is_awake() {
    let rig = Rig::new();
    assert!(rig.write(0x10, &0xd000_0000u32.to_le_bytes()).is_empty());
    assert!(rig.write(0x18, &0x12_0000_0000u64.to_le_bytes()).is_empty());
    let at = |bar, address| Effect::BarMoved { bar, address };
    let both = [at(0, Some(0xd000_0000)), at(2, Some(0x12_0000_0000))];
    assert_eq!(rig.write(4, &[2, 0]), both);
    assert_eq!(rig.write(0x1c, &[0x34, 0, 0, 0]), [at(2, Some(0x34_0000_0000))]);
    assert_eq!(rig.write(POWER + 4, &[3]), [at(0, None), at(2, None)]);
    assert_eq!((rig.device_command(), rig.seen.lock().unwrap().config[usize::from(POWER) + 4]), (2, 0));
    assert_eq!(rig.write(4, &[0, 0]), [], "asleep");
    assert_eq!(rig.device_command(), 2, "the device itself goes on decoding");
    assert_eq!(
        rig.function.bars().iter().map(|info| (info.bar, info.size)).collect::<Vec<_>>(),
        [(0, BAR0), (2, BAR2)]
    );
}

#[test]
fn the_device_does_dma_while_the_guest_lets_it_and_is_awake() {
    let rig = Rig::new();
    rig.write(4, &[4, 0]);
    assert_eq!(rig.device_command(), 6);
    rig.write(POWER + 4, &[3]);
    assert_eq!(rig.device_command(), 2);
    assert_eq!(rig.write(POWER + 4, &[0]), [Effect::Reset], "it does not keep its state");
    assert_eq!((rig.device_command(), rig.read(4) as u8, rig.seen.lock().unwrap().resets), (2, 0, 2));
}

#[test]
fn messages_are_connected_while_msix_is_on_and_masks_are_kept_here() {
    let rig = Rig::new();
    assert_eq!(rig.function.msix_vectors(), VECTORS);
    assert_eq!(rig.write(MSIX + 2, &[0, 0x80]), [Effect::MsixControlChanged]);
    assert_eq!(rig.connected(), Some((MessageKind::Msix, 3)));
    let entry: Vec<u8> = [0xfee0_1000u32, 0, 0x41, 0].iter().flat_map(|dword| dword.to_le_bytes()).collect();
    assert_eq!(rig.function.bar_write(0, TABLE + 16, &entry), [Effect::MsixChanged { vector: 1 }]);
    assert_eq!(rig.function.msix_message(1), Some(MsixMessage { address: 0xfee0_1000, data: 0x41 }));
    assert_eq!((rig.bar_read(TABLE + 24), rig.bar_read(0)), (0x41, 0xb0b0_b0b0));
    assert!(rig.seen.lock().unwrap().bar0.iter().all(|byte| *byte == 0xb0), "the device's table is the host's");

    rig.events.0[0].write(1).unwrap();
    assert_eq!(rig.bar_read(PENDING), 1, "it is masked");
    assert_eq!(rig.write(MSIX + 2, &[0, 0xc0]), [Effect::MsixControlChanged]);
    assert!(rig.function.msix_message(1).is_none());
    assert_eq!(rig.write(MSIX + 2, &[0, 0]), [Effect::MsixControlChanged]);
    assert_eq!(rig.connected(), None);
    rig.write(MSIX + 2, &[0, 0x80]);
    assert_eq!(rig.bar_read(PENDING), 0, "what came before is forgotten");
}

#[test]
fn only_pages_without_a_table_are_mapped() {
    let mappings = Rig::new().function.mappings();
    let places: Vec<_> = mappings.iter().map(|part| (part.bar, part.offset, part.length, part.file_offset)).collect();
    assert_eq!(places, [(0, 0, 0x3000, 0x10_0000)]);
}

#[test]
fn a_reset_is_carried_out_on_the_device() {
    let rig = Rig::new();
    rig.write(4, &[6, 0]);
    rig.write(MSIX + 2, &[0, 0x80]);
    assert_eq!(rig.write(EXPRESS + 8, &[0, 0x80]), [Effect::Reset]);
    assert_eq!((rig.connected(), rig.read(4) as u8, rig.device_command()), (None, 0, 2));
    assert_eq!(rig.read(EXPRESS + 8), 0, "the bit does not stay");
    let seen = Arc::clone(&rig.seen);
    assert_eq!((rig.function.reset(), seen.lock().unwrap().resets), (vec![Effect::Reset], 3));
    drop(rig);
    assert_eq!(seen.lock().unwrap().resets, 4, "the next one does not find what this guest left");
}

#[test]
fn a_device_that_the_host_wants_back_is_gone() {
    let rig = Rig::new();
    assert!(rig.function.take_effects().is_empty());
    rig.notice.write(1).unwrap();
    assert_eq!((rig.function.take_effects(), rig.function.take_effects()), (vec![Effect::Gone], vec![]));
    assert!(rig.function.event().unwrap().read().is_err(), "its event is cleared");
}

/// Any access of a guest.
#[derive(Clone, Debug)]
enum Access {
    Config(u16, Vec<u8>),
    Bar(u8, u64, Vec<u8>),
}

fn access() -> impl Strategy<Value = Access> {
    let data = || prop::collection::vec(any::<u8>(), 0..=16);
    let offset = prop_oneof![4 => 0u16..0xc0, 1 => 0u16..0x200, 1 => any::<u16>()];
    let place = prop_oneof![3 => TABLE - 16..PENDING + 32, 1 => 0..BAR0, 1 => any::<u64>()];
    prop_oneof![
        3 => (offset, data()).prop_map(|(offset, data)| Access::Config(offset, data)),
        1 => (0u8..7, place, data()).prop_map(|(bar, offset, data)| Access::Bar(bar, offset, data)),
    ]
}

proptest! {
    #[test]
    fn whatever_a_guest_writes_the_device_stays_the_hosts(accesses in prop::collection::vec(access(), 0..60)) {
        let rig = Rig::new();
        for access in accesses {
            let effects = match &access {
                Access::Config(offset, data) => {
                    let effects = rig.write(*offset, data);
                    rig.function.config_read(*offset, &mut data.clone());
                    effects
                }
                Access::Bar(bar, offset, data) => {
                    let effects = rig.function.bar_write(*bar, *offset, data);
                    rig.function.bar_read(*bar, *offset, &mut data.clone());
                    effects
                }
            };
            let seen = rig.seen.lock().unwrap();
            let config = &seen.config;
            prop_assert_eq!(config[4] & 3, 2, "it decodes memory, and only that");
            prop_assert_eq!(config[0x10..0x28].iter().filter(|byte| **byte != 0).collect::<Vec<_>>(), [&0x0c], "its BARs");
            prop_assert_eq!(config[usize::from(POWER) + 4] & 3, 0, "it stays in D0");
            prop_assert_eq!(config[usize::from(EXPRESS) + 9] & 0x80, 0, "resets go by VFIO");
            prop_assert_eq!(&config[usize::from(MSIX) + 2..usize::from(MSIX) + 4], [VECTORS as u8 - 1, 0x80]);
            prop_assert!(seen.bar0[TABLE as usize..][..usize::from(VECTORS) * 16].iter().all(|byte| *byte == 0xb0));
            prop_assert!(seen.connected.is_none_or(|connected| connected == (MessageKind::Msix, 3)));
            drop(seen);
            for effect in effects {
                if let Effect::BarMoved { bar, address: Some(address) } = effect {
                    let size = rig.function.bars().iter().find(|info| info.bar == bar).unwrap().size;
                    prop_assert_eq!(address % size, 0);
                }
            }
        }
    }
}
