// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The toolchain root: a small trixie with the compilers the stock kernels were built with, and QEMU.
//!
//! Everything that must match the guest's kernel runs in it, so the distribution of this machine does not matter.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use ersatz_guest_image::pins::Distribution;

use crate::fingerprint::{Fingerprint, Inputs};
use crate::host;
use crate::namespace;
use crate::progress::Progress;
use crate::step::Step;
use crate::store::Store;

/// From the suite: what builds a kernel tree with Rust, and unpacks.
const PACKAGES: &[&str] = &[
    "bc",
    "bindgen",
    "bison",
    "busybox-static",
    "cpio",
    "flex",
    "gcc-14",
    "kmod",
    "libc6-dev",
    "libelf-dev",
    "libssl-dev",
    "make",
    "pahole",
    "perl-base",
    "python3-minimal",
    "rust-clippy",
    "rust-src",
    "rustc",
    "rustfmt",
    "xz-utils",
    "zstd",
];

/// From the backports: QEMU, with the parts that must be of the same version.
const BACKPORTED_PACKAGES: &[&str] = &["qemu-system-common", "qemu-system-data", "qemu-system-x86", "seabios"];

/// Adds the backports from the mirror the suite comes from. `$1` is the new root.
const ADD_BACKPORTS: &str =
    r#"sed -n "s/ SUITE / BACKPORTS /p" "$1/etc/apt/sources.list" > "$1/etc/apt/sources.list.d/backports.list""#;

/// Enters the root `$1` (read-only where the system permits: nothing may change it once it is made), with the folders
/// given as triples of name, `ro` or `rw`, and source below `/mnt`; `--` ends them, and the command follows.
const ENTER: &str = r#"
PATH=$PATH:/usr/sbin:/sbin
root=$1; shift
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root" 2>/dev/null || :
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs tmpfs "$root/mnt"
mount --bind "$(readlink -f /etc/resolv.conf)" "$root/etc/resolv.conf" 2>/dev/null || :
while [ "$1" != -- ]; do
    mkdir "$root/mnt/$1"
    mount --rbind "$3" "$root/mnt/$1"
    [ "$2" = rw ] || mount -o remount,bind,ro "$root/mnt/$1" 2>/dev/null || :
    shift 3
done
shift
exec chroot "$root" "$@"
"#;

/// The environment in the root, with what is needed to reach the network.
const PASSED_ON: &[&str] = &["http_proxy", "https_proxy", "no_proxy"];

/// A toolchain root that is whole.
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// Its folder.
    pub root: PathBuf,
    /// What it was made from.
    pub fingerprint: Fingerprint,
}

/// A folder to be seen in the root, as `/mnt/NAME`.
pub struct Mount<'a> {
    name: &'a str,
    access: &'static str,
    source: &'a Path,
}

impl<'a> Mount<'a> {
    /// To read.
    pub fn read(name: &'a str, source: &'a Path) -> Self {
        Self { name, access: "ro", source }
    }

    /// To read and write.
    pub fn write(name: &'a str, source: &'a Path) -> Self {
        Self { name, access: "rw", source }
    }
}

impl Toolchain {
    /// Makes the root in the cache.
    pub fn prepare(cache: &Store, progress: &Progress, distribution: &Distribution) -> Result<Self> {
        let hook = ADD_BACKPORTS.replace("SUITE", &distribution.suite).replace("BACKPORTS", &distribution.backports);
        let backported = BACKPORTED_PACKAGES.iter().map(|package| format!("{package}/{}", distribution.backports));
        let packages: Vec<String> = PACKAGES.iter().map(|package| (*package).to_owned()).chain(backported).collect();
        let packages = packages.join(",");
        // The files of a root made by another user have other owners.
        let owner = rustix::process::geteuid().as_raw().to_string();
        let fingerprint =
            Inputs::of("toolchain", &hook).text(&distribution.suite).text(&packages).text(&owner).fingerprint();
        let step = Step {
            store: cache,
            name: format!("toolchain-{}", fingerprint.short()),
            title: "toolchain root",
            inputs: fingerprint.clone(),
            advice: "check that the Debian mirror is reachable (ERSATZ_MIRROR names another one) and that the cache has \
                     3 GB of free space, then run the same command again",
        };
        let root = step.run(progress, |work| {
            work.stage.at("mmdebstrap");
            let mut mmdebstrap = namespace::command();
            mmdebstrap.args(["mmdebstrap", "--mode=root", "--variant=minbase", "--dpkgopt=force-unsafe-io"]);
            mmdebstrap.args(["--aptopt=APT::Sandbox::User \"root\"", "--aptopt=Acquire::Retries \"5\""]);
            mmdebstrap.arg(format!("--setup-hook={hook}")).arg(format!("--include={packages}"));
            mmdebstrap.arg(&distribution.suite).arg(&work.folder).args(host::mirror()?);
            work.log.run("mmdebstrap", &mut mmdebstrap)
        })?;
        Ok(Self { root, fingerprint })
    }

    /// A shell in the root that runs a script (with `sh -eu`; `$1`... are the arguments), as root, with some folders to
    /// see and all other mounts and processes of its own.
    pub fn shell(&self, mounts: &[Mount<'_>], script: &str, arguments: &[&str]) -> Command {
        let mut command = namespace::command();
        command.args(["sh", "-euc", ENTER, "enter"]).arg(&self.root);
        for Mount { name, access, source } in mounts {
            command.args([name, access]).arg(source);
        }
        command.args(["--", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp", "LC_ALL=C.UTF-8"]);
        for name in PASSED_ON {
            if let Some(value) = std::env::var_os(name) {
                let mut pair = std::ffi::OsString::from(format!("{name}="));
                pair.push(value);
                command.arg(pair);
            }
        }
        command.args(["sh", "-euc", script, "script"]).args(arguments);
        command
    }
}
