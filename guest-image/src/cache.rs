// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The cache that all clones of a user share: where it is.
//!
//! `cargo xtask` keeps the toolchain root, packages and kernel trees there, `ersatz` the snapshots of booted guests.

use std::env;
use std::path::PathBuf;

use thiserror::Error;

/// Why the cache has no folder.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CacheError {
    /// A variable names a folder that depends on where one is.
    #[error("the cache folder '{0}' is not an absolute path: set ERSATZ_CACHE to one")]
    Relative(PathBuf),
    /// No variable names one.
    #[error("no place for the cache: none of ERSATZ_CACHE, XDG_CACHE_HOME and HOME is set; set ERSATZ_CACHE")]
    Nowhere,
}

/// The folder of the cache: `$ERSATZ_CACHE`, else `$XDG_CACHE_HOME/ersatz`, else `~/.cache/ersatz`.
///
/// # Errors
///
/// Fails if none of these is set, or the one that counts is not absolute.
pub fn folder() -> Result<PathBuf, CacheError> {
    folder_by(|name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from))
}

fn folder_by(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<PathBuf, CacheError> {
    let folder = variable("ERSATZ_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|home| home.join("ersatz")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/ersatz")));
    match folder {
        Some(folder) if folder.is_absolute() => Ok(folder),
        Some(folder) => Err(CacheError::Relative(folder)),
        None => Err(CacheError::Nowhere),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_most_specific_variable_names_the_cache() {
        let all = |name: &str| Some(PathBuf::from(format!("/{name}")));
        assert_eq!(folder_by(all).unwrap(), Path::new("/ERSATZ_CACHE"));
        let two = |name: &str| all(name).filter(|_| name != "ERSATZ_CACHE");
        assert_eq!(folder_by(two).unwrap(), Path::new("/XDG_CACHE_HOME/ersatz"));
        let home = |name: &str| all(name).filter(|_| name == "HOME");
        assert_eq!(folder_by(home).unwrap(), Path::new("/HOME/.cache/ersatz"));
        assert_eq!(folder_by(|_| None), Err(CacheError::Nowhere));
        assert!(matches!(folder_by(|_| Some("relative".into())), Err(CacheError::Relative(_))));
    }
}
