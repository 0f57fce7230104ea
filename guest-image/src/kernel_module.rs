// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Kernel module files: which other modules one needs loaded before it.
//!
//! Which modules a driver depends on changes from one kernel version to the next, so nothing here is a fixed list: each
//! module says in its `.modinfo` what it needs. `cargo xtask` follows that to pack an initramfs, PID 1 of the outer
//! machine to load what is in it.

use std::collections::BTreeSet;

use thiserror::Error;

/// A chain of dependencies longer than any kernel's is a mistake, not to be followed to the end of the stack.
const MAX_DEPTH: usize = 32;

/// The key in `.modinfo` of the comma-separated list of modules to load first.
const DEPENDS: &[u8] = b"depends=";

/// Why a load order cannot be made.
#[derive(Debug, Error)]
pub enum ModuleError<E: std::error::Error + 'static> {
    /// A module file could not be read.
    #[error("cannot read kernel module '{name}'")]
    Read {
        /// The module's file name without `.ko`.
        name: String,
        /// The reader's error.
        source: E,
    },
    /// The file has no `.modinfo` that names its dependencies.
    #[error("'{0}' is not a kernel module (uncompressed .ko), or does not list its dependencies")]
    NotAModule(String),
    /// A chain of dependencies with no end in sight.
    #[error("kernel module '{0}' is at the end of a chain of more than {MAX_DEPTH} dependencies")]
    TooDeep(String),
}

/// The key in `.modinfo` of the kernel's release and some of its settings.
const VERMAGIC: &[u8] = b"vermagic=";

/// Returns the release of the kernel that the module file `content` was built for; `None` if it does not say.
pub fn release(content: &[u8]) -> Option<&str> {
    record(content, VERMAGIC)?.split(' ').next()
}

/// The names of the modules that the module file `content` depends on; `None` if it is not an uncompressed module.
///
/// The names are those of the files, without `.ko`.
pub fn depends(content: &[u8]) -> Option<Vec<String>> {
    if !content.starts_with(b"\x7fELF") {
        return None;
    }
    let value = record(content, DEPENDS)?;
    Some(value.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

/// The value of the record of `.modinfo` that begins with `key`.
fn record<'a>(content: &'a [u8], key: &[u8]) -> Option<&'a str> {
    // Records are NUL-terminated "key=value" strings, and the section's own name or code never reads NUL "key=". That saves
    // parsing the section table.
    let start = content.windows(key.len() + 1).position(|window| window[0] == 0 && &window[1..] == key)?;
    let value = &content[start + 1 + key.len()..];
    let value = &value[..value.iter().position(|byte| *byte == 0)?];
    std::str::from_utf8(value).ok()
}

/// Returns all modules that `wanted` needs, itself included, each after those it depends on, with their content.
///
/// `read` returns the uncompressed content of the module file with the given name (without `.ko`).
///
/// # Errors
///
/// Fails if `read` fails, or a file is not a module, or the chain of dependencies has no end.
pub fn load_order<E: std::error::Error + 'static>(
    wanted: &[&str],
    mut read: impl FnMut(&str) -> Result<Vec<u8>, E>,
) -> Result<Vec<(String, Vec<u8>)>, ModuleError<E>> {
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    for name in wanted {
        visit(name, 0, &mut read, &mut seen, &mut order)?;
    }
    Ok(order)
}

fn visit<E: std::error::Error + 'static>(
    name: &str,
    depth: usize,
    read: &mut impl FnMut(&str) -> Result<Vec<u8>, E>,
    seen: &mut BTreeSet<String>,
    order: &mut Vec<(String, Vec<u8>)>,
) -> Result<(), ModuleError<E>> {
    if depth > MAX_DEPTH {
        return Err(ModuleError::TooDeep(name.to_owned()));
    }
    if !seen.insert(name.to_owned()) {
        return Ok(());
    }
    let content = read(name).map_err(|source| ModuleError::Read { name: name.to_owned(), source })?;
    for dependency in depends(&content).ok_or_else(|| ModuleError::NotAModule(name.to_owned()))? {
        visit(&dependency, depth + 1, read, seen, order)?;
    }
    order.push((name.to_owned(), content));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn module(depends: &str) -> Vec<u8> {
        let mut content = b"\x7fELF....license=GPL\0depends=".to_vec();
        content.extend_from_slice(depends.as_bytes());
        content.extend_from_slice(b"\0vermagic=7.2\0");
        content
    }

    fn read(name: &str) -> io::Result<Vec<u8>> {
        Ok(module(match name {
            "kvm-amd" => "kvm,ccp",
            "kvm" => "irqbypass",
            "ccp" | "irqbypass" => "",
            "long" => "long0",
            name if name.starts_with("long") => {
                let next: usize = name[4..].parse().map_err(io::Error::other)?;
                return Ok(module(&format!("long{}", next + 1)));
            }
            _ => return Err(io::Error::from(io::ErrorKind::NotFound)),
        }))
    }

    #[test]
    fn reads_dependencies() {
        assert_eq!(depends(&module("kvm,ccp")).unwrap(), ["kvm", "ccp"]);
        assert_eq!(depends(&module("")).unwrap(), [""; 0]);
        assert_eq!(depends(b"\xfd7zXZ\0depends=kvm\0"), None);
        assert_eq!(depends(b"\x7fELF\0depends=kvm"), None, "no end");
        assert_eq!(depends(b""), None);
    }

    #[test]
    fn reads_the_release() {
        assert_eq!(
            release(b"\x7fELF\0vermagic=7.2.12+deb13-amd64 SMP preempt mod_unload \0"),
            Some("7.2.12+deb13-amd64")
        );
        assert_eq!(release(b"\x7fELF\0depends=\0"), None);
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let order = load_order(&["kvm-amd", "kvm"], read).unwrap();
        let names: Vec<_> = order.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["irqbypass", "kvm", "ccp", "kvm-amd"]);
    }

    #[test]
    fn a_missing_module_is_named() {
        let error = load_order(&["nosuch"], read).unwrap_err();
        assert_eq!(error.to_string(), "cannot read kernel module 'nosuch'");
    }

    #[test]
    fn endless_chains_are_refused() {
        assert!(matches!(load_order(&["long"], read), Err(ModuleError::TooDeep(_))));
    }
}
