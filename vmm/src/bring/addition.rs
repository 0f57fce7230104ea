// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `--add HOST[:GUEST]`: a file or folder of the host, and its place in the guest.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use ersatz_guest_image::contents::{Contents, Kind};
use ersatz_guest_image::run::PROGRAMS_FOLDER;

/// Folders of the guest that are file systems of their own, made when it boots: what an archive has there would be covered.
const MOUNTED: &[&str] = &["/dev", "/proc", "/sys", "/tmp", "/run"];
/// The folder that is for what the host and PID 1 tell each other.
const RESERVED: &str = "/ersatz";

/// A file or folder of the host that a run brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addition {
    /// The file or folder.
    pub host: PathBuf,
    /// Its absolute place in the guest; `None` for the usual one. Ends with a slash if it is the folder for it.
    guest: Option<String>,
}

impl Addition {
    /// Reads `HOST[:GUEST]`. A text that is the path of something that exists is all HOST.
    ///
    /// # Errors
    ///
    /// Fails if HOST does not exist or is no file or folder, or GUEST cannot be a place for it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let whole = Path::new(text);
        if fs::symlink_metadata(whole).is_ok() {
            return Ok(Self { host: checked_host(whole)?, guest: None });
        }
        let Some((host, guest)) = text.split_once(':') else {
            return Err(format!("there is no file or folder {text:?}; type --add HOST or --add HOST:GUEST"));
        };
        let host = checked_host(Path::new(host))?;
        Ok(Self { host, guest: Some(checked_guest(guest)?) })
    }

    /// Returns the addition of a host's file in its usual place.
    ///
    /// # Errors
    ///
    /// As [`Addition::parse`].
    pub fn of(host: &Path) -> Result<Self, String> {
        Ok(Self { host: checked_host(host)?, guest: None })
    }

    /// Returns the place in the guest: GUEST, or in GUEST if that is a folder of the guest and HOST is a file; without GUEST
    /// [`PROGRAMS_FOLDER`] for a program, and the root for all else.
    ///
    /// # Errors
    ///
    /// Fails if the name of the file cannot be one in the guest.
    pub fn place(&self, contents: &Contents) -> Result<String, String> {
        let name = || {
            let real =
                self.host.file_name().map_or_else(|| fs::canonicalize(&self.host).ok(), |name| Some(name.into()));
            let name = real.as_deref().and_then(Path::file_name).and_then(|name| name.to_str()).map(str::to_owned);
            name.ok_or_else(|| format!("{:?} has no name that is UTF-8; add :GUEST", self.host))
        };
        let metadata = fs::metadata(&self.host).map_err(|error| format!("{}: {error}", self.host.display()))?;
        let is_program = metadata.is_file() && metadata.permissions().mode() & 0o111 != 0;
        let place = match &self.guest {
            None if is_program => format!("{PROGRAMS_FOLDER}/{}", name()?),
            None => format!("/{}", name()?),
            Some(folder) if folder.ends_with('/') => format!("{folder}{}", name()?),
            Some(path) if metadata.is_file() && contents.at(Path::new(path)) == Some(Kind::Directory) => {
                format!("{path}/{}", name()?)
            }
            Some(path) => path.clone(),
        };
        checked_guest(&place)
    }
}

/// Checks that a file or folder exists and is one.
fn checked_host(path: &Path) -> Result<PathBuf, String> {
    let kind = fs::metadata(path).map_err(|error| format!("cannot look at {path:?}: {error}"))?.file_type();
    match kind_that_cannot_be(kind) {
        Some(what) => Err(format!("{path:?} is {what}, and only files and folders can be brought into a guest")),
        None => Ok(path.to_owned()),
    }
}

/// Returns what something is that cannot be brought into a guest.
pub(super) fn kind_that_cannot_be(kind: fs::FileType) -> Option<&'static str> {
    if kind.is_socket() {
        Some("a socket")
    } else if kind.is_fifo() {
        Some("a named pipe")
    } else if kind.is_block_device() || kind.is_char_device() {
        Some("a device")
    } else {
        None
    }
}

/// Checks a place in the guest, and makes it an absolute path.
pub(crate) fn checked_guest(text: &str) -> Result<String, String> {
    let absolute = format!("/{}", text.trim_start_matches('/'));
    let path = Path::new(&absolute);
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(format!("{text:?} has '..' in it; type the path in the guest without"));
    }
    let reserved = [MOUNTED, &[RESERVED]].concat();
    if let Some(folder) = reserved.into_iter().find(|folder| path.starts_with(folder)) {
        return Err(format!(
            "the guest has {folder} for itself; choose another place in it than {text:?}, such as /data"
        ));
    }
    if text.is_empty() {
        return Err("there is no path behind the colon; type one, or leave the colon out".to_owned());
    }
    // Without "//" and "/./".
    let plain: PathBuf = path.components().collect();
    let slash = if text.ends_with('/') && plain != Path::new("/") { "/" } else { "" };
    Ok(format!("{}{slash}", plain.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use ersatz_guest_image::initramfs::Archive;

    fn contents() -> Contents {
        let (mut archive, mut contents) = (Archive::new(), Contents::default());
        archive.file("/bin/busybox", 0o755, "").unwrap();
        contents.add(&archive.to_bytes().unwrap());
        contents
    }

    #[test]
    fn programs_folders_and_files_have_their_places() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        fs::write(at("prog"), "").unwrap();
        fs::set_permissions(at("prog"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(at("data"), "").unwrap();
        fs::write(at("a:b"), "").unwrap();
        fs::create_dir(at("tree")).unwrap();
        let place = |text: String| Addition::parse(&text).and_then(|addition| addition.place(&contents()));
        for (text, expected) in [
            (at("prog"), "/usr/local/bin/prog"),
            (at("data"), "/data"),
            (at("a:b"), "/a:b"),
            (at("tree"), "/tree"),
            (at("prog:/x"), "/x"),
            (at("prog:/bin"), "/bin/prog"),
            (at("prog:bin/"), "/bin/prog"),
            (at("prog:/none/"), "/none/prog"),
            (at("tree:/srv//./x"), "/srv/x"),
            (at("tree:/bin"), "/bin"),
        ] {
            assert_eq!(place(text.clone()).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn hostile_names_are_refused_by_their_reason() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        fs::write(at("data"), "").unwrap();
        let _listener = UnixListener::bind(at("socket")).unwrap();
        for (text, reason) in [
            ("/no/such/file".to_owned(), "no file or folder"),
            ("/no/such:/x".to_owned(), "/no/such"),
            ("/dev/null".to_owned(), "a device"),
            (at("socket"), "a socket"),
            (at("data:"), "behind the colon"),
            (at("data:/a/../../b"), "'..'"),
            (at("data:/tmp/x"), "/tmp"),
            (at("data:/proc"), "/proc"),
            (at("data:/ersatz/command"), "/ersatz"),
        ] {
            let error = Addition::parse(&text).unwrap_err();
            assert!(error.contains(reason) && error.lines().count() == 1, "{text}: {error}");
        }
    }
}
