// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The kernel's own tests of device memory, `hmm-tests`: built unchanged from the source package of the same kernel, and listed.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::packages::KernelPackages;
use crate::fingerprint::Inputs;
use crate::progress::Progress;
use crate::step::{Step, Work};
use crate::store::Store;
use crate::toolchain::{Mount, Toolchain};

/// `$1` is the series. The source and all that it includes: the harness, the helpers of its neighbours, the ioctls of the test drivers.
/// The prepared tree for modules has no `tools/testing`.
const UNPACK: &str = r#"
mkdir /mnt/work/source
cd /mnt/work/source
set -- "linux-source-$1.tar.xz" "linux-source-$1"
xz -dc -T0 "/mnt/packages/usr/src/$1" | tar -x --strip-components=1 --wildcards \
    "$2/tools/testing/selftests/*.h" "$2/tools/testing/selftests/mm/*.[ch]" "$2/lib/test_hmm_uapi.h" "$2/mm/gup_test.h"
"#;

/// The flags are those of the kernel's own Makefile, apart from the static linking.
const COMPILE: &str = r#"
cd /mnt/work/source/tools/testing/selftests/mm
x86_64-linux-gnu-gcc-14 -O2 -U_FORTIFY_SOURCE -static -s -I /mnt/work/source -I .. \
    hmm-tests.c vm_util.c hugepage_settings.c -o /mnt/work/hmm-tests -lrt -lpthread -lm
rm -r /mnt/work/source
"#;

/// Prints the list of tests, which goes to the standard error, with the exit status of a skipped test. Before its list the program
/// sets huge pages aside; where the size of these cannot be read it does not, and this machine's are left as they are.
const LIST: &str = r#"
mount --bind /dev/null /proc/meminfo
/mnt/work/hmm-tests -l 2>&1 || [ $? = 4 ]
"#;

/// The name of the program in its folder.
const PROGRAM: &str = "hmm-tests";

/// The name of the list beside it.
const NAMES: &str = "names";

/// Where the columns of the list begin: fixture, variant, test.
const COLUMNS: [usize; 3] = [0, 21, 47];

/// The program, and the names of its tests.
#[derive(Clone, Debug)]
pub struct HmmTests {
    /// The program, statically linked.
    pub program: PathBuf,
    /// The list of names, `FIXTURE.VARIANT.TEST`, one per line in the order in which they run.
    pub names: PathBuf,
}

impl HmmTests {
    /// Builds the program in the cache.
    pub fn prepare(
        cache: &Store,
        progress: &Progress,
        toolchain: &Toolchain,
        packages: &KernelPackages,
    ) -> Result<Self> {
        let inputs = Inputs::of("hmm-tests", &[UNPACK, COMPILE, LIST].concat());
        let fingerprint = inputs.step(&toolchain.fingerprint).step(&packages.fingerprint).fingerprint();
        let step = Step {
            store: cache,
            name: format!("hmm-tests-{}-{}", packages.kernel.series, fingerprint.short()),
            title: "the kernel's tests of device memory",
            inputs: fingerprint,
            advice: "run `cargo xtask clean` and the same command again",
        };
        let folder = step.run(progress, |work| make(work, toolchain, packages))?;
        Ok(Self { program: folder.join(PROGRAM), names: folder.join(NAMES) })
    }
}

fn make(work: &Work<'_>, toolchain: &Toolchain, packages: &KernelPackages) -> Result<()> {
    let unpacked = packages.unpacked();
    let mounts = [Mount::write("work", &work.folder), Mount::read("packages", &unpacked)];
    work.stage.at("unpacking the source");
    work.log.run("unpacking", &mut toolchain.shell(&mounts, UNPACK, &[&packages.kernel.series]))?;
    work.stage.at("compiling");
    work.log.run("gcc", &mut toolchain.shell(&mounts, COMPILE, &[]))?;
    let list = work.log.output("hmm-tests -l", &mut toolchain.shell(&mounts, LIST, &[]))?;
    let names = names(&list);
    ensure!(!names.is_empty(), "hmm-tests -l has no test:\n{list}");
    fs::write(work.folder.join(NAMES), names.join("\n") + "\n").context("cannot write the list of tests")
}

/// Returns the names of the tests: each test of a fixture in each of its variants. The list has the variants of a fixture and its tests
/// side by side, one a row, whichever there are more of.
fn names(list: &str) -> Vec<String> {
    let mut fixtures: Vec<(&str, Vec<&str>, Vec<&str>)> = Vec::new();
    for line in list.lines().filter(|line| !line.starts_with(['#', '-'])) {
        let [fixture, variant, test] = columns(line);
        if !fixture.is_empty() {
            fixtures.push((fixture, Vec::new(), Vec::new()));
        }
        let Some((_, variants, tests)) = fixtures.last_mut() else { continue };
        variants.extend((!variant.is_empty()).then_some(variant));
        tests.extend((!test.is_empty()).then_some(test));
    }
    let names = fixtures.into_iter().flat_map(|(fixture, variants, tests)| {
        let of_variant =
            move |variant| tests.clone().into_iter().map(move |test| format!("{fixture}.{variant}.{test}"));
        variants.into_iter().flat_map(of_variant)
    });
    names.collect()
}

fn columns(line: &str) -> [&str; 3] {
    let [first, second, third] = COLUMNS;
    let column = |from: usize, to: usize| line.get(from..to.min(line.len())).unwrap_or_default().trim();
    [column(first, second), column(second, third), column(third, line.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_variant_has_each_test() {
        let row = |fixture: &str, variant: &str, test: &str| format!("{fixture:20} {variant:25} {test}\n");
        let list = [
            row("# FIXTURE", "VARIANT", "TEST"),
            row("global", "", ""),
            "-".repeat(80) + "\n",
            row("one", "a", "first"),
            row("", "b", "second"),
            row("", "", "third"),
            "-".repeat(80) + "\n",
            row("two", "c", "first"),
            row("", "d", ""),
        ];
        let expected = ["one.a.first", "one.a.second", "one.a.third", "one.b.first", "one.b.second", "one.b.third"];
        assert_eq!(names(&list.concat()), [&expected[..], &["two.c.first", "two.d.first"]].concat());
    }

    #[test]
    fn a_list_of_nothing_has_no_names() {
        assert!(names("").is_empty() && names("an error\n").is_empty());
    }
}
