// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where a call is held: at a function of the kernel, or at a step of the device's work.
//!
//! The module holds the thread itself. The device holds whatever comes to the step next, which is what the thread's call wants of it, if
//! nothing else uses the device at that time.

use std::cell::Cell;
use std::time::Duration;

use ersatz_guest_image::error_chain::chain;
use ersatz_scenario::Scenario;
use ersatz_uapi::hold::State;

use super::board::now_ns;
use crate::bus::Function;
use crate::control_window::ControlWindow;
use crate::device::Device;
use crate::hold::{Hold, Holder, Spec};

/// Who holds. Each is opened with the first scenario that needs it.
#[derive(Debug, Default)]
pub struct Holders {
    kernel: Option<Holder>,
    device: Option<ControlWindow>,
}

impl Holders {
    /// Opens those that a scenario needs.
    ///
    /// # Errors
    ///
    /// Why one of them cannot be had, in words.
    pub fn open(&mut self, scenario: &Scenario, device: &Device) -> Result<(), String> {
        if scenario.holds_kernel() && self.kernel.is_none() {
            self.kernel = Some(Holder::open().map_err(|error| error.to_string())?);
        }
        if scenario.holds_device() && self.device.is_none() {
            let window = ControlWindow::open(&Function::of(device));
            self.device = Some(window.ok_or("the GPU has no control window; give --control-window")?);
        }
        Ok(())
    }

    /// Arms a hold of a kernel's function.
    ///
    /// # Errors
    ///
    /// Why it cannot be had, in words.
    pub fn arm_kernel(&self, spec: &Spec) -> Result<HeldPoint<'_>, String> {
        let holder = self.kernel.as_ref().ok_or("the module that holds tasks is not there")?;
        holder.arm(spec).map(HeldPoint::Kernel).map_err(|error| chain(&error).to_string())
    }

    /// Arms a hold of the n-th arrival at a step of the device's work. Its name tells it from others.
    ///
    /// # Errors
    ///
    /// Why it cannot be had, in words.
    pub fn arm_device(&self, name: String, step: &str, nth: u32, deadline: Duration) -> Result<HeldPoint<'_>, String> {
        let window = self.device.as_ref().ok_or("the GPU has no control window")?;
        window.hold(&name, step, &serde_json::Value::Null, nth.into(), deadline)?;
        Ok(HeldPoint::Device(DeviceHold { window, name, held_at: Cell::default(), released: Cell::default() }))
    }
}

/// A hold.
#[derive(Debug)]
pub enum HeldPoint<'a> {
    /// In the kernel.
    Kernel(Hold),
    /// In the device.
    Device(DeviceHold<'a>),
}

/// What has become of a hold.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// How far it has come.
    pub state: State,
    /// When something was held, on the monotonic clock.
    pub held_at_ns: Option<u64>,
    /// When that was let go.
    pub released_at_ns: Option<u64>,
    /// Why no entry was held, if that was the module's doing: ends a sentence about the entries.
    pub also: &'static str,
    /// Number of entries, where that is known.
    pub hits: Option<u64>,
}

impl HeldPoint<'_> {
    /// What has become of it.
    pub fn status(&self) -> Status {
        match self {
            Self::Kernel(hold) => {
                let status = hold.status();
                Status {
                    state: status.state,
                    held_at_ns: status.held_at_ns,
                    released_at_ns: status.released_at_ns,
                    also: if status.unholdable == 0 { "" } else { ", some with interrupts off" },
                    hits: Some(status.hits),
                }
            }
            Self::Device(hold) => hold.status(),
        }
    }

    /// Lets go.
    pub fn resume(&self) {
        match self {
            // Its deadline may have come first.
            Self::Kernel(hold) => drop(hold.resume()),
            Self::Device(hold) => hold.resume(),
        }
    }

    /// Lets go, and holds nothing any more.
    pub fn cancel(&self) {
        match self {
            Self::Kernel(hold) => hold.cancel(),
            Self::Device(hold) => hold.window.clear(&hold.name),
        }
    }
}

/// A breakpoint of the device.
#[derive(Debug)]
pub struct DeviceHold<'a> {
    window: &'a ControlWindow,
    name: String,
    held_at: Cell<Option<u64>>,
    released: Cell<Option<(u64, State)>>,
}

impl DeviceHold<'_> {
    fn status(&self) -> Status {
        if self.released.get().is_none() {
            match (self.window.is_held(&self.name), self.held_at.get()) {
                (true, None) => self.held_at.set(Some(now_ns())),
                (false, Some(_)) => self.released.set(Some((now_ns(), State::Expired))),
                _ => {}
            }
        }
        let state = match (self.held_at.get(), self.released.get()) {
            (None, _) => State::Armed,
            (Some(_), None) => State::Held,
            (Some(_), Some((_, state))) => state,
        };
        Status {
            state,
            held_at_ns: self.held_at.get(),
            released_at_ns: self.released.get().map(|(at, _)| at),
            also: "",
            hits: None,
        }
    }

    fn resume(&self) {
        if self.window.resume(&self.name) {
            self.released.set(Some((now_ns(), State::Resumed)));
        }
    }
}
