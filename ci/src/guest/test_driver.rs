// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The kernel's own test driver of device memory, `test_hmm`, for benchmarks to compare ours with. Distributions do not ship it;
//! it is built out of tree, from the kernel's source of the same version.

use std::path::PathBuf;

use anyhow::Result;

use crate::fingerprint::Inputs;
use crate::kernel::GuestKernel;
use crate::progress::Progress;
use crate::step::Step;
use crate::store::Store;
use crate::toolchain::{Mount, Toolchain};

/// `$1` is the release; further arguments are variables for make.
const MAKE: &str = r#"
release=$1; shift
mkdir /mnt/work/build
cd /mnt/work/build
cp /mnt/linux/lib/test_hmm.c /mnt/linux/lib/test_hmm_uapi.h .
echo 'obj-m := test_hmm.o' > Kbuild
make -C /mnt/linux M=/mnt/work/build "KERNELRELEASE=$release" "$@" modules
x86_64-linux-gnu-strip --strip-debug -o ../test_hmm.ko test_hmm.ko
rm -r /mnt/work/build
"#;

/// Builds the module and returns its file.
pub fn build(store: &Store, progress: &Progress, toolchain: &Toolchain, kernel: &GuestKernel) -> Result<PathBuf> {
    let tree = &kernel.tree;
    let script = format!("{}{MAKE}", tree.compiler.environment());
    let step = Step {
        store,
        name: "test-driver".to_owned(),
        title: "the kernel's test driver",
        inputs: Inputs::of("test driver", &script).text(&kernel.release).step(&tree.fingerprint).fingerprint(),
        advice: "run `cargo xtask clean` and the same command again",
    };
    let folder = step.run(progress, |work| {
        let mut mounts = vec![Mount::read("linux", &tree.folder), Mount::write("work", &work.folder)];
        mounts.extend(tree.compiler.mount());
        let arguments = [&[kernel.release.as_str()], tree.compiler.make_variables()].concat();
        work.log.run("make", &mut toolchain.shell(&mounts, &script, &arguments))
    })?;
    Ok(folder.join("test_hmm.ko"))
}
