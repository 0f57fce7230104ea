// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A device stops to answer for good while processes have pages on it. What they have there is lost, which they are told when they touch it; the driver leaves
//! the device without waiting for them.

use ersatz_uapi::Direction;
use nix::errno::Errno;
use nix::sys::mman::MmapAdvise;
use nix::sys::signal::Signal;

use super::fixture::{assert_works, on_device, send};
use crate::bus::{Function, load, load_with, unload};
use crate::config_space::{COMMAND, COMMAND_MEMORY, ConfigSpace, POWER_D3HOT, capability};
use crate::device::Device;
use crate::pattern::{PAGE, Pattern};
use crate::process::{Child, Event};
use crate::region::{HUGE_PAGE, Region};
use crate::suite::{Need, test_list};

test_list! { "lost":
    unbinding_does_not_wait_for_users.disruptive().patience(2);
    users_of_huge_pages_do_not_hold_it_up.needs(&[Need::HugePages, Need::VramPages(1024)]).disruptive().patience(2);
    a_device_that_sleeps_is_left.disruptive().patience(2);
    users_keep_the_module_until_they_let_go.disruptive().patience(2);
    twice_beside_the_same_user.disruptive().patience(2);
    a_huge_page_beside_what_was_lost_before.needs(&[Need::HugePages, Need::VramPages(1024)]).disruptive().patience(2);
}

/// Pages of a user, on the device.
const PAGES: usize = 40;
/// Parameters by which the driver does not hope for long that a device answers again.
const IMPATIENT: &str = "timeout_ms=300";

/// Calls `test` with a driver that soon gives up a device that is silent.
fn with_impatient_driver(test: impl FnOnce()) {
    unload().expect("unloading the driver");
    load_with(IMPATIENT);
    test();
    unload().expect("unloading the driver");
    load();
    assert_works();
}

/// Has the device fall silent and the driver leave it; then it answers again, and the driver comes back.
fn lose_and_find() {
    lose().bind();
    assert_works();
}

/// Has the device fall silent, and the driver leave it.
fn lose() -> Function {
    let function = Function::of(&Device::open());
    let config = ConfigSpace::of(&function);
    config.write16(COMMAND, config.read16(COMMAND) & !COMMAND_MEMORY);
    function.unbind();
    function
}

/// A process that has memory on the device when it signals `ready`, and does `then` with it after `go`.
fn user(ready: &Event, go: &Event, memory: impl FnOnce(&Device) -> Region, then: impl FnOnce(Region)) -> Child {
    let child = Child::spawn(|| {
        let device = Device::open();
        let region = memory(&device);
        drop(device);
        ready.signal();
        go.wait();
        then(region);
    });
    ready.wait();
    child
}

/// Touches a page, which ends this process.
fn touch(region: &Region, page: usize) -> ! {
    let byte = region.touch(page);
    panic!("a page that is lost holds {byte:#04x}");
}

fn small(device: &Device) -> Region {
    on_device(device, PAGES, Pattern::new(1))
}

/// As many single pages as take the most of a block.
fn many(device: &Device) -> Region {
    let region = Region::new(HUGE_PAGE / PAGE - PAGES / 2);
    region.advise(0..region.pages(), MmapAdvise::MADV_NOHUGEPAGE).expect("MADV_NOHUGEPAGE");
    region.fill(Pattern::new(1));
    send(device, &region);
    region
}

fn huge(device: &Device) -> Region {
    let region = Region::huge(1);
    region.fill(Pattern::new(1));
    send(device, &region);
    region
}

