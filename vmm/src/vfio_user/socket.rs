// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Creating and removing the file of a listening socket, without touching those of other servers.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use ersatz_guest_image::error_chain::chain;
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, Stat, flock, fstat, lstat, open, openat};
use thiserror::Error;

/// Why the socket cannot be listened on, or removed.
#[derive(Debug, Error)]
pub enum SocketError {
    /// A server listens there already.
    #[error("{0} is in use by another server; end that one or name another socket")]
    InUse(PathBuf),
    /// There is something that is no socket.
    #[error("{0} is there and is no socket; name another path")]
    NotASocket(PathBuf),
    /// The system refused to make it.
    #[error("cannot listen on {path}")]
    Bind {
        /// The path.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The system refused to look at it or to remove it.
    #[error("cannot remove the socket {path}")]
    Remove {
        /// The path.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// A listening socket whose file goes away with it.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    file: SocketFile,
}

impl Socket {
    /// Listens on a path. A socket that no server listens on any more is replaced.
    ///
    /// # Errors
    ///
    /// Fails if something else is there, or the system refuses.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        Self::bind_with(path, None)
    }

    /// Listens as [`Self::bind`], on a socket that only its owner may connect to. In the instant in which the socket has been made others
    /// may: the server asks clients who they are, too.
    ///
    /// # Errors
    ///
    /// As [`Self::bind`].
    pub fn bind_private(path: &Path) -> Result<Self, SocketError> {
        Self::bind_with(path, Some(0o600))
    }

    fn bind_with(path: &Path, mode: Option<u32>) -> Result<Self, SocketError> {
        let failed = |source| SocketError::Bind { path: path.to_owned(), source };
        let _locked = lock_folder(path);
        if let Ok(metadata) = fs::symlink_metadata(path) {
            if !metadata.file_type().is_socket() {
                return Err(SocketError::NotASocket(path.to_owned()));
            }
            if UnixStream::connect(path).is_ok() {
                return Err(SocketError::InUse(path.to_owned()));
            }
            fs::remove_file(path).map_err(failed)?;
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        let socket = Self { listener, file: SocketFile::open(path)? };
        if let Some(mode) = mode {
            fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)?;
        }
        Ok(socket)
    }

    /// The listener.
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = self.file.remove() {
            log::warn!("{}", chain(&error));
        }
    }
}

/// The file of a socket. Holds its inode, so that no other file gets the inode's number while this lives.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: OwnedFd,
}

impl SocketFile {
    /// Opens the file that is at the path now.
    ///
    /// # Errors
    ///
    /// Fails if there is none.
    pub fn open(path: &Path) -> Result<Self, SocketError> {
        let inode = open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .map_err(|source| SocketError::Remove { path: path.to_owned(), source: source.into() })?;
        Ok(Self { path: path.to_owned(), inode })
    }

    /// Removes the file, unless it is gone or another server has put its own in its place.
    ///
    /// # Errors
    ///
    /// Fails if the system refuses.
    pub fn remove(&self) -> Result<(), SocketError> {
        let _locked = lock_folder(&self.path);
        let same = |file: &Stat, held: &Stat| (file.st_dev, file.st_ino) == (held.st_dev, held.st_ino);
        match (lstat(&self.path), fstat(&self.inode)) {
            (Ok(file), Ok(held)) if same(&file, &held) => {
                fs::remove_file(&self.path).map_err(|source| SocketError::Remove { path: self.path.clone(), source })
            }
            _ => Ok(()),
        }
    }
}

/// Keeps other servers from replacing sockets in the folder for as long as the result lives. Where folders cannot be locked, two
/// that start and end in the same instant may remove each other's.
fn lock_folder(path: &Path) -> Option<File> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = openat(CWD, folder, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    flock(&folder, FlockOperation::LockExclusive).ok()?;
    Some(folder.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gpu");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "stale");
        let socket = Socket::bind(&path).unwrap();
        assert!(matches!(Socket::bind(&path), Err(SocketError::InUse(_))));
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_is_no_socket_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes");
        fs::write(&path, "dear diary").unwrap();
        assert!(matches!(Socket::bind(&path), Err(SocketError::NotASocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"dear diary");
    }

    #[test]
    fn the_socket_of_the_next_server_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gpu");
        drop(UnixListener::bind(&path).unwrap());
        let old = SocketFile::open(&path).unwrap();
        let _next = Socket::bind(&path).unwrap();
        old.remove().unwrap();
        assert!(path.exists());
    }
}
