// SPDX-License-Identifier: GPL-2.0
//! What each page of a range is, seen without faulting anything in.

use super::{inspection, BoundMap, Command, Device, Gpu, MmWithUser};
use crate::{
    driver::copy_engine::BATCH_PAGES,
    kernel_ext::signal,
    uapi::dmirror::protection,
    zone_device::{
        mirror::{Access, Entry, Mirror},
        pagemap::Kind,
    },
};
use core::ops::Range;
use kernel::{
    page::PAGE_SHIFT,
    prelude::*,
    uaccess::{UserPtr, UserSlice},
};

/// Base-2 logarithms of the number of pages that an entry of a PMD table, and one of a PUD table, map.
const PMD_ORDER: u32 = 9;
const PUD_ORDER: u32 = 18;

/// Writes a byte for each page to the command's pointer, batch by batch: between them the device can go.
pub(super) fn write(device: &Device, mm: &MmWithUser, command: &mut Command, range: Range<usize>) -> Result {
    let mut user =
        UserSlice::new(UserPtr::from_addr(usize::try_from(command.pointer)?), range.len() >> PAGE_SHIFT).writer();
    let mut pfns = KVec::from_elem(0, BATCH_PAGES, GFP_KERNEL)?;
    let mut protections = KVec::from_elem(0, BATCH_PAGES, GFP_KERNEL)?;
    let mut rest = range;
    while !rest.is_empty() {
        if signal::is_pending() {
            return Err(EINTR);
        }
        let batch = inspection::first_pages(&rest, BATCH_PAGES);
        let protections = &mut protections[..batch.len() >> PAGE_SHIFT];
        device.with_map(|map| look(map, mm, batch, &mut pfns, protections))?;
        user.write_slice(protections)?;
        rest.start += protections.len() << PAGE_SHIFT;
        command.done += protections.len() as u64;
    }
    Ok(())
}

fn look(
    map: BoundMap<'_, Gpu>,
    mm: &MmWithUser,
    batch: Range<usize>,
    pfns: &mut [usize],
    protections: &mut [u8],
) -> Result {
    pin_init::stack_try_pin_init!(let mirror =? Mirror::new(mm, batch));
    mirror.with_pages(map.map().owner(), Access::Peek, pfns, |pages| {
        for (index, slot) in protections.iter_mut().enumerate() {
            *slot = protection_of(map, pages.entry(index));
        }
    })
}

fn protection_of(map: BoundMap<'_, Gpu>, entry: Entry) -> u8 {
    let Entry::Present { pfn, write, map_order, is_zero, is_of_device } = entry else {
        return if matches!(entry, Entry::Error) { protection::ERROR } else { protection::NONE };
    };
    let memory = match map.kind() {
        Kind::Private if map.offset(pfn).is_some() => protection::PRIVATE,
        Kind::Coherent if map.offset(pfn).is_some() => protection::COHERENT,
        // Private pages of others are not reported as present.
        _ if is_of_device => protection::COHERENT_ELSEWHERE,
        _ if is_zero => protection::ZERO,
        _ => protection::NONE,
    };
    let size = match map_order {
        PMD_ORDER => protection::PMD,
        PUD_ORDER => protection::PUD,
        _ => 0,
    };
    memory | size | if write { protection::WRITE } else { protection::READ }
}
