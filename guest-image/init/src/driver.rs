// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Loads kernel modules, the driver above all.

use std::ffi::CString;
use std::fs::File;
use std::path::{Path, PathBuf};

use ersatz_guest_image::kernel_command_line::module_parameters;
use ersatz_guest_image::run::{DRIVER_PARAMETERS_PATH, DRIVER_PATH, MODULES_LIST};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use thiserror::Error;

use crate::kernel_log::KernelLog;

/// The driver's name as a module.
pub const DRIVER_NAME: &str = "ersatz";

/// Why a module could not be loaded.
#[derive(Debug, Error)]
pub enum ModuleError {
    /// A file that is needed for it could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The parameters cannot be handed to the kernel.
    #[error("the parameters {0:?} contain a NUL byte")]
    Parameters(String),
    /// The kernel refused it, and its log says why.
    #[error("the kernel refused module {path} with parameters {parameters:?}; its log says: {words}")]
    RefusedWithWords {
        /// The module.
        path: PathBuf,
        /// Its parameters.
        parameters: String,
        /// What the kernel printed meanwhile.
        words: String,
        /// The system's error.
        source: Errno,
    },
    /// The kernel refused it.
    #[error(
        "the kernel refused module {path} with parameters {parameters:?} (its log says why: built for another kernel, an unknown \
         parameter?)"
    )]
    Refused {
        /// The module.
        path: PathBuf,
        /// Its parameters.
        parameters: String,
        /// The system's error.
        source: Errno,
    },
}

/// Loads one module with parameters as on a command line (`NAME=VALUE NAME=VALUE`).
///
/// # Errors
///
/// Fails if the file cannot be opened, or the kernel refuses it. A driver whose probe fails is loaded all the same: look at the
/// device.
pub fn load(path: &Path, parameters: &str) -> Result<(), ModuleError> {
    let file = File::open(path).map_err(|source| ModuleError::Read { path: path.into(), source })?;
    let text = CString::new(parameters).map_err(|_| ModuleError::Parameters(parameters.into()))?;
    finit_module(&file, &text, ModuleInitFlags::empty()).map_err(|source| ModuleError::Refused {
        path: path.into(),
        parameters: parameters.into(),
        source,
    })
}

/// Loads the driver with the parameters that the run brought, then those on the kernel command line, then `more`.
///
/// # Errors
///
/// As [`load`]; and if there is no `/proc/cmdline` to read.
pub fn load_driver(more: &str) -> Result<(), ModuleError> {
    const COMMAND_LINE: &str = "/proc/cmdline";
    let read =
        |path: &str| std::fs::read_to_string(path).map_err(|source| ModuleError::Read { path: path.into(), source });
    let brought =
        if Path::new(DRIVER_PARAMETERS_PATH).exists() { read(DRIVER_PARAMETERS_PATH)? } else { String::new() };
    let booted = module_parameters(&read(COMMAND_LINE)?, DRIVER_NAME);
    load(Path::new(DRIVER_PATH), format!("{} {booted} {more}", brought.trim()).trim())
}

/// Loads the modules that the run brought, in the order of their list. A kernel's own module that is loaded already is fine.
///
/// # Errors
///
/// Fails with the kernel's words if it refuses one, and if the list cannot be read.
pub fn load_brought() -> Result<(), ModuleError> {
    let list = match std::fs::read_to_string(MODULES_LIST) {
        Ok(list) => list,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(ModuleError::Read { path: MODULES_LIST.into(), source }),
    };
    let read_log = |source| ModuleError::Read { path: "/dev/kmsg".into(), source };
    let mut log = KernelLog::open().map_err(read_log)?;
    let mut words = list.split_terminator('\0');
    while let (Some(path), Some(parameters)) = (words.next(), words.next()) {
        log.messages().map_err(read_log)?;
        match load(Path::new(path), parameters) {
            Ok(()) => {}
            Err(ModuleError::Refused { source: Errno::EEXIST, .. }) if parameters.is_empty() => {}
            Err(ModuleError::Refused { path, parameters, source }) => {
                let words = log.messages().map_err(read_log)?.join("; ");
                return Err(ModuleError::RefusedWithWords { path, parameters, words, source });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_module_is_named() {
        let error = load(Path::new("/nowhere/absent.ko"), "").unwrap_err();
        assert!(error.to_string().contains("/nowhere/absent.ko"), "{error}");
    }

    #[test]
    fn parameters_with_a_nul_byte_never_reach_the_kernel() {
        let file = std::env::current_exe().unwrap();
        assert!(matches!(load(&file, "a=\0"), Err(ModuleError::Parameters(_))));
    }
}
