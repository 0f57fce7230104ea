// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether the kernel has memory that nothing refers to any more, on a kernel that looks for it (`CONFIG_DEBUG_KMEMLEAK`). Comes
//! after all other tests: what it finds, one of them or the boot has lost.

use std::fs;
use std::time::Duration;

use crate::proc_fs::KMEMLEAK;
use crate::suite::{Need, test_list};

test_list! { "leaks":
    the_kernel_has_lost_no_memory.needs(&[Need::Kmemleak]).patience(3);
}

/// The search leaves out what is younger than 5 s: a pointer to it may be in a register only.
const AGE: Duration = Duration::from_secs(6);

fn the_kernel_has_lost_no_memory() {
    // One scan may take a stale word on a stack for a pointer, or miss a pointer that moves while it looks: the kernel reports what
    // two scans agree on.
    for _ in 0..2 {
        std::thread::sleep(AGE);
        fs::write(KMEMLEAK, "scan").expect("a scan for lost memory");
    }
    let report = fs::read_to_string(KMEMLEAK).expect("the report of lost memory");
    assert!(report.is_empty(), "memory that nothing refers to:\n{report}");
}
