// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The static programs that run in the guest and in the outer machine. Cargo knows what has changed; they are built apart
//! from the host's, so that neither build throws the other's results away.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};

use crate::cargo;
use crate::log::{Log, tail};
use crate::progress::Progress;

/// A target named explicitly keeps build scripts and procedural macros out of the static linking.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The profile of what runs in guests, and what that is.
const GUEST_PROFILE: &str = "guest";
const GUEST_PACKAGES: &[&str] = &["ersatz-init", "ersatz-guest-tests"];
/// The profile of the VMM. Cargo has the same name for its folder.
const RELEASE_PROFILE: &str = "release";

/// Static, and no larger than need be: all of it is copied into a guest's memory at each boot.
const RUSTFLAGS: &str = "-C target-feature=+crt-static -C strip=symbols";

/// The programs.
#[derive(Clone, Debug)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// Builds them with cargo. `clone` is the top of the clone.
    pub fn build(clone: &Path, progress: &Progress, log: &Path) -> Result<Self> {
        let stage = progress.stage("static programs");
        let log = Log::start(log)?;
        let target = clone.join("target/static");
        for (profile, packages) in [(GUEST_PROFILE, GUEST_PACKAGES), (RELEASE_PROFILE, &["ersatz"])] {
            let mut cargo = cargo::command(clone);
            cargo.args(["build", "--locked", "--bins", "--profile", profile, "--target", TARGET, "--target-dir"]);
            cargo.arg(&target).args(packages.iter().flat_map(|package| ["-p", package]));
            cargo.env("RUSTFLAGS", RUSTFLAGS).env_remove("CARGO_ENCODED_RUSTFLAGS");
            log.run("cargo build", &mut cargo).map_err(|error| {
                anyhow!(
                    "static programs failed: {error:#}\n  the end of its log, {}:\n{}",
                    log.path().display(),
                    tail(log.path())
                )
            })?;
        }
        stage.done();
        Ok(Self { folder: target.join(TARGET) })
    }

    /// PID 1.
    pub fn init(&self) -> PathBuf {
        self.folder.join(GUEST_PROFILE).join("ersatz-init")
    }

    /// The guest-side tests.
    pub fn tests(&self) -> PathBuf {
        self.folder.join(GUEST_PROFILE).join("ersatz-guest-tests")
    }

    /// The VMM, for the outer machine.
    pub fn vmm(&self) -> PathBuf {
        self.folder.join(RELEASE_PROFILE).join("ersatz")
    }
}
