// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! mmap(2) and its kin.

use ersatz_scenario::advice::Advice;
use ersatz_scenario::call::{MapOptions, Protection};
use nix::errno::Errno;
use nix::libc::{self, c_int, c_void};

use crate::region::HUGE_PAGE;
use crate::scenario::context::{Context, Done, done};
use crate::scenario::ranges::Place;

fn protection_bits(protection: Protection) -> c_int {
    match protection {
        Protection::None => libc::PROT_NONE,
        Protection::Read => libc::PROT_READ,
        Protection::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
    }
}

fn address_of(pointer: *mut c_void) -> Result<u64, Errno> {
    if pointer == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(pointer.expose_provenance() as u64) }
}

fn pointer_to(address: u64) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(address as usize)
}

pub fn map(context: &Context<'_>, name: &str, size: u64, options: &MapOptions) -> Done {
    let protection = protection_bits(options.protection.unwrap_or(Protection::ReadWrite));
    let mut flags = libc::MAP_ANONYMOUS | if options.shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
    if options.noreserve {
        flags |= libc::MAP_NORESERVE;
    }
    let address = aligned_hole(size)?;
    // SAFETY: the addresses are a reservation that `aligned_hole` has just made, which this replaces.
    let mapped = unsafe { libc::mmap(pointer_to(address), size as usize, protection, flags | libc::MAP_FIXED, -1, 0) };
    let address = address_of(mapped)?;
    context.ranges.set(name, address, size)?;
    let place = context.ranges.whole(name)?;
    if let Some(huge) = options.huge {
        madvise(place, if huge { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE })?;
    }
    if options.populate {
        madvise(place, libc::MADV_POPULATE_WRITE)?;
    }
    done()
}

/// Reserves addresses that begin at a huge page's boundary, with a gap behind them: two ranges never become one mapping.
fn aligned_hole(size: u64) -> Result<u64, Errno> {
    let (size, huge) = (size as usize, HUGE_PAGE);
    let reserved = size.next_multiple_of(huge) + 2 * huge;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a mapping at an address of the kernel's choice replaces nothing.
    let base = address_of(unsafe { libc::mmap(std::ptr::null_mut(), reserved, libc::PROT_NONE, flags, -1, 0) })?;
    Ok(base.next_multiple_of(huge as u64))
}

pub fn unmap(place: Place) -> Done {
    // SAFETY: nothing but the scenario knows the memory of a place.
    Errno::result(unsafe { libc::munmap(place.pointer(0), place.bytes()) })?;
    done()
}

pub(super) fn madvise(place: Place, advice: c_int) -> Result<(), Errno> {
    // SAFETY: nothing but the scenario knows the memory of a place, whatever becomes of its content.
    Errno::result(unsafe { libc::madvise(place.pointer(0), place.bytes(), advice) }).map(drop)
}

pub fn advise(place: Place, advice: Advice) -> Done {
    madvise(place, advice.number())?;
    done()
}

/// Faults pages in as writes do.
pub fn populate_for_writing(place: Place) -> Done {
    madvise(place, libc::MADV_POPULATE_WRITE)?;
    done()
}

pub fn protect(place: Place, protection: Protection) -> Done {
    // SAFETY: nothing but the scenario knows the memory of a place.
    Errno::result(unsafe { libc::mprotect(place.pointer(0), place.bytes(), protection_bits(protection)) })?;
    done()
}

pub fn move_onto(from: Place, to: Place, keep: bool) -> Done {
    let mut flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    if keep {
        flags |= libc::MREMAP_DONTUNMAP;
    }
    // SAFETY: both places are memory that nothing but the scenario knows; the target's mapping is replaced.
    let moved = unsafe { libc::mremap(from.pointer(0), from.bytes(), to.bytes(), flags, to.pointer(0)) };
    address_of(moved)?;
    done()
}

pub fn resize(context: &Context<'_>, name: &str, size: u64) -> Done {
    let place = context.ranges.whole(name)?;
    // SAFETY: nothing but the scenario knows the memory of a place; where it is from here on is noted below.
    let moved = unsafe { libc::mremap(place.pointer(0), place.bytes(), size as usize, libc::MREMAP_MAYMOVE) };
    context.ranges.set(name, address_of(moved)?, size)?;
    done()
}

pub fn lock(place: Place, on_fault: bool) -> Done {
    let flags = if on_fault { libc::MLOCK_ONFAULT } else { 0 };
    // SAFETY: locking changes no content.
    Errno::result(unsafe { libc::mlock2(place.pointer(0).cast_const(), place.bytes(), flags as _) })?;
    done()
}

pub fn unlock(place: Place) -> Done {
    // SAFETY: as in `lock`.
    Errno::result(unsafe { libc::munlock(place.pointer(0).cast_const(), place.bytes()) })?;
    done()
}
