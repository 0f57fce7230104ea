// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Errors with their causes, for the log.

/// Returns an error and its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}
