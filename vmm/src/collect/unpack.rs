// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Unpacks the archive that a guest sends, entry by entry as it comes.
//!
//! What is claimed is bounded before it is believed: the length of a name, of a link, of a message. The content of a file goes on to
//! the file in pieces.

use std::io::{self, Cursor, Read, Write};

use cpio::newc::{ModeFileType, Reader};
use ersatz_guest_image::collect::{FAILED, FILES};
use ersatz_guest_image::error_chain::chain;
use thiserror::Error;

use super::folder::{Folder, PlainPath};
use super::report::Report;
use super::target::{Destination, Target};

/// Bytes that are copied at a time.
pub(super) const PIECE: usize = 256 << 10;

/// Bytes of a header, and where in it the length of the name is, in hexadecimal digits.
const HEADER: usize = 110;
const NAME_LENGTH: std::ops::Range<usize> = 94..102;
/// Longest name, with the number of its path before it.
const MAX_NAME: u32 = 4096 + 64;
/// Longest target of a link, or message.
const MAX_TEXT: u32 = 16 << 10;

/// The bits of a mode with the kind of file, and those by which it is a program.
const KIND: u32 = 0o170_000;
const EXECUTABLE: u32 = 0o111;

/// Why no further entry can be read.
#[derive(Debug, Error)]
enum Broken {
    /// The guest is gone.
    #[error("the guest ended before it had sent everything")]
    Ended,
    /// It is not what PID 1 sends.
    #[error("the guest has sent what is not part of an archive")]
    Malformed(#[source] io::Error),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Self::Ended,
            _ => Self::Malformed(error),
        }
    }
}

/// What has been put in the place of a target.
#[derive(Debug, Default)]
enum Place {
    /// Nothing yet, and nothing was said about it.
    #[default]
    Nothing,
    /// A file, or nothing for a reason that was said.
    Settled,
    /// A folder.
    Folder(Folder),
}

/// One entry.
type Entry<'a, R> = Reader<io::Chain<Cursor<[u8; HEADER]>, &'a mut R>>;

/// Unpacks what comes until it has ended.
pub(super) fn unpack(targets: &[Target], from: &mut impl Read) -> Report {
    let places = targets.iter().map(|_| Place::Nothing).collect();
    let mut unpacker = Unpacker { targets, places, report: Report::default() };
    let result = unpacker.all(from);
    let Unpacker { places, mut report, .. } = unpacker;
    let is_nothing = |place: &Place| matches!(place, Place::Nothing);
    match result {
        Err(Broken::Ended) if places.iter().all(is_nothing) => {
            report.fail("nothing could be collected: the guest ended before it had sent anything");
        }
        Err(error) => {
            let missing: Vec<&str> = targets
                .iter()
                .zip(&places)
                .filter(|(_, place)| is_nothing(place))
                .map(|(target, _)| target.guest.as_str())
                .collect();
            let missing =
                if missing.is_empty() { String::new() } else { format!("; missing is {}", missing.join(", ")) };
            report.fail(&format!("not everything was collected: {}{missing}", chain(&error)));
        }
        Ok(()) => {
            for (target, _) in targets.iter().zip(&places).filter(|(_, place)| is_nothing(place)) {
                report.fail(&format!("cannot collect {}: the guest has sent nothing of it", target.guest));
            }
        }
    }
    report
}

struct Unpacker<'a> {
    targets: &'a [Target],
    places: Vec<Place>,
    report: Report,
}

impl Unpacker<'_> {
    fn all(&mut self, from: &mut impl Read) -> Result<(), Broken> {
        loop {
            let mut entry = next(from)?;
            if entry.entry().is_trailer() {
                return Ok(());
            }
            let name = entry.entry().name().to_owned();
            let malformed = || Broken::Malformed(io::Error::other(format!("an entry {name:?}")));
            let (kind, number) = name.split_once('/').ok_or_else(malformed)?;
            let (number, below) = number.split_once('/').map_or((number, None), |(number, rest)| (number, Some(rest)));
            let index: usize = number.parse().map_err(|_| malformed())?;
            let target = self.targets.get(index).ok_or_else(malformed)?;
            let place = self.places.get_mut(index).ok_or_else(malformed)?;
            match (kind, below) {
                (FILES, None) => put(target, place, &mut entry, &mut self.report)?,
                (FILES, Some(below)) => put_below(target, place, below, &mut entry, &mut self.report)?,
                (FAILED, None) => {
                    let message = text(&mut entry)?;
                    self.report.fail(&format!(
                        "cannot collect {}: {}",
                        target.guest,
                        String::from_utf8_lossy(&message)
                    ));
                    if let Place::Nothing = place {
                        *place = Place::Settled;
                    }
                }
                _ => return Err(malformed()),
            }
            entry.finish()?;
        }
    }
}

/// Reads the header of the next entry, unless its name is too long to be read.
fn next<R: Read>(from: &mut R) -> Result<Entry<'_, R>, Broken> {
    let mut header = [0; HEADER];
    from.read_exact(&mut header)?;
    let digits = std::str::from_utf8(&header[NAME_LENGTH]).ok();
    let length = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
    if length.is_none_or(|length| length > MAX_NAME) {
        return Err(Broken::Malformed(io::Error::other(
            "a header without the length of its name, or of a name too long",
        )));
    }
    Ok(Reader::new(Cursor::new(header).chain(from))?)
}

