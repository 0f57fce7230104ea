// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Processes that end, address spaces that run out, and a device that goes.

use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::mman::ProtFlags;
use nix::sys::signal::Signal;

use super::super::fixture::assert_works;
use super::check_counting;
use crate::bus::Function;
use crate::compute::{Compute, LaunchError};
use crate::process::{Child, Event};
use crate::region::Region;
use crate::suite::test_list;

test_list! { "svm":
    sigkill_during_kernels.patience(2);
    exit_without_closing;
    many_address_spaces.patience(2);
    unbind_with_a_bound_file.disruptive().patience(2);
}

fn sigkill_during_kernels() {
    for round in 0..10 {
        let started = Event::new();
        let child = Child::spawn(|| {
            let (compute, region) = (Compute::bind(), Region::new(64));
            started.signal();
            loop {
                compute.write(region.span(), 1);
                compute.random_update(region.span(), 5, 1 << 22);
            }
        });
        started.wait();
        thread::sleep(Duration::from_millis(3 * round));
        child.signal(Signal::SIGKILL);
        child.die_of(Signal::SIGKILL);
    }
    let (compute, region) = (Compute::bind(), Region::new(4));
    compute.write(region.span(), 1);
    check_counting(&region, 1);
}

fn exit_without_closing() {
    Child::spawn(|| {
        let (compute, region) = (Compute::bind(), Region::new(8));
        compute.write(region.span(), 1);
        std::mem::forget((compute, region));
    })
    .succeed();
    let (compute, region) = (Compute::bind(), Region::new(4));
    compute.write(region.span(), 1);
    check_counting(&region, 1);
}

fn many_address_spaces() {
    let mut bound = Vec::new();
    let error = loop {
        let compute = Compute::unbound();
        match compute.try_bind() {
            Ok(_) => bound.push(compute),
            Err(error) => break error,
        }
    };
    assert_eq!(error, Errno::ENOSPC);
    assert_eq!(bound.len(), 255);
    let region = Region::new(4);
    for (seed, compute) in (0..).zip(bound.iter().step_by(50)) {
        compute.write(region.span(), seed);
        check_counting(&region, seed);
    }
    drop(bound);
    let compute = Compute::bind();
    compute.write(region.span(), 77);
    check_counting(&region, 77);
}

fn unbind_with_a_bound_file() {
    let (compute, region) = (Compute::bind(), Region::new(16));
    let function = Function::of(compute.device());
    compute.write(region.span(), 1);
    function.unbind();
    assert_eq!(compute.try_read(region.span()), Err(LaunchError::Other(Errno::ENODEV)));
    check_counting(&region, 1);
    region.protect(0..4, ProtFlags::PROT_READ);
    region.unmap(8..16);
    function.bind();
    assert_eq!(compute.try_read(region.part(0..8)), Err(LaunchError::Other(Errno::ENODEV)));
    drop(compute);
    let compute = Compute::bind();
    compute.write(region.part(4..8), 5);
    drop(compute);
    assert_works();
}
