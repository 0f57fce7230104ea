// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Stores: folders that hold the results of steps, and survive whatever happens to those who fill them.
//!
//! There are two: the cache, shared by all clones of a user, and `target/guest` in the clone. In a store,
//!
//! ```text
//! RESULT/             a whole result; it came here by one rename
//! .work/RESULT/       a result in the making, or what an interruption left of one
//! .lock/RESULT        flock: held by the process that makes RESULT
//! .lock/in-use        flock: shared by all who use the store, exclusive to clear it
//! .log/RESULT.log     what the commands of the step printed
//! ```

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use ersatz_guest_image::cache;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::namespace;
use crate::progress::{Progress, Stage};

/// Ends the names of results that have been replaced.
const OUTDATED: &str = ".outdated";

/// A store, held for use until dropped.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    in_use: Lock,
}

/// A lock on a file, held until dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct Lock(File);

/// The folder of the cache.
pub fn cache_folder() -> Result<PathBuf> {
    Ok(cache::folder()?)
}

impl Store {
    /// Opens the store in a folder, which is made when needed.
    pub fn open(root: &Path) -> Result<Self> {
        for part in [".work", ".lock", ".log"] {
            let folder = root.join(part);
            fs::create_dir_all(&folder).with_context(|| {
                format!("cannot make {}: free some space, or name another cache by ERSATZ_CACHE", folder.display())
            })?;
        }
        let path = root.join(".lock/in-use");
        let in_use = Lock::open(&path)?;
        in_use.wait_shared()?;
        if !in_use.is_at(&path)? {
            // The store was cleared during the wait.
            return Self::open(root);
        }
        Ok(Self { root: root.to_owned(), in_use })
    }

    /// The folder of the store.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path of a result when it is whole.
    pub fn result(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Where a result is made.
    pub fn work(&self, name: &str) -> PathBuf {
        self.root.join(".work").join(name)
    }

    /// Where an older result goes, to be removed.
    pub fn outdated(&self, name: &str) -> PathBuf {
        self.work(&format!("{name}{OUTDATED}"))
    }

    /// Where the log of a step is.
    pub fn log(&self, name: &str) -> PathBuf {
        self.root.join(".log").join(format!("{name}.log"))
    }

    /// The lock of a result, not yet taken.
    pub fn lock(&self, name: &str) -> Result<Lock> {
        Lock::open(&self.root.join(".lock").join(name))
    }

    /// Removes what interrupted steps left behind and no step will come back to, because its inputs have changed since.
    pub fn sweep(&self, progress: &Progress) -> Result<()> {
        let mut stage = None;
        for entry in fs::read_dir(self.root.join(".work"))? {
            let path = entry?.path();
            let Some(file_name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let lock = self.lock(file_name.strip_suffix(OUTDATED).unwrap_or(file_name))?;
            if lock.try_exclusive()? {
                stage.get_or_insert_with(|| progress.stage("clearing away what an interrupted run left"));
                namespace::remove_tree(&path)?;
            }
        }
        stage.into_iter().for_each(Stage::done);
        Ok(())
    }

    /// Removes the store and all that is in it, unless another process uses it.
    pub fn clear(self) -> Result<()> {
        if !self.in_use.try_exclusive()? {
            bail!("{} is in use by another run: wait for its end, then try again", self.root.display());
        }
        namespace::remove_tree(&self.root)
    }
}

impl Lock {
    fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
        Ok(Self(file.with_context(|| format!("cannot open the lock {}", path.display()))?))
    }

    /// Whether the file that is locked is still the one at `path`.
    fn is_at(&self, path: &Path) -> Result<bool> {
        let mine = self.0.metadata()?;
        Ok(fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (mine.dev(), mine.ino())))
    }

    /// Takes the lock for this process alone if it is free; whether it was.
    pub fn try_exclusive(&self) -> Result<bool> {
        match flock(&self.0, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error).context("cannot lock a file of the cache (is it on a network file system?)"),
        }
    }

    /// Takes the lock for this process alone, when it becomes free.
    pub fn wait_exclusive(&self) -> Result<()> {
        self.wait(FlockOperation::LockExclusive)
    }

    fn wait_shared(&self) -> Result<()> {
        self.wait(FlockOperation::LockShared)
    }

    fn wait(&self, operation: FlockOperation) -> Result<()> {
        loop {
            match flock(&self.0, operation) {
                Err(Errno::INTR) => {}
                result => return result.context("cannot lock a file of the cache (is it on a network file system?)"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_in_use_is_not_cleared() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("store");
        let (mine, other) = (Store::open(&root).unwrap(), Store::open(&root).unwrap());
        let error = mine.clear().unwrap_err();
        assert!(error.to_string().contains("in use"), "{error}");
        assert!(root.exists());
        other.clear().unwrap();
        assert!(!root.exists());
    }

    #[test]
    fn what_nobody_works_on_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        for name in ["left", "left.outdated", "busy", "busy.outdated"] {
            fs::create_dir(store.work(name)).unwrap();
        }
        let busy = store.lock("busy").unwrap();
        assert!(busy.try_exclusive().unwrap());
        store.sweep(&Progress::new()).unwrap();
        assert!(!store.work("left").exists() && !store.outdated("left").exists());
        assert!(store.work("busy").exists() && store.outdated("busy").exists());
    }

    #[test]
    fn a_lock_on_a_file_that_was_removed_is_not_the_one_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let old = Lock::open(&path).unwrap();
        assert!(old.is_at(&path).unwrap());
        fs::remove_file(&path).unwrap();
        assert!(!old.is_at(&path).unwrap());
        Lock::open(&path).unwrap();
        assert!(!old.is_at(&path).unwrap());
    }

    #[test]
    fn one_at_a_time_makes_a_result() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let (first, second) = (store.lock("a").unwrap(), store.lock("a").unwrap());
        assert!(first.try_exclusive().unwrap());
        assert!(!second.try_exclusive().unwrap());
        assert!(store.lock("b").unwrap().try_exclusive().unwrap());
        drop(first);
        assert!(second.try_exclusive().unwrap());
    }
}
