// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Memory of another process: process_vm_readv(2) and process_vm_writev(2).

use std::io::{IoSlice, IoSliceMut};

use ersatz_scenario::range::Range;
use ersatz_scenario::report::StepOutcome;
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::{Pid, getppid};

use super::processes::pid;
use crate::pattern::PAGE;
use crate::scenario::content::Reader;
use crate::scenario::context::{Context, Done, Failure, done};
use crate::scenario::ranges::Place;

/// The process that a step names: a forked one, or the parent of the thread's own.
pub(super) fn target(context: &Context<'_>, process: &str) -> Result<Pid, Failure> {
    if process == "parent" { Ok(getppid()) } else { pid(context, process) }
}

fn remote(address: u64, page: usize) -> [RemoteIoVec; 1] {
    [RemoteIoVec { base: address as usize + page * PAGE, len: PAGE }]
}

/// A forked process has its ranges where its parent had them.
pub fn read(context: &Context<'_>, process: &str, range: &Range) -> Done {
    read_of(target(context, process)?, context.ranges.place(range)?)
}

/// Reads memory of a process.
pub fn read_of(pid: Pid, place: Place) -> Done {
    let (mut reader, mut page) = (Reader::default(), [0; PAGE]);
    for index in 0..place.pages() {
        process_vm_readv(pid, &mut [IoSliceMut::new(&mut page)], &remote(place.span().address, index))?;
        reader.page(&page);
    }
    Ok(StepOutcome::Content(reader.finish()))
}

pub fn write(context: &Context<'_>, process: &str, range: &Range, byte: u8) -> Done {
    write_of(target(context, process)?, context.ranges.place(range)?, byte)
}

/// Writes to memory of a process.
pub fn write_of(pid: Pid, place: Place, byte: u8) -> Done {
    for index in 0..place.pages() {
        process_vm_writev(pid, &[IoSlice::new(&[byte; PAGE])], &remote(place.span().address, index))?;
    }
    done()
}

/// Adds to each 64-bit word of a process's memory, wrapping.
pub fn add_to(pid: Pid, place: Place, addend: u64) -> Done {
    let mut page = [0; PAGE];
    for index in 0..place.pages() {
        let remote = remote(place.span().address, index);
        process_vm_readv(pid, &mut [IoSliceMut::new(&mut page)], &remote)?;
        for word in page.chunks_exact_mut(size_of::<u64>()) {
            let sum = word.iter().rev().fold(0, |sum, &byte| (sum << 8) | u64::from(byte)).wrapping_add(addend);
            word.copy_from_slice(&sum.to_le_bytes());
        }
        process_vm_writev(pid, &[IoSlice::new(&page)], &remote)?;
    }
    done()
}
