// SPDX-License-Identifier: GPL-2.0
//! The driver of the Ersatz GPU.
#![allow(dead_code)]

mod bindings;
mod kernel_ext;
mod zone_device;

use kernel::prelude::*;

module! {
    type: Ersatz,
    name: "ersatz",
    authors: ["The Ersatz authors"],
    description: "Driver for the Ersatz GPU",
    license: "GPL",
}
struct Ersatz;
impl kernel::Module for Ersatz {
    fn init(_m: &'static ThisModule) -> Result<Self> {
        Ok(Ersatz)
    }
}
