// SPDX-License-Identifier: GPL-2.0
//! Stops tasks at the entry of functions of the unmodified kernel, for tests that need its code in a certain order.
//!
//! A kprobe at a function's entry is reached by the function tracer: with interrupts on, so that other CPUs' TLB shootdowns are
//! served, and with preemption off. Its handler spins until the task is resumed or a deadline passes; it takes no lock,
//! never sleeps and never allocates. What user space can ask for is in [`uapi::hold`].
//!
//! - [`probe`], [`arrival`], [`task`]: safe wrappers of kprobes, of waking from a probe's handler, of process ids; the `unsafe` code
//!   is there and in [`device`].
//! - [`filter`]: which entries a hold is for.
//! - [`hold`]: one hold, and what has become of it.
//! - [`registry`]: all holds, and the limits on them.
//! - [`session`]: an open file and its ioctls.
//! - [`device`]: the node in `/dev`.

mod arrival;
mod bindings;
mod device;
mod filter;
mod hold;
mod probe;
mod registry;
mod session;
mod task;
#[path = "../../uapi/src/lib.rs"]
#[allow(dead_code, unreachable_pub)]
mod uapi;

use kernel::{prelude::*, InPlaceModule};

/// The module: its device is there while it is loaded.
#[pin_data]
struct HoldModule {
    #[pin]
    device: device::ControlDevice,
}

impl InPlaceModule for HoldModule {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self { device <- device::ControlDevice::register() })
    }
}

module! {
    type: HoldModule,
    name: "ersatz_hold",
    authors: ["The Ersatz authors"],
    description: "Holds tasks at the entry of kernel functions",
    license: "GPL",
}
