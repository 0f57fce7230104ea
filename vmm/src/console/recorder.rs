// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A sink that keeps what was written to it, for later. Clones share it.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most bytes that are kept: what comes after them is dropped.
const LIMIT: usize = 1 << 20;

/// The sink.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Arc<Mutex<Vec<u8>>>);

impl Recorder {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what was written so far.
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.bytes())
    }

    /// What was written so far.
    #[cfg(test)]
    pub fn text(&self) -> String {
        String::from_utf8(self.bytes().clone()).unwrap()
    }
}

impl Write for Recorder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut kept = self.bytes();
        let room = LIMIT.saturating_sub(kept.len()).min(bytes.len());
        kept.extend_from_slice(&bytes[..room]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
