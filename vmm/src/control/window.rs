// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The control window: the requests of a program in the guest.

use ersatz_device_model::control_window::ControlHandler;

use super::protocol::{Envelope, ErrorKind, Failure, answer};
use super::requests::carry_out;
use crate::gpu::registry::GpuRegistry;

/// Carries out requests on the GPUs of one machine.
#[derive(Debug)]
pub struct WindowHandler(GpuRegistry);

impl WindowHandler {
    /// A handler for these GPUs.
    pub fn new(gpus: GpuRegistry) -> Self {
        Self(gpus)
    }
}

impl ControlHandler for WindowHandler {
    fn carry_out(&self, request: &[u8], room: usize, is_stopped: &dyn Fn() -> bool) -> Vec<u8> {
        let (result, id) = match Envelope::parse(request) {
            Ok(envelope) => (carry_out(&envelope, &self.0, is_stopped), envelope.id),
            Err(failure) => (Err(failure), None),
        };
        let line = answer(result, id.clone());
        if line.len() <= room {
            return line.into();
        }
        let message =
            format!("the answer has {} bytes, and the window room for {room}; use the control socket", line.len());
        // An id can be that long as well.
        let id = id.filter(|id| id.to_string().len() < room / 2);
        answer(Err(Failure::new(ErrorKind::Refused, message)), id).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer_to(request: &str, room: usize) -> String {
        let handler = WindowHandler::new(GpuRegistry::default());
        String::from_utf8(handler.carry_out(request.as_bytes(), room, &|| false)).unwrap()
    }

    #[test]
    fn requests_are_those_of_the_socket() {
        assert!(answer_to(r#"{"execute":"list","id":7}"#, 1 << 20).contains(r#""id":7"#));
        assert!(answer_to(r#"{"execute":"query"}"#, 1 << 20).contains("there is no GPU 0"));
        assert!(answer_to("\u{0}", 1 << 20).contains("not a request"));
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let text = answer_to(r#"{"execute":"list","id":7}"#, 512);
        assert!(text.contains("the control socket") && text.contains(r#""id":7"#), "{text}");
        let long = format!(r#"{{"execute":"list","id":"{}"}}"#, "x".repeat(4096));
        assert!(answer_to(&long, 512).len() <= 512);
    }
}
