// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Accesses by the device, to the addresses of the process.
//!
//! On plain memory there is no device; a system call makes the access, which the kernel refuses for the same reasons.

use ersatz_scenario::report::{Ground, StepOutcome};
use nix::errno::Errno;
use nix::unistd::getpid;

use super::{cross_process, mapping};
use crate::compute::{Compute, LaunchError};
use crate::region::Region;
use crate::scenario::content::Reader;
use crate::scenario::context::{Context, Done, Failure, done};
use crate::scenario::ranges::Place;

/// Binds this process's address space: a forked process cannot use what its parent has bound.
fn bind() -> Result<Compute, Failure> {
    let compute = Compute::unbound();
    compute.try_bind()?;
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
    let (compute, page, mut reader) = (bind()?, Region::new(1), Reader::default());
    for index in 0..place.pages() {
        compute.try_copy(place.page(index), page.span().address).map_err(failure)?;
        reader.page(&page.read(0));
    }
    Ok(StepOutcome::Content(reader.finish()))
}

pub fn write(context: &Context<'_>, place: Place, byte: u8) -> Done {
    if context.ground == Ground::Plain {
        return cross_process::write_of(getpid(), place, byte);
    }
    let compute = bind()?;
    for index in 0..place.pages() {
        compute.try_set(place.page(index), u64::from_ne_bytes([byte; 8])).map_err(failure)?;
    }
    done()
}

/// Adds the byte to every byte of each word, as one addition.
pub fn add(context: &Context<'_>, place: Place, byte: u8) -> Done {
    let addend = u64::from_ne_bytes([byte; 8]);
    if context.ground == Ground::Plain {
        return cross_process::add_to(getpid(), place, addend);
    }
    let compute = bind()?;
    for index in 0..place.pages() {
        compute.try_atomic_add(place.page(index), addend).map_err(failure)?;
    }
    done()
}

pub fn make_exclusive(context: &Context<'_>, place: Place) -> Done {
    if context.ground == Ground::Plain {
        return mapping::populate_for_writing(place).map_err(|_| Failure::Errno(Errno::EFAULT));
    }
    let compute = bind()?;
    let span = place.span();
    let (_, result) = compute.try_exclusive(span.address, span.length);
    // What was given is the device's as long as the address space is bound: to the end of the process.
    std::mem::forget(compute);
    // Where the process may not write, the one call says so in one way, the other in another.
    result.map_err(|error| if error == Errno::EPERM { Errno::EFAULT } else { error })?;
    done()
}
