// SPDX-License-Identifier: GPL-2.0
//! The uapi's structures may be read from and written to user memory byte by byte.

use crate::uapi;
use kernel::transmute::{AsBytes, FromBytes};

macro_rules! plain_bytes {
    ($($name:ident),*) => {$(
        // SAFETY: The structure consists of integers and arrays of them: any bytes are a value.
        unsafe impl FromBytes for uapi::$name {}
        // SAFETY: The structure has no padding (a test of the uapi crate sees to that), so all its bytes are initialised.
        unsafe impl AsBytes for uapi::$name {}
    )*};
}

plain_bytes!(Info, Migrate, Residency, Digest, Counters, Evict, Mark, Bind, Launch);
