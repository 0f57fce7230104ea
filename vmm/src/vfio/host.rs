// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the host's sysfs says about a device, and whether it can be handed out.
//!
//! All that keeps a device from being handed out is looked for here, before VFIO is asked: what VFIO says of it is an error number.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::io::Errno;
use rustix::process::getuid;

use super::error::VfioError;
use crate::spec::PciAddress;

/// Where the kernel shows its devices.
#[derive(Clone, Debug)]
pub struct Host {
    sysfs: PathBuf,
    device_files: PathBuf,
}

/// A device that can be handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostDevice {
    /// Where it is.
    pub address: PciAddress,
    /// Its folder in sysfs.
    pub folder: PathBuf,
    /// Its IOMMU group.
    pub group: u32,
    /// Addresses that the IOMMU does not translate for it.
    pub reserved: Vec<Range<u64>>,
}

impl Host {
    /// This machine.
    pub fn this() -> Self {
        Self::at("/sys".into(), "/dev".into())
    }

    /// The machine that these folders show.
    pub fn at(sysfs: PathBuf, device_files: PathBuf) -> Self {
        Self { sysfs, device_files }
    }

    /// Looks a device up.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be handed out, as far as sysfs and the permissions of the device files show.
    pub fn device(&self, address: PciAddress) -> Result<HostDevice, VfioError> {
        let folder = self.sysfs.join("bus/pci/devices").join(address.to_string());
        if !folder.exists() {
            return Err(VfioError::NoDevice(address));
        }
        let group = link_name(&folder.join("iommu_group")).and_then(|name| name.parse().ok());
        let group: u32 = group.ok_or(VfioError::NoIommu(address))?;
        let driver = link_name(&folder.join("driver"));
        if !driver.as_deref().is_some_and(is_vfio) {
            return Err(VfioError::WrongDriver { address, driver, folder: folder.display().to_string() });
        }
        let group_folder = self.sysfs.join("kernel/iommu_groups").join(group.to_string());
        let members = members_in_use(&group_folder);
        if !members.is_empty() {
            return Err(VfioError::GroupNotWhole { address, group, members });
        }
        if !folder.join("reset").exists() {
            return Err(VfioError::NoReset(address));
        }
        for name in ["vfio".to_owned(), group.to_string()] {
            check_device_file(self.device_files.join("vfio").join(name))?;
        }
        let reserved = fs::read_to_string(group_folder.join("reserved_regions")).unwrap_or_default();
        Ok(HostDevice { address, folder, group, reserved: reserved.lines().filter_map(reserved_range).collect() })
    }
}

/// The last part of where a link leads.
fn link_name(link: &Path) -> Option<String> {
    Some(fs::read_link(link).ok()?.file_name()?.to_str()?.to_owned())
}

/// Whether a driver gives its devices to VFIO: vfio-pci, or a variant of it for one kind of device.
fn is_vfio(driver: &str) -> bool {
    driver.ends_with("vfio-pci") || driver.ends_with("vfio_pci")
}

/// The devices of a group that the host uses, each with its driver. VFIO leaves bridges and stubs out of account: they do no DMA of
/// their own.
fn members_in_use(group: &Path) -> Vec<String> {
    let devices = fs::read_dir(group.join("devices")).into_iter().flatten().flatten();
    let in_use = devices.filter_map(|device| {
        let driver = link_name(&device.path().join("driver"))?;
        let harmless = is_vfio(&driver) || matches!(driver.as_str(), "pci-stub" | "pcieport");
        (!harmless).then(|| format!("{}: {driver}", device.file_name().to_string_lossy()))
    });
    let mut members: Vec<_> = in_use.collect();
    members.sort();
    members
}

fn check_device_file(path: PathBuf) -> Result<(), VfioError> {
    match access(&path, Access::READ_OK | Access::WRITE_OK) {
        Ok(()) => Ok(()),
        Err(Errno::NOENT) => Err(VfioError::NoDeviceFile { path }),
        Err(_) => Err(VfioError::NoPermission { path, user: getuid().as_raw() }),
    }
}

