// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Packs files and folders of the host, with what programs among them need, into an archive for the guest.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use ersatz_device_model::size;
use ersatz_guest_image::contents::Contents;
use ersatz_guest_image::initramfs::{Archive, ArchiveError};
use thiserror::Error;

use super::addition::{Addition, kind_that_cannot_be};
use super::libraries::{Needs, needs};

/// Folders inside one another, at most.
const MAX_DEPTH: usize = 64;

/// Why something cannot be brought into the guest.
#[derive(Debug, Error)]
pub enum PackError {
    /// A place in the guest that cannot be one.
    #[error("--add {}: {reason}", host.display())]
    Place {
        /// The file or folder of the host.
        host: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A file cannot be read.
    #[error("cannot read {}, which --add brings into the guest", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// Something in a folder that a guest cannot be given.
    #[error("{} is {what}, and only files, folders and links between them can be brought into a guest; move it out of the way", path.display())]
    Special {
        /// Its path.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A link in a folder that leads out of it.
    #[error("{} is a link to {}, outside of the folder {}; put a copy there, or add that as well and make the link in the guest", path.display(), target.display(), folder.display())]
    LinkOut {
        /// The link.
        path: PathBuf,
        /// What it says.
        target: PathBuf,
        /// The folder that is brought.
        folder: PathBuf,
    },
    /// Folders without end.
    #[error("{} is inside more than {MAX_DEPTH} folders", .0.display())]
    TooDeep(PathBuf),
    /// A name that is not UTF-8.
    #[error("the name of {:?} is not UTF-8, which names in the guest have to be; rename it", .0)]
    Name(PathBuf),
    /// A program that could not run.
    #[error("{} needs {}, which is not on this machine; install it, or link the program statically", path.display(), missing.join(", "))]
    Missing {
        /// The program.
        path: PathBuf,
        /// What is missing.
        missing: Vec<String>,
    },
    /// Two different libraries have one name.
    #[error("{} and {} would both be {guest} in the guest; add one of the programs that need them at a time", first.display(), second.display())]
    Clash {
        /// The place.
        guest: String,
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// There is too much of it.
    #[error("what the run brings has more than {}, {reason}", size::format(*limit))]
    TooMuch {
        /// The limit in bytes.
        limit: u64,
        /// Where the limit comes from, and what to do.
        reason: &'static str,
    },
    /// The archive cannot be made.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

/// How much may be brought, in bytes, and what to say about it.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Bytes.
    pub bytes: u64,
    /// Where it comes from, and what to do.
    pub reason: &'static str,
}

/// Collects what a run brings.
pub struct Packer<'a> {
    contents: &'a Contents,
    limit: Limit,
    taken: u64,
    archive: Archive,
    /// What programs need, by the place in the guest.
    needed: BTreeMap<String, PathBuf>,
}

impl<'a> Packer<'a> {
    /// Returns an empty packer. `contents` is what the guest has without it.
    pub fn new(contents: &'a Contents, limit: Limit) -> Self {
        Self { contents, limit, taken: 0, archive: Archive::new(), needed: BTreeMap::new() }
    }

    /// Adds a file or folder with all that is in it, and what the programs in it need. Returns its place in the guest.
    ///
    /// # Errors
    ///
    /// Fails if the guest cannot be given it, or a file that is a program lacks something that it needs. Programs in a folder may
    /// lack something, since what they need may be anywhere in the folder.
    pub fn add(&mut self, addition: &Addition) -> Result<String, PackError> {
        let host = &addition.host;
        let place = addition.place(self.contents).map_err(|reason| PackError::Place { host: host.clone(), reason })?;
        let metadata = fs::metadata(host).map_err(unreadable(host))?;
        if metadata.is_dir() {
            let folder = host.canonicalize().map_err(unreadable(host))?;
            self.add_folder(&folder, &folder, place.trim_end_matches('/'), 0)?;
        } else {
            let needs = self.add_file(host, &place, &metadata)?;
            if !needs.missing.is_empty() {
                return Err(PackError::Missing { path: host.clone(), missing: needs.missing });
            }
        }
        Ok(place)
    }

    /// Adds bytes as a file.
    ///
    /// # Errors
    ///
    /// Fails if something is at the place already, or there is too much.
    pub fn add_bytes(&mut self, place: &str, content: impl Into<Vec<u8>>) -> Result<(), PackError> {
        let content = content.into();
        self.take(content.len() as u64)?;
        self.archive.file(place, 0o644, content)?;
        Ok(())
    }

    /// Returns the archive.
    ///
    /// # Errors
    ///
    /// Fails if a library cannot be read, or there is too much.
    pub fn finish(mut self) -> Result<Archive, PackError> {
        for (place, host) in std::mem::take(&mut self.needed) {
            let metadata = fs::metadata(&host).map_err(unreadable(&host))?;
            self.take(metadata.len())?;
            match self.archive.file_from(&place, 0o755, &host) {
                // It was added by name.
                Ok(_) | Err(ArchiveError::Duplicate(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.archive)
    }

    fn add_folder(&mut self, top: &Path, folder: &Path, place: &str, depth: usize) -> Result<(), PackError> {
        if depth > MAX_DEPTH {
            return Err(PackError::TooDeep(folder.to_owned()));
        }
        if !place.is_empty() {
            self.archive.directory(place)?;
        }
        for entry in fs::read_dir(folder).map_err(unreadable(folder))? {
            let entry = entry.map_err(unreadable(folder))?;
            let path = entry.path();
            let name = entry.file_name().into_string().map_err(|_| PackError::Name(path.clone()))?;
            let place = format!("{place}/{name}");
            let metadata = fs::symlink_metadata(&path).map_err(unreadable(&path))?;
            if metadata.is_dir() {
                self.add_folder(top, &path, &place, depth + 1)?;
            } else if metadata.is_symlink() {
                self.add_link(top, &path, &place, depth)?;
            } else if let Some(what) = kind_that_cannot_be(metadata.file_type()) {
                return Err(PackError::Special { path, what });
            } else {
                self.add_file(&path, &place, &metadata)?;
            }
        }
        Ok(())
    }

    /// Adds a link that stays in the folder that is brought; `depth` is the number of folders between the two.
    fn add_link(&mut self, top: &Path, path: &Path, place: &str, depth: usize) -> Result<(), PackError> {
        let target = fs::read_link(path).map_err(unreadable(path))?;
        if !stays_inside(&target, depth) {
            return Err(PackError::LinkOut { path: path.to_owned(), target, folder: top.to_owned() });
        }
        let text = target.to_str().ok_or_else(|| PackError::Name(path.to_owned()))?;
        self.archive.symlink(place, text)?;
        Ok(())
    }

    fn add_file(&mut self, path: &Path, place: &str, metadata: &Metadata) -> Result<Needs, PackError> {
        self.take(metadata.len())?;
        let mode = metadata.permissions().mode() & 0o777;
        self.archive.file_from(place, mode, path)?;
        if mode & 0o111 == 0 {
            return Ok(Needs::default());
        }
        let mut all = needs(path).map_err(unreadable(path))?;
        if let Some(interpreter) = all.interpreter.take() {
            self.need_interpreter(&mut all, interpreter)?;
        }
        for needed in &all.found {
            self.need(needed.guest.clone(), &needed.host)?;
        }
        Ok(all)
    }

    /// Brings the interpreter of a script, unless the guest has it.
    fn need_interpreter(&mut self, all: &mut Needs, interpreter: PathBuf) -> Result<(), PackError> {
        if self.contents.at(&interpreter).is_some() {
            return Ok(());
        }
        let Some(place) = interpreter.to_str().filter(|_| interpreter.is_file()) else {
            all.missing.push(interpreter.display().to_string());
            return Ok(());
        };
        let of_interpreter = needs(&interpreter).map_err(unreadable(&interpreter))?;
        self.need(place.to_owned(), &interpreter)?;
        all.found.extend(of_interpreter.found);
        all.missing.extend(of_interpreter.missing);
        Ok(())
    }

    fn need(&mut self, guest: String, host: &Path) -> Result<(), PackError> {
        let real = host.canonicalize().map_err(unreadable(host))?;
        match self.needed.get(&guest) {
            Some(first) if *first != real => Err(PackError::Clash { guest, first: first.clone(), second: real }),
            Some(_) => Ok(()),
            None => {
                self.needed.insert(guest, real);
                Ok(())
            }
        }
    }

    /// Counts bytes before they are read.
    fn take(&mut self, bytes: u64) -> Result<(), PackError> {
        self.taken = self.taken.saturating_add(bytes);
        if self.taken > self.limit.bytes {
            return Err(PackError::TooMuch { limit: self.limit.bytes, reason: self.limit.reason });
        }
        Ok(())
    }
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> PackError {
    let path = path.to_owned();
    |source| PackError::Read { path, source }
}

/// Whether a link inside `depth` folders of the one that is brought leads to something in that.
fn stays_inside(target: &Path, depth: usize) -> bool {
    let mut depth = Some(depth);
    for part in target.components() {
        depth = match part {
            Component::RootDir | Component::Prefix(_) => None,
            Component::ParentDir => depth.and_then(|depth| depth.checked_sub(1)),
            Component::Normal(_) => depth.map(|depth| depth + 1),
            Component::CurDir => depth,
        };
        if depth.is_none() {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests;
