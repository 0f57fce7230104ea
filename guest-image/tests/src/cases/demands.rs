// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The host demands VRAM back and returns it: the driver hands over what it can, no content is lost, and all of it is of use again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ersatz_abi::regs;
use ersatz_uapi::Direction;
use serde_json::{Value, json};

use super::fixture::{assert_works, on_device};
use crate::bus::Function;
use crate::compute::Compute;
use crate::device::Device;
use crate::device_rules::DeviceRules;
use crate::pattern::{PAGE, Pattern};
use crate::process::Child;
use crate::region::Region;
use crate::suite::{Need, test_list};

test_list! { "demands":
    free_pages_are_handed_over_and_of_use_again.needs(NEEDS).patience(2);
    what_is_in_use_moves_away.needs(FILLS).patience(2);
    a_range_is_handed_over_whoever_uses_it.needs(FILLS).disruptive().patience(2);
    all_of_vram_goes_and_comes_back.needs(FILLS).patience(2);
    huge_pages_move_away.needs(HUGE).patience(2);
    kernels_go_on_without_vram.needs(FILLS).patience(2);
    what_cannot_move_stays.needs(FILLS).disruptive().patience(2);
    what_is_moving_stays.needs(FILLS).patience(2);
    demands_come_one_after_the_other.needs(NEEDS).patience(2);
    a_driver_that_is_late_does_no_harm.needs(FILLS).patience(2);
    vram_shrinks_and_grows_beside_migrations.needs(FILLS).patience(3);
    what_is_handed_over_outlasts_the_driver.needs(NEEDS).disruptive().patience(2);
    a_demand_waits_for_a_driver.needs(NEEDS).disruptive().patience(2);
}

const NEEDS: &[Need] = &[Need::ControlWindow, Need::VramPages(4 * BLOCK)];
const FILLS: &[Need] = &[Need::ControlWindow, Need::VramPages(4 * BLOCK), Need::FillableVram(16384)];
const HUGE: &[Need] =
    &[Need::ControlWindow, Need::VramPages(4 * BLOCK), Need::FillableVram(16384), Need::HugePages, Need::Private];

/// Pages of a block of 2 MiB.
const BLOCK: u64 = 512;
const PATIENCE: Duration = Duration::from_secs(20);

/// The host of a device, and the device. It returns all that was handed over in the end.
struct Host {
    device: Device,
    rules: DeviceRules,
    /// Free pages in the beginning.
    free: u64,
}

impl Host {
    fn open() -> Self {
        let device = Device::open();
        let (rules, free) = (DeviceRules::of(&device), device.free_pages());
        Self { device, rules, free }
    }

    /// The same behind a new driver.
    fn with_new_driver(&self) -> Self {
        let device = Device::open();
        Self { rules: DeviceRules::of(&device), device, free: self.free }
    }

    fn ask(&self, execute: &str, arguments: &Value) -> Value {
        self.rules.window().must(execute, arguments)
    }

    /// A number of what the device shows of its memory.
    fn number(&self, name: &str) -> u64 {
        let memory = self.ask("memory", &Value::Null);
        memory[name].as_u64().unwrap_or_else(|| panic!("no {name} in {memory}"))
    }

    fn handed_over(&self) -> u64 {
        self.number("handed-over")
    }

    /// Demands memory, or sets a limit, and waits for the answer. Returns how many pages are handed over then.
    fn demand(&self, execute: &str, arguments: &Value) -> u64 {
        let (answered, expired) = (self.number("answered"), self.number("expired"));
        self.ask(execute, arguments);
        self.wait("the answer", || self.number("answered") > answered);
        assert_eq!(self.number("expired"), expired, "the driver was late");
        self.handed_over()
    }

