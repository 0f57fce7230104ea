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

kernel::module_pci_driver! {
    type: driver::probe::Driver,
    name: "ersatz",
    authors: ["The Ersatz authors"],
    description: "Driver of the Ersatz GPU",
    license: "GPL",
}
