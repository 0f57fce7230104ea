// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `--collect GUEST:HOST`: a path of the guest, and its place on this machine.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// What to type.
const USAGE: &str = "type --collect GUEST:HOST, such as --collect /tmp/log:log";

/// A path of the guest that is collected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The absolute path in the guest.
    pub guest: String,
    /// Where it is put, as the user typed it.
    host: PathBuf,
}

/// Where a file or folder is put: its name in a folder of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Destination {
    /// The folder.
    pub(super) folder: PathBuf,
    /// Whether the folder may have to be made.
    pub(super) is_made: bool,
    /// The name in it.
    pub(super) name: PathBuf,
}

impl Target {
    /// Reads `GUEST:HOST`.
    ///
    /// # Errors
    ///
    /// Fails if GUEST cannot be a path of a guest, or nothing can be put at HOST.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (guest, host) = text.split_once(':').ok_or_else(|| format!("{text:?} has no colon; {USAGE}"))?;
        if guest.is_empty() || host.is_empty() {
            return Err(format!("{text:?} lacks a path on one side of the colon; {USAGE}"));
        }
        let path = Path::new(guest);
        if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
            return Err(format!("{guest:?} is not an absolute path without '..' in the guest; {USAGE}"));
        }
        if path.file_name().is_none() {
            return Err(format!("{guest:?} is all of the guest; name a folder in it"));
        }
        if guest.contains('\0') {
            return Err(format!("{guest:?} has a NUL byte in it"));
        }
        check_host(Path::new(host))?;
        Ok(Self { guest: guest.to_owned(), host: host.into() })
    }

    /// Returns where a file is put: at HOST, or in HOST if that is a folder or ends with a slash.
    pub(super) fn of_file(&self) -> Destination {
        if self.host.is_dir() { self.inside() } else { self.of_folder() }
    }

    /// Returns where a folder is put: at HOST, or in HOST if that ends with a slash.
    pub(super) fn of_folder(&self) -> Destination {
        match (self.host.parent(), self.host.file_name()) {
            _ if has_slash(&self.host) => self.inside(),
            (Some(parent), Some(name)) => {
                let folder = if parent == Path::new("") { Path::new(".") } else { parent };
                Destination { folder: folder.to_owned(), is_made: false, name: name.into() }
            }
            // "..", or the root.
            _ => Destination { folder: self.host.clone(), is_made: false, name: PathBuf::new() },
        }
    }

    fn inside(&self) -> Destination {
        let name = Path::new(&self.guest).file_name().unwrap_or_default().into();
        Destination { folder: self.host.clone(), is_made: has_slash(&self.host), name }
    }
}

fn has_slash(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"/")
}

/// Checks before anything starts that something can be put there.
fn check_host(host: &Path) -> Result<(), String> {
    if host.is_dir() {
        return Ok(());
    }
    match fs::symlink_metadata(host) {
        Ok(metadata) if metadata.is_file() && !has_slash(host) => return Ok(()),
        Ok(metadata) if metadata.is_symlink() => {
            return Err(format!("{host:?} is a link, and not to a folder; name the file that it leads to, or another"));
        }
        Ok(_) => return Err(format!("{host:?} is neither a file nor a folder; name one, or one to be made")),
        Err(_) => {}
    }
    let plain: PathBuf = host.components().collect();
    match plain.parent() {
        Some(parent) if parent != Path::new("") && !parent.is_dir() => {
            Err(format!("there is no folder {parent:?}; make it first, or name another place than {host:?}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_and_folders_have_their_places() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| format!("{}/{name}", folder.path().display());
        fs::create_dir(at("there")).unwrap();
        fs::write(at("file"), "").unwrap();
        let root = folder.path();
        for (host, of_file, of_folder) in [
            ("new", (root.to_owned(), "new"), (root.to_owned(), "new")),
            ("new/", (root.join("new/"), "log"), (root.join("new/"), "log")),
            ("there", (root.join("there"), "log"), (root.to_owned(), "there")),
            ("there/", (root.join("there/"), "log"), (root.join("there/"), "log")),
            ("file", (root.to_owned(), "file"), (root.to_owned(), "file")),
        ] {
            let target = Target::parse(&format!("/tmp/log:{}", at(host))).unwrap();
            let plain = |place: Destination| (place.folder, place.name.to_str().unwrap().to_owned());
            assert_eq!(plain(target.of_file()), (of_file.0, of_file.1.to_owned()), "{host}");
            assert_eq!(plain(target.of_folder()), (of_folder.0, of_folder.1.to_owned()), "{host}");
        }
        let here = Target::parse("/tmp/log:name-that-is-not-here").unwrap().of_file();
        assert_eq!((here.folder.as_path(), here.name.as_path()), (Path::new("."), Path::new("name-that-is-not-here")));
    }

    #[test]
    fn nonsense_is_refused_in_a_line_that_says_what_to_type() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| format!("{}/{name}", folder.path().display());
        fs::write(at("file"), "").unwrap();
        symlink("/dev/null", at("link")).unwrap();
        for (text, reason) in [
            ("/tmp/log".to_owned(), "GUEST:HOST"),
            (":x".to_owned(), "GUEST:HOST"),
            ("/x:".to_owned(), "GUEST:HOST"),
            ("log:x".to_owned(), "absolute"),
            ("/a/../b:x".to_owned(), "'..'"),
            ("/:x".to_owned(), "name a folder"),
            ("/x:/dev/null".to_owned(), "neither a file nor a folder"),
            (format!("/x:{}", at("link")), "a link"),
            (format!("/x:{}", at("none/file")), "no folder"),
            (format!("/x:{}", at("none/folder/")), "no folder"),
            (format!("/x:{}", at("file/x")), "no folder"),
        ] {
            let error = Target::parse(&text).unwrap_err();
            assert!(error.contains(reason) && error.lines().count() == 1, "{text}: {error}");
        }
    }
}