    fn wait(&self, what: &str, mut is_there: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_there() {
            assert!(Instant::now() < deadline, "waited in vain for {what}: {}", self.ask("memory", &Value::Null));
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Returns all, and waits until the driver has it.
    fn return_all(&self) {
        self.ask("return-memory", &json!({}));
        self.wait("the memory", || self.handed_over() == 0);
        self.device.assert_free(self.free);
    }

    /// Fills all of VRAM that is free, and sees it read there by the device.
    fn fill(&self, pattern: Pattern) -> Region {
        let region = on_device(&self.device, self.free as usize, pattern);
        self.device.assert_digests(region.span(), region.pages(), |index| pattern.digest(index));
        region
    }

    /// Returns all, and sees that all is of use again.
    fn end(&self) {
        self.return_all();
        drop(self.fill(Pattern::new(77)));
        self.device.assert_free(self.free);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Also of a test that failed: the next ones have the same device.
        let _ = self.rules.window().ask("return-memory", &json!({}));
    }
}

fn free_pages_are_handed_over_and_of_use_again() {
    let host = Host::open();
    assert_eq!(host.demand("demand-memory", &json!({ "pages": 700 })), 700);
    host.device.assert_free(host.free - 700);
    let pattern = Pattern::new(1);
    let region = on_device(&host.device, 200, pattern);
    host.device.assert_digests(region.span(), 200, |index| pattern.digest(index));
    // Part of it comes back, then the rest.
    host.ask("return-memory", &json!({ "pages": 100 }));
    host.device.assert_free(host.free - 800);
    region.check(pattern);
    drop(region);
    host.return_all();
    assert_works();
}

fn what_is_in_use_moves_away() {
    let (host, pattern) = (Host::open(), Pattern::new(1));
    let region = host.fill(pattern);
    let half = host.free / 2;
    assert_eq!(host.demand("demand-memory", &json!({ "pages": half })), half);
    let left = host.device.on_device(region.span()) as u64;
    assert!(left <= host.free - half, "{left} pages of {} are still there", host.free);
    region.check(pattern);
    // There is room for half of it now.
    let done = host.device.migrate(region.span(), Direction::ToDevice);
    assert!(done.left >= half, "{done:?}");
    region.check(pattern);
    drop(region);
    host.device.assert_free(host.free - half);
    host.end();
}

fn a_range_is_handed_over_whoever_uses_it() {
    let (host, pattern) = (Host::open(), Pattern::new(1));
    let region = host.fill(pattern);
    let (first, pages) = (BLOCK / 2, BLOCK);
    let demand = json!({ "offset": first * PAGE as u64, "pages": pages });
    assert_eq!(host.demand("demand-memory", &demand), pages);
    region.check(pattern);
    let function = Function::of(&host.device);
    function.unbind();
    {
        let registers = function.registers();
        registers.write64(regs::HANDED_OVER, 0);
        let found = (registers.read64(regs::HANDED_OVER), registers.read64(regs::HANDED_OVER_END));
        assert_eq!(found, (first * PAGE as u64, (first + pages) * PAGE as u64));
    }
    function.bind();
    region.check(pattern);
    drop(region);
    let host = host.with_new_driver();
    host.device.assert_free(host.free - pages);
    host.end();
}

fn all_of_vram_goes_and_comes_back() {
    let (host, pattern) = (Host::open(), Pattern::new(1));
    let region = host.fill(pattern);
    for _ in 0..2 {
        assert_eq!(host.demand("demand-memory", &json!({})), host.number("pages"));
        assert_eq!((host.device.on_device(region.span()), host.device.free_pages()), (0, 0));
        let done = host.device.migrate(region.span(), Direction::ToDevice);
        assert_eq!((done.moved, done.left), (0, host.free), "there is no VRAM");
        region.check(pattern);
        host.ask("return-memory", &json!({}));
        host.device.assert_free(host.free);
        host.device.to_device(region.span());
        host.device.assert_digests(region.span(), region.pages(), |index| pattern.digest(index));
    }
    drop(region);
    host.end();
}

fn huge_pages_move_away() {
    let (host, pattern) = (Host::open(), Pattern::new(1));
    let region = Region::huge((host.free / BLOCK) as usize);
    region.fill(pattern);
    host.device.to_device(region.span());
    // A part of a block has all of its folio move.
    let demand = json!({ "offset": (BLOCK + 3) * PAGE as u64, "pages": 5 });
    assert_eq!(host.demand("demand-memory", &demand), 5);
    region.check_part(0..7, pattern);
    assert_eq!(host.demand("demand-memory", &json!({ "pages": BLOCK })), BLOCK + 5);
    assert_eq!(host.demand("demand-memory", &json!({})), host.number("pages"));
    assert_eq!(host.device.on_device(region.span()), 0);
    region.check(pattern);
    drop(region);
    host.end();
}

/// What a kernel works on is in the system's memory then.
fn kernels_go_on_without_vram() {
    let (host, pattern) = (Host::open(), Pattern::new(1));
    {
        let compute = Compute::bind();
        let region = on_device(compute.device(), 64, pattern);
        assert_eq!(compute.try_read(region.span()), Ok(()));
        host.demand("demand-memory", &json!({}));
        assert_eq!(compute.try_read(region.span()), Ok(()));
        region.check(pattern);
    }
    host.end();
}

/// A page whose copy fails each time is where it was in the end.
fn what_cannot_move_stays() {
    let (host, pattern) = (Host::open(), Pattern::new(1));
    let region = Region::new(8);
    region.fill(pattern);
    host.device.to_device(region.span());
    let place = format!("{:#x}+4K", region.page(3).address);
    let on = json!({ "event": { "kinds": ["copy"], "causes": ["evict"], "addresses": place } });
    host.rules.add("fails", &on, &json!({ "kind": "fail", "error": "dma-write" }));
    let all = host.number("pages");
    assert_eq!(host.demand("demand-memory", &json!({})), all - 1);
    assert!(host.rules.fired("fails") >= 2, "the page was tried with others, and alone");
    assert_eq!(host.device.on_device(region.span()), 1);
    host.device.assert_digests(region.page(3), 1, |_| pattern.digest(3));
    host.rules.remove("fails");
    assert_eq!(host.demand("demand-memory", &json!({})), all);
    region.check(pattern);
    drop(region);
    host.end();
}

/// What is held on its way back is nobody's to move meanwhile.
fn what_is_moving_stays() {
    let (host, pattern) = (Host::open(), Pattern::new(1));
    const COPY: &str = "copy";
    let causes = json!({ "causes": ["migrate-to-system"] });
    host.rules.window().hold(COPY, "before-piece", &causes, 1, PATIENCE).expect("a breakpoint");
    let child = Child::spawn(|| {
        let device = Device::open();
        let region = on_device(&device, 8, pattern);
        device.to_system(region.span());
        region.check(pattern);
    });
    assert!(host.rules.window().wait_held(COPY, PATIENCE), "nothing is held");
    let all = host.number("pages");
    // The device's other channel copies what else there is.
    assert_eq!(host.demand("demand-memory", &json!({})), all - 8);
    host.rules.window().clear(COPY);
    child.succeed();
    assert_eq!(host.demand("demand-memory", &json!({})), all);
    host.end();
}

fn demands_come_one_after_the_other() {
    let host = Host::open();
    let before = host.number("answered");
    for pages in 1..=20 {
        host.ask("demand-memory", &json!({ "pages": pages }));
    }
    host.wait("the answers", || host.number("answered") == before + 20);
    assert_eq!(host.handed_over(), 210);
    host.device.assert_free(host.free - 210);
    host.return_all();
    assert_works();
}

/// A deadline that no driver can keep: the demand is over, the memory may be handed over all the same, and nothing hangs.
fn a_driver_that_is_late_does_no_harm() {
    let (host, pattern) = (Host::open(), Pattern::new(1));
    let region = host.fill(pattern);
    let (answered, expired) = (host.number("answered"), host.number("expired"));
    for _ in 0..10 {
        host.ask("demand-memory", &json!({ "pages": 300, "deadline-ns": 1 }));
    }
    host.wait("the ends", || host.number("answered") + host.number("expired") >= answered + expired + 10);
    assert!(host.number("expired") > expired, "a driver answers within a nanosecond");
    region.check(pattern);
    drop(region);
    // What it was about to hand over comes before what is demanded now, so that the host has all of it to return.
    host.demand("demand-memory", &json!({}));
    host.end();
}

/// Says that it is over when it is dropped: if the test fails, too.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn vram_shrinks_and_grows_beside_migrations() {
    let host = Host::open();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for tag in 0..2 {
            let is_over = &is_over;
            scope.spawn(move || {
                let (device, pattern) = (Device::open(), Pattern::new(tag));
                let region = Region::filled(3 * BLOCK as usize, pattern);
                while !is_over.load(Ordering::Relaxed) {
                    device.migrate(region.span(), Direction::ToDevice);
                    region.check(pattern);
                    device.migrate(region.span(), Direction::ToSystem);
                }
                region.check(pattern);
            });
        }
        let _over = Over(&is_over);
        let all = host.number("pages");
        for round in 0..12 {
            let limit = [all / 8, all / 2, 0, all][round % 4];
            let (answered, before) = (host.number("answered"), host.handed_over());
            host.ask("limit-memory", &json!({ "pages": limit }));
            if all - before > limit {
                // Pages that are just being moved may stay.
                host.wait("the answer", || host.number("answered") > answered);
            } else {
                host.wait("the memory", || host.handed_over() == all - limit);
            }
        }
    });
    host.return_all();
    assert_eq!(host.demand("limit-memory", &json!({ "pages": 0 })), host.number("pages"));
    host.end();
}

fn what_is_handed_over_outlasts_the_driver() {
    let host = Host::open();
    assert_eq!(host.demand("demand-memory", &json!({ "offset": 0, "pages": 600 })), 600);
    let function = Function::of(&host.device);
    function.unbind();
    assert_eq!(host.handed_over(), 600);
    function.bind();
    let host = host.with_new_driver();
    host.device.assert_free(host.free - 600);
    let pattern = Pattern::new(1);
    on_device(&host.device, 64, pattern).check(pattern);
    host.return_all();
    assert_works();
}

fn a_demand_waits_for_a_driver() {
    let host = Host::open();
    let function = Function::of(&host.device);
    function.unbind();
    let answered = host.number("answered");
    host.ask("demand-memory", &json!({ "pages": 50, "deadline-ns": 600_000_000_000_u64 }));
    thread::sleep(Duration::from_millis(20));
    assert_eq!((host.number("answered"), host.handed_over()), (answered, 0));
    function.bind();
    let host = host.with_new_driver();
    host.wait("the answer", || host.number("answered") == answered + 1);
    assert_eq!(host.handed_over(), 50);
    host.return_all();
    assert_works();
}
