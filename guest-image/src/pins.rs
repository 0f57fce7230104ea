// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which stock kernels a guest runs: the pins of `kernels.toml`, and what takes a pin's place when it has vanished.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The pins of the repository.
const PINS: &str = include_str!("../kernels.toml");

/// The packages of a stock kernel, by the part of their names before the release.
pub const PARTS: [&str; 4] = ["linux-binary-", "linux-modules-", "linux-base-", "linux-headers-"];

/// The content of `kernels.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pins {
    /// Where packages come from.
    pub distribution: Distribution,
    /// One pin a series, the default first.
    #[serde(rename = "kernel")]
    kernels: Vec<Kernel>,
}

/// The suites of the distribution.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distribution {
    /// Gives the toolchain.
    pub suite: String,
    /// Gives the kernels and QEMU.
    pub backports: String,
}

/// One build of a stock kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// The first two numbers of the version, such as `7.2`.
    pub series: String,
    /// The release, as `uname -r` prints it.
    pub release: String,
    /// The version of its packages and of the source package.
    pub version: String,
}

/// Why no kernel can be chosen.
#[derive(Debug, Error)]
pub enum PinError {
    /// The file cannot be parsed.
    #[error("guest-image/kernels.toml cannot be parsed")]
    Parse(#[from] toml::de::Error),
    /// The file pins nothing.
    #[error("guest-image/kernels.toml has no [[kernel]]: pin at least one")]
    Empty,
    /// A release does not belong to its series.
    #[error("guest-image/kernels.toml pins release {release} in series {series}: it must start with '{series}.'")]
    WrongSeries {
        /// The series.
        series: String,
        /// The release.
        release: String,
    },
    /// No such series is pinned.
    #[error("no kernel of series {asked} is pinned; there is {known}")]
    UnknownSeries {
        /// What was asked for.
        asked: String,
        /// The series there are.
        known: String,
    },
    /// The package index has no kernel of that series.
    #[error(
        "the package index has no complete set of packages ({parts}*) for any {flavour} kernel of series {series}: pin a \
         newer series in guest-image/kernels.toml"
    )]
    SeriesVanished {
        /// The series.
        series: String,
        /// The flavour.
        flavour: String,
        /// The packages a set consists of.
        parts: String,
    },
}

/// The kernel to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The pinned one is there.
    Pinned(Kernel),
    /// It has vanished; this is the newest of its series.
    Newest(Kernel),
}

impl Pins {
    /// The pins of this repository.
    ///
    /// # Errors
    ///
    /// Fails if the file is wrong.
    pub fn load() -> Result<Self, PinError> {
        Self::parse(PINS)
    }

    /// Reads pins from the text of a `kernels.toml`.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be understood, pins nothing, or a release does not belong to its series.
    pub fn parse(text: &str) -> Result<Self, PinError> {
        let pins: Self = toml::from_str(text)?;
        if pins.kernels.is_empty() {
            return Err(PinError::Empty);
        }
        for Kernel { series, release, .. } in &pins.kernels {
            if release.strip_prefix(series).is_none_or(|rest| !rest.starts_with('.')) {
                return Err(PinError::WrongSeries { series: series.clone(), release: release.clone() });
            }
        }
        Ok(pins)
    }

    /// The series that are pinned, the default first.
    pub fn series(&self) -> impl Iterator<Item = &str> {
        self.kernels.iter().map(|kernel| kernel.series.as_str())
    }

    /// The pin of a series, or of the default one.
    ///
    /// # Errors
    ///
    /// Fails if no such series is pinned.
    pub fn kernel(&self, series: Option<&str>) -> Result<&Kernel, PinError> {
        let mut kernels = self.kernels.iter();
        match series {
            None => kernels.next().ok_or(PinError::Empty),
            Some(asked) => kernels.find(|kernel| kernel.series == asked).ok_or_else(|| PinError::UnknownSeries {
                asked: asked.to_owned(),
                known: self.series().collect::<Vec<_>>().join(", "),
            }),
        }
    }
}

impl Kernel {
    /// The flavour: the part after the last `-` of the release.
    pub fn flavour(&self) -> &str {
        self.release.rsplit_once('-').map_or("", |(_, flavour)| flavour)
    }

    /// The name of the source package.
    pub fn source_package(&self) -> String {
        format!("linux-source-{}", self.series)
    }

    /// All packages, with their versions, in the form apt takes them.
    pub fn packages(&self) -> Vec<String> {
        let parts = PARTS.iter().map(|part| format!("{part}{}", self.release));
        parts.chain([self.source_package()]).map(|name| format!("{name}={}", self.version)).collect()
    }

    /// Chooses between this pin and what the package index has, given as lines of `package | version | source` (the
    /// output of `apt-cache madison`). Only a build all of whose packages have one version can be chosen.
    ///
    /// # Errors
    ///
    /// Fails if no build of the series is complete.
    pub fn choose(&self, index: &str) -> Result<Choice, PinError> {
        let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for line in index.lines() {
            let mut fields = line.split('|').map(str::trim);
            if let (Some(package), Some(version)) = (fields.next(), fields.next()) {
                versions.entry(package).or_default().insert(version);
            }
        }
        let has = |package: &str, version: &str| versions.get(package).is_some_and(|all| all.contains(version));
        let complete = |kernel: &Kernel| {
            PARTS.iter().all(|part| has(&format!("{part}{}", kernel.release), &kernel.version))
                && has(&kernel.source_package(), &kernel.version)
        };
        if complete(self) {
            return Ok(Choice::Pinned(self.clone()));
        }
        let releases = versions.iter().filter_map(|(package, all)| Some((package.strip_prefix(PARTS[0])?, all)));
        let candidates = releases.flat_map(|(release, all)| {
            all.iter().map(|version| Kernel {
                series: self.series.clone(),
                release: release.to_owned(),
                version: (*version).to_owned(),
            })
        });
        let same_kind = |kernel: &Kernel| {
            kernel.release.starts_with(&format!("{}.", self.series)) && kernel.flavour_after(self) && complete(kernel)
        };
        candidates.filter(same_kind).max_by_key(Kernel::age).map(Choice::Newest).ok_or_else(|| {
            PinError::SeriesVanished {
                series: self.series.clone(),
                flavour: self.flavour().to_owned(),
                parts: PARTS.join("*, "),
            }
        })
    }

