// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask doctor`: what the set-up would find on this machine. Changes nothing.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use rustix::fs::statvfs;

use crate::host;
use crate::namespace;
use crate::store::cache_folder;

/// Bytes the cache takes for one kernel series, with room to work in.
const CACHE_SPACE: u64 = 8 << 30;

/// Checks one thing, and reports the result.
type Check = fn() -> Result<String>;

/// Runs the command: fails if the set-up would.
pub fn run() -> Result<ExitCode> {
    let checks: [(&str, Check); 5] =
        [("Debian packages", packages), ("namespaces", namespaces), ("cache", cache), ("mirror", mirror), ("KVM", kvm)];
    let mut status = ExitCode::SUCCESS;
    for (name, check) in checks {
        match check() {
            Ok(found) => println!("ok    {name}: {found}"),
            Err(error) => {
                println!("FAIL  {name}: {error:#}");
                status = ExitCode::FAILURE;
            }
        }
    }
    Ok(status)
}

fn packages() -> Result<String> {
    let missing = host::missing_packages();
    if missing.is_empty() {
        Ok("all there".into())
    } else {
        bail!("missing {} (setup installs them)", missing.join(" "))
    }
}

fn namespaces() -> Result<String> {
    if !host::missing_packages().is_empty() {
        bail!("cannot tell before the packages are there");
    }
    namespace::check()?;
    Ok(if namespace::is_root() { "as root".into() } else { "in a user namespace".into() })
}

/// The nearest folder that is there: the cache itself may not be yet.
fn cache() -> Result<String> {
    let folder = cache_folder()?;
    let there = folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
    let system = statvfs(there).with_context(|| format!("cannot look at {}", there.display()))?;
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    let text = format!("{} with {} GiB free", folder.display(), free >> 30);
    if free < CACHE_SPACE && there != folder {
        bail!("{text}, and {} GiB are needed", CACHE_SPACE >> 30)
    } else {
        Ok(text)
    }
}

fn mirror() -> Result<String> {
    Ok(host::mirror()?.unwrap_or_else(|| "mmdebstrap's own choice".into()))
}

/// A missing KVM is not a failure: guests then run nested or emulated.
fn kvm() -> Result<String> {
    match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => Ok("the node opens; `ersatz run` finds out whether it runs a kernel".into()),
        Err(error) => {
            let machine = Command::new("uname").arg("-m").output().map(|output| output.stdout).unwrap_or_default();
            if String::from_utf8_lossy(&machine).trim() != "x86_64" {
                bail!("/dev/kvm: {error}, and this is not an x86-64 machine");
            }
            Ok(format!("not usable ({error}): guests will run in an emulated machine"))
        }
    }
}
