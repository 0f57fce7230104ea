// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The DSDT: what cannot be found by looking.

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Arg, Device, EISAName, IO, Interrupt, Memory32Fixed, Method, Name, ONE,
    Package, Path, ResourceTemplate, Return, Scope, ZERO,
};
use acpi_tables::sdt::Sdt;

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID};
use crate::machine::layout::{ECAM, ECAM_BUS, Layout, WINDOW_32};
use crate::machine::platform::{PORT_SERIAL, SERIAL_GSI, SERIAL_PORTS, SLEEP_TYPE_OFF};

/// Length of a table's header.
const HEADER: u32 = 36;
/// The revision from which AML integers have 64 bits.
const REVISION: u8 = 2;

/// The table for a machine of this layout whose PCI buses are 0 to `last_bus`.
pub fn table(layout: &Layout, last_bus: u8) -> Sdt {
    let mut body = Vec::new();
    root_bridge(layout, last_bus, &mut body);
    ecam_reservation(last_bus, &mut body);
    serial_port(&mut body);
    // Power-off: the sleep type of S5.
    Name::new("_S5_".into(), &Package::new(vec![&SLEEP_TYPE_OFF, &ZERO, &ZERO, &ZERO])).to_aml_bytes(&mut body);

    let mut table = Sdt::new(*b"DSDT", HEADER, REVISION, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    table.append_slice(&body);
    table
}

/// A device below the system bus.
fn device(name: &str, children: Vec<&dyn Aml>, body: &mut Vec<u8>) {
    let device = Device::new(Path::new(name), children);
    Scope::new(Path::new("_SB_"), vec![&device]).to_aml_bytes(body);
}

/// The PCI Express root: its buses and its windows.
fn root_bridge(layout: &Layout, last_bus: u8, body: &mut Vec<u8>) {
    let buses = AddressSpace::new_bus_number(0u16, last_bus.into());
    let config_ports = IO::new(0xcf8, 0xcf8, 1, 8);
    let window_32 = AddressSpace::new_memory(
        AddressSpaceCacheable::NotCacheable,
        true,
        WINDOW_32.start as u32,
        (WINDOW_32.end - 1) as u32,
        None,
    );
    let window_64 = AddressSpace::new_memory(
        AddressSpaceCacheable::PreFetchable,
        true,
        layout.window_64.start,
        layout.window_64.end - 1,
        None,
    );
    let resources = ResourceTemplate::new(vec![&buses, &config_ports, &window_32, &window_64]);
    device(
        "PCI0",
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0A08")),
            &Name::new("_CID".into(), &EISAName::new("PNP0A03")),
            &Name::new("_SEG".into(), &ZERO),
            &Name::new("_BBN".into(), &ZERO),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_CCA".into(), &ONE),
            &Name::new("_CRS".into(), &resources),
            // The system may control all PCI Express features: grant what it asks for.
            &Method::new("_OSC".into(), 4, false, vec![&Return::new(&Arg(3))]),
        ],
        body,
    );
}

/// ECAM as a motherboard resource: Linux uses it only if it is one.
fn ecam_reservation(last_bus: u8, body: &mut Vec<u8>) {
    let length = (u64::from(last_bus) + 1) * ECAM_BUS;
    let ecam = Memory32Fixed::new(true, ECAM.start as u32, length as u32);
    device(
        "ECAM",
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0C02")),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&ecam])),
        ],
        body,
    );
}

/// The serial port: without this Linux would not route its interrupt.
fn serial_port(body: &mut Vec<u8>) {
    let ports = IO::new(PORT_SERIAL, PORT_SERIAL, 1, SERIAL_PORTS);
    let interrupt = Interrupt::new(true, true, false, false, SERIAL_GSI);
    device(
        "COM1",
        vec![
            &Name::new("_HID".into(), &EISAName::new("PNP0501")),
            &Name::new("_UID".into(), &ZERO),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&ports, &interrupt])),
        ],
        body,
    );
}
