// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which QEMU to start: the toolchain root's, run in place, or the user's own.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The dynamic loader in the toolchain root. Started by hand it takes all libraries from there too, whatever libc the
/// host has, and needs no chroot and so no privilege.
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const PROGRAM: &str = "usr/bin/qemu-system-x86_64";
const FIRMWARE: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];
const MODULES: &str = "usr/lib/x86_64-linux-gnu/qemu";

/// A QEMU for x86-64 machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Qemu {
    /// The one in a toolchain root.
    InRoot(PathBuf),
    /// A program of the host.
    Host(PathBuf),
}

impl Qemu {
    /// What `--qemu` names, else the toolchain root's.
    pub fn choose(named: Option<&Path>, toolchain_root: &Path) -> Self {
        match named {
            Some(path) => Self::Host(path.to_owned()),
            None => Self::InRoot(toolchain_root.to_owned()),
        }
    }

    /// The program, to show to people.
    pub fn program(&self) -> PathBuf {
        match self {
            Self::InRoot(root) => root.join(PROGRAM),
            Self::Host(path) => path.clone(),
        }
    }

    /// A command that starts it, to which the machine's arguments are to be added.
    pub fn command(&self) -> Command {
        match self {
            Self::InRoot(root) => {
                let mut command = Command::new(root.join(LOADER));
                command.arg("--library-path").arg(root.join(LIBRARIES)).arg(root.join(PROGRAM));
                for folder in FIRMWARE {
                    command.arg("-L").arg(root.join(folder));
                }
                command.env("QEMU_MODULE_DIR", root.join(MODULES));
                command
            }
            Self::Host(path) => Command::new(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_program_wins() {
        let qemu = Qemu::choose(Some(Path::new("/opt/qemu")), Path::new("/root"));
        assert_eq!(qemu.command().get_program(), "/opt/qemu");
        assert_eq!(qemu.program(), Path::new("/opt/qemu"));
    }

    #[test]
    fn everything_of_the_roots_qemu_comes_from_the_root() {
        let command = Qemu::choose(None, Path::new("/r")).command();
        assert_eq!(command.get_program(), "/r/lib64/ld-linux-x86-64.so.2");
        let arguments: Vec<_> = command.get_args().filter_map(|a| a.to_str()).collect();
        assert!(arguments.contains(&"/r/usr/bin/qemu-system-x86_64"), "{arguments:?}");
        assert!(arguments.iter().all(|a| a.starts_with('-') || a.starts_with("/r/")), "{arguments:?}");
    }
}
