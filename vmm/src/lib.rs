// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The Ersatz VMM and the one command line tool.
//!
//! [`spec`] describes what to run, [`outcome`] how it ended; the other modules are the ways to run it.

pub mod accel;
pub mod attachments;
pub mod bench;
pub mod bring;
pub mod cli;
pub mod collect;
pub mod console;
pub mod control;
pub mod emulated_host;
pub mod gpu;
pub mod guest_port;
pub mod launch;
pub mod machine;
pub mod outcome;
pub mod qemu;
pub mod share;
pub mod signals;
pub mod snapshot;
pub mod spec;
pub mod supervisor;
pub mod threads;
pub mod vfio;
pub mod vfio_user;
