// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Transfers between memory and the scenario's disk by io_uring.

use std::os::fd::AsRawFd;

use ersatz_scenario::disk::{Transfer, UringTransfer};
use io_uring::types::Fd;
use io_uring::{IoUring, opcode};
use nix::errno::Errno;
use nix::libc::{c_int, iovec};

use super::disk::{disk, in_pieces};
use crate::scenario::context::{Context, Done};

/// Of one transfer at a time.
const ENTRIES: u32 = 2;

pub fn transfer(context: &Context<'_>, asked: &UringTransfer) -> Done {
    let disk = disk(context)?;
    let file = if asked.direct { &disk.direct } else { &disk.cached };
    let place = context.ranges.place(&asked.range)?;
    let mut ring = IoUring::new(ENTRIES)?;
    if asked.fixed {
        let buffer = iovec { iov_base: place.pointer(0), iov_len: place.bytes() };
        // SAFETY: nothing but the scenario knows the memory of a place. It may go while it is registered: the pages stay until the ring ends.
        unsafe { ring.submitter().register_buffers(&[buffer]) }?;
    }
    let done = in_pieces(context, &asked.range, |place, done, at| {
        let (file, memory, at) = (Fd(file.as_raw_fd()), place.pointer(done).cast::<u8>(), at.unsigned_abs());
        let bytes = u32::try_from(place.bytes() - done).map_err(|_| Errno::EINVAL)?;
        let entry = match (asked.transfer, asked.fixed) {
            (Transfer::Read, false) => opcode::Read::new(file, memory, bytes).offset(at).build(),
            (Transfer::Read, true) => opcode::ReadFixed::new(file, memory, bytes, 0).offset(at).build(),
            (Transfer::Write, false) => opcode::Write::new(file, memory.cast_const(), bytes).offset(at).build(),
            (Transfer::Write, true) => opcode::WriteFixed::new(file, memory.cast_const(), bytes, 0).offset(at).build(),
        };
        // SAFETY: nothing but the scenario knows the memory, which the kernel checks; the file is open for as long as the ring.
        unsafe { ring.submission().push(&entry) }.map_err(|_| Errno::EBUSY)?;
        finish(&mut ring)
    });
    if asked.fixed {
        // Gives the pages back now, and not a moment after the ring is gone.
        ring.submitter().unregister_buffers()?;
    }
    done
}

/// Submits the entry and waits for its end; returns the number of bytes moved.
fn finish(ring: &mut IoUring) -> Result<usize, Errno> {
    loop {
        match ring.submit_and_wait(1) {
            Err(error) if error.raw_os_error() == Some(Errno::EINTR as c_int) => {}
            Err(error) => return Err(Errno::from_raw(error.raw_os_error().unwrap_or_default())),
            Ok(_) => {}
        }
        if let Some(completion) = ring.completion().next() {
            let result = completion.result();
            return usize::try_from(result).map_err(|_| Errno::from_raw(result.saturating_neg()));
        }
    }
}
