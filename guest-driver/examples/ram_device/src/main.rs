// SPDX-License-Identifier: GPL-2.0
//! A second user of the driver's `zone_device`: a device whose memory is a chunk of RAM, and which has a CPU copy.
//!
//! Processes move their anonymous memory there and back by the ioctls of `/dev/ersatz_ram` ([`uapi::ram`]). A page that a CPU touches comes
//! back, and so do all of them when the module is unloaded.
//!
//! - [`memory`]: the memory, and how pages get there and back.
//! - [`kernel_ext`], [`zone_device`], [`bindings`]: the driver's very files.

#[path = "../../../src/bindings.rs"]
mod bindings;
#[allow(dead_code, unused_imports, unused_macros)] // This module does not need all of it.
mod kernel_ext;
mod memory;
#[path = "../../../uapi/src/lib.rs"]
#[allow(dead_code, unreachable_pub)]
mod uapi;
#[path = "../../../src/zone_device/mod.rs"]
#[allow(dead_code, unused_imports)] // As above.
mod zone_device;

use kernel::{faux, prelude::*, str::CString, sync::Arc};
use kernel_ext::{
    char_device::{CharDevice, Node},
    compat::bound_device,
    mm::page_range,
    uapi_bytes::exchange,
};
use memory::Memory;
use uapi::ram;
use zone_device::folio::Side;

/// The module. What is first goes first: nobody opens files any more, the pages come back, and the device goes with its memory.
struct RamModule {
    _node: Pin<KBox<CharDevice<Memory>>>,
    _leaving: Leaving,
    /// A device on no bus, which the memory belongs to.
    _device: faux::Registration,
}

/// Moves all pages off the device when it is dropped.
struct Leaving(Arc<Memory>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.revoke_with(memory::empty);
    }
}

impl kernel::Module for RamModule {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let device = faux::Registration::new(c"ersatz_ram", None)?;
        let leaving = Leaving(memory::register(bound_device(&device))?);
        let name = CString::try_from(c"ersatz_ram")?;
        let node = KBox::pin_init(CharDevice::register(bound_device(&device), name, leaving.0.clone()), GFP_KERNEL)?;
        Ok(Self { _node: node, _leaving: leaving, _device: device })
    }
}

impl Node for Memory {
    type File = Self;

    fn open(node: Arc<Self>) -> Result<Arc<Self>> {
        Ok(node)
    }

    fn ioctl(file: &Self, cmd: u32, arg: usize) -> Result {
        let from = match cmd {
            ram::IOC_TO_DEVICE => Side::System,
            ram::IOC_TO_SYSTEM => Side::Device,
            _ => return Err(ENOTTY),
        };
        exchange(arg, |pages: &mut ram::Pages| {
            let range = page_range(pages.address, pages.length)?;
            let memory = file.try_access().ok_or(ENODEV)?;
            let task = kernel::current!();
            let moved = memory::migrate(memory.bound(), task.mm().ok_or(EINVAL)?, range, from)?;
            (pages.moved, pages.in_use) = (moved as u64, memory.bound().pages_in_use() as u64);
            Ok(())
        })
    }
}

module! {
    type: RamModule,
    name: "ersatz_ram",
    authors: ["The Ersatz authors"],
    description: "A device whose memory is a chunk of RAM",
    license: "GPL",
}
