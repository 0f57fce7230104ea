// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The paths in the description of a guest. Each says by its type whether the file is read or written, so that whatever moves a
//! description to another machine ([`PathMapping`]) treats all paths by one rule.

use std::ffi::OsString;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Path of a file that a run reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReadPath(PathBuf);

/// Path of a file that a run creates, or overwrites.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WrittenPath(PathBuf);

/// Maps the paths of a description to those that its files have on another machine.
pub trait PathMapping {
    /// Why a path cannot be mapped.
    type Error;

    /// Maps the path of a file that is read.
    ///
    /// # Errors
    ///
    /// Fails if the other machine cannot have the file.
    fn read(&mut self, path: &ReadPath) -> Result<ReadPath, Self::Error>;

    /// Maps the path of a file that is written.
    ///
    /// # Errors
    ///
    /// Fails if the other machine cannot give the file back.
    fn written(&mut self, path: &WrittenPath) -> Result<WrittenPath, Self::Error>;
}

impl WrittenPath {
    /// Returns the path with `-suffix` before its extension.
    pub fn with_suffix(&self, suffix: &str) -> Self {
        let mut name = self.file_stem().unwrap_or_default().to_owned();
        name.push(format!("-{suffix}"));
        if let Some(extension) = self.extension() {
            name.push(".");
            name.push(extension);
        }
        Self(self.with_file_name(name))
    }
}

macro_rules! path_type {
    ($name:ident) => {
        impl Deref for $name {
            type Target = Path;

            fn deref(&self) -> &Path {
                &self.0
            }
        }

        impl AsRef<Path> for $name {
            fn as_ref(&self) -> &Path {
                &self.0
            }
        }

        impl From<PathBuf> for $name {
            fn from(path: PathBuf) -> Self {
                Self(path)
            }
        }

        impl From<OsString> for $name {
            fn from(path: OsString) -> Self {
                Self(path.into())
            }
        }

        impl From<&str> for $name {
            fn from(path: &str) -> Self {
                Self(path.into())
            }
        }

        impl From<$name> for PathBuf {
            fn from(path: $name) -> Self {
                path.0
            }
        }
    };
}

path_type!(ReadPath);
path_type!(WrittenPath);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suffix_comes_before_the_extension() {
        assert_eq!(WrittenPath::from("a/b.trace").with_suffix("1"), WrittenPath::from("a/b-1.trace"));
        assert_eq!(WrittenPath::from("b").with_suffix("private"), WrittenPath::from("b-private"));
    }
}
