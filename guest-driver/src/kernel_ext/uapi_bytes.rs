// SPDX-License-Identifier: GPL-2.0
//! The uapi's structures may be read from and written to user memory byte by byte.

use crate::uapi::{self, dmirror};
use kernel::transmute::{AsBytes, FromBytes};

macro_rules! plain_bytes {
    ($($name:path),*) => {$(
        // SAFETY: The structure consists of integers and arrays of them: any bytes are a value.
        unsafe impl FromBytes for $name {}
        // SAFETY: The structure has no padding (a test of the uapi crate sees to that), so all its bytes are initialised.
        unsafe impl AsBytes for $name {}
    )*};
}

plain_bytes!(
    uapi::Info,
    uapi::Migrate,
    uapi::Residency,
    uapi::Digest,
    uapi::Counters,
    uapi::Evict,
    uapi::Mark,
    uapi::Bind,
    uapi::Launch,
    uapi::Exclusive,
    uapi::Advise,
    dmirror::Command
);
