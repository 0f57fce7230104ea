// SPDX-License-Identifier: GPL-2.0
//! A device as its open files have it: bound for as long as a call takes, and gone in between, for all they know.

use super::{
    gpu::Gpu,
    svm::{space::SpaceId, Svm},
};
use crate::{
    bindings::EOPNOTSUPP,
    kernel_ext::{revocable::SleepableRevocable, uapi_bytes::exchange},
    zone_device::pagemap::{BoundMap, Registered},
};
use kernel::{
    mm::MmWithUser,
    prelude::*,
    sync::Arc,
    task::CurrentTask,
    transmute::{AsBytes, FromBytes},
};

/// What open files have.
pub(crate) type Device = SleepableRevocable<Registered<Gpu>>;

impl Device {
    /// Calls `work` while the device stays bound and its pages registered. `work` must not touch user memory: that can take as long as
    /// another process likes, and unbinding waits.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device is not bound any more; those of `work`.
    pub(crate) fn with_map<R>(&self, work: impl FnOnce(BoundMap<'_, Gpu>) -> Result<R>) -> Result<R> {
        let vram = self.try_access().ok_or(ENODEV)?;
        work(vram.bound())
    }

    /// As [`exchange`], with the device bound while `answer` runs.
    ///
    /// # Errors
    ///
    /// As [`Device::with_map`] and [`exchange`].
    pub(crate) fn exchange<T: AsBytes + FromBytes>(
        &self,
        arg: usize,
        answer: impl FnOnce(BoundMap<'_, Gpu>, &mut T) -> Result,
    ) -> Result {
        exchange(arg, |value| self.with_map(|map| answer(map, value)))
    }
}

/// The memory of the calling process.
///
/// # Errors
///
/// `EINVAL` for kernel threads, which have none.
pub(crate) fn own_memory(task: &CurrentTask) -> Result<&MmWithUser> {
    task.mm().ok_or(EINVAL)
}

/// What works by virtual addresses.
///
/// # Errors
///
/// `EOPNOTSUPP` if the device cannot.
pub(crate) fn svm<'a>(map: BoundMap<'a, Gpu>) -> Result<&'a Svm> {
    map.map().memory().svm.as_deref().ok_or_else(|| Error::from_errno(-(EOPNOTSUPP as i32)))
}

/// An address space that ends when this is dropped.
pub(crate) struct BoundSpace {
    device: Arc<Device>,
    id: SpaceId,
}

impl BoundSpace {
    /// Makes the address space of `mm` the device's.
    ///
    /// # Errors
    ///
    /// As [`Svm::bind`]; `EOPNOTSUPP` if the device cannot work by virtual addresses; `ENODEV` if it is not bound any more.
    pub(crate) fn bind(device: Arc<Device>, mm: &MmWithUser) -> Result<Self> {
        let id = device.with_map(|map| svm(map)?.bind(map.dev(), mm))?;
        Ok(Self { device, id })
    }

    /// What names it.
    pub(crate) fn id(&self) -> SpaceId {
        self.id
    }
}

impl Drop for BoundSpace {
    fn drop(&mut self) {
        // If the device is not bound any more the address space ended with it.
        let _ = self.device.with_map(|map| {
            svm(map)?.unbind(self.id);
            Ok(())
        });
    }
}
