// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where snapshots are kept: a folder of the cache, shared by all runs of a user.
//!
//! ```text
//! snapshots/KEY.snapshot   one snapshot, whole: it got its name when all of it was written
//! snapshots/KIND.lock      flock: held by the run that makes a snapshot of this kind of machine
//! ```
//!
//! A snapshot in the making has no name, so nothing is left of it when its maker is killed. Those used longest ago make room for
//! new ones; one that is removed while it is in use stays good for its users.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ersatz_guest_image::cache::{self, CacheError};
use ersatz_guest_image::error_chain::chain;
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, flock, linkat, open};
use rustix::io::Errno;
use thiserror::Error;

use super::{Key, Snapshot};
use crate::supervisor::Event;

/// The folder in the cache.
const FOLDER: &str = "snapshots";
/// How the names of snapshots end.
const SUFFIX: &str = ".snapshot";
/// Most snapshots that are kept.
const MAX_COUNT: usize = 12;
/// Most bytes that they may take on disk, all together.
const MAX_BYTES: u64 = 6 << 30;
/// How often to look whether another run has made what this one waits for.
const LOOK: Duration = Duration::from_millis(20);

/// Why a snapshot cannot be kept.
#[derive(Debug, Error)]
pub enum StoreError {
    /// There is no cache.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The folder cannot be used.
    #[error("cannot keep snapshots in {path}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// The store.
#[derive(Clone, Debug)]
pub struct SnapshotStore {
    folder: PathBuf,
}

/// The right to make snapshots of one kind of machine, until dropped.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "it is the open file that holds the lock")] File);

/// The result of [`SnapshotStore::find_or_take_turn`].
#[derive(Debug)]
pub enum Found {
    /// The snapshot.
    Snapshot(Snapshot),
    /// There is none, and it is the caller's turn to make it.
    Turn(Turn),
    /// The user stopped waiting.
    Stopped,
}

impl SnapshotStore {
    /// The store in the cache of this user; made when there is none.
    ///
    /// # Errors
    ///
    /// Fails if there is no cache or it cannot be written to.
    pub fn open() -> Result<Self, StoreError> {
        Self::in_folder(cache::folder()?.join(FOLDER))
    }

    fn in_folder(folder: PathBuf) -> Result<Self, StoreError> {
        match fs::create_dir_all(&folder) {
            Ok(()) => Ok(Self { folder }),
            Err(source) => Err(StoreError::Folder { path: folder, source }),
        }
    }

    fn error(&self, source: io::Error) -> StoreError {
        StoreError::Folder { path: self.folder.clone(), source }
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.folder.join(format!("{key}{SUFFIX}"))
    }

    /// The snapshot with this key, if there is one that is good. From now on it counts as just used.
    pub fn find(&self, key: &Key) -> Option<Snapshot> {
        let path = self.path(key);
        let file = File::options().read(true).write(true).open(&path).ok()?;
        // The time only orders removals.
        let _ = file.set_modified(SystemTime::now());
        Snapshot::open(file)
            .inspect_err(|error| log::warn!("{} is removed: {}", path.display(), chain(error)))
            .ok()
            .or_else(|| {
                self.remove(key);
                None
            })
    }

    /// The snapshot with this key; if there is none, waits for other runs that make snapshots of this kind, and then
    /// gives the caller the turn. `waiting` is called once if it has to wait.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be used.
    pub fn find_or_take_turn(
        &self,
        kind: &str,
        key: &Key,
        stop: &Event,
        waiting: impl FnOnce(),
    ) -> Result<Found, StoreError> {
        let mut waiting = Some(waiting);
        let lock = || {
            File::options().create(true).truncate(false).write(true).open(self.folder.join(kind.to_owned() + ".lock"))
        };
        let lock = lock().map_err(|source| self.error(source))?;
        loop {
            if let Some(snapshot) = self.find(key) {
                return Ok(Found::Snapshot(snapshot));
            }
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                // The one who had it before may have made just this snapshot.
                Ok(()) => return Ok(self.find(key).map_or_else(|| Found::Turn(Turn(lock)), Found::Snapshot)),
                Err(Errno::WOULDBLOCK | Errno::INTR) => {}
                Err(error) => return Err(self.error(error.into())),
            }
            if let Some(waiting) = waiting.take() {
                waiting();
            }
            if stop.wait(LOOK) {
                return Ok(Found::Stopped);
            }
        }
    }

    /// Writes a snapshot and gives it its name; older ones make room for it. Returns it opened.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be written.
    pub fn publish(&self, key: &Key, _turn: &Turn, memory: &File, state: &[u8]) -> Result<Snapshot, StoreError> {
        let publish = || -> io::Result<Snapshot> {
            let file = File::from(open(
                &self.folder,
                OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC,
                Mode::RUSR | Mode::WUSR,
            )?);
            Snapshot::write(&file, memory, state)?;
            self.remove(key);
            let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
            linkat(CWD, path, CWD, self.path(key), AtFlags::SYMLINK_FOLLOW)?;
            Snapshot::open(file)
        };
        let snapshot = publish().map_err(|source| self.error(source))?;
        self.make_room();
        Ok(snapshot)
    }

    /// Removes a snapshot, if it is there.
    pub fn remove(&self, key: &Key) {
        // If it stays because the folder cannot be written, making the next one fails.
        let _ = fs::remove_file(self.path(key));
    }

