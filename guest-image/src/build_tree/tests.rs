// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::thread::sleep;
use std::time::Duration;

use super::*;

/// A configuration with all that is needed.
const GOOD: &str = "\
CONFIG_MODULES=y\nCONFIG_RUST=y\nCONFIG_PCI=y\nCONFIG_PCI_MSI=y\nCONFIG_SPARSEMEM_VMEMMAP=y\nCONFIG_MEMORY_HOTPLUG=y\n\
CONFIG_MEMORY_HOTREMOVE=y\nCONFIG_ZONE_DEVICE=y\nCONFIG_DEVICE_PRIVATE=y\nCONFIG_TRANSPARENT_HUGEPAGE=y\nCONFIG_HMM_MIRROR=y\n\
CONFIG_KPROBES=y\nCONFIG_BLK_DEV_INITRD=y\nCONFIG_BINFMT_ELF=y\nCONFIG_BINFMT_SCRIPT=y\nCONFIG_DEVTMPFS=y\nCONFIG_PROC_FS=y\n\
CONFIG_SYSFS=y\nCONFIG_TMPFS=y\nCONFIG_TTY=y\nCONFIG_SERIAL_8250=y\nCONFIG_SERIAL_8250_CONSOLE=y\nCONFIG_PCIEPORTBUS=y\n\
CONFIG_HOTPLUG_PCI=y\nCONFIG_HOTPLUG_PCI_PCIE=y\nCONFIG_VIRTIO_PCI=y\nCONFIG_VIRTIO_CONSOLE=y\nCONFIG_CC_VERSION_TEXT=\"gcc 14\"\n";

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn tree() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in SOURCE {
        write(folder.path(), name, "");
    }
    write(folder.path(), CONFIG, GOOD);
    write(folder.path(), BUILT_CONFIG, GOOD);
    write(folder.path(), SYMBOLS, "");
    write(folder.path(), RELEASE, "7.2.12-mine\n");
    write(folder.path(), VERSION, "#define UTS_VERSION \"#3 SMP Fri Nov 27\"\n");
    write(folder.path(), BZ_IMAGE, "image");
    folder
}

fn error(folder: &Path) -> String {
    BuildTree::open(folder).unwrap_err().to_string()
}

#[test]
fn a_tree_that_is_built_says_what_it_is() {
    let folder = tree();
    let tree = BuildTree::open(folder.path()).unwrap();
    assert_eq!(tree.release(), "7.2.12-mine");
    assert_eq!(tree.version(), "#3 SMP Fri Nov 27");
    assert_eq!(tree.config().get("CC_VERSION_TEXT"), Some("gcc 14"));
    assert!(tree.bz_image().ends_with(BZ_IMAGE) && tree.vmlinux() == tree.bz_image());
    write(folder.path(), VMLINUX, "kernel");
    assert!(tree.vmlinux().ends_with(VMLINUX));
}

#[test]
fn a_make_changes_the_state() {
    let folder = tree();
    let tree = BuildTree::open(folder.path()).unwrap();
    let record = TreeRecord {
        folder: tree.folder().to_owned(),
        state: tree.state(),
        commit: Some("0123abc".to_owned()),
        config: "45de".to_owned(),
        version: tree.version(),
    };
    assert!(record.fits(&tree));
    let text = record.describe();
    assert!(text.starts_with("#3 of /") && text.ends_with("commit 0123abc, .config 45de"), "{text}");
    sleep(Duration::from_millis(20));
    write(folder.path(), BZ_IMAGE, "imagf");
    assert!(!record.fits(&tree));
}

#[test]
fn what_is_not_built_is_refused_with_what_to_do() {
    let folder = tree();
    let path = folder.path();
    for name in [BZ_IMAGE, SYMBOLS, RELEASE] {
        fs::remove_file(path.join(name)).unwrap();
        let text = error(path);
        assert!(text.contains(name) && text.contains("make -j$(nproc) bzImage modules"), "{text}");
        write(path, name, "x");
    }
    sleep(Duration::from_millis(20));
    write(path, CONFIG, GOOD);
    assert!(error(path).contains("changed since"));
    fs::remove_file(path.join(CONFIG)).unwrap();
    assert!(error(path).contains("not configured"));
    fs::remove_file(path.join("Kbuild")).unwrap();
    assert!(error(path).contains("no Kbuild"));
    write(path, CONFIG, GOOD);
    std::os::unix::fs::symlink("/usr/src/linux", path.join(SOURCE_LINK)).unwrap();
    assert!(error(path).contains("/usr/src/linux"));
    assert!(matches!(BuildTree::open(Path::new("/no/such")), Err(TreeError::Read { .. })));
}

#[test]
fn options_that_are_off_come_with_the_line_that_turns_them_on() {
    let folder = tree();
    let off = |names: &[&str]| {
        let keep = |line: &&str| !names.iter().any(|name| line.starts_with(&format!("CONFIG_{name}=")));
        write(folder.path(), CONFIG, &GOOD.lines().filter(keep).collect::<Vec<_>>().join("\n"));
        error(folder.path())
    };
    let text = off(&["DEVICE_PRIVATE", "ZONE_DEVICE"]);
    assert!(text.contains("CONFIG_ZONE_DEVICE, CONFIG_DEVICE_PRIVATE must be on"), "{text}");
    assert!(text.contains("scripts/config -e ZONE_DEVICE -e DEVICE_PRIVATE && make olddefconfig"), "{text}");
    assert!(!text.contains('\n'));
    assert!(off(&["HMM_MIRROR"]).contains("-m TEST_HMM"));
    assert!(off(&["RUST"]).contains("make rustavailable"));
    write(folder.path(), CONFIG, &(GOOD.replace("CONFIG_RUST=y\n", "") + "CONFIG_KASAN=y\n"));
    assert!(error(folder.path()).contains("LLVM=1"));
    write(folder.path(), CONFIG, &GOOD.replace("DEVICE_PRIVATE=y", "DEVICE_PRIVATE=m"));
    assert!(error(folder.path()).contains("-e DEVICE_PRIVATE"));
}
