// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The control window: what `ersatz ctl` does on the host, done by a program in the guest. The driver of the device need not know.

use std::thread::sleep;
use std::time::{Duration, Instant};

use ersatz_abi::control_window::{BUFFER, BUFFER_SIZE, IDENT, LENGTH, MAGIC, SIZE, STATE, SUBMIT, WindowState};
use ersatz_abi::pci::BAR_CONTROL;
use serde_json::{Value, json};

use crate::bus::Function;
use crate::pattern::PAGE;
use crate::registers::Registers;

/// How often the window is looked at.
const TICK: Duration = Duration::from_micros(200);
/// How much longer a request may take than it asks for.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of an access.
const WORD: usize = size_of::<u32>();

/// The control window of a GPU.
#[derive(Debug)]
pub struct ControlWindow {
    window: Registers,
}

impl ControlWindow {
    /// That of a function; `None` if it has none.
    ///
    /// # Panics
    ///
    /// As all functions here, if it does not answer as the ABI says.
    pub fn open(function: &Function) -> Option<Self> {
        if !function.has_bar(BAR_CONTROL) {
            return None;
        }
        let window = Registers::new(function.map_bar(BAR_CONTROL, 0, SIZE as usize / PAGE));
        assert_eq!(window.read32_at(IDENT), MAGIC, "the control window's magic number");
        Some(Self { window })
    }

    /// Has a request carried out, as `ersatz ctl` does.
    ///
    /// # Errors
    ///
    /// The message with which it is refused.
    pub fn ask(&self, execute: &str, arguments: &Value) -> Result<Value, String> {
        let mut request = json!({ "execute": execute });
        if !arguments.is_null() {
            request["arguments"] = arguments.clone();
        }
        let mut answer = self.exchange(&request.to_string());
        match answer.get_mut("return").map(Value::take) {
            Some(result) => Ok(result),
            None => Err(answer["error"]["message"].as_str().unwrap_or("no answer").to_owned()),
        }
    }

    fn exchange(&self, request: &str) -> Value {
        let length = u32::try_from(request.len()).ok().filter(|length| *length <= BUFFER_SIZE);
        let length = length.expect("a request fits into the window");
        for (word, place) in request.as_bytes().chunks(WORD).zip((BUFFER..).step_by(WORD)) {
            let mut bytes = [0; WORD];
            bytes[..word.len()].copy_from_slice(word);
            self.window.write32_at(place, u32::from_le_bytes(bytes));
        }
        self.window.write32_at(SUBMIT, length);
        let deadline = Instant::now() + PATIENCE;
        while WindowState::from_raw(self.window.read32_at(STATE)) != Some(WindowState::Done) {
            assert!(Instant::now() < deadline, "no answer to {request}");
            sleep(TICK);
        }
        let length = self.window.read32_at(LENGTH).min(BUFFER_SIZE);
        let words = (BUFFER..BUFFER + length).step_by(WORD);
        let mut answer: Vec<u8> = words.flat_map(|place| self.window.read32_at(place).to_le_bytes()).collect();
        answer.truncate(length as usize);
        serde_json::from_slice(&answer).unwrap_or_else(|error| panic!("the answer to {request}: {error}"))
    }

    /// Has a request carried out that must not be refused.
    pub fn must(&self, execute: &str, arguments: &Value) -> Value {
        self.ask(execute, arguments).unwrap_or_else(|message| panic!("{execute} {arguments}: {message}"))
    }

    /// Sets a breakpoint: a step, and what it is to hold (`{"channels": [0]}`; null for everything), once.
    ///
    /// # Errors
    ///
    /// The message with which it is refused.
    pub fn hold(&self, name: &str, step: &str, when: &Value, nth: u64, deadline: Duration) -> Result<(), String> {
        let deadline = u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX);
        let mut breakpoint = json!({ "name": name, "step": step, "nth": nth, "deadline-ns": deadline });
        if !when.is_null() {
            breakpoint["when"] = when.clone();
        }
        self.ask("set-breakpoint", &breakpoint).map(drop)
    }

    /// Whether a breakpoint holds something.
    pub fn is_held(&self, name: &str) -> bool {
        let holds = self.must("holds", &Value::Null);
        holds.as_array().into_iter().flatten().any(|hold| hold["name"] == name)
    }

    /// Waits until a breakpoint holds something; false if that takes longer than `patience`, which is below [`PATIENCE`].
    pub fn wait_held(&self, name: &str, patience: Duration) -> bool {
        let timeout = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        self.ask("wait", &json!({ "for": { "hold": { "breakpoint": name } }, "timeout-ms": timeout })).is_ok()
    }

    /// Ends what a breakpoint holds; false if that is nothing.
    pub fn resume(&self, name: &str) -> bool {
        self.ask("resume", &json!({ "name": name })).is_ok()
    }

    /// Clears a breakpoint, and ends what it holds.
    pub fn clear(&self, name: &str) {
        // What is not there need not be cleared.
        let _ = self.ask("clear-breakpoint", &json!({ "name": name }));
        let _ = self.resume(name);
    }
}
