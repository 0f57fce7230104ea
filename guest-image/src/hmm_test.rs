// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Names of the kernel's own tests of device memory: `hmm-tests.FIXTURE.VARIANT.TEST` on the command line and in reports, without the
//! first part in their harness.

/// The first part of all names.
pub const SUITE: &str = "hmm-tests";

/// The memory type that a test is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Memory that the CPU cannot touch.
    Private,
    /// Memory that the CPU uses in place.
    Coherent,
}

/// Returns the name as the harness has it.
pub fn in_harness(name: &str) -> &str {
    name.strip_prefix(SUITE).and_then(|rest| rest.strip_prefix('.')).unwrap_or(name)
}

/// Returns the memory type that a test is about, as the name of its variant ends; `None` if it does not say.
pub fn memory(name: &str) -> Option<Memory> {
    let variant = in_harness(name).split('.').nth(1)?;
    if variant.ends_with("_device_private") {
        Some(Memory::Private)
    } else if variant.ends_with("_device_coherent") {
        Some(Memory::Coherent)
    } else {
        None
    }
}

/// Whether it measures, for minutes, and tests nothing.
pub fn is_benchmark(name: &str) -> bool {
    name.rsplit('.').next().is_some_and(|test| test.contains("benchmark"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_their_parts() {
        let name = "hmm-tests.hmm2.hmm2_device_coherent.snapshot";
        assert_eq!(in_harness(name), "hmm2.hmm2_device_coherent.snapshot");
        assert_eq!(in_harness("hmm.x.y"), "hmm.x.y");
        assert_eq!(memory(name), Some(Memory::Coherent));
        assert_eq!(memory("hmm-tests.hmm.hmm_device_private.migrate"), Some(Memory::Private));
        assert_eq!(memory("hmm.other.migrate"), None);
        assert!(is_benchmark("hmm.hmm_device_private.benchmark_thp_migration") && !is_benchmark(name));
    }
}
