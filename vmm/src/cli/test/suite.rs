// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The two suites: this project's guest-side tests, and the kernel's own tests of device memory, `hmm-tests`. Filters that begin with
//! the name of the second select from that, and from nothing else.

use clap::ValueEnum;
use ersatz_guest_image::hmm_test::{self, Memory};
use ersatz_guest_image::initramfs::Archive;
use ersatz_guest_image::run::{HMM_TESTS_PATH, NO_DRIVER_PATH, TEST_DRIVER_PATH, append};
use thiserror::Error;

use super::{LIMIT, TestOptions};
use crate::cli::CommandError;
use crate::cli::guest::{Guest, Mode};

/// The GPUs of a guest for `hmm-tests`: some of them migrate from one device to another, and those of the coherent type use a private one, too.
const DEVICES: u8 = 4;

/// Their memory types, with this driver.
const MODES: [Mode; DEVICES as usize] = [Mode::Private, Mode::Private, Mode::Coherent, Mode::Coherent];

/// The parameter by which the driver offers the devices of the kernel's test driver, as a word of the kernel command line.
const DRIVER_WORD: &str = "ersatz.hmm_dmirror=1";

/// The driver that `hmm-tests` are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Driver {
    /// This project's driver.
    Ersatz,
    /// The kernel's own test driver, whose device is simulated in the kernel.
    #[value(name = "test_hmm")]
    TestHmm,
}

impl Driver {
    /// Returns the name, as the command line and the program in the guest spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ersatz => "ersatz",
            Self::TestHmm => "test_hmm",
        }
    }
}

/// A suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// The guest-side tests.
    Guest,
    /// The kernel's tests, with the driver that they are about.
    Hmm(Driver),
}

/// Why options do not name one suite.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SuiteError {
    /// Filters of both.
    #[error(
        "{} run in a guest of their own; give filters that begin with `{}` in a command of their own",
        hmm_test::SUITE,
        hmm_test::SUITE
    )]
    Both,
    /// A driver for tests that have no choice.
    #[error("--driver is for the kernel's own tests: type `ersatz test {} --driver {}`", hmm_test::SUITE, .0.name())]
    Driver(Driver),
    /// An initramfs of the user's own.
    #[error("{} come with the built guest; leave out --initramfs", hmm_test::SUITE)]
    Initramfs,
}

impl Suite {
    /// Returns the suite that the options name.
    ///
    /// # Errors
    ///
    /// Fails if they name both, or have something that the suite does not.
    pub fn of(options: &TestOptions) -> Result<Self, SuiteError> {
        // A regular expression may begin with it, too.
        let is_of_hmm = |filter: &str| filter.trim_start_matches(['/', '^']).starts_with(hmm_test::SUITE);
        let filters = || options.selection.filters();
        match (filters().any(is_of_hmm), options.driver) {
            (false, Some(driver)) => Err(SuiteError::Driver(driver)),
            (false, None) => Ok(Self::Guest),
            _ if !filters().all(is_of_hmm) => Err(SuiteError::Both),
            _ if options.guest.initramfs.is_some() => Err(SuiteError::Initramfs),
            (_, driver) => Ok(Self::Hmm(driver.unwrap_or(Driver::Ersatz))),
        }
    }

    /// Whether a test is one to run with GPUs of this memory type.
    pub fn has(self, name: &str, mode: Mode) -> bool {
        let memory = match mode {
            Mode::Private => Memory::Private,
            Mode::Coherent => Memory::Coherent,
        };
        self == Self::Guest || (hmm_test::memory(name) == Some(memory) && !hmm_test::is_benchmark(name))
    }

    /// Returns the guest in which the suite's program runs with `words`.
    ///
    /// # Errors
    ///
    /// Fails if the options do not describe a guest, or something was not built.
    pub fn guest(self, options: &TestOptions, mode: Mode, words: &[String]) -> Result<Guest, CommandError> {
        let kernel = options.kernel.kernel.as_ref();
        let Self::Hmm(driver) = self else { return Ok(options.guest.guest(kernel, &[mode], Some(words), LIMIT)?) };
        let mut of_guest = options.guest.clone();
        of_guest.devices = of_guest.devices.max(DEVICES);
        let mut modes = &[mode][..];
        if driver == Driver::Ersatz {
            modes = &MODES;
            let given = of_guest.kernel_args.unwrap_or_default();
            of_guest.kernel_args = Some(format!("{DRIVER_WORD} {given}"));
        }
        let mut guest = of_guest.guest(kernel, modes, Some(words), LIMIT)?;
        let manifest = guest.manifest.as_ref().ok_or("no built guest, which has the kernel's tests, was found")?;
        let mut archive = Archive::new();
        let mut add = |place, mode, file| {
            archive.file_from(place, mode, file).map(|_| ()).map_err(|error| {
                format!("{error}; it is one of the kernel's own tests and drivers: run `cargo xtask build` again")
            })
        };
        add(HMM_TESTS_PATH, 0o755, &manifest.hmm_tests)?;
        if driver == Driver::TestHmm {
            add(TEST_DRIVER_PATH, 0o644, &manifest.test_driver)?;
            archive.file(NO_DRIVER_PATH, 0o644, "")?;
        }
        append(&mut guest.spec.run.request, &archive.to_bytes()?);
        Ok(guest)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: TestOptions,
    }

    fn suite(words: &str) -> Result<Suite, SuiteError> {
        let words = std::iter::once("test").chain(words.split_whitespace());
        Suite::of(&Line::try_parse_from(words).expect("good options").options)
    }

    #[test]
    fn filters_that_begin_with_its_name_select_the_kernels_tests() {
        for words in ["", "fork", "hmm", "/^fork|hmm-tests/"] {
            assert_eq!(suite(words), Ok(Suite::Guest), "{words}");
        }
        for words in ["hmm-tests", "hmm-tests.hmm.*.migrate*", "/^hmm-tests.*fork/", "hmm-tests --driver ersatz"] {
            assert_eq!(suite(words), Ok(Suite::Hmm(Driver::Ersatz)), "{words}");
        }
        assert_eq!(suite("hmm-tests --driver test_hmm"), Ok(Suite::Hmm(Driver::TestHmm)));
        assert_eq!(suite("hmm-tests fork"), Err(SuiteError::Both));
        assert_eq!(suite("fork --driver test_hmm"), Err(SuiteError::Driver(Driver::TestHmm)));
    }

    #[test]
    fn each_memory_type_has_its_variants_and_no_benchmark() {
        let suite = Suite::Hmm(Driver::Ersatz);
        assert!(suite.has("hmm-tests.hmm.hmm_device_private.migrate", Mode::Private));
        assert!(!suite.has("hmm-tests.hmm.hmm_device_private.migrate", Mode::Coherent));
        assert!(!suite.has("hmm-tests.hmm.hmm_device_private.benchmark_thp_migration", Mode::Private));
        assert!(Suite::Guest.has("fork.exec", Mode::Coherent));
    }
}
