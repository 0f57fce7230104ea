// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What `/proc/self` says about pages.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use ersatz_scenario::call::PagemapBit;
use ersatz_scenario::report::StepOutcome;

use crate::pattern::PAGE;
use crate::scenario::content::Reader;
use crate::scenario::context::{Done, done};
use crate::scenario::ranges::Place;

pub fn pagemap(place: Place, bit: PagemapBit) -> Done {
    let mask: u64 = match bit {
        PagemapBit::SoftDirty => 1 << 55,
        PagemapBit::UffdWp => 1 << 57,
    };
    let mut bytes = vec![0; place.pages() * 8];
    File::open("/proc/self/pagemap")?.read_exact_at(&mut bytes, place.span().address / PAGE as u64 * 8)?;
    let mut reader = Reader::default();
    for entry in bytes.chunks_exact(8) {
        let entry = u64::from_ne_bytes(entry.try_into().unwrap_or_default());
        reader.page(&[u8::from(entry & mask != 0)]);
    }
    Ok(StepOutcome::Content(reader.finish()))
}

pub fn clear_soft_dirty() -> Done {
    fs::write("/proc/self/clear_refs", "4")?;
    done()
}
