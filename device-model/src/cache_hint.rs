// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Hints to the CPU's caches, for copies of many small pages.
//!
//! A page's first access waits for the TLB and for memory. In a bare loop of copies the CPU looks that far
//! ahead by itself; in an engine's loop it does not, since the engine's own stores queue up behind those of the
//! copy. A prefetch of the next page makes up for it.

use vm_memory::VolatileSlice;

/// What will be done with the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It is read.
    Read,
    /// It is written.
    Write,
}

/// Makes the CPU fetch the first line of a slice, and its translation. Changes nothing, whether there is memory or not.
#[inline]
pub(crate) fn prefetch(slice: &VolatileSlice<'_>, purpose: Purpose) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_ET0, _MM_HINT_T0, _mm_prefetch};
        let line = slice.ptr_guard().as_ptr().cast::<i8>();
        match purpose {
            // SAFETY: a prefetch accesses nothing that the program could see, and does not fault.
            Purpose::Read => unsafe { _mm_prefetch::<_MM_HINT_T0>(line) },
            // SAFETY: as above.
            Purpose::Write => unsafe { _mm_prefetch::<_MM_HINT_ET0>(line) },
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (slice, purpose);
}
