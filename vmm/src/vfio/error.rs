// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Why a device cannot be handed to a guest.

use std::io;
use std::ops::Range;
use std::path::PathBuf;

use ersatz_device_model::size;
use thiserror::Error;

use crate::spec::PciAddress;

/// Why a device cannot be handed to a guest, and what to do about it.
#[derive(Debug, Error)]
pub enum VfioError {
    /// There is no such device.
    #[error("this machine has no PCI device {0}; `lspci -D` lists those that it has")]
    NoDevice(PciAddress),
    /// The device is behind no IOMMU.
    #[error(
        "PCI device {0} has no IOMMU group, without which it could write to all of this machine's memory: enable the IOMMU (VT-d, \
         AMD-Vi) in the firmware's settings, and boot this machine's kernel with intel_iommu=on or amd_iommu=on"
    )]
    NoIommu(PciAddress),
    /// The device is bound to another driver, or to none.
    #[error(
        "PCI device {address} is bound to {}, not to vfio-pci; as root: modprobe vfio-pci; \
         echo vfio-pci > {folder}/driver_override; {}echo {address} > /sys/bus/pci/drivers_probe",
        .driver.as_ref().map_or_else(|| "no driver".to_owned(), |name| format!("the driver {name}")),
        .driver.as_ref().map_or_else(String::new, |_| format!("echo {address} > {folder}/driver/unbind; "))
    )]
    WrongDriver {
        /// The device.
        address: PciAddress,
        /// The driver's name.
        driver: Option<String>,
        /// The device's folder in sysfs.
        folder: String,
    },
    /// Other devices of the group are in use by the host.
    #[error(
        "PCI device {address} shares IOMMU group {group} with devices that other drivers use ({}); bind them to vfio-pci, too, or \
         unbind them, or put the device into another slot",
        .members.join(", ")
    )]
    GroupNotWhole {
        /// The device.
        address: PciAddress,
        /// The group's number.
        group: u32,
        /// The devices that are in the way, each with its driver.
        members: Vec<String>,
    },
    /// The device could carry what one guest left in it to the next.
    #[error(
        "PCI device {0} cannot be reset by this machine's kernel, so it would keep what one guest did to it for the next; \
         hand out a device with a function-level reset, or one that is alone behind its bridge"
    )]
    NoReset(PciAddress),
    /// A device file is not there.
    #[error("there is no {}; as root: modprobe vfio-pci; modprobe vfio_iommu_type1", path.display())]
    NoDeviceFile {
        /// The file.
        path: PathBuf,
    },
    /// A device file may not be opened.
    #[error("no permission to open {0}; as root: chown {1} {0}", path.display(), .user)]
    NoPermission {
        /// The file.
        path: PathBuf,
        /// The number of this process's user.
        user: u32,
    },
    /// Another process has the device.
    #[error("PCI device {address} is in use: another process has IOMMU group {group} open; end that first")]
    InUse {
        /// The device.
        address: PciAddress,
        /// The group's number.
        group: u32,
    },
    /// Guest memory may not be locked.
    #[error(
        "the IOMMU needs {} of guest memory locked, and this process may lock {}; raise the limit (`ulimit -l unlimited`, or \
         memlock in /etc/security/limits.conf), or give the guest less --memory",
        size::format(*.needed), size::format(*.limit)
    )]
    MemoryLock {
        /// Bytes that must be locked.
        needed: u64,
        /// Bytes that may be.
        limit: u64,
    },
    /// The IOMMU does not translate some addresses of guest memory.
    #[error(
        "guest memory at {ram:#x?} overlaps addresses that the IOMMU group {group} reserves ({reserved:#x?}); give the guest less \
         --memory"
    )]
    Reserved {
        /// The group's number.
        group: u32,
        /// Guest memory.
        ram: Range<u64>,
        /// The reserved addresses.
        reserved: Range<u64>,
    },
    /// The IOMMU refuses guest memory.
    #[error("the IOMMU does not map {length:#x} bytes of guest memory at {address:#x}")]
    Map {
        /// Guest physical address.
        address: u64,
        /// Length in bytes.
        length: u64,
        /// What VFIO says.
        #[source]
        source: vfio_ioctls::VfioError,
    },
    /// KVM has no place for the device.
    #[error("KVM does not take note of a device that is handed to the guest")]
    Kvm(#[source] io::Error),
    /// VFIO refuses.
    #[error("cannot open PCI device {address}")]
    Open {
        /// The device.
        address: PciAddress,
        /// What VFIO says.
        #[source]
        source: vfio_ioctls::VfioError,
    },
    /// A descriptor could not be had.
    #[error("cannot make a descriptor for PCI device {address}")]
    Descriptor {
        /// The device.
        address: PciAddress,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}
