// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The folder of a kernel's modules, as distributions ship it: module files at any depth, compressed or not.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

/// First bytes of an xz file.
const XZ: &[u8] = b"\xfd7zXZ\0";

/// The module files below a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleFolder {
    /// By name; names have `_` where those of files may have `-`.
    files: BTreeMap<String, PathBuf>,
}

impl ModuleFolder {
    /// Lists a folder.
    ///
    /// # Errors
    ///
    /// Fails if the folder, or one in it, cannot be listed.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let mut files = BTreeMap::new();
        for entry in WalkDir::new(folder) {
            let path = entry?.into_path();
            if let Some(name) = module_name(&path) {
                files.insert(name, path);
            }
        }
        Ok(Self { files })
    }

    /// Returns the content of the module with a name, decompressed.
    ///
    /// # Errors
    ///
    /// Fails if there is no such module, or it cannot be read.
    pub fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "the kernel has no such module");
        read_module(self.files.get(&name.replace('-', "_")).ok_or_else(missing)?)
    }
}

/// Returns the name of the module in a file named `NAME.ko` or `NAME.ko.xz`, with `_` for `-`.
pub fn module_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_suffix(".ko").or_else(|| name.strip_suffix(".ko.xz"))?;
    Some(name.replace('-', "_"))
}

/// Returns the content of a module file, decompressed: PID 1 does not know how.
///
/// # Errors
///
/// Fails if it cannot be read or decompressed.
pub fn read_module(path: &Path) -> io::Result<Vec<u8>> {
    let content = fs::read(path)?;
    if !content.starts_with(XZ) {
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
        fs::write(folder.path().join("kernel/ccp.ko.xz"), b"\xfd7zXZ\0 and no more").unwrap();
        fs::write(folder.path().join("modules.dep"), "").unwrap();
        let modules = ModuleFolder::open(folder.path()).unwrap();
        assert_eq!(modules.files.len(), 3);
        assert_eq!(modules.read("kvm-amd").unwrap(), b"module");
        assert_eq!(modules.read("kvm_amd").unwrap(), b"module");
        assert_eq!(modules.read("kvm").unwrap(), b"compressed");
        assert_eq!(modules.read("ccp").unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(modules.read("9p").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(ModuleFolder::open(&folder.path().join("none")).is_err());
    }
}