    /// Removes all snapshots; returns how many, and how many bytes they took.
    ///
    /// # Errors
    ///
    /// Fails if one cannot be removed.
    pub fn clear(&self) -> Result<(usize, u64), StoreError> {
        let all = self.all().map_err(|source| self.error(source))?;
        for kept in &all {
            fs::remove_file(&kept.path).map_err(|source| self.error(source))?;
        }
        Ok((all.len(), all.iter().map(|kept| kept.bytes).sum()))
    }

    /// The number of snapshots, and how many bytes they take.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be read.
    pub fn usage(&self) -> Result<(usize, u64), StoreError> {
        let all = self.all().map_err(|source| self.error(source))?;
        Ok((all.len(), all.iter().map(|kept| kept.bytes).sum()))
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Removes those used longest ago, as long as there are too many or they take too much.
    fn make_room(&self) {
        let mut all = self.all().unwrap_or_default();
        all.sort_by_key(|kept| kept.used);
        let (mut count, mut bytes) = (all.len(), all.iter().map(|kept| kept.bytes).sum::<u64>());
        for kept in &all {
            // The newest always stays.
            if count <= 1 || (count <= MAX_COUNT && bytes <= MAX_BYTES) {
                return;
            }
            if fs::remove_file(&kept.path).is_ok() {
                count -= 1;
                bytes -= kept.bytes;
            }
        }
    }

    fn all(&self) -> io::Result<Vec<Kept>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if !path.to_str().is_some_and(|name| name.ends_with(SUFFIX)) {
                continue;
            }
            // One that another run has removed meanwhile is not there.
            if let Ok(metadata) = fs::metadata(&path) {
                let bytes = std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
                all.push(Kept { path, used: metadata.modified()?, bytes });
            }
        }
        Ok(all)
    }
}

/// A snapshot in the folder.
#[derive(Debug)]
struct Kept {
    path: PathBuf,
    used: SystemTime,
    bytes: u64,
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::snapshot::key::KeyBuilder;
    use crate::snapshot::ram::new_memory;

    fn key(name: &str) -> Key {
        KeyBuilder::new(name).finish()
    }

    fn store(folder: &Path) -> SnapshotStore {
        SnapshotStore::in_folder(folder.join(FOLDER)).unwrap()
    }

    fn make(store: &SnapshotStore, key: &Key) -> bool {
        let stop = Event::new().unwrap();
        match store.find_or_take_turn("kind", key, &stop, || ()).unwrap() {
            Found::Turn(turn) => {
                store.publish(key, &turn, &new_memory("test", 8192).unwrap(), b"state").unwrap();
                true
            }
            Found::Snapshot(_) => false,
            Found::Stopped => panic!("stopped"),
        }
    }

    #[test]
    fn a_snapshot_is_made_once_by_many_runs_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let made = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| made.fetch_add(make(&store(folder.path()), &key("a")).into(), Ordering::Relaxed));
            }
        });
        assert_eq!(made.into_inner(), 1);
        let store = store(folder.path());
        assert_eq!(store.find(&key("a")).unwrap().memory_size(), 8192);
        assert!(store.find(&key("b")).is_none());
    }

    #[test]
    fn waiting_can_be_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let (store, stop) = (store(folder.path()), Event::new().unwrap());
        let Found::Turn(_turn) = store.find_or_take_turn("kind", &key("a"), &stop, || ()).unwrap() else { panic!() };
        stop.set();
        let mut told = false;
        let found = store.find_or_take_turn("kind", &key("b"), &stop, || told = true).unwrap();
        assert!(told && matches!(found, Found::Stopped), "{found:?}");
        assert!(matches!(store.find_or_take_turn("other", &key("b"), &stop, || ()), Ok(Found::Turn(_))));
    }

    #[test]
    fn those_used_longest_ago_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let keys: Vec<Key> = (0..MAX_COUNT + 2).map(|number| key(&number.to_string())).collect();
        for key in &keys {
            make(&store, key);
            std::thread::sleep(Duration::from_millis(5));
            store.find(&keys[0]);
        }
        let kept: Vec<bool> = keys.iter().map(|key| store.path(key).exists()).collect();
        assert!(kept[0] && !kept[1] && !kept[2] && kept[3], "{kept:?}");
        assert_eq!(store.clear().unwrap().0, MAX_COUNT);
        assert_eq!(store.clear().unwrap(), (0, 0));
    }

    #[test]
    fn what_is_not_whole_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        assert!(make(&store, &key("a")));
        File::options().write(true).open(store.path(&key("a"))).unwrap().set_len(100).unwrap();
        assert!(make(&store, &key("a")));
        assert!(!make(&store, &key("a")));
    }

    #[test]
    fn nothing_is_left_of_a_snapshot_that_was_not_finished() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let (stop, key) = (Event::new().unwrap(), key("a"));
        let Found::Turn(turn) = store.find_or_take_turn("kind", &key, &stop, || ()).unwrap() else { panic!() };
        let directory = File::open(folder.path()).unwrap(); // no memory: it cannot be read
        assert!(store.publish(&key, &turn, &directory, b"").is_err());
        let names: Vec<_> = fs::read_dir(store.folder()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["kind.lock"]);
    }
}
