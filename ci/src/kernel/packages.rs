// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The stock kernel's packages: chosen, fetched (apt checks their signatures), unpacked, and the kernel decompressed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ersatz_guest_image::bzimage;
use ersatz_guest_image::pins::{Choice, Kernel, PARTS};

use crate::fingerprint::{Fingerprint, Inputs};
use crate::progress::Progress;
use crate::step::{Step, Work};
use crate::store::Store;
use crate::toolchain::{Mount, Toolchain};

/// Fresh package lists, kept out of the toolchain root.
pub const UPDATE: &str = r#"
mkdir -p /mnt/work/apt/lists/partial /mnt/work/apt/archives/partial
echo 'Dir::State::lists "/mnt/work/apt/lists"; Dir::Cache "/mnt/work/apt"; APT::Sandbox::User "root";
      Acquire::Retries "5";' > /mnt/work/apt/conf
APT_CONFIG=/mnt/work/apt/conf apt-get -q update
"#;

/// The builds there are: `$1` is the beginning of the names of one part, `$2` the source package.
const LIST: &str = r#"
export APT_CONFIG=/mnt/work/apt/conf
releases=$(apt-cache pkgnames "$1" | sed "s/^linux-binary-//")
for release in $releases; do
    for part in PARTS; do echo "$part$release"; done
done | xargs apt-cache madison "$2"
"#;

/// Fetches and unpacks the packages given.
const FETCH: &str = r#"
export APT_CONFIG=/mnt/work/apt/conf
cd /mnt/work/apt/archives
apt-get -q download "$@"
mkdir /mnt/work/root
for package in ./*.deb; do dpkg-deb -x "$package" /mnt/work/root; done
"#;

/// What depmod would have done at the installation of release `$1`; then tidies up.
const FINISH: &str = r#"
depmod -b /mnt/work/root/usr "$1"
rm -r /mnt/work/apt
"#;

/// Where the packages have modules, kernel and configuration: in a folder named for the release.
const MODULES: &str = "usr/lib/modules";

/// The name of the file with the kernel that was chosen.
const CHOSEN: &str = "kernel.json";

/// The unpacked packages of one kernel.
#[derive(Clone, Debug)]
pub struct KernelPackages {
    /// Which kernel it is: the pinned one, or the one that took its place.
    pub kernel: Kernel,
    /// What it was made from.
    pub fingerprint: Fingerprint,
    folder: PathBuf,
}

impl KernelPackages {
    /// Fetches the kernel of a pin.
    pub fn prepare(cache: &Store, progress: &Progress, toolchain: &Toolchain, pin: &Kernel) -> Result<Self> {
        let recipe = [UPDATE, LIST, FETCH, FINISH].concat();
        let pinned = pin.packages().join(" ");
        let inputs =
            Inputs::of("kernel packages", &recipe).text(&pin.release).text(&pinned).step(&toolchain.fingerprint);
        let fingerprint = inputs.fingerprint();
        let step = Step {
            store: cache,
            name: format!("kernel-{}-{}", pin.series, fingerprint.short()),
            title: "stock kernel",
            inputs: fingerprint.clone(),
            advice: "check that the Debian mirror is reachable and that the cache has 1 GB of free space, then run the \
                     same command again",
        };
        let folder = step.run(progress, |work| fetch(work, toolchain, pin))?;
        let text = fs::read(folder.join(CHOSEN)).context("the stock kernel in the cache is damaged")?;
        let kernel: Kernel = serde_json::from_slice(&text)?;
        if kernel != *pin {
            progress.say(&format!(
                "stock kernel: the pinned {} has vanished from the mirror; using the newest of its series, {}",
                pin.version, kernel.version
            ));
        }
        Ok(Self { kernel, fingerprint, folder })
    }

    /// The kernel as the distribution ships it.
    pub fn bz_image(&self) -> PathBuf {
        self.modules().join("vmlinuz")
    }

    /// The same kernel, decompressed: an ELF file.
    pub fn vmlinux(&self) -> PathBuf {
        self.folder.join("vmlinux")
    }

    /// The folder of the kernel's modules.
    pub fn modules(&self) -> PathBuf {
        self.unpacked().join(MODULES).join(&self.kernel.release)
    }

    /// The root that the packages were unpacked to.
    pub fn unpacked(&self) -> PathBuf {
        self.folder.join("root")
    }
}

fn fetch(work: &Work<'_>, toolchain: &Toolchain, pin: &Kernel) -> Result<()> {
    let mounts = [Mount::write("work", &work.folder)];
    work.stage.at("reading the package index");
    work.log.run("apt-get update", &mut toolchain.shell(&mounts, UPDATE, &[]))?;
    let list = LIST.replace("PARTS", &PARTS.join(" "));
    let first = format!("{}{}.", PARTS[0], pin.series);
    let index = work.log.output("apt-cache", &mut toolchain.shell(&mounts, &list, &[&first, &pin.source_package()]))?;
    let (Choice::Pinned(kernel) | Choice::Newest(kernel)) = pin.choose(&index)?;

    work.stage.at(&format!("fetching {}", kernel.version));
    let packages = kernel.packages();
    let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
    work.log.run("fetching packages", &mut toolchain.shell(&mounts, FETCH, &packages))?;

    let image = work.folder.join("root").join(MODULES).join(&kernel.release).join("vmlinuz");
    decompress(work, toolchain, &image)?;
    work.log.run("depmod", &mut toolchain.shell(&mounts, FINISH, &[&kernel.release]))?;
    fs::write(work.folder.join(CHOSEN), serde_json::to_vec_pretty(&kernel)?)?;
    Ok(())
}

/// Takes the ELF kernel out of a bzImage.
fn decompress(work: &Work<'_>, toolchain: &Toolchain, bz_image: &Path) -> Result<()> {
    let image = fs::read(bz_image).with_context(|| format!("cannot read {}", bz_image.display()))?;
    let (payload, compression) = bzimage::payload(&image).with_context(|| format!("in {}", bz_image.display()))?;
    let packed = work.folder.join("payload");
    fs::write(&packed, payload)?;
    let mounts = [Mount::write("work", &work.folder)];
    let script = r#""$1" -dc < /mnt/work/payload > /mnt/work/vmlinux"#;
    work.log.run("decompressing the kernel", &mut toolchain.shell(&mounts, script, &[compression.program()]))?;
    fs::remove_file(packed)?;
    Ok(())
}
