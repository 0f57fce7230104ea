// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! For tests: a sink that keeps what was written to it. Clones share it.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

/// The sink.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Arc<Mutex<Vec<u8>>>);

impl Recorder {
    /// What was written so far.
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Recorder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
