// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Plugging a mailbox into a machine that QEMU emulates.

use std::os::fd::RawFd;

use ersatz_guest_image::mailbox::SIZE;
use serde_json::{Value, json};

/// The monitor's commands that plug a mailbox into a root port. QEMU has inherited its memory as this descriptor.
///
/// It is plugged in after the state of the machine was loaded: QEMU refuses a state that leaves out memory which a BAR maps.
pub fn commands(memory: RawFd, port: &str) -> [(&'static str, Value); 2] {
    let memory = json!({
        "qom-type": "memory-backend-file",
        "id": "mailbox-memory",
        "size": SIZE,
        "mem-path": format!("/proc/self/fd/{memory}"),
        "share": true,
    });
    let device = json!({ "driver": "ivshmem-plain", "id": "mailbox", "memdev": "mailbox-memory", "bus": port, "multifunction": true });
    [("object-add", memory), ("device_add", device)]
}
