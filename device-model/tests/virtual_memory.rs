// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Faults, invalidations and hot regions as log and driver see them: they agree, and the oracle finds nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ersatz_abi::access_counter::{AccessCounterControl, AccessRecord, CLEAR_ALL_REGIONS, REGION_ORDER_MIN};
use ersatz_abi::channel::ChannelState;
use ersatz_abi::command::{Command, Operation};
use ersatz_abi::counter::Counter;
use ersatz_abi::fault::FaultRecord;
use ersatz_abi::kernel::{Kernel, next_random};
use ersatz_abi::list::{Aperture, Location};
use ersatz_abi::mmu::{AddressSpaceControl, Invalidation, PageSize};
use ersatz_abi::notification::{NotificationStatus, RECORD_BYTES};
use ersatz_abi::regs::{self, ACCESS_RING_BASE, FAULT_RING_BASE};
use ersatz_device_model::GpuConfig;
use ersatz_device_model::bus::PciFunction;
use ersatz_device_model::clock::HostClock;
use ersatz_device_model::inject::{Action, Occurrence, Rule as InjectionRule};
use ersatz_device_model::trace::check::{Checker, Rule};
use ersatz_device_model::trace::{
    Event, Identity, Kind, MmuEvent, NotificationEvent, Summary, TraceFile, TraceOptions, Tracer,
};
use vm_memory::{Bytes, GuestAddress};

use ersatz_device_testing::tables::{Space, page};
use ersatz_device_testing::{COMMAND, DATA, Host, Interrupts, LISTS, command, entry, reg};

const VRAM: u64 = 64 << 20;
const ASID: u8 = 5;
/// Behind two copy engines: two compute engines.
const COMPUTE: u32 = 2;
const BASE: u64 = 0x7f00_0000_0000;
const PAGES: u64 = 16;
/// Where the rings of faults and of hot regions are, and how long.
const RINGS: [(u32, u64, u32); 2] = [(FAULT_RING_BASE, 0x2_0000, 6), (ACCESS_RING_BASE, 0x3_0000, 4)];
const FAULTS: usize = 0;
const HOT_REGIONS: usize = 1;

struct Traced {
    host: Host,
    space: Space,
    path: PathBuf,
    folder: tempfile::TempDir,
    /// Up to where each ring was read.
    get: [u32; 2],
}

impl Traced {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gpu0.trace");
        let identity = Identity { device: 0, vram: VRAM, channels: 16, copy_engines: 2 };
        let options = TraceOptions { identity, capacity: 1_000_000 };
        let mut config = GpuConfig::new(VRAM);
        config.compute_engines = 2;
        config.tracer = Tracer::create(&path, &options, Arc::new(HostClock::new())).unwrap();
        let host = Host::with(config, Interrupts::default());
        for (ring, address, order) in RINGS {
            host.write64(ring + regs::NOTIFICATION_BASE.offset, address);
            host.write32(ring + regs::NOTIFICATION_ORDER.offset, order);
            host.write32(ring + regs::NOTIFICATION_VECTOR.offset, 20);
            host.write32(ring + regs::NOTIFICATION_CONTROL.offset, 1);
        }
        let control = AddressSpaceControl(0).with_replayable(true);
        let space = Space::new(&host, ASID, control, Location::vram(60 << 20));
        Self { host, space, path, folder, get: [0; 2] }
    }

    fn bind(&self, channel: u32, engine: u32) {
        self.host.write32(reg(channel, regs::ENGINE), engine);
        self.host.write32(reg(channel, regs::ASID), ASID.into());
        self.host.enable(channel, 1 + channel);
    }

    /// Counts accesses of 64 KiB regions, those of VRAM too, and requests a notification at `threshold` sectors.
    fn count(&self, threshold: u32) {
        let control = AccessCounterControl(0)
            .with_enable(true)
            .with_local(true)
            .with_region_order(REGION_ORDER_MIN)
            .with_threshold(threshold);
        self.host.write32(regs::ACCESS_COUNTER_CONTROL.offset, control.0);
    }

    /// Takes the records of a ring that are there, as a driver does.
    fn take(&mut self, which: usize) -> Vec<[u64; 4]> {
        let (ring, address, order) = RINGS[which];
        let put = self.host.read32(ring + regs::NOTIFICATION_PUT.offset);
        let mut records = Vec::new();
        while self.get[which] != put {
            let at = address + u64::from(self.get[which] % (1 << order)) * RECORD_BYTES;
            let word = |host: &Host, word: u64| host.memory.read_obj::<u64>(GuestAddress(at + word * 8)).unwrap();
            self.host.wait_until("the valid bit", |host| word(host, 1) >> 63 == 1);
            records.push([0, 1, 2, 3].map(|number| word(&self.host, number)));
            self.host.memory.write_obj(0_u64, GuestAddress(at + 8)).unwrap();
            self.get[which] = self.get[which].wrapping_add(1);
        }
        self.host.write32(ring + regs::NOTIFICATION_GET.offset, self.get[which]);
        records
    }

    fn hot_regions(&mut self) -> Vec<AccessRecord> {
        self.take(HOT_REGIONS).iter().map(|words| AccessRecord::decode(words).expect("a record")).collect()
    }

    fn faults(&mut self) -> Vec<FaultRecord> {
        self.take(FAULTS).iter().map(|words| FaultRecord::decode(words).expect("a record")).collect()
    }

    fn map(&mut self, number: u64, location: Location) {
        self.space.map(&self.host, BASE + number * 4096, page(location, PageSize::Small));
    }

    /// Unmaps a page, and has it forgotten.
    fn take_away(&mut self, number: u64, invalidation: Invalidation) {
        self.space.unmap(&self.host, BASE + number * 4096, PageSize::Small);
        self.host.invalidate(invalidation);
    }

    /// The driver leaves, then the device goes; what remains is its log.
    fn into_log(self) -> (PathBuf, tempfile::TempDir) {
        self.host.gpu.config_write(COMMAND, &[0]);
        drop(self.host);
        (self.path, self.folder)
    }
}

