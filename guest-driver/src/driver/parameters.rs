// SPDX-License-Identifier: GPL-2.0
//! What the user chose: the module's parameters, understood.

use crate::{
    bindings,
    kernel_ext::{mm, module_parameters},
    zone_device::{folio::HUGE_SIZE, pagemap::Kind, region::ALIGNMENT},
};
use kernel::{page::PAGE_SIZE, prelude::*};

/// Where private pages get their pfns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PfnSource {
    /// The BAR that shows the VRAM.
    Bar,
    /// A range of physical addresses that nothing answers to.
    Free,
}

/// What an element of a comma list is: the last one goes for all devices behind it.
fn element(list: &[u8], index: u32) -> &[u8] {
    let mut elements = list.trim_ascii().split(|&byte| byte == b',');
    let mut last = elements.next().unwrap_or_default();
    for _ in 0..index {
        match elements.next() {
            Some(next) => last = next,
            None => break,
        }
    }
    last.trim_ascii()
}

/// The memory type of device number `index`.
///
/// # Errors
///
/// `EINVAL` for a word that is neither `private` nor `coherent`.
pub(crate) fn kind(index: u32) -> Result<Kind> {
    match element(module_parameters::memory(), index) {
        b"private" => Ok(Kind::Private),
        b"coherent" => Ok(Kind::Coherent),
        _ => {
            pr_err!("parameter memory: each element must be private or coherent\n");
            Err(EINVAL)
        }
    }
}

/// Where the private pages of device number `index` get their pfns.
///
/// # Errors
///
/// `EINVAL` for a word that is neither `bar` nor `free`.
pub(crate) fn pfn_source(index: u32) -> Result<PfnSource> {
    match element(module_parameters::region(), index) {
        b"bar" => Ok(PfnSource::Bar),
        b"free" => Ok(PfnSource::Free),
        _ => {
            pr_err!("parameter region: must be bar or free\n");
            Err(EINVAL)
        }
    }
}

/// How much VRAM of device number `index` to register, of `visible` bytes.
pub(crate) fn registrable(index: u32, visible: u64) -> u64 {
    visible.min(vram_limit(index)) / ALIGNMENT * ALIGNMENT
}

/// The most VRAM of device number `index` to register, in bytes: the user's limit, or what has struct pages that fit in an eighth of the RAM that
/// devices with lower numbers leave, if each takes so much. So several devices leave some of it, however large they are.
pub(crate) fn vram_limit(index: u32) -> u64 {
    match module_parameters::vram_limit() {
        0 => automatic_limit(index),
        limit => limit,
    }
}

fn automatic_limit(index: u32) -> u64 {
    let left = (0..index).fold(mm::total_ram_pages(), |pages, _| pages - pages / 8);
    let struct_pages = left / 8 * PAGE_SIZE / size_of::<bindings::page>();
    (struct_pages as u64).saturating_mul(PAGE_SIZE as u64)
}

/// How long the device may take for one batch, in milliseconds.
pub(crate) fn timeout_ms() -> u32 {
    module_parameters::timeout_ms().max(1)
}

/// Whether to offer the ioctls of the kernel's test driver for HMM.
pub(crate) fn hmm_dmirror() -> bool {
    module_parameters::hmm_dmirror()
}

/// How much of the memory around a page comes back with it when a CPU touches it, in bytes: a power of two from the size of a page to
/// that of a huge folio.
pub(crate) fn fault_chunk() -> usize {
    let chunk = module_parameters::fault_chunk() as usize;
    chunk.clamp(PAGE_SIZE, HUGE_SIZE).next_power_of_two()
}
