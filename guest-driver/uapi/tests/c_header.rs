// SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note OR Apache-2.0 OR BSD-3-Clause
//! `ersatz.h` and the crate say the same: a C compiler and rustc each state numbers, sizes and offsets.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::mem::{offset_of, size_of};
use std::path::PathBuf;
use std::process::Command;

use ersatz_uapi as uapi;

/// What the Rust side says, by the C expression for the same. Sizes of structures are checked to be the sum of their
/// fields' sizes: the driver copies them to user space whole, padding would leak.
fn rust_side() -> BTreeMap<String, u64> {
    let mut facts = BTreeMap::new();
    macro_rules! structure {
        ($name:ident, $c:literal: $($field:ident: $type:ty),*) => {
            facts.insert(concat!("sizeof(struct ", $c, ")").to_owned(), size_of::<uapi::$name>() as u64);
            $(facts.insert(
                concat!("offsetof(struct ", $c, ", ", stringify!($field), ")").to_owned(),
                offset_of!(uapi::$name, $field) as u64,
            );)*
            assert_eq!(size_of::<uapi::$name>(), 0 $(+ size_of::<$type>())*, "padding in {}", stringify!($name));
            // All fields are named here, with their types.
            let uapi::$name { $($field),* } = uapi::$name::default();
            $(let _: $type = $field;)*
        };
    }
    structure!(Info, "ersatz_info": abi_version: u32, memory_type: u32, vram_bytes: u64, vram_free: u64,
        cpu_faults: u64, cpu_faults_failed: u64, pci_address: u32, reserved: u32);
    structure!(Migrate, "ersatz_migrate": address: u64, length: u64, direction: u32, flags: u32, moved: u64, left: u64);
    structure!(Residency, "ersatz_residency": address: u64, length: u64, states: u64);
    structure!(Digest, "ersatz_digest": address: u64, length: u64, digests: u64, in_vram: u64);
    structure!(Counters, "ersatz_counters": values: [u64; 64]);
    structure!(Evict, "ersatz_evict": moved: u64, left: u64);
    structure!(Mark, "ersatz_mark": value: u64);
    for (name, value) in [
        ("ERSATZ_IOC_MAGIC", u64::from(uapi::IOC_MAGIC)),
        ("ERSATZ_IOC_INFO", uapi::IOC_INFO.into()),
        ("ERSATZ_IOC_MIGRATE", uapi::IOC_MIGRATE.into()),
        ("ERSATZ_IOC_RESIDENCY", uapi::IOC_RESIDENCY.into()),
        ("ERSATZ_IOC_DIGEST", uapi::IOC_DIGEST.into()),
        ("ERSATZ_IOC_COUNTERS", uapi::IOC_COUNTERS.into()),
        ("ERSATZ_IOC_EVICT", uapi::IOC_EVICT.into()),
        ("ERSATZ_IOC_MARK", uapi::IOC_MARK.into()),
        ("ERSATZ_MEMORY_PRIVATE", uapi::MemoryType::Private as u64),
        ("ERSATZ_MEMORY_COHERENT", uapi::MemoryType::Coherent as u64),
        ("ERSATZ_TO_DEVICE", uapi::Direction::ToDevice as u64),
        ("ERSATZ_TO_SYSTEM", uapi::Direction::ToSystem as u64),
        ("ERSATZ_PAGE_NONE", uapi::PageState::None as u64),
        ("ERSATZ_PAGE_SYSTEM", uapi::PageState::System as u64),
        ("ERSATZ_PAGE_DEVICE", uapi::PageState::Device as u64),
        ("ERSATZ_PAGE_SWAPPED", uapi::PageState::Swapped as u64),
    ] {
        facts.insert(name.to_owned(), value);
    }
    facts
}

/// Has a C compiler say what these expressions are with `ersatz.h`.
fn c_side<'a>(expressions: impl Iterator<Item = &'a String>) -> BTreeMap<String, u64> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let (source, program) = (folder.join("c_header.c"), folder.join("c_header"));
    let mut text = String::from("#include <stddef.h>\n#include <stdio.h>\n#include \"ersatz.h\"\nint main(void) {\n");
    for expression in expressions {
        text += &format!("printf(\"%llu {expression}\\n\", (unsigned long long)({expression}));\n");
    }
    text += "return 0; }\n";
    fs::write(&source, text).unwrap();
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let status = Command::new(&compiler)
        .args(["-Wall", "-Wextra", "-Werror", "-I", env!("CARGO_MANIFEST_DIR"), "-o"])
        .args([&program, &source])
        .status()
        .unwrap_or_else(|error| panic!("cannot start the C compiler {compiler:?} ($CC, or cc): {error}"));
    assert!(status.success(), "the header does not compile");
    let output = Command::new(&program).output().unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    output
        .lines()
        .map(|line| {
            let (value, expression) = line.split_once(' ').unwrap();
            (expression.to_owned(), value.parse().unwrap())
        })
        .collect()
}

/// The names that the header defines, without their values.
fn c_names() -> Vec<String> {
    let header = include_str!("../ersatz.h");
    let macros = header.lines().filter_map(|line| line.strip_prefix("#define ERSATZ_"));
    let macros = macros.filter_map(|line| line.split_once(' ')).map(|(name, _)| format!("ERSATZ_{name}"));
    let structures = header.lines().filter_map(|line| line.strip_prefix("struct ")?.strip_suffix(" {"));
    macros.chain(structures.map(|name| format!("sizeof(struct {name})"))).collect()
}

#[test]
fn the_header_says_what_the_crate_says() {
    let rust = rust_side();
    assert_eq!(c_side(rust.keys()), rust);
}

#[test]
fn nothing_in_the_header_goes_unchecked() {
    let rust = rust_side();
    let names = c_names();
    assert!(names.len() > 20, "only {names:?} were found in the header");
    for name in names {
        assert!(rust.contains_key(&name), "{name} is in ersatz.h but not compared with the crate");
    }
}
