// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The guest's kernel: the stock packages, and a source tree that modules for exactly that kernel can be built with.

mod likeness;
pub mod packages;
pub mod tree;
