// SPDX-License-Identifier: GPL-2.0
//! Binding to a device, and leaving it.
//!
//! What is made here is undone in this order when the device is unbound: user space is turned away, every page moves off the
//! device, the node in /dev goes; then the device's resource list, last in, first out: the pages, the memory's pfn range, the
//! interrupts, the channel; the device is reset and may no longer master the bus; the registers go. A CPU fault can be answered
//! until the last page has gone.

use super::{
    channel::{Channel, ChannelInterrupt},
    copy_engine::{CopyEngine, CHANNELS},
    demand, dmirror, eviction,
    gpu::{Gpu, Identity},
    number::{Number, DEVICES},
    open_device::Device as OpenDevice,
    parameters::{self, PfnSource},
    poison::{self, ErrorInterrupt},
    registers::Registers,
    reset,
    statistics::Statistics,
    svm::{Svm, SvmInterrupt},
};
use crate::{
    abi::{
        pci::{BAR_VRAM, DEVICE_ID, VENDOR_ID},
        regs, ABI_VERSION,
    },
    kernel_ext::{
        char_device::CharDevice,
        compat::{pci_device_table, ProbeInfo},
        interrupt::Vectors,
        pci_device, pci_id,
    },
    zone_device::{
        pagemap::{Kind, PageMap},
        region::Region,
        stand_in,
    },
};
use kernel::{
    debugfs,
    device::{Bound, Core, Device},
    pci,
    prelude::*,
    str::CString,
    sync::Arc,
};

/// The vector of device errors, by the ABI; those behind it are the channels'.
const ERROR_VECTOR: u16 = 0;

/// Stand-ins that there are at least for poisoned pages of memory that CPUs reach.
const POISON_STAND_INS: usize = 512;

/// The channels that memory is copied by.
type CopyChannels = [Arc<Channel>; CHANNELS];

/// The driver, as the PCI bus knows it.
pub(crate) struct Driver;

/// The driver data of a bound device. All else is on the device's resource list.
#[pin_data]
pub(crate) struct DriverData {
    statistics: Pin<KBox<debugfs::File<Arc<Statistics>>>>,
    #[pin]
    node: CharDevice<OpenDevice>,
    mirror: Option<MirrorNode>,
    vram: Arc<OpenDevice>,
    index: Number,
}

/// The node for the kernel's tests, and its number.
struct MirrorNode {
    _node: Pin<KBox<CharDevice<dmirror::Mirror>>>,
    _number: Number,
}

pci_device_table!(PCI_TABLE, <Driver as pci::Driver>::IdInfo, [(pci_id::device_id(VENDOR_ID, DEVICE_ID), ())]);

impl pci::Driver for Driver {
    type IdInfo = ();
    type Data<'bound> = DriverData;
    const ID_TABLE: pci::IdTable<Self::IdInfo> = &PCI_TABLE;

    fn probe<'bound>(
        pdev: &'bound pci::Device<Core<'_>>,
        _info: ProbeInfo<'bound, Self::IdInfo>,
    ) -> impl PinInit<DriverData, Error> + 'bound {
        pin_init::pin_init_scope(move || {
            let dev: &Device<Bound> = pdev.as_ref();
            let index = DEVICES.take(0..u64::BITS)?;
            let kind = parameters::kind(index.get())?;

            pci_device::enable(pdev)?;
            let registers = Arc::new(Registers::map(pdev)?, GFP_KERNEL)?;
            let identity = identify(pdev, &registers)?;
            reset::bring_up(pdev, &registers)?;
            let (channels, svm, vectors) = open_channels(pdev, registers.clone())?;
            let region = reserve_pfns(pdev, &registers, index.get(), kind)?;
            let (start, pages) = (region.start(), region.pages());
            let statistics = Arc::new(Statistics::new(), GFP_KERNEL)?;
            if kind == Kind::Coherent {
                // More than a device survives.
                stand_in::reserve(POISON_STAND_INS)?;
            }
            let engine = CopyEngine::new(dev, channels.clone());
            let gpu = Gpu::new(registers, engine, statistics.clone(), identity, svm);
            let vram = PageMap::register(dev, kind, region, gpu)?;
            vram.with_map(poison::leave_out)?;
            vram.with_map(demand::leave_out)?;
            // Behind the pages, which it is about.
            vectors.register(ERROR_VECTOR.into(), c"ersatz-error", ErrorInterrupt { channels, vram: vram.clone() })?;
            // A demand may have come before its interrupt could.
            vram.with_map(demand::attend)?;
            let name = CString::try_from_fmt(fmt!("ersatz{}", index.get()))?;
            dev_info!(dev, "{}: {} pages of {:?} memory at {:#x}\n", &*name, pages, kind, start);

            let statistics = show(&name, statistics)?;
            let mirror = offer_mirror(dev, kind, &vram)?;
            Ok(try_pin_init!(DriverData {
                statistics,
                node <- CharDevice::register(dev, name, vram.clone()),
                mirror,
                vram,
                index,
            }))
        })
    }

    fn unbind(_pdev: &pci::Device<Core<'_>>, data: Pin<&DriverData>) {
        data.vram.revoke_with(|vram| {
            if let Some(svm) = &vram.bound().memory().svm {
                svm.unbind_all();
            }
            eviction::empty(vram);
        });
    }
}

