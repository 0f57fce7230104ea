// SPDX-License-Identifier: GPL-2.0
//! A misc device whose module stays loaded while one of its files is open.
//!
//! The `kernel` crate's `MiscDeviceRegistration` leaves `file_operations::owner` empty, so a module could be unloaded under
//! an open file, and its name is fixed at build time. Everything else is that crate's.

use crate::{bindings, kernel_ext::raw::device_ptr};
use core::marker::PhantomData;
use kernel::{
    device::{Bound, Device},
    error::to_result,
    fs::File,
    miscdevice::{MiscDevice, MiscDeviceOptions, MiscDeviceRegistration},
    mm::virt::VmaNew,
    prelude::*,
    str::CString,
    sync::{Arc, ArcBorrow},
    types::Opaque,
};

/// What is behind a device node.
pub(crate) trait Node: Send + Sync + 'static {
    /// An open file of the node. Dropped when the file is closed, which is when its last descriptor goes.
    type File: Send + Sync + 'static;

    /// Opens a file.
    ///
    /// # Errors
    ///
    /// What the user is to get.
    fn open(node: Arc<Self>) -> Result<Arc<Self::File>>;

    /// Answers an ioctl. `arg` is a user's pointer, for 32-bit callers too.
    ///
    /// # Errors
    ///
    /// What the user is to get.
    fn ioctl(file: &Self::File, cmd: u32, arg: usize) -> Result;

    /// Sets up a mapping of the file.
    ///
    /// # Errors
    ///
    /// What the user is to get; `ENODEV` for files that cannot be mapped.
    fn mmap(_file: &Self::File, _vma: &VmaNew) -> Result {
        Err(ENODEV)
    }
}

/// A node in /dev. Open files keep the [`Node`] alive if they have it, not this.
///
/// # Invariants
///
/// `misc` is registered from construction to drop, under `name`, with the operations of [`Files`]`<T>`.
#[pin_data(PinnedDrop)]
pub(crate) struct CharDevice<T: Node> {
    #[pin]
    misc: Opaque<bindings::miscdevice>,
    name: CString,
    node: Arc<T>,
}

// SAFETY: A misc device may be deregistered by any thread.
unsafe impl<T: Node> Send for CharDevice<T> {}
// SAFETY: Nothing can be done with a shared reference.
unsafe impl<T: Node> Sync for CharDevice<T> {}

impl<T: Node> CharDevice<T> {
    /// Makes the node /dev/`name`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EBUSY` if there are no more minor numbers; `EEXIST` if the name is taken.
    pub(crate) fn register<'a>(
        parent: &'a Device<Bound>,
        name: CString,
        node: Arc<T>,
    ) -> impl PinInit<Self, Error> + 'a {
        let name_ptr = name.as_char_ptr();
        try_pin_init!(Self {
            name,
            node,
            misc <- Opaque::try_ffi_init(move |slot: *mut bindings::miscdevice| {
                let mut misc = MiscDeviceOptions { name: c"ersatz" }.into_raw::<Files<T>>();
                // The string is on the heap, and stays there until the device is deregistered.
                misc.name = name_ptr;
                misc.fops = Files::<T>::FOPS;
                misc.parent = device_ptr(parent);
                // SAFETY: `slot` is valid for writes.
                unsafe { slot.write(misc) };
                // SAFETY: `slot` was just initialised, and stays in place until drop deregisters it.
                // INVARIANT: If this succeeds the device is registered.
                to_result(unsafe { bindings::misc_register(slot) })
            }),
        })
    }
}

#[pinned_drop]
impl<T: Node> PinnedDrop for CharDevice<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariants the device is registered.
        unsafe { bindings::misc_deregister(self.misc.get()) };
    }
}

/// The open files of a [`CharDevice`]. Private, so that no device but those made above has these operations.
struct Files<T>(PhantomData<T>);

impl<T: Node> Files<T> {
    /// The `kernel` crate's operations, with an owner. Part of the module's image: the VFS looks at them once more after
    /// the last release.
    const FOPS: &'static bindings::file_operations = &{
        let options = MiscDeviceOptions { name: c"ersatz" };
        // SAFETY: The pointer is to a constant.
        let operations = unsafe { &*options.into_raw::<Self>().fops };
        bindings::file_operations { owner: (&raw const bindings::__this_module).cast_mut(), ..*operations }
    };
}

#[vtable]
impl<T: Node> MiscDevice for Files<T> {
    type Ptr = Arc<T::File>;

    fn open(_file: &File, misc: &MiscDeviceRegistration<Self>) -> Result<Arc<T::File>> {
        let misc = Opaque::cast_from(misc.as_raw().cast_const());
        // SAFETY: Only `CharDevice::register` registers devices with these operations, and they stay registered
        // while one is being opened.
        let device = unsafe { &*kernel::container_of!(misc, CharDevice<T>, misc) };
        T::open(device.node.clone())
    }

    fn ioctl(data: ArcBorrow<'_, T::File>, _file: &File, cmd: u32, arg: usize) -> Result<isize> {
        T::ioctl(&data, cmd, arg).map(|()| 0)
    }

    fn mmap(data: ArcBorrow<'_, T::File>, _file: &File, vma: &VmaNew) -> Result {
        T::mmap(&data, vma)
    }
}
