// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Steps: the way anything gets into a [`Store`].
//!
//! A step makes one result, a folder, from inputs that its fingerprint covers. It works in a folder of its own; when all
//! is made it flushes the file system, puts a stamp with the fingerprint in and renames the folder to its place. So a
//! result is whole or not there, whatever was interrupted when, and a result with the right stamp need not be made again.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use crate::fingerprint::Fingerprint;
use crate::log::{Log, tail};
use crate::namespace;
use crate::progress::{Progress, Stage};
use crate::store::Store;

/// The stamp in a whole result.
const STAMP: &str = ".ersatz-stamp";

/// One step.
pub struct Step<'a> {
    /// Where the result is kept.
    pub store: &'a Store,
    /// The result's name in the store.
    pub name: String,
    /// What the user reads.
    pub title: &'a str,
    /// What the result depends on.
    pub inputs: Fingerprint,
    /// What the user can do when the step fails.
    pub advice: &'a str,
}

/// Where a step works, while it does.
pub struct Work<'a> {
    /// The folder that becomes the result.
    pub folder: PathBuf,
    /// Takes the output of commands.
    pub log: Log,
    /// Shows what is going on.
    pub stage: Stage<'a>,
}

impl Step<'_> {
    /// Returns the folder of the result, after making it if need be.
    pub fn run(&self, progress: &Progress, make: impl FnOnce(&Work<'_>) -> Result<()>) -> Result<PathBuf> {
        if self.is_made() {
            return Ok(self.result());
        }
        let stage = progress.stage(self.title);
        let lock = self.store.lock(&self.name)?;
        if !lock.try_exclusive()? {
            stage.at("waiting for another run that makes it");
            lock.wait_exclusive()?;
            if self.is_made() {
                stage.done();
                return Ok(self.result());
            }
        }
        let work = self.start(stage).with_context(|| format!("{}: cannot start", self.title))?;
        make(&work).and_then(|()| self.publish(&work.folder)).map_err(|error| self.failed(&work, &error))?;
        work.stage.done();
        Ok(self.result())
    }

    fn result(&self) -> PathBuf {
        self.store.result(&self.name)
    }

    fn is_made(&self) -> bool {
        fs::read_to_string(self.result().join(STAMP)).is_ok_and(|stamp| stamp == self.inputs.to_string())
    }

    /// Clears away what an interruption left, which is safe under the lock, and starts afresh.
    fn start<'a>(&self, stage: Stage<'a>) -> Result<Work<'a>> {
        let folder = self.store.work(&self.name);
        namespace::remove_tree(&folder)?;
        namespace::remove_tree(&self.store.outdated(&self.name))?;
        fs::create_dir(&folder)?;
        let log = Log::start(&self.store.log(&self.name))?;
        Ok(Work { folder, log, stage })
    }

    fn publish(&self, folder: &Path) -> Result<()> {
        let directory = File::open(folder)?;
        let mut stamp = File::create(folder.join(STAMP))?;
        stamp.write_all(self.inputs.to_string().as_bytes())?;
        rustix::fs::syncfs(&directory).context("cannot flush the cache to disk")?;
        let (result, outdated) = (self.result(), self.store.outdated(&self.name));
        match fs::rename(&result, &outdated) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            moved => moved.with_context(|| format!("cannot move the older {} away", result.display()))?,
        }
        fs::rename(folder, &result).with_context(|| format!("cannot move the result to {}", result.display()))?;
        File::open(self.store.root())?.sync_all()?;
        namespace::remove_tree(&outdated)
    }

    /// What the user reads when the step has failed. The half-made result is removed; the log stays.
    fn failed(&self, work: &Work<'_>, error: &anyhow::Error) -> anyhow::Error {
        let mut text = format!("{} failed: {error:#}\n", self.title);
        let tail = tail(work.log.path());
        if !tail.is_empty() {
            text += &format!("  the end of its log, {}:\n{tail}", work.log.path().display());
        }
        text += &format!("  what to do: {}", self.advice);
        if let Err(error) = namespace::remove_tree(&work.folder) {
            text += &format!("\n  ({error:#})");
        }
        anyhow!(text)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::process::{Command, Stdio};
    use std::sync::atomic::{AtomicU32, Ordering};

    use anyhow::bail;

    use super::*;
    use crate::fingerprint::Inputs;

    fn step<'a>(store: &'a Store, input: &str) -> Step<'a> {
        Step {
            store,
            name: "result".into(),
            title: "the step",
            inputs: Inputs::of("step", "").text(input).fingerprint(),
            advice: "try again",
        }
    }

    fn write(work: &Work<'_>, text: &str) -> Result<()> {
        Ok(fs::write(work.folder.join("file"), text)?)
    }

    #[test]
    fn a_result_is_made_once_for_the_same_inputs() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let runs = Cell::new(0);
        let run = |input: &str| {
            let made = step(&store, input).run(&Progress::new(), |work| {
                runs.set(runs.get() + 1);
                write(work, input)
            });
            fs::read_to_string(made.unwrap().join("file")).unwrap()
        };
        assert_eq!((run("1"), runs.get()), ("1".into(), 1));
        assert_eq!((run("1"), runs.get()), ("1".into(), 1));
        assert_eq!((run("2"), runs.get()), ("2".into(), 2));
        assert_eq!((run("1"), runs.get()), ("1".into(), 3));
        assert_eq!(fs::read_dir(folder.path().join(".work")).unwrap().count(), 0);
    }

    #[test]
    fn a_failure_shows_log_and_advice_and_keeps_the_older_result() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        step(&store, "1").run(&Progress::new(), |work| write(work, "1")).unwrap();
        let error = step(&store, "2")
            .run(&Progress::new(), |work| {
                write(work, "half")?;
                work.log.run("the shell", Command::new("sh").args(["-c", "echo no space; exit 1"]))
            })
            .unwrap_err();
        for part in ["the step failed", "the shell ended with exit status: 1", "    no space", "what to do: try again"]
        {
            assert!(error.to_string().contains(part), "{part}: {error}");
        }
        assert_eq!(fs::read_to_string(store.result("result").join("file")).unwrap(), "1");
        assert!(!store.work("result").exists());
    }

    #[test]
    fn two_runs_make_a_result_once() {
        let folder = tempfile::tempdir().unwrap();
        let runs = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let store = Store::open(folder.path()).unwrap();
                    step(&store, "1")
                        .run(&Progress::new(), |work| {
                            runs.fetch_add(1, Ordering::Relaxed);
                            write(work, "1")
                        })
                        .unwrap();
                });
            }
        });
        assert_eq!(runs.into_inner(), 1);
    }

    /// Set for the copy of the test program that is to be killed: the store it works in.
    const VICTIM: &str = "ERSATZ_TEST_STORE";

    /// Not a test by itself: makes half a result, reports that, and waits to be killed.
    #[test]
    fn victim() {
        let Some(folder) = std::env::var_os(VICTIM) else { return };
        let store = Store::open(Path::new(&folder)).unwrap();
        let _ = step(&store, "1").run(&Progress::new(), |work| {
            write(work, "half")?;
            fs::write(Path::new(&folder).join("half-made"), "")?;
            std::thread::sleep(std::time::Duration::from_secs(600));
            bail!("was not killed")
        });
    }

    #[test]
    fn what_a_killed_run_left_is_not_taken_for_a_result() {
        let folder = tempfile::tempdir().unwrap();
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "step::tests::victim"])
            .env(VICTIM, folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while !folder.path().join("half-made").exists() {
            assert_eq!(victim.try_wait().unwrap(), None, "the victim ended by itself");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        victim.kill().unwrap();
        victim.wait().unwrap();
        let store = Store::open(folder.path()).unwrap();
        assert!(store.work("result").join("file").exists() && !store.result("result").exists());
        let result = step(&store, "1").run(&Progress::new(), |work| {
            assert!(!work.folder.join("file").exists());
            write(work, "whole")
        });
        assert_eq!(fs::read_to_string(result.unwrap().join("file")).unwrap(), "whole");
    }
}
