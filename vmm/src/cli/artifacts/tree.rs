// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The built files for a kernel of the user's own. They are kept for the tree's state: when `make` has changed it, `cargo xtask build`
//! builds the driver against it, which takes the sources of the clone.

use std::io;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::{env, fs};

use ersatz_guest_image::build_tree::BuildTree;
use ersatz_guest_image::manifest::Manifest;

use super::{ArtifactError, above, all_manifests, manifests_of_clone};
use crate::cli::report::say;

/// By which a clone is known, from its top.
const CLONE_MARK: &str = "ci/Cargo.toml";

/// Returns the manifest of what is built for a tree as it is now; builds that if need be.
///
/// # Errors
///
/// Fails if it cannot be built, or the manifest cannot be used.
pub(super) fn manifest(tree: &BuildTree) -> Result<Manifest, ArtifactError> {
    if let Some(manifest) = built(tree) {
        return Ok(manifest);
    }
    say(&format!("building the driver for {} ({})", tree.folder().display(), tree.release()));
    build(tree)?;
    built(tree).ok_or_else(|| ArtifactError::TreeNotBuilt { folder: tree.folder().to_owned() })
}

fn built(tree: &BuildTree) -> Option<Manifest> {
    all_manifests()
        .into_iter()
        .chain(manifests_of_clone())
        .find(|manifest| manifest.tree.as_ref().is_some_and(|record| record.fits(tree)))
}

/// Runs the build in the clone. Its output goes to standard error.
fn build(tree: &BuildTree) -> Result<(), ArtifactError> {
    let mark = above(CLONE_MARK).find(|path| path.is_file());
    let clone = mark.as_deref().and_then(|mark| mark.ancestors().nth(2)).ok_or(ArtifactError::NoClone)?;
    let failed = |source| ArtifactError::Build { source };
    let output = io::stderr().as_fd().try_clone_to_owned().map_err(failed)?;
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["xtask", "build", "--kernel"]).arg(tree.folder()).current_dir(fs::canonicalize(clone).map_err(failed)?);
    let status = cargo.stdin(Stdio::null()).stdout(output).status().map_err(failed)?;
    if status.success() { Ok(()) } else { Err(ArtifactError::TreeNotBuilt { folder: tree.folder().to_owned() }) }
}