/// Reads a line of `reserved_regions`: first address, last address, type. What is merely mapped one to one may be mapped otherwise.
fn reserved_range(line: &str) -> Option<Range<u64>> {
    let mut words = line.split_whitespace();
    let mut address = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
    let (first, last) = (address()?, address()?);
    (words.next() != Some("direct-relaxable")).then(|| first..last.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use ersatz_guest_image::error_chain::chain;
    use tempfile::TempDir;

    use super::*;

    const ADDRESS: &str = "0000:01:00.0";

    /// A made-up machine with a device that can be handed out.
    struct MadeUp(TempDir);

    impl MadeUp {
        fn new() -> Self {
            let made_up = Self(tempfile::tempdir().unwrap());
            made_up.add(ADDRESS, 7, Some("vfio-pci"));
            fs::write(made_up.device(ADDRESS).join("reset"), "").unwrap();
            let regions = "0xfee00000 0xfeefffff msi\n0x1000 0x1fff direct-relaxable\nnonsense\n";
            fs::write(made_up.path("sys/kernel/iommu_groups/7/reserved_regions"), regions).unwrap();
            fs::create_dir_all(made_up.path("dev/vfio")).unwrap();
            fs::write(made_up.path("dev/vfio/vfio"), "").unwrap();
            fs::write(made_up.path("dev/vfio/7"), "").unwrap();
            made_up
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn device(&self, address: &str) -> PathBuf {
            self.path("sys/bus/pci/devices").join(address)
        }

        fn add(&self, address: &str, group: u32, driver: Option<&str>) {
            let (folder, group) = (self.device(address), self.path(&format!("sys/kernel/iommu_groups/{group}")));
            fs::create_dir_all(&folder).unwrap();
            fs::create_dir_all(group.join("devices")).unwrap();
            symlink(&group, folder.join("iommu_group")).unwrap();
            symlink(&folder, group.join("devices").join(address)).unwrap();
            if let Some(driver) = driver {
                symlink(format!("../../../bus/pci/drivers/{driver}"), folder.join("driver")).unwrap();
            }
        }

        fn look_up(&self, address: &str) -> Result<HostDevice, VfioError> {
            Host::at(self.path("sys"), self.path("dev")).device(address.parse().unwrap())
        }

        fn refused(&self, address: &str) -> (VfioError, String) {
            let error = self.look_up(address).unwrap_err();
            let text = chain(&error).to_string();
            assert!(!text.contains('\n') && text.contains(address) || text.contains("vfio"), "{text}");
            (error, text)
        }
    }

    #[test]
    fn a_device_that_can_be_handed_out_is_found() {
        let device = MadeUp::new().look_up(ADDRESS).unwrap();
        assert_eq!((device.group, device.address.to_string()), (7, ADDRESS.to_owned()));
        assert_eq!((device.reserved.len(), &device.reserved[0]), (1, &(0xfee0_0000..0xfef0_0000)));
    }

    #[test]
    fn a_device_that_is_not_there_is_refused() {
        let (error, text) = MadeUp::new().refused("0000:02:00.0");
        assert!(matches!(error, VfioError::NoDevice(_)) && text.contains("lspci -D"), "{text}");
    }

    #[test]
    fn a_device_without_an_iommu_is_refused() {
        let made_up = MadeUp::new();
        fs::remove_file(made_up.device(ADDRESS).join("iommu_group")).unwrap();
        let (error, text) = made_up.refused(ADDRESS);
        assert!(matches!(error, VfioError::NoIommu(_)) && text.contains("intel_iommu=on"), "{text}");
    }

    #[test]
    fn a_device_of_another_driver_is_refused_with_the_commands_that_rebind_it() {
        let made_up = MadeUp::new();
        made_up.add("0000:02:00.0", 8, Some("nvme"));
        let (error, text) = made_up.refused("0000:02:00.0");
        assert!(matches!(error, VfioError::WrongDriver { driver: Some(_), .. }), "{text}");
        for part in ["the driver nvme", "0000:02:00.0/driver/unbind", "driver_override", "drivers_probe", "modprobe"] {
            assert!(text.contains(part), "{text}");
        }
        made_up.add("0000:03:00.0", 9, None);
        let (_, text) = made_up.refused("0000:03:00.0");
        assert!(text.contains("no driver") && !text.contains("unbind"), "{text}");
    }

    #[test]
    fn variants_of_vfio_pci_will_do() {
        assert!(is_vfio("vfio-pci") && is_vfio("mlx5_vfio_pci") && is_vfio("nvgrace-gpu-vfio-pci"));
        assert!(!is_vfio("nvme") && !is_vfio("vfio-pci-core"));
    }

    #[test]
    fn a_group_that_is_not_whole_is_refused_with_its_members() {
        let made_up = MadeUp::new();
        made_up.add("0000:00:01.0", 7, Some("pcieport"));
        made_up.add("0000:01:00.2", 7, None);
        made_up.look_up(ADDRESS).expect("bridges and devices without a driver are no obstacle");
        made_up.add("0000:01:00.3", 7, Some("xhci_hcd"));
        made_up.add("0000:01:00.1", 7, Some("snd_hda_intel"));
        let (error, text) = made_up.refused(ADDRESS);
        assert!(matches!(error, VfioError::GroupNotWhole { group: 7, .. }), "{text}");
        assert!(text.contains("(0000:01:00.1: snd_hda_intel, 0000:01:00.3: xhci_hcd)"), "{text}");
    }

    #[test]
    fn a_device_that_cannot_be_reset_is_refused() {
        let made_up = MadeUp::new();
        fs::remove_file(made_up.device(ADDRESS).join("reset")).unwrap();
        assert!(matches!(made_up.refused(ADDRESS).0, VfioError::NoReset(_)));
    }

    #[test]
    fn device_files_must_be_there_and_permitted() {
        let made_up = MadeUp::new();
        fs::remove_file(made_up.path("dev/vfio/7")).unwrap();
        let (error, text) = made_up.refused(ADDRESS);
        assert!(matches!(error, VfioError::NoDeviceFile { .. }) && text.contains("dev/vfio/7"), "{text}");
        fs::write(made_up.path("dev/vfio/7"), "").unwrap();
        fs::set_permissions(made_up.path("dev/vfio/7"), PermissionsExt::from_mode(0o400)).unwrap();
        if !getuid().is_root() {
            assert!(matches!(made_up.refused(ADDRESS).0, VfioError::NoPermission { .. }));
        }
        let text = VfioError::NoPermission { path: "/dev/vfio/7".into(), user: 1000 }.to_string();
        assert!(text.ends_with("chown 1000 /dev/vfio/7"), "{text}");
        fs::remove_file(made_up.path("dev/vfio/vfio")).unwrap();
        assert!(matches!(made_up.refused(ADDRESS).0, VfioError::NoDeviceFile { path } if path.ends_with("vfio/vfio")));
    }
}
