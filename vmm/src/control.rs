// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The control socket: a device's injection engine for programs on the host.
//!
//! A Unix socket of one user. The server greets a client with a line of JSON; each line that the client sends is a request, and has one
//! line for an answer, in the order of the requests ([`protocol`]). The shape is that of QEMU's monitor: `execute`, `arguments`, `id`; `return` or
//! `error`. [`requests`] carries out requests on a device, [`server`] serves clients, [`client`] is one; [`window`] is the same for programs in
//! the guest, without a socket. [`names`] explains what can
//! be named in a request.
//!
//! What a client sends is hostile: lines have a limit, each client has a thread of its own, and there are few of them.

pub mod client;
pub mod line;
pub mod names;
pub mod protocol;
pub mod requests;
pub mod server;
pub mod window;
