// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether a QEMU that the user named has the devices that it is needed for.

use std::process::Stdio;

use thiserror::Error;

use super::Qemu;

/// Why a QEMU cannot be used.
#[derive(Debug, Error)]
pub enum UnfitError {
    /// It cannot be run.
    #[error("cannot run {program} (give the path of a qemu-system-x86_64 with --qemu, or leave --qemu out)")]
    Run {
        /// The program.
        program: String,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// It lacks a device.
    #[error("{program} has no device {}, {}; {}, or leave --qemu out to take the one of the toolchain root", device.name, device.purpose, device.advice)]
    Lacks {
        /// The program.
        program: String,
        /// The device.
        device: RequiredDevice,
    },
}

/// A device that QEMU must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequiredDevice {
    name: &'static str,
    /// What it is needed for, as a relative clause.
    purpose: &'static str,
    /// What to do about a QEMU without it.
    advice: &'static str,
}

/// The client by which QEMU reaches the GPU.
pub const VFIO_USER: RequiredDevice = RequiredDevice {
    name: "vfio-user-pci",
    purpose: "by which it would reach the GPU",
    advice: "give a QEMU of version 10.1 or later with --qemu",
};

/// The mailbox of a guest that is restored from a snapshot.
pub const MAILBOX: RequiredDevice = RequiredDevice {
    name: "ivshmem-plain",
    purpose: "by which a guest that starts from a snapshot gets its run",
    advice: "add --cold to boot instead",
};

/// Checks that a QEMU has some devices.
///
/// # Errors
///
/// Fails if it lacks one of them, or cannot be run.
pub fn check_devices(qemu: &Qemu, devices: &[RequiredDevice]) -> Result<(), UnfitError> {
    let program = qemu.program().display().to_string();
    let mut command = qemu.command();
    command.args(["-machine", "none", "-device", "help"]).stdin(Stdio::null());
    let output = command.output().map_err(|source| UnfitError::Run { program: program.clone(), source })?;
    let list = String::from_utf8_lossy(&output.stdout);
    match devices.iter().find(|device| !list.contains(&format!("\"{}\"", device.name))) {
        Some(device) => Err(UnfitError::Lacks { program, device: *device }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    /// A program that lists these devices.
    fn qemu(folder: &std::path::Path, devices: &str) -> Qemu {
        let (text, path) = (folder.join("text"), folder.join("qemu"));
        fs::write(&text, format!("#!/bin/sh\necho '{devices}'\n")).unwrap();
        // By another process: a child of another thread would have inherited a file that this one writes, and a program that is open for
        // writing cannot be run (ETXTBSY).
        assert!(Command::new("install").args(["-m", "755"]).args([&text, &path]).status().unwrap().success());
        Qemu::Host(path)
    }

    #[test]
    fn a_device_that_is_missing_is_named_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let old = qemu(folder.path(), "name \"vfio-user-pci\", bus PCI");
        assert!(check_devices(&old, &[VFIO_USER]).is_ok());
        let error = check_devices(&old, &[VFIO_USER, MAILBOX]).unwrap_err().to_string();
        assert!(error.contains("ivshmem-plain") && error.contains("--cold") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn a_program_that_is_not_qemu_is_refused_by_name() {
        let error = check_devices(&Qemu::Host("/bin/true".into()), &[VFIO_USER]).unwrap_err();
        assert!(matches!(error, UnfitError::Lacks { .. }), "{error}");
        let error = check_devices(&Qemu::Host("/nowhere/qemu".into()), &[]).unwrap_err();
        assert!(error.to_string().contains("/nowhere/qemu"), "{error}");
    }
}
