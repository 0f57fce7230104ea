// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The PCI Express side of the device: config space, BARs, capabilities, MSI-X.
//!
//! [`config`] is config space as bytes with masks, [`bar`], [`capability`], [`resize`] and [`aer`] say what lies in it,
//! [`layout`] where the parts that several of them share, [`function`] puts an endpoint together and turns config writes into [`function::Change`]s, [`msix`] is the vector table,
//! [`tlp`] writes requests down as error reports have them. Nothing here knows what the device computes.
//!
//! Glossary: **AER** advanced error reporting, **FLR** function level reset, **PBA** pending bit array, **D0** and **D3hot** the
//! power states "on" and "asleep with config space alive".

pub mod aer;
pub mod bar;
pub mod capability;
pub mod config;
pub mod function;
pub mod layout;
pub mod msix;
pub mod resize;
pub mod tlp;
