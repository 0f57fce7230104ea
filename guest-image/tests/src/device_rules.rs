// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Rules by which a device fails, is late or says too much, set through its control window.

use serde_json::{Value, json};

use crate::bus::Function;
use crate::control_window::ControlWindow;
use crate::device::Device;

/// The rules of a device. They end when this is dropped.
#[derive(Debug)]
pub struct DeviceRules {
    window: ControlWindow,
}

impl DeviceRules {
    /// The rules of a device with a control window.
    ///
    /// # Panics
    ///
    /// As all functions here, if there is no control window, or a request is refused.
    pub fn of(device: &Device) -> Self {
        Self { window: ControlWindow::open(&Function::of(device)).expect("the test needs a control window") }
    }

    /// Adds a rule: when it fires (`on`) and what it does (`action`), as in a rules file (`docs/injection.md`).
    pub fn add(&self, name: &str, on: &Value, action: &Value) {
        self.window.must("add-rule", &json!({ "name": name, "on": on, "action": action }));
    }

    /// How often a rule has fired.
    pub fn fired(&self, name: &str) -> u64 {
        let rules = self.window.must("rules", &Value::Null);
        let rule = rules["rules"].as_array().into_iter().flatten().find(|view| view["rule"]["name"] == name);
        rule.and_then(|view| view["fired"].as_u64()).unwrap_or_else(|| panic!("no rule {name} in {rules}"))
    }

    /// Ends a rule.
    pub fn remove(&self, name: &str) {
        self.window.must("remove-rule", &json!({ "name": name }));
    }

    /// The control window.
    pub fn window(&self) -> &ControlWindow {
        &self.window
    }
}

impl Drop for DeviceRules {
    fn drop(&mut self) {
        // Also of a test that failed: the next ones have the same device.
        let rules = self.window.ask("rules", &Value::Null).unwrap_or_default();
        for view in rules["rules"].as_array().into_iter().flatten() {
            let _ = self.window.ask("remove-rule", &json!({ "number": view["number"] }));
        }
    }
}
