// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pages that cannot move, because a pipe holds references to them.

use std::io::IoSlice;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{SpliceFFlags, vmsplice};

use crate::pattern::PAGE;
use crate::process::pipe;
use crate::region::Region;

/// References to pages, in a pipe. Dropped, they are given up.
#[derive(Debug)]
pub struct Pin {
    _ends: (OwnedFd, OwnedFd),
}

impl Pin {
    /// Pins pages where they are. A device-private page comes back to system memory for that.
    ///
    /// # Panics
    ///
    /// If the system refuses, or the pages are more than a pipe has room for (16).
    pub fn new(region: &Region, pages: Range<usize>) -> Self {
        let (out, into) = pipe();
        let length = pages.len() * PAGE;
        assert!(pages.end <= region.pages(), "{pages:?} of {} pages", region.pages());
        // SAFETY: the bytes are mapped; no test writes a page while it pins it.
        let bytes =
            unsafe { std::slice::from_raw_parts(region.pointer(pages.start * PAGE).as_ptr().cast_const(), length) };
        let pinned = vmsplice(into.as_fd(), &[IoSlice::new(bytes)], SpliceFFlags::SPLICE_F_NONBLOCK).expect("vmsplice");
        assert_eq!(pinned, length, "bytes in the pipe");
        Self { _ends: (out, into) }
    }
}
