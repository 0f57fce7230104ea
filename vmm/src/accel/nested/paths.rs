// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The paths of a guest's files in the outer machine: a file that is read is copied in, a file that is written comes out.

use std::path::PathBuf;

use ersatz_device_model::fabric::FABRIC_PORTS;

use super::{NestedError, Source};
use crate::spec::{PathMapping, ReadPath, WrittenPath};

/// Most files that a guest restored from a snapshot can write: a trace for each GPU. The list of files that come out is part of the
/// snapshot.
const SNAPSHOT_OUTPUTS: usize = FABRIC_PORTS as usize;

/// Gives each file a path in an outer machine that boots.
#[derive(Debug, Default)]
pub(super) struct OuterPaths {
    /// Files to copy in, by their paths there.
    pub(super) inputs: Vec<(String, Source)>,
    /// Paths on the host of the files that come out, in the order of [`outputs`].
    pub(super) targets: Vec<PathBuf>,
}

/// Gives each file a path in an outer machine that was restored: only files that are written.
#[derive(Debug, Default)]
pub(super) struct RestoredPaths {
    targets: Vec<PathBuf>,
}

impl PathMapping for OuterPaths {
    type Error = NestedError;

    fn read(&mut self, path: &ReadPath) -> Result<ReadPath, NestedError> {
        let inside = format!("/ersatz/in{}", self.inputs.len());
        self.inputs.push((inside.clone(), Source::File(path.to_path_buf())));
        Ok(PathBuf::from(inside).into())
    }

    fn written(&mut self, path: &WrittenPath) -> Result<WrittenPath, NestedError> {
        let inside = output(self.targets.len());
        self.targets.push(path.to_path_buf());
        Ok(inside.into())
    }
}

impl RestoredPaths {
    /// Returns the paths on the host of the files that come out, in the order of [`snapshot_outputs`]; `None` for those that this run
    /// does not write.
    pub(super) fn targets(self) -> Vec<Option<PathBuf>> {
        let mut targets: Vec<_> = self.targets.into_iter().map(Some).collect();
        targets.resize(SNAPSHOT_OUTPUTS, None);
        targets
    }
}

impl PathMapping for RestoredPaths {
    type Error = NestedError;

    fn read(&mut self, path: &ReadPath) -> Result<ReadPath, NestedError> {
        Err(NestedError::NotInSnapshot(path.to_path_buf()))
    }

    fn written(&mut self, path: &WrittenPath) -> Result<WrittenPath, NestedError> {
        if self.targets.len() == SNAPSHOT_OUTPUTS {
            return Err(NestedError::NotInSnapshot(path.to_path_buf()));
        }
        let inside = output(self.targets.len());
        self.targets.push(path.to_path_buf());
        Ok(inside.into())
    }
}

/// Returns the paths in the outer machine of the first `count` files that are written.
pub(super) fn outputs(count: usize) -> impl Iterator<Item = PathBuf> {
    (0..count).map(output)
}

/// Returns the paths in the outer machine of all files that a restored guest may write.
pub(super) fn snapshot_outputs() -> impl Iterator<Item = PathBuf> {
    outputs(SNAPSHOT_OUTPUTS)
}

fn output(index: usize) -> PathBuf {
    PathBuf::from(format!("/ersatz/out{index}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_numbered_in_the_order_of_the_description() {
        let mut paths = OuterPaths::default();
        assert_eq!(paths.read(&"/host/vmlinux".into()).unwrap(), "/ersatz/in0".into());
        assert_eq!(paths.read(&"/host/initramfs".into()).unwrap(), "/ersatz/in1".into());
        assert_eq!(paths.written(&"/host/t".into()).unwrap(), "/ersatz/out0".into());
        assert_eq!(outputs(paths.targets.len()).collect::<Vec<_>>(), [PathBuf::from("/ersatz/out0")]);
        let [(_, Source::File(first)), _] = &paths.inputs[..] else { panic!("{paths:?}") };
        assert_eq!(first, &PathBuf::from("/host/vmlinux"));
    }

    #[test]
    fn a_restored_guest_writes_only_files_that_the_snapshot_has_listed() {
        let mut paths = RestoredPaths::default();
        assert!(matches!(paths.read(&"/host/f".into()), Err(NestedError::NotInSnapshot(_))));
        for inside in snapshot_outputs() {
            assert_eq!(paths.written(&"/host/t".into()).unwrap(), inside.into());
        }
        assert!(matches!(paths.written(&"/host/t".into()), Err(NestedError::NotInSnapshot(_))));
        let mut few = RestoredPaths::default();
        few.written(&"/host/t".into()).unwrap();
        let targets = few.targets();
        assert_eq!((targets.len(), &targets[0], &targets[1]), (SNAPSHOT_OUTPUTS, &Some("/host/t".into()), &None));
    }
}
