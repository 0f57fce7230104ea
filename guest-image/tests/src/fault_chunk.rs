// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver's parameter that says how much memory a CPU fault brings back.

use std::fs;

/// The parameter, in bytes.
const PARAMETER: &str = "/sys/module/ersatz/parameters/fault_chunk";

/// Another value of the parameter, until this is dropped.
#[derive(Debug)]
pub struct FaultChunk {
    before: String,
}

impl FaultChunk {
    /// Sets the parameter.
    pub fn set(bytes: usize) -> Self {
        let before = fs::read_to_string(PARAMETER).expect("the driver has the parameter");
        fs::write(PARAMETER, bytes.to_string()).expect("the parameter can be set");
        Self { before }
    }

    /// Makes each fault bring back a single page, of those that are not part of a large folio.
    pub fn single_pages() -> Self {
        Self::set(4096)
    }
}

impl Drop for FaultChunk {
    fn drop(&mut self) {
        fs::write(PARAMETER, self.before.trim()).expect("the parameter can be set back");
    }
}
