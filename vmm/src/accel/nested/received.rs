// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Files that come out of the outer machine. Holes stay holes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::NestedError;

/// Writes the files to their targets.
#[derive(Debug)]
pub(super) struct Received {
    targets: Vec<Option<PathBuf>>,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    index: u32,
    /// `None` for a file without a target.
    file: Option<File>,
    length: u64,
}

impl Received {
    /// Takes files by their index in `targets`; those without a target are dropped. They are created now, so that a target that
    /// cannot be written is reported before the guest runs.
    pub(super) fn new(targets: Vec<Option<PathBuf>>) -> Result<Self, NestedError> {
        for path in targets.iter().flatten() {
            create(path)?;
        }
        Ok(Self { targets, current: None })
    }

    /// A file begins.
    pub(super) fn begin(&mut self, index: u32, length: u64) -> Result<(), NestedError> {
        let path = usize::try_from(index).ok().and_then(|index| self.targets.get(index));
        let path = path.ok_or(NestedError::UnexpectedFile { index, offset: 0, length })?;
        let file = path.as_ref().map(create).transpose()?;
        if let (Some(file), Some(path)) = (&file, path) {
            file.set_len(length).map_err(|source| NestedError::Write { path: path.clone(), source })?;
        }
        self.current = Some(Current { index, file, length });
        Ok(())
    }

    /// Part of it.
    pub(super) fn data(&mut self, offset: u64, data: &[u8]) -> Result<(), NestedError> {
        let length = data.len() as u64;
        let unexpected = |index| NestedError::UnexpectedFile { index, offset, length };
        let current = self.current.as_ref().ok_or_else(|| unexpected(u32::MAX))?;
        if offset.checked_add(length).is_none_or(|end| end > current.length) {
            return Err(unexpected(current.index));
        }
        let Some(file) = &current.file else { return Ok(()) };
        file.write_all_at(data, offset).map_err(|source| {
            let path = self.targets.get(current.index as usize).cloned().flatten().unwrap_or_default();
            NestedError::Write { path, source }
        })
    }
}

fn create(path: &PathBuf) -> Result<File, NestedError> {
    File::create(path).map_err(|source| NestedError::Write { path: path.clone(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_holes_arrives() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace");
        let mut received = Received::new(vec![None, Some(path.clone())]).unwrap();
        received.begin(0, 3).unwrap();
        received.data(0, b"abc").unwrap();
        received.begin(1, 10).unwrap();
        received.data(8, b"ab").unwrap();
        received.data(0, b"c").unwrap();
        assert_eq!(std::fs::read(path).unwrap(), b"c\0\0\0\0\0\0\0ab");
    }

    #[test]
    fn content_that_was_not_announced_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut received = Received::new(vec![Some(folder.path().join("a"))]).unwrap();
        assert!(received.data(0, b"x").is_err(), "no file yet");
        assert!(received.begin(1, 1).is_err(), "no such file");
        received.begin(0, 4).unwrap();
        assert!(received.data(2, b"abc").is_err(), "beyond the end");
        assert!(received.data(u64::MAX, b"abc").is_err(), "wraps");
        assert!(received.data(4, b"").is_ok());
    }

    #[test]
    fn a_target_that_cannot_be_written_is_known_at_once() {
        let error = Received::new(vec![Some("/nowhere/trace".into())]).unwrap_err();
        assert!(error.to_string().contains("/nowhere/trace"), "{error}");
    }
}
