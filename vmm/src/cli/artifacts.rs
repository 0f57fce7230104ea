// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Finding the built files that a guest boots from: the manifest that `cargo xtask build` left, by series or by kernel. For a kernel
//! tree of the user's own, [`tree`] builds them.

mod tree;

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use ersatz_guest_image::build_tree::BuildTree;
use ersatz_guest_image::error_chain::chain;
use ersatz_guest_image::kernel_file::is_kernel;
use ersatz_guest_image::kernel_release::release;
use ersatz_guest_image::manifest::{DEBUG_KERNEL, FILE_NAME, Manifest, ManifestError};
use ersatz_guest_image::pins::{PinError, Pins};
use thiserror::Error;

/// The end of the releases of debug kernels.
const DEBUG_RELEASE: &str = "-debug";

/// Where built guests are, from the top of a clone: one folder per kernel.
const GUEST_FOLDER: &str = "target/guest";

/// The variable that names the folder of the manifest to use.
const GUEST_VARIABLE: &str = "ERSATZ_GUEST";

/// What `--kernel` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelChoice {
    /// A series, such as `7.2`: the newest that was built of it; or [`DEBUG_KERNEL`].
    Series(String),
    /// A bzImage or ELF file.
    File(PathBuf),
    /// A tree in which a kernel was built.
    Tree(BuildTree),
}

impl KernelChoice {
    /// Whether it is the debug kernel.
    pub fn is_debug(&self) -> bool {
        matches!(self, Self::Series(series) if series == DEBUG_KERNEL)
    }
}

