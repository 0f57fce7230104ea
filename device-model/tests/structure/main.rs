// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The structure of the workspace's sources: no two files need each other, and layers depend in one direction.

mod code;
mod graph;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use graph::Crate;

const ABI: &str = "device-model/abi/src/lib.rs";
const DEVICE_MODEL: &str = "device-model/src/lib.rs";
const DRIVER: &str = "guest-driver/src/main.rs";
const HOLD: &str = "guest-driver/hold/src/main.rs";
const RAM: &str = "guest-driver/examples/ram_device/src/main.rs";
const VMM: &str = "vmm/src/lib.rs";
const GUEST_TESTS: &str = "guest-image/tests/src/main.rs";

/// Every crate of the workspace that has more than a file.
const CRATES: [&str; 14] = [
    ABI,
    DEVICE_MODEL,
    "device-model/testing/src/lib.rs",
    VMM,
    DRIVER,
    HOLD,
    RAM,
    GUEST_TESTS,
    "guest-driver/uapi/src/lib.rs",
    "guest-image/src/lib.rs",
    "guest-image/scenario/src/lib.rs",
    "guest-image/init/src/lib.rs",
    "guest-image/init/src/main.rs",
    "ci/src/main.rs",
];

fn read(root: &str) -> Crate {
    let workspace: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    Crate::read(&workspace.join(root))
}

#[test]
fn no_two_files_need_each_other() {
    let circles: Vec<_> = CRATES
        .into_iter()
        .flat_map(|root| read(root).circles().into_iter().map(move |circle| (root, circle)))
        .collect();
    assert!(circles.is_empty(), "these files need each other: {circles:#?}");
}

/// Which crates of the workspace a crate names.
fn crates_named_in(root: &str) -> BTreeSet<String> {
    let read = read(root);
    let heads = read.all_paths().map(|(_, path)| path.segments[0].clone());
    heads.filter(|head| head == "ersatz" || head.starts_with("ersatz_")).collect()
}

#[test]
fn the_device_model_rests_on_the_abi_and_the_vmm_on_both() {
    let named = |crates: &[&str]| crates.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(crates_named_in(ABI), named(&[]));
    assert_eq!(crates_named_in(DEVICE_MODEL), named(&["ersatz_abi"]));
    let vmm = crates_named_in(VMM);
    assert!(vmm.is_superset(&named(&["ersatz_device_model"])), "{vmm:?}");
    for module in [DRIVER, HOLD, RAM] {
        assert_eq!(crates_named_in(module), named(&[]), "a kernel module links no crate of the workspace");
    }
}

/// Threads of the VMM have roles, which give their names: `threads.rs` spawns them all. Its `spawn` and `spawn_scoped` are named by
/// themselves, so what others must not name are the standard library's.
#[test]
fn the_vmm_spawns_threads_in_one_place() {
    let spawns = |path: &code::Path| {
        let last_two: Vec<&str> = path.segments.iter().rev().take(2).map(String::as_str).collect();
        matches!(last_two[..], ["spawn" | "Builder", "thread"])
    };
    let vmm = read(VMM);
    let places: BTreeSet<_> =
        vmm.all_paths().filter(|(_, path)| spawns(path)).map(|(module, _)| module.join("::")).collect();
    assert_eq!(places, BTreeSet::from(["threads".to_owned()]));
}

/// The driver compiles the ABI's files as a module. Its abstractions of the kernel know neither the driver nor its device.
#[test]
fn the_driver_rests_on_the_abi_and_on_zone_device() {
    let driver = read(DRIVER);
    let is_below =
        |module: &[String]| module.first().is_some_and(|first| first == "zone_device" || first == "kernel_ext");
    let is_above = |module: &[String]| module.first().is_some_and(|first| first == "driver");
    assert!(driver.modules().any(is_below) && driver.modules().any(is_above));
    for module in driver.modules().filter(|module| is_below(module)) {
        let above: Vec<_> = driver.needs(module).into_iter().filter(|needed| is_above(needed)).collect();
        assert!(above.is_empty(), "{} needs {above:?}", module.join("::"));
    }
    let names_the_abi = |path: &code::Path| path.segments.iter().any(|segment| segment == "abi");
    for (module, path) in driver.all_paths().filter(|(module, _)| is_below(module)) {
        assert!(!names_the_abi(path), "{} names {path:?}", module.join("::"));
    }
}
