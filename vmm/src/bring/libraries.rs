// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a program needs besides itself: the loader and the libraries of a dynamically linked one, the interpreter of a script.
//!
//! Nothing is executed to find out. A library in a folder that every loader searches keeps its path; all others (found by RPATH,
//! RUNPATH, `$ORIGIN` or `/etc/ld.so.conf`) go to [`LIBRARIES_FOLDER`].

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ersatz_guest_image::run::LIBRARIES_FOLDER;
use lddtree::DependencyAnalyzer;

/// Folders that loaders of the common C libraries search without being told.
const SEARCHED: &[&str] =
    &["/lib", "/usr/lib", "/lib64", "/usr/lib64", "/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu"];
/// Longest first line of a script that the kernel looks at.
const SCRIPT_LINE: usize = 256;

/// A file that a program needs: where it is on the host, and where it goes in the guest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Needed {
    /// The file of the host.
    pub host: PathBuf,
    /// Its place in the guest.
    pub guest: String,
}

/// What a file needs to be run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The files that were found.
    pub found: Vec<Needed>,
    /// The names of those that were not.
    pub missing: Vec<String>,
    /// The interpreter, if the file is a script.
    pub interpreter: Option<PathBuf>,
}

/// Finds what the file needs to be run; nothing if it is no program or is linked statically.
///
/// # Errors
///
/// Fails if the file cannot be read, or is an ELF file that makes no sense.
pub fn needs(program: &Path) -> io::Result<Needs> {
    let mut start = Vec::new();
    File::open(program)?.take(SCRIPT_LINE as u64).read_to_end(&mut start)?;
    if let Some(line) = start.strip_prefix(b"#!") {
        return Ok(Needs { interpreter: interpreter(line), ..Needs::default() });
    }
    if !start.starts_with(b"\x7fELF") {
        return Ok(Needs::default());
    }
    // `$ORIGIN` is the folder of the file itself, not that of a link to it.
    let program = program.canonicalize()?;
    let tree = DependencyAnalyzer::default().analyze(&program).map_err(io::Error::other)?;
    let mut needs = Needs::default();
    for library in tree.libraries.into_values() {
        if !library.found() {
            needs.missing.push(library.name);
            continue;
        }
        let is_loader = tree.interpreter.as_deref().is_some_and(|path| path.ends_with(&format!("/{}", library.name)));
        let guest = match (&tree.interpreter, library.path.to_str()) {
            // The kernel looks for the loader at the path that the program names, and nowhere else.
            (Some(loader), _) if is_loader => loader.clone(),
            (_, Some(path)) if library.path.parent().is_some_and(is_searched) => path.to_owned(),
            _ => format!("{LIBRARIES_FOLDER}/{}", name(&library.name)),
        };
        needs.found.push(Needed { host: library.path, guest });
    }
    needs.found.sort();
    needs.missing.sort();
    Ok(needs)
}

fn is_searched(folder: &Path) -> bool {
    SEARCHED.iter().any(|searched| Path::new(searched) == folder)
}

/// The file name in what a program calls a library, which may be a path.
fn name(library: &str) -> &str {
    library.rsplit('/').next().unwrap_or(library)
}

/// The interpreter in the first line of a script, behind `#!`.
fn interpreter(line: &[u8]) -> Option<PathBuf> {
    let line = line.split(|byte| *byte == b'\n').next()?;
    let word = std::str::from_utf8(line).ok()?.split_whitespace().next()?;
    word.starts_with('/').then(|| word.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamically_linked_program_needs_its_loader_and_libraries() {
        let needs = needs(&std::env::current_exe().unwrap()).unwrap();
        assert_eq!(needs.missing, [""; 0]);
        let guest = |name: &str| needs.found.iter().find(|needed| needed.guest.ends_with(name)).unwrap();
        assert_eq!(guest("/ld-linux-x86-64.so.2").guest, "/lib64/ld-linux-x86-64.so.2");
        assert!(guest("/libc.so.6").host.is_file());
    }

    #[test]
    fn a_script_needs_its_interpreter_and_data_needs_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let of = |content: &[u8]| {
            let path = folder.path().join("file");
            std::fs::write(&path, content).unwrap();
            needs(&path)
        };
        assert_eq!(of(b"#! /bin/bash -e\nls\n").unwrap().interpreter, Some("/bin/bash".into()));
        for content in [&b"#!\n"[..], b"#!bash\n", b"#!\xff\n", b"hello", b""] {
            assert_eq!(of(content).unwrap(), Needs::default(), "{content:?}");
        }
        assert!(of(b"\x7fELF and no more").is_err());
        assert!(needs(Path::new("/nowhere")).is_err());
    }
}
