// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The plan of `ersatz bench boot`: this VMM's machine with a GPU against QEMU's q35, with the kernel in both of its forms.
//!
//! Each VMM boots the kernel as an ELF file (QEMU by its PVH entry) and as a bzImage, which decompresses itself. All
//! have the same memory, one vCPU and the same kernel command line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Plan;
use super::contender::Contender;
use crate::accel::nested::inside;
use crate::qemu::Qemu;
use crate::spec::{GpuSpec, GuestSpec, MachineSpec, Resources, RunSpec};

/// The kernel's command line.
const COMMAND_LINE: &str = "console=ttyS0 loglevel=5 panic=-1";

/// VRAM of the GPU in this VMM's machine, in bytes; QEMU's has no GPU.
const VRAM: u64 = 1 << 30;

/// The files of a comparison, by their paths where it is carried out.
#[derive(Clone, Debug)]
pub struct Places {
    /// This program.
    pub vmm: PathBuf,
    /// The kernel as an ELF file.
    pub elf: PathBuf,
    /// The kernel as a bzImage.
    pub bz_image: PathBuf,
    /// [`initramfs`](super::initramfs) as a file.
    pub initramfs: PathBuf,
    /// A folder for descriptions and outcomes of guests, which can be written.
    pub scratch: PathBuf,
}

/// Files by their paths.
pub type Files = Vec<(PathBuf, Vec<u8>)>;

/// The plan, and the files in the scratch folder that it needs, with their content.
///
/// `None` if a path is not UTF-8.
pub fn plan(places: &Places, qemu: &Qemu, memory: u64, rounds: u32) -> Option<(Plan, Files)> {
    let kernels = [("ELF kernel", &places.elf), ("bzImage", &places.bz_image)];
    let mut contenders = Vec::new();
    let mut files = Vec::new();
    for (index, (form, kernel)) in kernels.into_iter().enumerate() {
        let spec = places.scratch.join(format!("bench-{index}.json"));
        let outcome = places.scratch.join(format!("bench-{index}.outcome"));
        files.push((spec.clone(), serde_json::to_vec(&guest(places, kernel, memory)).ok()?));
        contenders.push(Contender {
            name: format!("ersatz, {form}"),
            command: strings([&places.vmm, Path::new(inside::COMMAND), &spec, &outcome])?,
            environment: BTreeMap::new(),
            memory,
        });
        contenders.push(q35(form, kernel, places, qemu, memory)?);
    }
    Some((Plan { contenders, rounds }, files))
}

/// The guest of this VMM.
fn guest(places: &Places, kernel: &Path, memory: u64) -> GuestSpec {
    let machine = MachineSpec {
        kernel: kernel.to_owned().into(),
        initramfs: places.initramfs.clone().into(),
        command_line: COMMAND_LINE.to_owned(),
        resources: Resources { vcpus: 1, memory },
    };
    let run = RunSpec {
        archives: Vec::new(),
        request: Vec::new(),
        devices: vec![GpuSpec::new(VRAM)],
        vfio: Vec::new(),
        exit_counts: false,
        streams: false,
        timeout: None,
        silence: None,
    };
    GuestSpec { machine, run }
}

/// The guest of QEMU.
fn q35(form: &str, kernel: &Path, places: &Places, qemu: &Qemu, memory: u64) -> Option<Contender> {
    let command = qemu.command();
    let mut words = strings(std::iter::once(command.get_program()).chain(command.get_args()))?;
    let machine = format!("-machine q35 -accel kvm -cpu host -smp 1 -m {} -display none", memory >> 20);
    words.extend(machine.split(' ').map(str::to_owned));
    words.extend("-nodefaults -no-user-config -no-reboot -serial stdio".split(' ').map(str::to_owned));
    words.extend(strings([Path::new("-kernel"), kernel, Path::new("-initrd"), &places.initramfs])?);
    words.extend(["-append", COMMAND_LINE].map(str::to_owned));
    let variables = command.get_envs().filter_map(|(name, value)| Some((name.to_str()?, value?.to_str()?)));
    Some(Contender {
        name: format!("QEMU q35, {form}"),
        command: words,
        environment: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        memory,
    })
}

fn strings<T: AsRef<std::ffi::OsStr>>(words: impl IntoIterator<Item = T>) -> Option<Vec<String>> {
    words.into_iter().map(|word| word.as_ref().to_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Places {
        Places {
            vmm: "/v".into(),
            elf: "/e".into(),
            bz_image: "/b".into(),
            initramfs: "/i".into(),
            scratch: "/s".into(),
        }
    }

    #[test]
    fn all_contenders_boot_the_same_with_the_same() {
        let (plan, files) = plan(&places(), &Qemu::InRoot("/root".into()), 512 << 20, 3).unwrap();
        let names: Vec<_> = plan.contenders.iter().map(|contender| contender.name.as_str()).collect();
        assert_eq!(names, ["ersatz, ELF kernel", "QEMU q35, ELF kernel", "ersatz, bzImage", "QEMU q35, bzImage"]);
        for (contender, kernel) in [(1, "/e"), (3, "/b")] {
            let words = &plan.contenders[contender].command;
            assert!(words.contains(&kernel.to_owned()) && words.contains(&COMMAND_LINE.to_owned()), "{words:?}");
            assert!(plan.contenders[contender].environment.contains_key("QEMU_MODULE_DIR"));
        }
        assert_eq!(files.len(), 2);
        for ((path, content), contender) in files.iter().zip([0, 2]) {
            assert!(plan.contenders[contender].command.contains(&path.to_str().unwrap().to_owned()));
            let spec: GuestSpec = serde_json::from_slice(content).unwrap();
            assert_eq!((spec.machine.resources.memory, spec.machine.command_line.as_str()), (512 << 20, COMMAND_LINE));
        }
    }

    #[test]
    fn a_path_that_cannot_be_written_down_makes_no_plan() {
        use std::os::unix::ffi::OsStringExt;
        let odd = std::ffi::OsString::from_vec(vec![b'/', 0xff]);
        assert!(plan(&Places { elf: odd.into(), ..places() }, &Qemu::Host("/q".into()), 1 << 30, 1).is_none());
    }
}
