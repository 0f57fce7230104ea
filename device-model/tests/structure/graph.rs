// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which file of a crate needs which other one, and the circles among them.
//!
//! A file needs the files that its paths lead to. It may always name what its ancestors declare: these are divided into
//! it. A name that an ancestor only imports leads to where it comes from.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::code;

/// A module by its path from the root, which is empty.
type Module = Vec<String>;

/// The files of a crate.
pub struct Crate {
    paths: BTreeMap<Module, Vec<code::Path>>,
}

impl Crate {
    /// Reads a crate from its root file.
    pub fn read(root: &Path) -> Self {
        let mut read = Self { paths: BTreeMap::new() };
        let folder = root.parent().expect("a root file is in a folder");
        read.add(root, Vec::new(), folder);
        read
    }

    fn add(&mut self, file: &Path, module: Module, folder: &Path) {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let code = code::of(&text);
        self.paths.insert(module.clone(), code::paths(&code));
        for name in code::modules(&code) {
            let below = folder.join(&name);
            let files: [PathBuf; 2] = [folder.join(format!("{name}.rs")), below.join("mod.rs")];
            let file = files.iter().find(|file| file.exists());
            let file = file.unwrap_or_else(|| panic!("{}: no file of module {name}", folder.display()));
            self.add(file, [module.clone(), vec![name]].concat(), &below);
        }
    }

    /// The modules with a file of their own.
    pub fn modules(&self) -> impl Iterator<Item = &[String]> {
        self.paths.keys().map(Vec::as_slice)
    }

    /// Every path in the files.
    pub fn all_paths(&self) -> impl Iterator<Item = (&[String], &code::Path)> {
        self.paths.iter().flat_map(|(module, paths)| paths.iter().map(|path| (module.as_slice(), path)))
    }

    /// The modules whose files the file of a module needs.
    pub fn needs(&self, module: &[String]) -> Modules<'_> {
        let paths = self.paths.get(module).into_iter().flatten();
        paths.filter_map(|path| self.target(module, module, &path.segments, 0)).collect()
    }

    /// Where a path in a module leads, on behalf of a file; `None` if that is the file itself, an ancestor, or no file here.
    fn target(&self, file: &[String], module: &[String], segments: &[String], hops: u8) -> Option<&[String]> {
        let mut segments = segments;
        let mut at = module.to_vec();
        match segments.first()?.as_str() {
            "crate" => (at, segments) = (Vec::new(), &segments[1..]),
            "self" => segments = &segments[1..],
            "super" => {
                while segments.first().is_some_and(|segment| segment == "super") {
                    at.pop();
                    segments = &segments[1..];
                }
            }
            first => {
                at.push(first.to_owned());
                if !self.paths.contains_key(&at) {
                    return None;
                }
                segments = &segments[1..];
            }
        }
        while let Some(next) = segments.first() {
            at.push(next.clone());
            if !self.paths.contains_key(&at) {
                at.pop();
                break;
            }
            segments = &segments[1..];
        }
        let (found, _) = self.paths.get_key_value(&at)?;
        if !file.starts_with(found) {
            return Some(found);
        }
        // Twice is enough for names that are imported to be imported again, and ends where imports go round.
        let name = segments.first().filter(|_| hops < 2 && found.as_slice() != module)?;
        let import = self.paths[found].iter().find(|path| path.imported_as.as_ref() == Some(name))?;
        self.target(file, found, &import.segments, hops + 1)
    }

    /// The circles: sets of modules whose files need each other.
    pub fn circles(&self) -> Vec<BTreeSet<String>> {
        let needs: BTreeMap<_, _> = self.modules().map(|module| (module, self.needs(module))).collect();
        let reached: BTreeMap<_, _> = needs.keys().map(|module| (*module, reached_from(module, &needs))).collect();
        let mut circles = BTreeSet::new();
        for (module, reached_from) in &reached {
            if reached_from.contains(module) {
                let circle = reached_from.iter().filter(|other| reached[*other].contains(module));
                circles.insert(circle.map(|module| module.join("::")).collect());
            }
        }
        circles.into_iter().collect()
    }
}

type Modules<'a> = BTreeSet<&'a [String]>;

/// The modules whose files a file needs, itself or by way of others.
fn reached_from<'a>(module: &[String], needs: &BTreeMap<&'a [String], Modules<'a>>) -> Modules<'a> {
    let mut reached = Modules::new();
    let mut next: Vec<_> = needs[module].iter().copied().collect();
    while let Some(module) = next.pop() {
        if reached.insert(module) {
            next.extend(needs[module].iter().copied());
        }
    }
    reached
}

#[test]
fn what_a_circle_is() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("parent")).unwrap();
    for (file, text) in [
        ("lib.rs", "mod first; mod second; mod third; mod alone; mod parent; use third::Third;"),
        ("first.rs", "use crate::{second::Second, Third};"),
        ("second.rs", "fn of(first: super::first::First) {}"),
        ("third.rs", "fn of() { crate::first::of() }"),
        ("alone.rs", "use crate::parent::{self, Child}; // use crate::first::First;"),
        ("parent.rs", "mod child; pub use child::Child; struct Parent;"),
        ("parent/child.rs", "use super::Parent; #[cfg(test)] mod tests { use crate::alone::Alone; }"),
    ] {
        fs::write(folder.path().join(file), text).unwrap();
    }
    let read = Crate::read(&folder.path().join("lib.rs"));
    let circle: BTreeSet<_> = ["first", "second", "third"].map(str::to_owned).into();
    assert_eq!(read.circles(), [circle], "one of them by a name that the root imports");
    let needed: Vec<_> = read.needs(&["alone".to_owned()]).into_iter().map(|module| module.join("::")).collect();
    assert_eq!(needed, ["parent"]);
}
