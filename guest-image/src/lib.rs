// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a guest is made of.
//!
//! `cargo xtask` builds a set of artifacts and writes a [`manifest::Manifest`] beside them; `ersatz run` reads it. The
//! other modules are shared by the two: which kernels are pinned, what is in their files, how an initramfs archive is
//! written, what a run brings into a guest and how it gets there.

pub mod build_tree;
pub mod bzimage;
pub mod cache;
pub mod collect;
pub mod contents;
pub mod error_chain;
pub mod hmm_test;
pub mod initramfs;
pub mod kernel_command_line;
pub mod kernel_file;
pub mod kernel_module;
pub mod kernel_release;
pub mod mailbox;
pub mod manifest;
pub mod module_folder;
pub mod outer;
pub mod pins;
pub mod ports;
pub mod run;
pub mod share;
pub mod test_mark;
