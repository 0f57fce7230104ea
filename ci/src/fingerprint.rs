// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Fingerprints: what decides whether a step's result is still good.
//!
//! A fingerprint covers everything a step reads. Two steps with equal fingerprints give results that can stand for one
//! another, in this clone or another one.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use walkdir::WalkDir;

/// The SHA-256 over a step's inputs.
#[derive(Clone, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Sixteen hex digits, for file names.
    pub fn short(&self) -> String {
        self.to_string()[..16].to_owned()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({})", self.short())
    }
}

/// Gathers inputs. Each goes in with its kind and length, so no two lists of inputs look the same.
pub struct Inputs(Sha256);

impl Inputs {
    /// Starts with the name of the step and its recipe: the text of the commands that it runs.
    pub fn of(step: &str, recipe: &str) -> Self {
        Self(Sha256::new()).text(step).text(recipe)
    }

    /// A value.
    #[must_use]
    pub fn text(mut self, value: &str) -> Self {
        self.add(b"text", value.as_bytes());
        self
    }

    /// The result of an earlier step.
    #[must_use]
    pub fn step(mut self, earlier: &Fingerprint) -> Self {
        self.add(b"step", &earlier.0);
        self
    }

    /// The content of a file.
    pub fn file(mut self, path: &Path) -> Result<Self> {
        self.add(b"file", &digest_of(path)?);
        Ok(self)
    }

    /// A folder: names, permission bits and content of all that is in it, `target` folders and dot files left out.
    pub fn tree(mut self, folder: &Path) -> Result<Self> {
        let hidden = |name: &std::ffi::OsStr| name.as_bytes().starts_with(b".") || name == "target";
        let walk = WalkDir::new(folder).sort_by_file_name().into_iter();
        for entry in walk.filter_entry(|entry| entry.depth() == 0 || !hidden(entry.file_name())) {
            let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
            let path = entry.path();
            let name = path.strip_prefix(folder)?;
            if entry.file_type().is_file() {
                let mode = entry.metadata()?.permissions().mode() & 0o777;
                self.add(b"name", name.as_os_str().as_bytes());
                self.add(b"mode", &mode.to_le_bytes());
                self.add(b"file", &digest_of(path)?);
            } else if entry.file_type().is_symlink() {
                self.add(b"name", name.as_os_str().as_bytes());
                self.add(b"link", fs::read_link(path)?.as_os_str().as_bytes());
            }
        }
        Ok(self)
    }

    /// The fingerprint of all that was put in.
    pub fn fingerprint(self) -> Fingerprint {
        Fingerprint(self.0.finalize().into())
    }

    fn add(&mut self, kind: &[u8; 4], value: &[u8]) {
        self.0.update(kind);
        self.0.update((value.len() as u64).to_le_bytes());
        self.0.update(value);
    }
}

fn digest_of(path: &Path) -> Result<[u8; 32]> {
    let mut hash = Sha256::new();
    File::open(path)
        .and_then(|mut file| io::copy(&mut file, &mut hash))
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs() -> Inputs {
        Inputs::of("step", "recipe")
    }

    #[test]
    fn neighbours_do_not_run_together() {
        let one = inputs().text("ab").text("c").fingerprint();
        assert_eq!(one, inputs().text("ab").text("c").fingerprint());
        assert_ne!(one, inputs().text("a").text("bc").fingerprint());
        assert_ne!(one, inputs().text("ab").fingerprint());
        assert_ne!(one, Inputs::of("step", "other recipe").text("ab").text("c").fingerprint());
    }

    #[test]
    fn a_tree_is_its_names_modes_and_content() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let now = || inputs().tree(folder.path()).unwrap().fingerprint();
        fs::create_dir(at("sub")).unwrap();
        fs::write(at("sub/a"), "1").unwrap();
        let first = now();
        assert_eq!(first, now());

        fs::write(at("sub/a"), "2").unwrap();
        let changed = now();
        assert_ne!(first, changed);

        fs::rename(at("sub/a"), at("sub/b")).unwrap();
        let renamed = now();
        assert_ne!(changed, renamed);

        fs::set_permissions(at("sub/b"), fs::Permissions::from_mode(0o755)).unwrap();
        let executable = now();
        assert_ne!(renamed, executable);

        fs::write(at(".hidden"), "editor's").unwrap();
        fs::create_dir(at("target")).unwrap();
        fs::write(at("target/x"), "built").unwrap();
        assert_eq!(executable, now());
    }

    #[test]
    fn a_missing_input_is_an_error() {
        assert!(inputs().file(Path::new("/nonexistent")).is_err());
        assert!(inputs().tree(Path::new("/nonexistent")).is_err());
    }
}
