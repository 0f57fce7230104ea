// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The scenarios to try: files that are named, or the museum of the clone.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ersatz_device_model::inject::Step as DeviceStep;
use ersatz_scenario::call::{Call, Hold, Point};
use ersatz_scenario::{Guest, ParseError, Scenario, Symptom, limits, parse};
use thiserror::Error;

use crate::cli::artifacts;
use crate::spec::{check_memory, check_vram};

/// Where the museum is, from the top of a clone.
const MUSEUM: &str = "guest-image/scenarios";
/// The ending of the files in it.
const ENDING: &str = "scenario";

/// A scenario and its text.
#[derive(Clone, Debug)]
pub struct Source {
    /// What is in it.
    pub text: String,
    /// What that means.
    pub scenario: Scenario,
}

impl Source {
    /// What it is expected to show on a kernel, each symptom once, in order.
    pub fn expected_on(&self, release: &str) -> Vec<Symptom> {
        let mut expected = self.scenario.expected_on(release);
        expected.sort_unstable();
        expected.dedup();
        expected
    }
}

/// Returns the scenario of a text that is not a file's.
///
/// # Errors
///
/// Fails if the text is not a scenario.
pub fn of_text(name: &str, text: String) -> Result<Source, ParseError> {
    let scenario = parse(name, &text)?;
    check_device_steps(&scenario)?;
    Ok(Source { text, scenario })
}

/// Checks that the device has the steps at which the scenario holds it. The guest, which reads the text as well, does not know them.
fn check_device_steps(scenario: &Scenario) -> Result<(), ParseError> {
    for step in scenario.sequences().flat_map(|sequence| sequence.steps) {
        let Call::Hold(Hold { point: Point::Device(name), .. }) = &step.call else { continue };
        let names: Vec<_> = DeviceStep::ALL.iter().map(|step| step.name()).collect();
        if !names.contains(&name.as_str()) {
            return Err(ParseError {
                scenario: scenario.name.clone(),
                line: step.line,
                word: Some(format!("device:{name}")),
                problem: "the device has no such step".to_owned(),
                expected: format!("device: with one of {}", names.join(", ")),
            });
        }
    }
    Ok(())
}

/// Why there is no scenario.
#[derive(Debug, Error)]
pub enum SourceError {
    /// A file that cannot be read.
    #[error("cannot read the scenario {}; name a file, or give --museum", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A text that is no scenario.
    #[error(transparent)]
    Malformed(ParseError),
    /// A guest that cannot be.
    #[error("{}: the guest cannot be so: {problem}", path.display())]
    Guest {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what instead.
        problem: String,
    },
    /// Neither the folder of the executable nor the current one is in a clone with a museum.
    #[error("there is no {MUSEUM} above the executable or the current folder; run --museum in a clone")]
    NoMuseum,
}

/// Returns the files of the museum, by name.
///
/// # Errors
///
/// Fails if there is no museum, or it cannot be read.
pub fn museum() -> Result<Vec<PathBuf>, SourceError> {
    let mut folders = artifacts::above(MUSEUM);
    let path = folders.find(|folder| folder.is_dir()).ok_or(SourceError::NoMuseum)?;
    let unreadable = |source| SourceError::Unreadable { path: path.clone(), source };
    let entries = fs::read_dir(&path).map_err(unreadable)?;
    let files =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    let mut files: Vec<_> =
        files.into_iter().filter(|file| file.extension().is_some_and(|ending| ending == ENDING)).collect();
    // a2 before a10.
    files.sort_by_key(|file| natural(&name(file)));
    Ok(files)
}

/// Reads a scenario.
///
/// # Errors
///
/// Fails if the file cannot be read, or is not a scenario.
pub fn read(path: &Path) -> Result<Source, SourceError> {
    let unreadable = |source| SourceError::Unreadable { path: path.to_owned(), source };
    // A longer text is refused by the parser: one byte more than it takes is enough to know.
    let limit = u64::try_from(limits::TEXT_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let mut text = String::new();
    File::open(path).and_then(|file| file.take(limit).read_to_string(&mut text)).map_err(unreadable)?;
    let Source { text, scenario } = of_text(&name(path), text)
        .map_err(|error| SourceError::Malformed(ParseError { scenario: path.display().to_string(), ..error }))?;
    let Guest { vram, ram, .. } = &scenario.guest;
    vram.map_or(Ok(()), check_vram)
        .and(ram.map_or(Ok(()), check_memory))
        .map_err(|problem| SourceError::Guest { path: path.to_owned(), problem })?;
    Ok(Source { text, scenario })
}

/// The name of the scenario in a file.
fn name(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// A name as letters and numbers, for an order in which numbers count.
fn natural(name: &str) -> Vec<(String, u64)> {
    let mut parts = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (word, after) = rest.split_at(letters);
        let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        let (number, after) = after.split_at(digits);
        parts.push((word.to_owned(), number.parse().unwrap_or(0)));
        rest = after;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_the_device_does_not_have_is_no_place_to_hold_it() {
        let text = |step: &str| {
            format!("guest vram=64M\nsetup\n  map r 32K\nthread t\n  hold device:{step}\n  migrate r to-device\n")
        };
        let error = of_text("s", text("before-fence-of")).unwrap_err();
        assert_eq!((error.line, error.word.as_deref()), (5, Some("device:before-fence-of")));
        assert!(error.to_string().contains("before-fence, "), "{error}");
        of_text("s", text("before-fence")).unwrap();
    }

    #[test]
    fn a_file_that_is_missing_is_named() {
        let error = read(Path::new("/no/such/scenario")).unwrap_err();
        assert!(error.to_string().contains("/no/such/scenario"), "{error}");
    }

    #[test]
    fn a_text_that_is_no_scenario_is_refused_by_file_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |text: &str| {
            let path = folder.path().join("x.scenario");
            fs::write(&path, text).unwrap();
            let error = read(&path).unwrap_err().to_string();
            error.strip_prefix(&path.display().to_string()).map(str::to_owned).expect("the file comes first")
        };
        assert!(refused("\nsetup\n  mapp r 4K\n").starts_with(":3: \"mapp\": "));
        assert!(refused("guest vram=3M\n").contains("power of two"));
        assert!(refused("guest ram=1M\n").contains("128M"));
        assert!(refused(&"#".repeat(limits::TEXT_BYTES + 2)).contains("bytes"));
    }

    #[test]
    fn numbers_in_names_count() {
        let mut names = ["a10", "b1", "a2", "a2-more", "c"];
        names.sort_by_key(|name| natural(name));
        assert_eq!(names, ["a2", "a2-more", "a10", "b1", "c"]);
    }
}
