// SPDX-License-Identifier: GPL-2.0
//! Getting back the references that CPUs hold in their lists of pages.

use crate::bindings;
use kernel::{error::to_result, ffi, prelude::*};

/// Makes every CPU give up the references in its lists of pages (`mm/swap.c`, `mm/mlock.c`), which otherwise stay until something
/// else is put there: on an idle CPU that may be never. A page that was locked in memory and then unmapped is held so.
///
/// Sleeps.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn drain_cpu_lists() -> Result {
    extern "C" fn drain(_: *mut ffi::c_void) -> ffi::c_long {
        // Isolating begins with draining the lists of the CPU it runs on (`migrate_device_unmap()`); nothing else that is exported
        // does. No page is isolated.
        // SAFETY: With no pages there are no entries that must be valid.
        unsafe { bindings::migrate_device_range(core::ptr::null_mut(), 0, 0) as ffi::c_long }
    }
    // SAFETY: `drain` looks at no argument, may sleep, and is in this module, which is not unloaded while it runs: this
    // function returns after it.
    let result = unsafe { bindings::ersatz_on_each_online_cpu(Some(drain), core::ptr::null_mut()) };
    to_result(result as i32)
}
