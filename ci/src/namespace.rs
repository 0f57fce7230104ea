// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Commands in namespaces of their own: what is mounted there, and every process started there, is gone when the command
//! ends or `cargo xtask` is killed.
//!
//! As root that takes a mount and a PID namespace. Any other user gets a user namespace besides, in which they are root and
//! the users of a distribution are mapped to the user's subordinate ids (`/etc/subuid`).

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Error, Result, anyhow, bail};

/// Whether this process is root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A command that runs its arguments in new namespaces and dies with this process.
///
/// It must be started by a thread that outlives it.
pub fn command() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare"]);
    if !is_root() {
        command.args(["--map-root-user", "--map-auto"]);
    }
    command.args(["--mount", "--pid", "--fork", "--kill-child=KILL", "--"]);
    command
}

/// Checks that commands can be run in namespaces on this machine.
pub fn check() -> Result<()> {
    // Where user namespaces are forbidden, an unshare that is to map ids leaves a process behind that waits for ever with our
    // pipes in its hands; one that is not just fails.
    let mut unmapped = Command::new("unshare");
    unmapped.args(["--user", "--"]);
    let trials = if is_root() { vec![command()] } else { vec![unmapped, command()] };
    for mut trial in trials {
        let output = trial.arg("true").stdin(Stdio::null()).output().context("cannot start programs of util-linux")?;
        if !output.status.success() {
            return Err(refused(String::from_utf8_lossy(&output.stderr).trim()));
        }
    }
    Ok(())
}

/// Returns what the user can do about namespaces that cannot be made; `said` is the reason.
fn refused(said: &str) -> Error {
    if is_root() {
        return anyhow!(
            "root cannot make namespaces here ({said}): in a container, start it with the capability CAP_SYS_ADMIN \
             (docker: --privileged)"
        );
    }
    anyhow!(
        "this user cannot make namespaces ({said}): let root allow it (sysctl kernel.unprivileged_userns_clone=1, \
         user.max_user_namespaces above 0) and give the user subordinate ids (usermod --add-subuids 100000-165535 \
         --add-subgids 100000-165535 USER), or run as root"
    )
}

/// Removes a folder and all that is in it, whichever of the mapped users owns it, if it exists.
pub fn remove_tree(path: &Path) -> Result<()> {
    let failed = || format!("cannot remove {}", path.display());
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied && !is_root() => {
            let status = command().args(["rm", "-rf", "--"]).arg(path).status().with_context(failed)?;
            if !status.success() {
                bail!("{}: rm ended with {status}", failed());
            }
            Ok(())
        }
        Err(error) => Err(error).with_context(failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_that_is_not_there_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        remove_tree(&folder.path().join("none")).unwrap();
        fs::create_dir_all(folder.path().join("a/b")).unwrap();
        remove_tree(&folder.path().join("a")).unwrap();
        assert!(!folder.path().join("a").exists());
    }
}
