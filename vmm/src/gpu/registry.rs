// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The GPUs of this process by their numbers, for those who reach them from outside of their machine.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use ersatz_device_model::gpu::Gpu;

/// The GPUs of one machine. Clones share their entries. An entry does not keep its GPU alive.
#[derive(Clone, Default)]
pub struct GpuRegistry(Arc<Mutex<BTreeMap<u8, Weak<Gpu>>>>);

impl GpuRegistry {
    /// Enters a GPU. One that had the number before is replaced.
    pub fn enter(&self, number: u8, gpu: &Arc<Gpu>) {
        self.lock().insert(number, Arc::downgrade(gpu));
    }

    /// Returns the GPU of this number; `None` if there is none, or it is gone.
    ///
    /// The GPU's threads and trace end only when the result is dropped: callers keep it for a moment, not while they wait for others.
    pub fn get(&self, number: u8) -> Option<Arc<Gpu>> {
        self.lock().get(&number)?.upgrade()
    }

    /// Returns the numbers of the GPUs that there are.
    pub fn numbers(&self) -> Vec<u8> {
        self.lock().iter().filter(|(_, gpu)| gpu.strong_count() > 0).map(|(number, _)| *number).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u8, Weak<Gpu>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for GpuRegistry {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("GpuRegistry").field(&self.numbers()).finish()
    }
}
