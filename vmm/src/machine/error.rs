// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Why a machine could not be built or could not go on.

use thiserror::Error;

/// Why a machine could not be built or could not go on running.
#[derive(Debug, Error)]
pub enum MachineError {
    /// Placeholder while the machine is being built.
    #[error("the machine cannot be built yet")]
    NotYet,
}
