// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Cargo, as this program was started by it.

use std::env;
use std::path::Path;
use std::process::Command;

/// A cargo that works on the clone.
pub fn command(clone: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(clone);
    // What `cargo run` tells this program about itself is not meant for the cargo it starts.
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR") {
            command.env_remove(name);
        }
    }
    command
}