/// Makes the node for the kernel's tests, if the user wants it and there is a number for it.
fn offer_mirror(dev: &Device<Bound>, kind: Kind, vram: &Arc<OpenDevice>) -> Result<Option<MirrorNode>> {
    if !parameters::hmm_dmirror() {
        return Ok(None);
    }
    let Ok(number) = dmirror::take_number(kind) else {
        dev_notice!(dev, "no /dev/hmm_dmirror: there are two of {:?} memory already\n", kind);
        return Ok(None);
    };
    let name = CString::try_from_fmt(fmt!("hmm_dmirror{}", number.get()))?;
    let mirror = Arc::new(dmirror::Mirror::new(vram.clone()), GFP_KERNEL)?;
    let node = KBox::pin_init(CharDevice::register(dev, name, mirror), GFP_KERNEL)?;
    Ok(Some(MirrorNode { _node: node, _number: number }))
}

/// Shows the statistics in debugfs, in a folder of the device's name, while what this returns lives.
fn show(name: &CStr, statistics: Arc<Statistics>) -> Result<Pin<KBox<debugfs::File<Arc<Statistics>>>>> {
    let folder = debugfs::Dir::new(name);
    let file =
        folder.read_callback_file::<_, Error, _>(c"stats", Ok(statistics), &|statistics: &Arc<Statistics>, out| {
            statistics.write(out)
        });
    KBox::pin_init(file, GFP_KERNEL)
}

/// Checks that this is a device the driver knows how to drive.
fn identify(pdev: &pci::Device<Core<'_>>, registers: &Registers) -> Result<Identity> {
    if !registers.device_answers() {
        dev_err!(pdev, "the registers are not those of an Ersatz GPU\n");
        return Err(ENODEV);
    }
    let abi_version = registers.read(regs::VERSION)? as u32;
    // Each minor version adds to the one before. The driver uses what its own has.
    if abi_version >> 16 != ABI_VERSION >> 16 || abi_version < ABI_VERSION {
        dev_err!(pdev, "the device speaks ABI {abi_version:#x}, this driver needs {ABI_VERSION:#x}\n");
        return Err(ENODEV);
    }
    let pci_address = u32::from(pci_device::segment(pdev)) << 16 | u32::from(pdev.dev_id());
    Ok(Identity { abi_version, pci_address })
}

/// Opens a channel for each of the first copy engines, and listens to their interrupts. A device with fewer
/// engines has several channels on one, and one with fewer vectors has the channels share them. The channels behind them are for what works by
/// virtual addresses, if there is a vector left for it.
fn open_channels<'a>(
    pdev: &'a pci::Device<Core<'_>>,
    registers: Arc<Registers>,
) -> Result<(CopyChannels, Option<Arc<Svm>>, Vectors<'a>)> {
    let configuration = regs::Configuration(registers.read(regs::CONFIGURATION)? as u32);
    let engines = configuration.copy_engines();
    let vectors = configuration.vectors().saturating_sub(1).clamp(1, CHANNELS as u32);
    let open = |number: u32| {
        let vector = ERROR_VECTOR + 1 + number.min(vectors - 1) as u16;
        Channel::new(pdev, registers.clone(), number, number.min(engines.saturating_sub(1)), vector)
    };
    let svm_vector = ERROR_VECTOR + 1 + vectors as u16;
    let has_svm_vector = configuration.vectors() > svm_vector.into();
    let allocated = Vectors::allocate(pdev, vectors + 1 + u32::from(has_svm_vector))?;
    let first = open(0)?;
    // A device with one channel gets all work through that.
    let second = if configuration.channels() > 1 { open(1)? } else { first.clone() };
    let channels = [first, second];
    if vectors == 1 {
        allocated.register(1, c"ersatz-channels", ChannelInterrupt { channels: channels.clone() })?;
    } else {
        for (vector, channel) in (1..).zip(&channels) {
            allocated.register(vector, c"ersatz-channel", ChannelInterrupt { channels: [channel.clone()] })?;
        }
    }
    let svm = match has_svm_vector {
        true => Svm::new(pdev, registers, CHANNELS as u32, svm_vector)?,
        false => None,
    };
    if let Some(svm) = &svm {
        allocated.register(svm_vector.into(), c"ersatz-svm", SvmInterrupt { svm: svm.clone() })?;
    }
    Ok((channels, svm, allocated))
}

/// Finds pfns for as much of the VRAM as the BAR shows and the parameters permit.
fn reserve_pfns(pdev: &pci::Device<Core<'_>>, registers: &Registers, index: u32, kind: Kind) -> Result<Region> {
    let pfn_source = parameters::pfn_source(index)?;
    let size = registers.read(regs::VRAM_SIZE)?;
    let shown = pdev.resource_len(BAR_VRAM.into())?;
    if shown == 0 {
        dev_err!(pdev, "BAR {BAR_VRAM} has no address: the machine has no room for {} MiB of VRAM\n", size >> 20);
        return Err(ENXIO);
    }
    let length = parameters::registrable(index, size.min(shown));
    if length < size {
        dev_info!(
            pdev,
            "using {} of {} MiB of VRAM: BAR {} shows {} MiB, struct pages (parameter vram_limit) allow {} MiB\n",
            length >> 20,
            size >> 20,
            BAR_VRAM,
            shown >> 20,
            parameters::vram_limit(index) >> 20,
        );
    }
    if kind == Kind::Coherent && pdev.resource_start(BAR_VRAM.into())? < 1 << 32 {
        dev_notice!(
            pdev,
            "VRAM lies below 4 GiB, where firmware may have made it uncached: coherent memory will be slow\n"
        );
    }
    match (kind, pfn_source) {
        (Kind::Private, PfnSource::Free) => Region::free(pdev.as_ref(), length, c"ersatz private memory"),
        _ => Region::bar(pdev, BAR_VRAM, length, c"ersatz VRAM"),
    }
}