fn kernel(kernel: Kernel, fence: u64) -> Command {
    Command { fence: Some(fence), ..command(Operation::Kernel(kernel)) }
}

fn summary(path: &Path) -> Summary {
    Summary::of(&TraceFile::open(path).unwrap()).unwrap()
}

/// The rules that a log breaks when some of its records are replaced or left out.
fn broken(path: &Path, mut change: impl FnMut(Event) -> Option<Event>) -> Vec<Rule> {
    let file = TraceFile::open(path).unwrap();
    let mut checker = Checker::new(VRAM);
    for (sequence, record) in (1..).zip(file.records()) {
        let mut record = record.unwrap();
        // Left out: something that says nothing, so that the log has no hole.
        let event = change(record.event().unwrap()).unwrap_or(Event::Mark { value: 0 });
        (record.sequence, record.fields) = (sequence, event.to_fields());
        checker.add(&record);
    }
    let mut rules: Vec<Rule> = checker.finish(file.header()).findings.into_iter().map(|finding| finding.rule).collect();
    rules.dedup();
    rules
}

#[test]
fn a_hot_region_is_told_once_until_it_is_cleared() {
    let mut traced = Traced::new();
    traced.bind(0, COMPUTE);
    (0..PAGES).for_each(|number| traced.map(number, Location::system(DATA + number * 4096)));
    let read = |traced: &mut Traced, length, fence| {
        traced.host.submit(kernel(Kernel::Read { source: BASE, length }, fence));
        traced.host.wait_until("the end", |host| host.fence() == fence);
    };
    read(&mut traced, 4096, 1);
    traced.count(40);
    read(&mut traced, 4096, 2);
    assert_eq!(traced.hot_regions(), [], "32 sectors");
    read(&mut traced, 4096, 3);
    let hot = traced.hot_regions();
    let AccessRecord { timestamp, count, .. } = hot[0];
    let (engine, aperture) = (COMPUTE as u8, Aperture::System);
    assert_eq!(hot, [AccessRecord { region: BASE, asid: ASID, channel: 0, engine, aperture, timestamp, count }]);
    assert!((40..=64).contains(&count), "{count}");
    read(&mut traced, 1 << 16, 4);
    assert_eq!(traced.hot_regions(), [], "not again");
    traced.host.write64(regs::ACCESS_COUNTER_CLEAR.offset, BASE | u64::from(ASID));
    read(&mut traced, 1 << 16, 5);
    assert_eq!(traced.hot_regions().len(), 1, "counted anew");
    traced.host.write64(regs::ACCESS_COUNTER_CLEAR.offset, CLEAR_ALL_REGIONS);
    traced.host.write32(ACCESS_RING_BASE + regs::NOTIFICATION_CONTROL.offset, 0);
    read(&mut traced, 1 << 16, 6);
    assert_eq!(traced.host.counter(Counter::AccessNotifications), 2);
    assert_eq!(traced.host.counter(Counter::AccessNotificationsDropped), 1, "nowhere to tell it");
    assert_eq!(traced.host.interrupts.seen(), [20, 20], "the first record after GET was written");
    let (path, _folder) = traced.into_log();
    let memory = summary(&path).memory;
    assert_eq!((memory.access_notifications, memory.access_notifications_dropped.values().sum::<u64>()), (2, 1));
    assert_eq!(broken(&path, Some), []);
}

