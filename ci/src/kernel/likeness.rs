// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether a prepared tree is like the stock kernel: the same configuration, the same Rust symbols.
//!
//! A tool that is missing or of another version turns options off without a word; structures then have other layouts, and
//! a module built so corrupts the kernel it is loaded into. Mangled Rust names depend on all of that, so they tell.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Options of the build alone, which the distribution's source package sets in its own way: signing keys, a salt.
const OF_THE_BUILD: &[&str] =
    &["CONFIG_BUILD_SALT", "CONFIG_MODULE_SIG_", "CONFIG_SYSTEM_TRUSTED_KEYS", "CONFIG_OPENSSL_SUPPORTS_"];

/// Differences to show at most.
const SHOWN: usize = 5;

/// Compares a prepared tree with the stock kernel's configuration and with the `Module.symvers` put into the tree.
pub fn check(tree: &Path, stock_config: &Path) -> Result<()> {
    let differences = config_differences(&read(&tree.join(".config"))?, &read(stock_config)?);
    if !differences.is_empty() {
        bail!(
            "the configuration is not the stock kernel's ({}); the toolchain root must have the tools these options need",
            shown(&differences)
        );
    }
    let mut exports = String::new();
    for part in ["core", "helpers", "bindings", "kernel"] {
        exports += &read(&tree.join(format!("rust/exports_{part}_generated.h")))?;
    }
    let foreign = foreign_symbols(&exports, &read(&tree.join("Module.symvers"))?)?;
    if !foreign.is_empty() {
        bail!(
            "{} Rust symbols are not the stock kernel's ({}); the compilers in the toolchain root are not those it was built with",
            foreign.len(),
            shown(&foreign)
        );
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn shown(all: &[String]) -> String {
    let more = if all.len() > SHOWN { ", ..." } else { "" };
    all.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ") + more
}

/// Options whose values differ. One that is not set is the same as one that is not there.
fn config_differences(ours: &str, stock: &str) -> Vec<String> {
    fn options(config: &str) -> BTreeMap<&str, &str> {
        config.lines().filter(|line| line.starts_with("CONFIG_")).filter_map(|line| line.split_once('=')).collect()
    }
    let (ours, stock) = (options(ours), options(stock));
    let names: BTreeSet<&str> = ours.keys().chain(stock.keys()).copied().collect();
    let matters = |name: &&str| !OF_THE_BUILD.iter().any(|prefix| name.starts_with(prefix));
    let value = |options: &BTreeMap<_, &str>, name| options.get(name).map_or("not set", |value| *value).to_owned();
    names
        .into_iter()
        .filter(matters)
        .filter(|name| ours.get(name) != stock.get(name))
        .map(|name| format!("{name} is {}, was {}", value(&ours, name), value(&stock, name)))
        .collect()
}

/// Rust symbols that the tree's own crates export and the stock kernel does not.
fn foreign_symbols(exports: &str, symvers: &str) -> Result<Vec<String>> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let exported: BTreeSet<&str> = exports.split(|c| !is_word(c)).filter(|word| word.starts_with("_R")).collect();
    if exported.is_empty() {
        bail!("the tree exports no Rust symbols: it was prepared without Rust");
    }
    let stock: BTreeSet<&str> = symvers.lines().filter_map(|line| line.split('\t').nth(1)).collect();
    Ok(exported.difference(&stock).map(|symbol| (*symbol).to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_matter_are_compared() {
        let stock = "CONFIG_A=y\nCONFIG_MODULE_SIG_KEY=\"x\"\n# CONFIG_B is not set\n";
        assert!(config_differences("CONFIG_BUILD_SALT=\"\"\nCONFIG_A=y\n", stock).is_empty());
        assert_eq!(
            config_differences("CONFIG_B=m\n", stock),
            ["CONFIG_A is not set, was y", "CONFIG_B is m, was not set"]
        );
    }

    #[test]
    fn symbols_of_other_compilers_are_found() {
        let symvers = "0x0\t_RNvA\tvmlinux\tEXPORT_SYMBOL_GPL\t\n0x0\tprintk\tvmlinux\tEXPORT_SYMBOL\t\n";
        assert!(foreign_symbols("EXPORT_SYMBOL_RUST_GPL(_RNvA);", symvers).unwrap().is_empty());
        assert_eq!(
            foreign_symbols("EXPORT_SYMBOL_RUST_GPL(_RNvA);\nEXPORT_SYMBOL_RUST_GPL(_RNvB);", symvers).unwrap(),
            ["_RNvB"]
        );
        assert!(foreign_symbols("", symvers).is_err());
    }

    #[test]
    fn long_lists_are_cut() {
        let all: Vec<String> = (0..9).map(|n| n.to_string()).collect();
        assert_eq!(shown(&all), "0, 1, 2, 3, 4, ...");
        assert_eq!(shown(&all[..2]), "0, 1");
    }
}
