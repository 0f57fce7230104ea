// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `ersatz new-driver`: writes a small driver for the device, to begin with: it brings up a channel, copies a page and waits for the
//! interrupt.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;

use super::CommandError;
use super::report::say;
use crate::outcome::STATUS_USAGE;

/// What stands for the driver's name in the templates.
const PLACEHOLDER: &str = "NAME";

/// The templates of a driver in Rust: the file, and the crate with the numbers of the device.
const RUST: &str = include_str!("../../templates/driver.rs");
/// The template of a driver in C, and the header with the numbers of the device.
const C: &str = include_str!("../../templates/driver.c");
const HEADER: (&str, &str) = ("ersatz_device.h", include_str!("../../../device-model/abi/include/ersatz_device.h"));
const KBUILD: &str = include_str!("../../templates/Kbuild");

/// Files of the ABI's crate, which the driver compiles as a module of its own.
macro_rules! abi {
    ($($name:literal),* $(,)?) => {
        &[$((concat!("abi/", $name), include_str!(concat!("../../../device-model/abi/src/", $name)))),*]
    };
}
const ABI: &[(&str, &str)] = abi![
    "access_counter.rs",
    "channel.rs",
    "command.rs",
    "control_window.rs",
    "counter.rs",
    "error.rs",
    "fault.rs",
    "fields.rs",
    "kernel.rs",
    "lib.rs",
    "list.rs",
    "location.rs",
    "mmu.rs",
    "notification.rs",
    "opcode.rs",
    "pci.rs",
    "regs.rs",
];

/// Write a small driver for the device to begin with, in a new folder NAME
///
/// It is a kernel module that brings up one channel, copies a page to VRAM and back, and waits for the interrupt of that. `cargo xtask
/// module NAME`, in the clone of Ersatz, builds it for the kernel that guests boot.
#[derive(Debug, Args)]
pub struct NewDriverOptions {
    /// Write it in C instead of Rust
    #[arg(long)]
    c: bool,
    /// The name of the driver, and the folder to make; NAME may be the path of a folder whose last part is the name
    #[arg(value_name = "NAME")]
    folder: PathBuf,
}

/// Writes the driver; returns the exit status.
///
/// # Errors
///
/// Fails if the folder exists, or cannot be made.
pub fn run(options: &NewDriverOptions) -> Result<u8, CommandError> {
    let folder = &options.folder;
    let name = match name(folder) {
        Ok(name) => name,
        Err(reason) => {
            say(&reason);
            return Ok(STATUS_USAGE);
        }
    };
    let made = fs::create_dir(folder).map_err(|error| format!("cannot make the folder {}: {error}", folder.display()));
    made?;
    for (file, content) in files(&name, options.c) {
        write(&folder.join(file), &content)?;
    }
    let shown = folder.display();
    println!("made {shown}: build it by `cargo xtask module {shown}` in the clone of Ersatz, then type");
    println!("  ersatz run --no-driver --module {shown}/{name}.ko -- dmesg");
    Ok(0)
}

fn write(path: &Path, content: &str) -> Result<(), CommandError> {
    let write = || {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::File::create_new(path)?.write_all(content.as_bytes())
    };
    write().map_err(|error| format!("cannot write {}: {error}", path.display()).into())
}

/// The name of a driver: that of its folder. Kbuild, the kernel and C must all take it.
fn name(folder: &Path) -> Result<String, String> {
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_word = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if !is_word || !name.starts_with(|first: char| first.is_ascii_lowercase()) || name.len() > 40 {
        return Err(format!(
            "{name:?} cannot be the name of a module: type one of small letters, digits and _, such as my_gpu"
        ));
    }
    if name == "ersatz" {
        return Err("ersatz is the driver that there is; type another name, such as my_gpu".to_owned());
    }
    Ok(name.to_owned())
}

/// The files of a driver, with their content.
fn files(name: &str, in_c: bool) -> Vec<(String, String)> {
    let named = |template: &str| template.replace(PLACEHOLDER, name);
    let mut files = vec![("Kbuild".to_owned(), named(KBUILD))];
    if in_c {
        files.push((format!("{name}.c"), named(C)));
        files.push((HEADER.0.to_owned(), HEADER.1.to_owned()));
    } else {
        files.push((format!("{name}.rs"), named(RUST)));
        files.extend(ABI.iter().map(|(path, content)| ((*path).to_owned(), (*content).to_owned())));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_that_all_take() {
        assert_eq!(name(Path::new("/tmp/my_gpu")).unwrap(), "my_gpu");
        for bad in ["", "My", "9gpu", "a-b", "a b", "..", "/", "ersatz"] {
            assert!(name(Path::new(bad)).unwrap_err().contains("my_gpu"), "{bad}");
        }
    }

    #[test]
    fn the_abi_is_all_there() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../device-model/abi/src");
        let mut there: Vec<String> = fs::read_dir(sources)
            .unwrap()
            .map(|entry| format!("abi/{}", entry.unwrap().file_name().to_str().unwrap()))
            .collect();
        there.sort();
        assert_eq!(ABI.iter().map(|(path, _)| *path).collect::<Vec<_>>(), there);
    }

    #[test]
    fn a_driver_is_written_once_and_has_its_name() {
        let folder = tempfile::tempdir().unwrap();
        for (name, in_c, source) in [("first", false, "first.rs"), ("second", true, "second.c")] {
            let options = NewDriverOptions { c: in_c, folder: folder.path().join(name) };
            assert_eq!(run(&options).unwrap(), 0);
            let text = fs::read_to_string(options.folder.join(source)).unwrap();
            assert!(text.contains(name) && !text.contains(PLACEHOLDER), "{text}");
            assert!(fs::read_to_string(options.folder.join("Kbuild")).unwrap().contains(&format!("{name}.o")));
            assert!(run(&options).is_err());
        }
    }
}
