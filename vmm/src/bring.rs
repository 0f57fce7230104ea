// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What users bring into a guest from this machine: programs with their libraries, files, folders.
//!
//! All of it becomes one more archive of the run ([`RunSpec::archives`](crate::spec::RunSpec)), so it comes in the same way under
//! every accelerator, from a snapshot and without one.

pub mod addition;
mod libraries;
pub mod module;
mod pack;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use clap::Args;
use ersatz_guest_image::collect::COLLECT_PATH;
use ersatz_guest_image::contents::Contents;
use ersatz_guest_image::mailbox;
use ersatz_guest_image::manifest::Manifest;
use ersatz_guest_image::run::{NO_DRIVER_PATH, STREAMS_PATH};
use ersatz_guest_image::share::{self, SHARE_MODULES, SHARES_PATH};
use rustix::fs::{MemfdFlags, memfd_create};
use thiserror::Error;

pub use self::addition::Addition;
pub use self::module::{BringModuleError, Module};
pub use self::pack::PackError;
use self::pack::{Limit, Packer};
use crate::collect::Target;
use crate::share::{SharedFolder, for_guest};
use crate::spec::ReadPath;

/// What the mailbox has room for besides the programs that every run brings.
const MAILBOX_ROOM: u64 = mailbox::SIZE - (64 << 20);

/// What a run brings, and what it takes out.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Files")]
pub struct BringOptions {
    /// Bring a file or folder into the guest: a program is found by its name there, with its libraries; GUEST is its path in the
    /// guest [default: /usr/local/bin/NAME for a program, else /NAME]
    #[arg(long, value_name = "HOST[:GUEST]", value_parser = Addition::parse)]
    pub add: Vec<Addition>,
    /// Bring a file or folder out of the guest when CMD has ended, however it ended; HOST is its place here, or the folder for it if
    /// that ends with a slash (tcg)
    #[arg(long, value_name = "GUEST:HOST", value_parser = Target::parse)]
    pub collect: Vec<Target>,
    /// Have the guest mount a folder of this machine while it runs, by 9p: what either side writes the other sees at once; GUEST is its
    /// path in the guest [default: /NAME] (tcg)
    #[arg(long, value_name = "DIR[:GUEST][,ro]", value_parser = SharedFolder::parse)]
    pub share: Vec<SharedFolder>,
    /// Load a kernel module after the driver, with the modules of the kernel that it depends on; in the order given
    #[arg(long = "module", value_name = "FILE.ko[:PARAMS]", value_parser = Module::parse)]
    pub modules: Vec<Module>,
    /// Do not load the driver: the GPUs are left to --module, or to what CMD loads
    #[arg(long)]
    pub no_driver: bool,
}

