// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The trace log of a device at work: it agrees with the device's own counters, and the oracle finds nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ersatz_abi::channel::ChannelState;
use ersatz_abi::command::{Cause, Command, Opcode, Operation};
use ersatz_abi::counter::Counter;
use ersatz_abi::error::ErrorCode;
use ersatz_abi::pci::BAR_REGISTERS;
use ersatz_abi::regs;
use ersatz_device_model::GpuConfig;
use ersatz_device_model::bus::PciFunction;
use ersatz_device_model::clock::HostClock;
use ersatz_device_model::dma::MapAccess;
use ersatz_device_model::trace::check::{Checker, Rule, Verdict};
use ersatz_device_model::trace::summary::Direction;
use ersatz_device_model::trace::{Event, Identity, InterruptOutcome, Summary, TraceFile, TraceOptions, Tracer};

use ersatz_device_testing::{COMMAND, DATA, Host, Interrupts, LISTS, RAM, command, entry, reg, system, vram};

const VRAM: u64 = 64 << 20;
const PAGE: u64 = 4096;

struct Traced {
    host: Host,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Traced {
    fn new() -> Self {
        Self::with_capacity(100_000)
    }

    fn with_capacity(capacity: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gpu0.trace");
        let identity = Identity { device: 0, vram: VRAM, channels: 1, copy_engines: 1 };
        let options = TraceOptions { identity, capacity };
        let mut config = GpuConfig::new(VRAM);
        config.tracer = Tracer::create(&path, &options, Arc::new(HostClock::new())).unwrap();
        Self { host: Host::with(config, Interrupts::default()), path, _folder: folder }
    }

    /// Copies `pages` pages to VRAM or back, each under a tag of its own.
    fn migrate(&mut self, cause: Cause, pages: u64, to_vram: bool, fence: u64) {
        let entries: Vec<_> = (0..pages)
            .map(|page| {
                let (memory, device) = (system(DATA + page * PAGE), vram(page * PAGE));
                let (from, to) = if to_vram { (memory, device) } else { (device, memory) };
                let mut entry = entry(from, to, PAGE as u32);
                entry.tag = 0x7f00_0000_0000 + page * PAGE;
                entry
            })
            .collect();
        let list = self.host.list(LISTS, &entries);
        self.run(Command { cause, fence: Some(fence), interrupt: true, ..command(Operation::Copy(list)) });
    }

    /// Submits a command that asks for an interrupt, and waits for that.
    fn run(&mut self, command: Command) {
        let before = self.host.interrupts.seen().len();
        self.host.submit(command);
        self.host.interrupts.wait_for(before + 1);
        self.host.wait_until("idle", |host| host.status(0).state() != Some(ChannelState::Busy));
    }
}

fn summary(path: &Path) -> Summary {
    Summary::of(&TraceFile::open(path).unwrap()).unwrap()
}

fn verdict(path: &Path) -> Verdict {
    Checker::check(&TraceFile::open(path).unwrap()).unwrap()
}

fn events(path: &Path) -> Vec<Event> {
    let file = TraceFile::open(path).unwrap();
    file.records().map(|record| record.unwrap().event().expect("a known event")).collect()
}

#[test]
fn the_summary_agrees_with_the_counters() {
    let mut traced = Traced::new();
    traced.host.enable(0, 3);
    traced.migrate(Cause::MigrateToDevice, 100, true, 1);
    traced.migrate(Cause::CpuFault, 3, false, 2);
    traced.migrate(Cause::Evict, 40, false, 3);
    traced.migrate(Cause::MigrateToSystem, 7, false, 4);
    traced.migrate(Cause::Unbind, 2, false, 5);
    let entries = [entry(system(0), vram(1 << 20), 64 << 10)];
    let list = traced.host.list(LISTS, &entries);
    traced.run(Command { fence: Some(6), interrupt: true, ..command(Operation::Fill(list, 0x1234)) });
    let entries = [entry(vram(1 << 20), system(DATA), 64 << 10), entry(system(DATA), system(DATA + 8), 4096)];
    let list = traced.host.list(LISTS, &entries);
    traced.run(Command { fence: Some(7), interrupt: true, ..command(Operation::Digest(list)) });
    let entries = [entry(vram(0), vram(1 << 20), 1 << 20), entry(system(DATA), system(DATA + 8192), 4096)];
    let list = traced.host.list(LISTS, &entries);
    traced.run(Command { fence: Some(8), interrupt: true, ..command(Operation::Copy(list)) });
    traced.run(Command { interrupt: true, ..command(Operation::Nop) });
    traced.host.gpu.bar_write(BAR_REGISTERS, 0x3, &[1]);
    // A fence value that is not above the last one.
    traced.run(Command { fence: Some(8), interrupt: true, ..command(Operation::Nop) });
    // A doorbell may be counted after the command that it announced has ended.
    traced.host.wait_until("every doorbell", |host| host.counter(Counter::Doorbells) == 10);

    let counters: Vec<u64> = Counter::ALL.iter().map(|counter| traced.host.counter(*counter)).collect();
    let counter = |counter: Counter| counters[counter as usize];
    let Traced { host, path, _folder } = traced;
    drop(host);
    let summary = summary(&path);

    let all = summary.commands_in_all();
    let bytes = |cause| summary.copied_for(cause).bytes;
    for (figure, of) in [
        (summary.doorbells, Counter::Doorbells),
        (all.completed, Counter::Commands),
        (summary.fences, Counter::Fences),
        (summary.interrupts_raised(), Counter::Interrupts),
        (summary.channel_errors.values().sum(), Counter::ChannelErrors),
        (summary.bad_accesses, Counter::BadAccesses),
        (summary.copied(Direction::ToVram).bytes, Counter::BytesToVram),
        (summary.copied(Direction::ToSystem).bytes, Counter::BytesToSystem),
        (summary.copied(Direction::WithinVram).bytes, Counter::BytesWithinVram),
        (summary.copied(Direction::WithinSystem).bytes, Counter::BytesWithinSystem),
        (summary.fills.bytes, Counter::BytesFilled),
        (summary.digests.bytes, Counter::BytesDigested),
        (summary.copied_in_all().entries, Counter::CopyEntries),
        (bytes(Cause::MigrateToDevice), Counter::BytesMigratedToDevice),
        (bytes(Cause::MigrateToSystem), Counter::BytesMigratedToSystem),
        (bytes(Cause::CpuFault), Counter::BytesCpuFault),
        (bytes(Cause::Evict), Counter::BytesEvicted),
        (bytes(Cause::Unbind), Counter::BytesUnbind),
    ] {
        assert_eq!(figure, counter(of), "{}", of.name());
        assert_ne!(figure, 0, "{}: the test makes some of everything", of.name());
    }
    assert_eq!(summary.copied_for(Cause::CpuFault).pages, 3);
    assert_eq!(summary.cpu_fault_commands, 1);
    assert_eq!(summary.channel_errors.get(&ErrorCode::FenceOrder), Some(&1));
    assert_eq!(summary.commands[&Opcode::Copy].started, 6);
    assert_eq!(summary.dma_read, 101 * PAGE + PAGE);
    assert_eq!(summary.dma_written, 52 * PAGE + 2 * 8 + PAGE);
    assert_eq!((summary.dropped, summary.missing, summary.unknown), (0, 0, 0));
    assert!(summary.active > 0 && summary.active <= summary.duration());
    assert_eq!(verdict(&path).findings, []);
}

#[test]
fn a_page_can_be_followed_by_its_tag() {
    let mut traced = Traced::new();
    traced.host.enable(0, 1);
    traced.migrate(Cause::MigrateToDevice, 4, true, 1);
    traced.migrate(Cause::CpuFault, 4, false, 2);
    let tag = 0x7f00_0000_0000 + 2 * PAGE;
    let way: Vec<_> = events(&traced.path)
        .into_iter()
        .filter_map(|event| match event {
            Event::Copy { source, destination, cause, tag: of, .. } if of == tag => Some((cause, source, destination)),
            _ => None,
        })
        .collect();
    let (memory, device) = (system(DATA + 2 * PAGE), vram(2 * PAGE));
    assert_eq!(way, [(Cause::MigrateToDevice, memory, device), (Cause::CpuFault, device, memory)]);
}

#[test]
fn what_happens_to_the_function_is_in_the_log() {
    let traced = Traced::new();
    let host = &traced.host;
    host.write64(regs::MARK.offset, 0xfeed);
    host.write32(regs::MARK.offset, 0xbeef);
    host.write32(regs::MARK.offset, 0xcafe);
    host.write32(regs::MARK.offset + 4, 0x1);
    host.enable(0, 1);
    host.write32(reg(0, regs::CHANNEL_CONTROL), 0);
    host.wait_until("disabled", |host| host.status(0).state() == Some(ChannelState::Disabled));
    host.write32(reg(0, regs::CHANNEL_CONTROL), 2);
    host.wait_until("reset", |host| host.read32(reg(0, regs::CHANNEL_CONTROL)) == 0);
    host.gpu.config_write(COMMAND, &0b010_u16.to_le_bytes());
    host.gpu.reset();
    let Traced { host, path, _folder } = traced;
    drop(host);
    let names: Vec<_> = events(&path).iter().map(|event| event.kind().name()).collect();
    for name in [
        "device-created",
        "dma-map",
        "bar-moved",
        "mark",
        "register-write",
        "channel-enabled",
        "channel-disabled",
        "channel-reset",
        "bus-master",
        "reset",
        "device-dropped",
    ] {
        assert!(names.contains(&name), "no {name} in {names:?}");
    }
    let marks: Vec<_> = events(&path)
        .iter()
        .filter_map(|event| if let Event::Mark { value } = event { Some(*value) } else { None })
        .collect();
    assert_eq!(marks, [0xfeed, 0x1_0000_cafe], "by halves with the high one");
    assert_eq!(verdict(&path).findings, []);
}

/// Resets, disables and mastership taken away in the middle of commands, again and again: whatever the race, the log tells it in
/// an order that makes sense.
#[test]
fn races_leave_a_log_in_good_order() {
    let mut traced = Traced::new();
    let list = traced.host.list(LISTS, &[entry(system(DATA), vram(0), 2 << 20); 4]);
    for round in 0..60_u64 {
        traced.host.put[0] = 0;
        traced.host.start();
        traced.host.enable(0, 1);
        for fence in 1..=4 {
            traced.host.submit(Command { fence: Some(fence), interrupt: true, ..command(Operation::Copy(list)) });
        }
        // However slow the engine is, it has begun some commands by then.
        if round % 3 != 0 {
            traced.host.wait_until(&format!("two commands in round {round}"), |host| host.fence() >= 2);
        }
        std::thread::sleep(std::time::Duration::from_micros(round * 37 % 900));
        match round % 5 {
            0 => drop(traced.host.gpu.reset()),
            1 => traced.host.write32(reg(0, regs::CHANNEL_CONTROL), 2),
            2 => traced.host.write32(reg(0, regs::CHANNEL_CONTROL), 0),
            3 => drop(traced.host.gpu.config_write(COMMAND, &0b010_u16.to_le_bytes())),
            _ => traced.host.write32(regs::CONTROL.offset, 1),
        }
        traced.host.gpu.config_write(COMMAND, &ersatz_device_testing::MEMORY_AND_MASTER.to_le_bytes());
        // While a reset of the device is under way, its registers take no writes.
        traced.host.wait_until("the reset of the device", |host| host.read32(regs::CONTROL.offset) == 0);
        traced.host.wait_until("quiet", |host| host.status(0).state() != Some(ChannelState::Busy));
        traced.host.write32(reg(0, regs::CHANNEL_CONTROL), 2);
        traced.host.wait_until("reset", |host| host.read32(reg(0, regs::CHANNEL_CONTROL)) == 0);
    }
    let Traced { host, path, _folder } = traced;
    drop(host);
    assert_eq!(verdict(&path).findings, []);
    assert!(summary(&path).commands_in_all().started > 60);
}

#[test]
fn the_oracle_sees_dma_to_memory_that_is_not_mapped() {
    let mut traced = Traced::new();
    traced.host.map(RAM, 1 << 20, MapAccess::ReadOnly);
    traced.host.enable(0, 1);
    let list = traced.host.list(LISTS, &[entry(vram(0), system(RAM), 4096)]);
    traced.run(Command { interrupt: true, ..command(Operation::Copy(list)) });
    assert_eq!(traced.host.status(0).error(), Some(ErrorCode::DmaWrite), "the device refuses");
    let Traced { host, path, _folder } = traced;
    drop(host);
    assert_eq!(verdict(&path).findings, [], "so the log has no such access");
    assert_eq!(summary(&path).channel_errors[&ErrorCode::DmaWrite], 1);

    // The same log, had the device not refused.
    let mut checker = Checker::new(VRAM);
    let file = TraceFile::open(&path).unwrap();
    for record in file.records() {
        let mut record = record.unwrap();
        if let Some(Event::CommandEnd { channel, engine, position, opcode, cause, bytes, tag, .. }) = record.event() {
            let (source, destination) = (vram(0), system(RAM));
            let copy = Event::Copy { channel, engine, cause, source, destination, length: 4096, tag };
            let error = ErrorCode::None;
            record.fields = copy.to_fields();
            checker.add(&record);
            record.fields =
                Event::CommandEnd { channel, engine, position, opcode, cause, error, bytes, tag }.to_fields();
        }
        checker.add(&record);
    }
    let rules: Vec<_> = checker.finish(file.header()).findings.iter().map(|finding| finding.rule).collect();
    assert!(rules.contains(&Rule::DmaMapped), "{rules:?}");
}

#[test]
fn masked_and_lost_interrupts_are_told_apart() {
    let mut traced = Traced::new();
    traced.host.enable(0, 1);
    // Function mask on, then off; then MSI-X off.
    traced.host.gpu.config_write(ersatz_device_testing::MSIX_CONTROL, &0xc000_u16.to_le_bytes());
    traced.host.submit(Command { fence: Some(1), interrupt: true, ..command(Operation::Nop) });
    traced.host.wait_until("pending", |host| host.counter(Counter::Interrupts) == 1);
    traced.host.gpu.config_write(ersatz_device_testing::MSIX_CONTROL, &0x8000_u16.to_le_bytes());
    traced.host.gpu.config_write(ersatz_device_testing::MSIX_CONTROL, &0_u16.to_le_bytes());
    traced.host.submit(Command { fence: Some(2), interrupt: true, ..command(Operation::Nop) });
    traced.host.wait_until("done", |host| host.get() == 2 && host.status(0).state() == Some(ChannelState::Idle));
    let Traced { host, path, _folder } = traced;
    drop(host);
    let summary = summary(&path);
    for outcome in [InterruptOutcome::Pending, InterruptOutcome::Released, InterruptOutcome::Lost] {
        assert_eq!(summary.interrupts_with(outcome), 1, "{outcome:?}");
    }
    assert_eq!(verdict(&path).findings, [], "a lost interrupt was still raised");
}

#[test]
fn a_log_that_is_full_says_so() {
    let mut traced = Traced::with_capacity(50);
    traced.host.enable(0, 1);
    traced.migrate(Cause::MigrateToDevice, 100, true, 1);
    let Traced { host, path, _folder } = traced;
    drop(host);
    let summary = summary(&path);
    assert_eq!(summary.records, 50);
    assert!(summary.dropped > 50, "{}", summary.dropped);
    let verdict = verdict(&path);
    assert_eq!(verdict.findings.iter().map(|finding| finding.rule).collect::<Vec<_>>(), [Rule::Complete]);
}
