// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Modules of a stock kernel's packages, for the archives that bring them into a guest or an outer machine.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ersatz_guest_image::kernel_module::load_order;
use walkdir::WalkDir;

/// How the files of compressed modules end.
const COMPRESSED: &str = ".ko.xz";

/// The modules that are named and all they depend on, by name with their content, in the order in which they load.
///
/// # Errors
///
/// Fails if one is not below `folder`, or cannot be read.
pub fn collect(folder: &Path, names: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
    let files = module_files(folder)?;
    load_order(names, |name| read_module(&files, name)).context("collecting kernel modules")
}

/// The module files below a folder by name. The names of files have `-` where those in dependencies may have `_`.
fn module_files(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut files = BTreeMap::new();
    for entry in WalkDir::new(folder) {
        let path = entry.with_context(|| format!("cannot list {}", folder.display()))?.into_path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(name) = name.strip_suffix(".ko").or_else(|| name.strip_suffix(COMPRESSED)) {
            files.insert(name.replace('-', "_"), path);
        }
    }
    Ok(files)
}

/// The content of a module, decompressed: PID 1 does not know how.
fn read_module(files: &BTreeMap<String, PathBuf>, name: &str) -> io::Result<Vec<u8>> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, "the kernel's packages have no such module");
    let path = files.get(&name.replace('-', "_")).ok_or_else(missing)?;
    let content = fs::read(path)?;
    if !path.as_os_str().as_bytes().ends_with(COMPRESSED.as_bytes()) {
        return Ok(content);
    }
    let mut module = Vec::new();
    lzma_rs::xz_decompress(&mut content.as_slice(), &mut module)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error:?}", path.display())))?;
    Ok(module)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_whichever_dash_their_name_has_and_decompressed() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("kernel/arch")).unwrap();
        fs::write(folder.path().join("kernel/arch/kvm-amd.ko"), "module").unwrap();
        let mut packed = Vec::new();
        lzma_rs::xz_compress(&mut &b"compressed"[..], &mut packed).unwrap();
        fs::write(folder.path().join("kernel/kvm.ko.xz"), packed).unwrap();
        fs::write(folder.path().join("kernel/ccp.ko.xz"), "not xz").unwrap();
        fs::write(folder.path().join("modules.dep"), "").unwrap();
        let files = module_files(folder.path()).unwrap();
        assert_eq!(files.len(), 3);
        assert_eq!(read_module(&files, "kvm-amd").unwrap(), b"module");
        assert_eq!(read_module(&files, "kvm_amd").unwrap(), b"module");
        assert_eq!(read_module(&files, "kvm").unwrap(), b"compressed");
        assert_eq!(read_module(&files, "ccp").unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(read_module(&files, "9p").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(module_files(&folder.path().join("none")).is_err());
    }
}
