// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Opens devices: all devices of one machine are in one VFIO container, so guest memory is mapped and locked once.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};

use ersatz_device_model::dma::MapObserver;
use kvm_bindings::{kvm_create_device, kvm_device_type_KVM_DEV_TYPE_VFIO};
use kvm_ioctls::VmFd;
use rustix::process::getuid;
use vfio_bindings::bindings::vfio::{
    VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_ERR_IRQ_INDEX, VFIO_PCI_REQ_IRQ_INDEX, VFIO_REGION_INFO_FLAG_MMAP,
};
use vfio_ioctls::{VfioContainer, VfioDevice, VfioDeviceFd, VfioOps, VfioRegionInfoCap, VfioRegionSparseMmapArea};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::bar::BARS;
use super::dma::DmaMaps;
use super::error::VfioError;
use super::function::Function;
use super::hardware::{Hardware, MappableArea, MessageKind, Region};
use super::host::{Host, HostDevice};
use super::settle::Settled;
use crate::emulated_host;
use crate::machine::{BusConnections, FunctionFactory};
use crate::spec::PciAddress;

/// The container of a machine's devices, with the maps of its memory.
struct Container {
    vfio: Arc<VfioContainer>,
    /// Observed for as long as this lives.
    _maps: Arc<DmaMaps>,
}

/// The container, once a device has been opened.
type SharedContainer = Arc<Mutex<Option<Arc<Container>>>>;

/// What makes functions of devices of this machine, in their order.
pub fn factories(addresses: &[PciAddress]) -> Vec<FunctionFactory> {
    let container = SharedContainer::default();
    addresses.iter().map(|&address| factory(address, Arc::clone(&container))).collect()
}

fn factory(address: PciAddress, container: SharedContainer) -> FunctionFactory {
    Box::new(move |connections: BusConnections| Ok(open(address, &container, connections).map(Arc::new)?))
}

/// Opens a device.
fn open(
    address: PciAddress,
    shared: &Mutex<Option<Arc<Container>>>,
    connections: BusConnections,
) -> Result<Function, VfioError> {
    let host = Host::this().device(address)?;
    let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
    let known = shared.as_ref().map(|container| Arc::clone(&container.vfio));
    let vfio = known.map_or_else(|| new_container(&host, &connections.vm), Ok)?;
    // The first device that is opened gives the container its IOMMU, without which it has no maps.
    let device = VfioDevice::new(&host.folder, Arc::clone(&vfio) as Arc<dyn VfioOps>, false)
        .map_err(|source| refused(&host, source))?;
    let container = match &*shared {
        Some(container) => Arc::clone(container),
        None => {
            let maps = Arc::new(DmaMaps::new(Arc::clone(&vfio), host.group, host.reserved.clone()));
            let observer: Arc<dyn MapObserver> = maps.clone();
            connections.dma.observe_maps(Arc::downgrade(&observer));
            if let Some(failure) = maps.take_failure() {
                return Err(failure);
            }
            Arc::clone(shared.insert(Arc::new(Container { vfio, _maps: maps })))
        }
    };
    let failed = |source| VfioError::Descriptor { address, source };
    let notice = Arc::new(EventFd::new(EFD_NONBLOCK).map_err(failed)?);
    for index in [VFIO_PCI_ERR_IRQ_INDEX, VFIO_PCI_REQ_IRQ_INDEX] {
        if device.get_irq_info(index).is_some_and(|irq| irq.count > 0) {
            device.enable_irq(index, vec![&notice]).map_err(|source| VfioError::Open { address, source })?;
        }
    }
    // SAFETY: `device` keeps the descriptor open while this runs.
    let descriptor = unsafe { BorrowedFd::borrow_raw(device.as_raw_fd()) };
    let file = Arc::new(File::from(descriptor.try_clone_to_owned().map_err(failed)?));
    let hardware = OpenDevice { file, device, name: format!("PCI device {address}"), _container: container };
    let name = hardware.name.clone();
    let hardware: Box<dyn Hardware> = if emulated_host::is_emulated() {
        Box::new(Settled::new(hardware, connections.vcpus, emulated_host::SETTLE))
    } else {
        Box::new(hardware)
    };
    Ok(Function::new(name, hardware, connections.interrupts, notice))
}

