// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device that fails, is late or says too much because it was told to, and what the driver makes of that.

use std::thread;
use std::time::Duration;

use ersatz_abi::counter::Counter;
use ersatz_uapi::{Direction, FaultAccess};
use nix::errno::Errno;
use nix::sys::mman::{MmapAdvise, ProtFlags};
use serde_json::{Value, json};

use super::fixture::{assert_works, on_device, send};
use crate::bus::Function;
use crate::compute::{Compute, LaunchError};
use crate::control_window::ControlWindow;
use crate::device::Device;
use crate::device_rules::DeviceRules;
use crate::pattern::Pattern;
use crate::process::Child;
use crate::region::Region;
use crate::suite::{Need, test_list};

test_list! { "injection":
    copies_to_the_device_that_fail_leave_content.needs(NEEDS).disruptive();
    copies_to_system_memory_that_fail_leave_content.needs(NEEDS).disruptive();
    copies_that_fail_half_way_leave_content.needs(NEEDS).disruptive();
    a_copy_for_a_cpu_fault_that_fails_is_not_lost.needs(&[Need::ControlWindow, Need::Private]).disruptive();
    an_eviction_that_fails_leaves_content.needs(NEEDS).disruptive();
    a_page_that_cannot_be_copied_keeps_no_other_on_the_device.needs(BLOCKS).disruptive();
    a_page_that_cannot_be_copied_for_a_while_does_not_stop_unbinding.needs(BLOCKS).disruptive().patience(2);
    dma_that_is_refused_leaves_content.needs(NEEDS).disruptive();
    one_copy_in_ten_fails.needs(NEEDS).disruptive();
    late_fences_are_waited_for.needs(NEEDS);
    lost_interrupts_are_noticed.needs(NEEDS).patience(2);
    interrupts_that_others_overtake_are_not_missed.needs(NEEDS).patience(2);
    interrupts_that_come_twice_mean_nothing.needs(NEEDS);
    interrupts_without_a_reason_mean_nothing.needs(NEEDS);
    lost_records_of_faults_blame_no_other_page.needs(NEEDS);
    unbinding_waits_for_a_copy_that_is_held.needs(NEEDS).disruptive();
    holds_come_each_time.needs(NEEDS).patience(2);
    bad_requests_are_refused.needs(NEEDS);
}

const NEEDS: &[Need] = &[Need::ControlWindow];
const BLOCKS: &[Need] = &[Need::ControlWindow, Need::VramPages(4 * 512)];

/// Pages of most tests: more than one list entry.
const PAGES: usize = 8;
/// The name of a breakpoint.
const COPY: &str = "copy";
/// How long a hold may take to come, and lasts at most.
const PATIENCE: Duration = Duration::from_secs(5);

/// The device, and rules that end with the test.
struct World {
    device: Device,
    rules: DeviceRules,
}

impl World {
    fn open() -> Self {
        let device = Device::open();
        let rules = DeviceRules::of(&device);
        Self { device, rules }
    }

    fn rule(&self, name: &str, on: &Value, action: &Value) {
        self.rules.add(name, on, action);
    }

    /// How often a rule has fired.
    fn fired(&self, name: &str) -> u64 {
        self.rules.fired(name)
    }

    fn window(&self) -> &ControlWindow {
        self.rules.window()
    }

    /// Starts a process that migrates, and holds the engine before its first copy. A process: while it is held it has the lock of its
    /// address space, for which any thread that needs a stack or more of the heap would wait.
    fn held_migration(&self, direction: Direction, pattern: Pattern) -> Child {
        let causes = json!({ "causes": [cause(direction)] });
        self.window().hold(COPY, "before-piece", &causes, 1, PATIENCE).expect("a breakpoint");
        let child = Child::spawn(|| {
            let (device, region) = (Device::open(), Region::filled(PAGES, pattern));
            if direction == Direction::ToSystem {
                device.to_device(region.span());
            }
            // That the driver is leaving is an answer, too.
            let _ = device.try_migrate(region.span(), direction);
            region.check(pattern);
        });
        assert!(self.window().wait_held(COPY, PATIENCE), "nothing is held");
        child
    }
}

fn cause(direction: Direction) -> &'static str {
    match direction {
        Direction::ToDevice => "migrate-to-device",
        Direction::ToSystem => "migrate-to-system",
    }
}

