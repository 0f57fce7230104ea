// SPDX-License-Identifier: GPL-2.0
//! Pages that come back because a CPU touched them.

use super::{
    gpu::{Gpu, Vram},
    placement,
};
use crate::{
    abi::command::Cause,
    zone_device::{
        migrate::{Entries, Isolated},
        page::LockedPage,
        pagemap::{CpuFault, DeviceMemory},
    },
};
use kernel::{
    device::{Bound, Device},
    prelude::*,
};

impl DeviceMemory for Gpu {
    fn migrate_to_ram(vram: &Vram, dev: &Device<Bound>, fault: &CpuFault<'_>) -> Result {
        match bring_back(vram, dev, fault) {
            // Somebody else is moving the page: the CPU finds out by trying again.
            Ok(false) => Ok(()),
            result => {
                let result = result.map(|_| ());
                vram.memory().faults.add(&result);
                result
            }
        }
    }
}

/// Moves the page of a fault to system memory, if it is still there to be moved.
fn bring_back(vram: &Vram, dev: &Device<Bound>, fault: &CpuFault<'_>) -> Result<bool> {
    let (mut src, mut dst) = ([0], [0]);
    let mut isolated = Isolated::of_fault(fault, vram.owner(), Entries::new(&mut src, &mut dst))?;
    if isolated.source(0).is_none() {
        return Ok(false);
    }
    let page = LockedPage::new_for_vma(fault.vma(), fault.address())?;
    isolated.set_destination(0, page)?;
    if placement::transfer(vram, dev, &isolated, Cause::CpuFault).is_err() {
        // The process loses its memory if this fails, and it may have been another's command that went wrong.
        placement::transfer(vram, dev, &isolated, Cause::CpuFault)?;
    }
    let moved = isolated.commit().moved(0);
    Ok(moved)
}
