// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `--module FILE[:PARAMETERS]`: a kernel module of the user's, which PID 1 loads with all it depends on.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use ersatz_guest_image::kernel_module::{self, ModuleError, depends, load_order};
use ersatz_guest_image::manifest::Manifest;
use ersatz_guest_image::module_folder::{ModuleFolder, module_name, read_module};
use ersatz_guest_image::run::{MODULES_FOLDER, MODULES_LIST};
use thiserror::Error;

use super::pack::{PackError, Packer};

/// A module file, and what it is loaded with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    path: PathBuf,
    name: String,
    parameters: String,
}

/// Why a module cannot be brought.
#[derive(Debug, Error)]
pub enum BringModuleError {
    /// It cannot be read.
    #[error("--module {}: cannot read it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// It is something else.
    #[error("--module {}: this is not a kernel module (an ELF file with a list of its dependencies)", .0.display())]
    NotAModule(PathBuf),
    /// It was built for another kernel.
    #[error(
        "--module {}: it was built for kernel {found}, and the guest runs {wanted}; build it against the tree of that kernel, or \
         choose another with --kernel", path.display()
    )]
    OtherKernel {
        /// The file.
        path: PathBuf,
        /// The release it was built for.
        found: String,
        /// The release of the guest.
        wanted: String,
    },
    /// Two have one name.
    #[error("--module: two modules are named {0}; give one")]
    Twice(String),
    /// It depends on something that is not there.
    #[error(
        "a module that --module names needs another one that the kernel does not have; give that with --module, too"
    )]
    Dependency(#[source] ModuleError<io::Error>),
    /// There is no room for it.
    #[error(transparent)]
    Pack(#[from] PackError),
}

impl Module {
    /// Reads `FILE[:PARAMETERS]`. A text that is the path of a file is all FILE.
    ///
    /// # Errors
    ///
    /// Fails if there is no such file, or its name is not that of a module.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (path, parameters) = match text.split_once(':') {
            Some((path, parameters)) if !Path::new(text).exists() => (path, parameters),
            _ => (text, ""),
        };
        let path = PathBuf::from(path);
        if !path.is_file() {
            return Err(format!(
                "there is no file {path:?}; type --module FILE.ko or --module 'FILE.ko:NAME=VALUE NAME=VALUE'"
            ));
        }
        let Some(name) = module_name(&path) else {
            return Err(format!("{path:?} is not named as kernel modules are, NAME.ko or NAME.ko.xz"));
        };
        if parameters.contains('\0') {
            return Err("parameters cannot contain a NUL byte".to_owned());
        }
        Ok(Self { path, name, parameters: parameters.to_owned() })
    }

    fn read(&self) -> Result<Vec<u8>, BringModuleError> {
        let content =
            read_module(&self.path).map_err(|source| BringModuleError::Read { path: self.path.clone(), source })?;
        depends(&content).ok_or_else(|| BringModuleError::NotAModule(self.path.clone()))?;
        Ok(content)
    }
}

/// Packs modules with those of the kernel that they depend on, and the list by which PID 1 loads them. Those of the kernel that are
/// wanted come first; one that the kernel does not have as a module may be built in. `manifest` is that of the
/// guest's kernel.
///
/// # Errors
///
/// Fails if the kernel could not load one.
pub(super) fn pack(
    modules: &[Module],
    of_kernel_wanted: &[&str],
    manifest: Option<&Manifest>,
    packer: &mut Packer<'_>,
) -> Result<(), BringModuleError> {
    let mut own = BTreeMap::new();
    for module in modules {
        let content = module.read()?;
        let release = kernel_module::release(&content);
        if let (Some(found), Some(manifest)) =
            (release, manifest.filter(|manifest| release != Some(manifest.release.as_str())))
        {
            let (found, wanted) = (found.to_owned(), manifest.release.clone());
            return Err(BringModuleError::OtherKernel { path: module.path.clone(), found, wanted });
        }
        if own.insert(module.name.clone(), content).is_some() {
            return Err(BringModuleError::Twice(module.name.clone()));
        }
    }
    // Listing a kernel's four thousand modules is put off until one is needed.
    let mut of_kernel = None;
    let read = |name: &str| {
        if let Some(content) = own.get(&name.replace('-', "_")) {
            return Ok(content.clone());
        }
        let folder = match of_kernel.take() {
            Some(folder) => folder,
            None => kernel_modules(manifest)?,
        };
        of_kernel.insert(folder).read(name)
    };
    let mut read = read;
    let mut names: Vec<&str> = of_kernel_wanted.iter().copied().filter(|name| read(name).is_ok()).collect();
    names.extend(modules.iter().map(|module| module.name.as_str()));
    let order = load_order(&names, read).map_err(BringModuleError::Dependency)?;
    let mut list = Vec::new();
    for (index, (name, content)) in order.into_iter().enumerate() {
        let path = format!("{MODULES_FOLDER}/{index}-{name}.ko");
        let given = modules.iter().find(|module| module.name == name.replace('-', "_"));
        let parameters = given.map_or("", |module| &module.parameters);
        list.extend([path.as_bytes(), b"\0", parameters.as_bytes(), b"\0"].concat());
        packer.add_bytes(&path, content)?;
    }
    packer.add_bytes(MODULES_LIST, list)?;
    Ok(())
}

