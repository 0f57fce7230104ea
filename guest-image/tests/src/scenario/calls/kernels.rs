// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Accesses by the device, to the addresses of the process.
//!
//! On plain memory there is no device; a system call makes the access, which the kernel refuses for the same reasons.

use std::cell::Cell;

use ersatz_scenario::report::{Ground, StepOutcome};
use nix::errno::Errno;
use nix::unistd::getpid;

use super::{cross_process, mapping};
use crate::compute::{Compute, LaunchError};
use crate::pattern::PAGE;
use crate::region::{Region, Span};
use crate::scenario::content::Reader;
use crate::scenario::context::{Context, Done, Failure, done};
use crate::scenario::ranges::Place;

/// Pages that the device copies at a time when it reads.
const PIECE: usize = 16;

thread_local! {
    /// What the thread has bound. It stays bound to the end of the process, and the device's mappings and exclusive pages stay with it, as those of
    /// a program do that uses a GPU: each step would give them back otherwise.
    static BOUND: Cell<Option<&'static Compute>> = const { Cell::new(None) };
}

/// Returns the thread's binding of its process's address space. The threads of a forked process, which cannot use what its parent has bound, are new
/// and make their own.
fn bind() -> Result<&'static Compute, Failure> {
    if let Some(compute) = BOUND.get() {
        return Ok(compute);
    }
    let compute = Compute::unbound();
    compute.try_bind()?;
    let compute = &*Box::leak(Box::new(compute));
    BOUND.set(Some(compute));
    Ok(compute)
}

fn failure(error: LaunchError) -> Failure {
    Failure::Errno(match error {
        LaunchError::Fault(..) => Errno::EFAULT,
        LaunchError::Other(errno) => errno,
    })
}

pub fn read(context: &Context<'_>, place: Place) -> Done {
    if context.ground == Ground::Plain {
        return cross_process::read_of(getpid(), place);
    }
    let (compute, copy, mut reader) = (bind()?, Region::new(PIECE), Reader::default());
    for first in (0..place.pages()).step_by(PIECE) {
        let pages = PIECE.min(place.pages() - first);
        let piece = Span { length: (pages * PAGE) as u64, ..place.page(first) };
        compute.try_copy(piece, copy.span().address).map_err(failure)?;
        (0..pages).for_each(|index| reader.page(&copy.read(index)));
    }
    Ok(StepOutcome::Content(reader.finish()))
}

pub fn write(context: &Context<'_>, place: Place, byte: u8) -> Done {
    if context.ground == Ground::Plain {
        return cross_process::write_of(getpid(), place, byte);
    }
    bind()?.try_set(place.span(), u64::from_ne_bytes([byte; 8])).map_err(failure)?;
    done()
}

/// Adds the byte to every byte of each word, as one addition.
pub fn add(context: &Context<'_>, place: Place, byte: u8) -> Done {
    let addend = u64::from_ne_bytes([byte; 8]);
    if context.ground == Ground::Plain {
        return cross_process::add_to(getpid(), place, addend);
    }
    bind()?.try_atomic_add(place.span(), addend).map_err(failure)?;
    done()
}

pub fn make_exclusive(context: &Context<'_>, place: Place) -> Done {
    if context.ground == Ground::Plain {
        return mapping::populate_for_writing(place).map_err(|_| Failure::Errno(Errno::EFAULT));
    }
    let compute = bind()?;
    let span = place.span();
    let (_, result) = compute.try_exclusive(span.address, span.length);
    // Where the process may not write, the one call says so in one way, the other in another.
    result.map_err(|error| if error == Errno::EPERM { Errno::EFAULT } else { error })?;
    done()
}
