// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a GPU does wrong from its start on: the file of `--rules`.
//!
//! The file is TOML, in the words of [`ersatz_device_model::inject`]. It is read before anything else happens, and its content is part
//! of the GPU's description: no accelerator has to find the file again.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use ersatz_device_model::inject::{
    Breakpoint, Injector, MAX_BREAKPOINTS, MAX_RULES, PRESETS, Rule, RuleError, SetError, Timing,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use toml::Spanned;

/// Rules, breakpoints and a timing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct InjectionSpec {
    /// The rules, in their order.
    pub rules: Vec<Rule>,
    /// The breakpoints, in their order.
    pub breakpoints: Vec<Breakpoint>,
    /// How long work takes; `None` for as long as the host takes for it.
    pub timing: Option<Timing>,
}

/// Why a file is not one of rules.
#[derive(Debug, Error)]
pub enum RulesFileError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// It is too large.
    #[error("{0} has more than {max} bytes; give fewer rules", max = InjectionSpec::MAX_BYTES)]
    TooLarge(PathBuf),
    /// It is not understood.
    #[error("{path}, line {line}: {reason}")]
    Content {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, and what to write instead.
        reason: String,
    },
}

/// What a device refuses.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ApplyError {
    /// A rule.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// A breakpoint.
    #[error(transparent)]
    Breakpoint(#[from] SetError),
}

/// The file, as it is written.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct Document {
    rule: Vec<Spanned<Rule>>,
    breakpoint: Vec<Spanned<Breakpoint>>,
    timing: Option<Spanned<TimingTable>>,
}

/// A timing: that of a preset, with the fields that are given in place of its own.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct TimingTable {
    preset: Option<String>,
    link_bytes_per_second: Option<u64>,
    link_latency_ns: Option<u64>,
    engine_bytes_per_second: Option<u64>,
}

/// What is wrong, and where in the text, in bytes.
type Misplaced = (Option<Range<usize>>, String);

impl InjectionSpec {
    /// Size of the largest file, in bytes.
    pub const MAX_BYTES: u64 = 64 << 10;

    /// Reads a file.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be read, is larger than 64 KiB, or has anything that a device would refuse.
    pub fn read(path: &Path) -> Result<Self, RulesFileError> {
        let failed = |source| RulesFileError::Read { path: path.to_owned(), source };
        let mut text = String::new();
        let file = File::open(path).map_err(failed)?;
        file.take(Self::MAX_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
        Self::parse(path, &text)
    }

    /// Reads the text of a file; `path` is what errors name.
    ///
    /// # Errors
    ///
    /// Fails if the text is larger than 64 KiB, or has anything that a device would refuse.
    pub fn parse(path: &Path, text: &str) -> Result<Self, RulesFileError> {
        if text.len() as u64 > Self::MAX_BYTES {
            return Err(RulesFileError::TooLarge(path.to_owned()));
        }
        Self::of_text(text).map_err(|(span, reason)| {
            let before = span.and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = 1 + before.bytes().filter(|byte| *byte == b'\n').count();
            // One line, whatever the parser has to say.
            let reason = reason.lines().collect::<Vec<_>>().join("; ");
            RulesFileError::Content { path: path.to_owned(), line, reason }
        })
    }

    fn of_text(text: &str) -> Result<Self, Misplaced> {
        let document: Document = toml::from_str(text).map_err(|error| (error.span(), error.message().to_owned()))?;
        let rules = checked(document.rule, MAX_RULES, &RuleError::TooMany, Rule::check, |rule| &rule.name)?;
        let breakpoints =
            checked(document.breakpoint, MAX_BREAKPOINTS, &SetError::TooMany, Breakpoint::check, |breakpoint| {
                &breakpoint.name
            })?;
        let timing = document.timing.map(|table| {
            let span = table.span();
            table.into_inner().timing().map_err(|reason| (Some(span), reason))
        });
        Ok(Self { rules, breakpoints, timing: timing.transpose()? })
    }

    /// Makes a device do what this describes.
    ///
    /// # Errors
    ///
    /// Fails if the device refuses a part; the parts before it stay.
    pub fn apply(&self, injector: &Injector) -> Result<(), ApplyError> {
        if let Some(timing) = self.timing {
            injector.set_timing(timing);
        }
        for breakpoint in &self.breakpoints {
            injector.set_breakpoint(breakpoint.clone())?;
        }
        for rule in &self.rules {
            injector.add_rule(rule.clone())?;
        }
        Ok(())
    }
}

impl TimingTable {
    fn timing(self) -> Result<Timing, String> {
        let base = match &self.preset {
            None => Timing::default(),
            Some(name) => {
                PRESETS.iter().find(|preset| preset.name == name).map(|preset| preset.timing).ok_or_else(|| {
                    let names: Vec<_> = PRESETS.iter().map(|preset| preset.name).collect();
                    format!("there is no preset {name:?}; the presets are {}", names.join(", "))
                })?
            }
        };
        Ok(Timing {
            link_bytes_per_second: self.link_bytes_per_second.unwrap_or(base.link_bytes_per_second),
            link_latency_ns: self.link_latency_ns.unwrap_or(base.link_latency_ns),
            engine_bytes_per_second: self.engine_bytes_per_second.unwrap_or(base.engine_bytes_per_second),
        })
    }
}

/// Checks each of a list, that there are not more than `most`, and that no two have the same name.
fn checked<T, E: ToString>(
    list: Vec<Spanned<T>>,
    most: usize,
    too_many: &E,
    check: impl Fn(&T) -> Result<(), E>,
    name: impl Fn(&T) -> &String,
) -> Result<Vec<T>, Misplaced> {
    let mut names = HashSet::new();
    for (index, item) in list.iter().enumerate() {
        let misplaced = |reason| (Some(item.span()), reason);
        if index >= most {
            return Err(misplaced(too_many.to_string()));
        }
        check(item.get_ref()).map_err(|error| misplaced(error.to_string()))?;
        let name = name(item.get_ref());
        if !names.insert(name.clone()) {
            return Err(misplaced(format!("{name:?} is the name of an earlier one; choose another name")));
        }
    }
    Ok(list.into_iter().map(Spanned::into_inner).collect())
}

#[cfg(test)]
mod tests;
