// SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note OR Apache-2.0 OR BSD-3-Clause
//! `ersatz.h`, `ersatz_hold.h` and the crate say the same: a C compiler and rustc each state numbers, sizes and offsets.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::mem::{offset_of, size_of};
use std::path::PathBuf;
use std::process::Command;

use ersatz_uapi::hold::{self, Arm, Cancel, Query, Resume, Wait};
use ersatz_uapi::{
    self as uapi, Advise, Bind, Counters, Digest, Evict, Exclusive, Info, Launch, Mark, Migrate, Residency,
};

/// What the Rust side says, by the C expression for the same. Sizes of structures are checked to be the sum of their
/// fields' sizes: the driver copies them to user space whole, padding would leak.
fn rust_side() -> BTreeMap<String, u64> {
    let mut facts = BTreeMap::new();
    macro_rules! structure {
        ($name:ident, $c:literal: $($field:ident: $type:ty),*) => {
            facts.insert(concat!("sizeof(struct ", $c, ")").to_owned(), size_of::<$name>() as u64);
            $(facts.insert(
                concat!("offsetof(struct ", $c, ", ", stringify!($field), ")").to_owned(),
                offset_of!($name, $field) as u64,
            );)*
            assert_eq!(size_of::<$name>(), 0 $(+ size_of::<$type>())*, "padding in {}", $c);
            // All fields are named here, with their types.
            let $name { $($field),* } = Default::default();
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
    structure!(Bind, "ersatz_bind": flags: u32, asid: u32);
    structure!(Exclusive, "ersatz_exclusive": address: u64, length: u64, done: u64);
    structure!(Advise, "ersatz_advise": address: u64, length: u64, advice: u32, flags: u32);
    structure!(Launch, "ersatz_launch": kernel: u32, flags: u32, first: u64, value: u64, second: u64, count: u64,
        result: u64, fault_address: u64, fault_access: u32, reserved: u32);
    structure!(Arm, "ersatz_hold_arm": function: [u8; hold::NAME_SIZE], task_kind: u32, task: u32, nth: u32,
        deadline_ms: u32, condition_kind: u32, argument: u32, offset: u64, minimum: u64, maximum: u64, id: u32, reserved: u32);
    structure!(Wait, "ersatz_hold_wait": id: u32, timeout_ms: u32, state: u32, reserved: u32);
    structure!(Resume, "ersatz_hold_resume": id: u32, reserved: u32);
    structure!(Cancel, "ersatz_hold_cancel": id: u32, reserved: u32);
    structure!(Query, "ersatz_hold_query": id: u32, state: u32, hits: u64, unholdable: u64, held_at_ns: u64,
        released_at_ns: u64, task: u32, reserved: u32);
    for (name, value) in [
        ("ERSATZ_IOC_MAGIC", u64::from(uapi::IOC_MAGIC)),
        ("ERSATZ_IOC_INFO", uapi::IOC_INFO.into()),
        ("ERSATZ_IOC_MIGRATE", uapi::IOC_MIGRATE.into()),
        ("ERSATZ_IOC_RESIDENCY", uapi::IOC_RESIDENCY.into()),
        ("ERSATZ_IOC_DIGEST", uapi::IOC_DIGEST.into()),
        ("ERSATZ_IOC_COUNTERS", uapi::IOC_COUNTERS.into()),
        ("ERSATZ_IOC_EVICT", uapi::IOC_EVICT.into()),
        ("ERSATZ_IOC_MARK", uapi::IOC_MARK.into()),
        ("ERSATZ_IOC_BIND", uapi::IOC_BIND.into()),
        ("ERSATZ_IOC_LAUNCH", uapi::IOC_LAUNCH.into()),
        ("ERSATZ_IOC_EXCLUSIVE", uapi::IOC_EXCLUSIVE.into()),
        ("ERSATZ_IOC_ADVISE", uapi::IOC_ADVISE.into()),
        ("ERSATZ_ADVICE_NONE", uapi::Advice::None as u64),
        ("ERSATZ_ADVICE_PREFER_DEVICE", uapi::Advice::PreferDevice as u64),
        ("ERSATZ_ADVICE_PREFER_SYSTEM", uapi::Advice::PreferSystem as u64),
        ("ERSATZ_ADVICE_BY_ACCESS", uapi::Advice::ByAccess as u64),
        ("ERSATZ_ADVICE_ACCESSED_BY", uapi::Advice::AccessedBy as u64),
        ("ERSATZ_ADVICE_READ_MOSTLY", uapi::Advice::ReadMostly as u64),
        ("ERSATZ_KERNEL_READ", uapi::KernelKind::Read as u64),
        ("ERSATZ_KERNEL_WRITE", uapi::KernelKind::Write as u64),
        ("ERSATZ_KERNEL_SET", uapi::KernelKind::Set as u64),
        ("ERSATZ_KERNEL_SUM", uapi::KernelKind::Sum as u64),
        ("ERSATZ_KERNEL_SAXPY", uapi::KernelKind::Saxpy as u64),
        ("ERSATZ_KERNEL_ATOMIC_ADD", uapi::KernelKind::AtomicAdd as u64),
        ("ERSATZ_KERNEL_COMPARE_AND_SWAP", uapi::KernelKind::CompareAndSwap as u64),
        ("ERSATZ_KERNEL_CHASE", uapi::KernelKind::Chase as u64),
        ("ERSATZ_KERNEL_RANDOM_UPDATE", uapi::KernelKind::RandomUpdate as u64),
        ("ERSATZ_KERNEL_COPY", uapi::KernelKind::Copy as u64),
        ("ERSATZ_FAULT_READ", uapi::FaultAccess::Read as u64),
        ("ERSATZ_FAULT_WRITE", uapi::FaultAccess::Write as u64),
        ("ERSATZ_FAULT_ATOMIC", uapi::FaultAccess::Atomic as u64),
        ("ERSATZ_MEMORY_PRIVATE", uapi::MemoryType::Private as u64),
        ("ERSATZ_MEMORY_COHERENT", uapi::MemoryType::Coherent as u64),
        ("ERSATZ_TO_DEVICE", uapi::Direction::ToDevice as u64),
        ("ERSATZ_TO_SYSTEM", uapi::Direction::ToSystem as u64),
        ("ERSATZ_PAGE_NONE", uapi::PageState::None as u64),
        ("ERSATZ_PAGE_SYSTEM", uapi::PageState::System as u64),
        ("ERSATZ_PAGE_DEVICE", uapi::PageState::Device as u64),
        ("ERSATZ_PAGE_SWAPPED", uapi::PageState::Swapped as u64),
        ("ERSATZ_HOLD_IOC_ARM", hold::IOC_ARM.into()),
        ("ERSATZ_HOLD_IOC_WAIT", hold::IOC_WAIT.into()),
        ("ERSATZ_HOLD_IOC_RESUME", hold::IOC_RESUME.into()),
        ("ERSATZ_HOLD_IOC_CANCEL", hold::IOC_CANCEL.into()),
        ("ERSATZ_HOLD_IOC_QUERY", hold::IOC_QUERY.into()),
        ("ERSATZ_HOLD_NAME_SIZE", hold::NAME_SIZE as u64),
        ("ERSATZ_HOLD_MAX_HOLDS", hold::MAX_HOLDS as u64),
        ("ERSATZ_HOLD_MAX_DEADLINE_MS", hold::MAX_DEADLINE_MS.into()),
        ("ERSATZ_HOLD_ARGUMENTS", hold::ARGUMENTS.into()),
        ("ERSATZ_HOLD_TASK_ANY", hold::TaskKind::Any as u64),
        ("ERSATZ_HOLD_TASK_THREAD", hold::TaskKind::Thread as u64),
        ("ERSATZ_HOLD_TASK_PROCESS", hold::TaskKind::Process as u64),
        ("ERSATZ_HOLD_CONDITION_NONE", hold::ConditionKind::None as u64),
        ("ERSATZ_HOLD_CONDITION_ARGUMENT", hold::ConditionKind::Argument as u64),
        ("ERSATZ_HOLD_CONDITION_FIELD", hold::ConditionKind::Field as u64),
        ("ERSATZ_HOLD_ARMED", hold::State::Armed as u64),
        ("ERSATZ_HOLD_HELD", hold::State::Held as u64),
        ("ERSATZ_HOLD_RESUMED", hold::State::Resumed as u64),
        ("ERSATZ_HOLD_EXPIRED", hold::State::Expired as u64),
        ("ERSATZ_HOLD_CANCELLED", hold::State::Cancelled as u64),
    ] {
        facts.insert(name.to_owned(), value);
    }
    facts
}

/// The values of expressions, as a C compiler computes them with the headers.
fn c_side<'a>(expressions: impl Iterator<Item = &'a String>) -> BTreeMap<String, u64> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let (source, program) = (folder.join("c_header.c"), folder.join("c_header"));
    let mut text = String::from("#include <stddef.h>\n#include <stdio.h>\n#include \"ersatz.h\"\n#include \"ersatz_hold.h\"\nint main(void) {\n");
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
    assert!(status.success(), "the headers do not compile");
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

/// The names that the headers define, without their values.
fn c_names() -> Vec<String> {
    let header = concat!(include_str!("../ersatz.h"), include_str!("../ersatz_hold.h"));
    let macros = header.lines().filter_map(|line| line.strip_prefix("#define ERSATZ_"));
    let macros = macros.filter_map(|line| line.split_once(' ')).map(|(name, _)| format!("ERSATZ_{name}"));
    let structures = header.lines().filter_map(|line| line.strip_prefix("struct ")?.strip_suffix(" {"));
    macros.chain(structures.map(|name| format!("sizeof(struct {name})"))).collect()
}

#[test]
fn the_headers_say_what_the_crate_says() {
    let rust = rust_side();
    assert_eq!(c_side(rust.keys()), rust);
}

#[test]
fn nothing_in_the_headers_goes_unchecked() {
    let rust = rust_side();
    let names = c_names();
    assert!(names.len() > 20, "only {names:?} were found in the headers");
    for name in names {
        assert!(rust.contains_key(&name), "{name} is in a header but not compared with the crate");
    }
}
