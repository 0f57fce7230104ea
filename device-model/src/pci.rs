// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The PCI Express side of the device: config space, BARs, capabilities, MSI-X.
//!
//! [`config`] is config space as bytes with masks, [`bar`] and [`capability`] say what lies in it, [`function`] puts an
//! endpoint together and turns config writes into [`function::Change`]s, [`msix`] is the vector table. Nothing here
//! knows what the device computes.
//!
//! Glossary: **FLR** function level reset, **PBA** pending bit array, **D0** and **D3hot** the power states "on" and
//! "asleep with config space alive".

pub mod bar;
pub mod capability;
pub mod config;
pub mod function;
pub mod msix;
