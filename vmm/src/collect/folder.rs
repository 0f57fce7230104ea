// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A folder in which names of a guest are created, and nothing outside of it.
//!
//! The kernel holds that: each path is resolved by openat2(2) beneath the folder's descriptor, and no link on the way is followed.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, symlinkat, unlinkat};
use rustix::io::Errno;

/// How paths are resolved.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// A path of at least one name, with neither `.` nor `..` in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlainPath(PathBuf);

impl PlainPath {
    /// Returns the path for a name that a guest has sent; `None` if it could lead out of a folder.
    pub(super) fn new(name: &str) -> Option<Self> {
        let path = Path::new(name);
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        // Components leave out "." and doubled slashes.
        let exact = path.components().collect::<PathBuf>().as_os_str() == path.as_os_str();
        (plain && exact && !name.is_empty() && !name.contains('\0')).then(|| Self(path.to_owned()))
    }

    /// Whether a link at this path leads to something beneath the folder that the path is in, whatever other such links are there.
    ///
    /// Those may make a `..` behind a name lead anywhere, so all `..` must come first.
    pub(super) fn keeps_link(&self, target: &[u8]) -> bool {
        let Ok(target) = std::str::from_utf8(target) else { return false };
        let depth = self.0.components().count().saturating_sub(1);
        let mut up = 0;
        let mut parts = Path::new(target).components().filter(|part| *part != Component::CurDir).peekable();
        while parts.next_if_eq(&Component::ParentDir).is_some() {
            up += 1;
        }
        !target.is_empty() && up <= depth && parts.all(|part| matches!(part, Component::Normal(_)))
    }
}

/// A folder.
#[derive(Debug)]
pub(super) struct Folder(OwnedFd);

impl Folder {
    /// Opens a folder that the user named. Links on the way are the user's and are followed.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(openat(CWD, path, flags, Mode::empty())?))
    }

    /// Opens a folder that the user named, and makes it if it is not there.
    pub(super) fn make(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        Self::open(path)
    }

    /// Opens a folder in this one.
    pub(super) fn folder(&self, path: &PlainPath) -> io::Result<Self> {
        self.beneath(&path.0)
    }

    /// Makes a folder, unless it is there.
    pub(super) fn create_folder(&self, path: &PlainPath) -> io::Result<()> {
        let (parent, name) = self.split(path)?;
        match mkdirat(&parent.0, name, Mode::from(0o777)) {
            // Something else at that place is found by what goes into it.
            Err(Errno::EXIST) => parent.beneath(Path::new(name)).map(drop),
            result => Ok(result?),
        }
    }

    /// Creates a file in the place of an older one, or of a link.
    pub(super) fn create_file(&self, path: &PlainPath, is_program: bool) -> io::Result<File> {
        let (parent, name) = self.split(path)?;
        parent.make_room(name)?;
        let mode = Mode::from(if is_program { 0o777 } else { 0o666 });
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat2(&parent.0, name, flags, mode, BENEATH)?.into())
    }

    /// Creates a link in the place of an older one, or of a file.
    pub(super) fn create_link(&self, path: &PlainPath, target: &[u8]) -> io::Result<()> {
        let (parent, name) = self.split(path)?;
        parent.make_room(name)?;
        Ok(symlinkat(target, &parent.0, name)?)
    }

    /// Removes a file or a link.
    pub(super) fn remove(&self, path: &PlainPath) -> io::Result<()> {
        let (parent, name) = self.split(path)?;
        Ok(unlinkat(&parent.0, name, AtFlags::empty())?)
    }

    fn make_room(&self, name: &OsStr) -> io::Result<()> {
        match unlinkat(&self.0, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn split<'a>(&self, path: &'a PlainPath) -> io::Result<(Self, &'a OsStr)> {
        let name = path.0.file_name().ok_or(Errno::INVAL)?;
        Ok((self.beneath(path.0.parent().unwrap_or(Path::new("")))?, name))
    }

    fn beneath(&self, path: &Path) -> io::Result<Self> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(openat2(&self.0, path, flags, Mode::empty(), BENEATH)?))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn plain(name: &str) -> PlainPath {
        PlainPath::new(name).unwrap_or_else(|| panic!("{name:?}"))
    }

    #[test]
    fn names_that_could_lead_out_are_none() {
        for name in ["", "/", "/etc", "..", "a/..", "../a", "a/../../b", ".", "./a", "a//b", "a/", "a\0b"] {
            assert_eq!(PlainPath::new(name), None, "{name:?}");
        }
        for name in ["a", "a/b", "...", "a b", "\u{e9}", "TRAILER!!!"] {
            assert!(PlainPath::new(name).is_some(), "{name:?}");
        }
    }

    #[test]
    fn links_are_kept_if_they_stay_inside_whatever_other_links_are_there() {
        for (link, target) in [("l", "a"), ("l", "./a/b"), ("d/l", "../a"), ("d/e/l", "../.././a"), ("d/l", "..")] {
            assert!(plain(link).keeps_link(target.as_bytes()), "{link} {target}");
        }
        for (link, target) in
            [("l", "/a"), ("l", ".."), ("l", "../a"), ("d/l", "../../a"), ("d/e/l", "x/../../a"), ("l", ""), ("l", "/")]
        {
            assert!(!plain(link).keeps_link(target.as_bytes()), "{link} {target}");
        }
        assert!(!plain("l").keeps_link(b"\xff"));
    }

    #[test]
    fn links_on_the_way_are_not_followed() {
        let base = tempfile::tempdir().unwrap();
        let (inside, outside) = (base.path().join("inside"), base.path().join("outside"));
        fs::create_dir(&inside).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "theirs").unwrap();
        symlink(&outside, inside.join("out")).unwrap();
        symlink(outside.join("file"), inside.join("file")).unwrap();
        let folder = Folder::open(&inside).unwrap();
        assert!(folder.create_file(&plain("out/new"), false).is_err());
        assert!(folder.create_folder(&plain("out/new")).is_err());
        assert!(folder.create_folder(&plain("out")).is_err());
        assert!(folder.create_link(&plain("out/new"), b"x").is_err());
        assert!(folder.remove(&plain("out/file")).is_err());
        // The link itself is replaced.
        drop(folder.create_file(&plain("file"), false).unwrap());
        assert!(fs::symlink_metadata(inside.join("file")).unwrap().is_file());
        assert_eq!(fs::read(outside.join("file")).unwrap(), b"theirs");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    }
}