    /// Whether what follows the version number in the release is the same as in `pin`: `+deb13-amd64` is one flavour,
    /// `+deb13-cloud-amd64` another.
    fn flavour_after(&self, pin: &Kernel) -> bool {
        let tail = |release: &str| release.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').to_owned();
        tail(&self.release) == tail(&pin.release)
    }

    /// All numbers in release and version, in order: of two builds of a series and flavour the newer has the greater.
    fn age(&self) -> Vec<u64> {
        let numbers = |text: &str| -> Vec<u64> {
            text.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
        };
        [numbers(&self.release), numbers(&self.version)].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The index lines of one complete build.
    fn build(release: &str, version: &str) -> String {
        PARTS.iter().map(|part| format!("{part}{release} | {version} | mirror Packages\n")).collect()
    }

    fn source(version: &str) -> String {
        format!("linux-source-7.2 | {version} | mirror Packages\n")
    }

    fn pin() -> Kernel {
        Kernel { series: "7.2".into(), release: "7.2.12+deb13-amd64".into(), version: "7.2.12-1~bpo13+1".into() }
    }

    #[test]
    fn the_pins_of_the_repository_are_sound() {
        let pins = Pins::load().unwrap();
        let default = pins.kernel(None).unwrap();
        assert_eq!(pins.kernel(Some(&default.series)).unwrap(), default);
        assert_eq!(default.flavour(), "amd64");
        assert!(matches!(pins.kernel(Some("2.6")), Err(PinError::UnknownSeries { .. })));
    }

    #[test]
    fn wrong_pins_are_refused() {
        let head = "[distribution]\nsuite = \"s\"\nbackports = \"b\"\n";
        assert!(matches!(Pins::parse("kernel"), Err(PinError::Parse(_))));
        assert!(matches!(Pins::parse(&format!("kernel = []\n{head}")), Err(PinError::Empty)));
        let pinned = |series: &str| {
            format!("{head}[[kernel]]\nseries = \"{series}\"\nrelease = \"7.21.1-amd64\"\nversion = \"7.21.1-1\"\n")
        };
        assert!(Pins::parse(&pinned("7.21")).is_ok());
        assert!(matches!(Pins::parse(&pinned("7.2")), Err(PinError::WrongSeries { .. })));
        assert!(matches!(Pins::parse(&(pinned("7.21") + "typo = 1\n")), Err(PinError::Parse(_))));
    }

    #[test]
    fn the_pinned_build_is_taken_while_it_is_there() {
        let index = build("7.2.14+deb13-amd64", "7.2.14-1~bpo13+1")
            + &build("7.2.12+deb13-amd64", "7.2.12-1~bpo13+1")
            + &source("7.2.14-1~bpo13+1")
            + &source("7.2.12-1~bpo13+1");
        assert_eq!(pin().choose(&index).unwrap(), Choice::Pinned(pin()));
    }

    #[test]
    fn a_vanished_pin_gives_way_to_the_newest_complete_build() {
        let index = build("7.2.9+deb13-amd64", "7.2.9-1~bpo13+1")
            + &build("7.2.14+deb13-amd64", "7.2.14-1~bpo13+1")
            + &build("7.2.15+deb13-cloud-amd64", "7.2.15-1~bpo13+1") // another flavour
            + &build("7.2.16+deb13-amd64", "7.2.16-1~bpo13+1") // no source for it
            + &build("7.20.1+deb13-amd64", "7.20.1-1~bpo13+1") // another series
            + &source("7.2.9-1~bpo13+1")
            + &source("7.2.14-1~bpo13+1")
            + &source("7.2.15-1~bpo13+1")
            + &source("7.20.1-1~bpo13+1");
        let newest = Kernel { release: "7.2.14+deb13-amd64".into(), version: "7.2.14-1~bpo13+1".into(), ..pin() };
        assert_eq!(pin().choose(&index).unwrap(), Choice::Newest(newest));
    }

    #[test]
    fn a_build_with_a_part_missing_is_not_complete() {
        let whole = build("7.2.12+deb13-amd64", "7.2.12-1~bpo13+1") + &source("7.2.12-1~bpo13+1");
        for skipped in 0..whole.lines().count() {
            let index: Vec<&str> =
                whole.lines().enumerate().filter(|(at, _)| *at != skipped).map(|(_, line)| line).collect();
            let choice = pin().choose(&index.join("\n"));
            assert!(matches!(choice, Err(PinError::SeriesVanished { .. })), "{skipped}: {choice:?}");
        }
    }

    #[test]
    fn packages_are_named_with_their_version() {
        let packages = pin().packages();
        assert_eq!(packages.len(), PARTS.len() + 1);
        assert!(packages.contains(&"linux-source-7.2=7.2.12-1~bpo13+1".to_owned()));
        assert!(packages.contains(&"linux-binary-7.2.12+deb13-amd64=7.2.12-1~bpo13+1".to_owned()));
    }
}
