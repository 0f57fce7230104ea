// SPDX-License-Identifier: GPL-2.0
//! What keeps this module from being unloaded.

use crate::bindings;

/// Uses of this module, each of which keeps it loaded.
pub(crate) struct ModuleUses(usize);

impl ModuleUses {
    /// Takes this many uses; `None` if the module is being unloaded.
    pub(crate) fn take(count: usize) -> Option<Self> {
        let mut uses = Self(0);
        while uses.0 < count {
            // SAFETY: There are no requirements.
            if !unsafe { bindings::ersatz_module_get() } {
                return None;
            }
            uses.0 += 1;
        }
        Some(uses)
    }

    /// Leaves the uses to something that ends them by [`ModuleUses::end`].
    pub(crate) fn leave(self) {
        core::mem::forget(self);
    }

    /// Ends uses that were left. Called in any context.
    ///
    /// # Safety
    ///
    /// This many uses were left and have not ended; if they are the last ones, the code that calls this is waited for when the module is unloaded.
    pub(crate) unsafe fn end(count: usize) {
        drop(Self(count));
    }
}

impl Drop for ModuleUses {
    fn drop(&mut self) {
        for _ in 0..self.0 {
            // SAFETY: Each use was taken, and ends once. Whoever drops uses that may be the last was left them, and is waited for.
            unsafe { bindings::ersatz_module_put() };
        }
    }
}
