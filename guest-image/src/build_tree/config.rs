// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The configuration of a kernel, and the options that guests and the driver need.

use std::collections::BTreeMap;

use thiserror::Error;

/// The options that are set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config(BTreeMap<String, String>);

/// An option that is needed, and the arguments of `scripts/config` by which it comes on.
struct Need {
    option: &'static str,
    /// `None` for the option's own prompt; else what selects it.
    by: Option<&'static str>,
}

const fn prompt(option: &'static str) -> Need {
    Need { option, by: None }
}

/// What the driver and the module that holds tasks use, then what a guest boots with, in the order in which Kconfig's dependencies are met.
const NEEDS: &[Need] = &[
    prompt("MODULES"),
    prompt("RUST"),
    prompt("PCI"),
    prompt("PCI_MSI"),
    prompt("SPARSEMEM_VMEMMAP"),
    prompt("MEMORY_HOTPLUG"),
    prompt("MEMORY_HOTREMOVE"),
    prompt("ZONE_DEVICE"),
    prompt("DEVICE_PRIVATE"),
    prompt("TRANSPARENT_HUGEPAGE"),
    // Nothing but a driver selects it; this is the one that needs no hardware.
    Need { option: "HMM_MIRROR", by: Some("-e DEBUG_KERNEL -e RUNTIME_TESTING_MENU -m TEST_HMM") },
    prompt("KPROBES"),
    prompt("BLK_DEV_INITRD"),
    prompt("BINFMT_ELF"),
    prompt("BINFMT_SCRIPT"),
    prompt("DEVTMPFS"),
    prompt("PROC_FS"),
    prompt("SYSFS"),
    prompt("TMPFS"),
    prompt("TTY"),
    prompt("SERIAL_8250"),
    prompt("SERIAL_8250_CONSOLE"),
    // The streams of a command.
    prompt("VIRTIO_PCI"),
    prompt("VIRTIO_CONSOLE"),
    // A guest that starts from a snapshot is given its GPUs while it runs.
    prompt("PCIEPORTBUS"),
    prompt("HOTPLUG_PCI"),
    prompt("HOTPLUG_PCI_PCIE"),
];

/// Options that are off and needed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{options} must be on; run there `scripts/config {arguments} && make olddefconfig && make -j$(nproc) bzImage \
     modules`{hint}"
)]
pub struct Missing {
    /// Their names, as `.config` has them.
    options: String,
    /// The arguments of `scripts/config`.
    arguments: String,
    /// What else may be in the way.
    hint: &'static str,
}

impl Config {
    /// Reads a `.config`.
    pub fn parse(text: &str) -> Self {
        let set = |line: &str| {
            let (name, value) = line.strip_prefix("CONFIG_")?.split_once('=')?;
            Some((name.to_owned(), value.trim_matches('"').to_owned()))
        };
        Self(text.lines().filter_map(set).collect())
    }

    /// Returns the value of an option, without quotes; `None` if it is off. Names are without `CONFIG_`.
    pub fn get(&self, option: &str) -> Option<&str> {
        self.0.get(option).map(String::as_str)
    }

    /// Whether an option is on, in the kernel itself.
    pub fn is_built_in(&self, option: &str) -> bool {
        self.get(option) == Some("y")
    }

    /// Checks that all that guests and the driver need is on.
    ///
    /// # Errors
    ///
    /// Fails if something is off. The error has the commands that turn it on.
    pub fn check(&self) -> Result<(), Missing> {
        let unmet: Vec<&Need> = NEEDS.iter().filter(|need| !self.is_built_in(need.option)).collect();
        if unmet.is_empty() {
            return Ok(());
        }
        let options: Vec<String> = unmet.iter().map(|need| format!("CONFIG_{}", need.option)).collect();
        let arguments = unmet.iter().map(|need| need.by.map_or_else(|| format!("-e {}", need.option), str::to_owned));
        let arguments: Vec<String> = arguments.collect();
        Err(Missing { options: options.join(", "), arguments: arguments.join(" "), hint: self.hint(&unmet) })
    }

    /// What keeps Kconfig from turning an option on.
    fn hint(&self, unmet: &[&Need]) -> &'static str {
        let wants_rust = unmet.iter().any(|need| need.option == "RUST");
        match wants_rust {
            true if self.is_built_in("KASAN") && !self.is_built_in("CC_IS_CLANG") => {
                "; RUST with KASAN takes a kernel that clang builds: add LLVM=1 to each make"
            }
            true => "; if RUST stays off, `make rustavailable` says why",
            false => "",
        }
    }
}