#[test]
fn the_report_of_a_hot_region_is_lost_doubled_or_late() {
    for (action, told, lost, overflow) in [
        (Action::Drop, 0, 1, false),
        (Action::Overflow, 0, 1, true),
        (Action::Double, 2, 0, false),
        (Action::Delay { ns: 1 }, 1, 0, false),
    ] {
        let mut traced = Traced::new();
        traced.bind(0, COMPUTE);
        (0..PAGES).for_each(|number| traced.map(number, Location::system(DATA + number * 4096)));
        traced.count(100);
        let mut rule = InjectionRule::new("rule", action);
        rule.on.event.kinds = vec![Kind::from_name("access-notification").unwrap()];
        rule.on.occurrence = Occurrence::Nth(1);
        traced.host.gpu.inject().add_rule(rule).unwrap();
        let read = |traced: &mut Traced, fence| {
            traced.host.submit(kernel(Kernel::Read { source: BASE, length: 1 << 16 }, fence));
            traced.host.wait_until("the end", |host| host.fence() == fence);
        };
        read(&mut traced, 1);
        traced.host.wait_until("the report", |host| host.counter(Counter::AccessNotifications) == told);
        assert_eq!(traced.host.counter(Counter::AccessNotificationsDropped), lost, "{action:?}");
        let found = traced.hot_regions();
        assert_eq!(found.len() as u64, told, "{action:?}");
        assert!(found.iter().all(|record| (record.region, record.asid) == (BASE, ASID)), "{found:?}");
        let status = NotificationStatus(traced.host.read32(ACCESS_RING_BASE + regs::NOTIFICATION_STATUS.offset));
        assert_eq!(status.overflow(), overflow, "{action:?}");
        read(&mut traced, 2);
        assert_eq!(traced.hot_regions(), [], "not again before it is cleared");
        traced.host.write64(regs::ACCESS_COUNTER_CLEAR.offset, CLEAR_ALL_REGIONS);
        read(&mut traced, 3);
        assert_eq!(traced.hot_regions().len(), 1, "counted anew, and told as it should be");
        let (path, _folder) = traced.into_log();
        assert_eq!(broken(&path, Some), []);
    }
}

