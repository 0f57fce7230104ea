// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Sends the files of a job to the host, holes as holes.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ersatz_guest_image::outer::channel::Message;
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use super::port::Port;

/// Sends each file that exists. One that cannot be read is reported and left out, or left short.
pub fn send_all(paths: &[PathBuf], port: &Port) {
    for (index, path) in (0u32..).zip(paths) {
        match File::open(path) {
            Ok(file) => {
                if let Err(error) = send(index, &file, &mut |message| port.send(&message)) {
                    port.send(&Message::Stage(report(path, &error)));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => port.send(&Message::Stage(report(path, &error))),
        }
    }
}

fn report(path: &Path, error: &io::Error) -> String {
    format!("cannot read {} to send it to the host: {error}", path.display())
}

/// Sends one file: its length, then the parts that hold data.
fn send(index: u32, file: &File, send: &mut impl FnMut(Message)) -> io::Result<()> {
    let length = file.metadata()?.len();
    send(Message::FileBegin { index, length });
    let mut position = 0;
    while let Some(start) = seek(file, position, Whence::SeekData)? {
        // There is a hole at the end of every file.
        let end = seek(file, start, Whence::SeekHole)?.unwrap_or(length).min(length);
        position = start;
        while position < end {
            let left = usize::try_from(end - position).unwrap_or(usize::MAX);
            let mut data = vec![0; left.min(Message::MAX_DATA)];
            let read = file.read_at(&mut data, position)?;
            if read == 0 {
                return Ok(()); // cut while it was read
            }
            data.truncate(read);
            let offset = position;
            position += read as u64;
            send(Message::FileData { offset, data });
        }
    }
    Ok(())
}

/// Where the next data or hole from `position` on begins; `None` if there is none.
fn seek(file: &File, position: u64, whence: Whence) -> io::Result<Option<u64>> {
    let position = i64::try_from(position).map_err(io::Error::other)?;
    match lseek(file.as_fd(), position, whence) {
        Ok(found) => u64::try_from(found).map(Some).map_err(io::Error::other),
        Err(Errno::ENXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(file: &File) -> Vec<Message> {
        let mut messages = Vec::new();
        send(3, file, &mut |message| messages.push(message)).unwrap();
        messages
    }

    #[test]
    fn holes_are_not_sent() {
        let path = std::env::temp_dir().join(format!("ersatz-init-collect-{}", std::process::id()));
        let file = File::options().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let length = 64 << 20;
        file.set_len(length).unwrap();
        file.write_all_at(&[1; 100_000], 32 << 20).unwrap();

        let messages = sent(&file);
        assert_eq!(messages[0], Message::FileBegin { index: 3, length });
        let mut bytes = 0;
        for message in &messages[1..] {
            let Message::FileData { offset, data } = message else { panic!("{message:?}") };
            let mut expected = vec![0; data.len()];
            file.read_exact_at(&mut expected, *offset).unwrap();
            assert!(*data == expected, "at {offset}");
            bytes += data.iter().filter(|byte| **byte == 1).count();
        }
        assert_eq!(bytes, 100_000);
        assert!(messages.len() < 20, "holes were sent: {} messages", messages.len());
    }

    #[test]
    fn an_empty_file_is_only_begun() {
        let path = std::env::temp_dir().join(format!("ersatz-init-empty-{}", std::process::id()));
        let file = File::options().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(sent(&file), [Message::FileBegin { index: 3, length: 0 }]);
    }
}
