// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Reading and writing by the CPU.

use ersatz_scenario::report::StepOutcome;

use crate::scenario::content::Reader;
use crate::scenario::context::{Done, Failure, done};
use crate::scenario::guarded::{PageBuffer, read_byte, read_page, write_byte, write_page};
use crate::scenario::ranges::Place;

pub fn fill(place: Place, byte: u8) -> Done {
    let page = PageBuffer::of(byte);
    (0..place.pages()).try_for_each(|index| write_page(place, index, &page)).map_err(Failure::Signal)?;
    done()
}

pub fn write(place: Place, byte: u8) -> Done {
    (0..place.pages()).try_for_each(|index| write_byte(place, index, byte)).map_err(Failure::Signal)?;
    done()
}

pub fn read(place: Place) -> Done {
    let (mut reader, mut page) = (Reader::default(), PageBuffer::of(0));
    for index in 0..place.pages() {
        read_page(place, index, &mut page).map_err(Failure::Signal)?;
        reader.page(&page.0);
    }
    Ok(StepOutcome::Content(reader.finish()))
}

pub fn touch(place: Place) -> Done {
    let mut reader = Reader::default();
    for index in 0..place.pages() {
        reader.page(&[read_byte(place, index).map_err(Failure::Signal)?]);
    }
    Ok(StepOutcome::Content(reader.finish()))
}
