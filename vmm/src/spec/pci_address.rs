// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where a PCI function is on the machine that has it: domain, bus, device and function number.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Device numbers of a bus.
const DEVICES: u8 = 32;
/// Function numbers of a device.
const FUNCTIONS: u8 = 8;

/// The address of a PCI function, written as sysfs does: `0000:01:00.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PciAddress {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

/// A text is not the address of a PCI function.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is not the address of a PCI device; type it as `lspci -D` prints it, for example 0000:01:00.0")]
pub struct PciAddressError(String);

impl PciAddress {
    /// Returns the address of function 0 of device 0 on a bus of the first domain.
    pub const fn on_bus(bus: u8) -> Self {
        Self { domain: 0, bus, device: 0, function: 0 }
    }
}

impl FromStr for PciAddress {
    type Err = PciAddressError;

    /// Reads `DOMAIN:BUS:DEVICE.FUNCTION`; without a domain it is the first.
    fn from_str(text: &str) -> Result<Self, PciAddressError> {
        parse(text).ok_or_else(|| PciAddressError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<PciAddress> {
    let (rest, function) = text.rsplit_once('.')?;
    let (rest, device) = rest.rsplit_once(':')?;
    let (domain, bus) = rest.rsplit_once(':').unwrap_or(("0000", rest));
    let address = PciAddress {
        domain: hexadecimal(domain, 4..=8)?,
        bus: u8::try_from(hexadecimal(bus, 2..=2)?).ok()?,
        device: u8::try_from(hexadecimal(device, 2..=2)?).ok()?,
        function: u8::try_from(hexadecimal(function, 1..=1)?).ok()?,
    };
    (address.device < DEVICES && address.function < FUNCTIONS).then_some(address)
}

/// Reads a number with this many digits.
fn hexadecimal(text: &str, digits: std::ops::RangeInclusive<usize>) -> Option<u32> {
    let is_number = digits.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_number.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{}", self.domain, self.bus, self.device, self.function)
    }
}

impl From<PciAddress> for String {
    fn from(address: PciAddress) -> Self {
        address.to_string()
    }
}

impl TryFrom<String> for PciAddress {
    type Error = PciAddressError;

    fn try_from(text: String) -> Result<Self, PciAddressError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_read_as_lspci_prints_them() {
        let read = |text: &str| text.parse::<PciAddress>().map(|address| address.to_string());
        assert_eq!(read("0000:01:00.0").unwrap(), "0000:01:00.0");
        assert_eq!(read("3a:1f.7").unwrap(), "0000:3a:1f.7", "the first domain");
        assert_eq!(read("10000:E1:00.0").unwrap(), "10000:e1:00.0");
        for bad in ["", "01:00", "1:00.0", "01:20.0", "01:00.8", "0000:01:00.0 ", "0000:001:00.0", "+001:01:00.0", "x"]
        {
            let error = read(bad).unwrap_err().to_string();
            assert!(error.contains(&format!("'{bad}'")) && error.contains("0000:01:00.0"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_misread(text in "[0-9a-f:.]{0,14}|.{0,14}") {
            if let Ok(address) = text.parse::<PciAddress>() {
                prop_assert!(address.to_string().ends_with(&text.to_lowercase()));
            }
        }
    }
}