/// Copies of a cause.
fn copies(cause: &str) -> Value {
    json!({ "event": { "kinds": ["copy"], "causes": [cause] }, "limit": 1 })
}

/// One copy fails on the way: nothing is lost, and the next time all goes well.
fn one_copy_fails(direction: Direction, bytes: u64) {
    let (world, pattern) = (World::open(), Pattern::new(1));
    let error = if direction == Direction::ToDevice { "dma-read" } else { "dma-write" };
    let region = Region::filled(PAGES, pattern);
    if direction == Direction::ToSystem {
        world.device.to_device(region.span());
    }
    world.rule("fails", &copies(cause(direction)), &json!({ "kind": "fail", "error": error, "bytes": bytes }));
    let watch = world.device.watch();
    let result = world.device.try_migrate(region.span(), direction);
    assert_eq!(world.fired("fails"), 1);
    assert_eq!(watch.count(Counter::ChannelErrors), 1);
    if let Ok(done) = result {
        assert_eq!(done.moved + done.left, PAGES as u64, "{done:?}");
    }
    region.check(pattern);
    world.device.migrate(region.span(), direction);
    region.check(pattern);
    drop(region);
    assert_works();
}

fn copies_to_the_device_that_fail_leave_content() {
    one_copy_fails(Direction::ToDevice, 0);
}

fn copies_to_system_memory_that_fail_leave_content() {
    one_copy_fails(Direction::ToSystem, 0);
}

fn copies_that_fail_half_way_leave_content() {
    one_copy_fails(Direction::ToDevice, 2048);
    one_copy_fails(Direction::ToSystem, 2048);
}

fn a_copy_for_a_cpu_fault_that_fails_is_not_lost() {
    let (world, pattern) = (World::open(), Pattern::new(1));
    let region = on_device(&world.device, PAGES, pattern);
    world.rule("fails", &copies("cpu-fault"), &json!({ "kind": "fail", "error": "dma-write" }));
    // In a child process: that a touch is answered by SIGBUS is permitted, that it shows other content is not.
    let child = Child::spawn(|| region.check(pattern));
    let status = child.wait();
    assert_eq!(world.fired("fails"), 1);
    use nix::sys::signal::Signal::SIGBUS;
    use nix::sys::wait::WaitStatus::{Exited, Signaled};
    assert!(matches!(status, Exited(_, 0) | Signaled(_, SIGBUS, _)), "{status:?}");
    region.check(pattern);
    drop(region);
    assert_works();
}

fn an_eviction_that_fails_leaves_content() {
    let (world, pattern) = (World::open(), Pattern::new(1));
    let region = on_device(&world.device, PAGES, pattern);
    world.rule("fails", &copies("evict"), &json!({ "kind": "fail", "error": "dma-write" }));
    // What has failed is tried again, or reported; then the next one does it.
    let result = world.device.try_evict();
    assert!(matches!(result, Ok(_) | Err(Errno::EIO)), "{result:?}");
    assert_eq!(world.fired("fails"), 1);
    world.device.evict();
    assert_eq!(world.device.on_device(region.span()), 0);
    region.check(pattern);
}

/// Memory in small pages, all over several blocks of 2 MiB of the device, of whose pages one cannot be copied for this cause, `limit` times.
fn with_a_bad_copy(world: &World, pattern: Pattern, cause: &str, limit: Option<u64>) -> Region {
    const BAD: usize = 3;
    let region = Region::new(3 * 512);
    region.advise(0..region.pages(), MmapAdvise::MADV_NOHUGEPAGE).expect("MADV_NOHUGEPAGE");
    region.fill(pattern);
    send(&world.device, &region);
    let place = format!("{:#x}+4K", region.page(BAD).address);
    let on = json!({ "event": { "kinds": ["copy"], "causes": [cause], "addresses": place }, "limit": limit });
    world.rule("fails", &on, &json!({ "kind": "fail", "error": "dma-write" }));
    region
}