/// Why there is nothing to boot.
#[derive(Debug, Error)]
pub enum ArtifactError {
    /// No series was named, and the default is not known.
    #[error(transparent)]
    Pins(#[from] PinError),
    /// No folder that was searched has a manifest for the series.
    #[error(
        "no built guest for kernel {series} (searched {GUEST_FOLDER}/{series} from here up); run `cargo xtask build --kernel \
         {series}` in the clone, or set {GUEST_VARIABLE}"
    )]
    NotBuilt {
        /// The series.
        series: String,
    },
    /// The manifest that `$ERSATZ_GUEST` names is of another series.
    #[error("{GUEST_VARIABLE} holds kernel {found}, not the {wanted} that --kernel asks for; unset {GUEST_VARIABLE}")]
    OtherSeries {
        /// The series asked for.
        wanted: String,
        /// The release found.
        found: String,
    },
    /// A kernel was given as a file that does not contain its release.
    #[error(
        "{} does not say which kernel it is, so no driver can be found for it; give an initramfs that has one with --initramfs",
        path.display()
    )]
    NoRelease {
        /// The file.
        path: PathBuf,
    },
    /// A kernel was given as a file, and no driver was built for it.
    #[error(
        "{} is kernel {release}, for which no driver was built; give an initramfs that has one with --initramfs, or a series that \
         was built with --kernel (there is {built})",
        path.display()
    )]
    NoDriver {
        /// The file.
        path: PathBuf,
        /// Its release.
        release: String,
        /// The releases that have a driver.
        built: String,
    },
    /// The driver for a build tree could not be built.
    #[error("the driver could not be built for the kernel in {}, as said above", folder.display())]
    TreeNotBuilt {
        /// The tree.
        folder: PathBuf,
    },
    /// There are no sources of the driver.
    #[error(
        "--kernel with a kernel tree takes the sources of the driver: run ersatz from its clone, or in a folder of the clone"
    )]
    NoClone,
    /// Cargo, which builds the driver, cannot be started.
    #[error("cannot start `cargo xtask build`, which builds the driver for a kernel tree; install Rust")]
    Build {
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The manifest cannot be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A file to boot from cannot be read.
    #[error("cannot read the {what} {}; {advice}", path.display())]
    Unreadable {
        /// What the file is.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// What to do.
        advice: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// Reads `--kernel`: digits and dots are a series, `debug` is the debug kernel, all else is a file or the folder of a build tree.
///
/// # Errors
///
/// Fails for any other text, and for a tree that is not configured and built as guests need it.
pub fn parse_kernel(text: &str) -> Result<KernelChoice, String> {
    let is_series = text.split_once('.').is_some_and(|(major, minor)| {
        [major, minor].iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
    });
    if is_series || text == DEBUG_KERNEL {
        return Ok(KernelChoice::Series(text.to_owned()));
    }
    let path = PathBuf::from(text);
    match path.metadata() {
        Ok(metadata) if metadata.is_file() => match is_kernel(&path) {
            Ok(true) => Ok(KernelChoice::File(path)),
            Ok(false) => Err("this file is no kernel for x86-64 (a bzImage, or the ELF file vmlinux)".to_owned()),
            Err(error) => Err(format!("cannot read it: {error}")),
        },
        Ok(metadata) if metadata.is_dir() => {
            BuildTree::open(&path).map(KernelChoice::Tree).map_err(|error| chain(&error).to_string())
        }
        Ok(_) => Err("neither a kernel series nor a file; type for example 7.2 or /boot/vmlinuz".to_owned()),
        Err(error) => Err(format!("no kernel series, and as a file: {error}; type for example 7.2 or /boot/vmlinuz")),
    }
}

/// Returns the manifest with the built files for `kernel`, or for the default series. For a kernel that is a file this is the
/// manifest of the same release, since the driver must fit the kernel; for a build tree that of what is built for it, which may be
/// built now. With `own_initramfs` it need not, and there may be none.
///
/// # Errors
///
/// Fails if nothing was built for the kernel, or the manifest cannot be used.
pub fn find(kernel: Option<&KernelChoice>, own_initramfs: bool) -> Result<Option<Manifest>, ArtifactError> {
    match kernel {
        None => manifest(None).map(Some),
        Some(KernelChoice::Series(series)) => manifest(Some(series)).map(Some),
        Some(KernelChoice::File(_) | KernelChoice::Tree(_)) if own_initramfs => Ok(manifest(None).ok()),
        Some(KernelChoice::File(path)) => manifest_of_kernel(path).map(Some),
        Some(KernelChoice::Tree(tree)) => tree::manifest(tree).map(Some),
    }
}

/// Returns the manifest of a series, or of the default one: in `$ERSATZ_GUEST`; else in the clone that contains the executable or
/// the current folder.
///
/// # Errors
///
/// Fails if there is none, or it cannot be used.
pub fn manifest(series: Option<&str>) -> Result<Manifest, ArtifactError> {
    let series = match series {
        Some(series) => series.to_owned(),
        None => Pins::load()?.kernel(None)?.series.clone(),
    };
    if let Some(folder) = env::var_os(GUEST_VARIABLE) {
        let manifest = Manifest::load(Path::new(&folder))?;
        return if is_of_series(&manifest.release, &series) {
            Ok(manifest)
        } else {
            Err(ArtifactError::OtherSeries { wanted: series, found: manifest.release })
        };
    }
    match guest_folders().map(|folder| folder.join(&series)).find(|folder| folder.join(FILE_NAME).is_file()) {
        Some(folder) => Ok(Manifest::load(&folder)?),
        None => Err(ArtifactError::NotBuilt { series }),
    }
}

/// Returns the manifest of the kernel in a file.
fn manifest_of_kernel(path: &Path) -> Result<Manifest, ArtifactError> {
    let image = fs::read(path).map_err(|source| ArtifactError::Unreadable {
        what: "kernel",
        path: path.to_owned(),
        advice: "give another with --kernel",
        source,
    })?;
    let release = release(&image).ok_or_else(|| ArtifactError::NoRelease { path: path.to_owned() })?;
    let mut built = all_manifests();
    match built.iter().position(|manifest| manifest.release == release) {
        Some(fitting) => Ok(built.swap_remove(fitting)),
        None => {
            let mut releases: Vec<_> = built.into_iter().map(|manifest| manifest.release).collect();
            releases.sort();
            releases.dedup();
            let built = if releases.is_empty() { "none".to_owned() } else { releases.join(", ") };
            Err(ArtifactError::NoDriver { path: path.to_owned(), release: release.to_owned(), built })
        }
    }
}

/// Every manifest that can be loaded, of whatever series.
pub fn all_manifests() -> Vec<Manifest> {
    match env::var_os(GUEST_VARIABLE) {
        Some(folder) => Manifest::load(Path::new(&folder)).into_iter().collect(),
        None => manifests_of_clone().collect(),
    }
}

/// The manifests of the clone, whatever `$ERSATZ_GUEST` says.
fn manifests_of_clone() -> impl Iterator<Item = Manifest> {
    let entries = guest_folders().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
    entries.filter_map(|entry| Manifest::load(&entry.ok()?.path()).ok())
}

/// The folders that may have built guests in them.
fn guest_folders() -> impl Iterator<Item = PathBuf> {
    above(GUEST_FOLDER)
}

/// The places that a path from the top of a clone may have: in the clone that the executable is in, then in the current folder's.
pub fn above(path: &'static str) -> impl Iterator<Item = PathBuf> {
    let starts = [env::current_exe().ok(), env::current_dir().ok()];
    let places =
        starts.into_iter().flatten().map(move |start| start.ancestors().map(|top| top.join(path)).collect::<Vec<_>>());
    places.flatten()
}

/// Checks that a file can be opened, so that the error names the option and not the loader's step.
///
/// # Errors
///
/// Fails if it cannot.
pub fn readable(what: &'static str, path: &Path, advice: &'static str) -> Result<(), ArtifactError> {
    fs::File::open(path).map(drop).map_err(|source| ArtifactError::Unreadable {
        what,
        path: path.to_owned(),
        advice,
        source,
    })
}

/// Whether a release such as `7.2.12+deb13-amd64` is of a series such as `7.2`, or of a debug kernel if that is the series.
fn is_of_series(release: &str, series: &str) -> bool {
    if series == DEBUG_KERNEL {
        return release.ends_with(DEBUG_RELEASE);
    }
    release.strip_prefix(series).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_told_from_a_file() {
        assert_eq!(parse_kernel("7.2"), Ok(KernelChoice::Series("7.2".to_owned())));
        assert_eq!(parse_kernel("debug"), Ok(KernelChoice::Series("debug".to_owned())));
        assert!(parse_kernel("/dev/null/x").is_err());
        assert!(parse_kernel("7").is_err());
        assert!(parse_kernel("7.").is_err());
        assert!(parse_kernel("/dev/null").unwrap_err().contains("neither"));
        assert!(parse_kernel("/").unwrap_err().contains("not a kernel tree"));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("vmlinux");
        let text = file.to_str().expect("plain path");
        fs::write(&file, b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0").unwrap();
        assert_eq!(parse_kernel(text), Ok(KernelChoice::File(file.clone())));
        fs::write(&file, "hello").unwrap();
        assert!(parse_kernel(text).unwrap_err().contains("no kernel"));
    }

    #[test]
    fn a_release_belongs_to_its_series_only() {
        assert!(is_of_series("7.2.12+deb13-amd64", "7.2"));
        assert!(is_of_series("7.2-rc1", "7.2"));
        assert!(!is_of_series("7.20.1", "7.2"));
        assert!(!is_of_series("7.3.4", "7.2"));
        assert!(is_of_series("7.2.12-ersatz-debug", "debug") && !is_of_series("7.2.12+deb13-amd64", "debug"));
    }

    #[test]
    fn a_kernel_for_which_no_driver_was_built_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vmlinux");
        fs::write(&path, b"\x7fELF..Linux version 1.2.3-mine (gcc)").unwrap();
        let error = find(Some(&KernelChoice::File(path.clone())), false).unwrap_err();
        assert!(matches!(&error, ArtifactError::NoDriver { release, .. } if release == "1.2.3-mine"), "{error}");
        fs::write(&path, b"no kernel").unwrap();
        let error = find(Some(&KernelChoice::File(path.clone())), false).unwrap_err();
        assert!(error.to_string().contains("--initramfs"), "{error}");
        assert!(find(Some(&KernelChoice::File(path)), true).is_ok());
    }
}
