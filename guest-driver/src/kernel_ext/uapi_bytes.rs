// SPDX-License-Identifier: GPL-2.0
//! The uapi's structures, which are read from and written to user memory byte by byte.

use crate::uapi::{self, dmirror, ram};
use kernel::{
    prelude::*,
    transmute::{AsBytes, FromBytes},
    uaccess::{UserPtr, UserSlice},
};

/// Reads the ioctl's structure, has it answered, and writes it back if that succeeds.
///
/// # Errors
///
/// `EFAULT`; those of `answer`.
pub(crate) fn exchange<T: AsBytes + FromBytes>(arg: usize, answer: impl FnOnce(&mut T) -> Result) -> Result {
    let (mut reader, mut writer) = UserSlice::new(UserPtr::from_addr(arg), size_of::<T>()).reader_writer();
    // The largest structure is half a kilobyte.
    let mut value = reader.read::<T>()?;
    answer(&mut value)?;
    writer.write(&value)
}

/// As [`exchange`], but writes the structure back after an error, too.
///
/// # Errors
///
/// As [`exchange`].
pub(crate) fn exchange_always<T: AsBytes + FromBytes>(arg: usize, answer: impl FnOnce(&mut T) -> Result) -> Result {
    let mut result = Ok(());
    exchange(arg, |value| {
        result = answer(value);
        Ok(())
    })?;
    result
}

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
    dmirror::Command,
    ram::Pages
);
