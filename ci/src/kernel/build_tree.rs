// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A kernel of the user's own: the build tree that `--kernel` names, which guests boot from and the driver is built against.
//!
//! Modules have to be built by the compilers that the kernel was built by, above all by the same rustc. Those of the toolchain root are
//! what there is, so the tree must have been built by them or by the same versions; `cargo xtask make` builds it in the root.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use ersatz_guest_image::build_tree::config::Config;
use ersatz_guest_image::build_tree::{BuildTree, TreeRecord};
use sha2::{Digest, Sha256};

use super::GuestKernel;
use super::compiler::{Compiler, Llvm};
use super::tree::KernelTree;
use crate::fingerprint::Inputs;
use crate::progress::Progress;
use crate::store::Store;
use crate::toolchain::{Mount, Toolchain};

/// Hexadecimal digits of a commit and of a configuration's hash.
const DIGITS: usize = 12;

/// What Kconfig noted of the compilers, by option, and what that is called.
const VERSIONS: [(&str, &str); 3] =
    [("RUSTC_VERSION_TEXT", "rustc"), ("BINDGEN_VERSION_TEXT", "bindgen"), ("CC_VERSION_TEXT", "C compiler")];

/// Returns the kernel of a tree, which is built already.
pub fn kernel(cache: &Store, progress: &Progress, toolchain: &Toolchain, tree: &BuildTree) -> Result<GuestKernel> {
    let compiler = compiler(cache, progress, toolchain, tree.config().is_built_in("CC_IS_CLANG"))?;
    check_versions(toolchain, &compiler, tree)?;
    let record = record(tree)?;
    let folder = tree.folder().to_string_lossy();
    let fingerprint = Inputs::of("build tree", "").text(&folder).text(&record.state).fingerprint();
    Ok(GuestKernel {
        // One for each tree, whatever its state.
        name: format!("tree-{}", Inputs::of("build tree", "").text(&folder).fingerprint().short()),
        release: tree.release().to_owned(),
        bz_image: tree.bz_image(),
        vmlinux: tree.vmlinux(),
        modules: Some(tree.folder().to_owned()),
        tree: KernelTree { folder: tree.folder().to_owned(), fingerprint, compiler },
        record: Some(record),
    })
}

/// Returns the compilers for a tree: LLVM's, or gcc.
pub fn compiler(cache: &Store, progress: &Progress, toolchain: &Toolchain, is_clang: bool) -> Result<Compiler> {
    Ok(if is_clang { Compiler::Llvm(Llvm::prepare(cache, progress, toolchain)?) } else { Compiler::Gcc })
}

/// Checks that the tree was built by the compilers that the driver will be built by.
fn check_versions(toolchain: &Toolchain, compiler: &Compiler, tree: &BuildTree) -> Result<()> {
    let script = format!("{}rustc --version; bindgen --version; {} --version", compiler.environment(), compiler.cc());
    let mounts: Vec<Mount<'_>> = compiler.mount().into_iter().collect();
    let output = toolchain.shell(&mounts, &script, &[]).stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let here: Vec<&str> = text.lines().take(VERSIONS.len()).collect();
    if here.len() < VERSIONS.len() {
        bail!("the compilers of the toolchain root do not say their versions: run `cargo xtask doctor`");
    }
    let different = differences(tree.config(), &here);
    if !different.is_empty() {
        let folder = tree.folder().display();
        bail!(
            "{folder} was built by {}, and modules for it must be built by the same; build it by `cargo xtask make {folder} \
             olddefconfig`, then `cargo xtask make {folder} -j$(nproc) bzImage modules`",
            different.join(", ")
        );
    }
    Ok(())
}

/// The compilers that a kernel was built by and that are not those here, each with the one here. `here` is in the order of [`VERSIONS`].
fn differences(config: &Config, here: &[&str]) -> Vec<String> {
    let different = VERSIONS.iter().zip(here).filter_map(|((option, what), here)| {
        let noted = config.get(option).unwrap_or("an unknown one");
        (version(noted) != version(here)).then(|| format!("{what} `{noted}` (here is `{here}`)"))
    });
    different.collect()
}

/// What follows the first word, which is the name that a compiler was called by.
fn version(text: &str) -> &str {
    text.split_once(' ').map_or(text, |(_, version)| version.trim())
}

/// What reports say of the tree.
fn record(tree: &BuildTree) -> Result<TreeRecord> {
    let path = tree.config_file();
    let config = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let hash: String = Sha256::digest(config).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(TreeRecord {
        folder: tree.folder().to_owned(),
        state: tree.state(),
        commit: commit(tree.folder()),
        config: hash[..DIGITS].to_owned(),
        version: tree.version(),
    })
}

/// The commit that is checked out in a folder, with `-dirty` if files differ from it; `None` if git does not know one.
fn commit(folder: &Path) -> Option<String> {
    if !folder.join(".git").exists() {
        return None;
    }
    let mut git = Command::new("git");
    git.arg("-C").arg(folder).args(["describe", "--always", "--dirty", "--exclude=*"]);
    let output = git.arg(format!("--abbrev={DIGITS}")).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|commit| output.status.success() && !commit.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compilers_are_compared_by_version_and_not_by_name() {
        let config = Config::parse(
            "CONFIG_RUSTC_VERSION_TEXT=\"rustc 1.85.1 (abc)\"\nCONFIG_BINDGEN_VERSION_TEXT=\"bindgen 0.71.1\"\n\
             CONFIG_CC_VERSION_TEXT=\"gcc-14 (Debian 14.2.0-19) 14.2.0\"\n",
        );
        let gcc = "x86_64-linux-gnu-gcc-14 (Debian 14.2.0-19) 14.2.0";
        assert!(differences(&config, &["rustc 1.85.1 (abc)", "bindgen 0.71.1", gcc]).is_empty());
        let different = differences(&config, &["rustc 1.95.0 (def)", "bindgen 0.71.1", gcc]);
        assert_eq!(different, ["rustc `rustc 1.85.1 (abc)` (here is `rustc 1.95.0 (def)`)"]);
        assert_eq!(differences(&Config::default(), &["rustc 1", "bindgen 1", gcc]).len(), 3);
    }

    #[test]
    fn a_folder_that_is_not_a_repository_has_no_commit() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(commit(folder.path()), None);
    }
}