/// The modules of the guest's kernel.
fn kernel_modules(manifest: Option<&Manifest>) -> io::Result<ModuleFolder> {
    let none = || io::Error::new(io::ErrorKind::NotFound, "the modules of this kernel are not known");
    ModuleFolder::open(manifest.and_then(|manifest| manifest.modules.as_deref()).ok_or_else(none)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bring::pack::Limit;
    use ersatz_guest_image::contents::Contents;

    fn write(folder: &Path, name: &str, depends: &str, release: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, format!("\x7fELF\0depends={depends}\0vermagic={release} SMP mod_unload \0")).unwrap();
        path
    }

    fn manifest(modules: &Path) -> Manifest {
        Manifest {
            release: "7.2.12".to_owned(),
            bz_image: PathBuf::new(),
            vmlinux: PathBuf::new(),
            initramfs: PathBuf::new(),
            programs: PathBuf::new(),
            test_driver: PathBuf::new(),
            hmm_tests: PathBuf::new(),
            hmm_test_names: PathBuf::new(),
            test_names: PathBuf::new(),
            modules: Some(modules.to_owned()),
            outer_vmlinux: PathBuf::new(),
            outer_initramfs: PathBuf::new(),
            static_ersatz: PathBuf::new(),
            toolchain_root: PathBuf::new(),
            tree: None,
        }
    }

    fn packed(texts: &[String], modules: &Path) -> Result<Contents, BringModuleError> {
        let contents = Contents::default();
        let mut packer = Packer::new(&contents, Limit { bytes: 1 << 20, reason: "" });
        let modules_given: Vec<Module> = texts.iter().map(|text| Module::parse(text).unwrap()).collect();
        pack(&modules_given, &["i2c-core", "built-in"], Some(&manifest(modules)), &mut packer)?;
        let mut added = Contents::default();
        added.add(&packer.finish()?.to_bytes().unwrap());
        Ok(added)
    }

    #[test]
    fn a_module_comes_behind_what_it_depends_on() {
        let folder = tempfile::tempdir().unwrap();
        let kernel = folder.path().join("kernel");
        std::fs::create_dir(&kernel).unwrap();
        write(&kernel, "drm.ko", "i2c-core", "7.2.12");
        write(&kernel, "i2c_core.ko", "", "7.2.12");
        let own = write(folder.path(), "my-driver.ko", "drm,other", "7.2.12");
        let other = write(folder.path(), "other.ko", "", "7.2.12");
        let texts = [format!("{}:a=1 b=x:y", own.display()), other.display().to_string()];
        let added = packed(&texts, &kernel).unwrap();
        for name in ["0-i2c-core", "1-drm", "2-other", "3-my_driver"] {
            assert!(added.at(Path::new(&format!("{MODULES_FOLDER}/{name}.ko"))).is_some(), "{name}: {added:?}");
        }
        assert_eq!(Module::parse(&texts[0]).unwrap().parameters, "a=1 b=x:y");
        let error = packed(&texts[..1], &kernel).unwrap_err();
        assert!(matches!(error, BringModuleError::Dependency(_)), "{error}");
    }

    #[test]
    fn what_the_kernel_would_refuse_is_refused_before() {
        let folder = tempfile::tempdir().unwrap();
        let of = |path: PathBuf| packed(&[path.display().to_string()], folder.path());
        let error = of(write(folder.path(), "new.ko", "", "7.3.1")).unwrap_err().to_string();
        assert!(error.contains("7.3.1") && error.contains("7.2.12"), "{error}");
        let text = folder.path().join("text.ko");
        std::fs::write(&text, "hello").unwrap();
        assert!(matches!(of(text), Err(BringModuleError::NotAModule(_))));
        for (text, reason) in
            [("/no/such.ko", "no file"), ("/no/such.ko:a=1", "no file"), ("/proc/self/exe", "NAME.ko")]
        {
            let error = Module::parse(text).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