/// Puts the file or folder that a target names in its place.
fn put<R: Read>(
    target: &Target,
    place: &mut Place,
    entry: &mut Entry<'_, R>,
    report: &mut Report,
) -> Result<(), Broken> {
    let mode = entry.entry().mode();
    let before = std::mem::replace(place, Place::Settled);
    if !matches!(before, Place::Nothing) {
        return Err(Broken::Malformed(io::Error::other(format!("{} twice", target.guest))));
    }
    let result = if is(mode, ModeFileType::Directory) {
        make_folder(&target.of_folder()).map(|folder| *place = Place::Folder(folder))
    } else if is(mode, ModeFileType::Regular) {
        match destination(&target.of_file()) {
            Ok((folder, name)) => write(&folder, &name, entry)?,
            Err(error) => Err(error),
        }
    } else {
        Err(io::Error::other(format!("it is {}, and files and folders can be collected", what(mode))))
    };
    if let Err(error) = result {
        report.fail(&format!("cannot collect {}: {error}", target.guest));
    }
    Ok(())
}

/// Puts something that is in the folder of a target in its place.
fn put_below<R: Read>(
    target: &Target,
    place: &Place,
    below: &str,
    entry: &mut Entry<'_, R>,
    report: &mut Report,
) -> Result<(), Broken> {
    let mode = entry.entry().mode();
    let path = format!("{}/{below}", target.guest.trim_end_matches('/'));
    let (Place::Folder(folder), Some(name)) = (place, PlainPath::new(below)) else {
        // That its folder could not be made has been said.
        if PlainPath::new(below).is_none() {
            report.fail(&format!("cannot collect {path}: the name leads elsewhere"));
        }
        return Ok(());
    };
    let result = if is(mode, ModeFileType::Directory) {
        folder.create_folder(&name)
    } else if is(mode, ModeFileType::Regular) {
        write(folder, &name, entry)?
    } else if is(mode, ModeFileType::Symlink) {
        let link = text(entry)?;
        if name.keeps_link(&link) {
            folder.create_link(&name, &link)
        } else {
            report.note(&format!("left out {path}: a link to {}, outside", String::from_utf8_lossy(&link)));
            Ok(())
        }
    } else {
        report.note(&format!("left out {path}: {}", what(mode)));
        Ok(())
    };
    if let Err(error) = result {
        report.fail(&format!("cannot collect {path}: {error}"));
    }
    Ok(())
}

/// Opens the folder of a destination; the name in it.
fn destination(destination: &Destination) -> io::Result<(Folder, PlainPath)> {
    let Destination { folder, is_made, name } = destination;
    let failed = |error: io::Error| io::Error::other(format!("{}: {error}", folder.display()));
    let opened = if *is_made { Folder::make(folder) } else { Folder::open(folder) }.map_err(failed)?;
    let name = name.to_str().and_then(PlainPath::new);
    Ok((opened, name.ok_or_else(|| io::Error::other("its place here has no name that is UTF-8"))?))
}

/// Makes the folder for a target, or opens the one that is there.
fn make_folder(place: &Destination) -> io::Result<Folder> {
    let path = place.folder.join(&place.name);
    if path.is_dir() {
        // The user's, and so is a link to it.
        return Folder::open(&path);
    }
    let (folder, name) = destination(place)?;
    folder.create_folder(&name).map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
    folder.folder(&name)
}

/// Writes the content of an entry into a file. The inner error is that of the file, which is removed then; so is one that the guest
/// did not send to its end.
fn write<R: Read>(folder: &Folder, name: &PlainPath, entry: &mut Entry<'_, R>) -> Result<io::Result<()>, Broken> {
    let mut file = match folder.create_file(name, entry.entry().mode() & EXECUTABLE != 0) {
        Ok(file) => file,
        Err(error) => return Ok(Err(error)),
    };
    let mut left = u64::from(entry.entry().file_size());
    let mut piece = vec![0; PIECE.min(usize::try_from(left).unwrap_or(PIECE))];
    let remove = || drop(folder.remove(name));
    while left > 0 {
        let count = match entry.read(&mut piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(count @ 1..) => count,
            ended => {
                remove();
                return Err(ended.map_or_else(Broken::from, |_| Broken::Ended));
            }
        };
        if let Err(error) = file.write_all(&piece[..count]) {
            remove();
            return Ok(Err(error));
        }
        left = left.saturating_sub(count as u64);
    }
    Ok(Ok(()))
}

/// The content of an entry that is a short text.
fn text<R: Read>(entry: &mut Entry<'_, R>) -> Result<Vec<u8>, Broken> {
    let length = entry.entry().file_size();
    if length > MAX_TEXT {
        return Err(Broken::Malformed(io::Error::other(format!("a text of {length} bytes"))));
    }
    let mut bytes = Vec::new();
    entry.take(u64::from(length)).read_to_end(&mut bytes)?;
    if u32::try_from(bytes.len()) == Ok(length) { Ok(bytes) } else { Err(Broken::Ended) }
}

fn is(mode: u32, kind: ModeFileType) -> bool {
    mode & KIND == u32::from(kind)
}

/// What something is that is neither a file, nor a folder, nor a link.
fn what(mode: u32) -> &'static str {
    if is(mode, ModeFileType::Socket) {
        "a socket"
    } else if is(mode, ModeFileType::Fifo) {
        "a named pipe"
    } else if is(mode, ModeFileType::Char) || is(mode, ModeFileType::Block) {
        "a device"
    } else {
        "of an unknown kind"
    }
}

#[cfg(test)]
mod tests;
