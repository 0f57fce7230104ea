// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether a QEMU that the user named can do what it is wanted for.

use std::process::Stdio;

use thiserror::Error;

use super::Qemu;

/// Why a QEMU will not do.
#[derive(Debug, Error)]
pub enum UnfitError {
    /// It cannot be run.
    #[error("cannot run {program}: {source}; give the path of a qemu-system-x86_64 with --qemu, or leave --qemu out")]
    Run {
        /// The program.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It has no vfio-user client.
    #[error(
        "{0} has no device vfio-user-pci, by which it would reach the GPU; give a QEMU of version 10.1 or later with --qemu, \
         or leave --qemu out to take the one of the toolchain root"
    )]
    NoVfioUser(String),
}

/// Checks that a QEMU has the vfio-user client.
///
/// # Errors
///
/// If it has not, or is none.
pub fn check_vfio_user(qemu: &Qemu) -> Result<(), UnfitError> {
    let program = qemu.program().display().to_string();
    let mut command = qemu.command();
    command.args(["-machine", "none", "-device", "help"]).stdin(Stdio::null());
    let output = command.output().map_err(|source| UnfitError::Run { program: program.clone(), source })?;
    let list = String::from_utf8_lossy(&output.stdout);
    if list.contains("\"vfio-user-pci\"") { Ok(()) } else { Err(UnfitError::NoVfioUser(program)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_qemu_is_refused_by_name() {
        let error = check_vfio_user(&Qemu::Host("/bin/true".into())).unwrap_err();
        assert!(matches!(error, UnfitError::NoVfioUser(_)), "{error}");
        let error = check_vfio_user(&Qemu::Host("/nowhere/qemu".into())).unwrap_err();
        assert!(error.to_string().contains("/nowhere/qemu"), "{error}");
    }
}
