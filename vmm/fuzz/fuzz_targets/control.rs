// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Any lines of a client of the control socket, one after the other on one device: each has an answer of one line.
#![no_main]

use std::sync::Arc;

use ersatz::control::protocol::{Envelope, answer};
use ersatz::control::requests::carry_out;
use ersatz::gpu::registry::GpuRegistry;
use ersatz::gpu::{self, GpuAddress};
use ersatz::spec::GpuSpec;
use ersatz::vfio_user::interrupts::ClientInterrupts;
use ersatz_device_model::dma::MappedSpace;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let registry = GpuRegistry::default();
    let address = GpuAddress { registry: registry.clone(), ..GpuAddress::default() };
    let (memory, interrupts) = (Arc::new(MappedSpace::new()), Arc::new(ClientInterrupts::new(1)));
    let _gpu = gpu::build(&GpuSpec::new(2 << 20), &address, memory, interrupts).unwrap();
    for line in text.split(|byte| *byte == b'\n').take(64) {
        let line = match Envelope::parse(line) {
            // One that waits does not.
            Ok(envelope) => answer(carry_out(&envelope, &registry, &|| true), envelope.id),
            Err(failure) => answer(Err(failure), None),
        };
        assert!(!line.contains('\n'), "{line}");
    }
});
