// SPDX-License-Identifier: GPL-2.0
//! An open file: the ioctls of [`uapi::hold`](crate::uapi::hold), and the end of its holds.

use crate::{hold::Hold, registry::Registry, task, uapi::hold as uapi};
use kernel::{
    prelude::*,
    str::CString,
    sync::Arc,
    transmute::{AsBytes, FromBytes},
    uaccess::{UserPtr, UserSlice},
};

/// The holds of one file. Dropping it ends them.
pub(crate) struct Session {
    registry: Arc<Registry>,
    number: u64,
}

impl Session {
    /// Begins a session.
    ///
    /// # Errors
    ///
    /// `EPERM` if the current task may not stop others; `ENOMEM`.
    pub(crate) fn begin(registry: &Arc<Registry>) -> Result<Arc<Self>> {
        if !task::is_permitted() {
            return Err(EPERM);
        }
        let session = Self { registry: registry.clone(), number: registry.begin_session() };
        Ok(Arc::new(session, GFP_KERNEL)?)
    }

    /// Answers an ioctl. `arg` is a user's pointer.
    ///
    /// # Errors
    ///
    /// Those of the uapi; `ENOTTY` for another ioctl.
    pub(crate) fn ioctl(&self, cmd: u32, arg: usize) -> Result {
        match cmd {
            uapi::IOC_ARM => exchange(arg, |request| self.arm(request)),
            uapi::IOC_WAIT => exchange(arg, |request: &mut uapi::Wait| {
                let hold = self.find(request.id, request.reserved)?;
                request.state = hold.wait(request.timeout_ms)?;
                Ok(())
            }),
            uapi::IOC_RESUME => {
                exchange(arg, |request: &mut uapi::Resume| self.find(request.id, request.reserved)?.resume())
            }
            uapi::IOC_CANCEL => exchange(arg, |request: &mut uapi::Cancel| {
                self.find(request.id, request.reserved)?.cancel();
                Ok(())
            }),
            uapi::IOC_QUERY => exchange(arg, |query: &mut uapi::Query| {
                self.find(query.id, query.reserved)?.describe(query);
                Ok(())
            }),
            _ => Err(ENOTTY),
        }
    }

    fn arm(&self, request: &mut uapi::Arm) -> Result {
        if request.reserved != 0 {
            return Err(EINVAL);
        }
        let name = CStr::from_bytes_until_nul(&request.function).map_err(|_| EINVAL)?;
        if name.is_empty() || !name.to_bytes().iter().all(u8::is_ascii_graphic) {
            return Err(EINVAL);
        }
        let name = CString::try_from(name)?;
        request.id = self.registry.arm(self.number, name, Hold::new(request)?)?;
        Ok(())
    }

    fn find(&self, id: u32, reserved: u32) -> Result<Arc<Hold>> {
        if reserved != 0 {
            return Err(EINVAL);
        }
        self.registry.find(self.number, id)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.registry.end_session(self.number);
    }
}

/// Reads the ioctl's structure, has it answered, and writes it back.
fn exchange<T: AsBytes + FromBytes>(arg: usize, answer: impl FnOnce(&mut T) -> Result) -> Result {
    let (mut reader, mut writer) = UserSlice::new(UserPtr::from_addr(arg), size_of::<T>()).reader_writer();
    let mut value = reader.read::<T>()?;
    answer(&mut value)?;
    writer.write(&value)
}

macro_rules! plain_bytes {
    ($($name:ident),*) => {$(
        // SAFETY: The structure consists of integers and arrays of them: any bytes are a value.
        unsafe impl FromBytes for uapi::$name {}
        // SAFETY: The structure has no padding (a test of the uapi crate checks that), so all its bytes are initialised.
        unsafe impl AsBytes for uapi::$name {}
    )*};
}

plain_bytes!(Arm, Wait, Resume, Cancel, Query);