/// Several users at once: one that looks, two that share, one that forks later, and one that tries to have its pages migrated.
fn unbinding_does_not_wait_for_users() {
    let (ready, go) = (Event::new(), Event::new());
    with_impatient_driver(|| {
        let looks = user(&ready, &go, small, |region| touch(&region, PAGES - 1));
        let shares = Child::spawn(|| {
            let region = small(&Device::open());
            let heir = Child::spawn(|| {
                ready.signal();
                go.wait();
                touch(&region, 0);
            });
            heir.die_of(Signal::SIGBUS);
            touch(&region, 1);
        });
        ready.wait();
        let forks = user(&ready, &go, small, |region| {
            Child::spawn(|| touch(&region, 2)).die_of(Signal::SIGBUS);
            touch(&region, 3);
        });
        let migrates = user(&ready, &go, small, |region| {
            let device = Device::open();
            for direction in [Direction::ToDevice, Direction::ToSystem] {
                let moved = device.try_migrate(region.span(), direction).map(|request| request.moved);
                assert_eq!(moved, Ok(0), "lost pages are neither a device's nor the system's");
            }
            touch(&region, 7);
        });
        lose_and_find();
        let users = [looks, shares, forks, migrates];
        users.iter().for_each(|_| go.signal());
        users.into_iter().for_each(|user| user.die_of(Signal::SIGBUS));
        assert_works();
    });
}

/// A huge page, and one of which a part was unmapped before, and is after.
fn users_of_huge_pages_do_not_hold_it_up() {
    let (ready, go) = (Event::new(), Event::new());
    with_impatient_driver(|| {
        let whole = user(&ready, &go, huge, |region| touch(&region, 300));
        let memory = |device: &Device| {
            let region = huge(device);
            region.unmap(10..200);
            region
        };
        let part = user(&ready, &go, memory, |region| {
            region.unmap(0..5);
            touch(&region, 400);
        });
        lose_and_find();
        let users = [whole, part];
        users.iter().for_each(|_| go.signal());
        users.into_iter().for_each(|user| user.die_of(Signal::SIGBUS));
        assert_works();
    });
}

fn a_device_that_sleeps_is_left() {
    let (ready, go) = (Event::new(), Event::new());
    with_impatient_driver(|| {
        let child = user(&ready, &go, small, |region| touch(&region, 0));
        let function = Function::of(&Device::open());
        let config = ConfigSpace::of(&function);
        let control = config.capability(capability::POWER_MANAGEMENT) + 4;
        config.write16(control, POWER_D3HOT);
        function.unbind();
        go.signal();
        child.die_of(Signal::SIGBUS);
        function.bind();
        assert_works();
    });
}

fn users_keep_the_module_until_they_let_go() {
    let (ready, go) = (Event::new(), Event::new());
    with_impatient_driver(|| {
        let child = user(&ready, &go, small, |region| {
            region.unmap(0..PAGES);
            ready.signal();
            go.wait();
        });
        lose();
        assert_eq!(unload().unwrap_err(), Errno::EWOULDBLOCK, "of a module whose pages a process has");
        go.signal();
        ready.wait();
        unload().expect("unloading the driver once the pages are unmapped");
        load();
        assert_works();
        go.signal();
        child.succeed();
    });
}

/// What stands in for small pages lies where a huge one had room otherwise.
fn a_huge_page_beside_what_was_lost_before() {
    let (ready, go, done) = (Event::new(), Event::new(), Event::new());
    with_impatient_driver(|| {
        let first = user(&ready, &done, small, |_| ());
        lose_and_find();
        let second = user(&ready, &go, many, |region| touch(&region, 0));
        lose_and_find();
        // In each of two blocks there is something free now, and a block's worth in both.
        done.signal();
        first.succeed();
        let third = user(&ready, &go, huge, |region| touch(&region, 0));
        lose_and_find();
        let users = [second, third];
        users.iter().for_each(|_| go.signal());
        users.into_iter().for_each(|user| user.die_of(Signal::SIGBUS));
        assert_works();
    });
}

/// What was lost once is not lost again.
fn twice_beside_the_same_user() {
    let (ready, go) = (Event::new(), Event::new());
    with_impatient_driver(|| {
        let first = user(&ready, &go, small, |region| touch(&region, 0));
        lose_and_find();
        let second = user(&ready, &go, small, |region| touch(&region, 0));
        lose_and_find();
        let users = [first, second];
        users.iter().for_each(|_| go.signal());
        users.into_iter().for_each(|user| user.die_of(Signal::SIGBUS));
        assert_works();
    });
}