/// Two compute engines and a copy engine over pages that the driver takes away and gives elsewhere, while it serves faults and
/// clears hot regions.
fn busy_life() -> (PathBuf, tempfile::TempDir, Vec<u64>) {
    let mut traced = Traced::new();
    traced.count(100);
    for (channel, engine) in [(0, COMPUTE), (1, COMPUTE + 1), (2, 0)] {
        traced.bind(channel, engine);
    }
    let copied = [entry(Location::virtual_address(BASE), Location::vram(32 << 20), (PAGES * 4096) as u32)];
    let list = traced.host.list(LISTS, &copied);
    let mut random = 0x1234_5678_9abc_def1;
    let mut present = [false; PAGES as usize];
    for fence in 1..=25 {
        let length = PAGES * 4096;
        // Nothing runs: what is taken away now is missed, and the page behind the last one is never there.
        traced.faults();
        traced.take_away(fence % PAGES, Invalidation::AddressSpace(ASID));
        present[(fence % PAGES) as usize] = false;
        let prefetch = kernel(Kernel::Prefetch { address: BASE, length: length + 4096 }, fence);
        let add = kernel(Kernel::AtomicAdd { target: BASE, length, addend: 1 }, fence);
        traced.host.submit_to(0, if fence % 5 == 0 { prefetch } else { add });
        traced
            .host
            .submit_to(1, kernel(Kernel::RandomUpdate { table: BASE, length, seed: fence, updates: 200 }, fence));
        traced.host.submit_to(2, Command { fence: Some(fence), ..command(Operation::Copy(list)) });
        let is_done = |host: &Host| (0..3).all(|channel| host.fence_of(channel) == fence);
        while !is_done(&traced.host) {
            traced.host.wait_until("a fault or the end", |host| {
                is_done(host) || (0..3).any(|channel| host.status(channel).state() == Some(ChannelState::Faulted))
            });
            random = next_random(random);
            if random % 3 == 0 {
                let number = random >> 8 & (PAGES - 1);
                let range = Invalidation::Range { asid: ASID, address: BASE + number * 4096 + 9, length: 1 };
                traced.take_away(number, if random >> 16 & 3 == 0 { Invalidation::All } else { range });
                present[number as usize] = false;
            }
            traced.faults();
            for number in (0..PAGES).filter(|number| random >> (20 + number) & 1 == 1) {
                if !std::mem::replace(&mut present[number as usize], true) {
                    let place = (random >> 40 & 0xff) * (PAGES * 4096) + number * 4096;
                    let system = random & 1 << (4 + number % 4) != 0;
                    let home = if system { Location::system(DATA + place) } else { Location::vram(place) };
                    traced.map(number, home);
                }
            }
            for hot in traced.hot_regions() {
                traced.host.write64(regs::ACCESS_COUNTER_CLEAR.offset, hot.region | u64::from(hot.asid));
            }
            traced.host.write32(regs::FAULT_REPLAY.offset, 1);
        }
    }
    let counters = Counter::ALL.iter().map(|counter| traced.host.counter(*counter)).collect();
    let (path, folder) = traced.into_log();
    (path, folder, counters)
}

#[test]
fn a_busy_life_is_in_order_and_in_agreement_with_the_counters() {
    let (path, _folder, counters) = busy_life();
    assert_eq!(broken(&path, Some), []);
    let counter = |counter: Counter| counters[counter as usize];
    let summary = summary(&path);
    let memory = &summary.memory;
    let lost: u64 = memory.faults_dropped.values().sum();
    for (figure, of) in [
        (memory.faults_in_all(), counter(Counter::Faults)),
        (lost, counter(Counter::FaultsDropped) + counter(Counter::PrefetchFaultsDropped)),
        (memory.replays, counter(Counter::Replays)),
        (memory.invalidations, counter(Counter::Invalidations)),
        (memory.invalidations_acknowledged, counter(Counter::Invalidations)),
        (memory.access_notifications, counter(Counter::AccessNotifications)),
        (memory.access_notifications_dropped.values().sum(), counter(Counter::AccessNotificationsDropped)),
        (summary.commands_in_all().completed, 75),
    ] {
        assert_eq!(figure, of, "{memory:?}");
    }
    assert!(memory.tlb_fills <= counter(Counter::TlbMisses), "each by a walk");
    for figure in [memory.faults_in_all(), memory.prefetch_faults, memory.invalidations, memory.access_notifications] {
        assert!(figure > 0, "{memory:?}");
    }
}

#[test]
fn the_oracle_sees_what_the_log_of_a_worse_device_would_say() {
    let (path, _folder, _) = busy_life();
    let without_replays = broken(&path, |event| {
        let ends = matches!(event, Event::CommandEnd { .. });
        let replay = matches!(event, Event::Notification(NotificationEvent::Replay { .. }));
        (!ends && !replay).then_some(event)
    });
    assert!(without_replays.contains(&Rule::FaultAnswered), "{without_replays:?}");
    // A device that acknowledges an invalidation does not walk any more.
    let mut asked = false;
    let stale = broken(&path, |event| {
        asked |= matches!(event, Event::Mmu(MmuEvent::InvalidateAcknowledged { .. }));
        let walks = matches!(event, Event::Mmu(MmuEvent::TlbFill { .. }));
        (!(asked && walks)).then_some(event)
    });
    assert_eq!(stale, [Rule::StaleTranslation]);
    // An access that goes one page too far.
    let mut moved = false;
    let elsewhere = broken(&path, |event| match event {
        Event::Mmu(MmuEvent::Access { channel, engine, asid, kind, address, mut location, length }) if !moved => {
            moved = true;
            location.address += 4096;
            Some(MmuEvent::Access { channel, engine, asid, kind, address, location, length }.into())
        }
        event => Some(event),
    });
    assert_eq!(elsewhere, [Rule::StaleTranslation]);
}
