// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Long random sequences of everything a process can do to its memory, against a model of what it must then hold.

use std::ops::Range;

use ersatz_abi::counter::Counter;
use ersatz_uapi::Direction;
use nix::sys::mman::{MmapAdvise, ProtFlags};

use crate::device::Device;
use crate::pattern::{PAGE, Pattern, dice};
use crate::process::Child;
use crate::region::{READ_WRITE, Region};
use crate::suite::{Need, test_list};

test_list! { "random":
    small_pages.patience(3);
    huge_pages.needs(&[Need::HugePages, Need::VramPages(2048)]).patience(3);
    with_forks.patience(3);
}

/// What each page must hold: the tag of a pattern, or nothing yet.
type Model = Vec<Option<u64>>;

fn expected(model: &Model, index: usize) -> [u8; PAGE] {
    model[index].map_or([0; PAGE], |tag| Pattern::new(tag).page(index))
}

fn check(region: &Region, model: &Model, pages: Range<usize>) {
    for index in pages {
        assert!(region.read(index) == expected(model, index), "page {index} does not hold what was written last");
    }
}

/// One random step.
fn step(device: &Device, region: &Region, model: &mut Model, dice: &mut fastrand::Rng) {
    let start = dice.usize(0..region.pages());
    let pages = start..(start + dice.usize(1..=40)).min(region.pages());
    match dice.u8(0..10) {
        0..=2 => drop(device.migrate(region.part(pages), Direction::ToDevice)),
        3 => drop(device.migrate(region.part(pages), Direction::ToSystem)),
        4..=5 => {
            let tag = dice.u64(..);
            for index in pages {
                region.write(index, &Pattern::new(tag).page(index));
                model[index] = Some(tag);
            }
        }
        6 => check(region, model, pages),
        7 => {
            let (digests, _) = device.try_digest(region.part(pages.clone())).expect("ERSATZ_IOC_DIGEST");
            for (index, digest) in pages.zip(digests) {
                assert_eq!(digest, u64::from(crc32c::crc32c(&expected(model, index))), "page {index} to the device");
            }
        }
        8 => {
            region.protect(pages.clone(), ProtFlags::PROT_READ);
            device.migrate(region.part(pages.clone()), Direction::ToDevice);
            region.protect(pages, READ_WRITE);
        }
        _ => {
            region.advise(pages.clone(), MmapAdvise::MADV_DONTNEED).expect("MADV_DONTNEED");
            model[pages].fill(None);
        }
    }
}

fn walk(region: &Region, steps: usize, between: impl Fn(&Device, &Model, &mut fastrand::Rng)) {
    let device = Device::open();
    let watch = device.watch();
    let mut model: Model = vec![None; region.pages()];
    let mut dice = dice(1);
    for _ in 0..steps {
        step(&device, region, &mut model, &mut dice);
        between(&device, &model, &mut dice);
    }
    check(region, &model, 0..region.pages());
    assert!(watch.pages(Counter::BytesMigratedToDevice) > 0, "no step went to the device");
}

fn small_pages() {
    walk(&Region::new(160), 400, |_, _, _| {});
}

fn huge_pages() {
    walk(&Region::huge(2), 200, |_, _, _| {});
}

fn with_forks() {
    let region = Region::new(96);
    walk(&region, 150, |device, model, dice| {
        if dice.u8(0..10) == 0 {
            let seed = dice.u64(..);
            Child::spawn(|| {
                let (mut own, mut dice) = (model.clone(), fastrand::Rng::with_seed(seed));
                for _ in 0..8 {
                    step(device, &region, &mut own, &mut dice);
                }
                check(&region, &own, 0..region.pages());
            })
            .succeed();
        }
    });
}