fn a_page_that_cannot_be_copied_keeps_no_other_on_the_device() {
    let (world, pattern) = (World::open(), Pattern::new(1));
    let region = with_a_bad_copy(&world, pattern, "evict", None);
    // That something failed may be the answer, once; what can go has gone.
    let result = world.device.try_evict();
    assert!(matches!(result, Ok(_) | Err(Errno::EIO)), "{result:?}");
    assert_eq!(world.device.on_device(region.span()), 1, "pages that stay because one cannot be copied");
    assert!(world.fired("fails") >= 2, "the page was tried with others, and alone");
    world.rules.remove("fails");
    world.device.evict();
    assert_eq!(world.device.on_device(region.span()), 0);
    region.check(pattern);
    drop(region);
    assert_works();
}

fn a_page_that_cannot_be_copied_for_a_while_does_not_stop_unbinding() {
    let (world, pattern) = (World::open(), Pattern::new(1));
    let function = Function::of(&world.device);
    let region = with_a_bad_copy(&world, pattern, "unbind", Some(7));
    let World { device, rules } = world;
    drop(device);
    function.unbind();
    assert_eq!(rules.fired("fails"), 7);
    region.check(pattern);
    function.bind();
    assert_works();
}

/// The bus refuses what the engine reads of system memory, be it the list or the pages.
fn dma_that_is_refused_leaves_content() {
    let (world, pattern) = (World::open(), Pattern::new(1));
    for nth in 1..=6 {
        let region = Region::filled(PAGES, pattern);
        let on = json!({ "dma": "any", "occurrence": { "nth": nth } });
        world.rule("refuses", &on, &json!({ "kind": "refuse" }));
        let _ = world.device.try_migrate(region.span(), Direction::ToDevice);
        let _ = world.device.try_migrate(region.span(), Direction::ToSystem);
        region.check(pattern);
        assert_eq!(world.fired("refuses"), 1, "access {nth} of the migrations");
        world.rules.remove("refuses");
    }
    assert_works();
}

fn one_copy_in_ten_fails() {
    let world = World::open();
    let on = json!({
        "event": { "kinds": ["copy"], "causes": ["migrate-to-device", "migrate-to-system"] },
        "occurrence": { "probability": { "per-million": 100_000, "seed": 7 } },
    });
    world.rule("fails", &on, &json!({ "kind": "fail", "error": "dma-read" }));
    for round in 0..20 {
        let pattern = Pattern::new(round);
        let region = Region::filled(PAGES, pattern);
        let _ = world.device.try_migrate(region.span(), Direction::ToDevice);
        let _ = world.device.try_migrate(region.span(), Direction::ToSystem);
        region.check(pattern);
    }
    assert!(world.fired("fails") > 0);
    world.rules.remove("fails");
    assert_works();
}

fn late_fences_are_waited_for() {
    let (world, pattern) = (World::open(), Pattern::new(1));
    let on = json!({ "event": { "kinds": ["fence"] }, "limit": 4 });
    world.rule("late", &on, &json!({ "kind": "delay", "ns": 30_000_000 }));
    let region = on_device(&world.device, PAGES, pattern);
    world.device.to_system(region.span());
    region.check(pattern);
    assert!(world.fired("late") >= 2);
}

fn lost_interrupts_are_noticed() {
    let (world, pattern) = (World::open(), Pattern::new(1));
    // The fence is late as well, or the driver would have seen it before it went to sleep.
    let fence = json!({ "event": { "kinds": ["fence"] }, "limit": 1 });
    world.rule("late", &fence, &json!({ "kind": "delay", "ns": 50_000_000 }));
    let interrupt = json!({ "event": { "kinds": ["interrupt"] }, "limit": 1 });
    world.rule("lost", &interrupt, &json!({ "kind": "drop" }));
    let region = on_device(&world.device, PAGES, pattern);
    assert_eq!((world.fired("late"), world.fired("lost")), (1, 1));
    region.check(pattern);
}

