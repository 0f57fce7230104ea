// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Finding what to boot: the manifest that `cargo xtask build` left, or files given by hand.

use std::path::{Path, PathBuf};
use std::{env, io};

use ersatz_guest_image::manifest::{DEBUG_KERNEL, FILE_NAME, Manifest, ManifestError};
use thiserror::Error;

/// The kernel series taken when none is named.
pub const DEFAULT_SERIES: &str = "7.2";

/// The end of the releases of debug kernels.
const DEBUG_RELEASE: &str = "-debug";

/// Where built guests are, from the top of a clone: one folder a kernel.
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
    /// There is no manifest for the series anywhere that was searched.
    #[error(
        "no built guest for kernel {series} (searched {searched}); run `cargo xtask build --kernel {series}` in the clone, or set \
         ERSATZ_GUEST"
    )]
    NotBuilt {
        /// The series.
        series: String,
        /// The folders that were searched.
        searched: String,
    },
    /// The manifest that was found is of another series.
    #[error("ERSATZ_GUEST holds kernel {found}, not the {wanted} that --kernel asks for; unset ERSATZ_GUEST")]
    OtherSeries {
        /// The series asked for.
        wanted: String,
        /// The release found.
        found: String,
    },
    /// The manifest cannot be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A file to boot from cannot be read.
    #[error("cannot read the {what} {path}: {source}; {advice}")]
    Unreadable {
        /// What the file is.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
        /// What to do.
        advice: &'static str,
    },
}

/// Reads `--kernel`: digits and dots are a series, `debug` is the debug kernel, all else is a file.
///
/// # Errors
///
/// If it names a file and there is none.
pub fn parse_kernel(text: &str) -> Result<KernelChoice, String> {
    let is_series = text.split_once('.').is_some_and(|(major, minor)| {
        [major, minor].iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
    });
    if is_series || text == DEBUG_KERNEL {
        return Ok(KernelChoice::Series(text.to_owned()));
    }
    let path = PathBuf::from(text);
    match path.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(KernelChoice::File(path)),
        Ok(_) => Err("neither a kernel series nor a file; type for example 7.2 or /boot/vmlinuz".to_owned()),
        Err(error) => Err(format!("no kernel series, and as a file: {error}; type for example 7.2 or /boot/vmlinuz")),
    }
}

/// The manifest for a series: in `$ERSATZ_GUEST`; else in the clone that the executable, then the current folder is in.
///
/// # Errors
///
/// If there is none, or it cannot be used.
pub fn manifest(series: &str) -> Result<Manifest, ArtifactError> {
    if let Some(folder) = env::var_os(GUEST_VARIABLE) {
        let manifest = Manifest::load(Path::new(&folder))?;
        return if is_of_series(&manifest.release, series) {
            Ok(manifest)
        } else {
            Err(ArtifactError::OtherSeries { wanted: series.to_owned(), found: manifest.release })
        };
    }
    let starts = [env::current_exe().ok(), env::current_dir().ok()];
    let folders: Vec<PathBuf> = starts
        .iter()
        .flatten()
        .flat_map(|start| start.ancestors())
        .map(|top| top.join(GUEST_FOLDER).join(series))
        .collect();
    match folders.iter().find(|folder| folder.join(FILE_NAME).is_file()) {
        Some(folder) => Ok(Manifest::load(folder)?),
        None => Err(ArtifactError::NotBuilt {
            series: series.to_owned(),
            searched: format!("{GUEST_FOLDER}/{series} from here up"),
        }),
    }
}

/// Checks that a file can be opened, so that the error names the option and not the loader's step.
///
/// # Errors
///
/// If it cannot.
pub fn readable(what: &'static str, path: &Path, advice: &'static str) -> Result<(), ArtifactError> {
    std::fs::File::open(path).map(drop).map_err(|source| ArtifactError::Unreadable {
        what,
        path: path.to_owned(),
        source,
        advice,
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
        assert!(parse_kernel("/").unwrap_err().contains("neither"));
        let file = env::current_exe().expect("a test has a file");
        assert_eq!(parse_kernel(file.to_str().expect("plain path")), Ok(KernelChoice::File(file)));
    }

    #[test]
    fn a_release_belongs_to_its_series_only() {
        assert!(is_of_series("7.2.12+deb13-amd64", "7.2"));
        assert!(is_of_series("7.2-rc1", "7.2"));
        assert!(!is_of_series("7.20.1", "7.2"));
        assert!(!is_of_series("7.3.4", "7.2"));
        assert!(is_of_series("7.2.12-ersatz-debug", "debug") && !is_of_series("7.2.12+deb13-amd64", "debug"));
    }
}
