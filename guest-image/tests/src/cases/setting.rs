// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Settings of the kernel that a test changes, and that are put back when it ends.

use std::fs;
use std::path::{Path, PathBuf};

/// A changed setting. Dropped, it has its old value again.
#[derive(Debug)]
pub struct Setting {
    path: PathBuf,
    before: String,
}

impl Setting {
    /// Writes a value to a file of sysfs or procfs.
    ///
    /// # Panics
    ///
    /// If the file cannot be read or written.
    pub fn set(path: impl Into<PathBuf>, value: &str) -> Self {
        let path = path.into();
        let text = read(&path);
        let setting = Self { before: chosen(&text).to_owned(), path };
        setting.change(value);
        setting
    }

    /// Writes another value.
    ///
    /// # Panics
    ///
    /// If the file cannot be written.
    pub fn change(&self, value: &str) {
        fs::write(&self.path, value)
            .unwrap_or_else(|error| panic!("cannot write {value:?} to {}: {error}", self.path.display()));
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        // A test that fails is to say why, not that this failed as well.
        let _ = fs::write(&self.path, &self.before);
    }
}

/// Sets how much memory a CPU fault brings back.
///
/// # Panics
///
/// As [`Setting::set`].
pub fn fault_chunk(bytes: usize) -> Setting {
    Setting::set("/sys/module/ersatz/parameters/fault_chunk", &bytes.to_string())
}

/// A number in a file of sysfs or procfs.
///
/// # Panics
///
/// If there is none.
pub fn number(path: impl AsRef<Path>) -> u64 {
    let path = path.as_ref();
    let text = read(path);
    text.trim().parse().unwrap_or_else(|error| panic!("{} holds {text:?}: {error}", path.display()))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// The value in what a file shows: the word in brackets where the file lists all that there are.
fn chosen(text: &str) -> &str {
    let bracketed = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    bracketed.map_or(text.trim(), |(word, _)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_of_a_list_is_the_word_in_brackets() {
        assert_eq!(chosen("always inherit [madvise] never\n"), "madvise");
        assert_eq!(chosen("100\n"), "100");
    }

    #[test]
    fn a_setting_is_put_back() {
        let path = std::env::temp_dir().join(format!("setting-{}", std::process::id()));
        fs::write(&path, "1\n").unwrap();
        let setting = Setting::set(&path, "2");
        assert_eq!(number(&path), 2);
        drop(setting);
        assert_eq!(number(&path), 1);
        fs::remove_file(&path).unwrap();
    }
}
