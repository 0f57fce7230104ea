// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The driver, the module that holds tasks and the example, built as external modules against a prepared kernel tree.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use anyhow::{Context, Result, bail};

use crate::fingerprint::Inputs;
use crate::kernel::tree::KernelTree;
use crate::namespace;
use crate::progress::Progress;
use crate::step::Step;
use crate::store::Store;
use crate::toolchain::{Mount, Toolchain};

/// `$1` is the release, `$2` the number of jobs; further arguments are variables for make. Kbuild puts nothing but the
/// results of its own steps into the folder, and knows which of them are out of date.
const MAKE: &str = r#"
release=$1 jobs=$2; shift 2
make -C /mnt/linux M=/mnt/clone/guest-driver MO=/mnt/build "KERNELRELEASE=$release" \
    "-j$jobs" "$@" modules
"#;

/// Goes after [`MAKE`] where the modules are to be loaded: nine tenths of a module's file are debug information, all of which a
/// guest would have to read. The files with it stay where they are built.
const STRIP: &str = r#"
mkdir -p /mnt/build/stripped
for module in ersatz.ko hold/ersatz_hold.ko examples/ram_device/ersatz_ram.ko; do
    x86_64-linux-gnu-strip --strip-debug -o "/mnt/build/stripped/${module##*/}" "/mnt/build/$module"
done
"#;

/// Goes before [`MAKE`] where the driver is checked: by the toolchain's rustfmt, as the kernel's own build does it.
const CHECK_FORMAT: &str = "make -C /mnt/clone/guest-driver rustfmtcheck\n";

/// Folders of the clone that the driver is compiled from.
const SOURCES: &[&str] = &["guest-driver", "device-model/abi/src"];

/// The names of the modules' files, and the folders they are built in.
const DRIVER: (&str, &str) = ("ersatz.ko", "");
const HOLD: (&str, &str) = ("ersatz_hold.ko", "hold");
const RAM: (&str, &str) = ("ersatz_ram.ko", "examples/ram_device");
/// The folder of the files without debug information, where they are built.
const STRIPPED: &str = "stripped";

/// How the driver is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// To be loaded.
    Module,
    /// To be looked at by clippy and rustfmt.
    Checked,
}

/// The files of the modules.
#[derive(Clone, Debug)]
pub struct Modules {
    /// The driver.
    pub driver: PathBuf,
    /// The module that holds tasks at functions of the kernel.
    pub hold: PathBuf,
    /// The example of a device whose memory is RAM.
    pub ram: PathBuf,
}

/// Builds the modules, in the store of the clone.
pub fn build(
    store: &Store,
    progress: &Progress,
    (clone, toolchain): (&Path, &Toolchain),
    (release, tree): (&str, &KernelTree),
    flavour: Flavour,
) -> Result<Modules> {
    let environment = tree.compiler.environment();
    let (name, title, script, settings): (_, _, _, &[&str]) = match flavour {
        Flavour::Module => ("driver", "driver", format!("{environment}{MAKE}{STRIP}"), &[]),
        Flavour::Checked => {
            let script = format!("{environment}{CHECK_FORMAT}{MAKE}");
            ("driver-checked", "driver under clippy and rustfmt", script, &["CLIPPY=1"])
        }
    };
    let variables = [tree.compiler.make_variables(), settings].concat();
    let mut inputs = Inputs::of(name, &script).text(release).text(&variables.join(" ")).step(&tree.fingerprint);
    for source in SOURCES {
        inputs = inputs.tree(&clone.join(source))?;
    }
    let step = Step {
        store,
        name: name.to_owned(),
        title,
        inputs: inputs.fingerprint(),
        advice: "mend what is complained about, or, if it is not in guest-driver/, run `cargo xtask clean` and \
                 the same command again",
    };
    let result = step.run(progress, |work| {
        // What Kbuild leaves is kept apart from the result, for the next build to go on from.
        let build = store.root().join(format!(".{name}-build"));
        fs::create_dir_all(&build)?;
        let mut mounts =
            vec![Mount::read("linux", &tree.folder), Mount::read("clone", clone), Mount::write("build", &build)];
        mounts.extend(tree.compiler.mount());
        let jobs = available_parallelism().map_or(1, usize::from).to_string();
        let arguments = [&[release, &jobs], variables.as_slice()].concat();
        work.log.run("make", &mut toolchain.shell(&mounts, &script, &arguments))?;
        let log = fs::read_to_string(work.log.path())?;
        if let Some(warning) = log.lines().find(|line| is_warning(line)) {
            // Kbuild says it once and takes the object for good: make it say it again.
            namespace::remove_tree(&build)?;
            bail!("the driver does not build without warnings: {warning}");
        }
        for (name, folder) in [DRIVER, HOLD, RAM] {
            let folder = if flavour == Flavour::Module { STRIPPED } else { folder };
            fs::copy(build.join(folder).join(name), work.folder.join(name))
                .with_context(|| format!("the build left no {name}"))?;
        }
        Ok(())
    })?;
    Ok(Modules { driver: result.join(DRIVER.0), hold: result.join(HOLD.0), ram: result.join(RAM.0) })
}

/// The warning that the kernel was built by a compiler of another name. Versions are compared before.
const OTHER_NAME: &str = "warning: the compiler differs from the one used to build the kernel";

/// Whether the compiler, clippy or modpost complains in this line of their log.
fn is_warning(line: &str) -> bool {
    if line == OTHER_NAME {
        return false;
    }
    ["warning: ", "WARNING: "].iter().any(|mark| line.starts_with(mark)) || line.contains(": warning: ")
}

#[cfg(test)]
mod tests {
    use super::{OTHER_NAME, is_warning};

    #[test]
    fn complaints_are_told_from_progress() {
        assert!(is_warning("warning: unused variable: `x`"));
        assert!(is_warning("WARNING: modpost: missing MODULE_DESCRIPTION() in ersatz.o"));
        assert!(is_warning("shim.c:1:2: warning: unused variable"));
        assert!(!is_warning(OTHER_NAME));
        assert!(!is_warning("  RUSTC [M] src/main.o"));
        assert!(!is_warning("  CLIPPY [M] src/warning.o"));
    }
}
