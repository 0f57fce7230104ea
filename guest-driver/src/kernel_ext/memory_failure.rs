// SPDX-License-Identifier: GPL-2.0
//! Telling the memory manager that memory has lost its content.

use crate::bindings;
use kernel::{error::to_result, prelude::*};

/// Reports a page frame that was found to be bad: its users are told, and it is taken out of use (`memory_failure()`,
/// `mm/memory-failure.c`). The kernel's log has what became of it. May sleep.
pub(crate) fn report(pfn: usize) {
    // SAFETY: Any number may be reported: one that is no page frame is refused.
    let result = to_result(unsafe { bindings::ersatz_memory_failure(pfn) });
    if let Err(error) = result {
        pr_notice!("page frame {pfn:#x} is bad, and its users could not be taken off it: {}\n", error.to_errno());
    }
}