/// Makes a container that KVM knows of: whether the guest's caches matter to DMA depends on its devices.
fn new_container(host: &HostDevice, vm: &VmFd) -> Result<Arc<VfioContainer>, VfioError> {
    let mut device = kvm_create_device { type_: kvm_device_type_KVM_DEV_TYPE_VFIO, fd: 0, flags: 0 };
    let device = vm.create_device(&mut device).map_err(|error| VfioError::Kvm(error.into()))?;
    let device = Arc::new(VfioDeviceFd::new_from_kvm(device));
    VfioContainer::new(Some(device)).map(Arc::new).map_err(|source| refused(host, source))
}

/// Why VFIO refuses a device that sysfs had nothing against.
fn refused(host: &HostDevice, error: vfio_ioctls::VfioError) -> VfioError {
    let (file, reason) = match &error {
        vfio_ioctls::VfioError::OpenContainer(reason) => ("vfio".to_owned(), reason),
        vfio_ioctls::VfioError::OpenGroup(reason, group) => (group.clone(), reason),
        _ => return VfioError::Open { address: host.address, source: error },
    };
    match reason.kind() {
        io::ErrorKind::ResourceBusy => VfioError::InUse { address: host.address, group: host.group },
        io::ErrorKind::PermissionDenied => {
            VfioError::NoPermission { path: format!("/dev/vfio/{file}").into(), user: getuid().as_raw() }
        }
        _ => VfioError::Open { address: host.address, source: error },
    }
}

/// A device that is open.
struct OpenDevice {
    /// The device's descriptor, to be mapped. Closed before the device, which cannot leave its group before.
    file: Arc<File>,
    device: VfioDevice,
    name: String,
    _container: Arc<Container>,
}

fn index(region: Region) -> u32 {
    match region {
        Region::Bar(bar) => bar.into(), // VFIO numbers them so
        Region::Config => VFIO_PCI_CONFIG_REGION_INDEX,
    }
}

impl OpenDevice {
    fn is_inside(&self, region: Region, offset: u64, length: usize) -> bool {
        offset.checked_add(length as u64).is_some_and(|end| end <= self.size(region))
    }
}

impl Hardware for OpenDevice {
    fn read(&self, region: Region, offset: u64, data: &mut [u8]) {
        if self.is_inside(region, offset, data.len()) {
            self.device.region_read(index(region), data, offset);
        }
    }

    fn write(&self, region: Region, offset: u64, data: &[u8]) {
        if self.is_inside(region, offset, data.len()) {
            self.device.region_write(index(region), data, offset);
        }
    }

    fn size(&self, region: Region) -> u64 {
        self.device.get_region_size(index(region))
    }

    fn mappable(&self) -> Vec<MappableArea> {
        let mut areas = Vec::new();
        for bar in 0..BARS {
            let region = index(Region::Bar(bar));
            let size = self.device.get_region_size(region);
            if size == 0 || self.device.get_region_flags(region) & VFIO_REGION_INFO_FLAG_MMAP == 0 {
                continue;
            }
            let sparse = self.device.get_region_caps(region).into_iter().find_map(|capability| match capability {
                VfioRegionInfoCap::SparseMmap(sparse) => Some(sparse.areas),
                _ => None,
            });
            let whole = || vec![VfioRegionSparseMmapArea { offset: 0, size }];
            let start = self.device.get_region_offset(region);
            areas.extend(sparse.unwrap_or_else(whole).into_iter().map(|area| MappableArea {
                bar,
                range: area.offset..area.offset.saturating_add(area.size),
                file: Arc::clone(&self.file),
                file_offset: start.saturating_add(area.offset),
            }));
        }
        areas
    }

    fn connect(&self, kind: MessageKind, events: &[&EventFd]) {
        let events = events.to_vec();
        let result = match kind {
            MessageKind::Msi => self.device.enable_msi(events),
            MessageKind::Msix => self.device.enable_msix(events),
        };
        if let Err(error) = result {
            log::error!("{}: its interrupts do not arrive: {error}", self.name);
        }
    }

    fn disconnect(&self, kind: MessageKind) {
        let result = match kind {
            MessageKind::Msi => self.device.disable_msi(),
            MessageKind::Msix => self.device.disable_msix(),
        };
        if let Err(error) = result {
            log::error!("{}: its interrupts still arrive: {error}", self.name);
        }
    }

    fn reset(&self) {
        self.device.reset();
    }
}
