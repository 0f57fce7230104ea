// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Transfers between memory and the scenario's disk by pread(2) and pwrite(2), past the page cache.

use std::os::fd::AsRawFd;

use ersatz_scenario::disk::Transfer;
use ersatz_scenario::range::Range;
use nix::errno::Errno;
use nix::libc;

use crate::scenario::context::{Context, Done, Failure, done};
use crate::scenario::disk::Disk;
use crate::scenario::ranges::Place;

pub fn transfer(context: &Context<'_>, transfer: Transfer, range: &Range) -> Done {
    let file = disk(context)?.direct.as_raw_fd();
    in_pieces(context, range, |place, done, at| {
        let (memory, bytes) = (place.pointer(done), place.bytes() - done);
        let moved = match transfer {
            // SAFETY: nothing but the scenario knows the memory of a place; the kernel checks that it is there.
            Transfer::Read => unsafe { libc::pread64(file, memory, bytes, at) },
            // SAFETY: as above, and the memory is only read.
            Transfer::Write => unsafe { libc::pwrite64(file, memory.cast_const(), bytes, at) },
        };
        Errno::result(moved).map(|moved| moved.unsigned_abs())
    })
}

/// The scenario's disk.
pub(super) fn disk<'a>(context: &'a Context<'_>) -> Result<&'a Disk, Failure> {
    context.disk.ok_or_else(|| String::from("the scenario has no disk").into())
}

/// Has `step` move what is left, given how much was moved and where on the disk the rest is, until all of it was moved or an error comes:
/// the kernel moves less than it is asked to where memory ends, and says why only when it is asked again.
pub(super) fn in_pieces(
    context: &Context<'_>,
    range: &Range,
    mut step: impl FnMut(Place, usize, i64) -> Result<usize, Errno>,
) -> Done {
    let place = context.ranges.place(range)?;
    let mut moved = 0;
    while moved < place.bytes() {
        let at = range.part.map_or(0, |part| part.start) + moved as u64;
        let at = i64::try_from(at).map_err(|_| String::from("the disk has no such place"))?;
        match step(place, moved, at)? {
            0 => return Err(format!("the disk ends at {at} bytes").into()),
            bytes => moved += bytes,
        }
    }
    done()
}