/// Of two that migrate side by side each waits for its own.
fn interrupts_that_others_overtake_are_not_missed() {
    let world = World::open();
    // The fences are late as well, or the driver would have seen them before it went to sleep.
    let fence = json!({ "event": { "kinds": ["fence"] } });
    world.rule("late", &fence, &json!({ "kind": "delay", "ns": 3_000_000 }));
    let on = json!({ "event": { "kinds": ["interrupt"] }, "occurrence": { "every-nth": 2 } });
    world.rule("overtaken", &on, &json!({ "kind": "reorder", "ns": 50_000_000 }));
    let children: Vec<Child> = (0..2)
        .map(|tag| {
            Child::spawn(move || {
                let (device, pattern) = (Device::open(), Pattern::new(tag));
                for _ in 0..10 {
                    let region = Region::filled(PAGES, pattern);
                    device.to_device(region.span());
                    device.assert_digests(region.span(), PAGES, |index| pattern.digest(index));
                    device.to_system(region.span());
                    region.check(pattern);
                }
            })
        })
        .collect();
    children.into_iter().for_each(Child::succeed);
    assert!(world.fired("overtaken") > 0);
}

fn interrupts_that_come_twice_mean_nothing() {
    let (world, pattern) = (World::open(), Pattern::new(1));
    let on = json!({ "event": { "kinds": ["interrupt"] } });
    world.rule("twice", &on, &json!({ "kind": "double" }));
    for _ in 0..10 {
        let region = on_device(&world.device, PAGES, pattern);
        world.device.to_system(region.span());
        region.check(pattern);
    }
    assert!(world.fired("twice") > 0);
}

fn interrupts_without_a_reason_mean_nothing() {
    let (world, pattern) = (World::open(), Pattern::new(1));
    for vector in 0..4 {
        let name = format!("spurious-{vector}");
        let on = json!({ "event": { "kinds": ["copy"] } });
        world.rule(&name, &on, &json!({ "kind": "spurious-interrupt", "vector": vector }));
        let region = on_device(&world.device, PAGES, pattern);
        world.device.to_system(region.span());
        region.check(pattern);
        assert!(world.fired(&name) > 0);
        world.rules.remove(&name);
    }
}

/// The records of the page that the channel waits at are missing among those of the pages behind it, as often as that is reported.
fn lost_records_of_faults_blame_no_other_page() {
    let (world, compute, region) = (World::open(), Compute::bind(), Region::new(4));
    region.protect(0..4, ProtFlags::PROT_READ);
    let first = region.span().address;
    let on = json!({ "event": { "kinds": ["fault-recorded"], "addresses": format!("{first:#x}+4K") } });
    world.rule("lost", &on, &json!({ "kind": "drop" }));
    assert_eq!(compute.try_write(region.span(), 1), Err(LaunchError::Fault(first, FaultAccess::Write)));
    assert!(world.fired("lost") >= 2, "the fault was reported again after a replay");
}

fn unbinding_waits_for_a_copy_that_is_held() {
    let world = World::open();
    let function = Function::of(&world.device);
    for direction in [Direction::ToDevice, Direction::ToSystem] {
        let child = world.held_migration(direction, Pattern::new(1));
        thread::scope(|scope| {
            let unbinding = scope.spawn(|| function.unbind());
            thread::sleep(Duration::from_millis(20));
            assert!(!unbinding.is_finished(), "the driver has left while a copy was under way");
            assert!(world.window().resume(COPY), "nothing is held any more");
            unbinding.join().expect("unbind");
        });
        world.window().clear(COPY);
        child.succeed();
        function.bind();
    }
    assert_works();
}

/// Each hold comes, holds what it is to hold, and ends when it is told to.
fn holds_come_each_time() {
    const ROUNDS: u64 = 10;
    let world = World::open();
    for round in 0..ROUNDS {
        for direction in [Direction::ToDevice, Direction::ToSystem] {
            let child = world.held_migration(direction, Pattern::new(round));
            assert!(world.window().resume(COPY), "nothing is held any more in round {round}");
            world.window().clear(COPY);
            child.succeed();
        }
    }
}

fn bad_requests_are_refused() {
    let world = World::open();
    for (execute, arguments) in [
        ("no-such-thing", Value::Null),
        ("set-breakpoint", json!({ "name": "a", "step": "no-such-step" })),
        ("set-breakpoint", json!({ "name": "", "step": "before-get" })),
        ("add-rule", json!({ "name": "a", "action": { "kind": "fail", "error": "no-such-error" } })),
        ("resume", json!({ "name": "nobody" })),
    ] {
        let message = world.window().ask(execute, &arguments).expect_err("a refusal");
        assert!(!message.is_empty() && !message.contains('\n'), "{message}");
    }
    assert_works();
}
