// SPDX-License-Identifier: GPL-2.0
//! The driver of the Ersatz GPU: a PCIe device whose memory becomes `ZONE_DEVICE` pages.
//!
//! Two layers: [`zone_device`] and [`kernel_ext`] are safe abstractions over the kernel's C side and hold the `unsafe` code;
//! [`driver`] stands on them. What the driver shares with the device ([`abi`]) and with user space ([`uapi`]) are other crates'
//! very files.

#[path = "../../device-model/abi/src/lib.rs"]
#[allow(dead_code, unreachable_pub, unused_imports)]
mod abi;
mod bindings;
mod driver;
mod kernel_ext;
#[path = "../uapi/src/lib.rs"]
#[allow(dead_code, unreachable_pub)]
mod uapi;
mod zone_device;

use driver::probe::Driver;
use kernel::{pci, prelude::*, InPlaceModule, ModuleMetadata, ThisModule};
use zone_device::stand_in::StandInPool;

/// The module: the driver, and what outlasts a device. Dropped in this order, so that every device is left first.
#[pin_data]
struct Module {
    #[pin]
    driver: kernel::driver::Registration<pci::Adapter<Driver>>,
    stand_ins: StandInPool,
}

impl InPlaceModule for Module {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            stand_ins: StandInPool::open()?,
            driver <- kernel::driver::Registration::new(<Self as ModuleMetadata>::NAME, module),
        })
    }
}

module! {
    type: Module,
    name: "ersatz",
    authors: ["The Ersatz authors"],
    description: "Driver of the Ersatz GPU",
    license: "GPL",
}