/// Why it cannot be brought.
#[derive(Debug, Error)]
pub enum BringError {
    /// The paths of the guest are not known.
    #[error("cannot read the archives of the guest; run `cargo xtask build` again")]
    Contents(#[source] io::Error),
    /// A file, a folder, or too much of it.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// A kernel module.
    #[error(transparent)]
    Module(#[from] BringModuleError),
    /// Folders that cannot be shared together.
    #[error("--share: {0}")]
    Share(String),
    /// The command is a file that cannot be brought.
    #[error("the command: {0}")]
    Command(String),
    /// There is no memory for it.
    #[error("cannot keep in memory what the run brings")]
    Memory(#[source] io::Error),
}

/// An archive in memory, and the command that the guest runs.
#[derive(Debug)]
pub struct Brought {
    archive: Option<File>,
    /// The command, its program replaced by the path that it has in the guest.
    pub command: Vec<String>,
}

impl Brought {
    /// Returns the path of the archive, which is good in this process while this value lives; `None` if the run brings nothing.
    pub fn archive(&self) -> Option<ReadPath> {
        let archive = self.archive.as_ref()?;
        Some(PathBuf::from(format!("/proc/self/fd/{}", archive.as_raw_fd())).into())
    }
}

impl BringOptions {
    fn is_empty(&self) -> bool {
        self.share.is_empty()
            && self.add.is_empty()
            && self.collect.is_empty()
            && self.modules.is_empty()
            && !self.no_driver
    }

    /// Packs what the options name, and what PID 1 needs to know of them, and the program of the command if it is a file of this machine and not one of the guest.
    /// `manifest` is that of the guest's kernel, `guest` what the guest is made of without this, `memory` its memory in bytes; `streams`
    /// says whether the command has streams of its own.
    ///
    /// # Errors
    ///
    /// Fails if the guest cannot be given something, or there is more than it has room for.
    pub fn pack(
        &self,
        manifest: Option<&Manifest>,
        guest: &[ReadPath],
        command: &[String],
        memory: u64,
        streams: bool,
    ) -> Result<Brought, BringError> {
        let nothing = |command: &[String]| Brought { archive: None, command: command.to_vec() };
        let is_path = command.first().is_some_and(|program| program.contains('/'));
        let is_empty = self.is_empty() && !streams;
        if is_empty && !is_path {
            return Ok(nothing(command));
        }
        let contents = Contents::of_files(guest).map_err(BringError::Contents)?;
        let mut packer = Packer::new(&contents, limit(memory));
        for addition in &self.add {
            packer.add(addition)?;
        }
        let mut words = command.to_vec();
        let program = words.first_mut().filter(|program| is_of_host(program, &contents));
        if is_empty && program.is_none() {
            return Ok(nothing(command));
        }
        if let Some(program) = program {
            let addition = Addition::of(Path::new(&*program)).map_err(BringError::Command)?;
            *program = if self.add.contains(&addition) {
                addition.place(&contents).map_err(BringError::Command)?
            } else {
                packer.add(&addition)?
            };
        }
        if !self.modules.is_empty() || !self.share.is_empty() {
            let of_kernel = if self.share.is_empty() { &[] } else { SHARE_MODULES };
            module::pack(&self.modules, of_kernel, manifest, &mut packer)?;
        }
        if !self.share.is_empty() {
            let shares = for_guest(&self.share).map_err(BringError::Share)?;
            packer.add_bytes(SHARES_PATH, share::encode(&shares))?;
        }
        if streams {
            packer.add_bytes(STREAMS_PATH, "")?;
        }
        if !self.collect.is_empty() {
            let paths = self.collect.iter().map(|target| format!("{}\0", target.guest));
            packer.add_bytes(COLLECT_PATH, paths.collect::<String>())?;
        }
        if self.no_driver {
            packer.add_bytes(NO_DRIVER_PATH, "")?;
        }
        let archive = packer.finish()?;
        let mut file = memfd_create("ersatz-brought", MemfdFlags::CLOEXEC)
            .map(File::from)
            .map_err(|error| BringError::Memory(error.into()))?;
        archive.write_to(&mut file).map_err(PackError::from)?;
        Ok(Brought { archive: Some(file), command: words })
    }
}

/// Whether the program of a command is a file of this machine, and not one of the guest. A relative path is of this machine if it
/// is there at all.
fn is_of_host(program: &str, contents: &Contents) -> bool {
    let path = Path::new(program);
    program.contains('/') && path.is_file() && !(path.is_absolute() && contents.at(path).is_some())
}

/// How much may be brought. A guest that boots has all of it in memory twice while the kernel unpacks it.
fn limit(memory: u64) -> Limit {
    let of_memory = (memory / 3) >> 20 << 20;
    if of_memory < MAILBOX_ROOM {
        Limit { bytes: of_memory, reason: "a third of the guest's memory; give the guest more with --memory" }
    } else {
        Limit { bytes: MAILBOX_ROOM, reason: "which is all that can be brought into a guest at its start; bring less" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(options: &BringOptions, words: &[&str]) -> Result<Brought, BringError> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        options.pack(None, &[], &words, 1 << 30, false)
    }

    #[test]
    fn nothing_is_packed_unless_something_is_brought() {
        for words in [&[][..], &["ls", "/etc/passwd"], &["/no/such/program"], &["no/such"], &["/"]] {
            let brought = pack(&BringOptions::default(), words).unwrap();
            assert_eq!(brought.archive(), None);
            assert_eq!(brought.command, words);
        }
    }

    #[test]
    fn a_command_that_is_a_file_of_this_machine_is_brought() {
        let program = std::env::current_exe().unwrap();
        let name = program.file_name().unwrap().to_str().unwrap();
        let brought = pack(&BringOptions::default(), &[program.to_str().unwrap(), "./x"]).unwrap();
        assert_eq!(brought.command, [format!("/usr/local/bin/{name}"), "./x".to_owned()]);
        let mut contents = Contents::default();
        contents.add(&std::fs::read(brought.archive().unwrap()).unwrap());
        assert!(contents.at(Path::new(&brought.command[0])).is_some());
        // Added by hand as well.
        let options = BringOptions { add: vec![Addition::of(&program).unwrap()], ..BringOptions::default() };
        assert_eq!(pack(&options, &[program.to_str().unwrap()]).unwrap().command, brought.command[..1]);
    }

    #[test]
    fn there_is_room_for_a_third_of_memory_and_for_less_than_the_mailbox() {
        assert_eq!(limit(1 << 30).bytes, 341 << 20);
        assert_eq!(limit(1 << 40).bytes, MAILBOX_ROOM);
    }
}
