// SPDX-License-Identifier: GPL-2.0
//! The node `/dev/ersatz_hold`.
//!
//! The `kernel` crate's `MiscDeviceRegistration` leaves `file_operations::owner` empty, so a module could be unloaded under an open
//! file. Everything else is that crate's.

use crate::{bindings, registry::Registry, session::Session};
use kernel::{
    error::to_result,
    fs::File,
    miscdevice::{MiscDevice, MiscDeviceOptions, MiscDeviceRegistration},
    prelude::*,
    sync::{Arc, ArcBorrow},
    types::Opaque,
};

const OPTIONS: MiscDeviceOptions = MiscDeviceOptions { name: c"ersatz_hold" };

/// Permission bits of the node: its owner's alone.
const MODE: bindings::umode_t = 0o600;

/// The registered node, with the registry that its files share. An open file keeps the module loaded.
///
/// # Invariants
///
/// `misc` is registered from construction to drop, with the operations of [`Files`].
#[pin_data(PinnedDrop)]
pub(crate) struct ControlDevice {
    #[pin]
    misc: Opaque<bindings::miscdevice>,
    registry: Arc<Registry>,
}

// SAFETY: A misc device may be deregistered by any thread.
unsafe impl Send for ControlDevice {}
// SAFETY: Nothing can be done with a shared reference.
unsafe impl Sync for ControlDevice {}

impl ControlDevice {
    /// Makes the node.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EBUSY` if there are no more minor numbers; `EEXIST` if the name is taken.
    pub(crate) fn register() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            registry: Registry::new()?,
            // The last one: files can be opened from here on.
            misc <- Opaque::try_ffi_init(|slot: *mut bindings::miscdevice| {
                let mut misc = OPTIONS.into_raw::<Files>();
                misc.fops = Files::FOPS;
                misc.mode = MODE;
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
impl PinnedDrop for ControlDevice {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariants the device is registered.
        unsafe { bindings::misc_deregister(self.misc.get()) };
    }
}

/// The open files. Private, so that no device but [`ControlDevice`] has these operations.
struct Files;

impl Files {
    /// The `kernel` crate's operations, with an owner. Part of the module's image: the VFS looks at them once more after the last
    /// release.
    const FOPS: &'static bindings::file_operations = &{
        // SAFETY: The pointer is to a constant.
        let operations = unsafe { &*OPTIONS.into_raw::<Self>().fops };
        bindings::file_operations { owner: (&raw const bindings::__this_module).cast_mut(), ..*operations }
    };
}

#[vtable]
impl MiscDevice for Files {
    type Ptr = Arc<Session>;

    fn open(_file: &File, misc: &MiscDeviceRegistration<Self>) -> Result<Arc<Session>> {
        let misc = Opaque::cast_from(misc.as_raw().cast_const());
        // SAFETY: Only `ControlDevice::register` registers a device with these operations, and it stays registered while one of its
        // files is being opened.
        let device = unsafe { &*kernel::container_of!(misc, ControlDevice, misc) };
        Session::begin(&device.registry)
    }

    fn ioctl(session: ArcBorrow<'_, Session>, _file: &File, cmd: u32, arg: usize) -> Result<isize> {
        session.ioctl(cmd, arg).map(|()| 0)
    }
}
